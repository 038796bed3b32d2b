//! Bytes of a capture, so many as are there.

use std::io::{self, Read};

use super::{LONGEST_PACKET, MOST_CAPTURED};
use crate::Failure;
use crate::settings::in_one_line;

/// Which end of a number comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    Big,
    Little,
}

impl Order {
    /// The number that begins `at` this byte; 0 where there is none.
    pub(super) fn u16(self, bytes: &[u8], at: usize) -> u16 {
        let two = array(bytes, at);
        match self {
            Order::Big => u16::from_be_bytes(two),
            Order::Little => u16::from_le_bytes(two),
        }
    }

    pub(super) fn u32(self, bytes: &[u8], at: usize) -> u32 {
        let four = array(bytes, at);
        match self {
            Order::Big => u32::from_be_bytes(four),
            Order::Little => u32::from_le_bytes(four),
        }
    }

    pub(super) fn i64(self, bytes: &[u8], at: usize) -> i64 {
        let eight = array(bytes, at);
        match self {
            Order::Big => i64::from_be_bytes(eight),
            Order::Little => i64::from_le_bytes(eight),
        }
    }
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut array = [0; N];
    if let Some(there) = bytes.get(at..at.saturating_add(N)) {
        array.copy_from_slice(there);
    }
    array
}

/// What is read from, and where in it we are, for errors.
pub(super) struct Source<R> {
    name: String,
    input: R,
    /// The number of the next packet.
    pub(super) packet: u64,
}

impl<R: Read> Source<R> {
    pub(super) fn new(name: &str, input: R) -> Source<R> {
        Source {
            name: name.to_owned(),
            input,
            packet: 1,
        }
    }

    pub(super) fn refuse(&self, problem: &str) -> Failure {
        in_one_line(&format!("{} {problem}", self.name))
    }

    fn ends_early(&self) -> Failure {
        let place = self.packet;
        self.refuse(&format!(
            "ends within packet {place}, or in front of it: whoever wrote it did not finish"
        ))
    }

    /// The next `count` bytes. Memory is taken as they come.
    pub(super) fn bytes(&mut self, count: u32) -> Result<Vec<u8>, Failure> {
        let mut bytes = Vec::new();
        let read = self
            .input
            .by_ref()
            .take(count.into())
            .read_to_end(&mut bytes);
        match read {
            Ok(read) if read == count as usize => Ok(bytes),
            Ok(_) => Err(self.ends_early()),
            Err(error) => Err(self.refuse(&format!("cannot be read: {error}"))),
        }
    }

    /// The next `N` bytes; none at the end.
    pub(super) fn array<const N: usize>(&mut self) -> Result<Option<[u8; N]>, Failure> {
        let mut bytes = Vec::new();
        let read = self.input.by_ref().take(N as u64).read_to_end(&mut bytes);
        match read {
            Ok(0) => Ok(None),
            Ok(_) => match bytes.try_into() {
                Ok(array) => Ok(Some(array)),
                Err(_) => Err(self.ends_early()),
            },
            Err(error) => Err(self.refuse(&format!("cannot be read: {error}"))),
        }
    }

    /// Passes over so many bytes.
    pub(super) fn skip(&mut self, count: u32) -> Result<(), Failure> {
        match io::copy(&mut self.input.by_ref().take(count.into()), &mut io::sink()) {
            Ok(passed) if passed == u64::from(count) => Ok(()),
            Ok(_) => Err(self.ends_early()),
            Err(error) => Err(self.refuse(&format!("cannot be read: {error}"))),
        }
    }

    /// What a packet says of itself is possible.
    pub(super) fn check_lengths(&self, captured: u32, length: u32) -> Result<(), Failure> {
        for (bytes, most, what) in [
            (captured, MOST_CAPTURED, "were captured of"),
            (length, LONGEST_PACKET, "are"),
        ] {
            if bytes > most {
                return Err(self.refuse(&format!(
                    "says that {bytes} bytes {what} packet {}: {most} are the most",
                    self.packet
                )));
            }
        }
        Ok(())
    }
}
