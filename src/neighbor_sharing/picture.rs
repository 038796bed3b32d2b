//! The report as a picture for readers: 80 columns, and short enough for a small terminal.

use std::fmt;
use std::time::Duration;

use super::report::{Events, PortReport, Report};
use super::{Class, PerWay, Way};
use crate::notation::{bits_per_second, bytes, grouped, span};
use crate::report::{dropped, notes, skipped_reports};

/// Addresses in the picture; the JSON report has all of them.
const TOP: usize = 8;

impl Events {
    /// What a reader should know of, in his words. What is ordinary is left to the JSON report.
    fn notes(&self) -> Vec<String> {
        notes([
            (
                self.lost_race,
                "packets dropped because other CPUs were quicker at the bucket",
            ),
            (
                self.claim_by_neighbor,
                "packets of neighbors with an address of the LAN",
            ),
            (
                self.claim_by_lan,
                "packets of the LAN with an address of a neighbor",
            ),
            (
                self.taken_over,
                "addresses went to the other class after a long silence",
            ),
            (
                self.neighbors_full,
                "addresses of neighbors not learned: their share is used up",
            ),
            (
                self.lan_full,
                "addresses of the LAN not learned: their share is used up",
            ),
            (
                self.outside_nets,
                "packets on the wrong side of --neighbor-net",
            ),
            (
                self.unknown_while_full,
                "packets to unknown addresses while neighbors' share was full",
            ),
            (
                self.tag_lost,
                "uploads judged by interface: another classifier took their tag",
            ),
            (
                self.table_errors,
                "addresses not learned for an error of the table",
            ),
            (self.malformed, "packets that could not be parsed"),
            (self.exempt, "packets exempt"),
        ])
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let dropped = dropped(self.dry_run);
        let (seconds, span) = (self.elapsed, self.interval);
        let last = if self.r#final {
            "in all".to_owned()
        } else {
            format!("last {span:.1} s")
        };
        writeln!(
            f,
            "{seconds:.1} s; rates: {last}; packets are wire segments, bytes L2 frames"
        )?;
        writeln!(
            f,
            "{:<8} {:<8} {:>8} {:>11} {:>10} {:>8} {:>10} {:>8}",
            "class", "way", "limit", "rate", "packets", "bytes", dropped, "bytes"
        )?;
        for meter in &self.meters {
            let limit = meter
                .limit
                .map_or_else(|| "none".to_owned(), |rate| rate.to_string());
            writeln!(
                f,
                "{:<8} {:<8} {:>8} {:>11} {:>10} {:>8} {:>10} {:>8}",
                meter.class.name(),
                meter.way.name(),
                limit,
                bits_per_second(meter.passed_rate),
                grouped(meter.total.packets),
                bytes(meter.total.bytes),
                grouped(meter.total.dropped_packets),
                bytes(meter.total.dropped_bytes),
            )?;
        }
        self.write_addresses(f)?;
        if self.forgotten.addresses > 0 {
            writeln!(
                f,
                "{} addresses forgotten after silence",
                grouped(self.forgotten.addresses)
            )?;
        }
        for port in &self.ports {
            if port.addresses * 10 >= u64::from(port.quota) * 9 {
                let PortReport {
                    port,
                    addresses,
                    quota,
                    ..
                } = port;
                writeln!(
                    f,
                    "{port} owns {addresses} addresses of the {quota} that it may"
                )?;
            }
        }
        f.write_str(&skipped_reports(self.skipped_reports))?;
        for note in self.events.notes() {
            writeln!(f, "{note}")?;
        }
        Ok(())
    }
}

impl Report {
    fn write_addresses(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let drop = if self.dry_run { "would" } else { "drop" };
        if self.addresses.is_empty() {
            return writeln!(f, "no address learned yet");
        }
        writeln!(
            f,
            "{:<25} {:<8} {:<11} {:>6} {:>6} {:>6} {:>6} {:>5}",
            "address", "class", "port", "down", drop, "up", drop, "quiet"
        )?;
        for address in self.addresses.iter().take(TOP) {
            let PerWay { download, upload } = address.counts;
            writeln!(
                f,
                "{:<25} {:<8} {:<11} {:>6} {:>6} {:>6} {:>6} {:>5}",
                address.address.to_string(),
                address.class.name(),
                address.port,
                bytes(download.bytes),
                bytes(download.dropped_bytes),
                bytes(upload.bytes),
                bytes(upload.dropped_bytes),
                span(Duration::from_secs_f64(address.silent)),
            )?;
        }
        match self.addresses.len().saturating_sub(TOP) {
            0 => Ok(()),
            more => writeln!(f, "and {} addresses more", grouped(more as u64)),
        }
    }
}

impl Class {
    fn name(self) -> &'static str {
        match self {
            Class::Rest => "rest",
            Class::Neighbor => "neighbor",
        }
    }
}

impl Way {
    fn name(self) -> &'static str {
        match self {
            Way::Download => "download",
            Way::Upload => "upload",
        }
    }
}
