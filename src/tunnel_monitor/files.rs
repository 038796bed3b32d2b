//! The original's files, data/tunnel.json and data/tunnel-delta.json, for those who read files.
//!
//! Each is written beside its place and then moved there: whoever reads it sees all of one or of the other.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::rows::{Which, write_rows};
use super::sample::Sample;
use crate::failure::say;

/// Writes them.
#[derive(Debug)]
pub struct Files {
    folder: PathBuf,
    /// Whether the user knows that they cannot be written.
    told: bool,
}

impl Files {
    /// Into this folder, which is made where it is not there.
    pub fn open(folder: &Path) -> Result<Files> {
        fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
        let files = Files {
            folder: folder.to_owned(),
            told: false,
        };
        // What cannot be written at all is said at once.
        drop(files.draft(Which::Totals)?);
        Ok(files)
    }

    /// Writes them. That they cannot be written, to a full disk perhaps, is said once and does not end
    /// what is counted.
    pub fn write(&mut self, sample: &Sample) {
        let written = [Which::Totals, Which::Window].map(|which| self.replace(which, sample));
        let problem = written.into_iter().find_map(Result::err);
        if let (Some(error), false) = (&problem, self.told) {
            say(format_args!("{error:#}; the run goes on"));
        }
        self.told = problem.is_some();
    }

    fn replace(&self, which: Which, sample: &Sample) -> Result<()> {
        let draft = self.draft_path(which);
        let place = self.folder.join(file_name(which));
        let written = self.draft(which).and_then(|file| {
            let mut out = BufWriter::new(file);
            let written = write_rows(&mut out, sample, which).and_then(|()| out.flush());
            written.with_context(|| format!("write {}", draft.display()))?;
            fs::rename(&draft, &place).with_context(|| format!("write {}", place.display()))
        });
        if written.is_err() {
            // The one before stays where it is.
            let _ = fs::remove_file(&draft);
        }
        written
    }

    fn draft(&self, which: Which) -> Result<File> {
        let path = self.draft_path(which);
        let write = || -> io::Result<File> {
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            // New: never through a link that somebody has put there.
            OpenOptions::new().write(true).create_new(true).open(&path)
        };
        write().with_context(|| format!("write {}", path.display()))
    }

    fn draft_path(&self, which: Which) -> PathBuf {
        self.folder.join(format!(".{}.new", file_name(which)))
    }
}

/// The original's names.
fn file_name(which: Which) -> &'static str {
    match which {
        Which::Totals => "tunnel.json",
        Which::Window => "tunnel-delta.json",
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        for which in [Which::Totals, Which::Window] {
            // There is one only where a write came to nothing.
            let _ = fs::remove_file(self.draft_path(which));
        }
    }
}
