//! What happens to the tags of a client's frames, and to nothing else of them.

use crate::rig::{
    FAR, Known, Setup, Tag, WORKER_MAC, ad, arrival, behind, far_end, frame, mac, q, run_both_ways,
    to_client, to_worker,
};

const A: [u8; 6] = mac_of(1);

const fn mac_of(client: u8) -> [u8; 6] {
    [2, 0, 0, 0, 0, client]
}

/// One tag and two, of all kinds.
fn all_kinds() -> Vec<Vec<Tag>> {
    let mut all = vec![vec![q(5)], vec![ad(5)]];
    for outer in [q, ad] {
        for inner in [q, ad] {
            all.push(vec![outer(5), inner(7)]);
        }
    }
    all
}

#[test]
fn tags_come_off_and_go_back_on() {
    run_both_ways("tags_come_off_and_go_back_on", Setup::default(), |rig| {
        rig.add([(A, 0)]);
        let mut known = Known::default();
        for tags in all_kinds() {
            for length in [60, 61, 1514, 1900] {
                let there = frame(A, WORKER_MAC, length);
                let sent = [behind(&tags, &there)];
                let arrived = rig.clients_send(&sent);
                assert_eq!(arrived, [arrival(far_end(0), there)], "{tags:?}");
                let back = frame(WORKER_MAC, A, length);
                let arrived = rig.worker_sends(0, std::slice::from_ref(&back));
                assert_eq!(arrived, [arrival(FAR, behind(&tags, &back))], "{tags:?}");
                let count = |(packets, bytes)| (packets + 1, bytes + length as u64);
                (known.rx, known.tx) = (count(known.rx), count(known.tx));
                let now = rig.state(mac(1));
                assert_eq!((now.rx, now.tx), (known.rx, known.tx), "{tags:?} {length}");
            }
        }
    });
}

#[test]
fn a_third_tag_is_the_clients_own() {
    run_both_ways("a_third_tag_is_the_clients_own", Setup::default(), |rig| {
        rig.add([(A, 0)]);
        for inner in [q(9), ad(9), q(0), q(4095).with(0xf)] {
            let outer = [ad(5), q(7)];
            let there = behind(&[inner], &to_worker(A));
            let arrived = rig.clients_send(&[behind(&outer, &there)]);
            assert_eq!(arrived, [arrival(far_end(0), there)]);
            // And a worker may have VLANs of its own.
            let back = behind(&[inner], &to_client(A));
            let arrived = rig.worker_sends(0, std::slice::from_ref(&back));
            assert_eq!(arrived, [arrival(FAR, behind(&outer, &back))]);
        }
    });
}
