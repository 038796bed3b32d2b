//! What is done with each sample: it is shown over HTTP, written into files and reported.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Result;
use tokio::sync::watch;

use super::arguments::Arguments;
use super::files::Files;
use super::groups::Groups;
use super::metrics;
use super::report::Report;
use super::sample::Sample;
use super::sampler::{Sampler, Source};
use super::web;
use crate::http::{self, Listening, Server};
use crate::metrics::Exporter;
use crate::report::Printer;

/// The original's words.
pub const PROMPT: &str = "Press enter to quit: ";

/// Where samples are to go, made ready before anything is changed.
#[derive(Debug)]
pub struct Outlets {
    http: Option<Listening>,
    metrics: Exporter,
    files: Option<Files>,
}

impl Outlets {
    /// Those that the command line asks for.
    pub fn open(arguments: &Arguments) -> Result<Outlets> {
        Ok(Outlets {
            http: arguments.listen().map(http::bind).transpose()?,
            metrics: Exporter::bind("tunnel_monitor", arguments.common.metrics)?,
            files: arguments.data_dir.as_deref().map(Files::open).transpose()?,
        })
    }
}

/// Takes samples and passes them on.
#[derive(Debug)]
pub struct Recorder {
    sampler: Sampler,
    feed: watch::Sender<Arc<Sample>>,
    files: Option<Files>,
    /// Until it is served.
    listening: Option<Listening>,
    server: Option<Server>,
    metrics: Exporter,
    groups: Groups,
    printer: Printer,
    /// Report every window; otherwise only the end.
    reports: bool,
}

impl Recorder {
    /// Counting begins now, at these interfaces. To be made before privileges are dropped: see
    /// [`Printer::new`].
    pub fn new(arguments: &Arguments, outlets: Outlets, interfaces: Vec<String>) -> Recorder {
        let monitoring = &arguments.monitoring;
        let first = Sample::empty(interfaces, monitoring.max_entries);
        let sampler = Sampler::new(first, arguments.window(), monitoring.forget_after);
        let mut recorder = Recorder {
            feed: watch::Sender::new(Arc::clone(sampler.sample())),
            sampler,
            files: outlets.files,
            listening: outlets.http,
            server: None,
            metrics: outlets.metrics,
            groups: Groups::default(),
            printer: Printer::new(arguments.common.json, PROMPT),
            reports: arguments.common.interval.is_some(),
        };
        recorder.write_files();
        recorder
    }

    fn feed(&self) -> watch::Receiver<Arc<Sample>> {
        self.feed.subscribe()
    }

    /// Shows the samples over HTTP. To be called after privileges are dropped, where they are: it starts a
    /// thread.
    pub fn serve(&mut self, arguments: &Arguments) -> Result<()> {
        let options = http::Options {
            allow_hosts: arguments.allow_host.clone(),
            ..http::Options::default()
        };
        if let Some(listening) = self.listening.take() {
            let about = web::About::of(arguments)?;
            let router = web::router(self.feed(), about).merge(self.metrics.router());
            self.server = Some(listening.serve(router, options)?);
        }
        let sample = self.sampler.sample();
        let (groups, skipped) = (&mut self.groups, self.printer.skipped());
        self.metrics
            .serve(|| Ok(metrics::figures(sample, groups, skipped)))
    }

    /// Where HTTP listens, if it does.
    pub fn http(&self) -> Option<SocketAddr> {
        self.server.as_ref().map(Server::local_addr)
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
        if let Some(server) = &mut self.server {
            server.check()?;
        }
        let (groups, skipped) = (&mut self.groups, self.printer.skipped());
        self.metrics
            .publish(|| Ok(metrics::figures(&sample, groups, skipped)))?;
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

    fn write_files(&mut self) {
        if let Some(files) = &mut self.files {
            files.write(self.sampler.sample());
        }
    }

    /// Takes the last sample, and prints the last word. Readers are cut.
    pub fn conclude(&mut self, source: &mut impl Source) -> Result<()> {
        let sample = self.sampler.take(source)?;
        self.server = None;
        self.write_files();
        let report = Report::of(&sample, true, self.printer.skipped());
        self.printer.conclude(&report)
    }
}
