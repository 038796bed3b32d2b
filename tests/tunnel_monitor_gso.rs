//! What the kernel sends through VXLAN devices in packets of many segments: counted as the frames that
//! they are on the wire.
//!
//! ```text
//! one [vxlan4, vxlan6, eth0] --- port1 [br9] port2 --- [eth0, vxlan4, vxlan6] other
//! ```
//! The monitor stands at port1. Both ports send one segment at a time, so that packets go through the monitor
//! whole, either way, and leave the bridge in segments, which captures at the hosts count.

use std::mem::MaybeUninit;
use std::net::{IpAddr, UdpSocket};
use std::time::{Duration, Instant};

use netbpf::netlink::Netlink;
use netbpf::options::Attaching;
use netbpf::port::Port;
use netbpf::tunnel_monitor::{Counts, Encap, Monitor, Setup};
use nix::sys::socket::{setsockopt, sockopt};
use testbed::namespace::{Namespace, Place, Veth};
use testbed::traffic::{Capture, tcp_transfer};
use testbed::{sandbox, step};

const WITHIN: Duration = Duration::from_secs(30);
const TRANSFER: usize = 3_000_000;

/// A datagram of many segments, in one call.
fn send_segments(from: &Place, to: &Place, addresses: [IpAddr; 2], segment: i32) {
    let receiver = to.run(|| step("bind", UdpSocket::bind((addresses[1], 0))));
    let bound = step("own address", receiver.local_addr());
    from.run(|| {
        let sender = step("bind", UdpSocket::bind((addresses[0], 0)));
        step(
            "segment UDP",
            setsockopt(&sender, sockopt::UdpGsoSegment, &segment),
        );
        for length in [20_000, 1, 7 * segment as usize, 7 * segment as usize + 1] {
            step("send", sender.send_to(&vec![1; length], bound));
        }
    });
}

/// Packets as the interface counts them: a GSO packet is one.
fn packets_in(interface: &str) -> u64 {
    let text = Place::here().ip(&format!("-s -o link show dev {interface}"));
    // … RX: bytes packets errors dropped missed mcast \ 123 4 0 …
    let behind = text
        .split("RX:")
        .nth(1)
        .and_then(|it| it.split('\\').nth(1));
    let packets = behind.and_then(|it| it.split_whitespace().nth(1));
    let packets = packets.unwrap_or_else(|| panic!("no packets in {text}"));
    step(&text, packets.parse())
}

/// UDP to the port of VXLAN.
fn is_vxlan(frame: &[u8]) -> bool {
    match frame.get(12..14) {
        Some([0x08, 0x00]) => {
            frame.get(23) == Some(&17) && frame.get(36..38) == Some(&[0x12, 0xb5])
        }
        Some([0x86, 0xdd]) => {
            frame.get(20) == Some(&17) && frame.get(56..58) == Some(&[0x12, 0xb5])
        }
        _ => false,
    }
}

#[test]
fn packets_of_many_segments_are_counted_as_on_the_wire() {
    const NAME: &str = "packets_of_many_segments_are_counted_as_on_the_wire";
    sandbox::run(NAME, |_| {
        let here = Place::here();
        let (one, other) = (Namespace::new("one"), Namespace::new("other"));
        let _cables = [(&one, "port1"), (&other, "port2")]
            .map(|(host, port)| Veth::new((&here, port), (host, "eth0")));
        here.ip("link add br9 type bridge");
        here.ip("link set br9 up");
        for port in ["port1", "port2"] {
            here.ip(&format!("link set {port} master br9"));
            here.ip(&format!("link set {port} gso_max_segs 1"));
        }
        for (host, number) in [(&one, 1), (&other, 2)] {
            host.ip(&format!("address add 192.0.2.{number}/24 dev eth0"));
            host.ip(&format!("address add 2001:db8::{number}/64 dev eth0 nodad"));
        }

        let mut object = MaybeUninit::uninit();
        let monitor = Monitor::load(&Setup::default(), &mut object);
        let mut monitor = step("load tunnel_monitor", monitor);
        let mut netlink = step("open netlink", Netlink::open());
        let port = step("find port1", Port::find(&mut netlink, "port1"));
        step("attach", monitor.attach(&Attaching::default(), &[port]));
        // What goes out by port1 comes in at one, what comes in by it at other.
        let [sent, received] =
            [&one, &other].map(|host| Capture::start(host, "eth0", 2 * WITHIN, is_vxlan));

        for (host, number, far) in [(&one, 1, 2), (&other, 2, 1)] {
            for (name, id, from, to, inside) in [
                ("vxlan4", 10_000, "192.0.2.", "192.0.2.", "10.0.0."),
                ("vxlan6", 10_001, "2001:db8::", "2001:db8::", "fd00::"),
            ] {
                host.ip(&format!(
                    "link add {name} type vxlan id {id} local {from}{number} remote {to}{far} \
                     dstport 4789 dev eth0"
                ));
                let length = if id == 10_000 { 24 } else { 64 };
                host.ip(&format!("link set {name} up"));
                host.ip(&format!("address add {inside}{number}/{length} dev {name}"));
            }
        }
        let skbs = packets_in("port1");
        for pair in [["10.0.0.1", "10.0.0.2"], ["fd00::1", "fd00::2"]] {
            let [near, far]: [IpAddr; 2] = pair.map(|ip| step(ip, ip.parse()));
            tcp_transfer(&one, &other, far, TRANSFER, WITHIN);
            tcp_transfer(&other, &one, near, TRANSFER, WITHIN);
            send_segments(&one, &other, [near, far], 1000);
            send_segments(&other, &one, [far, near], 1200);
        }
        let skbs = packets_in("port1") - skbs;

        // Neighbours may still be asked for: both have to have seen the same, once.
        let deadline = Instant::now() + WITHIN;
        let on_the_wire = || {
            let [tx, rx] = [&sent, &received].map(|it| it.seen().count);
            Counts {
                tx_pkts: tx.packets,
                tx_bytes: tx.bytes,
                rx_pkts: rx.packets,
                rx_bytes: rx.bytes,
            }
        };
        while monitor.tally().totals != on_the_wire() {
            let counted = monitor.tally();
            assert!(
                Instant::now() < deadline,
                "{:?} on the wire, {counted:?}",
                on_the_wire()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
        let tally = monitor.tally();
        let flows: Vec<_> = (0..monitor.slots_used())
            .filter_map(|slot| Some((monitor.flow(slot)?, monitor.counts(slot))))
            .collect();
        let sum: Counts = flows.iter().map(|(_, counts)| *counts).sum();
        assert_eq!(sum, tally.totals);
        assert_eq!(tally.uncounted.malformed, 0, "{tally:?}");
        // Both conversations, both ways, with at least what was sent in them.
        let large = flows.iter().filter(|(flow, counts)| {
            let least = TRANSFER as u64;
            flow.encap == Encap::Vxlan && counts.tx_bytes > least && counts.rx_bytes > least
        });
        assert_eq!(large.count(), 2, "{flows:?}");
        assert!(
            tally.totals.rx_pkts > 2 * skbs,
            "{skbs} packets in of {:?}: there was no GSO to look at",
            tally.totals
        );
        monitor.detach();
        drop((sent, received));
        here.ip("link delete br9");
    });
}
