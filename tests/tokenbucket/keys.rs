//! Whose packet it is: what counts as one source, one destination, one connection.

use testbed::packet::{Ipv4, Ipv6, Packet, Tcp, truncations};

use crate::frames::{A, B, between, ip};
use crate::metered::assert_unmetered;
use crate::rig::{self, DROP, Key, PASS, Rig, Setup, Skb, events, flow, wide_flow};

pub fn by(key: Key) -> Setup {
    Setup {
        key: Some(key),
        ..Setup::default()
    }
}

/// Packets of `others` find that `first` has used the bucket up, or not.
#[track_caller]
pub fn assert_share(rig: &Rig<'_>, first: &Packet, others: &[(Packet, bool)]) {
    let frame = first.clone().payload_of(40).build();
    let passed = (0..8).filter(|_| rig.passes(&frame)).count();
    assert_eq!(passed, 6, "{first:?}");
    for (other, shared) in others {
        let frame = other.clone().payload_of(40).build();
        assert_eq!(rig.passes(&frame), !shared, "{other:?} beside {first:?}");
    }
}

#[test]
fn sources_are_ipv4_addresses_and_ipv6_networks() {
    const NAME: &str = "sources_are_ipv4_addresses_and_ipv6_networks";
    let by_default = Setup::default();
    for setup in [by_default, by(Key::SOURCE)] {
        rig::run(NAME, setup, |rig| {
            assert_share(
                rig,
                &between("10.0.0.1", "192.0.2.1"),
                &[
                    (between("10.0.0.1", "192.0.2.2"), true),
                    (between("10.0.0.1", "192.0.2.1").tcp(1, 2), true),
                    (between("10.0.0.0", "192.0.2.1"), false),
                    (between("11.0.0.1", "192.0.2.1"), false),
                    (between("192.0.2.1", "10.0.0.1"), false),
                ],
            );
            assert_share(
                rig,
                &between("2001:db8:0:1::1", "2001:db8::1"),
                &[
                    (between("2001:db8:0:1::1", "2001:db8::2").udp(1, 2), true),
                    (
                        between("2001:db8:0:1:ffff:ffff:ffff:ffff", "2001:db8::1"),
                        true,
                    ),
                    (between("2001:db8::1", "2001:db8::1"), false),
                    (between("2001:db8:0:2::1", "2001:db8::1"), false),
                    (between("2001:db9:0:1::1", "2001:db8::1"), false),
                ],
            );
            // The same bits of the other family are another's.
            assert_share(
                rig,
                &between("10.9.0.1", "192.0.2.1"),
                &[(between("0a09:1::", "2001:db8::1"), false)],
            );
        });
    }
}

#[test]
fn prefixes_make_one_source_of_a_network() {
    const NAME: &str = "prefixes_make_one_source_of_a_network";
    let key = Key {
        prefix4: 20,
        prefix6: 36,
        ..Key::SOURCE
    };
    rig::run(NAME, by(key), |rig| {
        assert_share(
            rig,
            &between("10.0.16.1", "192.0.2.1"),
            &[
                (between("10.0.31.255", "192.0.2.1"), true),
                (between("10.0.15.255", "192.0.2.1"), false),
                (between("10.0.32.0", "192.0.2.1"), false),
            ],
        );
        assert_share(
            rig,
            &between("2001:db8:1000::1", "2001:db8::1"),
            &[
                (between("2001:db8:1fff:ffff:ffff::", "2001:db8::1"), true),
                (between("2001:db8:2000::1", "2001:db8::1"), false),
                (between("2001:db8:fff::1", "2001:db8::1"), false),
            ],
        );
        let flows: Vec<Vec<u8>> = rig.flows().into_keys().collect();
        for network in ["10.0.16.0", "10.0.0.0", "10.0.32.0"] {
            assert!(flows.contains(&flow(ip(network))), "{network}");
        }
    });
}

#[test]
fn prefixes_without_a_bit_make_one_source_of_a_family() {
    const NAME: &str = "prefixes_without_a_bit_make_one_source_of_a_family";
    let key = Key {
        prefix4: 0,
        prefix6: 0,
        ..Key::SOURCE
    };
    rig::run(NAME, by(key), |rig| {
        assert_share(
            rig,
            &between("10.0.16.1", "192.0.2.1"),
            &[
                (between("240.1.2.3", "192.0.2.1"), true),
                (between("2001:db8::1", "2001:db8::1"), false),
            ],
        );
    });
}

#[test]
fn ipv6_prefixes_beyond_64_bits() {
    for (prefix6, last_shared) in [(128, "2001:db8::1:0:0:1"), (96, "2001:db8::1:0:ffff:ffff")] {
        let key = Key {
            prefix6,
            ..Key::SOURCE
        };
        rig::run("ipv6_prefixes_beyond_64_bits", by(key), |rig| {
            assert_share(
                rig,
                &between("2001:db8::1:0:0:1", "2001:db8::1"),
                &[
                    (between(last_shared, "2001:db8::1"), true),
                    (between("2001:db8::1:1:0:1", "2001:db8::1"), false),
                    (between("2001:db8::2:0:0:1", "2001:db8::1"), false),
                    (between("2001:db8:0:1:1:0:0:1", "2001:db8::1"), false),
                ],
            );
            assert_share(
                rig,
                &between("10.0.0.1", "192.0.2.1"),
                &[
                    (between("10.0.0.1", "192.0.2.2"), true),
                    (between("10.0.0.2", "192.0.2.1"), false),
                ],
            );
            let flows = rig.flows();
            let masked = if prefix6 == 128 {
                "2001:db8::1:0:0:1"
            } else {
                "2001:db8::1:0:0:0"
            };
            assert!(flows.contains_key(&wide_flow(ip(masked), 0, None, [0; 2])));
            assert!(flows.contains_key(&wide_flow(ip("10.0.0.1"), 0, None, [0; 2])));
        });
    }
}

#[test]
fn destinations() {
    rig::run("destinations", by(Key::DESTINATION), |rig| {
        assert_share(
            rig,
            &between("10.0.0.1", "192.0.2.1"),
            &[
                (between("10.0.0.2", "192.0.2.1").udp(1, 2), true),
                (between("10.0.0.1", "192.0.2.2"), false),
                (between("192.0.2.1", "10.0.0.1"), false),
            ],
        );
        assert_share(
            rig,
            &between("2001:db8::1", "2001:db8:0:1::1"),
            &[
                (between("2001:db8:9::1", "2001:db8:0:1::2"), true),
                (between("2001:db8::1", "2001:db8:0:2::1"), false),
            ],
        );
    });
}

#[test]
fn connections_are_told_apart_by_all_five() {
    rig::run(
        "connections_are_told_apart_by_all_five",
        by(Key::TUPLE),
        |rig| {
            let (four, six) = (
                ["10.0.0.1", "192.0.2.1"],
                ["2001:db8::1", "2001:db8::1:0:0:2"],
            );
            for ([one, other], beside) in [(four, "10.0.0.2"), (six, "2001:db8::2")] {
                let mut answered = Tcp::between(40_000, 53);
                answered.options = vec![1; 12];
                assert_share(
                    rig,
                    &between(one, other).tcp(40_000, 53),
                    &[
                        (between(one, other).tcp_with(answered), true),
                        (between(one, other).tcp(40_001, 53), false),
                        (between(one, other).tcp(40_000, 54), false),
                        (between(one, other).udp(40_000, 53), false),
                        (between(beside, other).tcp(40_000, 53), false),
                        (between(one, beside).tcp(40_000, 53), false),
                        (between(other, one).tcp(53, 40_000), false),
                        (between(one, other).icmp(8, 0, [0; 4]), false),
                    ],
                );
            }
        },
    );
}

/// The kernel's protocols with ports, and some without.
#[test]
fn ports_of_protocols_that_have_them() {
    rig::run("ports_of_protocols_that_have_them", by(Key::TUPLE), |rig| {
        for protocol in 0..=255_u8 {
            // 33: DCCP, 132: SCTP, 136: UDP-Lite; their ports stand first, as those of UDP.
            let has_ports = [6, 17, 33, 132, 136].contains(&protocol);
            let mut header = Ipv4::between([10, 0, 0, 1], [192, 0, 2, 1]);
            header.protocol = Some(protocol);
            let packet = Packet::ethernet(A, B).ipv4_with(header);
            let frame = packet
                .payload(&[0x12, 0x34, 0x56, 0x78])
                .payload_of(40)
                .build();
            assert_eq!(rig.verdict(&frame), PASS);
            let ports = if has_ports { [0x1234, 0x5678] } else { [0; 2] };
            assert_tuple(rig, protocol, ["10.0.0.1", "192.0.2.1"], ports);
        }
    });
}

/// The packet made this flow, and only this one; it is forgotten.
#[track_caller]
fn assert_tuple(rig: &Rig<'_>, protocol: u8, [one, other]: [&str; 2], ports: [u16; 2]) {
    let expected = wide_flow(ip(one), protocol, Some(ip(other)), ports);
    let flows: Vec<Vec<u8>> = rig.flows().into_keys().collect();
    assert_eq!(flows, std::slice::from_ref(&expected));
    rig.remove(&expected);
}

/// Behind up to eight extension headers (RFC 8200).
#[test]
fn ports_behind_extension_headers() {
    rig::run("ports_behind_extension_headers", by(Key::TUPLE), |rig| {
        let ends = ["2001:db8::1", "2001:db8::2"];
        let [one, other] = ends;
        let kinds: [fn(Packet) -> Packet; 5] = [
            |packet| packet.hop_by_hop(&[5, 2, 0, 0, 1, 0]),
            |packet| packet.routing(&[4, 0, 0, 0, 0, 0]),
            |packet| packet.destination_options(&[0; 14]),
            |packet| packet.fragment(0, true, 7),
            |packet| packet.authentication(&[0; 12]),
        ];
        for add in kinds {
            for number in 0..=10 {
                let packet = (0..number).fold(between(one, other), |packet, _| add(packet));
                let frame = packet.udp(40_000, 53).payload_of(40).build();
                assert_eq!(rig.verdict(&frame), PASS);
                if number <= 8 {
                    assert_tuple(rig, 17, ends, [40_000, 53]);
                } else {
                    // All of them together: 255 is nobody's number.
                    assert_tuple(rig, 255, ends, [0; 2]);
                }
            }
        }
        let packet = kinds
            .iter()
            .fold(between(one, other), |packet, add| add(packet));
        assert_eq!(rig.verdict(&packet.tcp(1, 2).build()), PASS);
        assert_tuple(rig, 6, ends, [1, 2]);
    });
}

/// The first, one in the middle and the last one, between 10.0.0.1 and 192.0.2.1.
fn fragments4() -> [Vec<u8>; 3] {
    [(0, true), (5, true), (9, false)].map(|(offset, more)| {
        let mut header = Ipv4::between([10, 0, 0, 1], [192, 0, 2, 1]);
        (header.fragment_offset, header.more_fragments) = (offset, more);
        let packet = Packet::ethernet(A, B).ipv4_with(header);
        packet.udp(40_000, 53).payload_of(40).build()
    })
}

/// Between 2001:db8::1 and 2001:db8::2.
fn fragments6() -> [Vec<u8>; 3] {
    [(0, true), (5, true), (9, false)].map(|(offset, more)| {
        let packet = between("2001:db8::1", "2001:db8::2").fragment(offset, more, 7);
        packet.udp(40_000, 53).payload_of(40).build()
    })
}

/// Fragments behind the first have no ports; those between two hosts are one flow.
#[test]
fn fragments_behind_the_first_are_of_no_connection() {
    const NAME: &str = "fragments_behind_the_first_are_of_no_connection";
    rig::run(NAME, by(Key::TUPLE), |rig| {
        for (hosts, frames) in [
            (["10.0.0.1", "192.0.2.1"], fragments4()),
            (["2001:db8::1", "2001:db8::2"], fragments6()),
        ] {
            let [first, later @ ..] = frames;
            assert_eq!(rig.verdict(&first), PASS);
            assert_tuple(rig, 17, hosts, [40_000, 53]);
            for later in later {
                assert_eq!(rig.verdict(&later), PASS);
                assert_tuple(rig, 44, hosts, [0; 2]);
            }
        }
    });
}

#[test]
fn fragments_are_their_sources_like_any_packet() {
    const NAME: &str = "fragments_are_their_sources_like_any_packet";
    rig::run(NAME, Setup::default(), |rig| {
        for frames in [fragments4(), fragments6()] {
            let sent = frames.iter().cycle().take(9);
            let verdicts: Vec<i32> = sent.map(|frame| rig.verdict(frame)).collect();
            assert_eq!(verdicts[..6], [PASS; 6]);
            assert_eq!(verdicts[6..], [DROP; 3]);
        }
        assert_eq!(rig.flows().len(), 2);
    });
}

/// A transport header that is cut off has no ports, and the packet is metered all the same.
#[test]
fn cut_transport_headers() {
    rig::run("cut_transport_headers", by(Key::TUPLE), |rig| {
        for ends in [["10.0.0.1", "192.0.2.1"], ["2001:db8::1", "2001:db8::2"]] {
            let network = if ends[0].contains(':') {
                14 + 40
            } else {
                14 + 20
            };
            let whole = between(ends[0], ends[1]).tcp(40_000, 53).build();
            for cut in truncations(&whole, network) {
                let skb = Skb {
                    frame: cut,
                    ..Skb::default()
                };
                assert_eq!(rig.run(skb), PASS);
                let has_ports = cut.len() >= network + 4;
                let ports = if has_ports { [40_000, 53] } else { [0; 2] };
                assert_tuple(rig, 6, ends, ports);
            }
        }
    });
}

/// Neighbour discovery is not metered on an interface without a link header either, and connections are told apart.
#[test]
fn interfaces_without_a_link_header_look_behind_ip() {
    const NAME: &str = "interfaces_without_a_link_header_look_behind_ip";
    rig::run(NAME, by(Key::TUPLE), |rig| {
        // Bytes 12 and 13 tell the kernel what it is.
        let to = [0xff02, 0, 0, 0, 0, 0, 0, 1];
        let mut header = Ipv6::between([0xfe80, 0, 0x86dd, 0, 0, 0, 0, 1], to);
        header.hop_limit = 255;
        let link_local = Packet::without_link().ipv6_with(header);
        let discovery = link_local
            .clone()
            .icmpv6(135, 0, [0; 4])
            .payload_of(16)
            .build();
        let mut skb = Skb {
            frame: &discovery,
            is_raw: true,
            ..Skb::default()
        };
        assert_eq!(rig.run(skb), PASS);
        let not_ip = events {
            not_ip: 1,
            ..events::default()
        };
        assert_unmetered(rig, "neighbour discovery", not_ip);
        let six = link_local.tcp(40_000, 22).payload_of(10).build();
        let four = Packet::without_link().ipv4([8, 0, 0, 1], [192, 0, 2, 1]);
        let four = four.tcp(40_000, 22).payload_of(30).build();
        for (frame, ends) in [
            (&six, ["fe80:0:86dd::1", "ff02::1"]),
            (&four, ["8.0.0.1", "192.0.2.1"]),
        ] {
            skb.frame = frame;
            assert_eq!(rig.run(skb), PASS);
            assert_tuple(rig, 6, ends, [40_000, 22]);
        }
    });
}
