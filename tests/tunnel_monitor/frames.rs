//! Packets of tunnels, put together from the inside out, and byte by byte so that anything can be wrong.

use std::net::{Ipv4Addr, Ipv6Addr};

pub const TEB: u16 = 0x6558;
pub const IPV4: u16 = 0x0800;
pub const IPV6: u16 = 0x86dd;

pub const UDP: u8 = 17;
pub const GRE: u8 = 47;
pub const IPIP: u8 = 4;
pub const SIT: u8 = 41;

/// A frame with these tags, the outer one first.
pub fn ethernet(destination: [u8; 6], tags: &[u16], ether_type: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = [&destination[..], &[2, 0, 0, 0, 0, 2]].concat();
    for tag in tags {
        frame.extend(tag.to_be_bytes());
        frame.extend([0, 7]);
    }
    frame.extend(ether_type.to_be_bytes());
    frame.extend(payload);
    frame
}

#[derive(Clone, Debug)]
pub struct Ipv4 {
    pub source: Ipv4Addr,
    pub destination: Ipv4Addr,
    /// Words of options.
    pub options: u8,
    /// Flags and offset.
    pub fragment: u16,
    pub protocol: u8,
}

impl Ipv4 {
    pub fn with(&self, payload: &[u8]) -> Vec<u8> {
        let header = 20 + 4 * usize::from(self.options);
        let mut packet = vec![0x45 + self.options, 0];
        packet.extend(((header + payload.len()) as u16).to_be_bytes());
        packet.extend([0, 1]);
        packet.extend(self.fragment.to_be_bytes());
        packet.extend([64, self.protocol, 0, 0]);
        packet.extend(self.source.octets());
        packet.extend(self.destination.octets());
        packet.resize(header, 1);
        packet.extend(payload);
        packet
    }
}

pub fn ipv6(source: Ipv6Addr, destination: Ipv6Addr, next: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend((payload.len() as u16).to_be_bytes());
    packet.extend([next, 64]);
    packet.extend(source.octets());
    packet.extend(destination.octets());
    packet.extend(payload);
    packet
}

/// An IPv6 extension header of eight bytes and as many units as `length` says more; of a fragment header
/// those are two bytes of offset and flags.
pub fn extension(next: u8, length: u8, rest: [u8; 2], units: usize, payload: &[u8]) -> Vec<u8> {
    let mut header = vec![next, length, rest[0], rest[1], 0, 0, 0, 0];
    header.resize(header.len() + units, 0);
    header.extend(payload);
    header
}

pub fn udp(destination: u16, payload: &[u8]) -> Vec<u8> {
    let mut datagram = vec![0xc0, 0x01];
    datagram.extend(destination.to_be_bytes());
    datagram.extend(((8 + payload.len()) as u16).to_be_bytes());
    datagram.extend([0, 0]);
    datagram.extend(payload);
    datagram
}

pub fn vxlan(flags: u8, vni: u32, frame: &[u8]) -> Vec<u8> {
    let mut packet = vec![flags, 0, 0, 0];
    packet.extend((vni << 8).to_be_bytes());
    packet.extend(frame);
    packet
}

/// With so many words of options.
pub fn geneve(first: u8, vni: u32, protocol: u16, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![first, 0];
    packet.extend(protocol.to_be_bytes());
    packet.extend((vni << 8).to_be_bytes());
    packet.resize(8 + 4 * usize::from(first & 0x3f), 0xa5);
    packet.extend(payload);
    packet
}

/// With the fields that its flags say.
pub fn gre(flags: u16, key: u32, protocol: u16, payload: &[u8]) -> Vec<u8> {
    let mut packet = flags.to_be_bytes().to_vec();
    packet.extend(protocol.to_be_bytes());
    if flags & 0x8000 != 0 {
        packet.extend([0xa5; 4]);
    }
    if flags & 0x2000 != 0 {
        packet.extend(key.to_be_bytes());
    }
    if flags & 0x1000 != 0 {
        packet.extend([0x5a; 4]);
    }
    packet.extend(payload);
    packet
}
