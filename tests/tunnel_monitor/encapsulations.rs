//! One packet of each encapsulation, byte by byte: whose it is, which way, and how much; and what becomes of
//! it when it is cut.

use std::net::{Ipv4Addr, Ipv6Addr};

use netbpf::tunnel_monitor::{Counts, Encap, Flow, Inner, Outer, Setup, Uncounted};
use testbed::sandbox;

use crate::rig::{self, Rig, Side, Skb};

const ETHERNET_IPV4: &[u8] = &[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x08, 0x00];
const ETHERNET_IPV6: &[u8] = &[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x86, 0xdd];
/// ICMP, at the end of each.
const ECHO: &[u8] = &[8, 0, 0, 0, 0, 1, 0, 1];
/// 10.0.0.2 > 10.0.0.1, 28 bytes with ICMP.
const IPV4_INSIDE: &[u8] = &[
    0x45, 0, 0, 28, 0, 1, 0x40, 0, 64, 1, 0, 0, 10, 0, 0, 2, 10, 0, 0, 1,
];
/// fd00::2 > fd00::1.
#[rustfmt::skip]
const IPV6_INSIDE: &[u8] = &[
    0x60, 0, 0, 0, 0, 8, 58, 64,
    0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2,
    0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1,
];

/// 192.0.2.2 > 192.0.2.1, with so many bytes behind it.
fn ipv4(protocol: u8, behind: usize) -> Vec<u8> {
    let [high, low] = ((20 + behind) as u16).to_be_bytes();
    let begin = [0x45, 0, high, low, 0, 1, 0x40, 0, 64, protocol, 0, 0];
    [&begin[..], &[192, 0, 2, 2, 192, 0, 2, 1]].concat()
}

/// 2001:db8::2 > 2001:db8::1.
#[rustfmt::skip]
fn ipv6(next: u8, behind: usize) -> Vec<u8> {
    let [high, low] = (behind as u16).to_be_bytes();
    vec![
        0x60, 0, 0, 0, high, low, next, 64,
        0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2,
        0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1,
    ]
}

fn outer4() -> Outer {
    Outer::V4 {
        local: [192, 0, 2, 1].into(),
        remote: [192, 0, 2, 2].into(),
    }
}

fn outer6() -> Outer {
    let [local, remote] = [1, 2].map(|host| Ipv6Addr::from(0x2001_0db8_u128 << 96 | host));
    Outer::V6(Box::new([local, remote]))
}

fn inner4() -> Inner {
    Inner::V4 {
        local: [10, 0, 0, 1].into(),
        remote: [10, 0, 0, 2].into(),
    }
}

fn inner6() -> Inner {
    let [local, remote] = [1, 2].map(|host| Ipv6Addr::from(0xfd00_u128 << 112 | host));
    Inner::V6(Box::new([local, remote]))
}

/// The same, seen from the other end.
fn turned(flow: &Flow) -> Flow {
    let mut flow = flow.clone();
    match &mut flow.outer {
        Outer::V4 { local, remote } => std::mem::swap(local, remote),
        Outer::V6(ends) => ends.reverse(),
    }
    match &mut flow.inner {
        Inner::NotIp => {}
        Inner::V4 { local, remote } => std::mem::swap(local, remote),
        Inner::V6(ends) => ends.reverse(),
    }
    flow
}

/// A packet, and whose it is.
struct Case {
    name: &'static str,
    frame: Vec<u8>,
    flow: Flow,
    /// Bytes from which on it is known to be a tunnel's, and can be counted.
    known_from: usize,
    counted_from: usize,
    tag_bytes: usize,
}

const ROOM: usize = 14;

/// Behind an IPv4 header: what tunnel, and what is in it.
fn over_ipv4(protocol: u8, tunnel: &[u8], inside: &[&[u8]]) -> Vec<u8> {
    let behind = [tunnel, &inside.concat(), ECHO].concat();
    [ETHERNET_IPV4, &ipv4(protocol, behind.len()), &behind].concat()
}

fn over_ipv6(next: u8, tunnel: &[u8], inside: &[&[u8]]) -> Vec<u8> {
    let behind = [tunnel, &inside.concat(), ECHO].concat();
    [ETHERNET_IPV6, &ipv6(next, behind.len()), &behind].concat()
}

/// With a UDP length of 0, which says nothing: what is inside differs.
fn udp(port: u16) -> Vec<u8> {
    let [high, low] = port.to_be_bytes();
    vec![0xc0, 0x01, high, low, 0, 0, 0, 0]
}

fn vxlan_10000() -> Vec<u8> {
    [&udp(4789)[..], &[0x08, 0, 0, 0, 0x00, 0x27, 0x10, 0]].concat()
}

fn vxlan_10001() -> Vec<u8> {
    [&udp(4789)[..], &[0x08, 0, 0, 0, 0x00, 0x27, 0x11, 0]].concat()
}

fn cases() -> Vec<Case> {
    let flow = |encap, vni, outer: Outer, inner: Inner| Flow {
        encap,
        vni,
        outer,
        inner,
    };
    let case = |name, frame, flow, known_from, counted_from| Case {
        name,
        frame,
        flow,
        known_from,
        counted_from,
        tag_bytes: 0,
    };
    let (v4, v6) = (ROOM + 20, ROOM + 40);
    vec![
        case(
            "VXLAN, IPv4 in IPv4",
            over_ipv4(17, &vxlan_10000(), &[ETHERNET_IPV4, IPV4_INSIDE]),
            flow(Encap::Vxlan, 10_000, outer4(), inner4()),
            v4 + 8,
            v4 + 16 + 14 + 20,
        ),
        case(
            "VXLAN, IPv6 in IPv4",
            over_ipv4(17, &vxlan_10000(), &[ETHERNET_IPV6, IPV6_INSIDE]),
            flow(Encap::Vxlan, 10_000, outer4(), inner6()),
            v4 + 8,
            v4 + 16 + 14 + 40,
        ),
        case(
            "VXLAN, IPv4 in IPv6",
            over_ipv6(17, &vxlan_10000(), &[ETHERNET_IPV4, IPV4_INSIDE]),
            flow(Encap::Vxlan, 10_000, outer6(), inner4()),
            v6 + 8,
            v6 + 16 + 14 + 20,
        ),
        case(
            "VXLAN, IPv6 in IPv6",
            over_ipv6(17, &vxlan_10000(), &[ETHERNET_IPV6, IPV6_INSIDE]),
            flow(Encap::Vxlan, 10_000, outer6(), inner6()),
            v6 + 8,
            v6 + 16 + 14 + 40,
        ),
        case(
            "VXLAN, all bits of its number, ARP inside",
            over_ipv4(
                17,
                &[&udp(4789)[..], &[0x08, 0, 0, 0, 0xff, 0xff, 0xff, 0]].concat(),
                &[&ETHERNET_IPV4[..12], &[0x08, 0x06, 0, 1, 8, 0, 6, 4, 0, 1]],
            ),
            flow(Encap::Vxlan, 0xff_ffff, outer4(), Inner::NotIp),
            v4 + 8,
            v4 + 16 + 14,
        ),
        Case {
            tag_bytes: 8,
            ..case(
                "VXLAN, two tags outside and two inside",
                [
                    &ETHERNET_IPV4[..12],
                    &[0x88, 0xa8, 0, 5, 0x81, 0x00, 0, 6, 0x08, 0x00],
                    &over_ipv4(
                        17,
                        &vxlan_10001(),
                        &[
                            &ETHERNET_IPV4[..12],
                            &[0x88, 0xa8, 0, 7, 0x81, 0x00, 0, 8, 0x08, 0x00],
                            IPV4_INSIDE,
                        ],
                    )[14..],
                ]
                .concat(),
                flow(Encap::Vxlan, 10_001, outer4(), inner4()),
                8 + v4 + 8,
                8 + v4 + 16 + 14 + 8 + 20,
            )
        },
        case(
            "Geneve, two words of options, Ethernet",
            over_ipv4(
                17,
                &[
                    &udp(6081)[..],
                    &[0x02, 0, 0x65, 0x58, 0, 0, 42, 0],
                    &[0x01, 0x02, 0x80, 0x01, 1, 2, 3, 4],
                ]
                .concat(),
                &[ETHERNET_IPV4, IPV4_INSIDE],
            ),
            flow(Encap::Geneve, 42, outer4(), inner4()),
            v4 + 8,
            v4 + 16 + 8 + 14 + 20,
        ),
        case(
            "Geneve, IPv6 without Ethernet",
            over_ipv6(
                17,
                &[&udp(6081)[..], &[0x00, 0, 0x86, 0xdd, 0, 0, 42, 0]].concat(),
                &[IPV6_INSIDE],
            ),
            flow(Encap::Geneve, 42, outer6(), inner6()),
            v6 + 8,
            v6 + 16 + 40,
        ),
        case(
            "GRE, nothing but its header",
            over_ipv4(47, &[0, 0, 0x08, 0x00], &[IPV4_INSIDE]),
            flow(Encap::Gre, 0, outer4(), inner4()),
            v4,
            v4 + 4 + 20,
        ),
        case(
            "GRE, checksum, key and sequence number, Ethernet",
            over_ipv4(
                47,
                &[
                    0xb0, 0, 0x65, 0x58, 0xaa, 0xaa, 0, 0, 0xde, 0xad, 0xbe, 0xef, 0, 0, 0, 9,
                ],
                &[ETHERNET_IPV6, IPV6_INSIDE],
            ),
            flow(Encap::Gre, 0xdead_beef, outer4(), inner6()),
            v4,
            v4 + 16 + 14 + 40,
        ),
        case(
            "NVGRE",
            over_ipv6(
                47,
                &[0x20, 0, 0x65, 0x58, 0x00, 0x27, 0x10, 0xf1],
                &[ETHERNET_IPV4, IPV4_INSIDE],
            ),
            flow(Encap::Nvgre, 10_000, outer6(), inner4()),
            v6,
            v6 + 8 + 14 + 20,
        ),
        case(
            "IPIP",
            over_ipv4(4, &[], &[IPV4_INSIDE]),
            flow(Encap::Ipip, 0, outer4(), inner4()),
            v4,
            v4 + 20,
        ),
        case(
            "SIT, behind options of four bytes",
            [
                ETHERNET_IPV4,
                &[0x46, 0, 0, 72, 0, 1, 0x40, 0, 64, 41, 0, 0],
                &[192, 0, 2, 2, 192, 0, 2, 1, 1, 1, 1, 0],
                IPV6_INSIDE,
                ECHO,
            ]
            .concat(),
            flow(Encap::Sit, 0, outer4(), inner6()),
            v4 + 4,
            v4 + 4 + 40,
        ),
        case(
            "IPv4 in IPv6, behind a hop-by-hop and a destination options header",
            over_ipv6(
                0,
                &[
                    60, 0, 1, 4, 0, 0, 0, 0, 4, 1, 1, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
                ],
                &[IPV4_INSIDE],
            ),
            flow(Encap::Ipip, 0, outer6(), inner4()),
            // Where the next header of the second one is, and all of what says that it is one.
            v6 + 16,
            v6 + 24 + 20,
        ),
    ]
}

fn setup() -> Setup {
    Setup {
        nvgre: true,
        ..Setup::default()
    }
}

#[test]
fn each_is_counted_for_its_ends_and_its_way() {
    rig::run("each_is_counted_for_its_ends_and_its_way", setup(), |rig| {
        let (mut expected, mut totals) = (Vec::new(), Counts::default());
        for Case {
            frame,
            flow,
            tag_bytes,
            ..
        } in cases()
        {
            let bytes = (frame.len() - tag_bytes) as u64;
            rig.pass(Side::Ingress, &frame);
            rig.pass(Side::Egress, &frame);
            rig.pass(Side::Egress, &frame);
            let came = Counts {
                rx_pkts: 1,
                rx_bytes: bytes,
                ..Counts::default()
            };
            let went = Counts {
                tx_pkts: 2,
                tx_bytes: 2 * bytes,
                ..Counts::default()
            };
            expected.push((turned(&flow), went));
            expected.push((flow, came));
            totals += came;
            totals += went;
        }
        let counted = rig.flows();
        for (flow, counts) in &expected {
            let found = counted.iter().find(|(other, _)| other == flow);
            assert_eq!(found.map(|(_, counts)| counts), Some(counts), "{flow:?}");
        }
        assert_eq!(counted.len(), expected.len());
        let tally = rig.tally();
        assert_eq!(tally.totals, totals);
        assert_eq!(tally.other, Counts::default());
        assert_eq!(tally.uncounted, Uncounted::default());
    });
}

/// Both ways of a conversation are one flow.
#[test]
fn request_and_answer_are_one_flow() {
    rig::run("request_and_answer_are_one_flow", setup(), |rig| {
        let mut request = over_ipv4(17, &vxlan_10000(), &[ETHERNET_IPV4, IPV4_INSIDE]);
        rig.pass(Side::Ingress, &request);
        for address in [ROOM + 12, ROOM + 20 + 16 + 14 + 12] {
            let (source, destination) = request[address..address + 8].split_at_mut(4);
            source.swap_with_slice(destination);
        }
        rig.pass(Side::Egress, &request);
        let bytes = request.len() as u64;
        let both = Counts {
            tx_pkts: 1,
            tx_bytes: bytes,
            rx_pkts: 1,
            rx_bytes: bytes,
        };
        let flow = Flow {
            encap: Encap::Vxlan,
            vni: 10_000,
            outer: outer4(),
            inner: inner4(),
        };
        assert_eq!(rig.flows(), [(flow, both)]);
    });
}

/// Without --nvgre the whole key is the number.
#[test]
fn nvgre_is_gre_unless_it_is_asked_for() {
    rig::run(
        "nvgre_is_gre_unless_it_is_asked_for",
        Setup::default(),
        |rig| {
            let key = [0x20, 0, 0x65, 0x58, 0x00, 0x27, 0x10, 0xf1];
            rig.pass(
                Side::Ingress,
                &over_ipv4(47, &key, &[ETHERNET_IPV4, IPV4_INSIDE]),
            );
            let flows = rig.flows();
            assert_eq!(
                (flows[0].0.encap, flows[0].0.vni),
                (Encap::Gre, 0x0027_10f1)
            );
        },
    );
}

#[test]
fn every_truncation_is_told() {
    rig::run("every_truncation_is_told", setup(), |rig| {
        for case in cases() {
            for length in ROOM..case.frame.len() {
                let before = rig.tally();
                rig.pass(Side::Ingress, &case.frame[..length]);
                let mut after = before;
                if length < case.known_from {
                    after.uncounted.not_tunnel += 1;
                } else if length < case.counted_from {
                    after.uncounted.malformed += 1;
                } else {
                    after.totals.rx_pkts += 1;
                    after.totals.rx_bytes += (length - case.tag_bytes) as u64;
                }
                assert_eq!(rig.tally(), after, "{}, {length} bytes", case.name);
            }
        }
    });
}

/// A way to put one thing wrong, and what it is counted as.
type Wrong = (&'static str, Vec<u8>, fn(&mut Uncounted) -> &mut u64);

#[test]
fn what_is_not_to_be_counted_is_told_apart() {
    let vxlan = || over_ipv4(17, &vxlan_10000(), &[ETHERNET_IPV4, IPV4_INSIDE]);
    let with = |mut frame: Vec<u8>, at: usize, bytes: &[u8]| {
        frame[at..at + bytes.len()].copy_from_slice(bytes);
        frame
    };
    let gre = |flags: [u8; 2]| over_ipv4(47, &[flags[0], flags[1], 8, 0], &[IPV4_INSIDE]);
    let behind = ROOM + 20;
    fn fragments(it: &mut Uncounted) -> &mut u64 {
        &mut it.fragments
    }
    fn multicast(it: &mut Uncounted) -> &mut u64 {
        &mut it.multicast
    }
    fn malformed(it: &mut Uncounted) -> &mut u64 {
        &mut it.malformed
    }
    fn not_tunnel(it: &mut Uncounted) -> &mut u64 {
        &mut it.not_tunnel
    }
    let cases: Vec<Wrong> = vec![
        (
            "a first fragment",
            with(vxlan(), ROOM + 6, &[0x20, 0]),
            fragments,
        ),
        (
            "a later fragment",
            with(vxlan(), ROOM + 6, &[0, 1]),
            fragments,
        ),
        (
            "an IPv6 fragment",
            over_ipv6(44, &[47, 0, 0, 1, 0, 0, 0, 7, 0, 0, 8, 0], &[IPV4_INSIDE]),
            fragments,
        ),
        (
            "a later IPv6 fragment",
            over_ipv6(44, &[17, 0, 0, 8, 0, 0, 0, 7], &[IPV4_INSIDE]),
            fragments,
        ),
        (
            "a fragment of TCP",
            with(with(vxlan(), ROOM + 6, &[0x20, 0]), ROOM + 9, &[6]),
            not_tunnel,
        ),
        (
            "multicast",
            with(vxlan(), 0, &[1, 0, 0x5e, 0x01, 0x01, 0x01]),
            multicast,
        ),
        ("broadcast", with(vxlan(), 0, &[0xff; 6]), multicast),
        (
            "VXLAN without its number",
            with(vxlan(), behind + 8, &[0]),
            malformed,
        ),
        (
            "Geneve of another version",
            with(
                with(vxlan(), behind + 2, &[0x17, 0xc1]),
                behind + 8,
                &[0x40],
            ),
            malformed,
        ),
        (
            "options longer than the packet",
            with(
                with(vxlan(), behind + 2, &[0x17, 0xc1]),
                behind + 8,
                &[0x3f],
            ),
            malformed,
        ),
        (
            "an IP header behind the end of UDP",
            with(vxlan(), behind + 4, &[0, 49]),
            malformed,
        ),
        (
            "an IP header behind the end of IP",
            with(vxlan(), ROOM + 2, &[0, 69]),
            malformed,
        ),
        (
            "inner version 5",
            with(vxlan(), behind + 30, &[0x55]),
            malformed,
        ),
        (
            "inner IHL 4",
            with(vxlan(), behind + 30, &[0x44]),
            malformed,
        ),
        (
            "IPIP with IPv6 in it",
            over_ipv4(4, &[], &[IPV6_INSIDE]),
            malformed,
        ),
        ("GRE with routing", gre([0x40, 0]), malformed),
        ("PPTP", gre([0x30, 1]), not_tunnel),
        (
            "another port",
            with(vxlan(), behind + 2, &[0x12, 0xb6]),
            not_tunnel,
        ),
        (
            "from port 4789",
            with(vxlan(), behind, &[0x12, 0xb5, 0, 53]),
            not_tunnel,
        ),
        ("outer IHL 4", with(vxlan(), ROOM, &[0x44]), not_tunnel),
        ("outer version 6", with(vxlan(), ROOM, &[0x65]), not_tunnel),
        ("ARP", with(vxlan(), 12, &[0x08, 0x06]), not_tunnel),
    ];
    rig::run("what_is_not_to_be_counted_is_told_apart", setup(), |rig| {
        for (name, frame, kind) in cases {
            let mut expected = rig.tally();
            rig.pass(Side::Ingress, &frame);
            *kind(&mut expected.uncounted) += 1;
            assert_eq!(rig.tally(), expected, "{name}");
        }
        assert_eq!(rig.flows(), []);
    });
}

#[test]
fn multicast_is_counted_where_it_is_asked_for() {
    let setup = Setup {
        multicast: true,
        ..Setup::default()
    };
    rig::run("multicast_is_counted_where_it_is_asked_for", setup, |rig| {
        let mut frame = over_ipv4(17, &vxlan_10000(), &[ETHERNET_IPV4, IPV4_INSIDE]);
        frame[..6].copy_from_slice(&[1, 0, 0x5e, 0x01, 0x01, 0x01]);
        frame[ROOM + 16..ROOM + 20].copy_from_slice(&[239, 1, 1, 1]);
        rig.pass(Side::Egress, &frame);
        let outer = Outer::V4 {
            local: [192, 0, 2, 2].into(),
            remote: [239, 1, 1, 1].into(),
        };
        assert_eq!(rig.flows()[0].0.outer, outer);
    });
}

/// An atomic fragment is a whole packet (RFC 6946).
#[test]
fn an_atomic_fragment_is_none() {
    rig::run("an_atomic_fragment_is_none", setup(), |rig| {
        rig.pass(
            Side::Ingress,
            &over_ipv6(44, &[4, 0, 0, 0, 0, 0, 0, 7], &[IPV4_INSIDE]),
        );
        assert_eq!(rig.tally().totals.rx_pkts, 1);
    });
}

/// Interfaces without Ethernet: there is nothing in front of the IP header.
#[test]
fn packets_without_a_link_header_are_read() {
    rig::run("packets_without_a_link_header_are_read", setup(), |rig| {
        let mut packet =
            over_ipv4(17, &vxlan_10000(), &[ETHERNET_IPV4, IPV4_INSIDE])[14..].to_vec();
        // A test run takes the protocol from where an Ethernet header would have it.
        packet[12..16].copy_from_slice(&[8, 0, 0, 2]);
        rig.pass(Side::IngressRaw, &packet);
        rig.pass(Side::EgressRaw, &packet);
        let (near, far) = (Ipv4Addr::from([192, 0, 2, 1]), Ipv4Addr::from([8, 0, 0, 2]));
        let outers: Vec<Outer> = rig
            .flows()
            .into_iter()
            .map(|(flow, _)| flow.outer)
            .collect();
        let ingress = Outer::V4 {
            local: near,
            remote: far,
        };
        let egress = Outer::V4 {
            local: far,
            remote: near,
        };
        assert_eq!(outers, [ingress, egress]);
        assert_eq!(rig.tally().totals.rx_bytes, packet.len() as u64);
        packet[16..20].copy_from_slice(&[239, 1, 1, 1]);
        rig.pass(Side::IngressRaw, &packet);
        packet[16..20].copy_from_slice(&[255; 4]);
        rig.pass(Side::IngressRaw, &packet);
        assert_eq!(rig.tally().uncounted.multicast, 2);
    });
}

/// Bytes and packets on the wire of a packet of several segments.
fn wire(rig: &Rig<'_>, frame: &[u8], gso_segs: u32, gso_size: u32) -> (u64, u64) {
    let before = rig.tally().totals;
    rig.run(Skb {
        frame,
        side: Side::Ingress,
        gso_segs,
        gso_size,
    });
    let passed = rig.tally().totals - before;
    (passed.rx_pkts, passed.rx_bytes)
}

#[test]
fn segments_are_counted_with_all_their_headers() {
    /// A TCP header with 12 bytes of options.
    const TCP: [u8; 32] = [
        0, 80, 0, 81, 0, 0, 0, 1, 0, 0, 0, 1, 0x80, 0x10, 1, 0, 0, 0, 0, 0, 1, 1, 8, 10, 0, 0, 0,
        1, 0, 0, 0, 1,
    ];
    let inside4 = |protocol: u8, behind: &[u8]| {
        let mut header = IPV4_INSIDE.to_vec();
        header[2..4].copy_from_slice(&((20 + behind.len()) as u16).to_be_bytes());
        header[9] = protocol;
        [&header, behind].concat()
    };
    let frame = |inside: &[u8]| {
        let tunnel = [&vxlan_10000(), ETHERNET_IPV4, inside].concat();
        [ETHERNET_IPV4, &ipv4(17, tunnel.len()), &tunnel].concat()
    };
    sandbox::run("segments_are_counted_with_all_their_headers", |_| {
        rig::with(&setup(), |rig| {
            let payload = vec![0xaa; 2500];
            let tcp = frame(&inside4(6, &[&TCP[..], &payload].concat()));
            let headers = 14 + 20 + 8 + 8 + 14 + 20 + 32;
            let expected = (3, (3 * headers + 2500) as u64);
            assert_eq!(wire(rig, &tcp, 3, 1000), expected);
            // A guest's, whose segments nobody has counted.
            assert_eq!(wire(rig, &tcp, 0, 1000), expected);
            // Tags outside are not counted, those inside are payload of the tunnel.
            let tagged = [&tcp[..12], &[0x81, 0, 0, 5], &tcp[12..]].concat();
            assert_eq!(wire(rig, &tagged, 3, 1000), expected);
            let udp_inside = [&udp(443)[..], &payload].concat();
            let udp_frame = frame(&inside4(17, &udp_inside));
            let headers = headers - 32 + 8;
            assert_eq!(
                wire(rig, &udp_frame, 3, 1000),
                (3, (3 * headers + 2500) as u64)
            );
            // IPv6 inside, with a destination options header before TCP.
            let mut ip6 = IPV6_INSIDE.to_vec();
            ip6[4..6].copy_from_slice(&((8 + 32 + 2500) as u16).to_be_bytes());
            ip6[6] = 60;
            let options = [6, 0, 1, 4, 0, 0, 0, 0];
            let inside = [&ip6[..], &options, &TCP, &payload].concat();
            let tunnel = [&vxlan_10000(), ETHERNET_IPV6, &inside].concat();
            let frame6 = [ETHERNET_IPV4, &ipv4(17, tunnel.len()), &tunnel].concat();
            let headers = 14 + 20 + 8 + 8 + 14 + 40 + 8 + 32;
            assert_eq!(
                wire(rig, &frame6, 3, 1000),
                (3, (3 * headers + 2500) as u64)
            );
            // A sender in user space that has UDP cut (UDP_SEGMENT): each segment has its own inner packet.
            let one = [&vxlan_10000()[8..], ETHERNET_IPV4, &inside4(1, ECHO)].concat();
            let many = [&udp(4789)[..], &one.repeat(3)].concat();
            let cut = [ETHERNET_IPV4, &ipv4(17, many.len()), &many].concat();
            let bytes = (3 * (14 + 20 + 8) + 3 * one.len()) as u64;
            assert_eq!(wire(rig, &cut, 3, one.len() as u32), (3, bytes));
        });
    });
}

/// Headers are looked for in the first 1,024 bytes, and what begins there is read to its end.
#[test]
fn headers_are_read_up_to_a_limit() {
    rig::run("headers_are_read_up_to_a_limit", setup(), |rig| {
        // The inner Ethernet header begins at that offset, behind one destination options header and a UDP.
        for (begins, is_counted) in [(1006, true), (1014, false), (1022, false), (1030, false)] {
            let extension = begins - ROOM - 40 - 16;
            let mut options = vec![0; extension];
            (options[0], options[1]) = (17, (extension / 8 - 1) as u8);
            options.extend(vxlan_10000());
            let frame = over_ipv6(60, &options, &[ETHERNET_IPV6, IPV6_INSIDE]);
            let before = rig.tally();
            rig.pass(Side::Ingress, &frame);
            let mut after = before;
            match is_counted {
                true => {
                    after.totals.rx_pkts += 1;
                    after.totals.rx_bytes += frame.len() as u64;
                }
                false => after.uncounted.malformed += 1,
            }
            assert_eq!(rig.tally(), after, "inside begins at {begins}");
        }
        let inner = rig.flows().remove(0).0.inner;
        assert_eq!(inner, inner6());
    });
}
