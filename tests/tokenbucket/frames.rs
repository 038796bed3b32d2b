//! The frames that the tests send.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use testbed::packet::{Mac, Packet};

use crate::rig::LEAST;

pub const A: Mac = [2, 0, 0, 0, 0, 1];
pub const B: Mac = [2, 0, 0, 0, 0, 2];

pub fn ip(text: &str) -> IpAddr {
    text.parse()
        .unwrap_or_else(|_| panic!("{text} is no address"))
}

pub fn between(source: &str, destination: &str) -> Packet {
    let ethernet = Packet::ethernet(A, B);
    match (ip(source), ip(destination)) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => ethernet.ipv4(source, destination),
        (IpAddr::V6(source), IpAddr::V6(destination)) => ethernet.ipv6(source, destination),
        other => panic!("no packet goes between {other:?}"),
    }
}

/// A source that has no number but this; every third of them by IPv6.
pub fn source(number: u32) -> IpAddr {
    match number % 3 {
        0 => Ipv6Addr::from(0x2001_0db8 << 96 | u128::from(number) << 64).into(),
        _ => Ipv4Addr::from(0x0a00_0000 | number).into(),
    }
}

/// Some packet with this source, 64 bytes.
pub fn from(source: impl Into<IpAddr>) -> Vec<u8> {
    let ethernet = Packet::ethernet(A, B);
    let packet = match source.into() {
        IpAddr::V4(source) => ethernet.ipv4(source, [192, 0, 2, 1]),
        IpAddr::V6(source) => ethernet.ipv6(source, [0x2001, 0xdb8, 0, 0, 0, 0, 0, 0xffff]),
    };
    let mut frame = packet.udp(40_000, 53).build();
    frame.resize(frame.len().max(LEAST), 0);
    frame
}
