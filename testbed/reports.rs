//! A tool at work that writes a report a line: `--json --interval`.

use crate::process::Process;
use crate::step;
use crate::tool::ENDS_WITHIN;
use serde::de::DeserializeOwned;
use std::fmt::Debug;
use std::marker::PhantomData;
use std::time::{Duration, Instant};

/// The tool, and its reports as far as `R` looks at them.
pub struct Reporting<'a, R> {
    /// The tool itself.
    pub process: Process<'a>,
    kind: PhantomData<fn() -> R>,
}

impl<'a, R: DeserializeOwned + Debug> Reporting<'a, R> {
    /// Of a process that has just been started so.
    pub fn of(process: Process<'a>) -> Reporting<'a, R> {
        Reporting {
            process,
            kind: PhantomData,
        }
    }

    /// A report that was begun after this call.
    #[track_caller]
    pub fn report(&self) -> R {
        parse(&self.process.next_line(ENDS_WITHIN))
    }

    /// Waits until a report is as wanted.
    #[track_caller]
    pub fn wait_until(&self, what: &str, within: Duration, wanted: impl Fn(&R) -> bool) -> R {
        let deadline = Instant::now() + within;
        loop {
            let report = self.report();
            if wanted(&report) {
                return report;
            }
            assert!(
                Instant::now() < deadline,
                "not within {within:?}: {what}; {report:?}"
            );
        }
    }

    /// Presses Enter. The last report.
    #[track_caller]
    pub fn finish(mut self) -> R {
        self.process.write("\n");
        let ended = self.process.finish(ENDS_WITHIN);
        ended.assert_code(0);
        parse(ended.stdout.lines().next_back().unwrap_or_default())
    }
}

#[track_caller]
fn parse<R: DeserializeOwned>(line: &str) -> R {
    step(format!("parse {line:?}"), serde_json::from_str(line))
}
