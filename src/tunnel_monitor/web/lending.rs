//! Samples in the hands of readers.
//!
//! With a million flows the figures of one sample are 32 MB, and readers who stall could each keep another
//! one from being freed. So where samples are large only the last few that were lent stay readable: who
//! still reads an older one when another is lent is cut. Readers of the same sample share it, and what was worked out from it.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

use super::selection::{MOST_ROWS, Selection};
use crate::tunnel_monitor::sample::{Row, Sample};

/// So many samples may be lent at a time, however large they are. Event streams take two, the last and the
/// one before, while they go on; the others are for downloads that take long.
const FEW: usize = 4;
/// More of them may be lent while all together have no more slots than this, which is half a megabyte.
const SLOTS: usize = 8 * 1024;
/// Flows on the plain page.
const BUSIEST: usize = 16;

/// What is lent.
#[derive(Debug, Default)]
pub(super) struct Lending {
    /// The oldest first.
    lent: Mutex<VecDeque<Weak<Loan>>>,
}

/// A reader's hold on a sample.
#[derive(Debug)]
pub(super) struct Loan {
    number: u64,
    slots: usize,
    /// `None` once it had to be given back.
    moment: Mutex<Option<Arc<Moment>>>,
}

/// A sample, and what its readers have worked out from it.
#[derive(Debug)]
pub(super) struct Moment {
    pub(super) sample: Arc<Sample>,
    flows: OnceLock<usize>,
    changes: OnceLock<Changes>,
    busiest: OnceLock<Vec<usize>>,
    selection: OnceLock<Selection>,
}

/// What is different from the sample before, by slot.
#[derive(Debug, Default)]
pub(super) struct Changes {
    /// Something passed for these.
    pub(super) changed: Vec<u32>,
    /// These were taken out.
    pub(super) gone: Vec<u32>,
}

impl Lending {
    pub(super) fn lend(&self, sample: Arc<Sample>) -> Arc<Loan> {
        let mut lent = lock(&self.lent);
        lent.retain(|loan| loan.strong_count() > 0);
        let of_the_same = lent.iter().filter_map(Weak::upgrade);
        let mut of_the_same = of_the_same.filter(|loan| loan.number == sample.number);
        if let Some(loan) = of_the_same.next() {
            return loan;
        }
        let slots = sample.flows.len();
        let loan = Arc::new(Loan {
            number: sample.number,
            slots,
            moment: Mutex::new(Some(Arc::new(Moment::new(sample)))),
        });
        while lent.len() >= FEW && slots + slots_of(&lent) > SLOTS {
            if let Some(oldest) = lent.pop_front().and_then(|loan| loan.upgrade()) {
                *lock(&oldest.moment) = None;
            }
        }
        lent.push_back(Arc::downgrade(&loan));
        loan
    }
}

fn slots_of(lent: &VecDeque<Weak<Loan>>) -> usize {
    let loans = lent.iter().filter_map(Weak::upgrade);
    loans.map(|loan| loan.slots).sum()
}

impl Loan {
    /// Number of the sample.
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// The sample, not to be kept beyond the piece that is being made. `None`: it is too old by now.
    pub(super) fn moment(&self) -> Option<Arc<Moment>> {
        lock(&self.moment).clone()
    }
}

/// Nobody panics while holding one of these; and if so, what they hold is whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Changes {
    fn between(before: &Sample, sample: &Sample) -> Changes {
        let changed = sample.rows().filter(|row| !row.second.is_zero());
        let changed = changed.map(|row| row.slot as u32).collect();
        // Samples share their list of flows until one comes or goes.
        let gone = if Arc::ptr_eq(&before.flows, &sample.flows) {
            Vec::new()
        } else {
            let is_there = |slot: usize| sample.flows.get(slot).is_some_and(Option::is_some);
            let rows = before.rows().filter(|row| !is_there(row.slot));
            rows.map(|row| row.slot as u32).collect()
        };
        Changes { changed, gone }
    }
}

impl Moment {
    fn new(sample: Arc<Sample>) -> Moment {
        Moment {
            sample,
            flows: OnceLock::new(),
            changes: OnceLock::new(),
            busiest: OnceLock::new(),
            selection: OnceLock::new(),
        }
    }

    /// How many there are.
    pub(super) fn flows(&self) -> usize {
        *self.flows.get_or_init(|| self.sample.rows().count())
    }

    /// Finds out what is different from the sample with the number before. It is the same whoever asks.
    pub(super) fn compare_with(&self, before: &Sample) {
        self.changes
            .get_or_init(|| Changes::between(before, &self.sample));
    }

    /// What is different, if somebody has found out.
    pub(super) fn changes(&self) -> Option<&Changes> {
        self.changes.get()
    }

    /// What the page is told of.
    pub(super) fn selection(&self) -> &Selection {
        self.selection
            .get_or_init(|| Selection::of(&self.sample, MOST_ROWS))
    }

    /// The flows with the most bytes in the window, the busiest first.
    pub(super) fn busiest(&self) -> impl Iterator<Item = Row<'_>> {
        let slots = self.busiest.get_or_init(|| {
            let mut busiest: Vec<(u64, usize)> = Vec::new();
            for row in self.sample.rows() {
                let bytes = row.window.bytes();
                if row.window.is_zero() {
                    continue;
                }
                let place = busiest.partition_point(|(more, _)| *more >= bytes);
                if place < BUSIEST {
                    busiest.insert(place, (bytes, row.slot));
                    busiest.truncate(BUSIEST);
                }
            }
            busiest.into_iter().map(|(_, slot)| slot).collect()
        });
        let row = |slot: &usize| self.sample.rows_from(*slot).next();
        slots.iter().filter_map(row)
    }
}
