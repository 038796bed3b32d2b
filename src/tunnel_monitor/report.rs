//! What tunnel_monitor reports: the figures, as JSON lines and as a table.

use std::cmp::Reverse;
use std::net::IpAddr;
use std::time::UNIX_EPOCH;

use serde::Serialize;

use super::flow::{Counts, Encap};
use super::sample::{Row, Sample, Uncounted};

/// Version of the JSON report; a field that changes its meaning makes a new one.
const SCHEMA: &str = "netbpf.tunnel_monitor/1";
/// Flows in a report; `/data/tunnel.json` has all of them.
const TOP: usize = 100;

/// The figures of one moment, counted from the start.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    pub(super) schema: &'static str,
    /// Seconds since 1970.
    pub(super) time: f64,
    /// Seconds since the start.
    pub(super) elapsed: f64,
    /// Seconds that `last` and the order of the flows are over; in the final report all the time.
    pub(super) interval: f64,
    /// The last report of a run.
    pub(super) r#final: bool,
    pub(super) interfaces: Vec<String>,
    /// Flows in the table.
    pub(super) flows: usize,
    /// Flows that it has room for.
    pub(super) room: u32,
    /// All tunnel packets.
    pub(super) totals: Counts,
    /// Of flows that had no room.
    pub(super) other: Counts,
    pub(super) forgotten: Forgotten,
    pub(super) uncounted: Uncounted,
    /// The busiest first.
    pub(super) top: Vec<Line>,
    /// All flows that are not among the top.
    pub(super) rest: Rest,
    /// Reports that were left out because nobody took the ones before.
    pub(super) skipped_reports: u64,
}

/// Flows that were taken out of the table, idle.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Forgotten {
    pub(super) flows: u64,
    #[serde(flatten)]
    pub(super) counts: Counts,
}

/// A flow, with the original's names of the fields.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Line {
    pub(super) vni: u32,
    pub(super) encap: Encap,
    pub(super) local: IpAddr,
    pub(super) outer_sip: IpAddr,
    pub(super) outer_dip: IpAddr,
    pub(super) inner_sip: IpAddr,
    pub(super) inner_dip: IpAddr,
    #[serde(flatten)]
    pub(super) total: Counts,
    /// In the interval.
    pub(super) last: Counts,
}

#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(super) struct Rest {
    pub(super) flows: usize,
    #[serde(flatten)]
    pub(super) total: Counts,
    /// In the interval.
    pub(super) last: Counts,
}

impl From<Row<'_>> for Line {
    fn from(row: Row<'_>) -> Line {
        let flow = row.flow;
        let [local, remote] = flow.outer();
        let [inner_local, inner_remote] = flow.inner_or_zeros();
        let mut outer = [local, remote];
        let mut inner = [inner_local, inner_remote];
        if flow.is_remote_first() {
            outer.reverse();
            inner.reverse();
        }
        Line {
            vni: flow.vni,
            encap: flow.encap,
            local,
            outer_sip: outer[0],
            outer_dip: outer[1],
            inner_sip: inner[0],
            inner_dip: inner[1],
            total: row.total,
            last: row.window,
        }
    }
}

impl Report {
    /// What the sample says of its window; in the final report, of all the time.
    pub fn of(sample: &Sample, r#final: bool, skipped_reports: u64) -> Report {
        let mut rows: Vec<Row<'_>> = sample.rows().collect();
        if r#final {
            for row in &mut rows {
                row.window = row.total;
            }
        }
        // Flows that are alike keep their order.
        let busiest = |row: &Row<'_>| (Reverse((row.window.bytes(), row.total.bytes())), row.slot);
        if rows.len() > TOP {
            rows.select_nth_unstable_by_key(TOP, busiest);
        }
        let shown = TOP.min(rows.len());
        let (top, rest) = rows.split_at_mut(shown);
        top.sort_by_key(busiest);
        let interval = if r#final {
            sample.elapsed
        } else {
            sample.window.length
        };
        let time = sample.time.duration_since(UNIX_EPOCH).unwrap_or_default();
        Report {
            schema: SCHEMA,
            time: time.as_secs_f64(),
            elapsed: sample.elapsed.as_secs_f64(),
            interval: interval.as_secs_f64(),
            r#final,
            interfaces: sample.interfaces.to_vec(),
            flows: top.len() + rest.len(),
            room: sample.capacity,
            totals: sample.totals,
            other: sample.other,
            forgotten: Forgotten {
                flows: sample.forgotten_flows,
                counts: sample.forgotten,
            },
            uncounted: sample.uncounted,
            rest: Rest {
                flows: rest.len(),
                total: rest.iter().map(|row| row.total).sum(),
                last: rest.iter().map(|row| row.window).sum(),
            },
            top: top.iter().map(|row| Line::from(*row)).collect(),
            skipped_reports,
        }
    }
}
