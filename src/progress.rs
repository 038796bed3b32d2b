//! Steps of something that may take long: told once it does.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use crate::failure::say;

/// What is over sooner needs no progress.
const LONG: Duration = Duration::from_secs(2);

/// Tells steps on stderr, in one place on a terminal and in a line each elsewhere; gone from the terminal
/// when it is dropped.
#[derive(Debug)]
pub struct Progress {
    started: Instant,
    /// Every step, from the first on.
    verbose: bool,
    terminal: bool,
    shown: bool,
}

impl Progress {
    /// From now on.
    pub fn new(verbose: bool) -> Progress {
        Progress {
            started: Instant::now(),
            verbose,
            terminal: io::stderr().is_terminal(),
            shown: false,
        }
    }

    /// The next step begins.
    pub fn step(&mut self, step: &str) {
        if self.verbose {
            say(format_args!("{step}"));
        } else if self.started.elapsed() >= LONG {
            self.shown = true;
            if self.terminal {
                // That nobody sees it is no reason to end.
                let _ = write!(io::stderr(), "\r\x1b[K{step}");
            } else {
                say(format_args!("{step}"));
            }
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.shown && self.terminal {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}
