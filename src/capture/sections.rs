//! pcapng: blocks with their length in front and behind, in sections of one byte order each.

use std::io::Read;

use super::bytes::{Order, Source};
use super::{MOST_CAPTURED, Raw};
use crate::Failure;

/// Types of blocks.
pub(super) const SECTION: u32 = 0x0a0d_0d0a;
const INTERFACE: u32 = 1;
const OBSOLETE_PACKET: u32 = 2;
const SIMPLE_PACKET: u32 = 3;
const PACKET: u32 = 6;

/// Says which order a section has.
const BYTE_ORDER: u32 = 0x1a2b_3c4d;
/// Options of an interface.
const TIME_RESOLUTION: u16 = 9;
const TIME_OFFSET: u16 = 14;

/// A block that is looked into is no longer: a packet, with room for what is said of it.
const LONGEST_BLOCK: u32 = MOST_CAPTURED + (64 << 10);
/// Who has more interfaces than these has made a mistake, or wants our memory.
const MOST_INTERFACES: usize = 65_536;

pub(super) struct Sections {
    order: Order,
    interfaces: Vec<Interface>,
    /// What a packet without a time gets: that of the one before.
    last: i128,
}

struct Interface {
    link: u16,
    /// 0: without a limit.
    snap: u32,
    resolution: u8,
    /// Seconds.
    offset: i64,
}

impl Interface {
    /// In nanoseconds, what is in such units.
    fn time(&self, units: u64) -> i128 {
        let exponent = u32::from(self.resolution & 0x7f);
        let units = u128::from(units);
        let nanoseconds = if self.resolution & 0x80 != 0 {
            // Of two: 64 bits times 10^9 are 94 bits.
            (units * 1_000_000_000) >> exponent
        } else if exponent <= 9 {
            units * 10_u128.pow(9 - exponent)
        } else {
            // Beyond 38 no u64 is as much as a nanosecond.
            10_u128
                .checked_pow(exponent - 9)
                .map_or(0, |fraction| units / fraction)
        };
        nanoseconds as i128 + i128::from(self.offset) * 1_000_000_000
    }
}

impl Sections {
    /// The type of the first block has been read.
    pub(super) fn begin(source: &mut Source<impl Read>) -> Result<Sections, Failure> {
        let mut sections = Sections {
            order: Order::Little,
            interfaces: Vec::new(),
            last: 0,
        };
        let length = source.bytes(4)?;
        sections.section(source, &length)?;
        Ok(sections)
    }

    /// Reads a section's header behind its length, whose order it tells.
    fn section(&mut self, source: &mut Source<impl Read>, length: &[u8]) -> Result<(), Failure> {
        let mark = source.bytes(4)?;
        let orders = [Order::Little, Order::Big].into_iter();
        let mut orders = orders.filter(|order| order.u32(&mark, 0) == BYTE_ORDER);
        let Some(order) = orders.next() else {
            return Err(source.refuse("is no capture: a section of it has no byte order"));
        };
        self.order = order;
        self.interfaces.clear();
        let length = order.u32(length, 0);
        check_length(source, length, 28)?;
        source.skip(length - 12)
    }

    pub(super) fn next(&mut self, source: &mut Source<impl Read>) -> Result<Option<Raw>, Failure> {
        loop {
            let Some(header) = source.array::<8>()? else {
                return Ok(None);
            };
            // The same in either order.
            let kind = self.order.u32(&header, 0);
            if kind == SECTION {
                self.section(source, &header[4..])?;
                continue;
            }
            let length = self.order.u32(&header, 4);
            check_length(source, length, 12)?;
            if !matches!(kind, INTERFACE | OBSOLETE_PACKET | SIMPLE_PACKET | PACKET) {
                source.skip(length - 8)?;
                continue;
            }
            if length > LONGEST_BLOCK {
                let packet = source.packet;
                let problem = format!(
                    "has a block of {length} bytes where packet {packet} is to be: {LONGEST_BLOCK} are the most"
                );
                return Err(source.refuse(&problem));
            }
            let body = source.bytes(length - 12)?;
            source.skip(4)?;
            if kind == INTERFACE {
                self.interface(source, &body)?;
            } else {
                return self.packet(source, kind, body).map(Some);
            }
        }
    }

    fn interface(&mut self, source: &Source<impl Read>, body: &[u8]) -> Result<(), Failure> {
        if self.interfaces.len() == MOST_INTERFACES {
            return Err(source.refuse(&format!("has more than {MOST_INTERFACES} interfaces")));
        }
        let order = self.order;
        let mut interface = Interface {
            link: order.u16(body, 0),
            snap: order.u32(body, 4),
            resolution: 6,
            offset: 0,
        };
        let mut options = body.get(8..).unwrap_or_default();
        while options.len() >= 4 {
            let (code, length) = (order.u16(options, 0), usize::from(order.u16(options, 2)));
            let value = options.get(4..4 + length).unwrap_or_default();
            match (code, value) {
                (TIME_RESOLUTION, [resolution, ..]) => interface.resolution = *resolution,
                (TIME_OFFSET, [_, ..]) => interface.offset = order.i64(value, 0),
                _ => {}
            }
            options = options
                .get(4 + length.next_multiple_of(4)..)
                .unwrap_or_default();
        }
        self.interfaces.push(interface);
        Ok(())
    }

    fn packet(
        &mut self,
        source: &Source<impl Read>,
        kind: u32,
        body: Vec<u8>,
    ) -> Result<Raw, Failure> {
        let order = self.order;
        let [number, captured, length] = match kind {
            PACKET => [0, 12, 16].map(|at| order.u32(&body, at)),
            OBSOLETE_PACKET => {
                let number = order.u16(&body, 0).into();
                [number, order.u32(&body, 12), order.u32(&body, 16)]
            }
            // It has all of the packet that its interface takes.
            _ => [0, order.u32(&body, 0), order.u32(&body, 0)],
        };
        let Some(interface) = self.interfaces.get(number as usize) else {
            let packet = source.packet;
            return Err(source.refuse(&format!(
                "has packet {packet} of interface {number}, which it does not describe"
            )));
        };
        let (begins, captured) = match kind {
            SIMPLE_PACKET if interface.snap > 0 => (4, captured.min(interface.snap)),
            SIMPLE_PACKET => (4, captured),
            _ => (20, captured),
        };
        source.check_lengths(captured, length)?;
        if kind != SIMPLE_PACKET {
            let units = u64::from(order.u32(&body, 4)) << 32 | u64::from(order.u32(&body, 8));
            self.last = interface.time(units);
        }
        let Some(bytes) = body.get(begins..begins + captured as usize) else {
            let packet = source.packet;
            return Err(source.refuse(&format!(
                "says that packet {packet} has {captured} bytes, and its block is too short for them"
            )));
        };
        Ok(Raw {
            link: interface.link,
            time: self.last,
            length,
            bytes: bytes.to_vec(),
        })
    }
}

fn check_length(source: &Source<impl Read>, length: u32, least: u32) -> Result<(), Failure> {
    if length < least || !length.is_multiple_of(4) {
        let packet = source.packet;
        let problem = format!("has a block of {length} bytes where packet {packet} is to be");
        return Err(source.refuse(&problem));
    }
    Ok(())
}
