//! Interfaces of workers that go away, and others that come in their place.

use std::collections::BTreeSet;
use std::time::Duration;

use netbpf::mac::Mac;

use crate::rig::{Known, Setup, Tag, behind, events, mac, port, q, run, to_client, to_worker};

#[test]
fn a_strangers_interface_of_the_same_number_gets_nothing() {
    let name = "a_strangers_interface_of_the_same_number_gets_nothing";
    for has_peer in [false, true] {
        let setup = Setup {
            has_peer,
            ..Setup::default()
        };
        run(name, setup, |rig| {
            rig.add([(mac(1), 0), (mac(2), 0), (mac(3), 1)]);
            for client in 1..=3 {
                rig.hear(mac(client), &[q(client)]);
            }
            // In the way of a worker's frames into its namespace.
            assert_eq!(rig.worker_sends(0, &[to_client(mac(1))]).len(), 1);
            rig.cut_worker(0);
            let lost = rig.demux.lose(&BTreeSet::from([port(0)])).unwrap();
            assert_eq!(lost, 2);
            let known: Vec<Mac> = rig.demux.roster().keys().copied().collect();
            assert_eq!(known, [mac(3).into()]);
            let frames = [1, 2].map(|client| behind(&[q(client)], &to_worker(mac(client))));
            assert_eq!(rig.clients_send(&frames), []);
            std::thread::sleep(Duration::from_millis(100));
            rig.connect_worker(0);
            assert_eq!(rig.clients_send(&frames), [], "it is a stranger's");
            rig.assert_events(events {
                unknown: 4,
                ..Default::default()
            });
            // And nothing of what it sends goes out by the trunk: no program of ours is there.
            assert_eq!(rig.worker_sends(0, &[to_client(mac(3))]).len(), 1);
            rig.assert_events(events::default());
            rig.hear(mac(3), &[q(3)]);
            assert_eq!(rig.demux.removed().clients, 2);
            // It is the worker's again: all begins anew.
            let changes = rig.change();
            assert_eq!((changes.added, changes.kept), (2, 1));
            assert_eq!(rig.state(mac(1)), Known::default());
            assert_eq!(rig.outlets(0), [] as [Vec<Tag>; 0]);
            rig.hear(mac(1), &[q(7)]);
            assert_eq!(rig.outlets(0), [vec![q(7)]]);
            assert_eq!(rig.outlets(1), [vec![q(3)]]);
        });
    }
}

#[test]
fn an_interface_that_is_not_there_leaves_everything_as_it_was() {
    let name = "an_interface_that_is_not_there_leaves_everything_as_it_was";
    let setup = Setup {
        workers: 3,
        ..Setup::default()
    };
    run(name, setup, |rig| {
        rig.add([(mac(1), 0)]);
        rig.hear(mac(1), &[q(5)]);
        rig.cut_worker(2);
        rig.clients.insert(mac(2).into(), port(1));
        rig.clients.insert(mac(3).into(), port(2));
        let placed = rig.placed();
        let error = rig.demux.change_to(&placed).unwrap_err();
        assert!(format!("{error:#}").contains("worker2a"), "{error:#}");
        // Also the worker that could have been attached to is none.
        let known: Vec<Mac> = rig.demux.roster().keys().copied().collect();
        assert_eq!(known, [mac(1).into()]);
        assert_eq!(rig.demux.workers().count(), 1);
        assert_eq!(
            rig.worker_sends(1, &[to_client(mac(1))]).len(),
            1,
            "it passes on"
        );
        rig.assert_events(events::default());
        assert_eq!(rig.outlets(0), [vec![q(5)]]);
        rig.clients.remove(&mac(3).into());
        rig.change();
        rig.hear(mac(2), &[q(5)]);
    });
}
