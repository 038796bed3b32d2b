//! Programs on real interfaces: both sides, both ways to attach, with an Ethernet header and without, and
//! interfaces that come when there are no capabilities any more.

use std::mem::MaybeUninit;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use netbpf::netlink::Netlink;
use netbpf::options::Attaching;
use netbpf::port::Port;
use netbpf::privilege::{self, Scope};
use netbpf::tc::Method;
use netbpf::tunnel_monitor::{Counts, Monitor, Setup};
use testbed::namespace::{Namespace, Place, Veth};
use testbed::traffic::{Injector, inject};
use testbed::tun::{self, Tun};
use testbed::{joined, sandbox, skip, step};

use crate::frames::{self, IPIP, IPV4, IPV6, Ipv4, SIT, UDP, ethernet, extension, udp, vxlan};
use crate::oracle::{Outcome, outcome};
use crate::rig::Side;

fn packet(source: [u8; 4]) -> Vec<u8> {
    let ip = |source: [u8; 4], protocol| Ipv4 {
        source: source.into(),
        destination: [192, 0, 2, 1].into(),
        options: 0,
        fragment: 0,
        protocol,
    };
    let inside = ethernet([2; 6], &[], IPV4, &ip([10, 0, 0, 2], 1).with(&[8; 8]));
    ip(source, UDP).with(&udp(4789, &vxlan(8, 1, &inside)))
}

fn frame() -> Vec<u8> {
    ethernet([2; 6], &[], IPV4, &packet([192, 0, 2, 2]))
}

fn port(name: &str) -> Port {
    let mut netlink = step("open netlink", Netlink::open());
    step(name, Port::find(&mut netlink, name))
}

fn load(object: &mut MaybeUninit<libbpf_rs::OpenObject>) -> Monitor<'_> {
    step(
        "load tunnel_monitor",
        Monitor::load(&Setup::default(), object),
    )
}

fn wait_for(monitor: &Monitor<'_>, rx_pkts: u64, tx_pkts: u64) {
    let expected = Counts {
        rx_pkts,
        rx_bytes: rx_pkts * frame().len() as u64,
        tx_pkts,
        tx_bytes: tx_pkts * frame().len() as u64,
    };
    let deadline = Instant::now() + Duration::from_secs(5);
    while monitor.tally().totals != expected {
        let tally = monitor.tally();
        assert!(Instant::now() < deadline, "{tally:?}, not {expected:?}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Frames that come in by the interface, and as many that go out by it.
fn exchange(far: &Place, far_end: &str, near_end: &str, frames: usize) {
    let frame = frame();
    for (place, interface) in [(far, far_end), (&Place::here(), near_end)] {
        let frames = std::iter::repeat_n(frame.as_slice(), frames);
        inject(place, interface, frames, Duration::ZERO);
    }
}

#[test]
fn both_sides_are_counted_either_way_to_attach() {
    const NAME: &str = "both_sides_are_counted_either_way_to_attach";
    sandbox::run(NAME, |sandbox| {
        let far = Namespace::new("far");
        let _cable = Veth::new((&Place::here(), "wan0"), (&far, "eth0"));
        let before = sandbox.snapshot();
        for method in [Method::Tcx, Method::Clsact] {
            let mut object = MaybeUninit::uninit();
            let mut monitor = load(&mut object);
            let best = step("attach", monitor.attach(&Attaching::default(), &[]));
            if method == Method::Tcx && best != Method::Tcx {
                skip(NAME, "this kernel has no TCX (6.6)");
                continue;
            }
            let attaching = Attaching {
                method: Some(method),
                ..Attaching::default()
            };
            let by = step("attach", monitor.attach(&attaching, &[port("wan0")]));
            assert_eq!(by, method);
            exchange(&far, "eth0", "wan0", 3);
            wait_for(&monitor, 3, 3);
            monitor.detach();
            before.assert_same(&sandbox.snapshot(), "detached");
            exchange(&far, "eth0", "wan0", 1);
            wait_for(&monitor, 3, 3);
        }
    });
}

/// An interface that appears is attached to, one that goes is forgotten, and flows are taken out, all of it
/// without any capability.
#[test]
fn without_capabilities_interfaces_come_and_go() {
    const NAME: &str = "without_capabilities_interfaces_come_and_go";
    sandbox::run(NAME, |_| {
        let far = Namespace::new("far");
        let cables = ["wan0", "wan1", "wan2"]
            .map(|name| Veth::new((&Place::here(), name), (&far, &format!("far-{name}"))));
        let (ready, is_ready) = mpsc::channel();
        let (sent, is_sent) = mpsc::channel();
        std::thread::scope(|scope| {
            // The test's own thread keeps its capabilities.
            let watching = scope.spawn(move || {
                let mut object = MaybeUninit::uninit();
                let mut monitor = load(&mut object);
                let [one, two, three] = ["wan0", "wan1", "wan2"].map(port);
                let method = step(
                    "attach",
                    monitor.attach(&Attaching::default(), std::slice::from_ref(&one)),
                );
                if method != Method::Tcx {
                    return skip(NAME, "this kernel has no TCX (6.6)");
                }
                let dropped = privilege::drop_after_attach(method, Scope::Thread);
                step("drop the capabilities", dropped);
                step("add", monitor.add(&two));
                step("add", monitor.add(&three));
                monitor.remove(one.ifindex);
                step("tell", ready.send(()));
                if is_sent.recv().is_ok() {
                    wait_for(&monitor, 3 + 5, 3 + 5);
                    let finals = step("take out", monitor.take_out(&[0, 1]));
                    assert_eq!(finals.into_iter().sum::<Counts>(), monitor.tally().totals);
                    step("give back", monitor.give_back(&[0, 1]));
                }
                // A number that is nobody's.
                monitor.remove(4711);
            });
            if is_ready.recv().is_ok() {
                for (name, frames) in [("wan0", 2), ("wan1", 3), ("wan2", 5)] {
                    exchange(&far, &format!("far-{name}"), name, frames);
                }
                step("tell", sent.send(()));
            }
            joined(watching);
        });
        drop(cables);
    });
}

/// An interface without Ethernet header takes the programs' twins.
#[test]
fn packets_of_a_tun_device_are_counted() {
    const NAME: &str = "packets_of_a_tun_device_are_counted";
    sandbox::run(NAME, |_| {
        if !tun::is_there() {
            return skip(NAME, "this kernel has no tun devices");
        }
        let mut device = Tun::new("tun0");
        let mut object = MaybeUninit::uninit();
        let mut monitor = load(&mut object);
        step(
            "attach",
            monitor.attach(&Attaching::default(), &[port("tun0")]),
        );
        let packet = packet([192, 0, 2, 2]);
        device.write(&packet);
        let deadline = Instant::now() + Duration::from_secs(5);
        while monitor.tally().totals.rx_pkts == 0 {
            let tally = monitor.tally();
            assert!(Instant::now() < deadline, "{tally:?}");
            std::thread::sleep(Duration::from_millis(1));
        }
        assert_eq!(monitor.tally().totals.rx_bytes, packet.len() as u64);
        assert_eq!(monitor.slots_used(), 1);
    });
}

/// As drivers hand packets over: no more than the Ethernet header is where programs may read at once.
#[test]
fn headers_that_are_not_linear_are_read() {
    const NAME: &str = "headers_that_are_not_linear_are_read";
    sandbox::run(NAME, |_| {
        let far = Namespace::new("far");
        let _cable = Veth::new((&Place::here(), "wan0"), (&far, "eth0"));
        for (place, interface) in [(&Place::here(), "wan0"), (&*far, "eth0")] {
            place.ip(&format!("link set {interface} mtu 9000"));
        }
        let mut object = MaybeUninit::uninit();
        let mut monitor = load(&mut object);
        step(
            "attach",
            monitor.attach(&Attaching::default(), &[port("wan0")]),
        );
        let payload = [8; 5000];
        let ip4 = |source: [u8; 4], protocol, options| Ipv4 {
            source: source.into(),
            destination: [192, 0, 2, 1].into(),
            options,
            fragment: 0,
            protocol,
        };
        let ip6 = |next, payload: &[u8]| {
            let ends = [1_u128, 2].map(|host| (0x2001_0db8_u128 << 96 | host).into());
            frames::ipv6(ends[0], ends[1], next, payload)
        };
        let inside4 = ip4([10, 0, 0, 2], 1, 10).with(&payload);
        let inside6 = ip6(58, &payload);
        let tunnel = |inside: &[u8]| udp(4789, &vxlan(8, 1, &ethernet([2; 6], &[], IPV4, inside)));
        let behind_extensions = |next, payload: &[u8]| {
            let last = extension(next, 3, [0; 2], 24, payload);
            ip6(0, &extension(60, 1, [0; 2], 8, &last))
        };
        let large = [
            ethernet(
                [2; 6],
                &[],
                IPV4,
                &ip4([192, 0, 2, 2], UDP, 0).with(&tunnel(&inside4)),
            ),
            ethernet(
                [2; 6],
                &[],
                IPV4,
                &ip4([192, 0, 2, 2], SIT, 10).with(&inside6),
            ),
            ethernet(
                [2; 6],
                &[],
                IPV6,
                &behind_extensions(UDP, &tunnel(&inside4)),
            ),
            ethernet([2; 6], &[], IPV6, &behind_extensions(IPIP, &inside4)),
        ];
        let injector = Injector::in_pages(&far, "eth0");
        injector.inject(large.iter().map(Vec::as_slice), Duration::ZERO);
        let bytes: u64 = large.iter().map(|frame| frame.len() as u64).sum();
        let deadline = Instant::now() + Duration::from_secs(5);
        while monitor.tally().totals.rx_bytes != bytes {
            let tally = monitor.tally();
            assert!(Instant::now() < deadline, "{tally:?}, not {bytes} bytes");
            std::thread::sleep(Duration::from_millis(1));
        }
        let setup = Setup::default();
        for (slot, frame) in (0..).zip(&large) {
            let Outcome::Counted(flow, _) = outcome(frame, Side::Ingress, &setup) else {
                panic!("{frame:02x?} is no tunnel's");
            };
            assert_eq!(monitor.flow(slot), Some(flow));
        }
        assert_eq!(monitor.slots_used(), 4);
    });
}
