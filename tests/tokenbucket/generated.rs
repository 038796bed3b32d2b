//! Generated packets, whole, cut and with bytes overwritten, against etherparse: the flow that they are
//! metered as, or that they are not metered, is what an independent parser says.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use etherparse::{
    Ethernet2HeaderSlice, Ipv4HeaderSlice, Ipv6HeaderSlice, SingleVlanHeaderSlice, SlicedPacket,
    TransportSlice,
};
use testbed::packet::{Ipv4, Packet};
use testbed::{long, sandbox};

use crate::frames::{A, B};
use crate::keys::by;
use crate::rig::{self, Key, PASS, Setup, Skb, flow, wide_flow};
use crate::seed::Random;

/// What an independent parser makes of a frame.
#[derive(Debug, PartialEq, Eq)]
enum Oracle {
    Addresses(IpAddr, IpAddr),
    NotIp,
    Malformed,
}

fn oracle(frame: &[u8]) -> Oracle {
    let Ok(ethernet) = Ethernet2HeaderSlice::from_slice(frame) else {
        return Oracle::Malformed;
    };
    let mut ether_type = ethernet.ether_type().0;
    let mut rest = &frame[14..];
    for _ in 0..2 {
        if ether_type != 0x8100 && ether_type != 0x88a8 {
            break;
        }
        let Ok(tag) = SingleVlanHeaderSlice::from_slice(rest) else {
            return Oracle::Malformed;
        };
        ether_type = tag.ether_type().0;
        rest = &rest[4..];
    }
    match ether_type {
        0x0800 => {
            // Options that were cut off say nothing of the addresses: zeros will do for them.
            let mut options = rest.to_vec();
            if rest.len() >= 20 {
                options.resize(rest.len().max(60), 0);
            }
            Ipv4HeaderSlice::from_slice(&options).map_or(Oracle::Malformed, |header| {
                Oracle::Addresses(
                    header.source_addr().into(),
                    header.destination_addr().into(),
                )
            })
        }
        0x86dd => Ipv6HeaderSlice::from_slice(rest).map_or(Oracle::Malformed, |header| {
            Oracle::Addresses(
                header.source_addr().into(),
                header.destination_addr().into(),
            )
        }),
        _ => Oracle::NotIp,
    }
}

/// A packet with any headers that may follow each other.
fn any_packet(random: &mut Random) -> Packet {
    let mut packet = Packet::ethernet(A, B);
    for _ in 0..[0, 0, 1, 2, 3][random.below(5) as usize] {
        packet = match random.below(2) {
            0 => packet.vlan(7),
            _ => packet.service_vlan(9),
        };
    }
    packet = match random.below(2) {
        0 => {
            let mut header = Ipv4::between(any_ipv4(random), any_ipv4(random));
            header.options = vec![1; random.below(41) as usize];
            packet.ipv4_with(header)
        }
        _ => {
            packet = packet.ipv6(any_ipv6(random), any_ipv6(random));
            for at in 0..[0, 0, 1, 3][random.below(4) as usize] {
                let length = random.below(24) as usize;
                packet = match random.below(4) {
                    // Only the first may be one (RFC 8200, 4.1), and etherparse insists on it.
                    0 if at == 0 => packet.hop_by_hop(&vec![0; length]),
                    // Type 4 is segment routing; no segments are left.
                    0 | 1 => packet.routing(&[&[4, 0][..], &vec![0; length]].concat()),
                    2 => packet.destination_options(&vec![0; length]),
                    _ => packet.authentication(&vec![0; length / 4 * 4 + 4]),
                };
            }
            packet
        }
    };
    let (source, destination) = (random.next() as u16, random.next() as u16);
    packet = match random.below(4) {
        0 => packet.udp(source, destination),
        1 => packet.tcp(source, destination),
        2 => packet.icmpv6(128, 0, [0; 4]),
        _ => packet,
    };
    packet.payload_of(random.below(300) as usize)
}

fn any_ipv4(random: &mut Random) -> Ipv4Addr {
    match random.below(8) {
        0 => [Ipv4Addr::UNSPECIFIED, Ipv4Addr::BROADCAST][random.below(2) as usize],
        _ => Ipv4Addr::from(random.next() as u32),
    }
}

fn any_ipv6(random: &mut Random) -> Ipv6Addr {
    match random.below(8) {
        0 => [Ipv6Addr::UNSPECIFIED, Ipv6Addr::LOCALHOST][random.below(2) as usize],
        _ => Ipv6Addr::from(u128::from(random.next()) << 64 | u128::from(random.next())),
    }
}

/// Whole, or cut, or with some of its headers' bytes overwritten, or both.
fn damaged(random: &mut Random) -> Vec<u8> {
    let mut frame = any_packet(random).build();
    let damage = random.below(4);
    if damage & 1 != 0 {
        for _ in 0..random.below(4) {
            let at = 12 + random.below(52) as usize;
            if let Some(place) = frame.get_mut(at) {
                *place = random.next() as u8;
            }
        }
    }
    if damage & 2 != 0 {
        // Mostly within the headers.
        let most = frame.len().min(120);
        frame.truncate(14 + random.below(most as u64 - 13) as usize);
    }
    frame
}

/// The address with zeros behind the prefix.
fn masked(ip: IpAddr, key: Key) -> IpAddr {
    match ip {
        IpAddr::V4(ip) => {
            let mask = u32::MAX.checked_shl(32 - key.prefix4).unwrap_or(0);
            Ipv4Addr::from(u32::from(ip) & mask).into()
        }
        IpAddr::V6(ip) => {
            let mask = u128::MAX.checked_shl(128 - key.prefix6).unwrap_or(0);
            Ipv6Addr::from(u128::from(ip) & mask).into()
        }
    }
}

/// After so many there is another table: for each of them all of it is looked through.
const PACKETS_OF_A_TABLE: u32 = 5_000;

#[test]
fn flows_are_what_etherparse_says() {
    const NAME: &str = "flows_are_what_etherparse_says";
    let long = long(NAME, "100,000 of 1 million packets");
    let tables = if long { 50 } else { 5 };
    sandbox::run(NAME, |_| {
        let mut random = Random::new(NAME, long);
        for (by_destination, key) in [
            (false, Key::SOURCE),
            (true, Key::DESTINATION),
            (
                false,
                Key {
                    prefix4: 17,
                    prefix6: 49,
                    ..Key::SOURCE
                },
            ),
            (
                false,
                Key {
                    prefix6: 127,
                    ..Key::SOURCE
                },
            ),
        ] {
            for _ in 0..tables {
                let setup = Setup {
                    flows: PACKETS_OF_A_TABLE,
                    ..by(key)
                };
                rig::with(setup, |rig| {
                    for _ in 0..PACKETS_OF_A_TABLE {
                        let frame = damaged(&mut random);
                        let skb = Skb {
                            frame: &frame,
                            ..Skb::default()
                        };
                        assert_eq!(rig.run(skb), PASS, "{frame:x?}");
                        let flows: Vec<Vec<u8>> = rig.flows().into_keys().collect();
                        let counted = rig.take_events();
                        let classes = (counted.flows, counted.not_ip, counted.malformed);
                        match oracle(&frame) {
                            Oracle::Addresses(source, destination) => {
                                let address =
                                    masked(if by_destination { destination } else { source }, key);
                                let expected = match key.prefix6 {
                                    ..=64 => flow(address),
                                    _ => wide_flow(address, 0, None, [0; 2]),
                                };
                                assert_eq!(
                                    (flows, classes),
                                    (vec![expected.clone()], (1, 0, 0)),
                                    "{frame:x?}"
                                );
                                rig.remove(&expected);
                            }
                            Oracle::NotIp => {
                                assert_eq!((flows, classes), (vec![], (0, 1, 0)), "{frame:x?}");
                            }
                            Oracle::Malformed => {
                                assert_eq!((flows, classes), (vec![], (0, 0, 1)), "{frame:x?}");
                            }
                        }
                    }
                });
            }
        }
    });
}

#[test]
fn connections_are_what_etherparse_says() {
    const NAME: &str = "connections_are_what_etherparse_says";
    let long = long(NAME, "5,000 of 500,000 packets");
    let packets = if long { 500_000 } else { 5_000 };
    let setup = Setup {
        flows: packets,
        ..by(Key::TUPLE)
    };
    rig::run(NAME, setup, |rig| {
        let mut random = Random::new(NAME, long);
        for _ in 0..packets {
            let frame = any_packet(&mut random).build();
            let skb = Skb {
                frame: &frame,
                ..Skb::default()
            };
            assert_eq!(rig.run(skb), PASS, "{frame:x?}");
            let flows: Vec<Vec<u8>> = rig.flows().into_keys().collect();
            let Oracle::Addresses(source, destination) = oracle(&frame) else {
                assert!(flows.is_empty(), "{frame:x?}");
                continue;
            };
            let sliced = SlicedPacket::from_ethernet(&frame)
                .unwrap_or_else(|error| panic!("etherparse: {error}: {frame:x?}"));
            let (protocol, ports) = match &sliced.transport {
                Some(TransportSlice::Udp(udp)) => (17, [udp.source_port(), udp.destination_port()]),
                Some(TransportSlice::Tcp(tcp)) => (6, [tcp.source_port(), tcp.destination_port()]),
                Some(TransportSlice::Icmpv6(_)) => (58, [0; 2]),
                // What `testbed::packet` calls a packet that carries nothing known.
                _ => (253, [0; 2]),
            };
            let expected = wide_flow(source, protocol, Some(destination), ports);
            assert_eq!(flows, std::slice::from_ref(&expected), "{frame:x?}");
            rig.remove(&expected);
        }
    });
}
