//! Which flows the page is told of: all of them, unless there are more than a browser can take each second.

use std::cmp::Reverse;

use serde::Serialize;

use crate::tunnel_monitor::flow::Counts;
use crate::tunnel_monitor::sample::{Row, Sample};

/// Flows on the page, with a row each: a document of 1.5 MB at most where addresses are IPv4.
pub(super) const MOST_ROWS: usize = 10_000;

/// The flows that are told of, and what all others come to.
#[derive(Debug)]
pub(super) struct Selection {
    /// The slots of those with a row, in their order.
    pub(super) slots: Vec<u32>,
    pub(super) rest: Rest,
}

/// All flows without a row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Rest {
    pub(super) flows: u64,
    pub(super) window: Counts,
    pub(super) since: Counts,
    pub(super) total: Counts,
}

impl Selection {
    /// The busiest now have a row; among the quiet ones, those that have been the busiest.
    pub(super) fn of(sample: &Sample, most: usize) -> Selection {
        let loudness = |row: &Row<'_>| {
            let now = row.window.bytes() + sample.since_window(row).bytes();
            Reverse((now, row.total.bytes()))
        };
        let rows = sample.rows();
        let mut order: Vec<_> = rows.map(|row| (loudness(&row), row.slot as u32)).collect();
        let mut rest = Rest::default();
        if order.len() > most {
            // Flows that are alike keep their order.
            order.select_nth_unstable(most);
            for (_, slot) in order.drain(most..) {
                let Some(row) = sample.rows_from(slot as usize).next() else {
                    continue;
                };
                rest.flows += 1;
                rest.window += row.window;
                rest.since += sample.since_window(&row);
                rest.total += row.total;
            }
        }
        let mut slots: Vec<u32> = order.into_iter().map(|(_, slot)| slot).collect();
        slots.sort_unstable();
        Selection { slots, rest }
    }
}
