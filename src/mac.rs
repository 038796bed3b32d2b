//! MAC addresses as people write them.

use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};

/// The first bit on the wire: broadcast and multicast.
const GROUP: u64 = 1 << 40;

/// A MAC address, as a number of 48 bits: 02:00:00:00:00:01 is 0x020000000001.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mac(u64);

impl Mac {
    /// The address of one host; none where it is that of a group, or nobody's.
    pub fn of_host(self) -> Option<Mac> {
        (self.0 != 0 && self.0 & GROUP == 0).then_some(self)
    }

    /// As a number of 48 bits.
    pub fn number(self) -> u64 {
        self.0
    }

    /// From a number of 48 bits.
    pub fn from_number(number: u64) -> Mac {
        Mac(number & 0xffff_ffff_ffff)
    }

    /// As the original prints it: 12 digits.
    pub fn digits(self) -> String {
        format!("{:012x}", self.0)
    }
}

impl From<[u8; 6]> for Mac {
    fn from([a, b, c, d, e, f]: [u8; 6]) -> Mac {
        Mac(u64::from_be_bytes([0, 0, a, b, c, d, e, f]))
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [_, _, a, b, c, d, e, f] = self.0.to_be_bytes();
        let text = format!("{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}");
        out.pad(&text)
    }
}

impl Serialize for Mac {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// 02:00:00:00:00:01, 02-00-00-00-00-01, 0200.0000.0001 or 020000000001.
impl FromStr for Mac {
    type Err = String;

    fn from_str(text: &str) -> Result<Mac, String> {
        let groups: Vec<&str> = if text.contains(':') {
            text.split(':').collect()
        } else if text.contains('-') {
            text.split('-').collect()
        } else {
            text.split('.').collect()
        };
        let length = match groups.len() {
            6 => 2,
            3 => 4,
            1 => 12,
            _ => 0,
        };
        let is_written = |group: &&str| {
            group.len() == length && group.bytes().all(|byte| byte.is_ascii_hexdigit())
        };
        if groups.iter().all(is_written)
            && let Ok(number) = u64::from_str_radix(&groups.concat(), 16)
        {
            return Ok(Mac(number));
        }
        Err(format!(
            "'{text}' is no MAC address (write it as 02:00:00:00:00:01)"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_notations_mean_the_same() {
        let mac = Mac::from([2, 0, 0, 0xab, 0, 1]);
        for text in [
            "02:00:00:ab:00:01",
            "02-00-00-AB-00-01",
            "0200.00ab.0001",
            "020000ab0001",
        ] {
            assert_eq!(text.parse(), Ok(mac), "{text}");
        }
        assert_eq!(mac.to_string(), "02:00:00:ab:00:01");
        assert_eq!(mac.digits(), "020000ab0001");
        assert_eq!(mac.number(), 0x0200_00ab_0001);
        assert_eq!(Mac::from_number(mac.number()), mac);
    }

    #[test]
    fn what_is_none_is_refused() {
        for text in [
            "",
            "02",
            "02:00:00:00:00",
            "02:00:00:00:00:01:02",
            "2:0:0:0:0:1",
            "02:00:00:00:00:0g",
            "02:00-00:00:00:01",
            "+2:00:00:00:00:01",
            "02000000000",
            "0200.0000.00.01",
        ] {
            assert!(text.parse::<Mac>().is_err(), "{text}");
        }
    }

    #[test]
    fn groups_and_nobody_are_no_hosts() {
        let host = |text: &str| text.parse::<Mac>().ok().and_then(Mac::of_host).is_some();
        assert!(host("02:00:00:00:00:01"));
        assert!(!host("00:00:00:00:00:00"));
        assert!(!host("01:00:5e:00:00:01"));
        assert!(!host("ff:ff:ff:ff:ff:ff"));
    }
}
