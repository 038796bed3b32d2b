//! One row a run, and at the end what holding costs.

use std::fmt;

use anyhow::Result;
use serde::Serialize;

use super::{Line, Measured, Trial};
use crate::notation::counted;
use crate::output::Output;
use crate::tcp_hold::measure::{Calls, Latency};

const SCHEMA: &str = "netbpf.tcp_hold.experiment/1";

/// A run.
#[derive(Clone, Debug, Serialize)]
struct Row {
    schema: &'static str,
    line: Line,
    connections: usize,
    size: usize,
    hold: bool,
    /// Seconds that the figures are of.
    seconds: f64,
    /// Bytes that the held end has read, a second.
    bytes_per_second: f64,
    /// Messages that it has answered, a second.
    messages_per_second: f64,
    /// Round trips as the peer sees them, milliseconds.
    latency: Option<Latency>,
    /// Segments that the peer has sent again.
    retransmitted: u64,
    /// His retransmission timers that expired.
    timeouts: u64,
    /// His probes for a lost tail.
    loss_probes: u64,
    /// CPU seconds of both ends for a second of time.
    cpu: f64,
    /// Sending at the held end.
    send: Calls,
    /// Having the kernel send an acknowledgement.
    announce: Calls,
    /// What went wrong.
    problem: Option<String>,
}

/// What holding costs on a line: figures with it in parts of those without.
#[derive(Clone, Debug, Serialize)]
struct Cost {
    line: Line,
    /// Of the middle one of all pairs.
    throughput: f64,
    /// Of the worst pair,
    least_throughput: f64,
    /// which has so many connections,
    least_connections: usize,
    /// and messages of so many bytes.
    least_size: usize,
    /// Of the middle latencies, likewise; none: no message was answered.
    latency: Option<f64>,
}

#[derive(Serialize)]
struct Summary<'a> {
    schema: &'static str,
    costs: &'a [Cost],
    /// Runs in which something went wrong.
    failed: usize,
}

/// Prints rows as they come.
#[derive(Debug)]
pub struct Reporter {
    json: bool,
    output: Output,
    rows: Vec<Row>,
}

impl Reporter {
    pub fn new(json: bool) -> Reporter {
        Reporter {
            json,
            output: Output::open(),
            rows: Vec::new(),
        }
    }

    /// The head of the table.
    pub fn begin(&mut self) -> Result<()> {
        if self.json {
            return Ok(());
        }
        let head = [
            "Round trips: the server on the host asks, the client in ns0 answers; held: the client's",
            "acknowledgements wait for its answers. Latencies in ms; again, RTO, TLP: segments that the",
            "server has sent again, its expired timers, its probes; CPU: of both ends, in percent; call:",
            "us that the client's sending takes.",
            "",
            "line    conn  size hold    KiB/s   msg/s    p50    p90    p99  p99.9    max again RTO TLP CPU call",
        ];
        Ok(self.output.line(&head.join("\n"))?)
    }

    /// A run is over.
    pub fn trial(&mut self, trial: Trial, measured: &Measured) -> Result<()> {
        let row = Row::new(trial, measured);
        let line = if self.json {
            serde_json::to_string(&row)?
        } else {
            row.to_string()
        };
        self.rows.push(row);
        Ok(self.output.line(&line)?)
    }

    /// What it comes to.
    pub fn conclude(&mut self) -> Result<()> {
        let costs: Vec<Cost> = [Line::Plain, Line::Limited]
            .into_iter()
            .filter_map(|line| Cost::of(line, &self.rows))
            .collect();
        let failed = self.rows.iter().filter(|row| row.problem.is_some()).count();
        let words = if self.json {
            let summary = Summary {
                schema: SCHEMA,
                costs: &costs,
                failed,
            };
            serde_json::to_string(&summary)? + "\n"
        } else {
            let costs: String = costs.iter().map(|cost| format!("{cost}\n")).collect();
            format!("\n{costs}")
        };
        self.output.conclude(&words)?;
        if failed > 0 {
            anyhow::bail!("something went wrong in {}", counted(failed, "run"));
        }
        Ok(())
    }
}

impl Row {
    fn new(trial: Trial, measured: &Measured) -> Row {
        let seconds = measured.seconds;
        let [held, peer] = &measured.outcomes;
        let cpu = [held.cpu, peer.cpu].map(|cpu| cpu.user + cpu.system);
        let whole = measured.whole_seconds;
        Row {
            schema: SCHEMA,
            line: trial.line,
            connections: trial.connections,
            size: trial.size,
            hold: trial.is_held,
            seconds,
            bytes_per_second: measured.tally.received as f64 / seconds,
            messages_per_second: measured.tally.messages as f64 / seconds,
            latency: Latency::of(&measured.peer.latencies),
            retransmitted: peer.retransmitted,
            timeouts: measured.counters.timeouts,
            loss_probes: measured.counters.loss_probes,
            cpu: cpu.iter().sum::<f64>() / whole,
            send: measured.tally.calls.send,
            announce: measured.tally.calls.announce,
            problem: held.problem.clone().or_else(|| peer.problem.clone()),
        }
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let latency = self.latency.map_or_else(
            || format!("{:>6} {:>6} {:>6} {:>6} {:>6}", "-", "-", "-", "-", "-"),
            |it| {
                let each = [it.p50, it.p90, it.p99, it.p999, it.max].map(three_digits);
                let [p50, p90, p99, p999, max] = each;
                format!("{p50:>6} {p90:>6} {p99:>6} {p999:>6} {max:>6}")
            },
        );
        let call = match self.send.calls {
            0 => 0.0,
            calls => self.send.seconds * 1e6 / calls as f64,
        };
        write!(
            f,
            "{:<7} {:>4} {:>5} {:<4} {:>8.1} {:>7.1} {latency} {:>5} {:>3} {:>3} {:>3.0} {call:>4.0}",
            self.line.to_string(),
            self.connections,
            self.size,
            if self.hold { "yes" } else { "no" },
            self.bytes_per_second / 1024.0,
            self.messages_per_second,
            self.retransmitted,
            self.timeouts,
            self.loss_probes,
            self.cpu * 100.0,
        )?;
        match &self.problem {
            None => Ok(()),
            Some(problem) => write!(f, "\n  {problem}"),
        }
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Line::Plain => "plain",
            Line::Limited => "limited",
        })
    }
}

/// In six columns, up to a hundred seconds.
fn three_digits(ms: f64) -> String {
    match ms {
        ..9.9995 => format!("{ms:.3}"),
        ..99.995 => format!("{ms:.2}"),
        ..999.95 => format!("{ms:.1}"),
        _ => format!("{ms:.0}"),
    }
}

impl Cost {
    /// Of the runs on this line; none: there are no pairs.
    fn of(line: Line, rows: &[Row]) -> Option<Cost> {
        let mut throughputs = Vec::new();
        let mut latencies = Vec::new();
        for pair in rows.chunks_exact(2) {
            let [without, with] = pair else { continue };
            if without.line != line || without.bytes_per_second <= 0.0 {
                continue;
            }
            let part = with.bytes_per_second / without.bytes_per_second;
            throughputs.push((part, with.connections, with.size));
            if let (Some(with), Some(without)) = (with.latency, without.latency) {
                latencies.push(with.p50 / without.p50);
            }
        }
        throughputs.sort_by(|one, other| one.0.total_cmp(&other.0));
        latencies.sort_by(f64::total_cmp);
        let least = throughputs.first()?;
        Some(Cost {
            line,
            throughput: throughputs.get(throughputs.len() / 2)?.0,
            least_throughput: least.0,
            least_connections: least.1,
            least_size: least.2,
            latency: latencies.get(latencies.len() / 2).copied(),
        })
    }
}

impl fmt::Display for Cost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: held, the middle run has {:.0} % of the throughput, the worst {:.0} % ({} of {} bytes)",
            self.line,
            self.throughput * 100.0,
            self.least_throughput * 100.0,
            counted(self.least_connections, "connection"),
            self.least_size,
        )?;
        match self.latency {
            None => Ok(()),
            Some(latency) => write!(f, "; middle latency {:.0} %", latency * 100.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(hold: bool, size: usize, bytes_per_second: f64) -> Row {
        Row {
            schema: SCHEMA,
            line: Line::Plain,
            connections: 8,
            size,
            hold,
            seconds: 1.0,
            bytes_per_second,
            messages_per_second: 1.0,
            latency: None,
            retransmitted: 0,
            timeouts: 0,
            loss_probes: 0,
            cpu: 0.5,
            send: Calls::default(),
            announce: Calls::default(),
            problem: None,
        }
    }

    #[test]
    fn a_cost_is_that_of_pairs() {
        let rows = [
            row(false, 16, 100.0),
            row(true, 16, 90.0),
            row(false, 1024, 1000.0),
            row(true, 1024, 700.0),
            row(false, 4096, 2000.0),
            row(true, 4096, 2100.0),
        ];
        let cost = Cost::of(Line::Plain, &rows).unwrap();
        assert_eq!((cost.throughput, cost.least_throughput), (0.9, 0.7));
        assert_eq!((cost.least_size, cost.latency), (1024, None));
        assert!(Cost::of(Line::Limited, &rows).is_none());
        let text = cost.to_string();
        assert!(
            text.ends_with("the worst 70 % (8 connections of 1024 bytes)"),
            "{text}"
        );
    }

    #[test]
    fn latencies_take_six_columns() {
        for (ms, text) in [
            (0.0364, "0.036"),
            (12.345, "12.35"),
            (999.97, "1000"),
            (123.44, "123.4"),
        ] {
            assert_eq!(three_digits(ms), text);
        }
    }
}
