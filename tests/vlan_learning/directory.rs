//! Many clients, and tables that change while frames come.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use netbpf::mac::Mac;
use netbpf::vlan_learning::Changes;
use testbed::{cpus, joined, long};

use crate::rig::{
    Known, Rig, Setup, Tag, WORKER_MAC, behind, events, far_end, frame, mac, port, q, run,
    to_client, to_worker,
};
use crate::seed::Random;

const MOST: u32 = 65_536;

/// Frames that a CPU's queue has room for, several times.
const BURST: usize = 256;

fn bytes_of(mac: Mac) -> [u8; 6] {
    let [_, _, bytes @ ..] = mac.number().to_be_bytes();
    bytes
}

/// A frame of each of these comes to the worker of each, or to nobody.
fn assert_found(rig: &mut Rig<'_>, clients: &BTreeSet<Mac>, strangers: &BTreeSet<Mac>) {
    rig.keep(false);
    let all: Vec<Mac> = clients.union(strangers).copied().collect();
    let flood = rig.flood();
    for burst in all.chunks(BURST) {
        let frames: Vec<Vec<u8>> = burst
            .iter()
            .map(|mac| {
                let id = (mac.number() % 4096) as u16;
                behind(&[q(id)], &frame(bytes_of(*mac), WORKER_MAC, 60))
            })
            .collect();
        flood.send(&frames);
    }
    drop(flood);
    let came = rig.untagged_arrivals();
    for mac in &all {
        let expected = rig.clients.get(mac).map(|port| (port + 1, 1));
        let came = came.get(&bytes_of(*mac)).copied();
        assert_eq!(came, expected, "{mac}");
    }
    rig.forget_tallies();
    rig.keep(true);
}

/// These clients, every other one at the other worker.
fn configure(rig: &mut Rig<'_>, macs: &BTreeSet<Mac>) -> (Changes, Duration) {
    let ports = [port(0), port(1)].into_iter().cycle();
    rig.clients = macs.iter().copied().zip(ports).collect();
    let begin = Instant::now();
    (rig.change(), begin.elapsed())
}

fn random_macs(random: &mut Random, count: usize) -> BTreeSet<Mac> {
    let mut macs = BTreeSet::new();
    while macs.len() < count {
        macs.extend(Mac::from_number(random.next()).of_host());
    }
    macs
}

#[test]
fn every_client_is_found_and_nobody_else() {
    let name = "every_client_is_found_and_nobody_else";
    let long = long(name, "two tables of 65,536 clients instead of twelve");
    let mut random = Random::new(name, long);
    let setup = Setup {
        room: MOST,
        ..Setup::default()
    };
    run(name, setup, |rig| {
        for round in 0..if long { 12 } else { 2 } {
            let macs: BTreeSet<Mac> = if round % 2 == 0 {
                let first = 0x0200_0000_0000 + (random.next() & 0xffff_ffff);
                (0..u64::from(MOST))
                    .map(|i| Mac::from_number(first + i))
                    .collect()
            } else {
                random_macs(&mut random, MOST as usize)
            };
            let (changes, _) = configure(rig, &macs);
            assert_eq!(changes.added, MOST as usize);
            // Beside random ones, those that differ in one bit.
            let mut strangers = random_macs(&mut random, 5000);
            let first = macs.first().map_or(0, |mac| mac.number());
            strangers.extend((0..48).map(|bit| Mac::from_number(first ^ 1 << bit)));
            strangers.retain(|mac| !macs.contains(mac));
            assert_found(rig, &macs, &strangers);
            let unknown = strangers.len() as u64;
            let told = rig.take_events();
            assert_eq!((told.unknown, told.table_errors), (unknown, 0));
        }
    });
}

#[test]
fn reloads_are_quick_and_lose_nobody() {
    let name = "reloads_are_quick_and_lose_nobody";
    let long = long(name, "10 tables of 1,000 clients instead of 500");
    let mut random = Random::new(name, long);
    let setup = Setup {
        room: 10_000,
        ..Setup::default()
    };
    run(name, setup, |rig| {
        let all = random_macs(&mut random, 10_000);
        let (changes, time) = configure(rig, &all);
        assert_eq!(changes.added, 10_000);
        println!("10,000 clients loaded in {time:?}");
        for _ in 0..if long { 500 } else { 10 } {
            let some: BTreeSet<Mac> = all
                .iter()
                .copied()
                .filter(|_| random.below(10) == 0)
                .collect();
            configure(rig, &some);
            let others: BTreeSet<Mac> = all.difference(&some).copied().take(500).collect();
            assert_found(rig, &some, &others);
        }
    });
}

#[test]
fn a_reload_under_load_loses_no_frame_of_those_that_stay() {
    let name = "a_reload_under_load_loses_no_frame_of_those_that_stay";
    let Some([here, there]) = cpus::two() else {
        testbed::skip(name, "needs two CPUs");
        return;
    };
    let long = long(name, "a second of reloads instead of a minute");
    run(name, Setup::default(), |rig| {
        cpus::pin_to(here);
        let [stays, changes] = [mac(1), mac(2)];
        rig.add([(stays, 0), (changes, 0)]);
        rig.keep(false);
        let ended = AtomicBool::new(false);
        let flood = rig.flood();
        let sent = std::thread::scope(|scope| {
            let running = scope.spawn(|| {
                cpus::pin_to(there);
                let pair = [stays, changes].map(|mac| behind(&[q(5)], &frame(mac, WORKER_MAC, 60)));
                let frames: Vec<Vec<u8>> = pair.into_iter().cycle().take(BURST).collect();
                let mut sent = 0;
                while !ended.load(Ordering::Acquire) {
                    flood.send(&frames);
                    sent += BURST as u64 / 2;
                }
                sent
            });
            let end = Instant::now() + Duration::from_secs(if long { 60 } else { 1 });
            let mut reloads = 0;
            while Instant::now() < end {
                // Others come and go, so that the table is another one each time, and numbers are used
                // again.
                let others = (0..300).map(|number| (mac(100 + number * 7 + reloads % 7), 1));
                rig.clients
                    .retain(|mac, _| [stays, changes].contains(&bytes_of(*mac)));
                rig.add(others);
                rig.add([(changes, u32::from(reloads % 2))]);
                reloads += 1;
            }
            ended.store(true, Ordering::Release);
            println!("{reloads} reloads");
            joined(running)
        });
        let came = |mac, worker| rig.tally(mac, WORKER_MAC, far_end(worker));
        assert_eq!((came(stays, 0), came(stays, 1)), (sent, 0));
        let [first, second] = [0, 1].map(|worker| came(changes, worker));
        assert_eq!(first + second, sent, "{first} and {second}");
        assert!(first > 0 && second > 0, "{first} and {second}");
        assert_eq!(rig.state(stays).rx.0, sent);
        rig.assert_events(events::default());
    });
}

#[test]
fn a_number_is_used_again_without_anything_of_the_one_before() {
    let name = "a_number_is_used_again_without_anything_of_the_one_before";
    let setup = Setup {
        room: 3,
        ..Setup::default()
    };
    run(name, setup, |rig| {
        rig.add([(mac(1), 0), (mac(2), 0), (mac(3), 1)]);
        for client in 1..=3 {
            rig.hear(mac(client), &[q(client)]);
            rig.hear(mac(client), &[q(client + 10)]);
            let answer = to_client(mac(client));
            assert_eq!(rig.worker_sends(u32::from(client / 3), &[answer]).len(), 1);
        }
        // All numbers are taken: these are the ones of those that go.
        rig.clients.clear();
        let changes = rig.add([(mac(4), 0), (mac(5), 1), (mac(3), 0)]);
        let expected = Changes {
            added: 3,
            removed: 3,
            kept: 0,
        };
        assert_eq!(changes, expected);
        for client in 3..=5 {
            assert_eq!(rig.state(mac(client)), Known::default(), "{client}");
        }
        for worker in 0..2 {
            assert_eq!(rig.outlets(worker), [] as [Vec<Tag>; 0]);
        }
        rig.hear(mac(4), &[q(4)]);
        assert_eq!(rig.outlets(0), [vec![q(4)]]);
        assert_eq!(rig.outlets(1), [] as [Vec<Tag>; 0]);
        assert_eq!(rig.state(mac(4)).rx, (1, 100));
        // What was counted for those that are gone is not lost.
        let removed = rig.demux.removed();
        assert_eq!(removed.clients, 3);
        assert_eq!(
            (removed.traffic.rx.packets, removed.traffic.rx.bytes),
            (6, 600)
        );
        assert_eq!(
            (removed.traffic.tx.packets, removed.traffic.tx.bytes),
            (3, 270)
        );
        // Nobody is who he was.
        let gone = [behind(&[q(1)], &to_worker(mac(1)))];
        assert_eq!(rig.clients_send(&gone), []);
        assert_eq!(rig.take_events().unknown, 1);
    });
}
