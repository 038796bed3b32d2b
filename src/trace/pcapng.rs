//! Blocks of pcapng, each whole: section, interfaces, packets with comments, statistics.

/// Types of blocks.
const SECTION: u32 = 0x0a0d_0d0a;
const INTERFACE: u32 = 1;
const STATISTICS: u32 = 5;
const PACKET: u32 = 6;

/// Options of any block.
const END: u16 = 0;
const COMMENT: u16 = 1;
/// Of a section.
const APPLICATION: u16 = 4;
/// Of an interface.
const NAME: u16 = 2;
const TIME_RESOLUTION: u16 = 9;
/// Of a packet.
const FLAGS: u16 = 2;
/// Of statistics.
const RECEIVED: u16 = 4;
const DROPPED: u16 = 5;

/// Link types.
pub(super) const ETHERNET: u16 = 1;
pub(super) const RAW: u16 = 101;

/// A block that is being made; options go behind its body.
struct Block {
    bytes: Vec<u8>,
    has_options: bool,
}

impl Block {
    fn new(kind: u32) -> Block {
        Block {
            // Its length comes last.
            bytes: [kind.to_ne_bytes(), [0; 4]].concat(),
            has_options: false,
        }
    }

    fn u16(mut self, number: u16) -> Block {
        self.bytes.extend(number.to_ne_bytes());
        self
    }

    fn u32(mut self, number: u32) -> Block {
        self.bytes.extend(number.to_ne_bytes());
        self
    }

    /// The upper half first, whatever the order.
    fn time(self, nanoseconds: u64) -> Block {
        self.u32((nanoseconds >> 32) as u32).u32(nanoseconds as u32)
    }

    fn padded(mut self, bytes: &[u8]) -> Block {
        self.bytes.extend(bytes);
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
        self
    }

    fn option(mut self, code: u16, value: &[u8]) -> Block {
        self.has_options = true;
        // No option of ours is longer; what is, would make the block nonsense.
        let value = value.get(..usize::from(u16::MAX)).unwrap_or(value);
        self.u16(code).u16(value.len() as u16).padded(value)
    }

    fn finish(mut self) -> Vec<u8> {
        if self.has_options {
            self = self.u16(END).u16(0);
        }
        let length = (self.bytes.len() + 4) as u32;
        self.bytes[4..8].copy_from_slice(&length.to_ne_bytes());
        self.u32(length).bytes
    }
}

/// What a file begins with.
pub(super) fn section(application: &str, comment: &str) -> Vec<u8> {
    Block::new(SECTION)
        .u32(0x1a2b_3c4d)
        .u16(1)
        .u16(0)
        // How long it is nobody knows yet.
        .u32(u32::MAX)
        .u32(u32::MAX)
        .option(COMMENT, comment.as_bytes())
        .option(APPLICATION, application.as_bytes())
        .finish()
}

/// They are numbered in their order, from 0. Times of packets are in nanoseconds.
pub(super) fn interface(name: &str, link: u16, snap: u32) -> Vec<u8> {
    Block::new(INTERFACE)
        .u16(link)
        .u16(0)
        .u32(snap)
        .option(NAME, name.as_bytes())
        .option(TIME_RESOLUTION, &[9])
        .finish()
}

/// A packet of an interface.
pub(super) struct Dropped<'a> {
    pub interface: u32,
    /// Since 1970, in nanoseconds.
    pub time: u64,
    /// What there is of it.
    pub bytes: &'a [u8],
    /// Bytes that it had.
    pub length: u32,
    /// 1: it came in, 2: it went out, 0: not known.
    pub direction: u32,
    pub comment: &'a str,
}

impl Dropped<'_> {
    pub(super) fn block(&self) -> Vec<u8> {
        Block::new(PACKET)
            .u32(self.interface)
            .time(self.time)
            .u32(self.bytes.len() as u32)
            .u32(self.length)
            .padded(self.bytes)
            .option(COMMENT, self.comment.as_bytes())
            .option(FLAGS, &self.direction.to_ne_bytes())
            .finish()
    }
}

/// Of an interface: packets that there were, and how many of them are not in the file.
pub(super) fn statistics(
    interface: u32,
    time: u64,
    received: u64,
    missing: u64,
    comment: &str,
) -> Vec<u8> {
    Block::new(STATISTICS)
        .u32(interface)
        .time(time)
        .option(COMMENT, comment.as_bytes())
        .option(RECEIVED, &received.to_ne_bytes())
        .option(DROPPED, &missing.to_ne_bytes())
        .finish()
}
