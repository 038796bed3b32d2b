//! Captures, as tcpdump, Wireshark and their like write them: pcap of either byte order with microseconds or
//! nanoseconds, and pcapng with any number of interfaces and resolutions of time. They are other people's bytes:
//! nothing that a length in them says is believed, and no more memory is taken than for the largest packet.

mod bytes;
mod classic;
mod frame;
mod sections;

use std::fs::File;
use std::io::{self, BufReader, Read};

use crate::Failure;
use crate::settings::in_one_line;
use bytes::{Order, Source};
use classic::Classic;
use sections::Sections;

/// What libpcap takes for the largest packet that is captured (MAXIMUM_SNAPLEN).
const MOST_CAPTURED: u32 = 256 << 10;
/// The largest packets that Linux knows, of BIG TCP.
const LONGEST_PACKET: u32 = 512 << 10;

/// A packet as the tools' programs look at it: an Ethernet frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    /// From 1.
    pub number: u64,
    /// Since 1970, in nanoseconds.
    pub time: i128,
    /// What was captured of it. One from an interface without Ethernet header has been given one, of zeros.
    pub frame: Vec<u8>,
    /// Bytes that it had on its interface.
    pub length: u32,
    /// Bytes of it that were captured.
    pub captured: u32,
}

impl Packet {
    /// Whether the capture has cut something off.
    pub fn is_cut(&self) -> bool {
        self.captured < self.length
    }
}

/// A capture, read packet by packet.
pub struct Capture {
    source: Source<Box<dyn Read>>,
    format: Format,
}

enum Format {
    Classic(Classic),
    Sections(Sections),
}

/// As it stands in the file.
struct Raw {
    link: u16,
    time: i128,
    length: u32,
    bytes: Vec<u8>,
}

impl Capture {
    /// The file of this name; `-` is standard input.
    pub fn open(path: &str) -> Result<Capture, Failure> {
        if path == "-" {
            return Capture::read("standard input", io::stdin());
        }
        let file = File::open(path);
        let file = file.map_err(|error| in_one_line(&format!("read {path}: {error}")))?;
        Capture::read(path, file)
    }

    /// From whatever gives bytes; `name` is for errors.
    pub fn read(name: &str, input: impl Read + 'static) -> Result<Capture, Failure> {
        let input: Box<dyn Read> = Box::new(BufReader::with_capacity(1 << 16, input));
        let mut source = Source::new(name, input);
        let Some(magic) = source.array::<4>()? else {
            return Err(source.refuse("is empty"));
        };
        let mut orders = [Order::Big, Order::Little].into_iter();
        let classic = orders.find_map(|order| {
            let nanoseconds = classic::nanoseconds(order.u32(&magic, 0))?;
            Some((order, nanoseconds))
        });
        let format = match classic {
            Some((order, nanoseconds)) => {
                Format::Classic(Classic::begin(&mut source, order, nanoseconds)?)
            }
            // The same in either order.
            None if u32::from_be_bytes(magic) == sections::SECTION => {
                Format::Sections(Sections::begin(&mut source)?)
            }
            None => {
                return Err(source.refuse("is no capture: it begins neither as pcap nor as pcapng"));
            }
        };
        Ok(Capture { source, format })
    }

    /// The next packet; none at the end.
    pub fn next_packet(&mut self) -> Result<Option<Packet>, Failure> {
        let raw = match &mut self.format {
            Format::Classic(classic) => classic.next(&mut self.source)?,
            Format::Sections(sections) => sections.next(&mut self.source)?,
        };
        let Some(raw) = raw else {
            return Ok(None);
        };
        let number = self.source.packet;
        self.source.packet += 1;
        let link = raw.link;
        frame::of(raw, number).map(Some).ok_or_else(|| {
            self.source.refuse(&format!(
                "has packet {number} of link type {link}: Ethernet, raw IP and Linux's cooked ones are understood"
            ))
        })
    }
}

#[cfg(test)]
mod tests;
