//! Latencies as an HdrHistogram log: a line for each interval, which its tools read and plot.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, anyhow};
use hdrhistogram::serialization::V2DeflateSerializer;
use hdrhistogram::serialization::interval_log::IntervalLogWriterBuilder;

use super::tally::Tally;

/// The tools show milliseconds; histograms have nanoseconds.
const NS_PER_MS: f64 = 1e6;

/// The log, as it is written.
pub struct HistogramLog {
    path: PathBuf,
    file: BufWriter<File>,
    /// When its first interval begins, and where the last one ended.
    began: Option<(SystemTime, Instant, Duration)>,
}

impl HistogramLog {
    /// A new one; another file of that name is overwritten.
    pub fn create(path: &Path) -> Result<HistogramLog> {
        let file = File::create(path).with_context(|| writing(path))?;
        Ok(HistogramLog {
            path: path.to_owned(),
            file: BufWriter::new(file),
            began: None,
        })
    }

    /// Intervals follow from now on.
    pub fn begin(&mut self) {
        self.began = Some((SystemTime::now(), Instant::now(), Duration::ZERO));
    }

    /// The latencies of the interval that ends now.
    pub fn write(&mut self, tally: &Tally) -> Result<()> {
        let (time, at, from) = self.began.context("the log was not begun")?;
        let until = at.elapsed();
        let mut serializer = V2DeflateSerializer::new();
        let mut builder = IntervalLogWriterBuilder::new();
        builder.with_max_value_divisor(NS_PER_MS);
        if from.is_zero() {
            builder.add_comment("netbpf tcp_hold: latencies in nanoseconds");
            builder.with_start_time(time);
            builder.with_base_time(time);
        }
        let mut lines = Vec::new();
        let mut writer = builder
            .begin_log_with(&mut lines, &mut serializer)
            .with_context(|| writing(&self.path))?;
        writer
            .write_histogram(&tally.latencies, from, until - from, None)
            .map_err(|error| anyhow!("{error:?}").context(writing(&self.path)))?;
        drop(writer);
        self.began = Some((time, at, until));
        // A log has one head; each writer writes one, of which only the first has the times.
        let text = String::from_utf8(lines).context("a log is text")?;
        let is_new = |line: &&str| from.is_zero() || !line.starts_with('#');
        for line in text.lines().filter(is_new) {
            writeln!(self.file, "{line}").with_context(|| writing(&self.path))?;
        }
        Ok(())
    }

    /// All of it is in the file.
    pub fn finish(mut self) -> Result<()> {
        self.file.flush().with_context(|| writing(&self.path))
    }
}

fn writing(path: &Path) -> String {
    format!("write {}", path.display())
}
