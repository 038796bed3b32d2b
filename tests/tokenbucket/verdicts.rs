//! What the whole program decides, and counts, for packets of many sources: beside the original's five
//! steps, beside exact models of segments and of bytes, and by its own initial data.

use std::net::IpAddr;
use std::ops::Range;

use netbpf::policer::Limit;
use testbed::{long, step};

use crate::frames::{from, source};
use crate::machine::{Machine, number_of_row};
use crate::model::{Bytes, FiveSteps, REGISTER_BITS};
use crate::rig::{
    self, Cell, DROP, NOW, PASS, Rig, SECOND, Setup, Skb, events, flow, meter, there,
};
use crate::seed::Random;
use crate::times::{Clock, Tokens, of_any_size};

/// The object file alone is complete: the original's table, five tokens, one a second, by source.
#[test]
fn the_initial_data_is_the_original() {
    rig::run(
        "the_initial_data_is_the_original",
        Setup::default(),
        |rig| {
            // Whatever the numbers of its two states are.
            let table = rig.machine();
            let states = [table.initial, rig.state_one()];
            let expected = Machine::tokenbucket(Tokens::USUAL).rows;
            let mut rows = vec![(0, 0, 0); table.rows.len()];
            for ((state, conditions), row) in &expected {
                let state = states[usize::from(*state)];
                let next = states[usize::from(row.next)];
                rows[number_of_row((state, *conditions))] = (next, row.action as u8, row.update);
            }
            let rows_of_table = table
                .rows
                .iter()
                .map(|row| (row.next, row.action, row.update));
            assert!(
                rows_of_table.eq(rows),
                "the table has other rows than the original's"
            );
            // Six at once, and no seventh.
            let frame = from([10, 0, 0, 1]);
            let verdicts: Vec<i32> = (0..8).map(|_| rig.verdict(&frame)).collect();
            assert_eq!(verdicts, [PASS, PASS, PASS, PASS, PASS, PASS, DROP, DROP]);
            rig.set_now(NOW + SECOND - 1);
            assert!(!rig.passes(&frame));
            rig.set_now(NOW + SECOND);
            assert!(rig.passes(&frame));
            assert!(!rig.passes(&frame));
            let bytes = frame.len() as u64;
            rig.assert_events(events {
                passed: meter {
                    packets: 7,
                    bytes: 7 * bytes,
                },
                dropped: meter {
                    packets: 4,
                    bytes: 4 * bytes,
                },
                flows: 1,
                ..events::default()
            });
        },
    );
}

/// Whatever the clock shows when a source comes: its register may be 0 at first, and the register wraps
/// around every nine years.
#[test]
fn every_time_is_good_for_a_first_packet() {
    rig::run(
        "every_time_is_good_for_a_first_packet",
        Setup::default(),
        |rig| {
            let turn = 1 << REGISTER_BITS;
            let mut numbers = 0..;
            for begin in [0, turn, 2 * turn, turn / 2] {
                for seconds in 0..12 {
                    for beside in [-1_i64, 0, 1] {
                        let now: u64 = begin + seconds * SECOND;
                        rig.set_now(now.wrapping_add_signed(beside));
                        let ip = source(there(numbers.next()));
                        let passed = (0..10).filter(|_| rig.passes(&from(ip))).count();
                        assert_eq!(passed, 6, "at {now} {beside:+}");
                        let counted = rig.take_events();
                        assert_eq!(
                            (counted.flows, counted.overflowed),
                            (1, 0),
                            "at {now} {beside:+}"
                        );
                    }
                }
            }
        },
    );
}

/// Six, and one for every second from the first packet to the last.
#[test]
fn pings_at_a_steady_rate() {
    rig::run("pings_at_a_steady_rate", Setup::default(), |rig| {
        for (number, rate) in (0..).zip([1_u64, 5, 20, 100, 1000]) {
            let frame = from(source(number));
            let mut passed = 0;
            let sent = rate * 16;
            for at in 0..sent {
                rig.set_now(NOW + at * SECOND / rate);
                passed += u64::from(rig.passes(&frame));
            }
            let elapsed = (sent - 1) / rate;
            assert_eq!(passed, (6 + elapsed).min(sent), "{rate} a second");
        }
    });
}

/// What a source sends, and what the model says about it.
struct Source {
    ip: IpAddr,
    frame: Vec<u8>,
    /// In front of its payload.
    headers: u64,
    model: FiveSteps,
    passed: u64,
    dropped: u64,
}

impl Source {
    fn new(number: u32, rule: Tokens) -> Source {
        let ip = source(number);
        Source {
            ip,
            frame: from(ip),
            headers: if ip.is_ipv4() { 42 } else { 62 },
            model: rule.model(),
            passed: 0,
            dropped: 0,
        }
    }

    /// A packet of these segments through the model, counted there and in `all`.
    fn expect(&mut self, segments: u32, now: i128, all: &mut events) -> bool {
        let passes = self.model.pass_together(segments, now);
        let (sum, meter) = match passes {
            true => (&mut self.passed, &mut all.passed),
            false => (&mut self.dropped, &mut all.dropped),
        };
        *sum += u64::from(segments);
        meter.packets += u64::from(segments);
        meter.bytes += self.frame.len() as u64 + u64::from(segments - 1) * self.headers;
        passes
    }
}

/// A rule, and the packets of many sources in turn.
struct Scene {
    rule: Tokens,
    clock: Clock,
    sources: Vec<Source>,
    dry_run: bool,
}

const PACKETS_OF_A_SCENE: u64 = 2000;

impl Scene {
    fn new(random: &mut Random, rule: Tokens, numbers: Range<u32>) -> Scene {
        Scene {
            rule,
            clock: Clock::random(random, rule),
            sources: numbers.map(|number| Source::new(number, rule)).collect(),
            dry_run: false,
        }
    }

    /// Each packet through the program and the model, of up to so many segments. Returns how many
    /// packets passed.
    fn play(&mut self, rig: &mut Rig<'_>, random: &mut Random, most_segments: u64) -> u64 {
        rig.set_tokens(self.rule);
        let mut counted = events::default();
        let mut passed = 0;
        for _ in 0..PACKETS_OF_A_SCENE {
            let at = random.below(self.sources.len() as u64) as usize;
            let source = &mut self.sources[at];
            let now = self.clock.advance(random, &source.model);
            rig.set_now(now as u64);
            let segments = 1 + random.below(most_segments) as u32;
            let before = source.model;
            let passes = source.expect(segments, now, &mut counted);
            let verdict = match segments {
                1 => rig.verdict(&source.frame),
                _ => rig.run(Skb {
                    frame: &source.frame,
                    gso_segs: segments,
                    gso_size: 1000,
                    ..Skb::default()
                }),
            };
            let expected = if passes || self.dry_run { PASS } else { DROP };
            assert_eq!(
                verdict, expected,
                "{segments} segments at {now}: {before:?}"
            );
            passed += u64::from(passes);
        }
        for source in &self.sources {
            if let Some(word) = source.model.word(rig.state_one()) {
                let expected = Cell {
                    word,
                    passed: source.passed,
                    dropped: source.dropped,
                };
                let cell = rig.cell_of(&flow(source.ip));
                assert_eq!(cell, Some(expected), "{}", source.ip);
                counted.flows += 1;
            }
        }
        rig.assert_events(counted);
        passed
    }
}

/// A register holds 65,535 segments, as many as a packet may have, of 36 minutes each.
const SLOWEST_OF_SEGMENTS: u64 = (1 << 57) / 65_535;

/// Plays so many scenes with random rules and new sources.
fn play_scenes(
    name: &str,
    setup: Setup,
    random: &mut Random,
    scenes: u64,
    mut play: impl FnMut(&mut Scene, &mut Rig<'_>, &mut Random) -> u64 + Send,
) {
    let setup = Setup {
        // A hundred sources a scene, usually.
        flows: scenes as u32 * 128,
        ..setup
    };
    let segments = setup.counts_segments;
    rig::run(name, setup, |rig| {
        let (mut passed, mut first) = (0, 0);
        for _ in 0..scenes {
            let mut rule = Tokens::random(random);
            while segments && rule.regeneration > SLOWEST_OF_SEGMENTS {
                rule = Tokens::random(random);
            }
            let sources = of_any_size(random, 1, 300) as u32;
            passed += play(
                &mut Scene::new(random, rule, first..first + sources),
                rig,
                random,
            );
            first += sources;
        }
        // A model and a program that always agree on the same answer would prove little.
        let share = passed as f64 / (scenes * PACKETS_OF_A_SCENE) as f64;
        assert!((0.1..0.9).contains(&share), "{share} passed");
    });
}

#[test]
fn every_packet_of_every_source_is_judged_by_the_five_steps() {
    const NAME: &str = "every_packet_of_every_source_is_judged_by_the_five_steps";
    let long = long(NAME, "300,000 of 5 million packets");
    let scenes = if long { 2500 } else { 150 };
    let mut random = Random::new(NAME, long);
    play_scenes(
        NAME,
        Setup::default(),
        &mut random,
        scenes,
        |scene, rig, random| scene.play(rig, random, 1),
    );
}

/// What would be dropped is counted, as without --dry-run, and passes.
#[test]
fn a_dry_run_counts_the_same_and_drops_nothing() {
    const NAME: &str = "a_dry_run_counts_the_same_and_drops_nothing";
    let setup = Setup {
        dry_run: true,
        ..Setup::default()
    };
    play_scenes(
        NAME,
        setup,
        &mut Random::new(NAME, false),
        10,
        |scene, rig, random| {
            scene.dry_run = true;
            scene.play(rig, random, 1)
        },
    );
}

/// With --count segments.
#[test]
fn each_segment_takes_a_token() {
    const NAME: &str = "each_segment_takes_a_token";
    let long = long(NAME, "100,000 of 2 million packets");
    let setup = Setup {
        counts_segments: true,
        ..Setup::default()
    };
    let scenes = if long { 1000 } else { 50 };
    let mut random = Random::new(NAME, long);
    play_scenes(NAME, setup, &mut random, scenes, |scene, rig, random| {
        // Sometimes no more than the bucket holds, and sometimes many more.
        let most = [3, 45, scene.rule.tokens * 2][random.below(3) as usize];
        // The model takes them one by one.
        scene.play(rig, random, most.clamp(2, 1000))
    });
}

/// Without it a GSO packet takes one, as in the original. Its bytes are those of the wire all the same.
#[test]
fn a_gso_packet_takes_one_token() {
    rig::run("a_gso_packet_takes_one_token", Setup::default(), |rig| {
        let frame = from([10, 0, 0, 1]);
        let skb = Skb {
            frame: &frame,
            gso_segs: 45,
            gso_size: 1000,
            ..Skb::default()
        };
        let verdicts: Vec<i32> = (0..7).map(|_| rig.run(skb)).collect();
        assert_eq!(verdicts, [PASS, PASS, PASS, PASS, PASS, PASS, DROP]);
        let bytes = 64 + 44 * 42;
        rig.assert_events(events {
            passed: meter {
                packets: 6,
                bytes: 6 * bytes,
            },
            dropped: meter { packets: 1, bytes },
            flows: 1,
            ..events::default()
        });
    });
}

/// The rule changes, what is known of a source does not.
#[test]
fn another_rule_goes_on_from_what_is_known() {
    rig::run(
        "another_rule_goes_on_from_what_is_known",
        Setup::default(),
        |rig| {
            let frame = from([10, 0, 0, 1]);
            while rig.passes(&frame) {}
            // Its next token comes after a second, by the old rule; then one comes each 100 ms.
            rig.set_tokens(Tokens {
                tokens: 3,
                regeneration: SECOND / 10,
            });
            for (at, passes) in [
                (0, false),
                (500, false),
                (999, false),
                (1000, true),
                (1000, false),
                (1099, false),
                (1100, true),
                (1250, true),
                (1299, false),
                (1300, true),
            ] {
                rig.set_now(NOW + at * SECOND / 1000);
                assert_eq!(rig.passes(&frame), passes, "{at} ms");
            }
            // It is full again, and four go at once.
            rig.set_now(NOW + 60 * SECOND);
            let verdicts: Vec<bool> = (0..5).map(|_| rig.passes(&frame)).collect();
            assert_eq!(verdicts, [true, true, true, true, false]);
            // A slower one does not take back what was given: the window is long, and all to the left.
            rig.set_tokens(Tokens {
                tokens: 2,
                regeneration: 10 * SECOND,
            });
            for (at, passes) in [
                (60, false),
                (61, true),
                (70, false),
                (71, true),
                (72, false),
            ] {
                rig.set_now(NOW + at * SECOND);
                assert_eq!(rig.passes(&frame), passes, "{at} s");
            }
        },
    );
}

/// Packets of any size by a rate in bytes.
struct ByteScene {
    limit: Limit,
    sources: Vec<(IpAddr, Bytes)>,
    now: i128,
    /// In ns, of a byte: around the rate.
    pace: f64,
}

impl ByteScene {
    fn random(random: &mut Random, first_source: u32) -> ByteScene {
        let bits_per_second = of_any_size(random, 8, 10_000_000_000);
        let burst = of_any_size(random, 1514, 1 << 20);
        let rate = step("read a rate", format!("{bits_per_second}bit").parse());
        let burst = step("read a burst", format!("{burst}b").parse());
        let limit = step("make a limit", Limit::new(rate, burst));
        let sources = of_any_size(random, 1, 50);
        // Some begin just after boot.
        let latest = [1 << 20, 1 << 57][random.below(2) as usize];
        let now = random.below(latest);
        let load = [0.9, 1.1, 3.0, 10.0, 100.0][random.below(5) as usize];
        ByteScene {
            limit,
            sources: (first_source..)
                .take(sources as usize)
                .map(|number| (source(number), Bytes::new(limit.cost, limit.burst)))
                .collect(),
            now: now.into(),
            pace: 8e9 / bits_per_second as f64 / sources as f64 / load,
        }
    }

    /// Returns how many packets passed.
    fn play(&mut self, rig: &mut Rig<'_>, random: &mut Random) -> u64 {
        rig.set_rule(|rule| (rule.cost, rule.burst) = (self.limit.cost, self.limit.burst));
        let mut counted = events::default();
        let mut heard = vec![false; self.sources.len()];
        for _ in 0..PACKETS_OF_A_SCENE {
            let at = random.below(self.sources.len() as u64) as usize;
            let (ip, model) = &mut self.sources[at];
            heard[at] = true;
            let length = 64 + random.below(1451) as usize;
            // One in sixteen is larger than the burst of some scenes, or of most.
            let segments = match random.below(16) {
                0 => 1 + of_any_size(random, 1, 2000) as u32,
                _ => 1,
            };
            let mut frame = from(*ip);
            let headers = if ip.is_ipv4() { 42 } else { 62 };
            frame.resize(length, 0);
            let bytes = length as u64 + u64::from(segments - 1) * headers;
            self.now += match random.below(64) {
                0..16 => 0,
                // Until everything is paid, to the ns.
                16 => (model.paid() / 16 - self.now - 1).max(-1) + i128::from(random.below(3)),
                _ => (bytes as f64 * self.pace * random.below(2000) as f64 / 1000.0) as i128,
            }
            .max(0);
            rig.set_now(self.now as u64);
            let before = *model;
            let passes = model.passes(bytes, self.now);
            let verdict = rig.run(Skb {
                frame: &frame,
                gso_segs: segments,
                gso_size: if segments > 1 { 1000 } else { 0 },
                ..Skb::default()
            });
            let expected = if passes { PASS } else { DROP };
            assert_eq!(
                verdict, expected,
                "{bytes} bytes at {}: {before:?}",
                self.now
            );
            let meter = if passes {
                &mut counted.passed
            } else {
                &mut counted.dropped
            };
            meter.packets += 1;
            meter.bytes += bytes;
        }
        for ((ip, model), _) in self.sources.iter().zip(&heard).filter(|(_, heard)| **heard) {
            let cell = there(rig.cell_of(&flow(*ip)));
            // A bucket that is full now may have been so for long.
            let paid = i128::from(cell.word).max(16 * self.now);
            assert_eq!(paid, model.paid().max(16 * self.now), "{ip}");
        }
        counted.flows = heard.iter().filter(|heard| **heard).count() as u64;
        rig.assert_events(counted);
        counted.passed.packets
    }
}

#[test]
fn bytes_are_policed_by_rate_and_burst() {
    const NAME: &str = "bytes_are_policed_by_rate_and_burst";
    let long = long(NAME, "100,000 of 2 million packets");
    let scenes = if long { 1000 } else { 50 };
    let setup = Setup {
        bytes: Some(Limit { cost: 1, burst: 1 }),
        flows: scenes as u32 * 50,
        ..Setup::default()
    };
    rig::run(NAME, setup, |rig| {
        let mut random = Random::new(NAME, long);
        let (mut passed, mut first) = (0, 0);
        for _ in 0..scenes {
            let mut scene = ByteScene::random(&mut random, first);
            first += scene.sources.len() as u32;
            passed += scene.play(rig, &mut random);
        }
        let share = passed as f64 / (scenes * PACKETS_OF_A_SCENE) as f64;
        assert!((0.1..0.9).contains(&share), "{share} passed");
    });
}
