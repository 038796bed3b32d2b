//! Netlink on the wire: messages and attributes, built and taken apart.
//!
//! Reading never indexes and never panics: whatever does not fit its own length ends the
//! iteration, or is an error where a whole message is concerned. All integers are in the byte
//! order of the machine, all items start on a multiple of four bytes (netlink(7)).

use anyhow::{Result, bail};

/// Bytes of `struct nlmsghdr`.
pub(super) const HEADER: usize = 16;
/// Bytes of `struct nlattr`.
const ATTRIBUTE: usize = 4;
/// The two top bits of an attribute's type say "nested" and "network byte order".
const TYPE_MASK: u16 = 0x3fff;
const NESTED: u16 = 0x8000;

fn aligned(length: usize) -> usize {
    length.next_multiple_of(4)
}

/// The `u16` at `offset`, if the bytes reach that far.
pub(super) fn u16_at(bytes: &[u8], offset: usize) -> Option<u16> {
    let end = offset.checked_add(2)?;
    Some(u16::from_ne_bytes(bytes.get(offset..end)?.try_into().ok()?))
}

/// The `u32` at `offset`, if the bytes reach that far.
pub(super) fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    let end = offset.checked_add(4)?;
    Some(u32::from_ne_bytes(bytes.get(offset..end)?.try_into().ok()?))
}

/// The `i32` at `offset`, if the bytes reach that far.
pub(super) fn i32_at(bytes: &[u8], offset: usize) -> Option<i32> {
    let end = offset.checked_add(4)?;
    Some(i32::from_ne_bytes(bytes.get(offset..end)?.try_into().ok()?))
}

/// A string attribute: up to its first NUL. Interface names are bytes to the kernel; whatever is
/// not UTF-8 is shown with replacement characters.
pub(super) fn text(payload: &[u8]) -> String {
    let end = payload.iter().position(|&byte| byte == 0);
    String::from_utf8_lossy(&payload[..end.unwrap_or(payload.len())]).into_owned()
}

/// One message of a datagram.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Message<'a> {
    pub(super) kind: u16,
    pub(super) flags: u16,
    pub(super) sequence: u32,
    pub(super) port: u32,
    pub(super) payload: &'a [u8],
}

/// The messages of one datagram; an `Err` is the last item.
pub(super) struct Messages<'a> {
    rest: &'a [u8],
}

impl<'a> Messages<'a> {
    pub(super) fn of(datagram: &'a [u8]) -> Self {
        Messages { rest: datagram }
    }

    fn split(&mut self) -> Result<Message<'a>> {
        let rest = std::mem::take(&mut self.rest);
        let (Some(length), Some(kind), Some(flags), Some(sequence), Some(port)) = (
            u32_at(rest, 0),
            u16_at(rest, 4),
            u16_at(rest, 6),
            u32_at(rest, 8),
            u32_at(rest, 12),
        ) else {
            bail!("{} bytes are too few for a netlink header", rest.len());
        };
        let length = usize::try_from(length)?;
        let Some(payload) = rest.get(HEADER..length) else {
            bail!("a netlink message of {length} bytes in {}", rest.len());
        };
        // The last message of a datagram need not be padded.
        self.rest = rest.get(aligned(length)..).unwrap_or_default();
        Ok(Message {
            kind,
            flags,
            sequence,
            port,
            payload,
        })
    }
}

impl<'a> Iterator for Messages<'a> {
    type Item = Result<Message<'a>>;

    fn next(&mut self) -> Option<Self::Item> {
        (!self.rest.is_empty()).then(|| self.split())
    }
}

/// The attributes in a run of bytes, as type and payload. Ends at the first that does not fit.
#[derive(Clone)]
pub(super) struct Attributes<'a> {
    rest: &'a [u8],
}

impl<'a> Attributes<'a> {
    pub(super) fn of(bytes: &'a [u8]) -> Self {
        Attributes { rest: bytes }
    }

    /// The attributes behind a fixed struct of `skip` bytes.
    pub(super) fn after(payload: &'a [u8], skip: usize) -> Self {
        Attributes::of(payload.get(aligned(skip)..).unwrap_or_default())
    }
}

impl<'a> Iterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let rest = std::mem::take(&mut self.rest);
        let length = usize::from(u16_at(rest, 0)?);
        let kind = u16_at(rest, 2)? & TYPE_MASK;
        let payload = rest.get(ATTRIBUTE..length)?;
        self.rest = rest.get(aligned(length)..).unwrap_or_default();
        Some((kind, payload))
    }
}

/// A request under construction; [`Request::finish`] fills in its length.
#[derive(Debug, Clone)]
pub(super) struct Request {
    bytes: Vec<u8>,
}

impl Request {
    /// A message of `kind` whose payload starts with the struct `fixed`.
    pub(super) fn new(kind: u16, flags: u16, fixed: &[u8]) -> Self {
        let mut bytes = vec![0; HEADER];
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        bytes[6..8].copy_from_slice(&flags.to_ne_bytes());
        bytes.extend_from_slice(fixed);
        bytes.resize(aligned(bytes.len()), 0);
        Request { bytes }
    }

    /// Appends an attribute. One that cannot be represented is refused.
    pub(super) fn attribute(mut self, kind: u16, payload: &[u8]) -> Result<Self> {
        let Ok(length) = u16::try_from(ATTRIBUTE + payload.len()) else {
            bail!("{} bytes are too many for an attribute", payload.len());
        };
        self.bytes.extend_from_slice(&length.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(payload);
        self.bytes.resize(aligned(self.bytes.len()), 0);
        Ok(self)
    }

    /// Appends an attribute whose payload is the attributes that `fill` appends.
    pub(super) fn nested(self, kind: u16, fill: impl FnOnce(Self) -> Result<Self>) -> Result<Self> {
        let start = self.bytes.len();
        let mut filled = fill(self.attribute(NESTED | kind, &[])?)?;
        let payload = filled.bytes.len() - start - ATTRIBUTE;
        let Ok(length) = u16::try_from(ATTRIBUTE + payload) else {
            bail!("{payload} bytes are too many for an attribute");
        };
        filled.bytes[start..start + 2].copy_from_slice(&length.to_ne_bytes());
        Ok(filled)
    }

    /// The bytes of the message, with its length and sequence number. Its end is aligned: another
    /// may follow in the same datagram.
    pub(super) fn finish(mut self, sequence: u32) -> Result<Vec<u8>> {
        let length = u32::try_from(self.bytes.len())?;
        self.bytes[0..4].copy_from_slice(&length.to_ne_bytes());
        self.bytes[8..12].copy_from_slice(&sequence.to_ne_bytes());
        Ok(self.bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Vec<u8> {
        let request = Request::new(16, 5, &[0xaa; 6])
            .attribute(3, b"eth0\0")
            .unwrap()
            .attribute(0x8000 | 18, &[1, 2, 3, 4])
            .unwrap();
        request.finish(7).unwrap()
    }

    #[test]
    fn what_was_built_is_read_back() {
        let bytes = sample();
        let message = Messages::of(&bytes).next().unwrap().unwrap();
        assert_eq!((message.kind, message.flags), (16, 5));
        assert_eq!((message.sequence, message.port), (7, 0));
        let attributes: Vec<_> = Attributes::after(message.payload, 6).collect();
        assert_eq!(
            attributes,
            [(3, &b"eth0\0"[..]), (18, &[1, 2, 3, 4][..])],
            "the nested bit is masked, the padding skipped"
        );
        assert_eq!(text(attributes[0].1), "eth0");
    }

    #[test]
    fn nested_attributes_are_read_back() {
        let request = Request::new(44, 0, &[0; 20])
            .attribute(1, b"bpf\0")
            .unwrap()
            .nested(2, |options| {
                let options = options.attribute(7, b"a-name\0")?;
                options.nested(9, |inner| inner.attribute(8, &[1]))
            })
            .unwrap()
            .attribute(11, &[2])
            .unwrap();
        let bytes = request.finish(1).unwrap();
        assert_eq!(bytes.len() % 4, 0, "{bytes:?}");
        // The length counts the padding of the last attribute inside.
        assert_eq!(bytes[44..48], [28, 0, 2, 0x80], "length 28, nested, type 2");
        let message = Messages::of(&bytes).next().unwrap().unwrap();
        let outer: Vec<_> = Attributes::after(message.payload, 20).collect();
        assert_eq!((outer[0], outer[2]), ((1, &b"bpf\0"[..]), (11, &[2][..])));
        assert_eq!(outer[1].0, 2, "the nested bit is masked");
        let inner: Vec<_> = Attributes::of(outer[1].1).collect();
        assert_eq!(inner[0], (7, &b"a-name\0"[..]));
        let innermost: Vec<_> = Attributes::of(inner[1].1).collect();
        assert_eq!((inner[1].0, innermost), (9, vec![(8, &[1][..])]));
    }

    #[test]
    fn two_messages_in_a_datagram_are_two() {
        let mut bytes = sample();
        bytes.extend_from_slice(&sample());
        assert_eq!(Messages::of(&bytes).filter(Result::is_ok).count(), 2);
    }

    #[test]
    fn a_truncated_datagram_is_an_error_at_every_length() {
        let bytes = sample();
        for length in 1..bytes.len() {
            let read: Vec<_> = Messages::of(&bytes[..length]).collect();
            assert_eq!(read.len(), 1, "{length} bytes");
            assert!(read[0].is_err(), "{length} bytes");
        }
    }

    #[test]
    fn every_claimed_message_length_is_survived() {
        for claim in (0..64).chain([0x7fff_ffff, 0xffff_fffc, 0xffff_ffff]) {
            let mut bytes = sample();
            let whole = u32::try_from(bytes.len()).unwrap();
            bytes[0..4].copy_from_slice(&u32::to_ne_bytes(claim));
            let first = Messages::of(&bytes).next().unwrap();
            let fits = (16..=whole).contains(&claim);
            assert_eq!(first.is_ok(), fits, "claimed {claim} of {whole}");
        }
    }

    #[test]
    fn every_claimed_attribute_length_is_survived() {
        let body = [0u8, 0, 9, 0, 1, 2, 3, 4, 5, 0, 7, 0, 8, 0, 0, 0];
        for claim in 0..=u16::MAX {
            let mut bytes = body;
            bytes[0..2].copy_from_slice(&claim.to_ne_bytes());
            for length in 0..=bytes.len() {
                let mut total = 0;
                for (_, payload) in Attributes::of(&bytes[..length]) {
                    total += ATTRIBUTE + payload.len();
                }
                assert!(total <= length, "claimed {claim} in {length} bytes");
            }
        }
    }

    #[test]
    fn random_bytes_end_every_iteration() {
        // A linear congruential generator: the same bytes in every run.
        let mut state = 1u64;
        let mut byte = || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (state >> 56) as u8
        };
        for round in 0..20_000 {
            let bytes: Vec<u8> = (0..round % 97)
                .map(|_| if byte() < 96 { byte() % 24 } else { byte() })
                .collect();
            assert!(Messages::of(&bytes).count() <= bytes.len());
            assert!(Attributes::of(&bytes).count() <= bytes.len());
            let _ = text(&bytes);
        }
    }

    #[test]
    fn an_attribute_too_long_for_its_length_field_is_refused() {
        let request = Request::new(16, 0, &[]);
        assert!(request.clone().attribute(1, &[0; 65_531]).is_ok());
        assert!(request.clone().attribute(1, &[0; 65_532]).is_err());
        let around = |length| {
            let fill = |inner: Request| inner.attribute(2, &vec![0; length]);
            request.clone().nested(1, fill)
        };
        assert!(around(65_527).is_err(), "65,531 bytes, and one of padding");
        assert!(around(65_524).is_ok());
    }

    #[test]
    fn offsets_beyond_the_end_are_none() {
        assert_eq!(u32_at(&[1, 2, 3], 0), None);
        assert_eq!(u32_at(&[1, 2, 3, 4], usize::MAX), None);
        assert_eq!(u16_at(&[], 0), None);
        assert_eq!(i32_at(&[0xff; 4], 0), Some(-1));
    }
}
