//! What happens to frames that are not delivered.

use netbpf::vlan_learning::{Policy, Verdict};

use crate::rig::{
    Arrival, FAR, HOST_MAC, OTHER, OTHER_FAR, Rig, Setup, TRUNK, Tag, WORKER_MAC, ad, arrival,
    behind, events, far_end, frame, mac, named, port, q, run, to_client, to_worker,
};

const TAGS: [Tag; 2] = [ad(5).with(3), q(6).with(0xf)];

/// From a stranger, in QinQ, and from a client without a tag.
fn unknown_and_untagged() -> [Vec<u8>; 2] {
    [behind(&TAGS, &to_worker(mac(9))), to_worker(mac(1))]
}

#[test]
fn what_is_unknown_passes_is_dropped_or_goes_elsewhere() {
    let name = "what_is_unknown_passes_is_dropped_or_goes_elsewhere";
    run(name, Setup::default(), |rig| {
        rig.add([(mac(1), 0)]);
        let [unknown, untagged] = unknown_and_untagged();
        let elsewhere = Verdict::Redirect(named("other0", OTHER));
        let verdicts = [
            (Verdict::Drop, None),
            (Verdict::Pass, Some(TRUNK)),
            (elsewhere, Some(OTHER_FAR)),
        ];
        // Every change to every other one.
        for first in 0..3 {
            for second in [first, (first + 1) % 3, (first + 2) % 3] {
                let (verdict, at) = &verdicts[second];
                for (untagged_verdict, untagged_at) in &verdicts[..2] {
                    rig.set_policy(Policy {
                        unknown: verdict.clone(),
                        untagged: untagged_verdict.clone(),
                        no_move: false,
                    });
                    let mut arrived = rig.clients_send(&[unknown.clone(), untagged.clone()]);
                    arrived.sort();
                    let expected = [(at, &unknown), (untagged_at, &untagged)];
                    let mut expected: Vec<Arrival> = expected
                        .into_iter()
                        .filter_map(|(at, bytes)| at.map(|at| arrival(at, bytes.clone())))
                        .collect();
                    expected.sort();
                    assert_eq!(arrived, expected, "{verdict:?} {untagged_verdict:?}");
                    rig.assert_events(events {
                        unknown: 1,
                        untagged: 1,
                        ..Default::default()
                    });
                }
            }
        }
        rig.hear(mac(1), &TAGS);
    });
}

/// All that can happen to a frame, with `--no-move`. What came out is returned.
fn everything(rig: &mut Rig<'_>) -> Vec<Arrival> {
    rig.add([(mac(1), 0), (mac(2), 0), (mac(3), 1)]);
    let group = frame(WORKER_MAC, [0xff; 6], 60);
    let mut arrived = Vec::new();
    // Nobody was heard of.
    arrived.extend(rig.worker_sends(0, &[group.clone(), to_client(mac(2))]));
    rig.hear(mac(1), &[q(5)]);
    arrived.extend(rig.clients_send(&unknown_and_untagged()));
    // It may not move.
    arrived.extend(rig.clients_send(&[behind(&[q(6)], &to_worker(mac(1)))]));
    let from_worker = [
        group,
        to_client(mac(1)),
        to_client(mac(3)),
        to_client(HOST_MAC),
        to_client(mac(9)),
    ];
    for frame in from_worker {
        arrived.extend(rig.worker_sends(0, &[frame]));
    }
    arrived
}

fn no_move() -> Policy {
    Policy {
        unknown: Verdict::Drop,
        untagged: Verdict::Drop,
        no_move: true,
    }
}

#[test]
fn a_dry_run_drops_nothing_and_counts_the_same() {
    let group = frame(WORKER_MAC, [0xff; 6], 60);
    let happened = events {
        untagged: 1,
        unknown: 1,
        refused: 1,
        to_unknown: 3,
        to_unheard: 1,
        nowhere: 1,
        ..Default::default()
    };
    let copy = |tag| arrival(FAR, behind(&[tag], &group));
    let reply = |tag| arrival(FAR, behind(&[tag], &to_client(mac(1))));
    let wet = Setup {
        policy: no_move(),
        ..Setup::default()
    };
    run("a_dry_run_drops_nothing (wet)", wet.clone(), |rig| {
        assert_eq!(everything(rig), [copy(q(5)), reply(q(5))]);
        rig.assert_events(happened);
        let known = rig.state(mac(1));
        assert_eq!((known.moves, known.refusals), (0, 1));
    });
    let dry = Setup {
        dry_run: true,
        ..wet
    };
    run("a_dry_run_drops_nothing (dry)", dry, |rig| {
        let [unknown, untagged] = unknown_and_untagged();
        let passed = |frame: &[u8]| arrival(port(0), frame.to_vec());
        // As without --no-move, because that is what happens without the tool being in earnest.
        let expected = [
            passed(&group),
            passed(&to_client(mac(2))),
            arrival(TRUNK, unknown),
            arrival(TRUNK, untagged),
            arrival(far_end(0), to_worker(mac(1))),
            passed(&group),
            copy(q(6)),
            reply(q(6)),
            passed(&to_client(mac(3))),
            passed(&to_client(HOST_MAC)),
            passed(&to_client(mac(9))),
        ];
        assert_eq!(everything(rig), expected);
        rig.assert_events(happened);
    });
}

#[test]
fn the_machine_itself_may_be_spoken_to() {
    let setup = Setup {
        hosts_too: true,
        policy: no_move(),
        ..Setup::default()
    };
    run("the_machine_itself_may_be_spoken_to", setup, |rig| {
        let group = frame(WORKER_MAC, [0xff; 6], 60);
        let passed = |frame: &[u8]| arrival(port(0), frame.to_vec());
        let copy = arrival(FAR, behind(&[q(5)], &group));
        let reply = arrival(FAR, behind(&[q(5)], &to_client(mac(1))));
        let expected = [
            passed(&group),
            passed(&group),
            copy,
            reply,
            passed(&to_client(HOST_MAC)),
        ];
        assert_eq!(everything(rig), expected);
        rig.assert_events(events {
            untagged: 1,
            unknown: 1,
            refused: 1,
            to_unknown: 2,
            to_host: 1,
            to_unheard: 1,
            nowhere: 1,
            ..Default::default()
        });
        // A frame that went out behind two tags passes on as it came, its own tag included.
        rig.add([(mac(4), 0)]);
        rig.hear(mac(4), &[ad(7), q(8)]);
        for own in [&[][..], &[q(3)], &[ad(3), q(2)]] {
            let group = behind(own, &frame(WORKER_MAC, [3, 0, 0, 0, 0, 7], 70));
            let mut arrived = rig.worker_sends(0, std::slice::from_ref(&group));
            arrived.sort();
            let mut expected = [
                passed(&group),
                arrival(FAR, behind(&[q(5)], &group)),
                arrival(FAR, behind(&[ad(7), q(8)], &group)),
            ];
            expected.sort();
            assert_eq!(arrived, expected, "{own:?}");
        }
    });
}
