//! Generated packets of all encapsulations, whole, cut and with bytes overwritten, against an independent
//! reader.

use std::collections::HashMap;
use std::net::{Ipv4Addr, Ipv6Addr};

use netbpf::tunnel_monitor::{Counts, Flow, Setup};
use testbed::{long, sandbox};

use crate::frames::{
    self, GRE, IPIP, IPV4, IPV6, Ipv4, SIT, TEB, UDP, ethernet, extension, geneve, gre, udp, vxlan,
};
use crate::oracle::{Outcome, outcome};
use crate::rig::{self, Side};
use crate::seed::Random;

/// One of them, each as often as it is there.
fn any<T: Copy>(random: &mut Random, of: &[T]) -> T {
    of[random.below(of.len() as u64) as usize]
}

/// Few addresses, so that flows are met again. The protocol of a test run without a link header stands
/// where these have 8.0, or 86dd.
fn any_ipv4(random: &mut Random) -> Ipv4Addr {
    match random.below(10) {
        0 => any(
            random,
            &[
                [224, 0, 0, 1],
                [255; 4],
                [239, 255, 255, 255],
                [240, 0, 0, 1],
            ],
        )
        .into(),
        _ => [8, 0, 0, random.below(4) as u8].into(),
    }
}

fn any_ipv6(random: &mut Random) -> Ipv6Addr {
    match random.below(10) {
        0 => any(random, &[0xff02 << 112 | 1, 1, 0xff << 104]).into(),
        _ => (0x2001_0db8_86dd_u128 << 80 | u128::from(random.below(4))).into(),
    }
}

fn any_mac(random: &mut Random) -> [u8; 6] {
    match random.below(8) {
        0 => any(random, &[[0xff; 6], [1, 0, 0x5e, 0, 0, 1]]),
        _ => [2, 0, 0, 0, 0, 1],
    }
}

fn any_tags(random: &mut Random) -> Vec<u16> {
    let count = any(random, &[0, 0, 0, 1, 2, 3]);
    (0..count).map(|_| any(random, &[0x8100, 0x88a8])).collect()
}

fn any_fragment(random: &mut Random) -> u16 {
    any(
        random,
        &[0, 0, 0, 0x4000, 0x4000, 0x2000, 1, 0x2001, 0x8000],
    )
}

/// Behind extension headers of any kind.
fn any_ipv6_packet(random: &mut Random, next: u8, payload: &[u8]) -> Vec<u8> {
    let (mut next, mut packet) = (next, payload.to_vec());
    for _ in 0..any(random, &[0, 0, 0, 1, 2, 3, 8, 9]) {
        let kind = any(random, &[0, 43, 44, 51, 60]);
        // Mostly short; all of them together are seldom longer than what is looked at.
        let units = any(random, &[0, 0, 1, 2, 16]) as u8;
        packet = match kind {
            44 => extension(
                next,
                0,
                any(
                    random,
                    &[[0, 0], [0, 0], [0, 1], [0, 8], [0xff, 0xf9], [0, 6]],
                ),
                0,
                &packet,
            ),
            51 => extension(next, 1 + units, [0, 0], 4 + 4 * usize::from(units), &packet),
            _ => extension(next, units, [0, 0], 8 * usize::from(units), &packet),
        };
        next = kind;
    }
    frames::ipv6(any_ipv6(random), any_ipv6(random), next, &packet)
}

fn any_ipv4_packet(random: &mut Random, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let header = Ipv4 {
        source: any_ipv4(random),
        destination: any_ipv4(random),
        options: any(random, &[0, 0, 0, 1, 5, 10]),
        fragment: any_fragment(random),
        protocol,
    };
    header.with(payload)
}

/// Something to talk about: EtherType and packet.
fn any_inner(random: &mut Random) -> (u16, Vec<u8>) {
    let (protocol, payload) = match random.below(3) {
        0 => (UDP, udp(any(random, &[4789, 53]), &[1; 20])),
        1 => (6, vec![0x50; 32]),
        _ => (1, vec![8; 12]),
    };
    let (ether_type, packet) = match random.below(5) {
        0 | 1 => (IPV4, any_ipv4_packet(random, protocol, &payload)),
        2 | 3 => (IPV6, any_ipv6_packet(random, protocol, &payload)),
        _ => (any(random, &[0x0806, 0x88cc, 0x0026]), payload),
    };
    match random.below(2) {
        0 => (
            TEB,
            ethernet(any_mac(random), &any_tags(random), ether_type, &packet),
        ),
        _ => (ether_type, packet),
    }
}

/// IP protocol and packet.
fn any_tunnel(random: &mut Random) -> (u8, Vec<u8>) {
    let vni = any(random, &[0, 1, 10_000, 0xff_ffff]);
    let (protocol, inner) = any_inner(random);
    match random.below(7) {
        0 | 1 => {
            let flags = any(random, &[8, 8, 8, 8, 0x88, 0xff, 0, 0xf7]);
            let port = any(random, &[4789, 4789, 4789, 8472, 8472, 4790, 443]);
            (UDP, udp(port, &vxlan(flags, vni, &inner)))
        }
        2 | 3 => {
            let first = any(random, &[0, 0, 0, 1, 5, 0x3f, 0x40, 0xc1]);
            (UDP, udp(6081, &geneve(first, vni, protocol, &inner)))
        }
        4 | 5 => {
            let flags = any(
                random,
                &[0, 0x8000, 0x2000, 0x1000, 0xa000, 0x3000, 0x9000, 0xb000],
            ) | any(
                random,
                &[0, 0, 0, 0, 0, 0x4000, 0x0800, 0x0400, 0x0300, 0x00f8, 1, 7],
            );
            (GRE, gre(flags, vni << 8 | 0x17, protocol, &inner))
        }
        _ => (any(random, &[IPIP, SIT]), inner),
    }
}

fn any_packet(random: &mut Random, is_raw: bool) -> Vec<u8> {
    let (protocol, payload) = match random.below(8) {
        0 => (any(random, &[1, 6, 50, 58]), vec![0x50; 40]),
        _ => any_tunnel(random),
    };
    let (ether_type, packet) = match random.below(9) {
        0..=3 => (IPV4, any_ipv4_packet(random, protocol, &payload)),
        4..=7 => (IPV6, any_ipv6_packet(random, protocol, &payload)),
        _ => (0x0806, vec![0; 40]),
    };
    match is_raw {
        true => packet,
        false => ethernet(any_mac(random), &any_tags(random), ether_type, &packet),
    }
}

/// Whole; with headers' bytes overwritten; cut, or with something behind it.
fn damaged(random: &mut Random, is_raw: bool) -> Vec<u8> {
    let mut frame = any_packet(random, is_raw);
    if random.below(3) == 0 {
        for _ in 0..1 + random.below(3) {
            let at = if is_raw { 0 } else { 12 } + random.below(120) as usize;
            if let Some(place) = frame.get_mut(at) {
                *place = random.next() as u8;
            }
        }
    }
    match random.below(4) {
        0 => frame.truncate(14 + random.below(frame.len().min(200) as u64) as usize),
        1 => frame.resize(frame.len() + random.below(30) as usize, 0),
        _ => {}
    }
    frame.resize(frame.len().clamp(14, 1500), 0);
    frame
}

#[test]
fn an_independent_reader_says_the_same() {
    const NAME: &str = "an_independent_reader_says_the_same";
    sandbox::run(NAME, |_| {
        let long = long(NAME, "100,000 of 2,000,000 packets");
        let mut random = Random::new(NAME, long);
        let packets = if long { 500_000 } else { 25_000 };
        for (nvgre, multicast, ports) in [
            (false, false, vec![4789]),
            (true, false, vec![4789, 8472]),
            (false, true, vec![8472]),
            (true, true, (4784..4792).collect()),
        ] {
            let setup = Setup {
                nvgre,
                multicast,
                ports,
                ..Setup::default()
            };
            rig::with(&setup, |rig| compare(rig, &setup, &mut random, packets));
        }
    });
}

fn compare(rig: &rig::Rig<'_>, setup: &Setup, random: &mut Random, packets: u32) {
    let mut expected: HashMap<Flow, Counts> = HashMap::new();
    let mut seen = [0_u32; 5];
    for number in 0..packets {
        let side = any(
            random,
            &[
                Side::Ingress,
                Side::Ingress,
                Side::Egress,
                Side::Egress,
                Side::IngressRaw,
                Side::EgressRaw,
            ],
        );
        let is_raw = matches!(side, Side::IngressRaw | Side::EgressRaw);
        let frame = damaged(random, is_raw);
        let before = rig.tally();
        rig.pass(side, &frame);
        let mut after = before;
        let outcome = outcome(&frame, side, setup);
        let kind = match &outcome {
            Outcome::Counted(flow, bytes) => {
                let passed = match side {
                    Side::Ingress | Side::IngressRaw => Counts {
                        rx_pkts: 1,
                        rx_bytes: *bytes,
                        ..Counts::default()
                    },
                    Side::Egress | Side::EgressRaw => Counts {
                        tx_pkts: 1,
                        tx_bytes: *bytes,
                        ..Counts::default()
                    },
                };
                after.totals += passed;
                *expected.entry(flow.clone()).or_default() += passed;
                0
            }
            Outcome::Fragment => {
                after.uncounted.fragments += 1;
                1
            }
            Outcome::Multicast => {
                after.uncounted.multicast += 1;
                2
            }
            Outcome::Malformed => {
                after.uncounted.malformed += 1;
                3
            }
            Outcome::NotTunnel => {
                after.uncounted.not_tunnel += 1;
                4
            }
        };
        seen[kind] += 1;
        assert_eq!(
            rig.tally(),
            after,
            "packet {number}, {side:?}, {outcome:?}: {frame:02x?}"
        );
    }
    let counted = rig.flows();
    assert_eq!(counted.len(), expected.len());
    for (flow, counts) in counted {
        assert_eq!(expected.get(&flow), Some(&counts), "{flow:?}");
    }
    // Nothing of this is rare, or little would have been compared.
    let least = packets / 100;
    let multicast = if setup.multicast { 0 } else { least };
    for (count, least) in seen
        .into_iter()
        .zip([10 * least, least, multicast, least, least])
    {
        assert!(count >= least, "{seen:?} of {packets}");
    }
}
