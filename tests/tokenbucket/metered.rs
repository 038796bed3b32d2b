//! What is metered, and what passes without: control traffic, what is not IP, what is cut off or says
//! wrong things of itself, exempt networks.

use std::net::{IpAddr, Ipv4Addr};

use testbed::packet::{BROADCAST, Ipv4, Ipv6, Packet, truncations};
use testbed::{sandbox, step};

use crate::frames::{A, B, between, from, ip};
use crate::keys::assert_share;
use crate::rig::{self, DROP, PASS, Rig, Setup, Skb, events, flow, meter};

/// One tag or two, of either kind, change nothing. A third ends the parse: what is behind it is not IP.
#[test]
fn tags_up_to_two_are_looked_through() {
    rig::run(
        "tags_up_to_two_are_looked_through",
        Setup::default(),
        |rig| {
            let (q, ad) = (0x8100_u16, 0x88a8);
            for source in ["10.0.0.1", "2001:db8::1"] {
                let untagged = from(ip(source));
                for tags in [
                    &[][..],
                    &[q],
                    &[ad],
                    &[q, q],
                    &[ad, q],
                    &[q, ad],
                    &[ad, ad],
                    &[ad, q, q],
                    &[q; 4],
                ] {
                    let inline: Vec<u8> = tags
                        .iter()
                        .flat_map(|tag| [tag.to_be_bytes(), [0, 7]].concat())
                        .collect();
                    let frame = [&untagged[..12], &inline, &untagged[12..]].concat();
                    assert_eq!(rig.verdict(&frame), PASS);
                    if tags.len() > 2 {
                        assert_unmetered(
                            rig,
                            &format!("{tags:x?}"),
                            events {
                                not_ip: 1,
                                ..events::default()
                            },
                        );
                        continue;
                    }
                    assert_eq!(
                        rig.flows().into_keys().collect::<Vec<_>>(),
                        [flow(ip(source))]
                    );
                    // A tag is no part of the frame's bytes.
                    rig.assert_events(passed(1, untagged.len() as u64));
                    rig.remove(&flow(ip(source)));
                }
            }
        },
    );
}

/// New flows that have sent a packet each.
fn passed(packets: u64, bytes: u64) -> events {
    events {
        passed: meter { packets, bytes },
        flows: packets,
        ..events::default()
    }
}

/// Nothing else was counted than this, and no flow is known.
#[track_caller]
pub fn assert_unmetered(rig: &Rig<'_>, what: &str, expected: events) {
    assert!(rig.flows().is_empty(), "{what} makes a flow");
    rig.assert_events(expected);
}

/// These sources have used up what they may send.
fn exhaust(rig: &Rig<'_>) {
    for source in ["fe80::100", "::", "10.0.0.1"] {
        while rig.passes(&from(ip(source))) {}
    }
    rig.take_events();
}

/// Passes however little its source may send, and is counted as no part of what it sends.
#[track_caller]
fn assert_control(rig: &Rig<'_>, what: &str, frame: &[u8]) {
    let flows = rig.flows();
    let skb = Skb {
        frame,
        ..Skb::default()
    };
    assert_eq!(rig.run(skb), PASS, "{what}");
    assert_eq!(rig.flows(), flows, "{what}");
    rig.assert_events(events {
        not_ip: 1,
        ..events::default()
    });
}

/// Is metered: its source has used everything up.
#[track_caller]
fn assert_metered(rig: &Rig<'_>, what: &str, frame: &[u8]) {
    let skb = Skb {
        frame,
        ..Skb::default()
    };
    assert_eq!(rig.run(skb), DROP, "{what}");
    let bytes = frame.len() as u64;
    rig.assert_events(events {
        dropped: meter { packets: 1, bytes },
        ..events::default()
    });
}

/// From fe80::100, with 16 bytes behind the ICMPv6 header.
fn icmpv6(hop_limit: u8, kind: u8) -> Packet {
    ipv6("fe80::100", hop_limit)
        .icmpv6(kind, 0, [0; 4])
        .payload_of(16)
}

/// With the hop-by-hop header that MLD bears: router alert (RFC 2711).
fn icmpv6_with_alert(source: &str, hop_limit: u8, kind: u8) -> Packet {
    let packet = ipv6(source, hop_limit).hop_by_hop(&[5, 2, 0, 0, 1, 0]);
    packet.icmpv6(kind, 0, [0; 4]).payload_of(16)
}

fn ipv6(source: &str, hop_limit: u8) -> Packet {
    let IpAddr::V6(source) = ip(source) else {
        panic!("{source} is not IPv6");
    };
    let mut header = Ipv6::between(source, [0xff02, 0, 0, 0, 0, 0, 0, 1]);
    header.hop_limit = hop_limit;
    Packet::ethernet(A, BROADCAST).ipv6_with(header)
}

/// From 10.0.0.1, of this protocol: 2 is IGMP.
fn of_protocol(protocol: u8, destination: [u8; 4], ttl: u8) -> Packet {
    let mut header = Ipv4::between([10, 0, 0, 1], destination);
    header.ttl = ttl;
    header.protocol = Some(protocol);
    Packet::ethernet(A, BROADCAST)
        .ipv4_with(header)
        .payload(&[0x16, 0, 0, 0, 239, 1, 2, 3])
}

/// To bridges (01:80:c2:00:00:0X), with this EtherType or length.
fn to_bridges(last: u8, ether_type: u16, body: &[u8]) -> Vec<u8> {
    let to = [0x01, 0x80, 0xc2, 0, 0, last];
    [&to[..], &A, &ether_type.to_be_bytes(), body].concat()
}

#[test]
fn control_traffic_is_not_metered() {
    rig::run("control_traffic_is_not_metered", Setup::default(), |rig| {
        exhaust(rig);
        let (sender, target) = (Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 0, 0, 2));
        let arp = Packet::ethernet(A, BROADCAST);
        assert_control(
            rig,
            "ARP",
            &arp.clone().arp_request((A, sender), target).build(),
        );
        assert_control(
            rig,
            "ARP, tagged",
            &arp.vlan(7).arp_request((A, sender), target).build(),
        );
        // EAPOL-Start; chassis, port, time to live, end; 802.3 with LLC and a topology change.
        assert_control(rig, "EAPOL", &to_bridges(3, 0x888e, &[1, 1, 0, 0]));
        let chassis = [
            0x02, 7, 4, 2, 0, 0, 0, 0, 1, 0x04, 3, 7, b'p', b'1', 0x06, 2, 0, 120, 0, 0,
        ];
        assert_control(rig, "LLDP", &to_bridges(14, 0x88cc, &chassis));
        assert_control(
            rig,
            "STP",
            &to_bridges(0, 7, &[0x42, 0x42, 0x03, 0, 0, 0, 0x80]),
        );
        for kind in 133..=137 {
            let what = format!("neighbour discovery {kind}");
            let frame = icmpv6(255, kind).build();
            assert_control(rig, &what, &frame);
            let tagged = [&frame[..12], &[0x81, 0, 0, 7], &frame[12..]].concat();
            assert_control(rig, &what, &tagged);
        }
        for kind in [130, 131, 132, 143] {
            let what = format!("MLD {kind}");
            assert_control(rig, &what, &icmpv6_with_alert("fe80::100", 1, kind).build());
            assert_control(rig, &what, &icmpv6(1, kind).build());
            // Before a host has an address (RFC 3590).
            assert_control(rig, &what, &icmpv6_with_alert("::", 1, kind).build());
        }
        for group in [[224, 0, 0, 1], [239, 255, 255, 255]] {
            assert_control(rig, "IGMP", &of_protocol(2, group, 1).build());
        }
    });
}

#[test]
fn look_alikes_of_control_traffic_are_metered() {
    const NAME: &str = "look_alikes_of_control_traffic_are_metered";
    rig::run(NAME, Setup::default(), |rig| {
        exhaust(rig);
        for kind in 0..=255_u8 {
            // Having crossed a router, or said to have many hops left.
            for hop_limit in [0, 2, 64, 254] {
                let what = format!("ICMPv6 {kind}, hop limit {hop_limit}");
                assert_metered(rig, &what, &icmpv6(hop_limit, kind).build());
            }
            let discovery = (133..=137).contains(&kind);
            let listening = [130, 131, 132, 143].contains(&kind);
            for (is_control, hop_limit) in [(discovery, 255), (listening, 1)] {
                if !is_control {
                    let what = format!("ICMPv6 {kind}, hop limit {hop_limit}");
                    assert_metered(rig, &what, &icmpv6(hop_limit, kind).build());
                    let alert = icmpv6_with_alert("fe80::100", hop_limit, kind);
                    assert_metered(rig, &what, &alert.build());
                }
            }
        }
        // The first byte of what is no ICMPv6 may be 135 as well.
        let port = 135 << 8;
        let udp = ipv6("fe80::100", 255).udp(port, port).payload_of(2);
        assert_metered(rig, "UDP", &udp.build());
        assert_metered(rig, "TCP", &ipv6("fe80::100", 255).tcp(port, port).build());
        let later = ipv6("fe80::100", 255).fragment(2, false, 7);
        let later = later.icmpv6(135, 0, [0; 4]).payload_of(16);
        assert_metered(rig, "a later fragment", &later.build());
        let large = ipv6("fe80::100", 255)
            .icmpv6(135, 0, [0; 4])
            .payload_of(512);
        assert_metered(rig, "a large solicitation", &large.build());
        let mut four = Ipv4::between([10, 0, 0, 1], [10, 0, 0, 2]);
        four.ttl = 255;
        let four = Packet::ethernet(A, B).ipv4_with(four);
        let icmp = four.clone().icmp(135, 0, [0; 4]).payload_of(22);
        assert_metered(rig, "ICMP in IPv4", &icmp.build());
        assert_metered(
            rig,
            "ICMPv6 in IPv4",
            &four.icmpv6(135, 0, [0; 4]).payload_of(22).build(),
        );
        for (protocol, to, ttl) in [
            (2, [10, 0, 0, 2], 1),
            (2, [240, 0, 0, 1], 1),
            (2, [224, 0, 0, 1], 2),
            (3, [224, 0, 0, 1], 1),
        ] {
            let what = format!("protocol {protocol} to {to:?}, TTL {ttl}");
            assert_metered(rig, &what, &of_protocol(protocol, to, ttl).build());
        }
        let large = of_protocol(2, [224, 0, 0, 1], 1).payload_of(512);
        assert_metered(rig, "a large report", &large.build());
        // From what a router forwards it is no MLD.
        while rig.passes(&from(ip("2001:db8::100"))) {}
        rig.take_events();
        for kind in [130, 131, 132, 143] {
            let what = format!("MLD {kind} from afar");
            assert_metered(
                rig,
                &what,
                &icmpv6_with_alert("2001:db8::100", 1, kind).build(),
            );
        }
    });
}

#[test]
fn what_is_not_ip_passes() {
    rig::run("what_is_not_ip_passes", Setup::default(), |rig| {
        // PPPoE, MPLS, IEEE 802 experiments, EAPOL, LLDP, ARP, and IPX in 802.3 with LLC, each around
        // IPv4 and as long as a frame may be.
        for ether_type in [0x8864_u16, 0x8847, 0x88b5, 0x888e, 0x88cc, 0x0806, 46] {
            for length in [64, 1514] {
                let mut frame = from([10, 0, 0, 1]);
                frame.resize(length, 0);
                frame[12..14].copy_from_slice(&ether_type.to_be_bytes());
                for _ in 0..20 {
                    assert_eq!(rig.verdict(&frame), PASS, "{ether_type:#06x}");
                }
                let what = format!("EtherType {ether_type:#06x}");
                assert_unmetered(
                    rig,
                    &what,
                    events {
                        not_ip: 20,
                        ..events::default()
                    },
                );
            }
        }
        // Without a link header the kernel says what it is: here by the bytes 12 and 13, MPLS.
        let mut raw = from([10, 0, 0, 1])[14..].to_vec();
        raw[12..14].copy_from_slice(&[0x88, 0x47]);
        let skb = Skb {
            frame: &raw,
            is_raw: true,
            ..Skb::default()
        };
        assert_eq!(rig.run(skb), PASS);
        assert_unmetered(
            rig,
            "MPLS",
            events {
                not_ip: 1,
                ..events::default()
            },
        );
    });
}

#[test]
fn every_version_and_every_header_length() {
    const NAME: &str = "every_version_and_every_header_length";
    rig::run(NAME, Setup::default(), |rig| {
        for first in 0..=255_u8 {
            let (version, words) = (first >> 4, first & 0xf);
            for (source, is_ip) in [
                ("10.0.0.1", version == 4 && words >= 5),
                ("2001:db8::1", version == 6),
            ] {
                let mut frame = from(ip(source));
                frame[14] = first;
                assert_eq!(rig.verdict(&frame), PASS);
                if is_ip {
                    assert_eq!(
                        rig.flows().into_keys().collect::<Vec<_>>(),
                        [flow(ip(source))]
                    );
                    rig.assert_events(passed(1, frame.len() as u64));
                    rig.remove(&flow(ip(source)));
                } else {
                    let malformed = events {
                        malformed: 1,
                        ..events::default()
                    };
                    assert_unmetered(rig, &format!("first byte {first:#x}"), malformed);
                }
            }
        }
    });
}

/// Cut after each byte: metered as soon as the addresses are there.
#[test]
fn every_truncation() {
    rig::run("every_truncation", Setup::default(), |rig| {
        let options = Ipv4 {
            options: vec![148, 4, 0, 0],
            ..Ipv4::between([10, 0, 0, 1], [192, 0, 2, 1])
        };
        let four = Packet::ethernet(A, B)
            .ipv4_with(options.clone())
            .udp(1, 2)
            .build();
        let tagged = Packet::ethernet(A, B)
            .vlan(7)
            .ipv4_with(options)
            .udp(1, 2)
            .build();
        let six = between("2001:db8::1", "2001:db8::2").udp(1, 2).build();
        let double = Packet::ethernet(A, B).service_vlan(9).vlan(7);
        let double = double
            .ipv6(
                [0x2001, 0xdb8, 0, 0, 0, 0, 0, 1],
                [0x2001, 0xdb8, 0, 0, 0, 0, 0, 2],
            )
            .udp(1, 2)
            .build();
        // Without a link header the kernel says what it is: here by the bytes 12 and 13, which are of
        // the source.
        let raw4 = Packet::without_link()
            .ipv4([8, 0, 0, 1], [192, 0, 2, 1])
            .udp(1, 2)
            .build();
        let raw6 = Packet::without_link()
            .ipv6(
                [0x2001, 0xdb8, 0x86dd, 0, 0, 0, 0, 1],
                [0x2001, 0xdb8, 0, 0, 0, 0, 0, 2],
            )
            .udp(1, 2)
            .build();
        for (frame, link, tags, header, source) in [
            (four, 14, 0, 20, "10.0.0.1"),
            (tagged, 18, 4, 20, "10.0.0.1"),
            (six, 14, 0, 40, "2001:db8::1"),
            (double, 22, 8, 40, "2001:db8::1"),
            (raw4, 0, 0, 20, "8.0.0.1"),
            (raw6, 0, 0, 40, "2001:db8:86dd::1"),
        ] {
            for cut in truncations(&frame, 14).chain([&frame[..]]) {
                let skb = Skb {
                    frame: cut,
                    is_raw: link == 0,
                    ..Skb::default()
                };
                assert_eq!(rig.run(skb), PASS);
                if cut.len() < link + header {
                    let malformed = events {
                        malformed: 1,
                        ..events::default()
                    };
                    let what = format!("{} bytes of {source}", cut.len());
                    assert_unmetered(rig, &what, malformed);
                } else {
                    assert_eq!(
                        rig.flows().into_keys().collect::<Vec<_>>(),
                        [flow(ip(source))]
                    );
                    rig.assert_events(passed(1, (cut.len() - tags) as u64));
                    rig.remove(&flow(ip(source)));
                }
            }
        }
    });
}

/// The twin for interfaces without an Ethernet header meters as the other does.
#[test]
fn interfaces_without_a_link_header() {
    rig::run(
        "interfaces_without_a_link_header",
        Setup::default(),
        |rig| {
            // Bytes 12 and 13 tell the kernel what it is.
            let four = Packet::without_link()
                .ipv4([8, 0, 0, 1], [192, 0, 2, 1])
                .udp(1, 2);
            let six = Packet::without_link()
                .ipv6(
                    [0x2001, 0xdb8, 0x86dd, 0, 0, 0, 0, 1],
                    [0x2001, 0xdb8, 0, 0, 0, 0, 0, 2],
                )
                .udp(1, 2);
            for (packet, source) in [(four, "8.0.0.1"), (six, "2001:db8:86dd::1")] {
                let frame = packet.payload_of(40).build();
                let skb = Skb {
                    frame: &frame,
                    is_raw: true,
                    ..Skb::default()
                };
                let verdicts: Vec<i32> = (0..8).map(|_| rig.run(skb)).collect();
                assert_eq!(verdicts, [PASS, PASS, PASS, PASS, PASS, PASS, DROP, DROP]);
                // The same source by way of Ethernet is the same source.
                assert_eq!(rig.verdict(&from(ip(source))), DROP);
                let bytes = frame.len() as u64;
                rig.assert_events(events {
                    passed: meter {
                        packets: 6,
                        bytes: 6 * bytes,
                    },
                    dropped: meter {
                        packets: 3,
                        bytes: 2 * bytes + from(ip(source)).len() as u64,
                    },
                    flows: 1,
                    ..events::default()
                });
            }
        },
    );
}

/// From or to these, of either family: --exempt.
#[test]
fn exempt_networks_are_not_metered() {
    let nets = ["10.1.0.0/16", "192.0.2.7", "2001:db8:1::/48", "2001:db8::7"];
    let setup = Setup {
        exempt: nets
            .map(|net| net.parse().unwrap_or_else(|error| panic!("{error}")))
            .to_vec(),
        ..Setup::default()
    };
    rig::run("exempt_networks_are_not_metered", setup, |rig| {
        for (source, destination) in [
            ("10.1.0.0", "192.0.2.1"),
            ("10.1.255.255", "192.0.2.1"),
            ("10.0.0.1", "10.1.2.3"),
            ("10.0.0.1", "192.0.2.7"),
            ("192.0.2.7", "10.0.0.1"),
            ("2001:db8:1:2::3", "2001:db8::1"),
            ("2001:db8::1", "2001:db8:1::"),
            ("2001:db8::1", "2001:db8::7"),
        ] {
            let frame = between(source, destination)
                .udp(1, 2)
                .payload_of(40)
                .build();
            for _ in 0..20 {
                assert_eq!(rig.verdict(&frame), PASS, "{source} to {destination}");
            }
            let exempt = events {
                exempt: 20,
                ..events::default()
            };
            assert_unmetered(rig, source, exempt);
        }
        for (source, destination) in [
            ("10.0.255.255", "192.0.2.6"),
            ("10.2.0.0", "192.0.2.8"),
            ("2001:db8:2::1", "2001:db8::6"),
            ("2001:db8:0:ffff::", "2001:db8::8"),
        ] {
            assert_share(rig, &between(source, destination).udp(1, 2), &[]);
        }
    });
}

/// Everything of one version is nothing of the other.
#[test]
fn an_exempt_version_is_not_the_other() {
    sandbox::run("an_exempt_version_is_not_the_other", |_| {
        let four = &between("10.0.0.1", "192.0.2.1").udp(1, 2);
        let six = &between("2001:db8::1", "2001:db8::2").udp(1, 2);
        for (net, exempt, metered) in [("::/0", six, four), ("0.0.0.0/0", four, six)] {
            let setup = Setup {
                exempt: vec![step(net, net.parse())],
                ..Setup::default()
            };
            rig::with(setup, |rig| {
                for _ in 0..20 {
                    assert!(rig.passes(&exempt.build()), "{net}");
                }
                rig.assert_events(events {
                    exempt: 20,
                    ..events::default()
                });
                assert_share(rig, metered, &[]);
            });
        }
    });
}
