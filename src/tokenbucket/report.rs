//! What tokenbucket reports: the figures, as JSON lines and as a table.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::{Instant, SystemTime};

use anyhow::Result;
use serde::Serialize;

use super::cells::Counts;
use super::maps::{Events, Maps, Volume};
use super::rule::Rule;
use super::sweep::Sweeper;
use crate::report::{PROMPT, Printer};
use crate::trace;

/// Version of the JSON report; a field that changes its meaning makes a new one.
const SCHEMA: &str = "netbpf.tokenbucket/1";
/// Flows in a list of the report.
const TOP: usize = 20;

/// The figures of one moment, counted from the start.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    pub(super) schema: &'static str,
    /// Seconds since 1970.
    pub(super) time: f64,
    /// Seconds since the program was attached; in a status that is not known.
    pub(super) elapsed: Option<f64>,
    /// Seconds that rates and lists were taken over; none: all the time.
    pub(super) interval: Option<f64>,
    /// The last report of a run.
    pub(super) r#final: bool,
    pub(super) dry_run: bool,
    /// Packets are segments.
    pub(super) count_segments: bool,
    pub(super) key: String,
    pub(super) rule: Rule,
    /// Flows in the table.
    pub(super) flows: u64,
    /// Flows that it has room for.
    pub(super) room: u32,
    /// Flows that were removed because they said no more than new ones.
    pub(super) removed: u64,
    pub(super) passed: Passage,
    pub(super) dropped: Passage,
    /// Who sent most of what passed, the busiest first.
    pub(super) top_passed: Vec<Top>,
    /// Who lost most.
    pub(super) top_dropped: Vec<Top>,
    /// What flows counted that found the table full.
    pub(super) overflow: Counts,
    pub(super) events: PassedOver,
    /// What became of what was dropped, in the file of --trace-drops; none: there is no such file.
    pub(super) trace: Option<trace::Figures>,
    /// Reports that were left out because nobody took the ones before.
    pub(super) skipped_reports: u64,
}

/// Packets that went one way.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Passage {
    #[serde(flatten)]
    pub(super) total: Volume,
    /// Packets per second in the interval.
    pub(super) rate: Option<f64>,
}

/// A flow in a list.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Top {
    pub(super) flow: String,
    #[serde(flatten)]
    pub(super) counts: Counts,
}

/// Whatever was passed over, given up or lost.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct PassedOver {
    pub(super) flows: u64,
    pub(super) not_ip: u64,
    pub(super) exempt: u64,
    pub(super) malformed: u64,
    pub(super) no_row: u64,
    pub(super) overflowed: u64,
    pub(super) lost_race: u64,
    pub(super) table_errors: u64,
}

/// Takes reports and prints them.
#[derive(Debug)]
pub struct Reporter {
    pub(super) printer: Printer,
    started: Instant,
    last: Instant,
    last_events: Events,
    /// What each cell had counted at the last report; empty before the first one.
    last_counts: Vec<Counts>,
}

impl Reporter {
    /// Starts counting time now. To be made before privileges are dropped: see [`Printer::new`].
    pub fn new(json: bool) -> Reporter {
        let now = Instant::now();
        Reporter {
            printer: Printer::new(json, PROMPT),
            started: now,
            last: now,
            last_events: Events::default(),
            last_counts: Vec::new(),
        }
    }

    /// Prints what is counted so far.
    pub fn interim(&mut self, maps: &Maps, sweeper: &Sweeper) -> Result<()> {
        let report = self.take(maps, sweeper, false)?;
        self.printer.interim(&report)
    }

    /// Prints the last word.
    pub fn conclude(&mut self, maps: &Maps, sweeper: &Sweeper) -> Result<()> {
        // Rates and lists over the whole run.
        self.last = self.started;
        self.last_events = Events::default();
        self.last_counts.clear();
        let report = self.take(maps, sweeper, true)?;
        self.printer.conclude(&report)
    }

    /// Prints what a program has counted that another process has loaded.
    pub fn status(&mut self, maps: &Maps, sweeper: &Sweeper) -> Result<()> {
        let report = Report {
            elapsed: None,
            interval: None,
            passed: without_rate(maps.events()?.passed),
            dropped: without_rate(maps.events()?.dropped),
            ..self.take(maps, sweeper, false)?
        };
        self.printer.single(&report)
    }

    /// The figures of now.
    pub fn take(&mut self, maps: &Maps, sweeper: &Sweeper, r#final: bool) -> Result<Report> {
        let now = Instant::now();
        let interval = (now - self.last).as_secs_f64();
        let events = maps.events()?;
        let rate = |total: Volume, before: Volume| Passage {
            total,
            rate: Some((total.packets - before.packets) as f64 / interval.max(f64::EPSILON)),
        };
        let (passed, dropped) = (
            rate(events.passed, self.last_events.passed),
            rate(events.dropped, self.last_events.dropped),
        );
        self.last = now;
        self.last_events = events;
        let lists = self.lists(maps, !r#final)?;
        let time = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        let Events {
            flows,
            not_ip,
            exempt,
            malformed,
            no_row,
            overflowed,
            lost_race,
            table_errors,
            ..
        } = events;
        Ok(Report {
            schema: SCHEMA,
            time: time.as_secs_f64(),
            elapsed: Some((now - self.started).as_secs_f64()),
            interval: Some(interval),
            r#final,
            dry_run: maps.knobs.dry_run != 0,
            count_segments: maps.knobs.counts_segments != 0,
            key: maps.key.to_string(),
            rule: maps.rule()?,
            flows: lists.flows,
            room: maps.room(),
            removed: sweeper.removed(),
            passed,
            dropped,
            top_passed: lists.passed,
            top_dropped: lists.dropped,
            overflow: maps.overflow(),
            events: PassedOver {
                flows,
                not_ip,
                exempt,
                malformed,
                no_row,
                overflowed,
                lost_race,
                table_errors,
            },
            trace: maps
                .trace
                .as_ref()
                .map(|tally| tally.figures())
                .transpose()?,
            skipped_reports: self.printer.skipped(),
        })
    }

    /// Goes through all flows once. What they have counted is remembered where `since_last` says that
    /// the next report wants to know what is new.
    fn lists(&mut self, maps: &Maps, since_last: bool) -> Result<Lists> {
        let mut passed = Longest::default();
        let mut dropped = Longest::default();
        let mut flows = 0;
        let last = &mut self.last_counts;
        maps.for_each_flow(|entry| {
            flows += 1;
            let total = maps.cells.counts(entry.cell);
            let mut new = total;
            if since_last {
                let index = entry.cell as usize;
                if index >= last.len() {
                    last.resize(index + 1, Counts::default());
                }
                new = total.since(std::mem::replace(&mut last[index], total));
            }
            passed.offer(new.passed, entry.key, new);
            dropped.offer(new.dropped, entry.key, new);
        })?;
        Ok(Lists {
            flows,
            passed: passed.sorted(maps)?,
            dropped: dropped.sorted(maps)?,
        })
    }
}

struct Lists {
    flows: u64,
    passed: Vec<Top>,
    dropped: Vec<Top>,
}

/// The flows with the highest figures, as many as are shown.
#[derive(Default)]
struct Longest {
    /// The lowest on top, to be replaced by the next higher one.
    heap: BinaryHeap<Reverse<(u64, Vec<u8>, Counts)>>,
}

impl Longest {
    fn offer(&mut self, figure: u64, key: &[u8], counts: Counts) {
        let full = self.heap.len() == TOP;
        let lowest = self.heap.peek().map_or(0, |Reverse((lowest, ..))| *lowest);
        if figure == 0 || full && figure <= lowest {
            return;
        }
        if full {
            self.heap.pop();
        }
        self.heap.push(Reverse((figure, key.to_vec(), counts)));
    }

    fn sorted(self, maps: &Maps) -> Result<Vec<Top>> {
        let top = |Reverse((_, key, counts)): Reverse<(u64, Vec<u8>, Counts)>| {
            let flow = maps.key.flow(&key)?.to_string();
            Ok(Top { flow, counts })
        };
        // Ascending by `Reverse`: the highest figure first.
        self.heap.into_sorted_vec().into_iter().map(top).collect()
    }
}

fn without_rate(total: Volume) -> Passage {
    Passage { total, rate: None }
}
