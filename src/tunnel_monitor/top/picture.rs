//! What is known of a monitor at one moment: its flows and its own figures. It comes as events of another
//! process or as samples of this one.

use std::collections::HashMap;

use crate::tunnel_monitor::flow::{Counts, Flow};
use crate::tunnel_monitor::sample::{Row, Sample, Uncounted};

/// Everything but the flows.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Head {
    /// Of the sample.
    pub number: u64,
    /// Seconds since counting began.
    pub elapsed: f64,
    /// Seconds that [`Known::second`] is over.
    pub second: f64,
    /// Seconds that [`Known::window`] is over; 0 before the first.
    pub window: f64,
    /// Whether the window ended with this sample.
    pub window_ended: bool,
    pub interfaces: Vec<String>,
    pub flows: u64,
    pub capacity: u64,
    pub totals: Counts,
    pub other: Counts,
    pub forgotten: Counts,
    pub forgotten_flows: u64,
    pub uncounted: Uncounted,
}

/// A flow and its figures.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Known {
    pub flow: Flow,
    /// From the start.
    pub total: Counts,
    /// In the last second.
    pub second: Counts,
    /// In the last whole window.
    pub window: Counts,
    /// Since that ended.
    pub since: Counts,
}

/// What an event says.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Update {
    pub head: Head,
    /// Replaces everything. Otherwise it follows upon the sample before: who is not in it was silent.
    pub is_snapshot: bool,
    /// Slots whose flows were taken out.
    pub gone: Vec<u32>,
    /// Flows by slot. In a delta, `window` and `since` say nothing.
    pub rows: Vec<(u32, Known)>,
}

/// The flows, by slot, and the rest.
#[derive(Clone, Debug, Default)]
pub(super) struct Picture {
    pub head: Head,
    flows: HashMap<u32, Known>,
}

impl Picture {
    /// The flows in no order.
    pub(super) fn flows(&self) -> impl Iterator<Item = &Known> {
        self.flows.values()
    }

    /// Of a sample of this process.
    pub(super) fn of(sample: &Sample) -> Picture {
        let flows: HashMap<u32, Known> = sample.rows().map(known).collect();
        let head = Head {
            number: sample.number,
            elapsed: sample.elapsed.as_secs_f64(),
            second: sample.second.length.as_secs_f64(),
            window: sample.window.length.as_secs_f64(),
            window_ended: false,
            interfaces: sample.interfaces.to_vec(),
            flows: flows.len() as u64,
            capacity: sample.capacity.into(),
            totals: sample.totals,
            other: sample.other,
            forgotten: sample.forgotten,
            forgotten_flows: sample.forgotten_flows,
            uncounted: sample.uncounted,
        };
        Picture { head, flows }
    }

    /// Takes an event in. Events that do not follow upon each other are refused before: see
    /// [`super::events`].
    pub(super) fn apply(&mut self, update: Update) {
        let Update {
            head,
            is_snapshot,
            gone,
            rows,
        } = update;
        self.head = head;
        if is_snapshot {
            self.flows = rows.into_iter().collect();
            return;
        }
        for slot in gone {
            self.flows.remove(&slot);
        }
        for known in self.flows.values_mut() {
            known.second = Counts::default();
        }
        for (slot, row) in rows {
            let known = self.flows.entry(slot).or_insert_with(|| Known {
                second: Counts::default(),
                ..row.clone()
            });
            if known.flow != row.flow {
                // Somebody else's by now, without a word of it.
                *known = row;
                known.since = known.second;
                continue;
            }
            known.total = row.total;
            known.second = row.second;
            known.since = sum(known.since, row.second);
        }
        if self.head.window_ended {
            for known in self.flows.values_mut() {
                known.window = std::mem::take(&mut known.since);
            }
        }
    }
}

fn known(row: Row<'_>) -> (u32, Known) {
    let known = Known {
        flow: row.flow.clone(),
        total: row.total,
        second: row.second,
        window: row.window,
        since: Counts::default(),
    };
    // Slots are below the largest capacity.
    (row.slot as u32, known)
}

/// Of figures that another process made up: they stop where numbers end.
pub(super) fn sum(one: Counts, other: Counts) -> Counts {
    Counts {
        tx_pkts: one.tx_pkts.saturating_add(other.tx_pkts),
        tx_bytes: one.tx_bytes.saturating_add(other.tx_bytes),
        rx_pkts: one.rx_pkts.saturating_add(other.rx_pkts),
        rx_bytes: one.rx_bytes.saturating_add(other.rx_bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::super::examples::{counts, flow, head, known, update};
    use super::*;

    fn only(picture: &Picture) -> &Known {
        assert_eq!(picture.flows.len(), 1);
        &picture.flows[&3]
    }

    #[test]
    fn seconds_sum_up_to_the_window_that_ends_with_one_of_them() {
        let mut picture = Picture::default();
        let first = Known {
            total: counts(10),
            window: counts(4),
            since: counts(2),
            ..known(1)
        };
        picture.apply(update(1, true, vec![(3, first)]));
        assert_eq!(only(&picture).window, counts(4));
        let row = |total, second| Known {
            total: counts(total),
            second: counts(second),
            ..known(1)
        };
        picture.apply(update(2, false, vec![(3, row(13, 3))]));
        assert_eq!(
            (only(&picture).window, only(&picture).since),
            (counts(4), counts(5))
        );
        let mut last = update(3, false, vec![(3, row(14, 1))]);
        last.head.window_ended = true;
        picture.apply(last);
        assert_eq!(only(&picture).window, counts(6));
        assert_eq!(only(&picture).since, Counts::default());
        assert_eq!(only(&picture).total, counts(14));
        // Silence: the second is 0, what was before stays.
        picture.apply(update(4, false, Vec::new()));
        assert_eq!(only(&picture).second, Counts::default());
        assert_eq!(only(&picture).total, counts(14));
        // A window in which nothing came.
        let mut silent = update(5, false, Vec::new());
        silent.head.window_ended = true;
        picture.apply(silent);
        assert_eq!(only(&picture).window, Counts::default());
    }

    #[test]
    fn who_is_gone_is_gone_and_a_slot_can_become_somebody_elses() {
        let mut picture = Picture::default();
        picture.apply(update(1, true, vec![(3, known(1)), (4, known(2))]));
        let mut gone = update(2, false, Vec::new());
        gone.gone = vec![4, 99];
        picture.apply(gone);
        assert_eq!(only(&picture).flow, flow(1));
        let newcomer = Known {
            total: counts(1),
            second: counts(1),
            ..known(5)
        };
        picture.apply(update(3, false, vec![(3, newcomer)]));
        assert_eq!(only(&picture).flow, flow(5));
        assert_eq!(only(&picture).since, counts(1));
        assert_eq!(only(&picture).total, counts(1));
    }

    #[test]
    fn a_flow_that_comes_in_a_delta_is_in_the_window_that_ends_with_it() {
        let mut picture = Picture::default();
        picture.apply(update(1, true, Vec::new()));
        let row = Known {
            total: counts(7),
            second: counts(7),
            ..known(1)
        };
        let mut event = update(2, false, vec![(3, row)]);
        event.head.window_ended = true;
        picture.apply(event);
        assert_eq!(only(&picture).window, counts(7));
    }

    #[test]
    fn a_snapshot_replaces_everything() {
        let mut picture = Picture::default();
        picture.apply(update(1, true, vec![(1, known(1)), (2, known(2))]));
        picture.apply(update(9, true, vec![(3, known(3))]));
        assert_eq!(only(&picture).flow, flow(3));
        assert_eq!(picture.head, head(9));
    }

    #[test]
    fn figures_that_were_made_up_stop_where_numbers_end() {
        assert_eq!(sum(counts(u64::MAX), counts(5)), counts(u64::MAX));
    }

    #[test]
    fn a_sample_of_this_process_is_a_picture_too() {
        use std::sync::Arc;
        let mut sample = Sample::empty(vec!["up0".into()], 8);
        sample.flows = Arc::new(vec![None, Some(flow(1))]);
        sample.second.after = Arc::new(vec![Counts::default(), counts(9)]);
        sample.second.before = Arc::new(vec![Counts::default(), counts(4)]);
        let picture = Picture::of(&sample);
        assert_eq!(picture.head.flows, 1);
        assert_eq!(picture.head.interfaces, ["up0"]);
        let known = picture.flows().next().unwrap();
        assert_eq!((known.total, known.second), (counts(9), counts(5)));
    }
}
