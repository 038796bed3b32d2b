//! Interfaces take frames that are not for them: those are for workers and clients.

use testbed::namespace::Place;
use testbed::step;

use crate::rig::{Setup, mac, run};

/// Who asks for every frame of the interface.
fn promiscuity(interface: &str) -> u64 {
    let text = Place::here().ip(&format!("-d -j link show dev {interface}"));
    let links: serde_json::Value = step("read what ip says", serde_json::from_str(&text));
    let count = links[0]["promiscuity"].as_u64();
    count.unwrap_or_else(|| panic!("no count in {text}"))
}

#[test]
fn trunk_and_workers_take_every_frame_as_long_as_they_are_ours() {
    let name = "trunk_and_workers_take_every_frame_as_long_as_they_are_ours";
    let setup = Setup {
        workers: 2,
        ..Setup::default()
    };
    run(name, setup, |rig| {
        rig.add([(mac(1), 0)]);
        let of_all = || ["eth0b", "worker0a", "worker1a"].map(promiscuity);
        assert_eq!(of_all(), [1, 1, 0]);
        rig.add([(mac(2), 1)]);
        assert_eq!(of_all(), [1, 1, 1]);
        rig.clients.remove(&mac(1).into());
        rig.change();
        assert_eq!(of_all(), [1, 0, 1]);
        rig.demux.detach();
        assert_eq!(of_all(), [0, 0, 0]);
    });
}
