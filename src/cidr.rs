//! Networks in prefix notation, as options name them.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// A network, or a single address: `192.0.2.0/24`, `2001:db8::/32`, `192.0.2.1`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cidr {
    address: IpAddr,
    prefix: u8,
}

impl Cidr {
    /// The key of such a network in the BPF programs' sets (`struct net` in nets.h): how many bits count,
    /// the 32 of the version among them, then the version and the address in network byte order.
    pub fn map_key(self) -> [u8; 24] {
        let (version, address) = match self.address {
            IpAddr::V4(ip) => (4_u32, u128::from(ip.to_bits()) << 96),
            IpAddr::V6(ip) => (6, ip.to_bits()),
        };
        let bits = u32::BITS + u32::from(self.prefix);
        let mut key = [0; 24];
        key[..4].copy_from_slice(&bits.to_ne_bytes());
        key[4..8].copy_from_slice(&version.to_ne_bytes());
        key[8..].copy_from_slice(&address.to_be_bytes());
        key
    }

    /// Whether an address is in it.
    pub fn contains(self, address: IpAddr) -> bool {
        let around = Cidr {
            address,
            prefix: self.prefix,
        };
        address.is_ipv4() == self.address.is_ipv4() && around.network() == self.network()
    }

    fn bits(address: IpAddr) -> u8 {
        if address.is_ipv4() { 32 } else { 128 }
    }

    /// The same prefix with every bit behind it cleared.
    fn network(self) -> Cidr {
        let behind = u32::from(Cidr::bits(self.address) - self.prefix);
        let address = match self.address {
            IpAddr::V4(ip) => {
                let mask = u32::MAX.checked_shl(behind).unwrap_or(0);
                Ipv4Addr::from_bits(ip.to_bits() & mask).into()
            }
            IpAddr::V6(ip) => {
                let mask = u128::MAX.checked_shl(behind).unwrap_or(0);
                Ipv6Addr::from_bits(ip.to_bits() & mask).into()
            }
        };
        Cidr { address, ..self }
    }
}

impl FromStr for Cidr {
    type Err = String;

    fn from_str(text: &str) -> Result<Cidr, String> {
        let (address, prefix) = text
            .split_once('/')
            .map_or((text, None), |(a, p)| (a, Some(p)));
        let address: IpAddr = address.parse().map_err(|_| {
            format!("'{text}' is no network; write it like 192.0.2.0/24 or 2001:db8::/32")
        })?;
        let longest = Cidr::bits(address);
        let prefix = match prefix {
            None => longest,
            Some(digits) => digits
                .parse()
                .ok()
                .filter(|prefix| *prefix <= longest)
                .ok_or_else(|| format!("the prefix of '{text}' is not between 0 and {longest}"))?,
        };
        let cidr = Cidr { address, prefix };
        let network = cidr.network();
        if network != cidr {
            return Err(format!(
                "'{text}' has bits set behind its prefix; did you mean {network}?"
            ));
        }
        Ok(cidr)
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_and_single_addresses() {
        let key = |text: &str| text.parse::<Cidr>().unwrap().map_key();
        let prefix = |text: &str| u32::from_ne_bytes(*key(text).first_chunk().unwrap());
        assert_eq!(key("192.0.2.0/24")[4..8], 4_u32.to_ne_bytes());
        assert_eq!(
            key("192.0.2.0/24")[8..],
            [&[192, 0, 2][..], &[0; 13]].concat()
        );
        assert_eq!(prefix("192.0.2.0/24"), 32 + 24);
        assert_eq!(key("2001:db8::/32")[4..8], 6_u32.to_ne_bytes());
        assert_eq!(key("2001:db8::/32")[8..12], [0x20, 0x01, 0x0d, 0xb8]);
        assert_eq!(prefix("2001:db8::/32"), 32 + 32);
        // Everything of one version, and nothing of the other.
        assert_eq!((prefix("0.0.0.0/0"), prefix("::/0")), (32, 32));
        for text in ["192.0.2.0/24", "192.0.2.7/32", "2001:db8::/32"] {
            assert_eq!(text.parse::<Cidr>().unwrap().to_string(), text);
        }
        assert_eq!(key("192.0.2.7"), key("192.0.2.7/32"));
    }

    #[test]
    fn addresses_within() {
        let contains = |network: &str, address: &str| {
            let network: Cidr = network.parse().unwrap();
            network.contains(address.parse().unwrap())
        };
        assert!(contains("192.0.2.0/24", "192.0.2.255"));
        assert!(!contains("192.0.2.0/24", "192.0.3.0"));
        assert!(contains("192.0.2.7", "192.0.2.7"));
        assert!(!contains("192.0.2.7", "192.0.2.6"));
        assert!(contains("0.0.0.0/0", "255.255.255.255"));
        assert!(!contains("0.0.0.0/0", "::"));
        assert!(contains("2001:db8::/32", "2001:db8:ffff::1"));
        assert!(!contains("2001:db8::/32", "2001:db9::"));
        // Longer than any prefix of the other version.
        assert!(!contains("2001:db8::1", "192.0.2.1"));
    }

    #[test]
    fn what_is_wrong_is_said() {
        let refusal = |text: &str| text.parse::<Cidr>().unwrap_err();
        assert!(refusal("lan").contains("write it like"));
        assert!(refusal("192.0.2.0/33").contains("between 0 and 32"));
        assert!(refusal("192.0.2.0/-1").contains("between 0 and 32"));
        assert!(refusal("192.0.2.1/24").contains("did you mean 192.0.2.0/24?"));
        assert!(refusal("2001:db8::1/32").contains("did you mean 2001:db8::/32?"));
    }
}
