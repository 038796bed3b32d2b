//! The file, of which every moment leaves whole blocks only.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};

use nix::libc::{O_CLOEXEC, O_NOFOLLOW, O_NONBLOCK};

use crate::Failure;
use crate::settings::in_one_line;

/// Whose packets they are is nobody's business but the owner's.
const MODE: u32 = 0o600;

/// An open file of blocks.
#[derive(Debug)]
pub(super) struct Blocks {
    file: File,
    /// Bytes of whole blocks.
    whole: u64,
    most: u64,
}

impl Blocks {
    /// Made anew, or emptied. Nothing but a plain file: a pipe would make us wait for its reader.
    pub(super) fn create(path: &str, most: u64) -> Result<Blocks, Failure> {
        let refuse = |problem: &str| in_one_line(&format!("write {path}: {problem}"));
        let mut options = OpenOptions::new();
        options
            .write(true)
            .create(true)
            .mode(MODE)
            .custom_flags(O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
        let open = || {
            let file = options.open(path)?;
            let is_plain = file.metadata()?.is_file();
            Ok((file, is_plain))
        };
        let (file, is_plain) = open().map_err(|error: io::Error| refuse(&error.to_string()))?;
        if !is_plain {
            return Err(refuse("it is no plain file"));
        }
        file.set_len(0)
            .map_err(|error| refuse(&error.to_string()))?;
        Ok(Blocks {
            file,
            whole: 0,
            most,
        })
    }

    /// Appends blocks: all of them, or none where there is no room for them.
    pub(super) fn append(&mut self, blocks: &[u8]) -> io::Result<()> {
        let end = self.whole + blocks.len() as u64;
        if end > self.most {
            let text = format!(
                "it has {} bytes, and --trace-size allows no more",
                self.whole
            );
            return Err(io::Error::other(text));
        }
        self.append_last(blocks)
    }

    /// The same for what closes the file.
    pub(super) fn append_last(&mut self, blocks: &[u8]) -> io::Result<()> {
        let written = self.file.write_all_at(blocks, self.whole);
        match written {
            Ok(()) => self.whole += blocks.len() as u64,
            // A part of a block would spoil what comes behind it. Where even that fails, the first error tells.
            Err(_) => drop(self.file.set_len(self.whole)),
        }
        written
    }
}
