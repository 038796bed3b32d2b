//! The VLAN tags of a frame, as one word.

use std::fmt;

use serde::Serialize;

// As in the BPF program.
const INNER_SHIFT: u32 = 16;
const IS_TAGGED: u64 = 1 << 32;
const OUTER_IS_AD: u64 = 1 << 33;
const HAS_INNER: u64 = 1 << 34;
const INNER_IS_AD: u64 = 1 << 35;
const LISTED: u64 = 1 << 36;

/// The kinds of tags.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Protocol {
    /// A customer's tag, 0x8100.
    #[serde(rename = "802.1Q")]
    Customer,
    /// A service tag, 0x88a8.
    #[serde(rename = "802.1ad")]
    Service,
}

/// One tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Vlan {
    /// 0 (a priority and no VLAN) to 4095.
    pub id: u16,
    /// PCP, 0 to 7.
    pub priority: u8,
    /// Which kind it is.
    pub protocol: Protocol,
}

/// All tags of a frame that count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Tags {
    /// The first on the wire.
    pub outer: Vlan,
    /// The one behind it (QinQ).
    pub inner: Option<Vlan>,
}

impl Tags {
    /// From the word that the BPF program has; none: it has none yet.
    pub fn from_word(word: u64) -> Option<Tags> {
        let vlan = |tci: u64, is_service: bool| Vlan {
            id: (tci & 0xfff) as u16,
            priority: (tci >> 13 & 7) as u8,
            protocol: if is_service {
                Protocol::Service
            } else {
                Protocol::Customer
            },
        };
        (word & IS_TAGGED != 0).then(|| Tags {
            outer: vlan(word, word & OUTER_IS_AD != 0),
            inner: (word & HAS_INNER != 0)
                .then(|| vlan(word >> INNER_SHIFT, word & INNER_IS_AD != 0)),
        })
    }
}

/// Whether the worker's broadcasts go out to the tags of this word.
pub(super) fn is_listed(word: u64) -> bool {
    word & LISTED != 0
}

/// 5, or 5.7 where there are two; the kind only where it is not the usual one.
impl fmt::Display for Tags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = self.outer.id.to_string();
        if self.outer.protocol == Protocol::Service {
            text.push('s');
        }
        if let Some(inner) = self.inner {
            text.push_str(&format!(".{}", inner.id));
            if inner.protocol == Protocol::Service {
                text.push('s');
            }
        }
        f.pad(&text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_what_the_program_makes_them() {
        assert_eq!(Tags::from_word(0), None);
        let one = Tags::from_word(IS_TAGGED | 0x6005).unwrap();
        assert_eq!((one.outer.id, one.outer.priority, one.inner), (5, 3, None));
        assert_eq!(one.to_string(), "5");
        let two = IS_TAGGED | OUTER_IS_AD | HAS_INNER | LISTED | 0xa007 << INNER_SHIFT | 0x0fff;
        let two = Tags::from_word(two).unwrap();
        assert_eq!(two.to_string(), "4095s.7");
        assert_eq!(two.inner.unwrap().priority, 5);
    }
}
