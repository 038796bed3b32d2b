//! How every tool prints its reports: JSON lines, or a picture that is drawn anew in its place.

use std::fmt::Display;
use std::io::{self, ErrorKind};

use anyhow::Result;
use serde::Serialize;

use crate::failure::say;
use crate::notation::grouped;
use crate::output::Output;

/// How a run is ended, said wherever it waits for that.
pub const PROMPT: &str = "Press enter when finished: ";

/// Prints what can be shown both ways.
#[derive(Debug)]
pub struct Printer {
    json: bool,
    prompt: &'static str,
    output: Output,
    /// Whether the user knows that reports cannot be written.
    told: bool,
}

impl Printer {
    /// To standard output, with this prompt below what is drawn. To be made before privileges are dropped:
    /// see [`Output::open`].
    pub fn new(json: bool, prompt: &'static str) -> Printer {
        Printer {
            json,
            prompt,
            output: Output::open(),
            told: false,
        }
    }

    /// Reports that were left out because nobody took the ones before.
    pub fn skipped(&self) -> u64 {
        self.output.skipped()
    }

    /// One of many. That nobody reads them any more is an error; that they cannot be written otherwise,
    /// to a full disk perhaps, is said once and does not end what is reported.
    pub fn interim(&mut self, report: &(impl Serialize + Display)) -> Result<()> {
        let written = if self.json {
            self.output.line(&serde_json::to_string(report)?)
        } else {
            self.output.draw(&report.to_string(), self.prompt)
        };
        match written {
            Err(error) if error.kind() != ErrorKind::BrokenPipe => self.tell(&error),
            written => written?,
        }
        Ok(())
    }

    fn tell(&mut self, error: &io::Error) {
        if !std::mem::replace(&mut self.told, true) {
            say(format_args!(
                "reports cannot be written: {error}; the run goes on"
            ));
        }
    }

    /// The last one.
    pub fn conclude(&mut self, report: &(impl Serialize + Display)) -> Result<()> {
        // What the user typed has moved the cursor, so an old picture stays where it is.
        let gap = if self.json { "" } else { "\n" };
        self.only(gap, report)
    }

    /// The only one.
    pub fn single(&mut self, report: &(impl Serialize + Display)) -> Result<()> {
        self.only("", report)
    }

    fn only(&mut self, gap: &str, report: &(impl Serialize + Display)) -> Result<()> {
        let words = if self.json {
            serde_json::to_string(report)? + "\n"
        } else {
            report.to_string()
        };
        Ok(self.output.conclude(&format!("{gap}{words}"))?)
    }
}

/// Of these figures those that a reader should know of, because they are not 0, in his words.
pub fn notes<const N: usize>(figures: [(u64, &str); N]) -> Vec<String> {
    let remarkable = figures.into_iter().filter(|(count, _)| *count > 0);
    remarkable
        .map(|(count, text)| format!("{} {text}", grouped(count)))
        .collect()
}

/// How what was dropped is called where nothing is.
pub fn dropped(dry_run: bool) -> &'static str {
    if dry_run { "would drop" } else { "dropped" }
}

/// A line about reports that nobody took, where there are any.
pub fn skipped_reports(count: u64) -> String {
    match count {
        0 => String::new(),
        count => format!(
            "{} reports left out: nobody took the ones before\n",
            grouped(count)
        ),
    }
}
