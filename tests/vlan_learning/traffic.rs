//! TCP between a client and its worker: GSO packets, checksums that are yet to be computed, ARP by
//! broadcast; and frames whose bytes are spread over pages.

use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use testbed::namespace::{Namespace, Place};
use testbed::traffic::{Capture, Count, Injector, tcp_transfer};

use crate::rig::{
    FAR, MOST_KEPT, Rig, Setup, Tag, WORKER_MAC, ad, arrival, behind, events, far_end, frame, mac,
    q, run, run_both_ways, tags_of,
};

const CLIENT: (Ipv4Addr, [u8; 6]) = (Ipv4Addr::new(172, 16, 1, 100), mac_of(1));
const WORKER: Ipv4Addr = Ipv4Addr::new(172, 16, 1, 5);
/// Bytes of a transfer: hundreds of frames, and some GSO packets.
const TRANSFER: usize = 1 << 20;
const WITHIN: Duration = Duration::from_secs(10);

const fn mac_of(client: u8) -> [u8; 6] {
    [2, 0, 0, 0, 0, client]
}

/// Frames that come in and are `wanted`.
fn capture(place: &Place, wanted: fn(&[u8]) -> bool) -> Capture {
    Capture::start(place, "eth0", 6 * WITHIN, wanted)
}

/// What has come is what was counted, as soon as the last of it has come.
#[track_caller]
fn assert_counted(rig: &Rig<'_>, at_worker: Capture, at_client: Capture) {
    let counted = || {
        let known = rig.state(CLIENT.1);
        [known.rx, known.tx].map(|(packets, bytes)| Count { packets, bytes })
    };
    let came = || [at_worker.seen().count, at_client.seen().count];
    let deadline = Instant::now() + WITHIN;
    while counted() != came() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(counted(), came());
    let largest = |capture: &Capture| {
        let lengths = capture
            .seen()
            .packets
            .into_iter()
            .map(|packet| packet.len());
        lengths.max().unwrap_or_default()
    };
    let largest = [largest(&at_worker), largest(&at_client)];
    assert!(
        largest.iter().all(|bytes| *bytes > 9018),
        "no GSO packet came: {largest:?}"
    );
}

fn transfer(tags: &[Tag], mtu: usize) {
    let name = format!("tcp_is_counted_as_the_frames_that_it_is {tags:?} {mtu}");
    let setup = Setup {
        workers: 1,
        watches: false,
        ..Setup::default()
    };
    run_both_ways(&name, setup, |rig| {
        let client = Namespace::new("client");
        rig.connect_client(&client, CLIENT.1, tags);
        let worker = rig.network.workers[0].clone();
        for (place, address) in [(&*client, CLIENT.0), (&worker, WORKER)] {
            place.ip(&format!("link set eth0 mtu {mtu}"));
            place.ip(&format!("address add {address}/24 dev eth0"));
        }
        rig.add([(CLIENT.1, 0)]);
        // ARP requests of the client are its frames; those of the worker are broadcasts.
        let at_worker = capture(&worker, |frame| frame[6..12] == CLIENT.1);
        let at_client = capture(&client, |frame| frame[..6] == CLIENT.1);
        tcp_transfer(&client, &worker, IpAddr::V4(WORKER), TRANSFER, WITHIN);
        tcp_transfer(&worker, &client, IpAddr::V4(CLIENT.0), TRANSFER, WITHIN);
        assert_counted(rig, at_worker, at_client);
        let known = rig.state(CLIENT.1);
        let least = (TRANSFER / (mtu - 40)) as u64;
        assert!(known.rx.0 > least && known.tx.0 > least, "{known:?}");
        assert_eq!(known.moves, 0);
        let told = rig.take_events();
        assert_eq!((told.unknown, told.malformed, told.to_unknown), (0, 0, 0));
        assert_eq!((told.copies_lost, told.not_tagged_back), (0, 0));
        worker.ip(&format!("address delete {WORKER}/24 dev eth0"));
        rig.disconnect_client();
    });
}

#[test]
fn tcp_behind_one_tag_is_counted_as_the_frames_that_it_is() {
    transfer(&[q(5)], 1500);
    transfer(&[ad(5)], 9000);
}

#[test]
fn tcp_behind_two_tags_is_counted_as_the_frames_that_it_is() {
    transfer(&[ad(5), q(6)], 1500);
}

/// Of frames that are longer, the beginning is kept, and one tag beside it.
fn kept_of(mut frame: Vec<u8>) -> Vec<u8> {
    let in_metadata = if tags_of(&frame).is_empty() { 0 } else { 4 };
    frame.truncate(MOST_KEPT + in_metadata);
    frame
}

/// Only the addresses and the EtherType are where programs can read them at once.
#[test]
fn tags_in_pages_are_found() {
    run("tags_in_pages_are_found", Setup::default(), |rig| {
        const LENGTH: usize = 5000;
        rig.add([(mac(1), 0)]);
        let in_pages = Injector::in_pages(&rig.network.far, "eth0a");
        let back = Injector::in_pages(&rig.network.workers[0], "eth0");
        let whole = frame(mac(1), WORKER_MAC, LENGTH);
        let answer = frame(WORKER_MAC, mac(1), LENGTH);
        for tags in [vec![q(5)], vec![ad(5), q(6)], vec![ad(5), ad(6), q(7)]] {
            in_pages.inject([behind(&tags, &whole).as_slice()], Duration::ZERO);
            let own = behind(&tags[tags.len().min(2)..], &whole);
            assert_eq!(rig.arrivals(), [arrival(far_end(0), kept_of(own))]);
            back.inject([answer.as_slice()], Duration::ZERO);
            let sent = behind(&tags[..tags.len().min(2)], &answer);
            assert_eq!(rig.arrivals(), [arrival(FAR, kept_of(sent))]);
        }
        rig.assert_events(events {
            moved: 2,
            ..Default::default()
        });
        assert_eq!(rig.state(mac(1)).tx, (3, 3 * LENGTH as u64));
        assert_eq!(rig.state(mac(1)).rx, (3, 3 * LENGTH as u64));
    });
}
