//! What the simulation's servers and clients say on stderr while they work.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use crate::notation::grouped;
use crate::output::Output;

/// Where servers and clients say what they do. Clones say it in the same place.
#[derive(Debug, Clone)]
pub enum Log {
    /// Nowhere: reports are drawn in place, and lines between them would spoil the picture.
    Quiet,
    /// On stderr.
    Lines(Arc<Mutex<Lines>>),
}

/// Standard error, never waited for: a reader that has stopped must not stop servers and clients.
#[derive(Debug)]
pub struct Lines {
    output: Output,
    /// Of the lines that nobody took, those that have been told of.
    told: u64,
}

impl Log {
    /// On stderr. To be called before privileges are dropped: see [`Output::open`].
    pub fn to_stderr() -> Log {
        Log::Lines(Arc::new(Mutex::new(Lines {
            output: Output::open_stderr(),
            told: 0,
        })))
    }

    /// Says a line.
    pub(super) fn line(&self, line: fmt::Arguments<'_>) {
        if let Log::Lines(lines) = self {
            // Whoever panicked while holding it has left a whole line, or a part that goes on.
            lines
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .say(line);
        }
    }
}

impl Lines {
    /// About lines that nobody took, where there are some that have not been told of.
    fn note(&self) -> Option<String> {
        let lost = self.output.skipped() - self.told;
        let lost = (lost > 0).then(|| grouped(lost))?;
        Some(format!(
            "{lost} lines left out: nobody took the ones before"
        ))
    }

    fn say(&mut self, line: fmt::Arguments<'_>) {
        let skipped = self.output.skipped();
        let text = match self.note() {
            None => line.to_string(),
            Some(note) => format!("{note}\n{line}"),
        };
        // That it cannot be written, for nobody reads it or the disk is full, is no reason to end.
        let _ = self.output.line(&text);
        if self.output.skipped() == skipped {
            self.told = skipped;
        }
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        if let Some(note) = self.note() {
            // As above.
            let _ = self.output.line(&note);
        }
    }
}
