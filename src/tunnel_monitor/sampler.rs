//! Takes samples: reads what the kernel has counted, lets the window go on, and forgets idle flows.
//!
//! A slot of the table goes through these states, so that what is forgotten is neither lost nor counted
//! twice, and no figure of one flow is ever compared with another one's:
//!
//! 1. A flow is in it, and in every sample.
//! 2. It was idle for long. It is taken out of the kernel's table, and what was counted to the very last
//!    packet is in one more sample.
//! 3. From the next sample on nobody is in it, and its figures are among the forgotten. No packet meets it.
//! 4. Every column that a new sample looks at has 0 there: it is given back to the kernel.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use anyhow::Result;

use super::flow::{Counts, Flow};
use super::sample::{Column, Sample, Span, Tally};

/// A sample that comes a little early still ends the window.
const TOLERANCE: Duration = Duration::from_millis(100);

/// Where the figures come from.
pub trait Source {
    /// Slots that were ever in use: those below it may hold a flow.
    fn slots_used(&self) -> u32;
    /// Who is in a slot. Nobody from [`Source::take_out`] to [`Source::give_back`].
    fn flow(&self, slot: u32) -> Option<Flow>;
    /// What was counted in a slot; never less than before.
    fn counts(&self, slot: u32) -> Counts;
    /// Takes flows out of the table: no packet finds them any more, and these are their last figures.
    /// Their slots stay empty.
    fn take_out(&mut self, slots: &[u32]) -> Result<Vec<Counts>>;
    /// Other flows may have these slots. Their counts are 0.
    fn give_back(&mut self, slots: &[u32]) -> Result<()>;
    /// What was counted apart from flows.
    fn tally(&self) -> Tally;
}

/// A column, and when it was read.
#[derive(Clone, Debug)]
struct Moment {
    /// Number of its sample.
    number: u64,
    time: SystemTime,
    clock: Instant,
    column: Column,
}

impl Moment {
    fn until(&self, later: &Moment) -> Span {
        Span {
            from: self.time,
            to: later.time,
            length: later.clock - self.clock,
            before: Arc::clone(&self.column),
            after: Arc::clone(&later.column),
        }
    }
}

/// Takes samples, one after the other.
#[derive(Debug)]
pub struct Sampler {
    window: Duration,
    forget_after: Duration,
    started: Instant,
    /// The last one.
    sample: Arc<Sample>,
    last: Moment,
    window_began: Moment,
    /// Number of the sample whose column the window of the last sample begins with.
    window_before: u64,
    /// By slot: when its figures were last seen to change.
    changed: Vec<Instant>,
    /// Taken out of the kernel's table with the last sample, which still shows them.
    leaving: Vec<u32>,
    /// Shown by no sample from that number on, and not given back yet.
    empty: VecDeque<(u64, Vec<u32>)>,
}

impl Sampler {
    /// Counting begins now. A window is so long; flows that are idle for longer are forgotten.
    pub fn new(first: Sample, window: Duration, forget_after: Duration) -> Sampler {
        let now = Moment {
            number: first.number,
            time: first.time,
            clock: Instant::now(),
            column: Column::default(),
        };
        Sampler {
            window,
            forget_after,
            started: now.clock,
            sample: Arc::new(first),
            window_began: now.clone(),
            window_before: 0,
            last: now,
            changed: Vec::new(),
            leaving: Vec::new(),
            empty: VecDeque::new(),
        }
    }

    /// The last sample.
    pub fn sample(&self) -> &Arc<Sample> {
        &self.sample
    }

    /// The interfaces, as the next samples name them.
    pub fn set_interfaces(&mut self, names: Vec<String>) {
        Arc::make_mut(&mut self.sample).interfaces = Arc::new(names);
    }

    /// Takes the next sample. Whether it ended a window shows in its `window`.
    pub fn take(&mut self, source: &mut impl Source) -> Result<Arc<Sample>> {
        self.take_at(source, Instant::now(), SystemTime::now())
    }

    fn take_at(
        &mut self,
        source: &mut impl Source,
        clock: Instant,
        time: SystemTime,
    ) -> Result<Arc<Sample>> {
        let number = self.last.number + 1;
        let mut sample = Sample::clone(&self.sample);
        self.bury(&mut sample, number);
        self.give_back(source)?;
        self.leaving = self.idle(source, &sample, clock);
        let last_figures = source.take_out(&self.leaving)?;

        let slots = source.slots_used() as usize;
        self.meet(source, &mut sample, slots, clock);
        let column = self.read(source, &sample, slots, last_figures, clock);
        // Last, so that packets that come meanwhile make the totals greater than the sum, not less.
        let tally = source.tally();

        let now = Moment {
            number,
            time,
            clock,
            column: Arc::new(column),
        };
        sample.number = number;
        sample.time = time;
        sample.elapsed = clock - self.started;
        sample.second = self.last.until(&now);
        if clock - self.window_began.clock + TOLERANCE >= self.window {
            sample.window = self.window_began.until(&now);
            self.window_before = self.window_began.number;
            self.window_began = now.clone();
        }
        sample.window_age = clock - self.window_began.clock;
        sample.totals = tally.totals;
        sample.other = tally.other;
        sample.uncounted = tally.uncounted;
        self.last = now;
        self.sample = Arc::new(sample);
        Ok(Arc::clone(&self.sample))
    }

    /// Those whose last figures were in the last sample are in none any more.
    fn bury(&mut self, sample: &mut Sample, number: u64) {
        if self.leaving.is_empty() {
            return;
        }
        let flows = Arc::make_mut(&mut sample.flows);
        for slot in &self.leaving {
            let slot = *slot as usize;
            flows[slot] = None;
            sample.forgotten += self.last.column[slot];
        }
        sample.forgotten_flows += self.leaving.len() as u64;
        self.empty
            .push_back((number, std::mem::take(&mut self.leaving)));
    }

    /// Slots that are 0 in all columns from the beginning of the window that is shown on.
    fn give_back(&mut self, source: &mut impl Source) -> Result<()> {
        let is_clear = |(number, _): &(u64, Vec<u32>)| *number <= self.window_before;
        while self.empty.front().is_some_and(is_clear) {
            if let Some((_, slots)) = self.empty.pop_front() {
                source.give_back(&slots)?;
            }
        }
        Ok(())
    }

    /// Those that nothing has come for, up to now.
    fn idle(&self, source: &impl Source, sample: &Sample, clock: Instant) -> Vec<u32> {
        let flows = sample.flows.iter().zip(&self.changed);
        let slots = flows.zip(self.last.column.iter()).zip(0..);
        slots
            .filter(|(((flow, changed), figures), slot)| {
                flow.is_some()
                    && clock - **changed >= self.forget_after
                    && source.counts(*slot) == **figures
            })
            .map(|(_, slot)| slot)
            .collect()
    }

    /// New flows.
    fn meet(&mut self, source: &impl Source, sample: &mut Sample, slots: usize, clock: Instant) {
        self.changed.resize(slots, clock);
        let known = Arc::clone(&sample.flows);
        let is_free = |slot: &usize| known.get(*slot).is_none_or(Option::is_none);
        let mut new = (0..slots).filter(is_free).filter_map(|slot| {
            let flow = source.flow(slot as u32)?;
            Some((slot, flow))
        });
        let Some(first) = new.next() else {
            return;
        };
        let flows = Arc::make_mut(&mut sample.flows);
        flows.resize(slots, None);
        for (slot, flow) in std::iter::once(first).chain(new) {
            flows[slot] = Some(flow);
            self.changed[slot] = clock;
        }
    }

    /// The figures of all slots; `last_figures` are those of the flows that leave.
    fn read(
        &mut self,
        source: &impl Source,
        sample: &Sample,
        slots: usize,
        last_figures: Vec<Counts>,
        clock: Instant,
    ) -> Vec<Counts> {
        let mut column = vec![Counts::default(); slots];
        let mut leaving = self.leaving.iter().zip(last_figures).peekable();
        for (slot, flow) in (0..).zip(sample.flows.iter()) {
            if flow.is_none() {
                continue;
            }
            let left = leaving.next_if(|(leaving, _)| **leaving == slot);
            let counts = left.map_or_else(|| source.counts(slot), |(_, figures)| figures);
            let slot = slot as usize;
            let before = self.last.column.get(slot).copied().unwrap_or_default();
            if counts != before {
                self.changed[slot] = clock;
            }
            column[slot] = counts;
        }
        column
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tunnel_monitor::flow::{Encap, Inner, Outer};
    use proptest::prelude::*;
    use proptest::test_runner::RngSeed;
    use std::collections::HashMap;
    use std::net::Ipv4Addr;

    fn flow(number: u32) -> Flow {
        let address = |network: u8| Ipv4Addr::from(u32::from(network) << 24 | number);
        Flow {
            encap: Encap::Vxlan,
            vni: number,
            outer: Outer::V4 {
                local: address(10),
                remote: address(11),
            },
            inner: Inner::NotIp,
        }
    }

    fn packets(count: u64) -> Counts {
        Counts {
            rx_pkts: count,
            rx_bytes: 100 * count,
            ..Counts::default()
        }
    }

    /// A table of three slots, as the kernel's.
    #[derive(Default)]
    struct Table {
        used: u32,
        rows: [Option<(Flow, Counts)>; 3],
        free: Vec<u32>,
        taken: [bool; 3],
        totals: Counts,
        other: Counts,
        /// Comes in for each flow that is just being taken out.
        late: u64,
    }

    impl Table {
        fn count(&mut self, flow: &Flow, count: u64) {
            self.totals += packets(count);
            let found = self
                .rows
                .iter_mut()
                .flatten()
                .find(|(other, _)| other == flow);
            if let Some((_, counts)) = found {
                *counts += packets(count);
                return;
            }
            let slot = self.free.pop().or_else(|| {
                let fresh = self.used;
                (fresh < 3).then(|| {
                    self.used += 1;
                    fresh
                })
            });
            match slot {
                Some(slot) => self.rows[slot as usize] = Some((flow.clone(), packets(count))),
                None => self.other += packets(count),
            }
        }
    }

    impl Source for Table {
        fn slots_used(&self) -> u32 {
            self.used
        }

        fn flow(&self, slot: u32) -> Option<Flow> {
            let row = self.rows[slot as usize].as_ref();
            row.map(|(flow, _)| flow.clone())
        }

        fn counts(&self, slot: u32) -> Counts {
            self.rows[slot as usize].as_ref().unwrap().1
        }

        fn take_out(&mut self, slots: &[u32]) -> Result<Vec<Counts>> {
            let mut last = Vec::new();
            for slot in slots {
                let (_, mut counts) = self.rows[*slot as usize].take().unwrap();
                counts += packets(self.late);
                self.totals += packets(self.late);
                self.taken[*slot as usize] = true;
                last.push(counts);
            }
            Ok(last)
        }

        fn give_back(&mut self, slots: &[u32]) -> Result<()> {
            for slot in slots {
                assert!(std::mem::take(&mut self.taken[*slot as usize]));
                self.free.push(*slot);
            }
            Ok(())
        }

        fn tally(&self) -> Tally {
            Tally {
                totals: self.totals,
                other: self.other,
                ..Tally::default()
            }
        }
    }

    /// A sampler whose time is the test's: a sample a second, a window of 2 s, flows live for 3 s.
    struct Rig {
        table: Table,
        sampler: Sampler,
        clock: Instant,
    }

    impl Rig {
        fn new() -> Rig {
            let first = Sample::empty(vec!["eth0".into()], 3);
            let sampler = Sampler::new(first, Duration::from_secs(2), Duration::from_secs(3));
            Rig {
                table: Table::default(),
                clock: sampler.started,
                sampler,
            }
        }

        fn second(&mut self) -> Arc<Sample> {
            self.clock += Duration::from_secs(1);
            let time = SystemTime::UNIX_EPOCH + (self.clock - self.sampler.started);
            self.sampler
                .take_at(&mut self.table, self.clock, time)
                .unwrap()
        }
    }

    fn shown(sample: &Sample) -> Vec<(u32, u64, u64, u64)> {
        sample
            .rows()
            .map(|row| {
                (
                    row.flow.vni,
                    row.total.rx_pkts,
                    row.window.rx_pkts,
                    row.second.rx_pkts,
                )
            })
            .collect()
    }

    #[test]
    fn a_flow_is_met_counted_by_second_and_window_and_forgotten() {
        let mut rig = Rig::new();
        assert_eq!(shown(&rig.second()), []);
        rig.table.count(&flow(7), 5);
        // The first window ends with the second sample.
        assert_eq!(shown(&rig.second()), [(7, 5, 5, 5)]);
        rig.table.count(&flow(7), 2);
        assert_eq!(shown(&rig.second()), [(7, 7, 5, 2)]);
        assert_eq!(shown(&rig.second()), [(7, 7, 2, 0)]);
        assert_eq!(shown(&rig.second()), [(7, 7, 2, 0)]);
        // Idle for three seconds: taken out, with a packet that came in that very moment.
        rig.table.late = 1;
        let sample = rig.second();
        assert_eq!(shown(&sample), [(7, 8, 1, 1)]);
        assert_eq!((sample.forgotten_flows, sample.forgotten), (0, packets(0)));
        let sample = rig.second();
        assert_eq!(shown(&sample), []);
        assert_eq!((sample.forgotten_flows, sample.forgotten), (1, packets(8)));
        assert_eq!(sample.totals, packets(8));
    }

    #[test]
    fn ages_are_right_whoever_sets_the_clock() {
        let mut rig = Rig::new();
        rig.second();
        let ended = rig.second();
        assert_eq!(ended.window_age, Duration::ZERO);
        rig.clock += Duration::from_secs(1);
        let an_hour_back = ended.time - Duration::from_secs(3600);
        let sample = rig
            .sampler
            .take_at(&mut rig.table, rig.clock, an_hour_back)
            .unwrap();
        assert_eq!(sample.window_age, Duration::from_secs(1));
        assert_eq!(sample.window.to, ended.time);
    }

    #[test]
    fn a_slot_is_given_back_when_no_column_remembers_it() {
        let mut rig = Rig::new();
        rig.table.count(&flow(1), 1);
        let forgotten = loop {
            let sample = rig.second();
            if sample.forgotten_flows == 1 {
                break sample.number;
            }
        };
        let given_back = loop {
            let sample = rig.second();
            if !rig.table.free.is_empty() {
                break sample;
            }
            assert!(sample.number < forgotten + 10, "never");
        };
        assert!(given_back.window.before.iter().all(Counts::is_zero));
        rig.table.count(&flow(2), 3);
        assert_eq!(rig.table.used, 1);
        assert_eq!(shown(&rig.second())[0].3, 3);
    }

    #[test]
    fn interfaces_are_named_from_the_next_sample_on() {
        let mut rig = Rig::new();
        rig.sampler.set_interfaces(vec!["eth1".into()]);
        assert_eq!(*rig.second().interfaces, ["eth1"]);
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            cases: 1_000,
            failure_persistence: None,
            rng_seed: RngSeed::Fixed(1),
            ..ProptestConfig::default()
        })]

        /// Whatever comes when: nothing is lost, nothing counted twice, nothing goes back.
        #[test]
        fn every_packet_is_in_one_place_and_in_one_second(
            seconds in prop::collection::vec(
                (prop::collection::vec((0_u32..6, 1_u64..9), 0..3), 0_u64..3),
                1..60,
            ),
        ) {
            let mut rig = Rig::new();
            // What readers add up: by flow from seconds, by flow from windows.
            let mut by_second: HashMap<u32, u64> = HashMap::new();
            let mut windows = 0;
            let mut window_end = None;
            let mut sent: HashMap<u32, u64> = HashMap::new();
            let mut others = 0;
            for (traffic, late) in seconds {
                rig.table.late = late;
                for (vni, count) in traffic {
                    let other = rig.table.other.rx_pkts;
                    rig.table.count(&flow(vni), count);
                    if rig.table.other.rx_pkts == other {
                        *sent.entry(vni).or_default() += count;
                    } else {
                        others += count;
                    }
                }
                let before = Arc::clone(rig.sampler.sample());
                let sample = rig.second();
                let rows: Counts = sample.rows().map(|row| row.total).sum();
                let mut sum = rows;
                sum += sample.other;
                sum += sample.forgotten;
                prop_assert_eq!(sum, sample.totals);
                let mut in_second = 0;
                for row in sample.rows() {
                    *by_second.entry(row.flow.vni).or_default() += row.second.rx_pkts;
                    in_second += row.second.rx_pkts;
                    prop_assert!(row.second.rx_pkts <= row.total.rx_pkts);
                    let earlier = before.rows().find(|other| other.slot == row.slot);
                    if let Some(earlier) = earlier {
                        prop_assert_eq!(earlier.flow, row.flow, "a slot changed hands at once");
                    }
                }
                prop_assert_eq!(
                    in_second,
                    (sample.totals - before.totals).rx_pkts - (sample.other - before.other).rx_pkts
                );
                if window_end != Some(sample.window.to) && !sample.window.length.is_zero() {
                    window_end = Some(sample.window.to);
                    windows += sample.rows().map(|row| row.window.rx_pkts).sum::<u64>();
                    // What came so late that its flow was gone when the window ended is missing there.
                    let late = rig.table.totals.rx_pkts - sent.values().sum::<u64>() - others;
                    let seconds = by_second.values().sum::<u64>();
                    prop_assert!(windows <= seconds && seconds <= windows + late);
                }
            }
            let late: u64 = rig.table.totals.rx_pkts - sent.values().sum::<u64>() - others;
            prop_assert_eq!(
                by_second.values().sum::<u64>(),
                sent.values().sum::<u64>() + late
            );
        }
    }
}
