//! The report for readers: the original's lines at the end, a table of 80 columns while it runs.

use std::fmt;
use std::time::Duration;

use super::report::{Client, Events, Report};
use crate::notation::{bytes, counted, grouped, span};
use crate::report::{notes, skipped_reports};

/// Clients and strangers in the table; the JSON report has all of them.
const TOP: usize = 16;
const STRANGERS: usize = 4;
/// Names of interfaces that are not there.
const ABSENT: usize = 3;

impl Events {
    /// What a reader should know of, in his words. What is ordinary is left to the JSON report.
    fn notes(&self) -> Vec<String> {
        notes([
            (self.unknown, "frames from unknown MAC addresses"),
            (self.untagged, "frames without a tag"),
            (self.moved, "moves of clients to other VLANs"),
            (self.refused, "frames of clients from other VLANs refused"),
            (
                self.outlets_full,
                "frames of clients without broadcasts: their worker has too many VLANs",
            ),
            (self.to_unknown, "frames from workers to unknown addresses"),
            (
                self.to_unheard,
                "frames from workers to clients that have not been heard of",
            ),
            (
                self.copies_lost,
                "copies of broadcasts that could not be sent",
            ),
            (
                self.not_tagged_back,
                "frames to clients lost: no memory for their tags",
            ),
            (self.malformed, "frames that could not be parsed"),
            (self.table_errors, "frames lost for an error of the tables"),
        ])
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.r#final {
            self.write_originals_lines(f)?;
        } else {
            self.write_table(f)?;
        }
        self.write_moves(f)?;
        self.write_strangers(f)?;
        self.write_absent(f)?;
        if self.removed.clients > 0 {
            let removed = counted(self.removed.clients as usize, "client");
            writeln!(f, "{removed} taken out of the table")?;
        }
        f.write_str(&skipped_reports(self.skipped_reports))?;
        for note in self.events.notes() {
            writeln!(f, "{note}")?;
        }
        if self.dry_run {
            writeln!(f, "dry run: nothing was dropped")?;
        }
        Ok(())
    }
}

impl Report {
    fn write_originals_lines(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for client in &self.clients {
            let (rx, tx) = (client.traffic.rx, client.traffic.tx);
            writeln!(
                f,
                "mac {} rx pkts = {}, rx bytes = {}\n                 tx pkts = {}, tx bytes = {}",
                client.mac.digits(),
                rx.packets,
                rx.bytes,
                tx.packets,
                tx.bytes
            )?;
        }
        Ok(())
    }

    fn write_table(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:.1} s; rx is from the client; packets are wire segments, bytes L2 frames",
            self.elapsed
        )?;
        writeln!(
            f,
            "{:<17} {:>10} {:<15} {:>8} {:>5} {:>8} {:>5} {:>4}",
            "client", "VLAN", "worker", "rx", "bytes", "tx", "bytes", "seen"
        )?;
        let mut busiest: Vec<&Client> = self.clients.iter().collect();
        if busiest.len() > TOP {
            busiest.sort_by_key(|client| {
                let traffic = client.traffic;
                std::cmp::Reverse(traffic.rx.bytes + traffic.tx.bytes)
            });
        }
        for client in busiest.iter().take(TOP) {
            let (rx, tx) = (client.traffic.rx, client.traffic.tx);
            let vlan = client.vlan.map(|tags| tags.to_string());
            let quiet = client
                .silent
                .map(|time| span(Duration::from_secs_f64(time)));
            writeln!(
                f,
                "{} {:>10} {:<15} {:>8} {:>5} {:>8} {:>5} {:>4}",
                client.mac,
                vlan.as_deref().unwrap_or("-"),
                client.worker,
                packets(rx.packets),
                bytes(rx.bytes),
                packets(tx.packets),
                bytes(tx.bytes),
                quiet.as_deref().unwrap_or("-"),
            )?;
        }
        match self.clients.len().saturating_sub(TOP) {
            0 => Ok(()),
            more => writeln!(f, "and {} clients more", grouped(more as u64)),
        }
    }

    fn write_absent(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let some = self.absent.iter().take(ABSENT).map(String::as_str);
        let some: Vec<&str> = some.collect();
        if some.is_empty() {
            return Ok(());
        }
        write!(f, "not there: {}", some.join(" "))?;
        match self.absent.len() - some.len() {
            0 => writeln!(f),
            more => writeln!(f, " and {} more", grouped(more as u64)),
        }
    }

    fn write_moves(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let moved = self.clients.iter().filter(|client| client.moves > 0);
        for client in moved.take(TOP) {
            if let (Some(from), Some(to)) = (client.moved_from, client.vlan) {
                let (mac, moves) = (client.mac, counted(client.moves as usize, "time"));
                writeln!(f, "{mac} moved {moves}, last from VLAN {from} to {to}")?;
            }
        }
        let refused = self.clients.iter().filter(|client| client.refusals > 0);
        for client in refused.take(TOP) {
            if let (Some(from), Some(at)) = (client.refused_from, client.vlan) {
                let (mac, refused) = (client.mac, counted(client.refusals as usize, "frame"));
                writeln!(f, "{mac} stays in VLAN {at}; {refused} refused from {from}")?;
            }
        }
        Ok(())
    }

    fn write_strangers(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for stranger in self.strangers.iter().take(STRANGERS) {
            let vlan = stranger.vlan.map(|tags| tags.to_string());
            writeln!(
                f,
                "unknown {} in VLAN {}: {} frames",
                stranger.mac,
                vlan.as_deref().unwrap_or("-"),
                grouped(stranger.frames)
            )?;
        }
        match self.strangers.len().saturating_sub(STRANGERS) {
            0 => Ok(()),
            more => writeln!(f, "and {} unknown MAC addresses more", grouped(more as u64)),
        }
    }
}

/// Exact as long as it fits its column, then with a prefix as bytes have it.
fn packets(count: u64) -> String {
    if count < 1_000_000 {
        grouped(count)
    } else {
        bytes(count)
    }
}
