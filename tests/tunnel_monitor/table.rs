//! The table of flows: full, emptied while packets are counted, and used again; one CPU and two.

use std::collections::BTreeSet;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use libbpf_rs::{MapCore, MapFlags};
use netbpf::tunnel_monitor::{Counts, Flow, MOST_FLOWS, Monitor, Setup};
use testbed::{cpus, long, sandbox, skip, step};

use crate::frames::{self, IPV4, IPV6, Ipv4, UDP, ethernet, udp, vxlan};
use crate::rig::{self, Rig, Side, run_by_descriptor};
use crate::seed::Random;

/// Packets that a CPU sends in one go, without a system call in between.
const BLOWS: u32 = 100;

/// A packet of a flow that has no number but this; every fourth is IPv6 inside.
fn frame(number: u32) -> Vec<u8> {
    let inside = match number % 4 {
        0 => {
            let [source, destination] = [number, !0].map(|host| u128::from(host).into());
            ethernet(
                [2; 6],
                &[],
                IPV6,
                &frames::ipv6(source, destination, 58, &[0; 8]),
            )
        }
        _ => {
            let ip = Ipv4 {
                source: number.into(),
                destination: [10, 0, 0, 1].into(),
                options: 0,
                fragment: 0,
                protocol: 1,
            };
            ethernet([2; 6], &[], IPV4, &ip.with(&[0; 8]))
        }
    };
    let outer = Ipv4 {
        source: [192, 0, 2, 2].into(),
        destination: [192, 0, 2, 1].into(),
        options: 0,
        fragment: 0,
        protocol: UDP,
    };
    let tunnel = outer.with(&udp(4789, &vxlan(8, 1, &inside)));
    ethernet([2, 0, 0, 0, 0, 1], &[], IPV4, &tunnel)
}

fn packets(count: u32, frame: &[u8]) -> Counts {
    Counts {
        rx_pkts: count.into(),
        rx_bytes: u64::from(count) * frame.len() as u64,
        ..Counts::default()
    }
}

fn room_for(max_entries: u32) -> Setup {
    Setup {
        max_entries,
        ..Setup::default()
    }
}

fn sum(rig: &Rig<'_>) -> Counts {
    rig.flows().into_iter().map(|(_, counts)| counts).sum()
}

/// The slots that are some flow's.
fn taken(monitor: &Monitor<'_>) -> Vec<u32> {
    let slots = 0..monitor.slots_used();
    slots.filter(|slot| monitor.flow(*slot).is_some()).collect()
}

#[test]
fn what_has_no_room_is_in_other() {
    rig::run("what_has_no_room_is_in_other", room_for(5), |rig| {
        for number in 0..8 {
            rig.pass(Side::Ingress, &frame(number));
        }
        // Who is in the table stays there.
        for number in 0..8 {
            rig.pass(Side::Ingress, &frame(number));
        }
        let tally = rig.tally();
        assert_eq!(rig.flows().len(), 5);
        assert_eq!(tally.totals.rx_pkts, 16);
        assert_eq!(tally.other.rx_pkts, 6);
        let mut all = sum(rig);
        all += tally.other;
        assert_eq!(all, tally.totals);
        assert_eq!(rig.monitor.slots_used(), 5);
    });
}

#[test]
fn a_table_has_room_for_exactly_as_many_as_it_says() {
    const NAME: &str = "a_table_has_room_for_exactly_as_many_as_it_says";
    sandbox::run(NAME, |_| {
        for flows in [1, 2, 3, 1000, 1024] {
            rig::with(&room_for(flows), |rig| {
                for number in 0..flows + 2 {
                    // Wide and small ones, in turns.
                    rig.pass(Side::Ingress, &frame(number));
                }
                assert_eq!(rig.flows().len() as u32, flows);
                assert_eq!(rig.tally().other.rx_pkts, 2);
            });
        }
    });
}

#[test]
fn a_flow_that_was_taken_out_comes_back_as_another() {
    const NAME: &str = "a_flow_that_was_taken_out_comes_back_as_another";
    rig::run(NAME, room_for(3), |rig| {
        let frames = [frame(0), frame(1)];
        for frame in &frames {
            rig.pass(Side::Ingress, frame);
        }
        let before = rig.flows();
        let finals = step("take out", rig.monitor.take_out(&[0, 1]));
        assert_eq!(finals, [packets(1, &frames[0]), packets(1, &frames[1])]);
        assert_eq!(rig.flows(), []);
        // It is nobody's, but not to be used yet: what was counted stays.
        assert_eq!(rig.monitor.counts(0), finals[0]);
        rig.pass(Side::Ingress, &frames[1]);
        rig.pass(Side::Ingress, &frames[1]);
        let after = rig.flows();
        assert_eq!(after, [(before[1].0.clone(), packets(2, &frames[1]))]);
        assert_eq!(rig.monitor.flow(2), Some(before[1].0.clone()));
        rig.pass(Side::Ingress, &frames[0]);
        assert_eq!(
            rig.tally().other,
            packets(1, &frames[0]),
            "no slot was free"
        );
        step("give back", rig.monitor.give_back(&[1]));
        assert!(rig.monitor.counts(1).is_zero());
        rig.pass(Side::Ingress, &frames[0]);
        assert_eq!(rig.monitor.flow(1), Some(before[0].0.clone()));
        assert_eq!(rig.monitor.counts(1), packets(1, &frames[0]));
        assert_eq!(rig.monitor.slots_used(), 3);
    });
}

#[test]
fn only_what_is_in_use_is_taken_out_and_only_what_was_is_given_back() {
    const NAME: &str = "only_what_is_in_use_is_taken_out_and_only_what_was_is_given_back";
    rig::run(NAME, room_for(3), |rig| {
        rig.pass(Side::Ingress, &frame(1));
        assert!(rig.monitor.take_out(&[1]).is_err());
        assert!(rig.monitor.take_out(&[3]).is_err());
        assert!(rig.monitor.give_back(&[0]).is_err());
        assert_eq!(rig.flows().len(), 1, "nothing was done");
        step("take out", rig.monitor.take_out(&[0]));
        assert!(rig.monitor.take_out(&[0]).is_err());
        step("give back", rig.monitor.give_back(&[0]));
        assert!(rig.monitor.give_back(&[0]).is_err());
        assert_eq!(step("nothing", rig.monitor.take_out(&[])), []);
    });
}

/// Wherever a hint points, the packet is counted for its own flow.
#[test]
fn a_wrong_hint_misleads_nobody() {
    rig::run("a_wrong_hint_misleads_nobody", room_for(4), |rig| {
        let hints = rig.monitor.skeleton().maps.hints.max_entries();
        for slot in [0_u32, 1, 2, 3, 4, u32::MAX] {
            for number in 0..4 {
                for hint in 0..hints {
                    let value = slot.to_ne_bytes();
                    let hints = &rig.monitor.skeleton().maps.hints;
                    let put = hints.update(&hint.to_ne_bytes(), &value, MapFlags::ANY);
                    step("put a wrong hint", put);
                }
                rig.pass(Side::Ingress, &frame(number));
            }
        }
        let counted: Vec<Counts> = rig.flows().into_iter().map(|(_, counts)| counts).collect();
        assert_eq!(
            counted,
            [0, 1, 2, 3].map(|number| packets(6, &frame(number)))
        );
    });
}

fn program(rig: &Rig<'_>, side: Side) -> OwnedFd {
    step("hold the program", rig.program(side).try_clone_to_owned())
}

/// Runs a test on a rig with two CPUs; skipped, loudly, where there is only one.
fn with_two_cpus(name: &str, setup: Setup, test: impl FnOnce(&mut Rig<'_>, [usize; 2]) + Send) {
    match cpus::two() {
        Some(cpus) => rig::run(name, setup, |rig| test(rig, cpus)),
        None => skip(name, "needs two CPUs"),
    }
}

#[test]
fn two_cpus_that_meet_a_new_flow_make_one_of_it() {
    const NAME: &str = "two_cpus_that_meet_a_new_flow_make_one_of_it";
    let rounds = if long(NAME, "2,000 of 50,000 flows") {
        50_000
    } else {
        2000
    };
    // One more, or there would be no slot for the CPU that comes second to the last flow.
    with_two_cpus(NAME, room_for(rounds + 1), |rig, cpus| {
        let programs = [Side::Ingress, Side::Ingress].map(|side| program(rig, side));
        let arrived = &AtomicU32::new(0);
        std::thread::scope(|scope| {
            for (cpu, program) in cpus.into_iter().zip(&programs) {
                scope.spawn(move || {
                    cpus::pin_to(cpu);
                    for round in 0..rounds {
                        let frame = frame(round);
                        arrived.fetch_add(1, Ordering::SeqCst);
                        while arrived.load(Ordering::SeqCst) < 2 * (round + 1) {
                            std::hint::spin_loop();
                        }
                        run_by_descriptor(program.as_fd(), &frame, 2);
                    }
                });
            }
        });
        let flows = rig.flows();
        assert_eq!(flows.len() as u32, rounds);
        for (flow, counts) in &flows {
            assert_eq!(counts.rx_pkts, 4, "{flow:?}");
        }
        assert_eq!(rig.tally().other, Counts::default());
        let different: BTreeSet<String> = flows.iter().map(|it| format!("{it:?}")).collect();
        assert_eq!(different.len(), flows.len());
    });
}

/// Two CPUs count flows, more than there is room for, which are taken out and given back all the while.
/// Nothing is lost, and no slot's figures ever go back.
#[test]
fn every_packet_is_somewhere_while_flows_are_taken_out() {
    const NAME: &str = "every_packet_is_somewhere_while_flows_are_taken_out";
    const FLOWS: u32 = 24;
    with_two_cpus(NAME, room_for(16), |rig, cpus| {
        let long = long(NAME, "40 of 1,000 rounds");
        let mut random = Random::new(NAME, long);
        let frames: &Vec<Vec<u8>> = &(0..FLOWS).map(frame).collect();
        let programs = [Side::Ingress, Side::Egress].map(|side| program(rig, side));
        let is_over = &AtomicBool::new(false);
        let (sent, sent_bytes) = (&[const { AtomicU64::new(0) }; 2], &AtomicU64::new(0));
        let mut forgotten = Counts::default();
        std::thread::scope(|scope| {
            let _stop = Stop(is_over);
            for (place, (cpu, program)) in cpus.into_iter().zip(&programs).enumerate() {
                let mut random = random.clone();
                scope.spawn(move || {
                    cpus::pin_to(cpu);
                    while !is_over.load(Ordering::SeqCst) {
                        let frame = &frames[random.below(FLOWS.into()) as usize];
                        run_by_descriptor(program.as_fd(), frame, BLOWS);
                        sent[place].fetch_add(BLOWS.into(), Ordering::SeqCst);
                        let bytes = u64::from(BLOWS) * frame.len() as u64;
                        sent_bytes.fetch_add(bytes, Ordering::SeqCst);
                    }
                });
            }
            for _ in 0..if long { 1000 } else { 40 } {
                let all = taken(&rig.monitor);
                let some: Vec<u32> = all.into_iter().filter(|_| random.below(2) == 0).collect();
                let before: Vec<Counts> = some.iter().map(|it| rig.monitor.counts(*it)).collect();
                let flows: Vec<Option<Flow>> =
                    some.iter().map(|it| rig.monitor.flow(*it)).collect();
                assert!(flows.iter().all(Option::is_some));
                let finals = step("take out", rig.monitor.take_out(&some));
                for (place, slot) in some.iter().enumerate() {
                    // `-` panics where a figure has gone back.
                    let _ = finals[place] - before[place];
                    forgotten += finals[place];
                    assert_eq!(rig.monitor.flow(*slot), None);
                }
                std::thread::sleep(Duration::from_micros(random.below(2000)));
                for (place, slot) in some.iter().enumerate() {
                    assert_eq!(
                        rig.monitor.counts(*slot),
                        finals[place],
                        "final means final"
                    );
                }
                step("give back", rig.monitor.give_back(&some));
            }
        });
        let tally = rig.tally();
        let mut all = sum(rig);
        all += tally.other;
        all += forgotten;
        assert_eq!(all, tally.totals);
        let [ingress, egress] = sent.each_ref().map(|it| it.load(Ordering::SeqCst));
        assert_eq!(
            (tally.totals.rx_pkts, tally.totals.tx_pkts),
            (ingress, egress)
        );
        assert_eq!(tally.totals.bytes(), sent_bytes.load(Ordering::SeqCst));
        assert!(tally.other.packets() > 0, "the table was never full");
        assert!(!forgotten.is_zero(), "nothing was taken out");
    });
}

/// Ends the senders also where the test fails.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// The kernel's own figures, as it tells them since 6.4, are those that were said before.
#[test]
fn the_kernel_takes_the_memory_that_was_said() {
    sandbox::run("the_kernel_takes_the_memory_that_was_said", |_| {
        for flows in [1000, 65_536, 100_000] {
            let setup = room_for(flows);
            let said = step("compute", Monitor::kernel_memory(&setup));
            rig::with(&setup, |rig| {
                let maps = &rig.monitor.skeleton().maps;
                let maps: [&dyn AsFd; 7] = [
                    &maps.flows4,
                    &maps.flows6,
                    &maps.rows,
                    &maps.counters,
                    &maps.tallies,
                    &maps.hints,
                    &maps.free_slots,
                ];
                let taken: u64 = maps.iter().map(|map| memory_of(*map)).sum();
                let (least, most) = (said - said / 10, said + said / 10 + (64 << 10));
                assert!(
                    (least..=most).contains(&taken),
                    "{flows}: {taken}, said {said}"
                );
            });
        }
    });
}

fn memory_of(map: &dyn AsFd) -> u64 {
    use std::os::fd::AsRawFd;
    let path = format!("/proc/self/fdinfo/{}", map.as_fd().as_raw_fd());
    let info = step("read fdinfo", std::fs::read_to_string(path));
    let line = info.lines().find_map(|line| line.strip_prefix("memlock:"));
    let line = line.unwrap_or_else(|| panic!("no memlock in {info}"));
    step("memlock", line.trim().parse())
}

#[test]
fn what_cannot_be_set_up_is_refused() {
    sandbox::run("what_cannot_be_set_up_is_refused", |_| {
        for setup in [
            room_for(0),
            room_for(MOST_FLOWS + 1),
            Setup {
                ports: (1..10).collect(),
                ..Setup::default()
            },
        ] {
            assert!(Monitor::kernel_memory(&setup).is_err(), "{setup:?}");
            let mut object = std::mem::MaybeUninit::uninit();
            assert!(Monitor::load(&setup, &mut object).is_err(), "{setup:?}");
        }
        for setup in [
            room_for(1),
            Setup {
                ports: Vec::new(),
                ..Setup::default()
            },
        ] {
            rig::with(&setup, |rig| rig.pass(Side::Ingress, &frame(1)));
        }
    });
}
