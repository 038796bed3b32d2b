//! Files of settings that people write: TOML, every error with its line.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::ops::Range;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use toml::Spanned;

use crate::Failure;

/// The entries of a table in the order in which they are written.
#[derive(Deserialize)]
#[serde(from = "BTreeMap<Spanned<String>, Spanned<T>>")]
#[serde(bound = "T: Deserialize<'de>")]
pub struct Named<T>(pub Vec<(Spanned<String>, Spanned<T>)>);

impl<T> Default for Named<T> {
    fn default() -> Self {
        Named(Vec::new())
    }
}

impl<T> From<BTreeMap<Spanned<String>, Spanned<T>>> for Named<T> {
    fn from(entries: BTreeMap<Spanned<String>, Spanned<T>>) -> Self {
        let mut entries: Vec<_> = entries.into_iter().collect();
        entries.sort_by_key(|(name, _)| name.span().start);
        Named(entries)
    }
}

/// The text, to say where in it something is wrong.
#[derive(Clone, Copy, Debug)]
pub struct Source<'a> {
    /// The file's name.
    pub file: &'a str,
    /// What is in it.
    pub text: &'a str,
}

/// Adds where it is to what is wrong.
pub trait At<T> {
    /// At this place of the text.
    fn at(self, source: &Source<'_>, span: Range<usize>) -> Result<T, Failure>;
}

impl<T, E: Display> At<T> for Result<T, E> {
    fn at(self, source: &Source<'_>, span: Range<usize>) -> Result<T, Failure> {
        self.map_err(|problem| refusal(source.file, source.line(&span), &problem.to_string()))
    }
}

impl Source<'_> {
    /// The line on which this place is.
    pub fn line(&self, span: &Range<usize>) -> usize {
        line_of(self.text.as_bytes(), span.start)
    }

    /// What the text says, where it has the shape of `T`.
    pub fn document<T: DeserializeOwned>(&self) -> Result<T, Failure> {
        toml::from_str(self.text).map_err(|error| {
            let line = self.line(&error.span().unwrap_or_default());
            refusal(self.file, line, error.message())
        })
    }
}

/// The text of the file; none: there is no such file. `what` it is to be is named in errors, and whoever
/// names a disk image, more than `largest` bytes, has made a mistake.
pub fn read(path: &str, what: &str, largest: u64) -> Result<Option<String>, Failure> {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(largest + 1).read_to_end(&mut bytes));
    match read {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(in_one_line(&format!("read {path}: {error}"))),
        Ok(length) if length as u64 > largest => {
            let problem = format!("{path} is no {what}: it has more than {largest} bytes");
            return Err(in_one_line(&problem));
        }
        Ok(_) => {}
    }
    let text = String::from_utf8(bytes).map_err(|error| {
        let line = line_of(error.as_bytes(), error.utf8_error().valid_up_to());
        refusal(path, line, "this is not UTF-8 text")
    })?;
    Ok(Some(text))
}

/// Says where and what.
pub fn refusal(file: &str, line: usize, problem: &str) -> Failure {
    in_one_line(&format!("{file}:{line}: {problem}"))
}

/// Names and expressions are quoted as they are, and they can be anything.
pub fn in_one_line(text: &str) -> Failure {
    let mut line = String::new();
    for c in text.chars() {
        if c.is_control() {
            line.extend(c.escape_default());
        } else {
            line.push(c);
        }
    }
    Failure::Usage(line)
}

/// Lines count from 1.
fn line_of(text: &[u8], position: usize) -> usize {
    let before = &text[..position.min(text.len())];
    1 + before.iter().filter(|byte| **byte == b'\n').count()
}
