//! Two CPUs at once: on one source, on sources that neither has seen, on the last room in the table, and
//! while user space makes room.

use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use libbpf_rs::skel::SkelBuilder;
use netbpf::load::load;
use testbed::{cpus, long, sandbox, skip, step, test_run};

use crate::frames::{from, source};
use crate::rig::{self, DROP, NOW, PASS, Rig, Setup, flow, there, wait_for_another_tick};
use crate::seed::Random;
use crate::table::assert_sound;
use crate::times::Tokens;

use contended::ContendedSkelBuilder;

mod contended {
    include!(concat!(env!("OUT_DIR"), "/contended.skel.rs"));
}

/// Packets that a CPU sends in one go, without a system call in between.
const BLOWS: u32 = 1000;
/// What a source gets through at once, by the default rule.
const LEFT: u64 = 6;

/// Runs a test on a rig with two CPUs; skipped, loudly, where there is only one.
fn with_two_cpus(name: &str, setup: Setup, test: impl FnOnce(&mut Rig<'_>, [usize; 2]) + Send) {
    match cpus::two() {
        Some(cpus) => rig::run(name, setup, |rig| test(rig, cpus)),
        None => skip(name, "needs two CPUs"),
    }
}

fn program(rig: &Rig<'_>) -> OwnedFd {
    step("hold the program", rig.program().try_clone_to_owned())
}

/// What two threads do at the same moment: both are running when the second one comes.
struct Meeting(AtomicU32);

impl Meeting {
    fn new() -> Meeting {
        Meeting(AtomicU32::new(0))
    }

    fn meet(&self, times: u32) {
        self.0.fetch_add(1, Ordering::SeqCst);
        while self.0.load(Ordering::SeqCst) < 2 * (times + 1) {
            std::hint::spin_loop();
        }
    }
}

/// Lets the CPUs go that wait for the next round: at the end, and when a round has failed.
struct Dismissal<'a> {
    begin: &'a Barrier,
    is_over: &'a AtomicBool,
}

impl Drop for Dismissal<'_> {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::SeqCst);
        self.begin.wait();
    }
}

/// In each of the rounds `each` is given a function by which both CPUs send BLOWS times `frame(round)`, at
/// the same moment; before and behind it both are quiet.
fn hammer(
    rig: &mut Rig<'_>,
    cpus: [usize; 2],
    rounds: u32,
    frame: impl Fn(u32) -> Vec<u8> + Sync,
    mut each: impl FnMut(&mut Rig<'_>, u32, &dyn Fn()),
) {
    let program = program(rig);
    let (program, frame) = (&program, &frame);
    let (begin, end, meeting) = (&Barrier::new(3), &Barrier::new(3), &Meeting::new());
    let is_over = &AtomicBool::new(false);
    std::thread::scope(|scope| {
        for cpu in cpus {
            scope.spawn(move || {
                cpus::pin_to(cpu);
                for round in 0.. {
                    let frame = frame(round);
                    begin.wait();
                    if is_over.load(Ordering::SeqCst) {
                        return;
                    }
                    meeting.meet(round);
                    test_run::by_descriptor(program.as_fd(), &frame, BLOWS);
                    end.wait();
                }
            });
        }
        let _dismissal = Dismissal { begin, is_over };
        for round in 0..rounds {
            each(rig, round, &|| {
                begin.wait();
                end.wait();
            });
        }
    });
}

#[test]
fn two_cpus_get_together_what_one_gets() {
    const NAME: &str = "two_cpus_get_together_what_one_gets";
    with_two_cpus(NAME, Setup::default(), |rig, cpus| {
        let long = long(NAME, "300 of 10,000 rounds");
        let rounds = if long { 10_000 } else { 300 };
        let mut random = Random::new(NAME, long);
        let rule = Tokens {
            tokens: 100,
            regeneration: 1000,
        };
        rig.set_tokens(rule);
        let mut model = rule.model();
        let mut now = NOW;
        hammer(
            rig,
            cpus,
            rounds,
            |_| from([10, 0, 0, 1]),
            |rig, round, send| {
                // Some tokens, all of them, or none.
                now += random.below(120 * rule.regeneration) / (1 + random.below(4));
                rig.set_now(now);
                let packets = 0..2 * BLOWS;
                let allowed = packets.filter(|_| model.passes(now.into())).count() as u64;
                send();
                let counted = rig.take_events();
                // There are more packets than tokens, so one that loses a race loses none of these.
                assert_eq!(counted.passed.packets, allowed, "round {round}");
                let dropped = u64::from(2 * BLOWS) - allowed;
                assert_eq!(counted.dropped.packets, dropped, "round {round}");
            },
        );
        let word = model.word(rig.state_one());
        assert_eq!(
            rig.cell_of(&flow([10, 0, 0, 1])).map(|cell| cell.word),
            word
        );
    });
}

#[test]
fn two_cpus_get_no_more_while_time_goes_on() {
    const NAME: &str = "two_cpus_get_no_more_while_time_goes_on";
    with_two_cpus(NAME, Setup::default(), |rig, cpus| {
        let long = long(NAME, "2 of 100 rounds");
        let mut random = Random::new(NAME, long);
        // So many that the bucket is never full again, whoever has to wait for a CPU.
        let rule = Tokens {
            tokens: 100_000,
            regeneration: 1000,
        };
        rig.set_tokens(rule);
        let program = &program(rig);
        for round in 0..if long { 100 } else { 2 } {
            let ip = source(round);
            let (frame, ended) = (&from(ip), &AtomicBool::new(false));
            let mut now = NOW;
            rig.set_now(now);
            std::thread::scope(|scope| {
                let running = cpus.map(|cpu| {
                    scope.spawn(move || {
                        cpus::pin_to(cpu);
                        let mut last = false;
                        while !last {
                            // The last go begins when time stands still again.
                            last = ended.load(Ordering::SeqCst);
                            test_run::by_descriptor(program.as_fd(), frame, 10 * BLOWS);
                        }
                    })
                });
                // They take what there is, then token by token.
                while rig.cell_of(&flow(ip)).is_none_or(|cell| cell.dropped == 0) {
                    assert!(running.iter().any(|thread| !thread.is_finished()));
                    std::thread::sleep(Duration::from_millis(1));
                }
                for _ in 0..2000 {
                    now += random.below(rule.regeneration);
                    rig.set_now(now);
                    std::thread::sleep(Duration::from_micros(20));
                }
                ended.store(true, Ordering::SeqCst);
            });
            let cell = there(rig.cell_of(&flow(ip)));
            let allowed = rule.tokens + 1 + (now - NOW) / rule.regeneration;
            let counted = rig.take_events();
            // All that is allowed and no more; a race that is lost loses no token.
            assert_eq!(cell.passed, allowed, "{} races lost", counted.lost_race);
            assert_eq!(counted.passed.packets, allowed);
            assert_eq!(counted.dropped.packets, cell.dropped);
            assert_eq!(counted.flows, 1);
        }
    });
}

/// Who comes first enters the source, and the other finds it there.
#[test]
fn two_cpus_that_see_a_new_source_at_once_give_it_one_bucket() {
    const NAME: &str = "two_cpus_that_see_a_new_source_at_once_give_it_one_bucket";
    let long = long(NAME, "1,000 of 50,000 sources");
    let rounds = if long { 50_000 } else { 1000 };
    let setup = Setup {
        flows: 2 * rounds,
        ..Setup::default()
    };
    with_two_cpus(NAME, setup, |rig, cpus| {
        hammer(
            rig,
            cpus,
            rounds,
            |round| from(source(round)),
            |rig, round, send| {
                send();
                let counted = rig.take_events();
                assert_eq!(counted.passed.packets, LEFT, "source {round}");
                assert_eq!(
                    (counted.flows, counted.overflowed),
                    (1, 0),
                    "source {round}"
                );
                let cell = there(rig.cell_of(&flow(source(round))));
                let sent = u64::from(2 * BLOWS);
                assert_eq!(
                    (cell.passed, cell.dropped),
                    (LEFT, sent - LEFT),
                    "source {round}"
                );
            },
        );
        // Where both had taken a cell, one was handed back.
        let met = rig.free_cells().len();
        assert!(met > 0, "the CPUs never met at a new source");
        assert_sound(rig, 2 * rounds);
    });
}

/// By clocks that go on, a packet of the other CPU comes later than the one that entered the source: what
/// it finds is that source's bucket, in the table and in an overflow cell.
#[test]
fn a_new_source_is_judged_before_another_cpu_finds_it() {
    const NAME: &str = "a_new_source_is_judged_before_another_cpu_finds_it";
    let long = long(NAME, "1,000 of 20,000 sources");
    let rounds = if long { 10_000 } else { 500 };
    for flows in [2 * rounds, 1] {
        let setup = Setup {
            flows,
            real_clock: true,
            ..Setup::default()
        };
        with_two_cpus(NAME, setup, |rig, cpus| {
            // Has the only room, where there is no more.
            assert!(rig.passes(&from(source(rounds))));
            rig.take_events();
            hammer(
                rig,
                cpus,
                rounds,
                |round| from(source(round)),
                |rig, round, send| {
                    let begin = Instant::now();
                    send();
                    let most = LEFT + begin.elapsed().as_secs();
                    let counted = rig.take_events();
                    assert_eq!(counted.no_row, 0, "source {round}");
                    let passed = counted.passed.packets;
                    assert!(passed <= most, "source {round}: {passed} passed");
                    // Overflow cells were some other source's, mostly.
                    assert!(
                        passed >= LEFT || flows == 1,
                        "source {round}: {passed} passed"
                    );
                },
            );
        });
    }
}

/// Two CPUs with more sources than there is room for, while user space takes cells back, removes their
/// flows and hands the cells on.
#[test]
fn cells_stay_one_flows_while_user_space_makes_room() {
    const NAME: &str = "cells_stay_one_flows_while_user_space_makes_room";
    const FLOWS: u32 = 16;
    let setup = Setup {
        flows: FLOWS,
        ..Setup::default()
    };
    with_two_cpus(NAME, setup, |rig, cpus| {
        let long = long(NAME, "30 of 1,000 rounds");
        let ended = &AtomicBool::new(false);
        let mut random = Random::new(NAME, long);
        let frames: &Vec<Vec<u8>> = &(0..40).map(|number| from(source(number))).collect();
        let program = &program(rig);
        std::thread::scope(|scope| {
            for cpu in cpus {
                let mut random = random.clone();
                scope.spawn(move || {
                    cpus::pin_to(cpu);
                    while !ended.load(Ordering::SeqCst) {
                        let frame = &frames[random.below(40) as usize];
                        test_run::by_descriptor(program.as_fd(), frame, 3);
                    }
                });
            }
            for _ in 0..if long { 1000 } else { 30 } {
                let flows: Vec<Vec<u8>> = rig.flows().into_keys().collect();
                let removed = flows.iter().filter(|_| random.below(2) == 0);
                let cells: Vec<u32> = removed.map(|flow| rig.remove(flow)).collect();
                wait_for_another_tick();
                for cell in cells {
                    rig.free_cell(cell);
                }
            }
            ended.store(true, Ordering::SeqCst);
        });
        let counted = rig.take_events();
        assert!(counted.flows > u64::from(FLOWS), "no cell was used again");
        assert_eq!(counted.table_errors, 0);
        assert_sound(rig, FLOWS);
    });
}

/// Each exchange that another CPU wins is tried again, sixteen times in all. Then the packet is dropped,
/// and its token stays in the bucket.
#[test]
fn a_packet_that_loses_every_exchange_takes_no_token() {
    sandbox::run("a_packet_that_loses_every_exchange_takes_no_token", |_| {
        let mut object = MaybeUninit::uninit();
        let mut open = step("open", ContendedSkelBuilder::default().open(&mut object));
        there(open.maps.rodata_data.as_mut()).knobs.virtual_clock = true.into();
        let mut skeleton = step("load the BPF programs", load(open));
        there(skeleton.maps.bss_data.as_mut()).virtual_now = NOW;
        let frame = from(source(1));
        let mut verdict = |lost| {
            there(skeleton.maps.bss_data.as_mut()).exchanges_to_lose = lost;
            test_run::by_descriptor(skeleton.progs.tokenbucket.as_fd(), &frame, 1)
        };
        // A new flow is entered as its packet leaves it, which takes no exchange.
        assert_eq!(verdict(16), PASS);
        for lost in [16, 0, 1, 15, 16, 17, 16] {
            let expected = if lost < 16 { PASS } else { DROP };
            assert_eq!(verdict(lost), expected, "{lost} lost");
        }
        // Four have passed, two may.
        assert_eq!([0; 3].map(verdict), [PASS, PASS, DROP]);
    });
}
