//! The table of flows, and the cells behind it: many sources, a full table, cells that user space takes
//! back and hands on.

use std::collections::{BTreeMap, BTreeSet};

use netbpf::policer::Limit;
use testbed::{long, sandbox};

use crate::frames::{from, source};
use crate::model::{Bytes, FiveSteps};
use crate::rig::{
    self, Cell, Key, NOW, OVERFLOW_CELLS, Rig, SECOND, Setup, events, flow, meter, there,
    wait_for_another_tick,
};
use crate::seed::Random;
use crate::times::Tokens;

fn of(flows: u32) -> Setup {
    Setup {
        flows,
        ..Setup::default()
    }
}

/// Sends until a packet is dropped. Returns how many passed.
#[track_caller]
fn exhaust(rig: &Rig<'_>, number: u32) -> usize {
    let frame = from(source(number));
    let passed = (0..1000).take_while(|_| rig.passes(&frame)).count();
    assert!(passed < 1000, "{} is not limited", source(number));
    passed
}

/// No cell is two flows', none is lost, and none is shared with those that found no room.
#[track_caller]
pub fn assert_sound(rig: &Rig<'_>, flows: u32) {
    let used: Vec<u32> = rig.flows().into_values().collect();
    let free = rig.free_cells();
    let taken = rig.cells_taken().min(flows);
    let all: BTreeSet<u32> = used.iter().chain(&free).copied().collect();
    assert_eq!(
        all.len(),
        used.len() + free.len(),
        "{used:?}, free {free:?}"
    );
    assert!(all.into_iter().eq(OVERFLOW_CELLS..OVERFLOW_CELLS + taken));
    let words = used.iter().map(|index| rig.cell_at(*index).word);
    assert!(
        words.into_iter().all(|word| word != 0),
        "somebody's cell is nobody's"
    );
}

/// The original knows 256, and never limits another one.
#[test]
fn the_10_000th_source_is_limited_as_the_first() {
    const SOURCES: u32 = 10_000;
    rig::run(
        "the_10_000th_source_is_limited_as_the_first",
        of(SOURCES),
        |rig| {
            let frames: Vec<Vec<u8>> = (0..SOURCES).map(|number| from(source(number))).collect();
            for second in 0..10 {
                rig.set_now(NOW + second * SECOND);
                for (number, frame) in frames.iter().enumerate() {
                    // Two a second: what they began with is used up in the fifth second.
                    let expected = match second {
                        0..5 => [true, true],
                        _ => [true, false],
                    };
                    let passes = [rig.passes(frame), rig.passes(frame)];
                    assert_eq!(passes, expected, "source {number} in second {second}");
                }
            }
            let counted = rig.take_events();
            assert_eq!(counted.flows, u64::from(SOURCES));
            assert_eq!(counted.overflowed, 0);
            assert_eq!(counted.passed.packets, 15 * u64::from(SOURCES));
            assert_eq!(counted.dropped.packets, 5 * u64::from(SOURCES));
            for number in 0..SOURCES {
                let cell = there(rig.cell_of(&flow(source(number))));
                assert_eq!((cell.passed, cell.dropped), (15, 5), "source {number}");
            }
            assert_sound(rig, SOURCES);
        },
    );
}

/// Sources that have cells of their own, and many that found no room, in turn.
struct Flood {
    /// By number, from 0 on.
    established: Vec<FiveSteps>,
    /// By its number, the shared cell of a source that came too late.
    cell_of: BTreeMap<u32, usize>,
    shared: BTreeMap<usize, FiveSteps>,
    newcomers: u32,
}

impl Flood {
    const ESTABLISHED: u32 = 50;

    fn begin(rig: &Rig<'_>, newcomers: u32) -> Flood {
        let mut established = vec![Tokens::USUAL.model(); Flood::ESTABLISHED as usize];
        for (number, model) in (0..).zip(&mut established) {
            assert!(model.passes(NOW.into()));
            assert!(rig.passes(&from(source(number))));
        }
        Flood {
            established,
            cell_of: BTreeMap::new(),
            shared: BTreeMap::new(),
            newcomers,
        }
    }

    fn send(&mut self, rig: &Rig<'_>, number: u32, now: u64) -> bool {
        let frame = from(source(number));
        let passes = rig.passes(&frame);
        if let Some(model) = self.established.get_mut(number as usize) {
            let before = *model;
            assert_eq!(
                passes,
                model.passes(now.into()),
                "{number} at {now}: {before:?}"
            );
            return passes;
        }
        let cell = *there(self.cell_of.get(&number));
        let model = self.shared.entry(cell).or_insert(Tokens::USUAL.model());
        let before = *model;
        assert_eq!(
            passes,
            model.passes(now.into()),
            "{number} at {now}: {before:?}"
        );
        passes
    }

    /// The first packet of a newcomer shows which cell it shares.
    fn arrive(&mut self, rig: &Rig<'_>, number: u32, now: u64) -> bool {
        let before = rig.overflow_cells();
        let passes = rig.passes(&from(source(number)));
        let after = rig.overflow_cells();
        let changed: Vec<usize> = (0..before.len())
            .filter(|at| before[*at] != after[*at])
            .collect();
        let [cell] = changed[..] else {
            panic!("{number} changed the shared cells {changed:?}");
        };
        self.cell_of.insert(number, cell);
        let model = self.shared.entry(cell).or_insert(Tokens::USUAL.model());
        assert_eq!(
            passes,
            model.passes(now.into()),
            "{number} at {now}: {model:?}"
        );
        passes
    }
}

/// Who is established stays under the rule, exactly; who comes too late is under it together with those
/// that share the cell.
#[test]
fn a_full_table_frees_nobody() {
    const NAME: &str = "a_full_table_frees_nobody";
    let setup = Setup {
        flows: Flood::ESTABLISHED,
        ..Setup::default()
    };
    rig::run(NAME, setup, |rig| {
        let long = long(NAME, "1,500 of 10,000 sources that find no room");
        let mut random = Random::new(NAME, long);
        let newcomers = if long { 10_000 } else { 1500 };
        let mut flood = Flood::begin(rig, newcomers);
        let mut now = NOW;
        let (mut sent, mut passed, mut late) = (0, 0, 0);
        for number in 0..newcomers {
            now += random.below(SECOND / 100);
            rig.set_now(now);
            passed += u64::from(flood.arrive(rig, Flood::ESTABLISHED + number, now));
            for _ in 0..20 {
                let known = Flood::ESTABLISHED + number + 1;
                let number = match random.below(2) {
                    0 => random.below(Flood::ESTABLISHED.into()),
                    // Mostly some few, so that their tokens do not suffice.
                    _ => u64::from(known) - 1 - random.below(20.min(u64::from(number) + 1)),
                };
                late += u64::from(number >= Flood::ESTABLISHED.into());
                passed += u64::from(flood.send(rig, number as u32, now));
                sent += 1;
            }
        }
        let newcomers = u64::from(flood.newcomers);
        let (sent, late) = (sent + newcomers, late + newcomers);
        let counted = rig.take_events();
        let established = u64::from(Flood::ESTABLISHED);
        assert_eq!((counted.flows, counted.table_errors), (established, 0));
        assert_eq!(counted.overflowed, late);
        assert_eq!(counted.passed.packets, passed + established);
        assert_eq!(counted.dropped.packets, sent - passed);
        // Every packet is in the count of its cell.
        let shared = rig.overflow_cells();
        assert_eq!(total(&shared), late);
        let own: Vec<Cell> = rig
            .flows()
            .into_values()
            .map(|index| rig.cell_at(index))
            .collect();
        assert_eq!(total(&own), sent - late + established);
        // The cells are used about evenly: of n sources in c cells c * (1 - (1 - 1/c)^n) are used.
        let cells = f64::from(OVERFLOW_CELLS);
        let expected = cells * (1.0 - (1.0 - 1.0 / cells).powf(newcomers as f64));
        let used = flood.shared.len() as f64;
        assert!(
            (0.9..1.1).contains(&(used / expected)),
            "{used} cells of {expected}"
        );
        assert_sound(rig, Flood::ESTABLISHED);
    });
}

fn total(cells: &[Cell]) -> u64 {
    cells.iter().map(|cell| cell.passed + cell.dropped).sum()
}

/// Nobody outside can tell whom he shares a cell with.
#[test]
fn the_seed_decides_who_shares_a_cell() {
    sandbox::run("the_seed_decides_who_shares_a_cell", |_| {
        let mut groups = Vec::new();
        for seed in [7, 7, 8] {
            let setup = Setup {
                seed,
                ..of(Flood::ESTABLISHED)
            };
            rig::with(setup, |rig| {
                let mut flood = Flood::begin(rig, 50);
                for number in Flood::ESTABLISHED..Flood::ESTABLISHED + flood.newcomers {
                    flood.arrive(rig, number, NOW);
                }
                groups.push(flood.cell_of);
            });
        }
        let [first, again, other] = &groups[..] else {
            panic!("{} groups", groups.len());
        };
        assert_eq!(first, again);
        let same = first
            .iter()
            .filter(|(number, cell)| other.get(number) == Some(cell));
        assert!(same.count() < 5);
    });
}

/// What is said of the table of short keys goes for the one of long keys.
#[test]
fn a_full_table_of_connections() {
    let setup = Setup {
        key: Some(Key::TUPLE),
        ..of(3)
    };
    rig::run("a_full_table_of_connections", setup, |rig| {
        for number in 0..10 {
            assert_eq!(exhaust(rig, number), 6, "source {number}");
        }
        let bytes: Vec<u64> = (0..10)
            .map(|number| from(source(number)).len() as u64)
            .collect();
        rig.assert_events(events {
            passed: meter {
                packets: 60,
                bytes: 6 * bytes.iter().sum::<u64>(),
            },
            dropped: meter {
                packets: 10,
                bytes: bytes.iter().sum(),
            },
            flows: 3,
            overflowed: 7 * 7,
            ..events::default()
        });
        assert_sound(rig, 3);
    });
}

/// By a rate in bytes: no shared cell passes more than the rule for one source.
#[test]
fn a_full_table_of_bytes() {
    const SHARED: u32 = 6000;
    let limit = Limit {
        cost: 16 << 10, // a byte a ns
        burst: 16 * 3 * 64,
    };
    let setup = Setup {
        bytes: Some(limit),
        ..of(2)
    };
    rig::run("a_full_table_of_bytes", setup, |rig| {
        let mut own = [Bytes::new(limit.cost, limit.burst); 2];
        for step in 0..4_u64 {
            let now = NOW + step * 64;
            rig.set_now(now);
            for number in 0..2 + SHARED {
                let frame = from(source(number));
                for _ in 0..2 {
                    let passes = rig.passes(&frame);
                    if let Some(model) = own.get_mut(number as usize) {
                        assert_eq!(passes, model.passes(frame.len() as u64, now.into()));
                    }
                }
            }
        }
        assert_eq!(rig.take_events().overflowed, 8 * u64::from(SHARED));
        // A burst of three, and one more in each 64 ns.
        let shared = rig.overflow_cells();
        assert!(shared.iter().all(|cell| cell.passed <= 6), "{shared:?}");
        assert!(
            shared
                .iter()
                .any(|cell| cell.passed == 6 && cell.dropped > 0)
        );
        assert_eq!(total(&shared), 8 * u64::from(SHARED));
    });
}

#[test]
fn cells_that_were_handed_back_are_used_again() {
    rig::run("cells_that_were_handed_back_are_used_again", of(8), |rig| {
        for number in 0..8 {
            assert_eq!(exhaust(rig, number), 6);
        }
        assert_sound(rig, 8);
        rig.take_events();
        let mut handed_back = BTreeSet::new();
        for number in [2, 3, 7] {
            handed_back.insert(there(rig.index_of(&flow(source(number)))));
            rig.forget(&flow(source(number)));
        }
        assert_sound(rig, 8);
        // New ones have them, and nothing of their predecessors.
        let mut used = BTreeSet::new();
        for number in 10..13 {
            assert_eq!(exhaust(rig, number), 6);
            let index = there(rig.index_of(&flow(source(number))));
            used.insert(index);
            let cell = rig.cell_at(index);
            assert_eq!((cell.passed, cell.dropped), (6, 1));
        }
        assert_eq!(used, handed_back);
        let counted = rig.take_events();
        assert_eq!((counted.flows, counted.overflowed), (3, 0));
        assert_sound(rig, 8);
        // Now it is full again: for one who was there before as for any other.
        for number in [2, 20] {
            assert_eq!(exhaust(rig, number), 6);
            assert_eq!(rig.index_of(&flow(source(number))), None);
        }
        let counted = rig.take_events();
        assert_eq!((counted.flows, counted.overflowed), (0, 14));
        // The others have noticed nothing.
        for number in [0, 1, 4, 5, 6] {
            assert!(!rig.passes(&from(source(number))), "source {number}");
        }
        rig.set_now(NOW + SECOND);
        for number in [0, 1, 4, 5, 6, 10, 11, 12] {
            assert_eq!(exhaust(rig, number), 1, "source {number}");
        }
    });
}

/// Again and again, in random order, many times as many flows as there is room for.
#[test]
fn no_cell_is_lost_or_given_twice() {
    const NAME: &str = "no_cell_is_lost_or_given_twice";
    const FLOWS: u32 = 16;
    rig::run(NAME, of(FLOWS), |rig| {
        let mut random = Random::new(NAME, false);
        let mut models: BTreeMap<u32, FiveSteps> = BTreeMap::new();
        for round in 0..60 {
            // Some are forgotten: the waiting for another tick is done once for all of them.
            let forgotten: Vec<u32> = models
                .keys()
                .copied()
                .filter(|_| random.below(4) == 0)
                .collect();
            let cells: Vec<u32> = forgotten
                .iter()
                .map(|number| {
                    models.remove(number);
                    rig.remove(&flow(source(*number)))
                })
                .collect();
            wait_for_another_tick();
            for cell in cells {
                rig.free_cell(cell);
            }
            let now = NOW + round * SECOND / 2;
            rig.set_now(now);
            for _ in 0..100 {
                let number = random.below(40) as u32;
                let has_room = models.len() < FLOWS as usize;
                let passes = rig.passes(&from(source(number)));
                if has_room || models.contains_key(&number) {
                    let model = models.entry(number).or_insert(Tokens::USUAL.model());
                    assert_eq!(
                        passes,
                        model.passes(now.into()),
                        "round {round}, source {number}"
                    );
                }
            }
            assert_eq!(rig.flows().len(), models.len());
            assert_sound(rig, FLOWS);
        }
    });
}

/// User space has taken its cell back, and the entry is still there: what comes then shares a cell with
/// others. It is not given another one, nor a full bucket in its own.
#[test]
fn a_flow_whose_cell_was_taken_back_shares_one() {
    const NAME: &str = "a_flow_whose_cell_was_taken_back_shares_one";
    // While there is room, and while there is none.
    for flows in [8, 1] {
        rig::run(NAME, of(flows), |rig| {
            let frame = from(source(1));
            for wait in [true, false] {
                exhaust(rig, 1);
                rig.take_events();
                let index = rig.take_back(&flow(source(1)));
                if wait {
                    // So that it is found in the table, not among those that came a moment ago.
                    wait_for_another_tick();
                }
                let shared = rig.overflow_cells();
                let passed = (0..20).filter(|_| rig.passes(&frame)).count();
                // The shared cell is at its beginning the first time.
                assert_eq!(passed, if wait { 6 } else { 0 });
                assert_eq!(rig.take_events().overflowed, 20);
                let used = rig.overflow_cells();
                let changed = shared
                    .iter()
                    .zip(&used)
                    .filter(|(before, after)| before != after);
                assert_eq!(changed.count(), 1);
                assert_eq!(rig.cell_at(index), Cell::default());
                assert_eq!(rig.index_of(&flow(source(1))), Some(index));
                // Whatever was tried meanwhile has been handed back.
                assert_eq!(
                    rig.free_cells().len() as u32,
                    rig.cells_taken().min(flows) - 1
                );
                // User space goes on: the flow is gone, and then somebody may have the cell.
                wait_for_another_tick();
                rig.forget(&flow(source(1)));
                assert_sound(rig, flows);
            }
        });
    }
}

/// It is known nowhere any more, not even among those that came a moment ago.
#[test]
fn a_flow_that_was_removed_begins_anew_at_once() {
    rig::run(
        "a_flow_that_was_removed_begins_anew_at_once",
        of(8),
        |rig| {
            for _ in 0..4 {
                assert_eq!(exhaust(rig, 1), 6);
                rig.remove(&flow(source(1)));
            }
            let counted = rig.take_events();
            assert_eq!((counted.flows, counted.overflowed), (4, 0));
        },
    );
}
