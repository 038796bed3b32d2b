//! Frames that go into a worker's namespace at once, where that is what its veth would have done.

use testbed::namespace::Place;
use testbed::step;

use crate::rig::{
    Rig, Setup, WORKER_MAC, arrival, behind, far_end, frame, mac, q, run, to_client, to_worker,
};

/// Frames that went out by the sandbox's end of the worker's veth.
fn sent_by_veth() -> u64 {
    let text = Place::here().ip("-s -j link show dev worker0a");
    let links: serde_json::Value = step("read what ip says", serde_json::from_str(&text));
    let packets = links[0]["stats64"]["tx"]["packets"].as_u64();
    packets.unwrap_or_else(|| panic!("no count in {text}"))
}

/// One frame of the client arrives; whether it took the way through the veth.
#[track_caller]
fn takes_veth(rig: &Rig<'_>, to: [u8; 6]) -> bool {
    let before = sent_by_veth();
    let sent = frame(mac(1), to, 100);
    let arrived = rig.clients_send(&[behind(&[q(5)], &sent)]);
    assert_eq!(arrived, [arrival(far_end(0), sent)]);
    sent_by_veth() > before
}

#[test]
fn only_what_the_workers_own_stack_takes_goes_past_the_veth() {
    let setup = Setup {
        has_peer: true,
        ..Setup::default()
    };
    let name = "only_what_the_workers_own_stack_takes_goes_past_the_veth";
    run(name, setup, |rig| {
        rig.add([(mac(1), 0)]);
        assert!(
            takes_veth(rig, WORKER_MAC),
            "nobody knows the worker's address yet"
        );
        assert_eq!(rig.worker_sends(0, &[to_client(mac(1))]).len(), 1);
        assert!(!takes_veth(rig, WORKER_MAC));
        for other in [[0xff; 6], [1, 0, 0x5e, 0, 0, 1], mac(2), [0; 6]] {
            assert!(takes_veth(rig, other), "{other:02x?}");
        }
        // It has another one from now on.
        let second = frame([2, 0, 0, 0, 0xaa, 9], mac(1), 60);
        assert_eq!(rig.worker_sends(0, &[second]).len(), 1);
        assert!(takes_veth(rig, WORKER_MAC));
        assert!(!takes_veth(rig, [2, 0, 0, 0, 0xaa, 9]));
    });
}

#[test]
fn a_far_end_that_comes_back_is_reached_through_the_veth() {
    let setup = Setup {
        has_peer: true,
        ..Setup::default()
    };
    let name = "a_far_end_that_comes_back_is_reached_through_the_veth";
    run(name, setup, |rig| {
        rig.add([(mac(1), 0)]);
        rig.hear(mac(1), &[q(5)]);
        assert_eq!(rig.worker_sends(0, &[to_client(mac(1))]).len(), 1);
        rig.bring_back(0);
        rig.change();
        let sent = [behind(&[q(5)], &to_worker(mac(1)))];
        let arrived = rig.clients_send(&sent);
        assert_eq!(arrived, [arrival(far_end(0), to_worker(mac(1)))]);
    });
}
