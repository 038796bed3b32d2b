//! pcap: a header of 24 bytes, then packets with one of 16 each.

use std::io::Read;

use super::Raw;
use super::bytes::{Order, Source};
use crate::Failure;

const MICROSECONDS: u32 = 0xa1b2_c3d4;
const NANOSECONDS: u32 = 0xa1b2_3c4d;

/// Of the second number of a time; none: it is not how such a file begins.
pub(super) fn nanoseconds(magic: u32) -> Option<u32> {
    match magic {
        MICROSECONDS => Some(1000),
        NANOSECONDS => Some(1),
        _ => None,
    }
}

pub(super) struct Classic {
    order: Order,
    /// Of the fractions of a second.
    nanoseconds: u32,
    link: u16,
}

impl Classic {
    /// Reads the rest of the header, behind what has told these.
    pub(super) fn begin(
        source: &mut Source<impl Read>,
        order: Order,
        nanoseconds: u32,
    ) -> Result<Classic, Failure> {
        let header = source.bytes(20)?;
        Ok(Classic {
            order,
            nanoseconds,
            // What is above says whether frames end with their checksum.
            link: order.u32(&header, 16) as u16,
        })
    }

    pub(super) fn next(&self, source: &mut Source<impl Read>) -> Result<Option<Raw>, Failure> {
        let Some(header) = source.array::<16>()? else {
            return Ok(None);
        };
        let [seconds, fraction, captured, length] =
            [0, 4, 8, 12].map(|at| self.order.u32(&header, at));
        source.check_lengths(captured, length)?;
        let fraction = i128::from(fraction) * i128::from(self.nanoseconds);
        Ok(Some(Raw {
            link: self.link,
            time: i128::from(seconds) * 1_000_000_000 + fraction,
            length,
            bytes: source.bytes(captured)?,
        }))
    }
}
