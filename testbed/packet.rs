//! Frames, built header by header from the outside in; lengths, protocol numbers and checksums
//! follow from what comes next. What must be wrong is made wrong in the bytes afterwards.
//!
//! ```
//! use testbed::packet::Packet;
//! let dns_query = Packet::ethernet([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2])
//!     .vlan(5)
//!     .ipv4([172, 16, 1, 5], [172, 16, 1, 100])
//!     .udp(40000, 53)
//!     .payload(b"?")
//!     .build();
//! assert_eq!(dns_query.len(), 14 + 4 + 20 + 8 + 1);
//! ```

use std::net::{Ipv4Addr, Ipv6Addr};

/// A hardware address.
pub type Mac = [u8; 6];

/// To everybody.
pub const BROADCAST: Mac = [0xff; 6];

/// EtherType of frames that carry nothing known (IEEE 802, local experiments).
const NOTHING_KNOWN: u16 = 0x88b5;
/// Protocol number of packets that carry nothing known (RFC 3692, experiments).
const NO_PROTOCOL: u8 = 253;

const HOP_BY_HOP: u8 = 0;
const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const ICMPV6: u8 = 58;
const DESTINATION_OPTIONS: u8 = 60;

/// An IPv4 header; [`Ipv4::between`] gives the usual one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ipv4 {
    /// Sender.
    pub source: Ipv4Addr,
    /// Receiver.
    pub destination: Ipv4Addr,
    /// DSCP and ECN.
    pub tos: u8,
    /// Identification; what the fragments of one packet share.
    pub id: u16,
    /// DF.
    pub dont_fragment: bool,
    /// MF.
    pub more_fragments: bool,
    /// In units of 8 bytes.
    pub fragment_offset: u16,
    /// Hops left.
    pub ttl: u8,
    /// `None`: what comes next says it. A later fragment needs it.
    pub protocol: Option<u8>,
    /// At most 40 bytes; filled up to a multiple of four with ends of list.
    pub options: Vec<u8>,
}

impl Ipv4 {
    /// TTL 64, no options, no fragment.
    pub fn between(source: impl Into<Ipv4Addr>, destination: impl Into<Ipv4Addr>) -> Ipv4 {
        Ipv4 {
            source: source.into(),
            destination: destination.into(),
            tos: 0,
            id: 0,
            dont_fragment: false,
            more_fragments: false,
            fragment_offset: 0,
            ttl: 64,
            protocol: None,
            options: Vec::new(),
        }
    }
}

/// An IPv6 header; [`Ipv6::between`] gives the usual one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ipv6 {
    /// Sender.
    pub source: Ipv6Addr,
    /// Receiver.
    pub destination: Ipv6Addr,
    /// DSCP and ECN.
    pub traffic_class: u8,
    /// 20 bits.
    pub flow_label: u32,
    /// Hops left; neighbour discovery is only valid with 255.
    pub hop_limit: u8,
    /// `None`: what comes next says it.
    pub next: Option<u8>,
}

impl Ipv6 {
    /// Hop limit 64.
    pub fn between(source: impl Into<Ipv6Addr>, destination: impl Into<Ipv6Addr>) -> Ipv6 {
        Ipv6 {
            source: source.into(),
            destination: destination.into(),
            traffic_class: 0,
            flow_label: 0,
            hop_limit: 64,
            next: None,
        }
    }
}

/// TCP flag.
pub const FIN: u8 = 0x01;
/// TCP flag.
pub const SYN: u8 = 0x02;
/// TCP flag.
pub const RST: u8 = 0x04;
/// TCP flag.
pub const ACK: u8 = 0x10;

/// A TCP header; [`Tcp::between`] gives the usual one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tcp {
    /// Sender's port.
    pub source: u16,
    /// Receiver's port.
    pub destination: u16,
    /// Of the first byte.
    pub sequence: u32,
    /// Of the next byte expected.
    pub acknowledgment: u32,
    /// [`SYN`] and the like, or-ed.
    pub flags: u8,
    /// Not scaled.
    pub window: u16,
    /// At most 40 bytes; filled up to a multiple of four with ends of list.
    pub options: Vec<u8>,
}

impl Tcp {
    /// ACK set, no options.
    pub fn between(source: u16, destination: u16) -> Tcp {
        Tcp {
            source,
            destination,
            sequence: 1,
            acknowledgment: 1,
            flags: ACK,
            window: 65535,
            options: Vec::new(),
        }
    }
}

#[derive(Clone, Debug)]
enum Layer {
    Ethernet {
        source: Mac,
        destination: Mac,
    },
    Tag {
        ether_type: u16,
        control: u16,
    },
    Arp {
        operation: u16,
        sender: (Mac, Ipv4Addr),
        target: (Mac, Ipv4Addr),
    },
    Ipv4(Ipv4),
    Ipv6(Ipv6),
    /// Everything behind the next header and length bytes.
    Extension {
        number: u8,
        body: Vec<u8>,
    },
    Fragment {
        offset: u16,
        more: bool,
        id: u32,
    },
    Udp {
        source: u16,
        destination: u16,
    },
    Tcp(Tcp),
    /// Both versions of it, told apart by the number.
    Icmp {
        number: u8,
        kind: u8,
        code: u8,
        rest: [u8; 4],
    },
    Payload(Vec<u8>),
}

/// A packet in the making: a list of headers, then [`Packet::build`].
#[derive(Clone, Debug)]
pub struct Packet {
    layers: Vec<Layer>,
}

impl Packet {
    /// An Ethernet frame.
    pub fn ethernet(source: Mac, destination: Mac) -> Packet {
        Packet {
            layers: vec![Layer::Ethernet {
                source,
                destination,
            }],
        }
    }

    /// A packet without a link header, as tun and ppp carry it.
    pub fn without_link() -> Packet {
        Packet { layers: Vec::new() }
    }

    fn then(mut self, layer: Layer) -> Packet {
        self.layers.push(layer);
        self
    }

    /// An 802.1Q tag, priority 0.
    pub fn vlan(self, id: u16) -> Packet {
        self.then(Layer::Tag {
            ether_type: 0x8100,
            control: id & 0xfff,
        })
    }

    /// An 802.1ad (service) tag, priority 0: the outer one of QinQ.
    pub fn service_vlan(self, id: u16) -> Packet {
        self.then(Layer::Tag {
            ether_type: 0x88a8,
            control: id & 0xfff,
        })
    }

    /// An ARP request for `target`.
    pub fn arp_request(self, sender: (Mac, Ipv4Addr), target: Ipv4Addr) -> Packet {
        self.then(Layer::Arp {
            operation: 1,
            sender,
            target: ([0; 6], target),
        })
    }

    /// An ARP reply.
    pub fn arp_reply(self, sender: (Mac, Ipv4Addr), target: (Mac, Ipv4Addr)) -> Packet {
        self.then(Layer::Arp {
            operation: 2,
            sender,
            target,
        })
    }

    /// A usual IPv4 header.
    pub fn ipv4(self, source: impl Into<Ipv4Addr>, destination: impl Into<Ipv4Addr>) -> Packet {
        self.ipv4_with(Ipv4::between(source, destination))
    }

    /// This IPv4 header.
    pub fn ipv4_with(self, header: Ipv4) -> Packet {
        self.then(Layer::Ipv4(header))
    }

    /// A usual IPv6 header.
    pub fn ipv6(self, source: impl Into<Ipv6Addr>, destination: impl Into<Ipv6Addr>) -> Packet {
        self.ipv6_with(Ipv6::between(source, destination))
    }

    /// This IPv6 header.
    pub fn ipv6_with(self, header: Ipv6) -> Packet {
        self.then(Layer::Ipv6(header))
    }

    /// An IPv6 hop-by-hop header; `options` are filled up with zeros to a multiple of eight bytes,
    /// the header's own two counted.
    pub fn hop_by_hop(self, options: &[u8]) -> Packet {
        self.extension(HOP_BY_HOP, options)
    }

    /// An IPv6 routing header; `body` begins with the routing type.
    pub fn routing(self, body: &[u8]) -> Packet {
        self.extension(ROUTING, body)
    }

    /// An IPv6 destination options header.
    pub fn destination_options(self, options: &[u8]) -> Packet {
        self.extension(DESTINATION_OPTIONS, options)
    }

    /// An authentication header (RFC 4302); its length counts in units of four bytes.
    pub fn authentication(self, check_value: &[u8]) -> Packet {
        // Two reserved bytes, then index and sequence number.
        let body = [&[0, 0, 0, 0, 0, 1, 0, 0, 0, 1], check_value].concat();
        self.extension(AUTHENTICATION, &body)
    }

    fn extension(self, number: u8, body: &[u8]) -> Packet {
        self.then(Layer::Extension {
            number,
            body: body.to_vec(),
        })
    }

    /// An IPv6 fragment header; `offset` in units of eight bytes.
    pub fn fragment(self, offset: u16, more: bool, id: u32) -> Packet {
        self.then(Layer::Fragment { offset, more, id })
    }

    /// A UDP header.
    pub fn udp(self, source: u16, destination: u16) -> Packet {
        self.then(Layer::Udp {
            source,
            destination,
        })
    }

    /// A usual TCP header.
    pub fn tcp(self, source: u16, destination: u16) -> Packet {
        self.tcp_with(Tcp::between(source, destination))
    }

    /// This TCP header.
    pub fn tcp_with(self, header: Tcp) -> Packet {
        self.then(Layer::Tcp(header))
    }

    /// An ICMP header; `rest` are its last four bytes.
    pub fn icmp(self, kind: u8, code: u8, rest: [u8; 4]) -> Packet {
        self.then(Layer::Icmp {
            number: ICMP,
            kind,
            code,
            rest,
        })
    }

    /// An ICMPv6 header; `rest` are its last four bytes.
    pub fn icmpv6(self, kind: u8, code: u8, rest: [u8; 4]) -> Packet {
        self.then(Layer::Icmp {
            number: ICMPV6,
            kind,
            code,
            rest,
        })
    }

    /// Bytes behind the headers.
    pub fn payload(self, bytes: &[u8]) -> Packet {
        self.then(Layer::Payload(bytes.to_vec()))
    }

    /// VXLAN (RFC 7348, 5) behind a UDP header: the number of a network, and a frame in it.
    pub fn vxlan(self, network: u32, inner: &[u8]) -> Packet {
        // The flag of a valid number, the number, a reserved byte.
        let header = [0x0800_0000_u32, network << 8].map(u32::to_be_bytes);
        self.payload(&[&header.concat(), inner].concat())
    }

    /// That many bytes behind the headers, their values counting up.
    pub fn payload_of(self, length: usize) -> Packet {
        self.then(Layer::Payload((0..length).map(|at| at as u8).collect()))
    }

    /// The bytes, from the innermost header outwards.
    pub fn build(&self) -> Vec<u8> {
        let mut inner = Inner {
            bytes: Vec::new(),
            ether_type: NOTHING_KNOWN,
            protocol: NO_PROTOCOL,
        };
        for (at, layer) in self.layers.iter().enumerate().rev() {
            let outer = self.layers.get(..at).unwrap_or_default();
            inner = inner.within(layer, outer);
        }
        inner.bytes
    }
}

/// What is inside the header that is being written, and how that header has to call it.
struct Inner {
    bytes: Vec<u8>,
    ether_type: u16,
    protocol: u8,
}

impl Inner {
    fn within(self, layer: &Layer, outer: &[Layer]) -> Inner {
        let mut ether_type = NOTHING_KNOWN;
        let mut protocol = NO_PROTOCOL;
        let header = match layer {
            Layer::Ethernet {
                source,
                destination,
            } => [&destination[..], source, &self.ether_type.to_be_bytes()].concat(),
            Layer::Tag {
                ether_type: own,
                control,
            } => {
                ether_type = *own;
                words(&[*control, self.ether_type])
            }
            Layer::Arp {
                operation,
                sender,
                target,
            } => {
                ether_type = 0x0806;
                // Ethernet and IPv4, addresses of six and four bytes.
                let mut header = words(&[1, 0x0800, 0x0604, *operation]);
                for (mac, ip) in [sender, target] {
                    header.extend(mac.iter().chain(&ip.octets()));
                }
                header
            }
            Layer::Ipv4(ipv4) => {
                ether_type = 0x0800;
                // IPv4 in IP.
                protocol = 4;
                self.ipv4_header(ipv4)
            }
            Layer::Ipv6(ipv6) => {
                ether_type = 0x86dd;
                // IPv6 in IP.
                protocol = 41;
                self.ipv6_header(ipv6)
            }
            Layer::Extension { number, body } => {
                protocol = *number;
                self.extension_header(*number, body)
            }
            Layer::Fragment { offset, more, id } => {
                protocol = FRAGMENT;
                let place = offset << 3 | u16::from(*more);
                [
                    &[self.protocol, 0],
                    &place.to_be_bytes()[..],
                    &id.to_be_bytes(),
                ]
                .concat()
            }
            Layer::Udp {
                source,
                destination,
            } => {
                protocol = UDP;
                let length = (8 + self.bytes.len()) as u16;
                let mut header = words(&[*source, *destination, length, 0]);
                let sum = match self.transport_checksum(UDP, &header, outer) {
                    // Zero says "no checksum" (RFC 768).
                    0 => 0xffff,
                    sum => sum,
                };
                put(&mut header, 6, sum);
                header
            }
            Layer::Tcp(tcp) => {
                protocol = TCP;
                let mut header = tcp_header(tcp);
                let sum = self.transport_checksum(TCP, &header, outer);
                put(&mut header, 16, sum);
                header
            }
            Layer::Icmp {
                number,
                kind,
                code,
                rest,
            } => {
                protocol = *number;
                let mut header = [&[*kind, *code, 0, 0], &rest[..]].concat();
                let sum = if *number == ICMP {
                    checksum(&[&header, &self.bytes])
                } else {
                    self.transport_checksum(ICMPV6, &header, outer)
                };
                put(&mut header, 2, sum);
                header
            }
            Layer::Payload(bytes) => bytes.clone(),
        };
        Inner {
            bytes: [header, self.bytes].concat(),
            ether_type,
            protocol,
        }
    }

    fn ipv4_header(&self, ipv4: &Ipv4) -> Vec<u8> {
        let options = padded(&ipv4.options, 0, 4);
        let length = 20 + options.len();
        let flags = u16::from(ipv4.dont_fragment) << 14 | u16::from(ipv4.more_fragments) << 13;
        let protocol = ipv4.protocol.unwrap_or(self.protocol);
        let mut header = words(&[
            u16::from_be_bytes([0x40 | (length / 4) as u8, ipv4.tos]),
            (length + self.bytes.len()) as u16,
            ipv4.id,
            flags | ipv4.fragment_offset,
            u16::from_be_bytes([ipv4.ttl, protocol]),
            0,
        ]);
        header.extend(ipv4.source.octets());
        header.extend(ipv4.destination.octets());
        header.extend(options);
        let sum = checksum(&[&header]);
        put(&mut header, 10, sum);
        header
    }

    fn ipv6_header(&self, ipv6: &Ipv6) -> Vec<u8> {
        let first = 6 << 28 | u32::from(ipv6.traffic_class) << 20 | ipv6.flow_label;
        let mut header = first.to_be_bytes().to_vec();
        header.extend((self.bytes.len() as u16).to_be_bytes());
        header.extend([ipv6.next.unwrap_or(self.protocol), ipv6.hop_limit]);
        header.extend(ipv6.source.octets());
        header.extend(ipv6.destination.octets());
        header
    }

    fn extension_header(&self, number: u8, body: &[u8]) -> Vec<u8> {
        let body = padded(body, 2, 8);
        let length = 2 + body.len();
        let units = if number == AUTHENTICATION {
            length / 4 - 2
        } else {
            length / 8 - 1
        };
        [&[self.protocol, units as u8], &body[..]].concat()
    }

    /// The checksum with the pseudo header of the IP header nearest outside; 0 without one.
    fn transport_checksum(&self, number: u8, header: &[u8], outer: &[Layer]) -> u16 {
        let length = (header.len() + self.bytes.len()) as u32;
        let tail = [&length.to_be_bytes()[..], &[0, 0, 0, number]].concat();
        let addresses = outer.iter().rev().find_map(|layer| match layer {
            Layer::Ipv4(ip) => Some([ip.source.octets(), ip.destination.octets()].concat()),
            Layer::Ipv6(ip) => Some([ip.source.octets(), ip.destination.octets()].concat()),
            _ => None,
        });
        // IPv4's pseudo header has the same numbers in fewer zeros: the sum is the same.
        addresses.map_or(0, |addresses| {
            checksum(&[&addresses, &tail, header, &self.bytes])
        })
    }
}

fn tcp_header(tcp: &Tcp) -> Vec<u8> {
    let options = padded(&tcp.options, 0, 4);
    let mut header = words(&[tcp.source, tcp.destination]);
    header.extend(tcp.sequence.to_be_bytes());
    header.extend(tcp.acknowledgment.to_be_bytes());
    header.extend([(((20 + options.len()) / 4) << 4) as u8, tcp.flags]);
    // Window, checksum, urgent pointer.
    header.extend(words(&[tcp.window, 0, 0]));
    header.extend(options);
    header
}

/// `bytes` and zeros, so that they and the `before` bytes ahead of them make a multiple of `unit`.
fn padded(bytes: &[u8], before: usize, unit: usize) -> Vec<u8> {
    let mut padded = bytes.to_vec();
    padded.resize((before + bytes.len()).next_multiple_of(unit) - before, 0);
    padded
}

fn words(words: &[u16]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_be_bytes()).collect()
}

/// Writes a checksum into the place that was zero so far.
fn put(header: &mut [u8], at: usize, word: u16) {
    for (byte, value) in header.iter_mut().skip(at).zip(word.to_be_bytes()) {
        *byte = value;
    }
}

/// The Internet checksum (RFC 1071) of the parts in a row; only the last may be of odd length.
fn checksum(parts: &[&[u8]]) -> u16 {
    let mut sum: u32 = 0;
    for pair in parts.iter().flat_map(|part| part.chunks(2)) {
        let high = pair.first().copied().unwrap_or(0);
        let low = pair.get(1).copied().unwrap_or(0);
        sum += u32::from(u16::from_be_bytes([high, low]));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// The frame cut after every possible byte, from `shortest` on to one less than it has.
/// BPF_PROG_TEST_RUN takes 14 bytes or more.
pub fn truncations(frame: &[u8], shortest: usize) -> impl Iterator<Item = &[u8]> {
    (shortest..frame.len()).filter_map(move |length| frame.get(..length))
}

#[cfg(test)]
mod tests {
    use super::*;
    use etherparse::{
        ArpOperation, ArpPacket, IpNumber, Ipv4Extensions, Ipv4Options, Ipv6Extensions,
        Ipv6FragmentHeader, Ipv6RawExtHeader, Ipv6RoutingExtensions, PacketBuilder, SlicedPacket,
    };
    use etherparse::{IpHeaders, Ipv4Header, Ipv6Header, TransportSlice};

    const A: Mac = [2, 0, 0, 0, 0, 1];
    const B: Mac = [2, 0, 0, 0, 0, 2];
    const IP_A: [u8; 4] = [172, 16, 1, 5];
    const IP_B: [u8; 4] = [172, 16, 1, 100];
    const IP6_A: [u16; 8] = [0x2001, 0xdb8, 0, 0, 0, 0, 0, 5];
    const IP6_B: [u16; 8] = [0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x100];

    fn octets(ip: [u16; 8]) -> [u8; 16] {
        Ipv6Addr::from(ip).octets()
    }

    /// What etherparse makes of the same headers.
    macro_rules! oracle {
        ($builder:expr, $payload:expr) => {{
            let builder = $builder;
            let mut bytes = Vec::new();
            builder.write(&mut bytes, $payload).unwrap();
            bytes
        }};
    }

    #[test]
    fn tags_ipv4_and_udp_are_as_etherparse_has_them() {
        for payload in [&b"odd"[..], b"even", b""] {
            let plain = Packet::ethernet(A, B)
                .ipv4(IP_A, IP_B)
                .udp(1000, 53)
                .payload(payload);
            let expected = PacketBuilder::ethernet2(A, B)
                .ipv4(IP_A, IP_B, 64)
                .udp(1000, 53);
            assert_eq!(plain.build(), without_df(oracle!(expected, payload), 14));
        }
        let tagged = Packet::ethernet(A, B)
            .vlan(5)
            .ipv4(IP_A, IP_B)
            .udp(1, 2)
            .build();
        let expected = PacketBuilder::ethernet2(A, B).single_vlan(5.try_into().unwrap());
        assert_eq!(
            tagged,
            without_df(oracle!(expected.ipv4(IP_A, IP_B, 64).udp(1, 2), b""), 18)
        );
        let double = Packet::ethernet(A, B)
            .service_vlan(100)
            .vlan(5)
            .ipv4(IP_A, IP_B)
            .udp(1, 2);
        let (outer, inner) = (100.try_into().unwrap(), 5.try_into().unwrap());
        let expected = PacketBuilder::ethernet2(A, B).double_vlan(outer, inner);
        let expected = oracle!(expected.ipv4(IP_A, IP_B, 64).udp(1, 2), b"");
        assert_eq!(double.build(), without_df(expected, 22));
    }

    /// etherparse's own usual header says DF, ours does not.
    fn without_df(mut frame: Vec<u8>, ip: usize) -> Vec<u8> {
        frame[ip + 6] &= !0x40;
        let (header, _) = Ipv4Header::from_slice(&frame[ip..]).unwrap();
        frame[ip + 10..ip + 12].copy_from_slice(&header.calc_header_checksum().to_be_bytes());
        frame
    }

    #[test]
    fn every_ihl_and_fragment_field_is_as_etherparse_has_it() {
        for words in 0..=10 {
            let ours = Ipv4 {
                tos: 0xb9,
                id: 0x1234,
                dont_fragment: words % 2 == 0,
                more_fragments: words % 3 == 0,
                fragment_offset: words as u16 * 100,
                ttl: 3,
                options: vec![1; words * 4],
                ..Ipv4::between(IP_A, IP_B)
            };
            let packet = Packet::ethernet(A, B)
                .ipv4_with(ours.clone())
                .udp(7, 9)
                .payload(b"abc");
            let mut theirs = Ipv4Header::new(0, 3, IpNumber::UDP, IP_A, IP_B).unwrap();
            theirs.dscp = (0xb9 >> 2).try_into().unwrap();
            theirs.ecn = (0xb9 & 3).try_into().unwrap();
            theirs.identification = 0x1234;
            theirs.dont_fragment = ours.dont_fragment;
            theirs.more_fragments = ours.more_fragments;
            theirs.fragment_offset = ours.fragment_offset.try_into().unwrap();
            theirs.options = Ipv4Options::try_from(&ours.options[..]).unwrap();
            let ip = IpHeaders::Ipv4(theirs, Ipv4Extensions::default());
            let expected = oracle!(PacketBuilder::ethernet2(A, B).ip(ip).udp(7, 9), b"abc");
            assert_eq!(packet.build(), expected, "{words} words of options");
        }
    }

    #[test]
    fn ipv6_and_tcp_are_as_etherparse_has_them() {
        for length in [0, 4, 12, 40] {
            let tcp = Tcp {
                sequence: 0x01020304,
                flags: SYN,
                acknowledgment: 0,
                window: 1000,
                options: vec![1; length],
                ..Tcp::between(40000, 80)
            };
            let packet = Packet::ethernet(A, B)
                .ipv6(IP6_A, IP6_B)
                .tcp_with(tcp)
                .payload(b"odd");
            let expected = PacketBuilder::ethernet2(A, B)
                .ipv6(octets(IP6_A), octets(IP6_B), 64)
                .tcp(40000, 80, 0x01020304, 1000)
                .syn()
                .options_raw(&vec![1; length])
                .unwrap();
            assert_eq!(packet.build(), oracle!(expected, b"odd"));
        }
    }

    #[test]
    fn icmp_arp_and_what_has_no_link_are_as_etherparse_has_them() {
        let packet = Packet::ethernet(A, B)
            .ipv4(IP_A, IP_B)
            .icmp(8, 0, [0, 7, 0, 9])
            .payload(b"x");
        let expected = PacketBuilder::ethernet2(A, B).ipv4(IP_A, IP_B, 64);
        let expected = oracle!(expected.icmpv4_echo_request(7, 9), b"x");
        assert_eq!(packet.build(), without_df(expected, 14));

        let packet = Packet::without_link()
            .ipv6(IP6_A, IP6_B)
            .icmpv6(129, 0, [0, 7, 0, 9]);
        let expected = PacketBuilder::ipv6(octets(IP6_A), octets(IP6_B), 64);
        assert_eq!(
            packet.build(),
            oracle!(expected.icmpv6_echo_reply(7, 9), b"")
        );

        for (operation, target) in [(ArpOperation::REQUEST, [0; 6]), (ArpOperation::REPLY, B)] {
            let packet = Packet::ethernet(A, BROADCAST);
            let packet = match operation {
                ArpOperation::REQUEST => packet.arp_request((A, IP_A.into()), IP_B.into()),
                _ => packet.arp_reply((A, IP_A.into()), (target, IP_B.into())),
            };
            let arp = ArpPacket::new(
                etherparse::ArpHardwareId::ETHERNET,
                etherparse::EtherType::IPV4,
                operation,
                &A,
                &IP_A,
                &target,
                &IP_B,
            );
            let expected = PacketBuilder::ethernet2(A, BROADCAST).arp(arp.unwrap());
            let mut bytes = Vec::new();
            expected.write(&mut bytes).unwrap();
            assert_eq!(packet.build(), bytes);
        }
    }

    #[test]
    fn chains_of_extensions_are_as_etherparse_has_them() {
        let options = [5, 2, 0, 0, 1, 0]; // router alert, padded
        let segments = [0, 0, 0, 0, 0, 0];
        let packet = Packet::ethernet(A, B)
            .ipv6(IP6_A, IP6_B)
            .hop_by_hop(&options)
            .destination_options(&[1, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])
            .routing(&segments)
            .fragment(0, true, 0xdeadbeef)
            .authentication(&[9; 12])
            .udp(1, 2)
            .payload(b"abc");
        let raw = |payload: &[u8]| Ipv6RawExtHeader::new_raw(IpNumber::UDP, payload).unwrap();
        let extensions = Ipv6Extensions {
            hop_by_hop_options: Some(raw(&options)),
            destination_options: Some(raw(&[1, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])),
            routing: Some(Ipv6RoutingExtensions {
                routing: raw(&segments),
                final_destination_options: None,
            }),
            fragment: Some(Ipv6FragmentHeader::new(
                IpNumber::UDP,
                0.try_into().unwrap(),
                true,
                0xdeadbeef,
            )),
            auth: Some(etherparse::IpAuthHeader::new(IpNumber::UDP, 1, 1, &[9; 12]).unwrap()),
        };
        let ip = Ipv6Header {
            hop_limit: 64,
            source: octets(IP6_A),
            destination: octets(IP6_B),
            ..Default::default()
        };
        let ip = IpHeaders::Ipv6(ip, extensions);
        assert_eq!(
            packet.build(),
            oracle!(PacketBuilder::ethernet2(A, B).ip(ip).udp(1, 2), b"abc")
        );
    }

    #[test]
    fn a_udp_checksum_is_never_zero() {
        // The second word of the payload is what makes the sum come out as zero.
        let without = Packet::ethernet(A, B)
            .ipv4(IP_A, IP_B)
            .udp(1, 2)
            .payload(&[0, 0])
            .build();
        let sum = u16::from_be_bytes([without[40], without[41]]);
        let frame = Packet::ethernet(A, B)
            .ipv4(IP_A, IP_B)
            .udp(1, 2)
            .payload(&sum.to_be_bytes());
        assert_eq!(frame.build()[40..42], [0xff, 0xff]);
    }

    #[test]
    fn a_later_fragment_names_what_it_is_part_of() {
        let header = Ipv4 {
            fragment_offset: 185,
            protocol: Some(UDP),
            ..Ipv4::between(IP_A, IP_B)
        };
        let frame = Packet::ethernet(A, B)
            .ipv4_with(header)
            .payload_of(100)
            .build();
        let sliced = SlicedPacket::from_ethernet(&frame).unwrap();
        assert!(sliced.transport.is_none());
        assert!(sliced.is_ip_payload_fragmented());
        assert_eq!(frame[23], UDP);
    }

    #[test]
    fn inner_packets_have_their_own_pseudo_header() {
        let frame = Packet::without_link()
            .ipv4(IP_B, IP_A)
            .ipv6(IP6_A, IP6_B)
            .udp(1, 2)
            .payload(b"x")
            .build();
        assert_eq!(frame[9], 41);
        let inner = Packet::without_link()
            .ipv6(IP6_A, IP6_B)
            .udp(1, 2)
            .payload(b"x")
            .build();
        assert_eq!(frame[20..], inner);
        let sliced = SlicedPacket::from_ip(&inner).unwrap();
        assert!(matches!(sliced.transport, Some(TransportSlice::Udp(_))));
    }

    #[test]
    fn truncations_leave_the_whole_out() {
        let lengths: Vec<usize> = truncations(&[0; 17], 14).map(<[u8]>::len).collect();
        assert_eq!(lengths, [14, 15, 16]);
    }
}
