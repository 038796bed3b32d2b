//! Where a worker's broadcasts go: once to each place that its clients are at.

use std::collections::{BTreeMap, BTreeSet};

use testbed::{cpus, joined, long};

use crate::rig::{
    Rig, Setup, Tag, ad, arrival, behind, events, far_end, frame, mac, q, run, run_both_ways,
    to_worker,
};
use crate::seed::Random;

/// Places that a worker's broadcasts can go to.
const MOST: usize = 64;

#[test]
fn a_broadcast_goes_once_to_each_place() {
    let name = "a_broadcast_goes_once_to_each_place";
    run_both_ways(name, Setup::default(), |rig| {
        rig.add([
            (mac(1), 0),
            (mac(2), 0),
            (mac(3), 0),
            (mac(4), 1),
            (mac(5), 0),
        ]);
        assert_eq!(rig.outlets(0), [] as [Vec<Tag>; 0]);
        assert_eq!(rig.broadcasts(0), (1, 60, 0));
        let shared = vec![ad(5), q(6)];
        rig.hear(mac(1), &shared);
        rig.hear(mac(2), &[ad(5).with(7), q(6).with(0xf)]);
        rig.hear(mac(3), &[q(5)]);
        rig.hear(mac(4), &[q(9)]);
        // Without priorities; the fifth client was not heard of, the fourth is another worker's.
        assert_eq!(rig.outlets(0), [vec![q(5)], shared.clone()]);
        assert_eq!(rig.outlets(1), [vec![q(9)]]);
        // A multicast and its bytes.
        let group = frame([2, 0, 0, 0, 0xaa, 0], [0x33, 0x33, 0, 0, 0, 1], 200);
        assert_eq!(rig.worker_sends(0, &[group]).len(), 2);
        assert_eq!(rig.broadcasts(0), (3, 60 + 60 + 200, 4));
        assert_eq!(rig.broadcasts(1), (1, 60, 1));
        // What is broadcast is nobody's own.
        assert_eq!(rig.state(mac(1)).tx, (0, 0));
        // Gone exactly with the last client that was there: by a move, and by leaving.
        rig.hear(mac(1), &[q(5)]);
        assert_eq!(rig.outlets(0), [vec![q(5)], shared]);
        rig.hear(mac(2), &[q(7)]);
        assert_eq!(rig.outlets(0), [vec![q(5)], vec![q(7)]]);
        for (gone, left) in [(1, vec![q(5)]), (3, vec![]), (2, vec![])] {
            rig.clients.remove(&mac(gone).into());
            rig.change();
            let mut expected = [left, vec![q(7)]].to_vec();
            expected.retain(|tags| !tags.is_empty());
            if gone == 2 {
                expected.clear();
            }
            assert_eq!(rig.outlets(0), expected, "without client {gone}");
        }
        rig.assert_events(events {
            moved: 2,
            nowhere: 2,
            ..Default::default()
        });
    });
}

/// The tag of that number, some of them with two.
fn place(number: u64) -> Vec<Tag> {
    let id = (number / 3 + 2) as u16;
    match number % 3 {
        0 => vec![q(id)],
        1 => vec![ad(id)],
        _ => vec![ad(id), q(id)],
    }
}

#[test]
fn there_is_room_for_64_places() {
    run("there_is_room_for_64_places", Setup::default(), |rig| {
        let client = |number: usize| mac(number as u16 + 1);
        rig.add((0..=MOST).map(|number| (client(number), 0)));
        let mut places: Vec<Vec<Tag>> = Vec::new();
        for number in 0..MOST {
            rig.hear(client(number), &place(number as u64));
            places.push(place(number as u64));
        }
        places.sort();
        assert_eq!(rig.outlets(0), places);
        rig.assert_events(events::default());
        // The next one is reached by answers, not by broadcasts; every frame of it says so.
        let late = place(MOST as u64);
        for _ in 0..3 {
            rig.hear(client(MOST), &late);
        }
        assert!(!rig.state(client(MOST)).is_listed);
        assert_eq!(rig.outlets(0), places);
        rig.assert_events(events {
            outlets_full: 3,
            ..Default::default()
        });
        // It leaves nobody's place when it moves, and shares one that there is.
        rig.hear(client(MOST), &place(MOST as u64 + 1));
        rig.hear(client(MOST), &place(7));
        assert!(rig.state(client(MOST)).is_listed);
        assert_eq!(rig.outlets(0), places);
        rig.hear(client(MOST), &late);
        rig.assert_events(events {
            moved: 3,
            outlets_full: 2,
            ..Default::default()
        });
        // Room is taken with its next frame.
        rig.clients.remove(&client(7).into());
        rig.change();
        places.retain(|known| *known != place(7));
        assert_eq!(rig.outlets(0), places);
        rig.hear(client(MOST), &late);
        assert!(rig.state(client(MOST)).is_listed);
        places.push(late);
        places.sort();
        assert_eq!(rig.outlets(0), places);
        rig.assert_events(events::default());
    });
}

/// What the program is to know of the clients of one worker.
#[derive(Default)]
struct Model {
    at: BTreeMap<u16, Vec<Tag>>,
    /// Who is listed where.
    outlets: BTreeMap<Vec<Tag>, BTreeSet<u16>>,
    moved: u64,
    outlets_full: u64,
}

impl Model {
    fn hear(&mut self, client: u16, tags: &[Tag]) {
        let before = self.at.insert(client, tags.to_vec());
        if let Some(before) = before.filter(|before| before != tags) {
            self.moved += 1;
            self.leave(client, &before);
        }
        if !self.outlets.contains_key(tags) && self.outlets.len() == MOST {
            self.outlets_full += 1;
            return;
        }
        self.outlets
            .entry(tags.to_vec())
            .or_default()
            .insert(client);
    }

    fn leave(&mut self, client: u16, place: &[Tag]) {
        if let Some(listed) = self.outlets.get_mut(place) {
            listed.remove(&client);
            if listed.is_empty() {
                self.outlets.remove(place);
            }
        }
    }

    fn forget(&mut self, client: u16) {
        if let Some(place) = self.at.remove(&client) {
            self.leave(client, &place);
        }
    }
}

#[track_caller]
fn assert_outlets(rig: &Rig<'_>, model: &Model) {
    let expected: Vec<Vec<Tag>> = model.outlets.keys().cloned().collect();
    assert_eq!(rig.outlets(0), expected);
}

#[test]
fn random_moves_are_as_in_the_model() {
    let name = "random_moves_are_as_in_the_model";
    let long = long(name, "40 rounds of 50 moves instead of 1,000");
    let mut random = Random::new(name, long);
    run(name, Setup::default(), |rig| {
        const CLIENTS: u64 = 100;
        rig.add((0..CLIENTS).map(|client| (mac(client as u16), 0)));
        let mut model = Model::default();
        let mut told = (0, 0);
        for round in 0..if long { 1000 } else { 40 } {
            // Sometimes there is room for all of them, sometimes not.
            let places = if round % 8 < 4 { 90 } else { 60 };
            let mut frames = Vec::new();
            for _ in 0..50 {
                let client = random.below(CLIENTS) as u16;
                if !rig.clients.contains_key(&mac(client).into()) {
                    continue;
                }
                let tags = place(random.below(places));
                model.hear(client, &tags);
                frames.push(behind(&tags, &to_worker(mac(client))));
            }
            assert_eq!(rig.clients_send(&frames).len(), frames.len());
            assert_outlets(rig, &model);
            // Somebody goes, somebody comes back, and has not been heard of.
            let client = random.below(CLIENTS) as u16;
            if rig.clients.remove(&mac(client).into()).is_some() {
                model.forget(client);
                rig.change();
            } else {
                rig.add([(mac(client), 0)]);
            }
            assert_outlets(rig, &model);
            rig.assert_events(events {
                moved: model.moved - told.0,
                outlets_full: model.outlets_full - told.1,
                nowhere: if model.outlets.is_empty() { 2 } else { 0 },
                ..Default::default()
            });
            told = (model.moved, model.outlets_full);
        }
        for client in 0..CLIENTS as u16 {
            if rig.clients.contains_key(&mac(client).into()) {
                let state = rig.state(mac(client));
                let place = model.at.get(&client);
                let is_listed = place.is_some_and(|place| {
                    let listed = model.outlets.get(place);
                    listed.is_some_and(|listed| listed.contains(&client))
                });
                assert_eq!(state.is_listed, is_listed, "{client}");
            }
        }
    });
}

#[test]
fn two_cpus_leave_neither_a_client_too_many_nor_one_too_few() {
    let name = "two_cpus_leave_neither_a_client_too_many_nor_one_too_few";
    let Some(cpus) = cpus::two() else {
        testbed::skip(name, "needs two CPUs");
        return;
    };
    let long = long(name, "100 bursts of 256 moves on each CPU instead of 2,000");
    let random = Random::new(name, long);
    run(name, Setup::default(), |rig| {
        const CLIENTS: u64 = 100;
        rig.add((0..CLIENTS).map(|client| (mac(client as u16), 0)));
        rig.keep(false);
        let bursts = if long { 2000 } else { 100 };
        std::thread::scope(|scope| {
            let running = cpus.map(|cpu| {
                let (flood, mut random) = (rig.flood(), random.clone());
                scope.spawn(move || {
                    cpus::pin_to(cpu);
                    for _ in 0..cpu {
                        random.next();
                    }
                    for burst in 0..bursts {
                        // All of them, or so few that they meet.
                        let (clients, places) = match burst % 4 {
                            0 => (CLIENTS, 60),
                            _ => (4, 3),
                        };
                        let frames: Vec<Vec<u8>> = (0..256)
                            .map(|_| {
                                let client = mac(random.below(clients) as u16);
                                behind(&place(random.below(places)), &to_worker(client))
                            })
                            .collect();
                        flood.send(&frames);
                    }
                })
            });
            running.into_iter().for_each(joined);
        });
        rig.keep(true);
        // Where they are now, each of them says.
        let mut model = Model::default();
        let (mut moves, mut came, mut delivered) = (0, 0, 0);
        for client in 0..CLIENTS as u16 {
            let state = rig.state(mac(client));
            assert!(state.is_listed, "{client}: there is room for all");
            model.hear(client, &place_named(&state.tags));
            moves += u64::from(state.moves);
            came += state.rx.0;
            delivered += rig.tally(mac(client), [2, 0, 0, 0, 0xaa, 0], far_end(0));
        }
        let sent = 2 * bursts * 256;
        assert_eq!((came, delivered), (sent, sent));
        rig.assert_events(events {
            moved: moves,
            ..Default::default()
        });
        assert_outlets(rig, &model);
        // And every place has as many clients as it thinks: it is gone with the last, not before.
        for client in 0..CLIENTS as u16 {
            let elsewhere = [q(4000)];
            model.hear(client, &elsewhere);
            let frame = to_worker(mac(client));
            let arrived = rig.clients_send(&[behind(&elsewhere, &frame)]);
            assert_eq!(arrived, [arrival(far_end(0), frame)]);
            assert_outlets(rig, &model);
        }
        assert_eq!(rig.outlets(0), [vec![q(4000)]]);
        rig.clients.clear();
        rig.add([(mac(999), 0)]);
        assert_eq!(rig.outlets(0), [] as [Vec<Tag>; 0]);
    });
}

/// The place that the demux calls so.
fn place_named(text: &str) -> Vec<Tag> {
    (0..200)
        .map(place)
        .find(|tags| {
            let names = tags.iter().map(|tag| {
                let kind = if tag.kind == 0x88a8 { "s" } else { "" };
                format!("{}{kind}", tag.tci)
            });
            names.collect::<Vec<_>>().join(".") == text
        })
        .unwrap_or_else(|| panic!("nobody was sent to {text}"))
}
