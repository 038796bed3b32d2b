//! What tells flows from each other: `--key`, and the keys of the table for readers.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use anyhow::{Result, bail};

use super::skeleton::types;
use crate::map_value;

/// EtherTypes.
const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;

/// The part of a packet that says whose it is, in the order of `enum flow_of` of the BPF program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// Its source.
    Source,
    /// Its destination.
    Destination,
    /// Both addresses, protocol and both ports.
    Tuple,
}

/// `--key`: whose packets are metered together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key {
    /// The part of the packet.
    pub by: By,
    /// Bits of an IPv4 address that count.
    pub prefix4: u8,
    /// Bits of an IPv6 address that count.
    pub prefix6: u8,
}

impl Key {
    /// By default an IPv6 source is its network: a host has 2^64 addresses to send from.
    pub const SOURCE: Key = Key {
        by: By::Source,
        prefix4: 32,
        prefix6: 64,
    };

    /// Whether keys need the wide table.
    pub(super) fn is_wide(self) -> bool {
        self.by == By::Tuple || self.prefix6 > 64
    }

    /// The bits that count, as the BPF program has them.
    pub(super) fn masks(self) -> (u32, [u32; 4]) {
        let mask4 = u32::MAX
            .checked_shl(32 - u32::from(self.prefix4))
            .unwrap_or(0);
        let mask6 = u128::MAX
            .checked_shl(128 - u32::from(self.prefix6))
            .unwrap_or(0);
        let mut words = [0; 4];
        for (word, octets) in words.iter_mut().zip(mask6.to_be_bytes().as_chunks().0) {
            *word = u32::from_ne_bytes(*octets);
        }
        (mask4.to_be(), words)
    }

    /// The key that a running program was loaded with.
    pub(super) fn of_knobs(knobs: &types::knobs) -> Key {
        let by = match knobs.by {
            by if by == By::Destination as u8 => By::Destination,
            by if by == By::Tuple as u8 => By::Tuple,
            _ => By::Source,
        };
        let bits6 = knobs
            .mask6
            .iter()
            .map(|word| word.count_ones())
            .sum::<u32>();
        Key {
            by,
            prefix4: knobs.mask4.count_ones() as u8,
            prefix6: bits6 as u8,
        }
    }

    /// The flow that a key of the table stands for.
    pub(super) fn flow(self, bytes: &[u8]) -> Result<Flow> {
        let (key, words, ports, protocol) = if self.is_wide() {
            let key: types::wide_flow_key = map_value::read(bytes)?;
            (key.ether_type, key.address, key.ports, key.protocol)
        } else {
            let key: types::flow_key = map_value::read(bytes)?;
            let [first, second] = key.address;
            (key.ether_type, [first, second, 0, 0], [0; 2], 0)
        };
        let ether_type = u16::from_be(key);
        let address = address(ether_type, words)?;
        if self.by != By::Tuple {
            let (prefix, whole) = match address {
                IpAddr::V4(_) => (self.prefix4, 32),
                IpAddr::V6(_) => (self.prefix6, 128),
            };
            return Ok(Flow::Net {
                address,
                prefix: (prefix < whole).then_some(prefix),
            });
        }
        let key: types::wide_flow_key = map_value::read(bytes)?;
        let peer = self::address(ether_type, key.peer)?;
        let [source_port, destination_port] = ports.map(u16::from_be);
        Ok(Flow::Tuple {
            protocol,
            source: SocketAddr::new(address, source_port),
            destination: SocketAddr::new(peer, destination_port),
        })
    }
}

fn address(ether_type: u16, words: [u32; 4]) -> Result<IpAddr> {
    let mut octets = [0; 16];
    for (place, word) in octets.as_chunks_mut().0.iter_mut().zip(words) {
        *place = word.to_ne_bytes();
    }
    match ether_type {
        IPV4 => {
            let [a, b, c, d, ..] = octets;
            Ok(Ipv4Addr::new(a, b, c, d).into())
        }
        IPV6 => Ok(Ipv6Addr::from(octets).into()),
        other => bail!("the table has a key of EtherType {other:#06x}"),
    }
}

impl FromStr for Key {
    type Err = String;

    fn from_str(text: &str) -> Result<Key, String> {
        let usage = || {
            format!(
                "'{text}' is no key: src, dst or 5tuple, src and dst also with prefixes, as in \
                 src/24, src/24,/56 or dst,/64"
            )
        };
        let split = |text: &str| -> Option<(String, String)> {
            let (name, prefix) = text.split_once('/').unwrap_or((text, ""));
            let slash_and_digits = text.contains('/') != prefix.is_empty();
            slash_and_digits.then(|| (name.to_owned(), prefix.to_owned()))
        };
        let (first, second) = text.split_once(',').unwrap_or((text, ""));
        let (name, prefix4) = split(first).ok_or_else(usage)?;
        let (nothing, prefix6) = match second {
            "" if text.contains(',') => return Err(usage()),
            "" => Default::default(),
            second => split(second).ok_or_else(usage)?,
        };
        if !nothing.is_empty() {
            return Err(usage());
        }
        let mut key = match name.as_str() {
            "src" => Key::SOURCE,
            "dst" => Key {
                by: By::Destination,
                prefix6: 128,
                ..Key::SOURCE
            },
            "5tuple" if prefix4.is_empty() && prefix6.is_empty() => Key {
                by: By::Tuple,
                prefix6: 128,
                ..Key::SOURCE
            },
            _ => return Err(usage()),
        };
        let within = |digits: &str, most: u8| {
            let number: u32 = digits.parse().map_err(|_| usage())?;
            let prefix = u8::try_from(number).ok().filter(|prefix| *prefix <= most);
            prefix.ok_or_else(|| {
                format!("the prefix /{digits} of '{text}' is not between 0 and {most}")
            })
        };
        if !prefix4.is_empty() {
            key.prefix4 = within(&prefix4, 32)?;
        }
        if !prefix6.is_empty() {
            key.prefix6 = within(&prefix6, 128)?;
        }
        Ok(key)
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self.by {
            By::Source => "src",
            By::Destination => "dst",
            By::Tuple => return f.write_str("5tuple"),
        };
        write!(f, "{name}/{},/{}", self.prefix4, self.prefix6)
    }
}

/// Whose packets these are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Flow {
    /// All of an address, or of a network.
    Net {
        /// The address, with zeros behind the prefix.
        address: IpAddr,
        /// None: the whole address counts.
        prefix: Option<u8>,
    },
    /// One connection, one way.
    Tuple {
        /// Number of the transport protocol; fragments behind the first count as IPv6 fragments (44).
        protocol: u8,
        /// Port 0: there is none.
        source: SocketAddr,
        /// As the source.
        destination: SocketAddr,
    },
}

impl fmt::Display for Flow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Flow::Net {
                address,
                prefix: None,
            } => write!(f, "{address}"),
            Flow::Net {
                address,
                prefix: Some(prefix),
            } => write!(f, "{address}/{prefix}"),
            Flow::Tuple {
                protocol,
                source,
                destination,
            } => match protocol {
                6 => write!(f, "tcp {source} > {destination}"),
                17 => write!(f, "udp {source} > {destination}"),
                44 => write!(f, "fragments {} > {}", source.ip(), destination.ip()),
                number if source.port() == 0 => {
                    write!(f, "ip {number} {} > {}", source.ip(), destination.ip())
                }
                number => write!(f, "ip {number} {source} > {destination}"),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_read_and_shown() {
        for (text, shown) in [
            ("src", "src/32,/64"),
            ("src/24", "src/24,/64"),
            ("src/24,/56", "src/24,/56"),
            ("src,/48", "src/32,/48"),
            ("dst", "dst/32,/128"),
            ("dst/0,/0", "dst/0,/0"),
            ("5tuple", "5tuple"),
        ] {
            let key: Key = text.parse().unwrap();
            assert_eq!(key.to_string(), shown, "{text}");
        }
    }

    #[test]
    fn what_is_no_key_is_told_so() {
        for text in [
            "",
            "source",
            "src/",
            "src/24,",
            "src/24,64",
            "5tuple/24",
            "src/24/24",
            "src,/a",
        ] {
            let error = text.parse::<Key>().unwrap_err();
            assert!(error.starts_with(&format!("'{text}' is no key")), "{error}");
        }
        let error = "src/33".parse::<Key>().unwrap_err();
        assert_eq!(error, "the prefix /33 of 'src/33' is not between 0 and 32");
        let error = "src,/129".parse::<Key>().unwrap_err();
        assert_eq!(
            error,
            "the prefix /129 of 'src,/129' is not between 0 and 128"
        );
    }

    #[test]
    fn masks_have_the_bits_that_count() {
        let (mask4, mask6) = "src/20,/65".parse::<Key>().unwrap().masks();
        assert_eq!(mask4.to_ne_bytes(), [0xff, 0xff, 0xf0, 0]);
        let bytes: Vec<u8> = mask6.iter().flat_map(|word| word.to_ne_bytes()).collect();
        assert_eq!(
            bytes[..9],
            [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x80]
        );
        assert_eq!(bytes[9..], [0; 7]);
        assert_eq!("src/0,/0".parse::<Key>().unwrap().masks(), (0, [0; 4]));
    }

    #[test]
    fn keys_of_the_table_are_flows() {
        let narrow = types::flow_key {
            ether_type: IPV6.to_be(),
            address: [0x2001_0db8_u32.to_be(), 0x0001_0002_u32.to_be()],
            ..Default::default()
        };
        let flow = Key::SOURCE.flow(map_value::bytes(&narrow)).unwrap();
        assert_eq!(flow.to_string(), "2001:db8:1:2::/64");
        let wide = types::wide_flow_key {
            ether_type: IPV4.to_be(),
            protocol: 6,
            address: [u32::from_ne_bytes([10, 0, 0, 1]), 0, 0, 0],
            peer: [u32::from_ne_bytes([10, 0, 0, 2]), 0, 0, 0],
            ports: [40_000_u16.to_be(), 22_u16.to_be()],
            ..Default::default()
        };
        let key: Key = "5tuple".parse().unwrap();
        let flow = key.flow(map_value::bytes(&wide)).unwrap();
        assert_eq!(flow.to_string(), "tcp 10.0.0.1:40000 > 10.0.0.2:22");
    }
}
