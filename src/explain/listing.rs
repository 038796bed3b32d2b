//! What is explained, as lines for readers or as JSON.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Write};

use anyhow::Result;
use serde::Serialize;

use super::Reason;
use super::endpoints::Endpoints;
use crate::capture::Packet;
use crate::ground::Verdict;
use crate::notation::{counted, grouped};

/// Version of the JSON lines; a field that changes its meaning makes a new one.
const SCHEMA: &str = "netbpf.explain/1";

/// One packet.
pub(super) struct Line<'a> {
    pub packet: &'a Packet,
    /// Seconds since the first packet.
    pub time: f64,
    pub endpoints: Endpoints,
    /// None: it was not run.
    pub verdict: Option<Verdict>,
    pub reason: Reason,
}

/// All packets.
#[derive(Default, Serialize)]
pub(super) struct Summary {
    packets: u64,
    passed: u64,
    dropped: u64,
    would_drop: u64,
    /// Less than a header was captured of them.
    not_run: u64,
    /// Not all of them was captured.
    cut: u64,
    /// Earlier than a packet before.
    pub(super) earlier: u64,
    /// Packets by reason.
    reasons: BTreeMap<&'static str, u64>,
}

impl Summary {
    pub(super) fn add(&mut self, line: &Line<'_>) {
        self.packets += 1;
        *match line.verdict {
            Some(Verdict::Pass) => &mut self.passed,
            Some(Verdict::Drop) => &mut self.dropped,
            Some(Verdict::WouldDrop) => &mut self.would_drop,
            None => &mut self.not_run,
        } += 1;
        self.cut += u64::from(line.packet.is_cut());
        *self.reasons.entry(line.reason.name).or_default() += 1;
    }
}

/// Where the lines go.
pub(super) struct Listing {
    tool: &'static str,
    json: bool,
}

#[derive(Serialize)]
struct JsonLine<'a> {
    schema: &'static str,
    tool: &'static str,
    packet: u64,
    time: f64,
    source: &'a str,
    destination: &'a str,
    protocol: &'a str,
    length: u32,
    captured: u32,
    verdict: &'static str,
    reason: &'static str,
    text: &'a str,
    /// Seconds.
    wait: Option<f64>,
}

#[derive(Serialize)]
struct JsonSummary<'a> {
    schema: &'static str,
    tool: &'static str,
    summary: &'a Summary,
}

fn word(verdict: Option<Verdict>) -> &'static str {
    verdict.map_or("not run", Verdict::word)
}

impl Listing {
    pub(super) fn new(tool: &'static str, json: bool) -> Result<Listing> {
        if !json {
            writeln!(
                io::stdout(),
                "{:>6} {:>12}  {:<44} {:>6}  {:<10} reason",
                "packet",
                "seconds",
                "who",
                "bytes",
                "verdict"
            )?;
        }
        Ok(Listing { tool, json })
    }

    pub(super) fn line(&mut self, line: &Line<'_>) -> Result<()> {
        let mut out = io::stdout().lock();
        if !self.json {
            return Ok(writeln!(out, "{line}")?);
        }
        let line = JsonLine {
            schema: SCHEMA,
            tool: self.tool,
            packet: line.packet.number,
            time: line.time,
            source: &line.endpoints.source,
            destination: &line.endpoints.destination,
            protocol: &line.endpoints.protocol,
            length: line.packet.length,
            captured: line.packet.captured,
            verdict: word(line.verdict),
            reason: line.reason.name,
            text: &line.reason.text,
            wait: line.reason.wait.map(|wait| wait.as_secs_f64()),
        };
        Ok(writeln!(out, "{}", serde_json::to_string(&line)?)?)
    }

    pub(super) fn conclude(&mut self, summary: &Summary) -> Result<()> {
        let mut out = io::stdout().lock();
        if !self.json {
            return Ok(write!(out, "\n{summary}")?);
        }
        let summary = JsonSummary {
            schema: SCHEMA,
            tool: self.tool,
            summary,
        };
        Ok(writeln!(out, "{}", serde_json::to_string(&summary)?)?)
    }
}

impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Endpoints {
            source,
            destination,
            protocol,
        } = &self.endpoints;
        let who = format!("{source} > {destination} {protocol}");
        let verdict = word(self.verdict);
        let (number, time, length) = (self.packet.number, self.time, self.packet.length);
        write!(
            f,
            "{number:>6} {time:>12.6}  {who:<44} {length:>6}  {verdict:<10} {}",
            self.reason.text
        )?;
        if self.packet.is_cut() {
            write!(f, " (captured: {} bytes)", self.packet.captured)?;
        }
        Ok(())
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: {} passed",
            counted(self.packets as usize, "packet"),
            grouped(self.passed)
        )?;
        for (count, what) in [
            (self.dropped, "dropped"),
            (self.would_drop, "would be dropped"),
            (self.not_run, "not run"),
        ] {
            if count > 0 {
                write!(f, ", {} {what}", grouped(count))?;
            }
        }
        writeln!(f)?;
        for (reason, count) in &self.reasons {
            writeln!(f, "{:>8}  {}", grouped(*count), reason.replace('_', " "))?;
        }
        for (count, what) in [
            (
                self.cut,
                "not captured to their end; what is missing was not there for the program",
            ),
            (
                self.earlier,
                "earlier than one before, and judged at that one's time",
            ),
        ] {
            if count > 0 {
                writeln!(f, "{:>8}  {what}", grouped(count))?;
            }
        }
        Ok(())
    }
}
