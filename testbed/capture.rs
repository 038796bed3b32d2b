//! Captures, written byte by byte for tests: pcap with nanoseconds, and pcapng. Nothing of the tools' own
//! readers is in here.

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
