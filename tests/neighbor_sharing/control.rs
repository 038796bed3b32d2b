//! What a network needs to work at all passes, however empty the buckets; look-alikes do not.

use netbpf::neighbor_sharing::{Class, Way};
use testbed::packet::{BROADCAST, Ipv4, Ipv6, Packet};

use crate::rig::{
    self, DROP, NEIGHBOR_1, PASS, Rig, Setup, Skb, UNKNOWN_UPLOAD, WAN, dropped, events, tag,
};

/// Who has 172.16.1.5? Tell 172.16.1.100.
#[rustfmt::skip]
const ARP: &[u8] = &[
    0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02, 0, 0, 0, 0, 100, 0x08, 0x06, // to all, from, ARP
    0, 1, 0x08, 0x00, 6, 4, 0, 1,                                         // Ethernet, IPv4, request
    0x02, 0, 0, 0, 0, 100, 172, 16, 1, 100,                               // sender
    0, 0, 0, 0, 0, 0, 172, 16, 1, 5,                                      // target
];

/// The same on VLAN 7.
#[rustfmt::skip]
const ARP_TAGGED: &[u8] = &[
    0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02, 0, 0, 0, 0, 100, 0x81, 0x00,
    0, 7, 0x08, 0x06,
    0, 1, 0x08, 0x00, 6, 4, 0, 1,
    0x02, 0, 0, 0, 0, 100, 172, 16, 1, 100,
    0, 0, 0, 0, 0, 0, 172, 16, 1, 5,
];

/// EAPOL-Start.
const EAPOL: &[u8] = &[
    0x01, 0x80, 0xc2, 0, 0, 3, 0x02, 0, 0, 0, 0, 100, 0x88, 0x8e, 1, 1, 0, 0,
];

/// A chassis id, a port id, a time to live of 120 s, the end.
#[rustfmt::skip]
const LLDP: &[u8] = &[
    0x01, 0x80, 0xc2, 0, 0, 0x0e, 0x02, 0, 0, 0, 0, 100, 0x88, 0xcc,
    0x02, 7, 4, 0x02, 0, 0, 0, 0, 100, 0x04, 3, 7, b'p', b'1', 0x06, 2, 0, 120, 0, 0,
];

/// A topology change: 802.3 with a length, LLC of bridges (0x42), a BPDU.
const STP: &[u8] = &[
    0x01, 0x80, 0xc2, 0, 0, 0, 0x02, 0, 0, 0, 0, 100, 0, 7, 0x42, 0x42, 0x03, 0, 0, 0, 0x80,
];

/// From fe80::100 to 2001:db8::5, by ICMPv6.
fn icmpv6(hop_limit: u8, kind: u8) -> Packet {
    ipv6(FROM_THIS_LINK, hop_limit)
        .icmpv6(kind, 0, [0; 4])
        .payload_of(16)
}

/// The same with the hop-by-hop header that MLD bears: router alert (RFC 2711).
fn icmpv6_with_alert(source: [u16; 8], hop_limit: u8, kind: u8) -> Packet {
    let packet = ipv6(source, hop_limit).hop_by_hop(&[5, 2, 0, 0, 1, 0]);
    packet.icmpv6(kind, 0, [0; 4]).payload_of(16)
}

const IGMP: u8 = 2;

/// From 172.16.1.100, a report of eight bytes behind this header, the router alert (RFC 2113) in it.
fn igmp(destination: [u8; 4], ttl: u8, protocol: u8) -> Packet {
    let mut header = Ipv4::between([172, 16, 1, 100], destination);
    header.ttl = ttl;
    header.protocol = Some(protocol);
    header.options = vec![0x94, 4, 0, 0];
    ethernet()
        .ipv4_with(header)
        .payload(&[0x16, 0, 0, 0, 239, 1, 2, 3])
}

/// All hosts, routers with IGMPv3, and groups.
const GROUPS: [[u8; 4]; 4] = [
    [224, 0, 0, 1],
    [224, 0, 0, 22],
    [239, 1, 2, 3],
    [239, 255, 255, 255],
];

/// fe80::100.
const FROM_THIS_LINK: [u16; 8] = [0xfe80, 0, 0, 0, 0, 0, 0, 0x100];

fn ipv6(source: [u16; 8], hop_limit: u8) -> Packet {
    let mut header = Ipv6::between(source, [0x2001, 0xdb8, 0, 0, 0, 0, 0, 5]);
    header.hop_limit = hop_limit;
    ethernet().ipv6_with(header)
}

fn ethernet() -> Packet {
    Packet::ethernet([2, 0, 0, 0, 0, 100], BROADCAST)
}

fn setup() -> Setup {
    Setup {
        only_across_wan: true,
        ..Setup::default()
    }
}

/// Through every program that polices, while nothing that is policed passes.
fn verdicts(rig: &Rig<'_>, frame: &[u8]) -> [i32; 4] {
    let skb = Skb {
        frame,
        ifindex: NEIGHBOR_1,
        ingress: WAN,
        ..Skb::default()
    };
    [
        rig.download(frame),
        rig.upload(frame, NEIGHBOR_1, tag(Class::Neighbor, UNKNOWN_UPLOAD)),
        rig.run("deliver_neighbor", skb).verdict,
        rig.run("deliver_lan", skb).verdict,
    ]
}

#[track_caller]
fn assert_control(rig: &Rig<'_>, what: &str, frame: &[u8]) {
    assert_eq!(verdicts(rig, frame), [PASS; 4], "{what}");
    rig.assert_meters(&[]);
    rig.assert_slots(&[]);
    rig.assert_events(events {
        control: 4,
        ..events::default()
    });
}

#[track_caller]
fn assert_policed(rig: &Rig<'_>, what: &str, frame: &[u8]) {
    assert_eq!(verdicts(rig, frame), [DROP; 4], "{what}");
    let bytes = frame.len() as u64;
    rig.assert_meters(&[
        (Class::Rest, Way::Download, dropped(2, 2 * bytes)),
        (Class::Neighbor, Way::Download, dropped(1, bytes)),
        (Class::Neighbor, Way::Upload, dropped(1, bytes)),
    ]);
    rig.assert_events(events::default());
    rig.forget_counts();
}

#[test]
fn control_traffic_passes_whatever_the_buckets_hold() {
    const NAME: &str = "control_traffic_passes_whatever_the_buckets_hold";
    rig::run(NAME, setup(), |rig| {
        rig.empty_all_buckets();
        assert_control(rig, "ARP", ARP);
        assert_control(rig, "ARP, tagged", ARP_TAGGED);
        assert_control(rig, "EAPOL", EAPOL);
        assert_control(rig, "LLDP", LLDP);
        assert_control(rig, "STP", STP);
        for kind in 133..=137 {
            let what = format!("neighbour discovery {kind}");
            assert_control(rig, &what, &icmpv6(255, kind).build());
            let tagged = [&icmpv6(255, kind).build()[..12], &[0x81, 0, 0, 7]].concat();
            let tagged = [&tagged, &icmpv6(255, kind).build()[12..]].concat();
            assert_control(rig, &what, &tagged);
        }
        for kind in [130, 131, 132, 143] {
            let what = format!("MLD {kind}");
            assert_control(
                rig,
                &what,
                &icmpv6_with_alert(FROM_THIS_LINK, 1, kind).build(),
            );
            assert_control(rig, &what, &icmpv6(1, kind).build());
            // Before a host has an address (RFC 3590).
            assert_control(rig, &what, &icmpv6_with_alert([0; 8], 1, kind).build());
        }
        for group in GROUPS {
            let what = format!("IGMP to {group:?}");
            assert_control(rig, &what, &igmp(group, 1, IGMP).build());
        }
        let tagged = ethernet().vlan(7).ipv4_with(Ipv4 {
            ttl: 1,
            protocol: Some(IGMP),
            ..Ipv4::between([0; 4], GROUPS[0])
        });
        assert_control(rig, "a query without a source", &tagged.build());
    });
}

#[test]
fn look_alikes_of_control_traffic_are_policed() {
    rig::run(
        "look_alikes_of_control_traffic_are_policed",
        setup(),
        |rig| {
            rig.empty_all_buckets();
            for kind in 0..=255_u8 {
                // Having crossed a router, or said to have many hops left.
                for hop_limit in [0, 2, 64, 254] {
                    let what = format!("ICMPv6 {kind}, hop limit {hop_limit}");
                    assert_policed(rig, &what, &icmpv6(hop_limit, kind).build());
                }
                let discovery = (133..=137).contains(&kind);
                let listening = [130, 131, 132, 143].contains(&kind);
                if !discovery {
                    let what = format!("ICMPv6 {kind}, hop limit 255");
                    assert_policed(rig, &what, &icmpv6(255, kind).build());
                    assert_policed(
                        rig,
                        &what,
                        &icmpv6_with_alert(FROM_THIS_LINK, 255, kind).build(),
                    );
                }
                if !listening {
                    let what = format!("ICMPv6 {kind}, hop limit 1");
                    assert_policed(rig, &what, &icmpv6(1, kind).build());
                    assert_policed(
                        rig,
                        &what,
                        &icmpv6_with_alert(FROM_THIS_LINK, 1, kind).build(),
                    );
                }
            }
            // The first byte of what is no ICMPv6 may be 135 as well.
            let ports = (135 << 8, 135 << 8);
            let udp = ipv6(FROM_THIS_LINK, 255).udp(ports.0, ports.1).build();
            assert_policed(rig, "UDP", &udp);
            assert_policed(
                rig,
                "TCP",
                &ipv6(FROM_THIS_LINK, 255).tcp(ports.0, ports.1).build(),
            );
            let behind_options = ipv6(FROM_THIS_LINK, 255)
                .hop_by_hop(&[])
                .udp(ports.0, ports.1)
                .build();
            assert_policed(rig, "UDP behind options", &behind_options);
            let later = ipv6(FROM_THIS_LINK, 255)
                .hop_by_hop(&[])
                .fragment(2, false, 7);
            let later = later.icmpv6(135, 0, [0; 4]).payload_of(16).build();
            assert_policed(rig, "a later fragment", &later);
            // Cut before the type: nothing says that it is control traffic.
            let cut = &icmpv6(255, 135).build()[..14 + 40];
            assert_policed(rig, "no ICMPv6 header", cut);
            let four = ethernet().ipv4([172, 16, 1, 100], [172, 16, 1, 5]);
            let mut four = four.icmp(135, 0, [0; 4]).payload_of(16).build();
            assert_policed(rig, "ICMP in IPv4", &four);
            four[14 + 9] = 58;
            four[14 + 8] = 255;
            assert_policed(rig, "ICMPv6 in IPv4", &four);
            for ttl in [0, 2, 64, 255] {
                let what = format!("IGMP, TTL {ttl}");
                assert_policed(rig, &what, &igmp(GROUPS[0], ttl, IGMP).build());
            }
            for protocol in [0, 1, 3, 6, 17, 58, 103] {
                let what = format!("protocol {protocol} to a group, TTL 1");
                assert_policed(rig, &what, &igmp(GROUPS[0], 1, protocol).build());
            }
            // A neighbor's tunnel to somebody, if it were: no group.
            for to in [
                [172, 16, 1, 5],
                [223, 255, 255, 255],
                [240, 0, 0, 0],
                [255; 4],
            ] {
                let what = format!("IGMP to {to:?}");
                assert_policed(rig, &what, &igmp(to, 1, IGMP).build());
            }
            for beside in [0x0805_u16, 0x0807, 0x888d, 0x888f, 0x88cb, 0x88cd] {
                let mut frame = ARP.to_vec();
                frame[12..14].copy_from_slice(&beside.to_be_bytes());
                assert_policed(rig, &format!("EtherType {beside:#x}"), &frame);
            }
            // Novell, SNAP, NetBIOS, and halves of STP.
            for (dsap, ssap) in [
                (0xe0, 0xe0),
                (0xaa, 0xaa),
                (0xf0, 0xf0),
                (0x42, 0xaa),
                (0xaa, 0x42),
            ] {
                let mut frame = STP.to_vec();
                (frame[14], frame[15]) = (dsap, ssap);
                assert_policed(rig, &format!("802.3 with LLC {dsap:x} {ssap:x}"), &frame);
            }
            assert_policed(rig, "802.3 without LLC", &STP[..14]);
            assert_policed(rig, "802.3 with half an LLC", &STP[..15]);
        },
    );
}

/// What no bridge forwards has to be sent to bridges; what a router forwards with one hop left is no
/// MLD; and control traffic is small.
#[test]
fn control_traffic_stays_on_its_link_and_is_small() {
    const NAME: &str = "control_traffic_stays_on_its_link_and_is_small";
    rig::run(NAME, setup(), |rig| {
        rig.empty_all_buckets();
        for (what, frame) in [("EAPOL", EAPOL), ("LLDP", LLDP), ("STP", STP)] {
            for last in 0..0x10 {
                let mut frame = frame.to_vec();
                frame[5] = last;
                assert_control(rig, &format!("{what} to bridges, {last}"), &frame);
            }
            // One byte beside 01:80:c2:00:00:0X, wherever it is.
            for (at, byte) in [
                (0, 0x00),
                (0, 0x03),
                (1, 0x81),
                (2, 0xc3),
                (3, 1),
                (4, 1),
                (5, 0x10),
            ] {
                let mut frame = frame.to_vec();
                frame[at] = byte;
                assert_policed(rig, &format!("{what} to {:x?}", &frame[..6]), &frame);
            }
        }
        for kind in [130, 131, 132, 143] {
            let beside = [
                [0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x100],
                [0xfe40, 0, 0, 0, 0, 0, 0, 0x100],
                [0xfec0, 0, 0, 0, 0, 0, 0, 0x100],
                [0, 0, 0, 0, 0, 0, 0, 1],
            ];
            for source in beside {
                let what = format!("MLD {kind} from {source:x?}");
                assert_policed(rig, &what, &icmpv6_with_alert(source, 1, kind).build());
            }
        }
        let arp = |length: usize| {
            let mut frame = ARP.to_vec();
            frame.resize(length, 0);
            frame
        };
        assert_control(rig, "ARP of 512 bytes", &arp(512));
        assert_policed(rig, "ARP of 513 bytes", &arp(513));
        let report = |length: usize| {
            let packet = igmp(GROUPS[1], 1, IGMP);
            packet.payload_of(length - 14 - 24 - 8).build()
        };
        assert_control(rig, "an IGMP report of 512 bytes", &report(512));
        assert_policed(rig, "an IGMP report of 513 bytes", &report(513));
        let advert = |length: usize| {
            let packet = ipv6(FROM_THIS_LINK, 255).icmpv6(134, 0, [0; 4]);
            packet.payload_of(length - 14 - 40 - 8).build()
        };
        assert_control(rig, "a router's advertisement of 512 bytes", &advert(512));
        assert_policed(rig, "a router's advertisement of 513 bytes", &advert(513));
    });
}

/// At the ports' ingress nothing is policed. Bridges' own frames make nobody known.
#[test]
fn bridges_frames_make_nobody_known() {
    rig::run("bridges_frames_make_nobody_known", setup(), |rig| {
        for frame in [EAPOL, LLDP, STP] {
            let outcome = rig.enter(NEIGHBOR_1, frame);
            assert_eq!(outcome.tag, tag(Class::Neighbor, UNKNOWN_UPLOAD));
        }
        assert!(rig.owners().is_empty());
        rig.assert_events(events::default());
    });
}
