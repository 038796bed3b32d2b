//! Who sends to whom, for a line in a list. No verdict depends on it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::mac::Mac;

/// Both ends of a packet, and what it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoints {
    /// Address and port, as far as there are any; else of the link.
    pub source: String,
    /// Likewise.
    pub destination: String,
    /// "TCP", or what else there is to say in a word.
    pub protocol: String,
}

const VLANS: [u16; 2] = [0x8100, 0x88a8];

impl Endpoints {
    /// Of an Ethernet frame, or of as much of one as there is.
    pub fn of(frame: &[u8]) -> Endpoints {
        let mut at = 12;
        let mut ether_type = u16_at(frame, at);
        for _ in 0..2 {
            if ether_type.is_some_and(|it| VLANS.contains(&it)) {
                at += 4;
                ether_type = u16_at(frame, at);
            }
        }
        let packet = frame.get(at + 2..).unwrap_or_default();
        let of_ip = match ether_type {
            Some(0x0800) => of_ipv4(packet),
            Some(0x86dd) => of_ipv6(packet),
            _ => None,
        };
        of_ip.unwrap_or_else(|| Endpoints {
            source: mac(frame, 6),
            destination: mac(frame, 0),
            protocol: match ether_type {
                Some(0x0800) => "IPv4?".to_owned(),
                Some(0x86dd) => "IPv6?".to_owned(),
                Some(0x0806) => "ARP".to_owned(),
                Some(other) => format!("{other:#06x}"),
                None => "?".to_owned(),
            },
        })
    }
}

fn of_ipv4(packet: &[u8]) -> Option<Endpoints> {
    let header = packet.first_chunk::<20>()?;
    let length = usize::from(header[0] & 0xf) * 4;
    let [source, destination] = [12, 16].map(|at| {
        let [a, b, c, d] = [0, 1, 2, 3].map(|byte| header[at + byte]);
        IpAddr::from(Ipv4Addr::new(a, b, c, d))
    });
    if header[0] >> 4 != 4 || length < 20 {
        return None;
    }
    let is_later = u16::from_be_bytes([header[6], header[7]]) & 0x1fff > 0;
    let behind = packet.get(length..).filter(|_| !is_later);
    Some(of_transport(source, destination, header[9], behind))
}

fn of_ipv6(packet: &[u8]) -> Option<Endpoints> {
    let header = packet.first_chunk::<40>()?;
    let [source, destination] = [8, 24].map(|at| {
        let mut octets = [0; 16];
        octets.copy_from_slice(&header[at..at + 16]);
        IpAddr::from(Ipv6Addr::from(octets))
    });
    if header[0] >> 4 != 6 {
        return None;
    }
    let behind = Some(&packet[40..]);
    Some(of_transport(source, destination, header[6], behind))
}

fn of_transport(
    source: IpAddr,
    destination: IpAddr,
    protocol: u8,
    behind: Option<&[u8]>,
) -> Endpoints {
    let name = match protocol {
        1 => "ICMP".to_owned(),
        2 => "IGMP".to_owned(),
        6 => "TCP".to_owned(),
        17 => "UDP".to_owned(),
        58 => "ICMPv6".to_owned(),
        132 => "SCTP".to_owned(),
        other => format!("ip {other}"),
    };
    let ports = behind.and_then(|behind| Some([u16_at(behind, 0)?, u16_at(behind, 2)?]));
    let [source, destination] = match (protocol, ports) {
        (6 | 17 | 132, Some([from, to])) => [
            SocketAddr::new(source, from).to_string(),
            SocketAddr::new(destination, to).to_string(),
        ],
        _ => [source.to_string(), destination.to_string()],
    };
    Endpoints {
        source,
        destination,
        protocol: name,
    }
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    let two = bytes.get(at..at + 2)?;
    Some(u16::from_be_bytes([two[0], two[1]]))
}

fn mac(frame: &[u8], at: usize) -> String {
    match frame.get(at..at + 6) {
        Some(&[a, b, c, d, e, f]) => Mac::from([a, b, c, d, e, f]).to_string(),
        _ => "?".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use testbed::packet::Packet;

    fn shown(frame: &[u8]) -> String {
        let Endpoints {
            source,
            destination,
            protocol,
        } = Endpoints::of(frame);
        format!("{source} > {destination} {protocol}")
    }

    #[test]
    fn both_ends_are_shown_as_far_as_they_are_there() {
        let frame = || Packet::ethernet([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);
        let udp = frame().ipv4([192, 0, 2, 1], [192, 0, 2, 2]).udp(40000, 53);
        let udp = udp.payload(b"?").build();
        assert_eq!(shown(&udp), "192.0.2.1:40000 > 192.0.2.2:53 UDP");
        assert_eq!(shown(&udp[..34]), "192.0.2.1 > 192.0.2.2 UDP");
        assert_eq!(
            shown(&udp[..30]),
            "02:00:00:00:00:01 > 02:00:00:00:00:02 IPv4?"
        );
        assert_eq!(shown(&[]), "? > ? ?");
        let tagged = frame().vlan(5).ipv4([192, 0, 2, 1], [192, 0, 2, 2]);
        let tagged = tagged.udp(40000, 53).payload(b"?").build();
        assert_eq!(shown(&tagged), "192.0.2.1:40000 > 192.0.2.2:53 UDP");
        let mut later = udp.clone();
        later[21] = 1; // a fragment behind the first
        assert_eq!(shown(&later), "192.0.2.1 > 192.0.2.2 UDP");
    }
}
