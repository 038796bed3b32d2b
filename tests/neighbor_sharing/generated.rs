//! Generated packets, whole, cut and with bytes overwritten, against etherparse: the addresses that
//! are learned, and what is malformed, are what an independent parser says; so are the headers that a
//! GSO packet repeats.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use etherparse::{
    Ethernet2HeaderSlice, Ipv4HeaderSlice, Ipv6HeaderSlice, SingleVlanHeaderSlice, SlicedPacket,
    TransportSlice,
};
use netbpf::neighbor_sharing::{Class, Way};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::{Config, RngAlgorithm, RngSeed, TestCaseError, TestRunner};
use testbed::long;
use testbed::packet::{Ipv4, Ipv6, Packet, Tcp};

use crate::rig::{self, NEIGHBOR_1, PASS, Rig, Setup, Skb, events, passed};
use crate::seed;

const A: [u8; 6] = [2, 0, 0, 0, 0, 1];
const B: [u8; 6] = [2, 0, 0, 0, 0, 2];

/// What an independent parser makes of a frame.
#[derive(Debug, PartialEq, Eq)]
enum Oracle {
    Source(IpAddr),
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
            // Options that were cut off say nothing of the address: zeros will do for them.
            let mut options = rest.to_vec();
            if rest.len() >= 20 {
                options.resize(rest.len().max(60), 0);
            }
            Ipv4HeaderSlice::from_slice(&options).map_or(Oracle::Malformed, |header| {
                Oracle::Source(header.source_addr().into())
            })
        }
        0x86dd => Ipv6HeaderSlice::from_slice(rest).map_or(Oracle::Malformed, |header| {
            Oracle::Source(header.source_addr().into())
        }),
        _ => Oracle::NotIp,
    }
}

fn can_be_owned(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => {
            let [first, ..] = ip.octets();
            !(first == 0 || ip.is_loopback() || first >= 224)
        }
        IpAddr::V6(ip) => !(ip.is_unspecified() || ip.is_loopback() || ip.is_multicast()),
    }
}

fn tags() -> impl Strategy<Value = Vec<bool>> {
    vec(any::<bool>(), 0..=3)
}

fn tagged(tags: &[bool]) -> Packet {
    let mut packet = Packet::ethernet(A, B);
    for (id, service) in (1..).zip(tags) {
        packet = match service {
            true => packet.service_vlan(id),
            false => packet.vlan(id),
        };
    }
    packet
}

fn addresses4() -> impl Strategy<Value = Ipv4Addr> {
    let edges = [
        [0, 0, 0, 0],
        [127, 0, 0, 1],
        [224, 0, 0, 1],
        [255; 4],
        [223, 255, 255, 255],
    ];
    prop_oneof![
        4 => any::<u32>().prop_map(Ipv4Addr::from),
        1 => select(edges.map(Ipv4Addr::from).to_vec()),
    ]
}

fn addresses6() -> impl Strategy<Value = Ipv6Addr> {
    let edges = ["::", "::1", "::2", "ff02::1", "fe80::1", "::ffff:192.0.2.1"];
    prop_oneof![
        4 => any::<u128>().prop_map(Ipv6Addr::from),
        1 => select(edges.to_vec()).prop_map(|text| text.parse().unwrap_or(Ipv6Addr::LOCALHOST)),
    ]
}

/// With a transport header, or just some bytes.
fn finished(packet: Packet, transport: u8, options: Vec<u8>, payload: usize) -> Packet {
    let packet = match transport {
        0 => packet.udp(1, 2),
        1 => packet.tcp_with(Tcp {
            options,
            ..Tcp::between(1, 2)
        }),
        2 => packet.icmpv6(128, 0, [0; 4]),
        _ => packet,
    };
    packet.payload_of(payload)
}

fn four(fragments: bool) -> impl Strategy<Value = Packet> {
    let options = vec(Just(1_u8), 0..=40);
    let header = (addresses4(), addresses4(), options, any::<bool>(), 0..4_u16);
    let rest = (0..4_u8, vec(Just(1_u8), 0..=40), 0..1400_usize);
    (tags(), header, rest).prop_map(move |(tags, header, (transport, tcp_options, payload))| {
        let (source, destination, options, more_fragments, fragment_offset) = header;
        let ipv4 = Ipv4 {
            options,
            more_fragments: fragments && more_fragments,
            // Mostly none.
            fragment_offset: if fragments {
                fragment_offset.saturating_sub(2)
            } else {
                0
            },
            ..Ipv4::between(source, destination)
        };
        finished(
            tagged(&tags).ipv4_with(ipv4),
            transport,
            tcp_options,
            payload,
        )
    })
}

fn six() -> impl Strategy<Value = Packet> {
    let header = (addresses6(), addresses6(), any::<u8>());
    let extensions = vec((0..4_u8, 0..24_usize), 0..=5);
    let rest = (0..4_u8, vec(Just(1_u8), 0..=40), 0..1400_usize);
    let parts = (tags(), header, extensions, rest);
    parts.prop_map(
        |(tags, header, extensions, (transport, tcp_options, payload))| {
            let (source, destination, hop_limit) = header;
            let ipv6 = Ipv6 {
                hop_limit,
                ..Ipv6::between(source, destination)
            };
            let mut packet = tagged(&tags).ipv6_with(ipv6);
            for (at, (kind, length)) in extensions.into_iter().enumerate() {
                packet = match kind {
                    // Only the first may be one (RFC 8200, 4.1), and etherparse insists on it.
                    0 if at == 0 => packet.hop_by_hop(&vec![0; length]),
                    // Type 4 is segment routing; no segments are left.
                    0 | 1 => packet.routing(&[&[4, 0][..], &vec![0; length]].concat()),
                    2 => packet.destination_options(&vec![0; length]),
                    _ => packet.authentication(&vec![0; length / 4 * 4 + 4]),
                };
            }
            finished(packet, transport, tcp_options, payload)
        },
    )
}

fn packets(fragments: bool) -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![four(fragments), six()].prop_map(|packet| packet.build())
}

/// Whole, or cut, or with some of its headers' bytes overwritten, or both.
fn damaged() -> impl Strategy<Value = Vec<u8>> {
    let damage = (
        any::<prop::sample::Index>(),
        vec((12..64_usize, any::<u8>()), 0..4),
    );
    (packets(true), 0..4_u8, damage).prop_map(|(mut frame, kind, (length, bytes))| {
        if kind & 1 != 0 {
            for (at, byte) in bytes {
                if let Some(place) = frame.get_mut(at) {
                    *place = byte;
                }
            }
        }
        if kind & 2 != 0 {
            // Mostly within the headers.
            let most = frame.len().min(120);
            frame.truncate(14 + length.index(most - 13));
        }
        frame
    })
}

/// A fixed number of cases, from a seed that is printed.
fn check<T: std::fmt::Debug>(
    name: &str,
    cases: [u32; 2],
    strategy: impl Strategy<Value = T>,
    test: impl Fn(T) -> Result<(), TestCaseError>,
) {
    let [short, full] = cases;
    let long = long(name, &format!("{short} of {full} packets"));
    let config = Config {
        cases: if long { full } else { short },
        failure_persistence: None,
        rng_algorithm: RngAlgorithm::ChaCha,
        rng_seed: RngSeed::Fixed(seed::of(name, long)),
        ..Config::default()
    };
    if let Err(error) = TestRunner::new(config).run(&strategy, test) {
        panic!("{error}");
    }
}

#[test]
fn addresses_are_learned_as_etherparse_reads_them() {
    const NAME: &str = "addresses_are_learned_as_etherparse_reads_them";
    rig::run(NAME, Setup::default(), |rig| {
        check(NAME, [50_000, 500_000], damaged(), |frame| {
            learned_as_the_oracle_says(rig, &frame)
        });
        rig.assert_sound();
    });
}

fn learned_as_the_oracle_says(rig: &Rig<'_>, frame: &[u8]) -> Result<(), TestCaseError> {
    rig.forget_counts();
    rig.enter(NEIGHBOR_1, frame);
    let expected = oracle(frame);
    let owners: Vec<IpAddr> = rig.owners().into_keys().collect();
    for ip in &owners {
        rig.forget(*ip);
    }
    let mut happened = events::default();
    match expected {
        Oracle::Source(ip) if can_be_owned(ip) => {
            happened.learned = 1;
            prop_assert_eq!(owners, [ip]);
        }
        Oracle::Malformed => {
            happened.malformed = 1;
            prop_assert!(owners.is_empty(), "{owners:?}");
        }
        Oracle::Source(_) | Oracle::NotIp => prop_assert!(owners.is_empty(), "{owners:?}"),
    }
    rig.assert_events(happened);
    Ok(())
}

#[test]
fn segments_repeat_the_headers_that_etherparse_finds() {
    const NAME: &str = "segments_repeat_the_headers_that_etherparse_finds";
    rig::run(NAME, Setup::default(), |rig| {
        // No fragment is a GSO packet.
        let packets = packets(false).prop_filter("too short for GSO", |frame| frame.len() >= 64);
        check(NAME, [5_000, 200_000], packets, |frame| {
            counted_as_the_oracle_says(rig, &frame)
        });
    });
}

fn counted_as_the_oracle_says(rig: &Rig<'_>, frame: &[u8]) -> Result<(), TestCaseError> {
    let parsed = SlicedPacket::from_ethernet(frame)
        .map_err(|error| TestCaseError::fail(format!("etherparse: {error}")))?;
    let tags = parsed.link_exts.len();
    let payload = match &parsed.transport {
        Some(TransportSlice::Tcp(tcp)) => Some(tcp.payload().len()),
        Some(TransportSlice::Udp(udp)) => Some(udp.payload().len()),
        _ => None,
    };
    // Behind a third tag nothing is known, and it is data itself.
    let payload = payload.filter(|_| tags <= 2);
    let bytes = frame.len() - 4 * tags.min(2);
    let headers = payload.map_or(0, |payload| bytes - payload);
    let skb = Skb {
        frame,
        gso_size: 100,
        gso_segs: 7,
        ..Skb::default()
    };
    rig.forget_counts();
    prop_assert_eq!(rig.run("classify_wan", skb).verdict, PASS);
    let expected = passed(7, (bytes + 6 * headers) as u64);
    prop_assert_eq!(rig.meter(Class::Rest, Way::Download), expected);
    Ok(())
}
