//! What is done with each sample: it is shown over HTTP, written into files and reported.

use std::sync::Arc;

use anyhow::Result;
use tokio::sync::watch;

use super::arguments::Arguments;
use super::report::Report;
use super::sample::Sample;
use super::sampler::{Sampler, Source};
use crate::http::{self, Listening, Server};
use crate::report::Printer;

/// The original's words.
pub const PROMPT: &str = "Press enter to quit: ";

/// Takes samples and passes them on.
#[derive(Debug)]
pub struct Recorder {
    sampler: Sampler,
    feed: watch::Sender<Arc<Sample>>,
    printer: Printer,
    /// Report every window; otherwise only the end.
    reports: bool,
}

impl Recorder {
    /// Counting begins now, at these interfaces. To be made before privileges are dropped: see
    /// [`Printer::new`].
    pub fn new(arguments: &Arguments, interfaces: Vec<String>) -> Result<Recorder> {
        let monitoring = &arguments.monitoring;
        let first = Sample::empty(interfaces, monitoring.max_entries);
        let sampler = Sampler::new(first, arguments.window(), monitoring.forget_after);
        let mut recorder = Recorder {
            feed: watch::Sender::new(Arc::clone(sampler.sample())),
            sampler,
            printer: Printer::new(arguments.common.json, PROMPT),
            reports: arguments.common.interval.is_some(),
        };
        recorder.write_files();
        Ok(recorder)
    }

    /// Where readers get the latest sample.
    pub fn feed(&self) -> watch::Receiver<Arc<Sample>> {
        self.feed.subscribe()
    }

    /// Shows the samples over HTTP.
    pub fn serve(
        &self,
        arguments: &Arguments,
        listening: Option<Listening>,
    ) -> Result<Option<Server>> {
        let options = http::Options {
            allow_hosts: arguments.allow_host.clone(),
            ..http::Options::default()
        };
        let serve = |listening: Listening| listening.serve(axum::Router::new(), options);
        listening.map(serve).transpose()
    }

    /// The interfaces from the next sample on.
    pub fn set_interfaces(&mut self, names: Vec<String>) {
        self.sampler.set_interfaces(names);
    }

    /// Takes the next sample.
    pub fn record(&mut self, source: &mut impl Source) -> Result<()> {
        let window = Arc::clone(&self.sampler.sample().window.after);
        let sample = self.sampler.take(source)?;
        // Whoever reads has the sample for himself: nobody is waited for.
        self.feed.send_replace(Arc::clone(&sample));
        if Arc::ptr_eq(&sample.window.after, &window) {
            return Ok(());
        }
        self.write_files();
        if self.reports {
            let report = Report::of(&sample, false, self.printer.skipped());
            self.printer.interim(&report)?;
        }
        Ok(())
    }

    fn write_files(&mut self) {}

    /// Takes the last sample, and prints the last word.
    pub fn conclude(&mut self, source: &mut impl Source) -> Result<()> {
        let sample = self.sampler.take(source)?;
        self.feed.send_replace(Arc::clone(&sample));
        self.write_files();
        let report = Report::of(&sample, true, self.printer.skipped());
        self.printer.conclude(&report)
    }
}
