//! Clients that are elsewhere than before.

use netbpf::vlan_learning::{Policy, Verdict};

use crate::rig::{
    FAR, Known, Rig, Setup, Tag, ad, arrival, behind, events, mac, q, run, run_both_ways,
    to_client, to_worker,
};

/// The next answer goes there.
#[track_caller]
fn answers_go_to(rig: &Rig<'_>, tags: &[Tag]) {
    let answer = to_client(mac(1));
    let arrived = rig.worker_sends(0, std::slice::from_ref(&answer));
    assert_eq!(arrived, [arrival(FAR, behind(tags, &answer))]);
}

#[test]
fn a_move_is_followed_with_its_first_frame() {
    let name = "a_move_is_followed_with_its_first_frame";
    run_both_ways(name, Setup::default(), |rig| {
        rig.add([(mac(1), 0)]);
        let places = [
            (vec![q(5)], "5"),
            (vec![q(6)], "6"),
            (vec![ad(6)], "6s"),
            (vec![ad(6), q(5)], "6s.5"),
            (vec![ad(6), ad(5)], "6s.5s"),
            (vec![ad(6), ad(0)], "6s.0s"),
            (vec![q(6), ad(0)], "6.0s"),
            (vec![q(6)], "6"),
        ];
        let mut before = "";
        for (moves, (tags, text)) in (0..).zip(&places) {
            for _ in 0..2 {
                rig.hear(mac(1), tags);
                answers_go_to(rig, tags);
            }
            assert_eq!(
                rig.outlets(0),
                std::slice::from_ref(tags),
                "the old one is gone"
            );
            let told = Known {
                rx: (0, 0),
                tx: (0, 0),
                ..rig.state(mac(1))
            };
            let expected = Known {
                tags: (*text).to_owned(),
                is_listed: true,
                moves,
                before: before.to_owned(),
                ..Known::default()
            };
            assert_eq!(told, expected);
            before = text;
        }
        rig.assert_events(events {
            moved: 7,
            ..Default::default()
        });
    });
}

#[test]
fn priorities_are_no_places() {
    run_both_ways("priorities_are_no_places", Setup::default(), |rig| {
        rig.add([(mac(1), 0)]);
        for (outer, inner) in [(0, 0), (0xe, 0), (0, 2), (3, 0xf), (1, 1), (0, 0)] {
            // The answer has those of the last frame.
            let tags = [ad(5).with(outer), q(6).with(inner)];
            rig.hear(mac(1), &tags);
            answers_go_to(rig, &tags);
            // A broadcast is nobody's answer.
            assert_eq!(rig.outlets(0), [vec![ad(5), q(6)]]);
        }
        let known = rig.state(mac(1));
        assert_eq!((known.moves, known.before.as_str()), (0, ""));
        rig.assert_events(events::default());
    });
}

#[test]
fn who_may_not_move_stays_where_it_was_first() {
    let no_move = |no_move| Policy {
        unknown: Verdict::Pass,
        untagged: Verdict::Pass,
        no_move,
    };
    let setup = Setup {
        policy: no_move(true),
        ..Setup::default()
    };
    run("who_may_not_move_stays_where_it_was_first", setup, |rig| {
        rig.add([(mac(1), 0)]);
        let home = [q(5).with(2)];
        rig.hear(mac(1), &home);
        for (frames, (tags, text)) in (1..).zip([
            (vec![q(6)], "6"),
            (vec![ad(5)], "5s"),
            (vec![q(5), q(5)], "5.5"),
            (vec![q(5), q(5).with(7)], "5.5"),
        ]) {
            let arrived = rig.clients_send(&[behind(&tags, &to_worker(mac(1)))]);
            assert_eq!(
                arrived,
                [],
                "it is somebody else's MAC address, and goes nowhere"
            );
            answers_go_to(rig, &home);
            let known = rig.state(mac(1));
            assert_eq!((known.moves, known.refusals), (0, frames));
            assert_eq!((known.tags.as_str(), known.refused.as_str()), ("5", text));
            assert_eq!(known.rx, (1, 100), "it is not counted as delivered");
        }
        assert_eq!(rig.outlets(0), [vec![q(5)]]);
        // Priorities may change at home.
        rig.hear(mac(1), &[q(5).with(7)]);
        answers_go_to(rig, &[q(5).with(7)]);
        rig.assert_events(events {
            refused: 4,
            ..Default::default()
        });
        rig.set_policy(no_move(false));
        rig.hear(mac(1), &[q(6)]);
        answers_go_to(rig, &[q(6)]);
        rig.set_policy(no_move(true));
        let arrived = rig.clients_send(&[behind(&home, &to_worker(mac(1)))]);
        assert_eq!(arrived, []);
        rig.assert_events(events {
            moved: 1,
            refused: 1,
            ..Default::default()
        });
        assert_eq!(rig.state(mac(1)).moves, 1);
    });
}
