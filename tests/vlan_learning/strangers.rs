//! Who is whose, and who is nobody's.

use std::collections::BTreeMap;

use netbpf::mac::Mac;
use netbpf::vlan_learning::{Policy, Verdict};

use crate::rig::{
    FAR, OTHER, OTHER_FAR, Setup, TRUNK, Tag, ad, arrival, behind, events, far_end, mac, named, q,
    run, run_both_ways, to_client, to_worker,
};

#[test]
fn clients_with_one_address_and_one_vlan_never_mix() {
    let name = "clients_with_one_address_and_one_vlan_never_mix";
    let setup = Setup {
        workers: 3,
        ..Setup::default()
    };
    run_both_ways(name, setup, |rig| {
        const CLIENTS: u16 = 60;
        let worker_of = |client: u16| u32::from(client % 3);
        rig.add((0..CLIENTS).map(|client| (mac(client), worker_of(client))));
        // Seven VLANs for all of them.
        let tags = |client: u16| vec![q(client % 7 + 2)];
        for client in 0..CLIENTS {
            let sent = [behind(&tags(client), &to_worker(mac(client)))];
            let expected = arrival(far_end(worker_of(client)), to_worker(mac(client)));
            assert_eq!(rig.clients_send(&sent), [expected], "{client}");
        }
        for client in 0..CLIENTS {
            for worker in 0..3 {
                let answer = to_client(mac(client));
                let arrived = rig.worker_sends(worker, std::slice::from_ref(&answer));
                if worker == worker_of(client) {
                    let expected = arrival(FAR, behind(&tags(client), &answer));
                    assert_eq!(arrived, [expected], "{client}");
                } else {
                    assert_eq!(arrived, [], "{client} is not worker {worker}'s");
                }
            }
        }
        let others = u64::from(CLIENTS) * 2;
        rig.assert_events(events {
            to_unknown: others,
            ..Default::default()
        });
    });
}

#[test]
fn who_is_not_configured_is_dropped_counted_and_listed() {
    let name = "who_is_not_configured_is_dropped_counted_and_listed";
    run(name, Setup::default(), |rig| {
        rig.add([(mac(1), 0)]);
        let nobody = [0; 6];
        // A group's address that differs from the client's in the group bit only, and neighbours of it.
        let group = [3, 0, 0, 0, 0, 1];
        let strangers = [nobody, group, [0xff; 6], mac(0), mac(2), [0, 0, 0, 0, 0, 1]];
        let mut listed = BTreeMap::new();
        for (tags, text) in [
            (vec![q(5)], "5"),
            (vec![ad(4095), q(0)], "4095s.0"),
            (vec![q(7).with(0xe), ad(9)], "7.9s"),
        ] {
            for stranger in strangers {
                let sent = behind(&tags, &to_worker(stranger));
                assert_eq!(rig.clients_send(&[sent]), [], "{stranger:02x?}");
                let (frames, last) = listed.entry(Mac::from(stranger)).or_default();
                *frames += 1;
                *last = text.to_owned();
            }
        }
        assert_eq!(rig.strangers(), listed);
        rig.assert_events(events {
            unknown: 18,
            ..Default::default()
        });
        // What a worker sends to them goes nowhere; its frames to groups are for everybody.
        for stranger in [nobody, mac(0), mac(2)] {
            assert_eq!(rig.worker_sends(0, &[to_client(stranger)]), []);
        }
        rig.assert_events(events {
            to_unknown: 3,
            ..Default::default()
        });
        // The client itself was not heard of yet.
        assert_eq!(rig.worker_sends(0, &[to_client(mac(1))]), []);
        rig.assert_events(events {
            to_unheard: 1,
            ..Default::default()
        });
        assert_eq!(rig.state(mac(1)), Default::default());
    });
}

/// In a directory so small that they are looked for in the client's own row.
#[test]
fn who_differs_in_one_bit_is_somebody_else() {
    let setup = Setup {
        room: 1,
        ..Setup::default()
    };
    run("who_differs_in_one_bit_is_somebody_else", setup, |rig| {
        rig.add([(mac(1), 0)]);
        let number = Mac::from(mac(1)).number();
        let others = (0..48).map(|bit| {
            let [_, _, other @ ..] = (number ^ 1 << bit).to_be_bytes();
            behind(&[q(5)], &to_worker(other))
        });
        assert_eq!(rig.clients_send(&others.collect::<Vec<_>>()), []);
        rig.assert_events(events {
            unknown: 48,
            ..Default::default()
        });
        rig.hear(mac(1), &[q(5)]);
    });
}

#[test]
fn any_vlan_number_will_do() {
    run_both_ways("any_vlan_number_will_do", Setup::default(), |rig| {
        rig.add([(mac(1), 0)]);
        for tags in [
            vec![q(0)],
            vec![q(0).with(0xe)],
            vec![q(4095)],
            vec![ad(0), q(4095)],
            vec![q(4095).with(1), q(0).with(0xf)],
        ] {
            rig.hear(mac(1), &tags);
            let answer = to_client(mac(1));
            let arrived = rig.worker_sends(0, std::slice::from_ref(&answer));
            assert_eq!(arrived, [arrival(FAR, behind(&tags, &answer))], "{tags:?}");
        }
        // 802.1Q and 802.1ad of one number are two places.
        assert_eq!(rig.state(mac(1)).moves, 3);
        // Without any tag it is nobody.
        assert_eq!(rig.clients_send(&[to_worker(mac(1))]), []);
        rig.assert_events(events {
            moved: 3,
            untagged: 1,
            ..Default::default()
        });
    });
}

/// The kernel takes the outer tag off before anybody sees it, and with it frames that end within it or
/// before the two bytes behind it.
const LEAST_TAGGED: usize = 14 + 4 + 2;

#[test]
fn frames_that_end_early_are_malformed() {
    run_both_ways(
        "frames_that_end_early_are_malformed",
        Setup::default(),
        |rig| {
            rig.add([(mac(1), 0)]);
            for tags in [vec![q(5)], vec![ad(5), q(6)], vec![q(5), ad(6)]] {
                let whole = behind(&tags, &to_worker(mac(1)));
                // Shorter than an Ethernet header, no socket sends them.
                for length in 14..whole.len() {
                    let arrived = rig.clients_send(&[whole[..length].to_vec()]);
                    let needed = LEAST_TAGGED.max(14 + 4 * tags.len());
                    if length < needed {
                        assert_eq!(arrived, [], "{length} bytes of {tags:?}");
                    } else {
                        let bytes = to_worker(mac(1))[..length - 4 * tags.len()].to_vec();
                        assert_eq!(
                            arrived,
                            [arrival(far_end(0), bytes)],
                            "{length} of {tags:?}"
                        );
                    }
                }
            }
            // 20 and 21 bytes, of both that have two tags.
            rig.assert_events(events {
                malformed: 4,
                moved: 2,
                ..Default::default()
            });
            // The other way there is nothing to end in but the addresses.
            rig.hear(mac(1), &[ad(5), q(6)]);
            let whole = to_client(mac(1));
            for length in 14..whole.len() {
                let answer = whole[..length].to_vec();
                let arrived = rig.worker_sends(0, std::slice::from_ref(&answer));
                assert_eq!(arrived, [arrival(FAR, behind(&[ad(5), q(6)], &answer))]);
            }
            rig.assert_events(events {
                moved: 1,
                ..Default::default()
            });
        },
    );
}

/// As a driver hands over what its device has taken the outer tag off.
#[test]
fn frames_may_end_in_the_tag_that_the_device_left() {
    let name = "frames_may_end_in_the_tag_that_the_device_left";
    run(name, Setup::default(), |rig| {
        rig.add([(mac(1), 0)]);
        let untagged = to_worker(mac(1));
        let policy = |unknown| Policy {
            unknown,
            untagged: Verdict::Drop,
            no_move: false,
        };
        let cases: [(Verdict, Option<u32>); 3] = [
            (Verdict::Drop, None),
            (Verdict::Pass, Some(TRUNK)),
            (Verdict::Redirect(named("other0", OTHER)), Some(OTHER_FAR)),
        ];
        let both: [Tag; 2] = [ad(5), q(6)];
        for (verdict, at) in cases {
            rig.set_policy(policy(verdict));
            rig.prepare(&both[..1]);
            let whole = behind(&both[1..], &untagged);
            for length in 14..18 {
                let cut = whole[..length].to_vec();
                let arrived = rig.clients_send(std::slice::from_ref(&cut));
                let cut = behind(&both[..1], &cut);
                let expected: Vec<_> = at.map(|at| arrival(at, cut)).into_iter().collect();
                assert_eq!(arrived, expected, "{length} bytes");
            }
            rig.assert_events(events {
                malformed: 4,
                ..Default::default()
            });
        }
        assert_eq!(rig.state(mac(1)).tags, "", "it was not heard of");
        // With all of its tags, even an empty frame is one; and one tag leaves nothing to end in.
        for (length, inline) in [(18, &both[1..]), (14, &[]), (15, &[])] {
            let sent = behind(inline, &untagged)[..length].to_vec();
            let arrived = rig.clients_send(&[sent]);
            let bytes = untagged[..length - 4 * inline.len()].to_vec();
            assert_eq!(arrived, [arrival(far_end(0), bytes)], "{length} {inline:?}");
        }
        let header_only = to_client(mac(1))[..14].to_vec();
        let back = rig.worker_sends(0, std::slice::from_ref(&header_only));
        assert_eq!(back, [arrival(FAR, behind(&both[..1], &header_only))]);
    });
}
