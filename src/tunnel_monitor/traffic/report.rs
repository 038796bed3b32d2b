//! What was sent and what came of it, as JSON lines and as a table.

use std::fmt;
use std::net::IpAddr;
use std::time::{Instant, SystemTime};

use anyhow::Result;
use serde::Serialize;

use super::list::{Load, headers};
use super::senders::{Tally, Volume};
use super::sites::Route;
use crate::notation::{bytes, grouped};
use crate::report::{PROMPT, Printer, skipped_reports};

/// Version of the JSON report; a field that changes its meaning makes a new one.
const SCHEMA: &str = "netbpf.tunnel_monitor.traffic/1";
/// Of an Ethernet header.
const ETHERNET: u16 = 14;
/// Lines of a table that is drawn in its place; of longer lists it shows the sums only.
const MOST_LINES: usize = 40;

/// The figures of one moment, counted from the start.
#[derive(Clone, Debug, Serialize)]
struct Report {
    schema: &'static str,
    /// Seconds since 1970.
    time: f64,
    /// Seconds since the start.
    elapsed: f64,
    /// The last report of a run.
    r#final: bool,
    /// In the order of the list.
    entries: Vec<EntryReport>,
    /// Reports that were left out because nobody took the ones before.
    skipped_reports: u64,
}

#[derive(Clone, Debug, Serialize)]
struct EntryReport {
    #[serde(flatten)]
    subject: Subject,
    sent: Sum,
    received: Sum,
    failed: u64,
    /// Why the last of them failed.
    problem: Option<String>,
}

/// What is always the same of an entry.
#[derive(Clone, Debug, Serialize)]
struct Subject {
    from: String,
    to: IpAddr,
    /// The host that has the address.
    to_host: Option<String>,
    kind: &'static str,
    /// Bytes that a packet carries; null for a stream.
    size: Option<u16>,
    /// Bytes of its Ethernet frame, as the client sends it; null for a stream.
    frame: Option<u16>,
    /// Nothing of it is ever on the wire.
    local: bool,
}

/// Packets (null for a stream, of which they are not counted) and the bytes that they carry.
#[derive(Clone, Copy, Debug, Serialize)]
struct Sum {
    packets: Option<u64>,
    bytes: u64,
}

/// Takes reports and prints them.
#[derive(Debug)]
pub struct Reporter {
    printer: Printer,
    subjects: Vec<Subject>,
    started: Instant,
}

impl Reporter {
    /// Starts counting time now. To be made before privileges are dropped: see [`Printer::new`].
    pub fn new(json: bool, routes: &[Route<'_>]) -> Reporter {
        Reporter {
            printer: Printer::new(json, PROMPT),
            subjects: routes.iter().map(Subject::new).collect(),
            started: Instant::now(),
        }
    }

    /// Prints what is counted so far.
    pub fn interim(&mut self, tallies: &[Tally]) -> Result<()> {
        let report = self.take(tallies, false);
        self.printer.interim(&report)
    }

    /// Prints the last word.
    pub fn conclude(&mut self, tallies: &[Tally]) -> Result<()> {
        let report = self.take(tallies, true);
        self.printer.conclude(&report)
    }

    fn take(&self, tallies: &[Tally], r#final: bool) -> Report {
        let time = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        let subjects = self.subjects.iter().zip(tallies);
        Report {
            schema: SCHEMA,
            time: time.as_secs_f64(),
            elapsed: self.started.elapsed().as_secs_f64(),
            r#final,
            entries: subjects
                .map(|(subject, tally)| subject.report(tally))
                .collect(),
            skipped_reports: self.printer.skipped(),
        }
    }
}

impl Subject {
    fn new(route: &Route<'_>) -> Subject {
        let entry = route.entry;
        let (kind, size) = match entry.load {
            Load::Ping(packets) => ("ping", Some(packets.size)),
            Load::Udp(packets) => ("udp", Some(packets.size)),
            Load::Tcp(_) => ("tcp", None),
        };
        Subject {
            from: route.from.into(),
            to: entry.to,
            to_host: route.to.map(str::to_owned),
            kind,
            size,
            frame: size.map(|size| ETHERNET + headers(entry.to) + size),
            local: route.is_local(),
        }
    }

    fn report(&self, tally: &Tally) -> EntryReport {
        let sum = |volume: Volume| Sum {
            packets: self.size.map(|_| volume.packets),
            bytes: volume.bytes,
        };
        EntryReport {
            subject: self.clone(),
            sent: sum(tally.sent),
            received: sum(tally.received),
            failed: tally.failed,
            problem: tally.problem.clone(),
        }
    }
}

/// 80 columns: who, whom, what, how large, what was sent and what came, both in packets or bytes.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let row = |f: &mut fmt::Formatter<'_>,
                   [from, to, kind, size, sent, came, failed]: [&str; 7]| {
            let line =
                format!("{from:<8} {to:<22} {kind:<5} {size:>5} {sent:>11} {came:>11} {failed:>9}");
            writeln!(f, "{}", line.trim_end())
        };
        row(
            f,
            ["from", "to", "kind", "size", "sent", "received", "failed"],
        )?;
        if self.entries.len() <= MOST_LINES {
            for entry in &self.entries {
                let subject = &entry.subject;
                let size = subject
                    .size
                    .map_or_else(String::new, |size| size.to_string());
                row(
                    f,
                    [
                        &subject.from,
                        &subject.to.to_string(),
                        subject.kind,
                        &size,
                        &entry.sent.to_string(),
                        &entry.received.to_string(),
                        &grouped(entry.failed),
                    ],
                )?;
            }
        }
        let total = |of: fn(&EntryReport) -> Sum| {
            let sum = self.entries.iter().map(|entry| of(entry).bytes).sum();
            bytes(sum) + "B"
        };
        let failed = self.entries.iter().map(|entry| entry.failed).sum();
        row(
            f,
            [
                "all",
                "",
                "",
                "",
                &total(|entry| entry.sent),
                &total(|entry| entry.received),
                &grouped(failed),
            ],
        )?;
        let problems = self.entries.iter().filter_map(|entry| {
            let problem = entry.problem.as_ref()?;
            Some(format!(
                "{} to {}: {problem}\n",
                entry.subject.from, entry.subject.to
            ))
        });
        for problem in problems.take(MOST_LINES) {
            f.write_str(&problem)?;
        }
        f.write_str(&skipped_reports(self.skipped_reports))
    }
}

impl fmt::Display for Sum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.packets {
            Some(packets) => f.write_str(&grouped(packets)),
            None => write!(f, "{}B", bytes(self.bytes)),
        }
    }
}
