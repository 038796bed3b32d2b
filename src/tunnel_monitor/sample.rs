//! What was counted up to one moment. A sample never changes, so that any number of readers take their
//! time over it while the next one is taken; samples share what did not change between them.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use super::flow::{Counts, Flow};

/// Figures of all flows at one moment, by slot.
pub type Column = Arc<Vec<Counts>>;

/// A stretch of time with the figures at both ends.
#[derive(Clone, Debug)]
pub struct Span {
    /// When it began.
    pub from: SystemTime,
    /// When it ended.
    pub to: SystemTime,
    /// How long it was, by a clock that nobody sets.
    pub length: Duration,
    /// The figures when it began.
    pub before: Column,
    /// The figures when it ended.
    pub after: Column,
}

/// Packets that are in no flow, and why. (Tunnel packets without room for their flow are in
/// [`Sample::other`] instead.)
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Uncounted {
    /// Outer fragments of UDP, GRE or IP in IP: only the first says what is inside, so none is read.
    pub fragments: u64,
    /// Tunnel packets to all or to many, where `--multicast` was not given.
    pub multicast: u64,
    /// Tunnel packets that end too early or contradict themselves.
    pub malformed: u64,
    /// IP packets of other kinds and whatever is not IP.
    pub not_tunnel: u64,
    /// Packets that were not looked at, because a map lacked what it must have. Never, unless somebody
    /// else writes to our maps.
    pub table_errors: u64,
}

/// What was counted apart from flows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// All tunnel packets. At rest: the sum of all flows, those taken out too, and `other`.
    pub totals: Counts,
    /// Tunnel packets whose flows had no room.
    pub other: Counts,
    /// Packets that are in no flow, as they pass the interface: a GSO packet is one.
    pub uncounted: Uncounted,
}

/// Everything that was counted up to one moment.
#[derive(Clone, Debug)]
pub struct Sample {
    /// One number higher than that of the sample before.
    pub number: u64,
    /// When it was taken.
    pub time: SystemTime,
    /// Since counting began.
    pub elapsed: Duration,
    /// The monitored interfaces.
    pub interfaces: Arc<Vec<String>>,
    /// Who is in which slot. `None`: nobody.
    pub flows: Arc<Vec<Option<Flow>>>,
    /// From the sample before to this one: about a second.
    pub second: Span,
    /// The last whole interval of `--interval` (5 s), which ended with this sample or before it. All of
    /// it is 0 before the first has passed.
    pub window: Span,
    /// Since that interval ended, by a clock that nobody sets.
    pub window_age: Duration,
    /// All tunnel packets, counted apart from flows. At rest: the sum of all flows, `other`, `forgotten`.
    pub totals: Counts,
    /// Tunnel packets whose flows had no room.
    pub other: Counts,
    /// What was counted for flows that were taken out, idle.
    pub forgotten: Counts,
    /// How many of them there were.
    pub forgotten_flows: u64,
    /// Flows that there is room for.
    pub capacity: u32,
    /// Packets that are in no flow.
    pub uncounted: Uncounted,
}

/// A flow with its figures.
#[derive(Clone, Copy, Debug)]
pub struct Row<'a> {
    /// Its place in the table. Somebody else's only after it was nobody's in a sample.
    pub slot: usize,
    /// Who.
    pub flow: &'a Flow,
    /// From the start.
    pub total: Counts,
    /// In [`Sample::window`].
    pub window: Counts,
    /// In [`Sample::second`].
    pub second: Counts,
}

impl Span {
    /// What passed in a slot. Columns are as long as there were slots in use then.
    pub fn passed(&self, slot: usize) -> Counts {
        figure(&self.after, slot) - figure(&self.before, slot)
    }

    /// What had passed in a slot when it ended.
    fn at_end(&self, slot: usize) -> Counts {
        figure(&self.after, slot)
    }
}

fn figure(column: &Column, slot: usize) -> Counts {
    column.get(slot).copied().unwrap_or_default()
}

impl Sample {
    /// Before anything was counted.
    pub fn empty(interfaces: Vec<String>, capacity: u32) -> Sample {
        let now = SystemTime::now();
        let nothing = Span {
            from: now,
            to: now,
            length: Duration::ZERO,
            before: Column::default(),
            after: Column::default(),
        };
        Sample {
            number: 0,
            time: now,
            elapsed: Duration::ZERO,
            interfaces: Arc::new(interfaces),
            flows: Arc::default(),
            second: nothing.clone(),
            window: nothing,
            window_age: Duration::ZERO,
            totals: Counts::default(),
            other: Counts::default(),
            forgotten: Counts::default(),
            forgotten_flows: 0,
            capacity,
            uncounted: Uncounted::default(),
        }
    }

    /// What passed for a flow after [`Sample::window`], up to this sample.
    pub(super) fn since_window(&self, row: &Row<'_>) -> Counts {
        row.total - self.window.at_end(row.slot)
    }

    /// All flows, by slot.
    pub fn rows(&self) -> impl Iterator<Item = Row<'_>> {
        self.rows_from(0)
    }

    /// The flows from a slot on: for those who take them in parts.
    pub fn rows_from(&self, first: usize) -> impl Iterator<Item = Row<'_>> {
        let slots = self.flows.iter().enumerate().skip(first);
        slots.filter_map(|(slot, flow)| {
            Some(Row {
                slot,
                flow: flow.as_ref()?,
                total: figure(&self.second.after, slot),
                window: self.window.passed(slot),
                second: self.second.passed(slot),
            })
        })
    }
}
