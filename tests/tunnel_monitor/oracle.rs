//! What an independent reader makes of a packet: link, IP and extension headers by etherparse, tunnels by
//! the letter of their RFCs.

use std::net::IpAddr;

use etherparse::{
    Ethernet2HeaderSlice, IpAuthHeaderSlice, IpNumber, Ipv4HeaderSlice, Ipv6FragmentHeaderSlice,
    Ipv6HeaderSlice, Ipv6RawExtHeaderSlice, SingleVlanHeaderSlice,
};
use netbpf::tunnel_monitor::{Encap, Flow, Inner, Outer, Setup};

use crate::frames::{GRE, IPIP, IPV4, IPV6, SIT, TEB, UDP};
use crate::rig::Side;

/// Headers are looked for in so many bytes.
const MOST: usize = 1024;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// And bytes on the wire.
    Counted(Flow, u64),
    Fragment,
    Multicast,
    Malformed,
    NotTunnel,
}

struct Layer {
    /// Where the IP header begins.
    network: usize,
    /// Source and destination.
    ends: Option<[IpAddr; 2]>,
    tag_bytes: usize,
    /// Where what follows the IP header (and no extension) begins.
    behind: usize,
    /// Of the IP packet.
    end: usize,
    next: u8,
    is_fragment: bool,
}

/// Of what begins at `at`, with an Ethernet header where that is the protocol. `None`: it contradicts
/// itself, or ends too early.
fn layer(frame: &[u8], at: usize, end: usize, protocol: u16) -> Option<Layer> {
    let mut rest = frame.get(at..)?;
    let (mut protocol, mut tag_bytes) = (protocol, 0);
    if protocol == TEB {
        let ethernet = Ethernet2HeaderSlice::from_slice(rest).ok()?;
        protocol = ethernet.ether_type().0;
        rest = &rest[14..];
        while tag_bytes < 8 && (protocol == 0x8100 || protocol == 0x88a8) {
            let tag = SingleVlanHeaderSlice::from_slice(rest).ok()?;
            protocol = tag.ether_type().0;
            rest = &rest[4..];
            tag_bytes += 4;
        }
    }
    let network = frame.len() - rest.len();
    let mut layer = Layer {
        network,
        ends: None,
        tag_bytes,
        behind: network,
        end,
        next: 0,
        is_fragment: false,
    };
    match protocol {
        IPV4 => {
            let header = Ipv4HeaderSlice::from_slice(rest).ok()?;
            layer.ends = Some([
                header.source_addr().into(),
                header.destination_addr().into(),
            ]);
            layer.behind += usize::from(header.ihl()) * 4;
            if header.total_len() != 0 {
                layer.end = end.min(network + usize::from(header.total_len()));
            }
            layer.next = header.protocol().0;
            layer.is_fragment = header.is_fragmenting_payload();
        }
        IPV6 => {
            let header = Ipv6HeaderSlice::from_slice(rest).ok()?;
            layer.ends = Some([
                header.source_addr().into(),
                header.destination_addr().into(),
            ]);
            layer.behind += 40;
            if header.payload_length() != 0 {
                layer.end = end.min(network + 40 + usize::from(header.payload_length()));
            }
            layer.next = header.next_header().0;
        }
        _ => {}
    }
    (layer.behind <= layer.end).then_some(layer)
}

/// Goes over the extension headers of the outer packet. `None`: they are cut, or too many.
fn pass_extensions(frame: &[u8], layer: &mut Layer) -> Option<()> {
    for passed in 0..=8 {
        let rest = frame.get(layer.behind..).unwrap_or_default();
        // Lengths may go beyond the frame: the next header is missed, then.
        let mut padded = rest.to_vec();
        padded.resize(rest.len() + 2048, 0);
        let (next, length) = match IpNumber(layer.next) {
            IpNumber::IPV6_HEADER_HOP_BY_HOP
            | IpNumber::IPV6_ROUTE_HEADER
            | IpNumber::IPV6_DESTINATION_OPTIONS => {
                let header = Ipv6RawExtHeaderSlice::from_slice(&padded).ok()?;
                (header.next_header(), header.slice().len())
            }
            IpNumber::AUTHENTICATION_HEADER => match IpAuthHeaderSlice::from_slice(&padded) {
                Ok(header) => (header.next_header(), header.slice().len()),
                // Shorter than its fixed fields, which says nothing of what follows.
                Err(_) => (IpNumber(padded[0]), (usize::from(padded[1]) + 2) * 4),
            },
            IpNumber::IPV6_FRAGMENTATION_HEADER => {
                let header = Ipv6FragmentHeaderSlice::from_slice(rest).ok()?;
                if passed == 8 {
                    return None;
                }
                layer.is_fragment |= header.is_fragmenting_payload();
                if header.fragment_offset().value() != 0 {
                    layer.next = header.next_header().0;
                    return Some(());
                }
                (header.next_header(), 8)
            }
            _ => return Some(()),
        };
        if rest.len() < 8 || passed == 8 {
            return None;
        }
        (layer.next, layer.behind) = (next.0, layer.behind + length);
    }
    None
}

/// Where what is inside begins, where the outer packet ends, and EtherType, encapsulation and number.
type Found = (usize, usize, u16, Encap, u32);

fn be16(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

fn be32(bytes: &[u8], at: usize) -> u32 {
    u32::from(be16(bytes, at)) << 16 | u32::from(be16(bytes, at + 2))
}

fn tunnel(frame: &[u8], layer: &Layer, setup: &Setup) -> Option<Found> {
    let (mut at, mut end) = (layer.behind, layer.end);
    let bytes = &frame[at..];
    let (protocol, encap, vni) = match layer.next {
        IPIP => (IPV4, Encap::Ipip, 0),
        SIT => (IPV6, Encap::Sit, 0),
        GRE => {
            let flags = be16(bytes, 0);
            if flags & 0x4c00 != 0 {
                return None;
            }
            let [checksum, key, sequence] = [0x8000, 0x2000, 0x1000].map(|bit| flags & bit != 0);
            let protocol = be16(bytes, 2);
            at += 4 + 4 * usize::from(checksum);
            let number = if key {
                let field = frame.get(at..at + 4)?;
                at += 4;
                be32(field, 0)
            } else {
                0
            };
            at += 4 * usize::from(sequence);
            if setup.nvgre && protocol == TEB && key && !checksum && !sequence {
                (protocol, Encap::Nvgre, number >> 8)
            } else {
                (protocol, Encap::Gre, number)
            }
        }
        _ => {
            let length = usize::from(be16(bytes, 4));
            if length != 0 {
                end = end.min(at + length);
            }
            at += 16;
            let header = frame.get(at - 8..at)?;
            let vni = be32(header, 4) >> 8;
            if setup.ports.contains(&be16(bytes, 2)) {
                if header[0] & 8 == 0 {
                    return None;
                }
                (TEB, Encap::Vxlan, vni)
            } else {
                if header[0] >> 6 != 0 {
                    return None;
                }
                at += usize::from(header[0] & 0x3f) * 4;
                (be16(header, 2), Encap::Geneve, vni)
            }
        }
    };
    (at <= end && at < MOST).then_some((at, end, protocol, encap, vni))
}

fn is_multicast(frame: &[u8], is_raw: bool, ends: [IpAddr; 2]) -> bool {
    match ends[1] {
        _ if !is_raw => frame[0] & 1 != 0,
        IpAddr::V4(ip) => ip.is_multicast() || ip.is_broadcast(),
        IpAddr::V6(ip) => ip.is_multicast(),
    }
}

/// What has to become of a packet.
pub fn outcome(frame: &[u8], side: Side, setup: &Setup) -> Outcome {
    let is_raw = matches!(side, Side::IngressRaw | Side::EgressRaw);
    // A test run takes the protocol from where an Ethernet header would have it.
    let first = match is_raw {
        true if be16(frame, 12) == TEB => 0,
        true => be16(frame, 12),
        false => TEB,
    };
    let Some(mut outer) = layer(frame, 0, frame.len(), first) else {
        return Outcome::NotTunnel;
    };
    let Some(outer_ends) = outer.ends else {
        return Outcome::NotTunnel;
    };
    if outer_ends[0].is_ipv6() {
        let before = outer.behind;
        let is_read = pass_extensions(frame, &mut outer);
        if is_read.is_none() || (outer.behind != before && outer.behind >= MOST) {
            return Outcome::NotTunnel;
        }
    }
    if ![UDP, GRE, IPIP, SIT].contains(&outer.next) {
        return Outcome::NotTunnel;
    }
    if outer.is_fragment {
        return Outcome::Fragment;
    }
    let behind = frame.get(outer.behind..).unwrap_or_default();
    let is_ours = match outer.next {
        _ if behind.len() < 8 => outer.next != UDP,
        UDP => be16(behind, 2) == 6081 || setup.ports.contains(&be16(behind, 2)),
        GRE => behind[1] & 7 == 0,
        _ => true,
    };
    if !is_ours {
        return Outcome::NotTunnel;
    }
    if behind.len() < 8 {
        return Outcome::Malformed;
    }
    if !setup.multicast && is_multicast(frame, is_raw, outer_ends) {
        return Outcome::Multicast;
    }
    let Some((at, end, protocol, encap, vni)) = tunnel(frame, &outer, setup) else {
        return Outcome::Malformed;
    };
    let Some(inner) = layer(frame, at, end, protocol) else {
        return Outcome::Malformed;
    };
    if inner.network >= MOST {
        return Outcome::Malformed;
    }
    let is_egress = matches!(side, Side::Egress | Side::EgressRaw);
    let order = |[source, destination]: [IpAddr; 2]| match is_egress {
        true => (source, destination),
        false => (destination, source),
    };
    let flow = Flow {
        encap,
        vni,
        outer: match order(outer_ends) {
            (IpAddr::V4(local), IpAddr::V4(remote)) => Outer::V4 { local, remote },
            (IpAddr::V6(local), IpAddr::V6(remote)) => Outer::V6(Box::new([local, remote])),
            other => panic!("{other:?}"),
        },
        inner: match inner.ends.map(order) {
            None => Inner::NotIp,
            Some((IpAddr::V4(local), IpAddr::V4(remote))) => Inner::V4 { local, remote },
            Some((IpAddr::V6(local), IpAddr::V6(remote))) => Inner::V6(Box::new([local, remote])),
            other => panic!("{other:?}"),
        },
    };
    Outcome::Counted(flow, (frame.len() - outer.tag_bytes) as u64)
}
