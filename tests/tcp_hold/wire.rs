//! What a held connection's segments are when they reach the peer, behind a router: captured there, and where
//! the kernel has sent them.

use std::fs;
use std::io::{ErrorKind, Read};
use std::mem::MaybeUninit;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};

use etherparse::{NetSlice, SlicedPacket, TcpOptionElement, TcpSlice, TransportSlice};
use libbpf_rs::{MapCore, MapFlags};
use netbpf::tc::{Direction, Method};
use netbpf::tcp_hold::Setup;
use testbed::attaching;
use testbed::namespace::{Namespace, Place, Veth};
use testbed::offload;
use testbed::sandbox;
use testbed::step;
use testbed::traffic::{Capture, Frame};

use crate::bench::{Bench, Lossy, confirm, leave_first, run, take};
use crate::held_peer::{Network, WITHIN, assert_stays, read, unacknowledged, until, write};
use crate::repaired::{self, End};

/// On the way to the peer, in this order.
const HERE: [&str; 2] = ["192.0.2.1", "2001:db8::1"];
const ROUTER: [&str; 2] = ["192.0.2.254", "2001:db8::fe"];
const FAR_ROUTER: [&str; 2] = ["198.51.100.254", "2001:db8:1::fe"];
const PEER: [&str; 2] = ["198.51.100.2", "2001:db8:1::2"];
/// Somebody else, behind us.
const BEHIND: [&str; 2] = ["203.0.113.2", "2001:db8:2::2"];
const TO_BEHIND: [&str; 2] = ["203.0.113.1", "2001:db8:2::1"];

/// Where the checksums are made of what we send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Made {
    /// Nowhere: nothing leaves the machine. As all of these, unless another interface is named.
    Never,
    /// Before the program sees the packet, by a bridge that stands over its interface.
    Before,
    /// Behind the program, by its interface.
    Behind,
    /// By the router, which has got the packet without one.
    ByTheRouter,
}

impl Made {
    /// Our address is the bridge's.
    fn is_bridged(self) -> bool {
        matches!(self, Made::Never | Made::Before)
    }
}

#[test]
fn every_checksum_is_right() {
    for made in [Made::Never, Made::Before, Made::Behind, Made::ByTheRouter] {
        across_a_router("every_checksum_is_right", made, |bench| {
            let captured = Captured::start(&bench.peer, "eth0", bench.here);
            exchange(bench);
            let segments = captured.finish();
            let number = segments.len();
            let wrong = segments.iter().filter(|it| !it.is_right).count();
            assert_eq!(wrong, 0, "{made:?}: so many of {number} are wrong");
            let due = segments.iter().filter(|it| it.is_checksum_due).count();
            assert_eq!(due > 0, made == Made::Never, "{made:?}: {due} of {number}");
        });
    }
}

/// Options, windows, flags, bytes: they are as the kernel has sent them, and none of its segments is missing.
#[test]
fn nothing_but_the_acknowledgement_changes() {
    for made in [Made::Never, Made::Before] {
        let name = "nothing_but_the_acknowledgement_changes";
        across_a_router(name, made, |bench| {
            let sent = Captured::start(&Place::here(), "br0", bench.here);
            let arrived = Captured::start(&bench.peer, "eth0", bench.here);
            exchange(bench);
            until("all has arrived", || sent.number() == arrived.number());
            let (mut sent, mut arrived) = (sent.finish(), arrived.finish());
            assert!(arrived.iter().any(|it| it.has_sack), "of {}", arrived.len());
            for segments in [&mut sent, &mut arrived] {
                segments.sort_by(|one, other| one.rest.cmp(&other.rest));
            }
            for (sent, arrived) in sent.iter().zip(&arrived) {
                assert_eq!(sent.rest, arrived.rest, "{made:?}");
            }
        });
    }
}

/// All that a held connection sends: acknowledgements with and without SACK and data, an answer to what was asked
/// for, what the kernel sends in TIME-WAIT, and a reset.
fn exchange(bench: &Bench<'_, '_>) {
    let mut object = MaybeUninit::uninit();
    let mut lossy = Lossy::new(Direction::Ingress, 0, &mut object);
    let (held, peer) = bench.accepted();
    write(&peer, 1000);
    read(&held, 1000);
    lossy.lose(1);
    for _ in 0..10 {
        write(&peer, 1000);
    }
    confirm(&held, 1000);
    take(&held, 10_000);
    until("all is acknowledged", || unacknowledged(&peer) == 0);
    write(&peer, 11_000);
    read(&held, 11_000);
    assert_stays(&peer, 11_000);
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| read(&peer, 200_000));
        write(&held, 200_000);
        testbed::joined(reader);
    });
    confirm(&held, 5000);
    until("5,000 are acknowledged", || unacknowledged(&peer) == 6000);
    confirm(&held, 6000);
    until("the rest is", || unacknowledged(&peer) == 0);
    let with_fin = leave_first(&held, &peer, 500);
    assert_stays(&peer, with_fin);
    confirm(&held, 500);
    until("all is acknowledged", || unacknowledged(&peer) == 0);

    let (held, mut peer) = bench.accepted();
    write(&peer, 100);
    read(&held, 100);
    drop(held);
    let ended = peer.read(&mut [0]).map_err(|error| error.kind());
    assert_eq!(ended, Err(ErrorKind::ConnectionReset));
    let events = bench.events();
    assert!(events.lowered > 0 && events.probes > 0, "{events:?}");
}

/// A router between us and the peer, IPv4 and IPv6, by each way to attach.
fn across_a_router(name: &str, made: Made, test: impl Fn(&Bench<'_, '_>) + Sync) {
    attaching::by_each_way(|way| {
        let method = match way {
            "tcx" => Method::Tcx,
            _ => Method::Clsact,
        };
        for family in [0, 1] {
            sandbox::run(name, |_| {
                let (router, peer) = (Namespace::new("router"), Namespace::new("peer"));
                let here = Place::here();
                let cables = [
                    Veth::new((&here, "up0"), (&router, "in0")),
                    Veth::new((&router, "out0"), (&peer, "eth0")),
                ];
                let ours = if made.is_bridged() { "br0" } else { "up0" };
                if made.is_bridged() {
                    here.ip("link add br0 type bridge");
                    here.ip("link set up0 master br0");
                    here.ip("link set br0 up");
                }
                address(&here, ours, HERE);
                address(&router, "in0", ROUTER);
                address(&router, "out0", FAR_ROUTER);
                address(&peer, "eth0", PEER);
                for place in 0..2 {
                    here.ip(&format!("route add {} via {}", PEER[place], ROUTER[place]));
                    peer.ip(&format!(
                        "route add {} via {}",
                        HERE[place], FAR_ROUTER[place]
                    ));
                }
                router.run(|| forward(true));
                match made {
                    Made::Never => {}
                    Made::Before => offload::checksums(&here, "br0", false),
                    Made::Behind => offload::checksums(&here, "up0", false),
                    Made::ByTheRouter => offload::checksums(&router, "out0", false),
                }
                let network = Network {
                    peer: Place::named("peer"),
                    here: step(HERE[family], HERE[family].parse()),
                    there: step(PEER[family], PEER[family].parse()),
                };
                let mut object = MaybeUninit::uninit();
                let bench = Bench::new(&network, method, &Setup::default(), &mut object);
                test(&bench);
                bench.assert_nothing_was_dropped();
                drop(bench);
                if made.is_bridged() {
                    here.ip("link delete br0");
                }
                drop((cables, router, peer));
            });
        }
    });
}

fn address(place: &Place, interface: &str, [ipv4, ipv6]: [&str; 2]) {
    place.ip(&format!("address add {ipv4}/24 dev {interface}"));
    place.ip(&format!("address add {ipv6}/64 dev {interface} nodad"));
}

/// Whether this namespace passes on what is somebody else's.
fn forward(is_wanted: bool) {
    for file in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
        let path = format!("/proc/sys/net/{file}");
        step(&path, fs::write(&path, u8::from(is_wanted).to_string()));
    }
}

/// Of a connection that is only routed through: nothing of it is held, whatever is remembered of its ends, and
/// its checksums, which no interface makes for a router, stay right.
#[test]
fn what_passes_through_is_left_alone() {
    run("what_passes_through_is_left_alone", |bench| {
        let (here, other) = (Place::here(), Namespace::new("other"));
        let cable = Veth::new((&here, "low0"), (&other, "eth0"));
        address(&here, "low0", TO_BEHIND);
        address(&other, "eth0", BEHIND);
        for family in 0..2 {
            other.ip(&format!(
                "{} route add default via {}",
                ["-4", "-6"][family],
                TO_BEHIND[family]
            ));
        }
        let behind = BEHIND[usize::from(bench.here.is_ipv6())];
        bench
            .peer
            .ip(&format!("route add {behind} via {}", bench.here));
        offload::checksums(&other, "eth0", false);
        forward(true);

        let (theirs, his) = (1_000_000, 2_000_000);
        let there = End {
            place: &bench.peer,
            address: SocketAddr::new(bench.there, 40_001),
            next: his,
        };
        let other_end = End {
            place: &other,
            address: SocketAddr::new(step(behind, behind.parse()), 40_000),
            next: theirs,
        };
        let (stream, peer) = repaired::connection(other_end, there);
        remember(bench, other_end, there);
        let captured = Captured::start(&bench.peer, "eth0", other_end.address.ip());
        repaired::go([&stream, &peer]);
        write(&peer, 5000);
        read(&stream, 5000);
        until("all is acknowledged", || unacknowledged(&peer) == 0);
        write(&stream, 50_000);
        read(&peer, 50_000);
        let segments = captured.finish();
        assert!(!segments.is_empty());
        assert!(segments.iter().all(|it| it.is_right && !it.is_checksum_due));
        assert_eq!(bench.events().lowered, 0);

        bench.forget_leavers();
        forward(false);
        drop((stream, peer, cable));
    });
}

/// As if a connection between these ends had been held and had sent its FIN, with 1,000 bytes that came before those
/// of now, none of them confirmed.
fn remember(bench: &Bench<'_, '_>, here: End<'_>, there: End<'_>) {
    const NO_SLOT: u32 = u32::MAX;
    // struct ends: both addresses, 16 bytes each, both ports.
    let mut ends = Vec::new();
    for end in [here, there] {
        match end.address.ip() {
            IpAddr::V4(address) => ends.extend([&address.octets()[..], &[0; 12]].concat()),
            IpAddr::V6(address) => ends.extend(address.octets()),
        }
    }
    for end in [here, there] {
        ends.extend(end.address.port().to_be_bytes());
    }
    // struct leaver: generation, promised, seen; slot, start, end, padding.
    let mut leaver = [0_u64; 3].map(u64::to_ne_bytes).concat();
    leaver.extend(
        [NO_SLOT, there.next - 1000, here.next, 0]
            .map(u32::to_ne_bytes)
            .concat(),
    );
    let leavers = &bench.holder.skeleton().maps.leavers;
    let remembered = leavers.update(&ends, &leaver, MapFlags::NO_EXIST);
    step("remember it", remembered);
}

/// A segment that somebody has sent.
struct Segment {
    is_right: bool,
    is_checksum_due: bool,
    has_sack: bool,
    /// But for what the program changes: the acknowledgement, the checksum, the number of one without data.
    rest: Vec<u8>,
}

/// The TCP segments of one sender that pass an interface.
struct Captured {
    capture: Capture,
    segments: Arc<Mutex<Vec<Segment>>>,
}

impl Captured {
    fn start(place: &Place, interface: &str, sender: IpAddr) -> Captured {
        let segments = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&segments);
        let capture = Capture::both_ways(place, interface, WITHIN * 6, move |frame| {
            let segment = Segment::of(frame, sender);
            let is_one = segment.is_some();
            step("write it down", seen.lock()).extend(segment);
            is_one
        });
        Captured { capture, segments }
    }

    fn number(&self) -> usize {
        step("look at the capture", self.segments.lock()).len()
    }

    fn finish(self) -> Vec<Segment> {
        drop(self.capture);
        std::mem::take(&mut *step("look at the capture", self.segments.lock()))
    }
}

impl Segment {
    /// `None`: it is something else, or somebody else's.
    fn of(frame: Frame<'_>, sender: IpAddr) -> Option<Segment> {
        let packet = SlicedPacket::from_ethernet(frame.bytes).ok()?;
        let Some(TransportSlice::Tcp(tcp)) = packet.transport else {
            return None;
        };
        // What comes first of the pseudo-header (RFC 9293, 3.1; RFC 8200, 8.1), and of IPv4 its own checksum.
        let (source, mut pseudo, is_right): (IpAddr, _, _) = match packet.net? {
            NetSlice::Ipv4(ip) => {
                let header = ip.header();
                let ends = [header.source(), header.destination()].concat();
                (
                    header.source_addr().into(),
                    ends,
                    sum(header.slice()) == ALL,
                )
            }
            NetSlice::Ipv6(ip) => {
                let header = ip.header();
                let ends = [header.source(), header.destination()].concat();
                (header.source_addr().into(), ends, true)
            }
            NetSlice::Arp(_) => return None,
        };
        if source != sender {
            return None;
        }
        let segment = tcp.slice();
        pseudo.extend((segment.len() as u32).to_be_bytes());
        pseudo.extend(u32::from(etherparse::IpNumber::TCP.0).to_be_bytes());
        // Whoever makes the checksum begins with what stands in its place.
        let is_sum_right = if frame.is_checksum_due {
            tcp.checksum() == sum(&pseudo)
        } else {
            pseudo.extend(segment);
            sum(&pseudo) == ALL
        };
        Some(Segment {
            is_right: is_right && is_sum_right,
            is_checksum_due: frame.is_checksum_due,
            has_sack: has_sack(&tcp),
            rest: rest(&tcp),
        })
    }
}

/// What the words of a header add up to, its checksum among them.
const ALL: u16 = 0xffff;

/// The ones' complement sum of 16-bit words (RFC 1071).
fn sum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2);
    let words = words.map(|word| u64::from(word[0]) << 8 | u64::from(*word.get(1).unwrap_or(&0)));
    let mut sum: u64 = words.sum();
    while sum > u64::from(ALL) {
        sum = (sum >> 16) + (sum & u64::from(ALL));
    }
    sum as u16
}

fn has_sack(tcp: &TcpSlice<'_>) -> bool {
    let mut options = tcp.options_iterator();
    options.any(|option| matches!(option, Ok(TcpOptionElement::SelectiveAcknowledgement(..))))
}

fn rest(tcp: &TcpSlice<'_>) -> Vec<u8> {
    let mut rest = tcp.slice().to_vec();
    rest[8..12].fill(0);
    rest[16..18].fill(0);
    let is_plain = tcp.payload().is_empty() && !(tcp.syn() || tcp.fin() || tcp.rst());
    if is_plain {
        rest[4..8].fill(0);
    }
    rest
}
