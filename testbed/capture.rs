//! Captures, written byte by byte for tests: pcap with nanoseconds, and pcapng; and pcapng read block by block.
//! Nothing of the tools' own readers and writers is in here.

/// A packet of one.
#[derive(Clone, Debug)]
pub struct Captured {
    /// Since 1970, in nanoseconds.
    pub time: u64,
    /// Bytes that it had; those below are the first of them.
    pub length: u32,
    /// What was captured.
    pub bytes: Vec<u8>,
}

impl Captured {
    /// All of a frame.
    pub fn whole(time: u64, frame: Vec<u8>) -> Captured {
        Captured {
            time,
            length: frame.len() as u32,
            bytes: frame,
        }
    }

    /// The first bytes of it, as `tcpdump -s` leaves them.
    pub fn cut_to(mut self, bytes: usize) -> Captured {
        self.bytes.truncate(bytes);
        self
    }
}

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

/// A pcap file of that link type.
pub fn pcap(link: u32, packets: &[Captured]) -> Vec<u8> {
    let mut file = words(&[0xa1b2_3c4d, 0x0004_0002, 0, 0, 0x0004_0000, link]);
    for Captured {
        time,
        length,
        bytes,
    } in packets
    {
        let (seconds, rest) = (time / 1_000_000_000, time % 1_000_000_000);
        let header = [seconds as u32, rest as u32, bytes.len() as u32, *length];
        file.extend(words(&header));
        file.extend(bytes);
    }
    file
}

/// A pcapng file with one Ethernet interface that counts nanoseconds.
pub fn pcapng(packets: &[Captured]) -> Vec<u8> {
    let mut file = words(&[0x0a0d_0d0a, 28, 0x1a2b_3c4d, 1, u32::MAX, u32::MAX, 28]);
    file.extend(words(&[1, 32, 1, 0, 0x0001_0009, 9, 0, 32]));
    for Captured {
        time,
        length,
        bytes,
    } in packets
    {
        let padded = bytes.len().next_multiple_of(4);
        let block = 32 + padded as u32;
        let [high, low] = [(time >> 32) as u32, *time as u32];
        file.extend(words(&[
            6,
            block,
            0,
            high,
            low,
            bytes.len() as u32,
            *length,
        ]));
        file.extend(bytes);
        file.resize(file.len() + padded - bytes.len(), 0);
        file.extend(words(&[block]));
    }
    file
}

/// A block of a pcapng file of this machine's byte order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// What it is.
    pub kind: u32,
    /// All of it but its type and its lengths.
    pub body: Vec<u8>,
}

impl Block {
    /// The number that begins at this byte of the body.
    #[track_caller]
    pub fn u16(&self, at: usize) -> u16 {
        u16::from_ne_bytes([self.body[at], self.body[at + 1]])
    }

    /// Likewise.
    #[track_caller]
    pub fn u32(&self, at: usize) -> u32 {
        u32::from(self.u16(at)) | u32::from(self.u16(at + 2)) << 16
    }

    /// The value of an option; nothing where there is none.
    #[track_caller]
    pub fn option(&self, wanted: u16) -> &[u8] {
        let mut at = match self.kind {
            1 => 8,
            5 => 12,
            6 => 20 + (self.u32(12) as usize).next_multiple_of(4),
            _ => 16,
        };
        while at < self.body.len() {
            let (code, length) = (self.u16(at), usize::from(self.u16(at + 2)));
            if code == wanted {
                return &self.body[at + 4..at + 4 + length];
            }
            at += 4 + length.next_multiple_of(4);
        }
        &[]
    }
}

/// All blocks of a file, which has to end with a whole one.
pub fn read_pcapng(file: &[u8]) -> Result<Vec<Block>, String> {
    let mut blocks = Vec::new();
    let mut rest = file;
    while !rest.is_empty() {
        let number = |at: usize| {
            let bytes = rest.get(at..at + 4).and_then(|bytes| bytes.try_into().ok());
            bytes.map(u32::from_ne_bytes)
        };
        let at = file.len() - rest.len();
        let whole = || format!("no whole block at byte {at} of {}", file.len());
        let (kind, length) = number(0).zip(number(4)).ok_or_else(whole)?;
        let end = (length as usize).checked_sub(4).filter(|end| *end >= 8);
        let end = end.ok_or_else(whole)?;
        if number(end) != Some(length) || !length.is_multiple_of(4) {
            return Err(whole());
        }
        blocks.push(Block {
            kind,
            body: rest[8..end].to_vec(),
        });
        rest = &rest[end + 4..];
    }
    Ok(blocks)
}
