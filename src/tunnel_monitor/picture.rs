//! The report as a picture for readers: 80 columns for IPv4, and short enough for a small terminal.

use std::fmt;

use super::flow::Counts;
use super::report::{Line, Report};
use super::sample::Uncounted;
use crate::notation::{bits_per_second, bytes, counted, grouped};
use crate::report::{notes, skipped_reports};

/// Flows in the picture; the JSON report has more.
const TOP: usize = 12;

impl Uncounted {
    /// What a reader should know of, in his words. What is ordinary is left to the JSON report.
    fn notes(&self) -> Vec<String> {
        notes([
            (self.fragments, "outer fragments, which are not looked into"),
            (self.malformed, "tunnel packets that could not be parsed"),
            (
                self.multicast,
                "tunnel packets to all or to many (--multicast counts them)",
            ),
        ])
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let span = if self.r#final {
            "in all".to_owned()
        } else {
            format!("last {:.1} s", self.interval)
        };
        let interfaces = match &self.interfaces[..] {
            [] => "no interface".to_owned(),
            some => some.join(" "),
        };
        writeln!(
            f,
            "{:.1} s on {interfaces}; rates and order: {span}; bytes L2 frames",
            self.elapsed
        )?;
        let mut last = self.rest.last;
        for line in &self.top {
            last += line.last;
        }
        let rate = |bytes: u64| bits_per_second(8.0 * bytes as f64 / self.interval.max(0.001));
        writeln!(
            f,
            "{} of {}; out {}, in {}",
            counted(self.flows, "flow"),
            grouped(u64::from(self.room)),
            rate(last.tx_bytes),
            rate(last.rx_bytes)
        )?;
        self.write_flows(f)?;
        if !self.other.is_zero() {
            writeln!(
                f,
                "the table is full: {} of new flows, {} bytes, are in no row",
                counted(self.other.packets() as usize, "packet"),
                bytes(self.other.bytes())
            )?;
        }
        if self.forgotten.flows > 0 {
            writeln!(
                f,
                "{} idle and forgotten, {} bytes",
                counted(self.forgotten.flows as usize, "flow"),
                bytes(self.forgotten.counts.bytes())
            )?;
        }
        f.write_str(&skipped_reports(self.skipped_reports))?;
        for note in self.uncounted.notes() {
            writeln!(f, "{note}")?;
        }
        Ok(())
    }
}

impl Report {
    fn write_flows(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.top.is_empty() {
            return Ok(());
        }
        writeln!(
            f,
            "{:>7} {:>7}  {:<15} who, and the tunnel's far end",
            "out", "in", "network"
        )?;
        let is_busy = |line: &&Line| !line.last.is_zero();
        for line in self.top.iter().filter(is_busy).take(TOP) {
            writeln!(f, "{line}")?;
        }
        let hidden = self.top.iter().filter(is_busy).skip(TOP);
        let mut last: Counts = hidden.map(|line| line.last).sum();
        last += self.rest.last;
        let shown = self.top.iter().filter(is_busy).take(TOP).count();
        match self.flows - shown {
            0 => {}
            flows if last.is_zero() => writeln!(f, "{:17} {} quiet", "", counted(flows, "flow"))?,
            flows => {
                let (out, r#in) = (bytes(last.tx_bytes), bytes(last.rx_bytes));
                writeln!(f, "{out:>7} {in:>7}  {} more", counted(flows, "flow"))?;
            }
        }
        Ok(())
    }
}

/// From here to there: inner addresses, then the far end of the tunnel.
impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (out, r#in) = (bytes(self.last.tx_bytes), bytes(self.last.rx_bytes));
        let network = format!("{} {}", self.encap, self.vni);
        let (mut outer, mut inner) = (
            [self.outer_sip, self.outer_dip],
            [self.inner_sip, self.inner_dip],
        );
        if outer[0] != self.local {
            outer.reverse();
            inner.reverse();
        }
        let who = if inner[0].is_unspecified() {
            "not IP".to_owned()
        } else {
            format!("{} {}", inner[0], inner[1])
        };
        write!(f, "{out:>7} {in:>7}  {network:<15} {who} via {}", outer[1])
    }
}
