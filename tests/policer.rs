//! `src/bpf/policer.h` alone, under BPF_PROG_TEST_RUN: every verdict against a model in exact
//! arithmetic with a clock of the test's own, one bucket from two CPUs at once, and the real clocks.

mod seed;

use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Barrier;
use std::time::Duration;

use libbpf_rs::skel::SkelBuilder;
use libbpf_rs::{MapCore, MapFlags, OpenObject};
use netbpf::load::load;
use netbpf::policer::{Clock, Limit, Tick};
use nix::time::{ClockId, clock_gettime};
use testbed::{cpus, long, sandbox, skip, step, test_run};

use seed::Random;
use skeleton::types::{arrival, batch, bucket, tally};
use skeleton::{PolicerSkel, PolicerSkelBuilder};

mod skeleton {
    include!(concat!(env!("OUT_DIR"), "/policer.skel.rs"));

    // SAFETY: all integers, every bit pattern is a value, and no padding.
    unsafe impl plain::Plain for types::bucket {}
    // SAFETY: as above.
    unsafe impl plain::Plain for types::arrival {}
    // SAFETY: as above.
    unsafe impl plain::Plain for types::tally {}
}

/// Verdicts, in the order of `enum verdict`.
const CONFORMS: u32 = 0;
const EXCEEDS: u32 = 1;
const CONTENDED: u32 = 2;

/// Packets that one run of `judge_batch` judges.
const BATCH: usize = size_of::<batch>() / size_of::<arrival>();
/// Units of time in a second.
const SECOND: u64 = 16_000_000_000;
/// Far from boot and from wrap-around.
const SOME_TIME: u64 = 1_000_000 * SECOND;

const KEY: [u8; 4] = [0; 4];

/// The rule, in exact arithmetic: time has no width here, and neither has money.
struct Model {
    /// Units of time that a byte costs, times 1024: rounded up from the rate.
    byte: u128,
    /// Units that it takes to send the burst, rounded down.
    burst: u128,
    /// Everything that has passed is paid for at this time. It does not wrap.
    paid: i128,
}

impl Model {
    fn new(bits_per_second: u64, burst_bytes: u64, paid: i128) -> Model {
        // A byte takes 8 s at 1 bit/s.
        let byte = (8 * u128::from(SECOND) * 1024).div_ceil(bits_per_second.into());
        let burst = u128::from(burst_bytes) * byte / 1024;
        Model { byte, burst, paid }
    }

    fn passes(&mut self, bytes: u32, now: i128) -> bool {
        let price = (u128::from(bytes) * self.byte).div_ceil(1024) as i128;
        let burst = self.burst as i128;
        let debt = (self.paid - now).max(0);
        let passes = if price > burst {
            debt == 0
        } else {
            debt + price <= burst
        };
        if passes {
            self.paid = now + debt + price;
        }
        passes
    }

    /// What the BPF side takes, by netbpf; the model has made its own of the same figures.
    fn limit(bits_per_second: u64, burst_bytes: u64) -> Limit {
        let rate = step("read a rate", format!("{bits_per_second}bit").parse());
        let burst = step("read a burst", format!("{burst_bytes}b").parse());
        step("make a limit", Limit::new(rate, burst))
    }
}

/// Every order of magnitude between the two as likely as any other.
fn of_any_size(random: &mut Random, least: u64, most: u64) -> u64 {
    let bits = u64::from(most.ilog2() - least.ilog2()) + 1;
    let scale = least.ilog2() + random.below(bits) as u32;
    let value = (1 << scale) | (random.next() & ((1 << scale) - 1));
    value.clamp(least, most)
}

struct Policer<'obj> {
    skeleton: PolicerSkel<'obj>,
}

impl<'obj> Policer<'obj> {
    fn load(object: &'obj mut MaybeUninit<OpenObject>) -> Policer<'obj> {
        let open = step("open", PolicerSkelBuilder::default().open(object));
        let skeleton = step("load the BPF programs", load(open));
        Policer { skeleton }
    }

    fn set_bucket(&self, limit: Limit, paid_until: u64) {
        let Limit { cost, burst } = limit;
        let bucket = bucket {
            paid_until,
            cost,
            burst,
            ..Default::default()
        };
        let map = &self.skeleton.maps.buckets;
        step("set", map.update(&KEY, bytes(&bucket), MapFlags::ANY));
    }

    fn bucket(&self) -> bucket {
        let map = &self.skeleton.maps.buckets;
        value(&there(step("look up", map.lookup(&KEY, MapFlags::ANY))))
    }

    /// Puts these packets (`now` and bytes) to the bucket, in this order: a full batch.
    fn judge(&self, arrivals: &mut [arrival]) {
        assert_eq!(arrivals.len(), BATCH);
        let map = &self.skeleton.maps.batches;
        // SAFETY: integers without padding.
        let given = unsafe { plain::as_bytes(arrivals) };
        step("write the batch", map.update(&KEY, given, MapFlags::ANY));
        run(self.skeleton.progs.judge_batch.as_fd(), 1);
        let judged = there(step("read the batch", map.lookup(&KEY, MapFlags::ANY)));
        for (arrival, judged) in arrivals.iter_mut().zip(judged.chunks(size_of::<arrival>())) {
            *arrival = value(judged);
        }
    }

    /// The verdicts of `arrivals`, which may be fewer than a batch.
    fn verdicts(&self, arrivals: &[(u64, u32)]) -> Vec<u32> {
        // What is not asked for costs nothing.
        let mut batch = vec![arrival::default(); BATCH];
        for (arrival, (now, bytes)) in batch.iter_mut().zip(arrivals) {
            (arrival.now, arrival.bytes) = (*now, *bytes);
        }
        let rest = there(arrivals.last()).0;
        for arrival in batch.iter_mut().skip(arrivals.len()) {
            arrival.now = rest;
        }
        self.judge(&mut batch);
        let judged = batch.iter().take(arrivals.len());
        judged.map(|arrival| arrival.verdict).collect()
    }
}

/// A value of a map as the bytes that it takes.
fn bytes<T: plain::Plain>(value: &T) -> &[u8] {
    // SAFETY: integers without padding.
    unsafe { plain::as_bytes(value) }
}

fn value<T: plain::Plain + Default>(bytes: &[u8]) -> T {
    let mut value = T::default();
    let copied = plain::copy_from_bytes(&mut value, bytes);
    assert!(copied.is_ok(), "{} bytes of a value", bytes.len());
    value
}

/// What the skeleton or a map has always.
fn there<T>(option: Option<T>) -> T {
    option.unwrap_or_else(|| panic!("a map, its key or its value is missing"))
}

/// On any frame.
fn run(program: BorrowedFd<'_>, repeat: u32) {
    test_run::by_descriptor(program, &[0; 14], repeat);
}

fn with_policer(name: &str, body: impl FnOnce(&mut Policer<'_>) + Send) {
    sandbox::run(name, |_| {
        let mut object = MaybeUninit::uninit();
        body(&mut Policer::load(&mut object));
    });
}

/// How the time of a run of packets goes on.
#[derive(Clone, Copy, Debug)]
enum Steps {
    /// To the unit.
    Precise,
    /// In steps of so many units.
    Ticks(u64),
}

/// One bucket with one rate, and the packets put to it.
#[derive(Debug)]
struct Scene {
    bits_per_second: u64,
    burst_bytes: u64,
    /// The kernel's clock at the first packet.
    start: u64,
    /// The bucket is full already for so long.
    idle: u64,
    steps: Steps,
    /// Of a packet, usually.
    largest: u32,
    /// Load in hundredths of the rate.
    load: u64,
}

impl Scene {
    fn random(random: &mut Random) -> Scene {
        let bits_per_second = of_any_size(random, 8, 100_000_000_000);
        // A year at most, as Limit::new has it; and with a margin for its rounding up.
        let year = 365 * 86_400 * (bits_per_second / 8);
        let burst_bytes = of_any_size(random, 1514, (year / 101 * 100).clamp(1514, 1 << 32));
        let (start, idle) = match random.below(4) {
            // Just after boot no burst has been able to fill up yet; an untouched bucket is full.
            0 => {
                let now = random.below(SECOND);
                (now, now)
            }
            // Just before wrap-around.
            1 => (
                0_u64.wrapping_sub(of_any_size(random, 1, 10 * SECOND)),
                random.below(SECOND),
            ),
            // A clock whose sign changes.
            2 => (
                (1_u64 << 63) - of_any_size(random, 1, 10 * SECOND),
                random.below(SECOND),
            ),
            _ => (SOME_TIME + random.below(SOME_TIME), random.below(SOME_TIME)),
        };
        let steps = match random.below(2) {
            0 => Steps::Precise,
            _ => Steps::Ticks([1_000_000, 4_000_000, 10_000_000][random.below(3) as usize] * 16),
        };
        Scene {
            bits_per_second,
            burst_bytes,
            start,
            idle,
            steps,
            largest: [64, 1514, 9014, 65_550, 524_288][random.below(5) as usize],
            load: [10, 90, 100, 110, 1000][random.below(5) as usize],
        }
    }

    /// Puts `batches` batches to the bucket. Returns how many of them passed.
    fn play(&self, policer: &Policer<'_>, random: &mut Random, batches: usize) -> u64 {
        let full_since = i128::from(self.start) - i128::from(self.idle);
        let mut model = Model::new(self.bits_per_second, self.burst_bytes, full_since);
        let limit = Model::limit(self.bits_per_second, self.burst_bytes);
        policer.set_bucket(limit, full_since as u64);
        let mut now = i128::from(self.start);
        let mut passed = 0;
        let mut times = vec![0; BATCH];
        let mut batch = vec![arrival::default(); BATCH];
        for _ in 0..batches {
            for (arrival, time) in batch.iter_mut().zip(&mut times) {
                let bytes = self.bytes(random);
                now += self.pause(random, &model, bytes);
                *time = match self.steps {
                    Steps::Precise => now,
                    Steps::Ticks(tick) => now - now.rem_euclid(i128::from(tick)),
                };
                // Ticks must not lead back before the first packet.
                *time = (*time).max(i128::from(self.start));
                // The kernel's clock has 64 bits.
                (arrival.now, arrival.bytes) = (*time as u64, bytes);
                arrival.verdict = u32::MAX;
            }
            policer.judge(&mut batch);
            for (at, (arrival, time)) in batch.iter().zip(&times).enumerate() {
                let passes = model.passes(arrival.bytes, *time);
                let verdict = if passes { CONFORMS } else { EXCEEDS };
                assert_eq!(
                    arrival.verdict, verdict,
                    "packet {at} of {} bytes at {time}: {self:?}",
                    arrival.bytes
                );
                passed += u64::from(passes);
            }
            // What the bucket holds is what the model says, not only the verdicts.
            assert_eq!(policer.bucket().paid_until, model.paid as u64, "{self:?}");
        }
        passed
    }

    fn bytes(&self, random: &mut Random) -> u32 {
        match random.below(64) {
            // Beside the usual: nothing, and what is larger than the burst, or just not.
            0 => random.below(2) as u32,
            1 => (self.burst_bytes - 1 + random.below(3)).min(524_288) as u32,
            2 => of_any_size(random, 1, 524_288) as u32,
            _ => 1 + random.below(self.largest.into()) as u32,
        }
    }

    /// Units to the next packet; around what this one costs.
    fn pause(&self, random: &mut Random, model: &Model, bytes: u32) -> i128 {
        let price = (u128::from(bytes) * model.byte / 1024) as u64;
        match random.below(256) {
            // At once, as packets of one interrupt come.
            0..64 => 0,
            // Long enough to be full again, or just not.
            64 => (model.burst as u64 / 2 + random.below(model.burst as u64)).into(),
            // Until all is paid, to the unit: that is where verdicts change.
            65..72 => (model.paid - i128::from(self.start)).clamp(0, 1) * price as i128,
            _ => {
                let mean = (u128::from(price) * 100 / u128::from(self.load)) as u64;
                random.below(mean.saturating_mul(2).max(2)).into()
            }
        }
    }
}

#[test]
fn every_verdict_is_the_models() {
    const NAME: &str = "every_verdict_is_the_models";
    with_policer(NAME, |policer| {
        let long = long(NAME, "2 of 50 million packets");
        let packets: usize = if long { 50_000_000 } else { 2_000_000 };
        let mut random = Random::new(NAME, long);
        let (mut passed, mut played) = (0, 0);
        while played < packets {
            passed += Scene::random(&mut random).play(policer, &mut random, 2);
            played += 2 * BATCH;
        }
        // A model and a policer that always agree on the same answer would prove little.
        let share = passed as f64 / played as f64;
        assert!((0.2..0.95).contains(&share), "{share} of {played} passed");
    });
}

#[test]
fn the_burst_passes_at_once_and_then_the_rate() {
    with_policer("the_burst_passes_at_once_and_then_the_rate", |policer| {
        // A byte a microsecond.
        policer.set_bucket(Model::limit(8_000_000, 3000), SOME_TIME);
        let us = 16_000; // units
        let arrivals = [
            (SOME_TIME, 1500),
            (SOME_TIME, 1500),
            (SOME_TIME, 1),                  // the burst is used up
            (SOME_TIME + 100 * us - 1, 100), // a unit too early
            (SOME_TIME + 100 * us, 100),     // just in time
            (SOME_TIME + 100 * us, 1),       //
            (SOME_TIME + 3100 * us, 3000),   // full again
            (SOME_TIME + 9000 * us, 3000),   // no more than full after a long pause
            (SOME_TIME + 9000 * us, 1),
        ];
        assert_eq!(policer.verdicts(&arrivals), [0, 0, 1, 1, 0, 1, 0, 0, 1]);
        assert_eq!(policer.bucket().paid_until, SOME_TIME + 12_000 * us);
    });
}

#[test]
fn a_packet_larger_than_the_burst_takes_a_full_bucket_and_is_charged_in_full() {
    const NAME: &str = "a_packet_larger_than_the_burst_takes_a_full_bucket_and_is_charged_in_full";
    with_policer(NAME, |policer| {
        policer.set_bucket(Model::limit(8_000_000, 3000), SOME_TIME);
        let us = 16_000; // units
        let arrivals = [
            (SOME_TIME, 1),
            (SOME_TIME + us - 1, 64_000), // a unit is not paid for yet
            (SOME_TIME + us, 64_000),
            (SOME_TIME + us, 1),
            (SOME_TIME + 61_000 * us, 1), // 64,001 us owed, the burst is 3000 us ahead at most
            (SOME_TIME + 61_002 * us, 1),
            (SOME_TIME + 64_001 * us, 64_000), // that byte is owed
            (SOME_TIME + 64_002 * us, 64_000),
        ];
        assert_eq!(policer.verdicts(&arrivals), [0, 1, 0, 1, 1, 0, 1, 0]);
        assert_eq!(policer.bucket().paid_until, SOME_TIME + 128_002 * us);
    });
}

#[test]
fn a_bucket_without_a_rate_lets_everything_pass() {
    with_policer("a_bucket_without_a_rate_lets_everything_pass", |policer| {
        policer.set_bucket(Limit { cost: 0, burst: 0 }, 0);
        assert_eq!(policer.verdicts(&[(0, u32::MAX), (0, 1), (1, 0)]), [0; 3]);
        assert_eq!(policer.bucket().paid_until, 0);
    });
}

/// Each exchange that another CPU wins is tried again, sixteen times in all. Then the packet is dropped,
/// and its tokens stay in the bucket.
#[test]
fn a_packet_that_loses_every_exchange_is_charged_nothing() {
    const NAME: &str = "a_packet_that_loses_every_exchange_is_charged_nothing";
    with_policer(NAME, |policer| {
        for lost in 0..=16 {
            policer.set_bucket(Model::limit(8_000_000, 3000), SOME_TIME);
            there(policer.skeleton.maps.bss_data.as_mut()).exchanges_to_lose = lost;
            let price = 1000 * 16_000; // units
            let (verdict, paid) = match lost {
                0..16 => (CONFORMS, price),
                _ => (CONTENDED, 0),
            };
            assert_eq!(policer.verdicts(&[(SOME_TIME, 1000)]), [verdict]);
            // The others have charged a unit each.
            let expected = SOME_TIME + paid + u64::from(lost);
            assert_eq!(policer.bucket().paid_until, expected, "{lost} lost");
        }
        // What exceeds after the others have had theirs is no lost race.
        policer.set_bucket(Model::limit(8_000_000, 3000), SOME_TIME);
        there(policer.skeleton.maps.bss_data.as_mut()).exchanges_to_lose = 1;
        assert_eq!(policer.verdicts(&[(SOME_TIME, 3000)]), [EXCEEDS]);
    });
}

/// A sender that never stops gets the rate, less only what rounding takes: a unit for each packet
/// and 1/1024 unit for each byte.
#[test]
fn the_long_run_is_the_rate() {
    const NAME: &str = "the_long_run_is_the_rate";
    with_policer(NAME, |policer| {
        let mut random = Random::new(NAME, false);
        let rates: [u64; 7] = [
            8,
            128_000,
            1_024_000,
            999_999_937,
            10_000_000_000,
            40_000_000_000,
            100_000_000_000,
        ];
        for bits in rates {
            let burst = 32 * 1024;
            policer.set_bucket(Model::limit(bits, burst), SOME_TIME);
            // Units that a byte takes, exactly: 128e9 / bits. Offered is twice the rate.
            let exact = |bytes: u128| bytes as f64 * 8.0 * SECOND as f64 / bits as f64;
            let (mut now, mut packets, mut passed) = (SOME_TIME, 0_u64, 0_u128);
            let mut batch = vec![arrival::default(); BATCH];
            for _ in 0..12 {
                for arrival in &mut batch {
                    arrival.bytes = 64 + random.below(1451) as u32;
                    now += (exact(arrival.bytes.into()) / 2.0) as u64;
                    arrival.now = now;
                }
                policer.judge(&mut batch);
                let passing = batch.iter().filter(|arrival| arrival.verdict == CONFORMS);
                for arrival in passing {
                    packets += 1;
                    passed += u128::from(arrival.bytes);
                }
            }
            let elapsed = (now - SOME_TIME) as f64;
            let allowed = elapsed + exact(burst.into());
            let used = exact(passed);
            assert!(used <= allowed, "{bits} bit/s: {used} of {allowed} units");
            let rounding = packets as f64 + passed as f64 / 1024.0;
            let least = allowed - rounding - exact(1514 * 2);
            assert!(used >= least, "{bits} bit/s: {used} of {least} units");
        }
    });
}

/// Both CPUs at once, `runs` runs of `hammer` each. Returns the sum of what they were told.
fn hammer(
    policer: &mut Policer<'_>,
    cpus: [usize; 2],
    bytes: u32,
    step_units: u64,
    runs: u32,
) -> tally {
    let cpus_possible = step("count the CPUs", libbpf_rs::num_possible_cpus());
    let zeros = vec![vec![0; size_of::<tally>()]; cpus_possible];
    let tallies = &policer.skeleton.maps.tallies;
    step("clear", tallies.update_percpu(&KEY, &zeros, MapFlags::ANY));
    let bss = there(policer.skeleton.maps.bss_data.as_mut());
    (bss.hammer_bytes, bss.hammer_step, bss.hammer_now) = (bytes, step_units, SOME_TIME);
    let program = policer.skeleton.progs.hammer.as_fd();
    let together = Barrier::new(2);
    std::thread::scope(|scope| {
        for cpu in cpus {
            let together = &together;
            scope.spawn(move || {
                cpus::pin_to(cpu);
                together.wait();
                run(program, runs);
            });
        }
    });
    let tallies = &policer.skeleton.maps.tallies;
    let each = there(step("read", tallies.lookup_percpu(&KEY, MapFlags::ANY)));
    let mut sum = tally::default();
    for cpu in each {
        let own: tally = value(&cpu);
        for (sum, own) in sum.verdicts.iter_mut().zip(own.verdicts) {
            *sum += own;
        }
    }
    let blows = 2 * u64::from(runs) * 4096;
    assert_eq!(sum.verdicts.iter().sum::<u64>(), blows);
    sum
}

#[test]
fn two_cpus_get_no_more_than_one_and_no_less() {
    const NAME: &str = "two_cpus_get_no_more_than_one_and_no_less";
    with_policer(NAME, |policer| {
        let Some(cpus) = cpus::two() else {
            return skip(NAME, "needs two CPUs");
        };
        let rounds = if long(NAME, "12 of 200 rounds") {
            50
        } else {
            3
        };
        let price = 1000; // units a packet: 1000 bytes of a unit each
        for round in 0..rounds {
            // Time stands still: the burst passes, to the packet. Or it goes on by a tenth of a
            // packet, by a half, or by almost a packet, with every packet that comes; the burst is large
            // enough not to fill up while a CPU is away, because time is lost then.
            for (step_units, burst_packets) in [(0, 300_000), (100, 100), (500, 100), (900, 100)] {
                let limit = Limit {
                    cost: 1 << 10,
                    burst: burst_packets * price + round % price,
                };
                policer.set_bucket(limit, SOME_TIME);
                let runs = 100;
                let sum = hammer(policer, cpus, price as u32, step_units, runs);
                let [passed, _, lost] = sum.verdicts;
                // The last packet comes one step before the end.
                let elapsed = (2 * u64::from(runs) * 4096 - 1) * step_units;
                let allowed = (limit.burst + elapsed) / price;
                let least = allowed.saturating_sub(2 + lost);
                assert!(
                    (least..=allowed).contains(&passed),
                    "step {step_units}, burst {burst_packets}: {passed} passed, {allowed} allowed, \
                     {lost} lost to the other CPU"
                );
                let paid = policer.bucket().paid_until - SOME_TIME;
                // Each that passed is paid for; where the bucket was full meanwhile, time is lost.
                assert!(paid >= passed * price, "{paid} units for {passed} packets");
                assert!(paid <= limit.burst + elapsed);
                assert!(lost * 1000 <= passed, "{lost} of {passed} lost");
            }
        }
    });
}

/// CLOCK_MONOTONIC in units.
fn monotonic() -> u64 {
    let time = step("read the clock", clock_gettime(ClockId::CLOCK_MONOTONIC));
    (time.tv_sec() as u64 * 1_000_000_000 + time.tv_nsec() as u64) * 16
}

/// Two values that a clock lay between.
struct Between {
    before: u64,
    after: u64,
    coarse: u64,
    precise: u64,
}

fn read_clocks(policer: &mut Policer<'_>, tick: Tick) -> Between {
    let bss = there(policer.skeleton.maps.bss_data.as_mut());
    bss.units_per_tick = Clock::Ticks.units_per_tick(tick);
    let before = monotonic();
    run(policer.skeleton.progs.read_clocks.as_fd(), 1);
    let after = monotonic();
    let bss = there(policer.skeleton.maps.bss_data.as_ref());
    Between {
        before,
        after,
        coarse: bss.coarse_now,
        precise: bss.precise_now,
    }
}

#[test]
fn both_clocks_go_as_the_monotonic_clock() {
    with_policer("both_clocks_go_as_the_monotonic_clock", |policer| {
        let tick = step("ask for the tick", Tick::of_this_kernel());
        let first = read_clocks(policer, tick);
        std::thread::sleep(Duration::from_secs(1));
        let last = read_clocks(policer, tick);
        for clocks in [&first, &last] {
            assert!((clocks.before..=clocks.after).contains(&clocks.precise));
        }
        let slack = 2 * tick.ns * 16;
        let (least, most) = (last.before - first.after, last.after - first.before);
        let coarse = last.coarse - first.coarse;
        assert!(
            (least - slack..=most + slack).contains(&coarse),
            "{coarse} units by ticks, {least} to {most} by the clock"
        );
        assert_eq!(coarse % (tick.ns * 16), 0, "whole ticks");
    });
}
