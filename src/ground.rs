//! What a BPF program says of one packet: `struct ground` and `struct trace_record` of `src/bpf/trace.h`.

use anyhow::{Context, Result};

/// Bytes of the ring buffer that programs tell by: 3,000 packets.
pub(crate) const ROOM: u32 = 1 << 20;

/// `enum tracing` of trace.h: of which packets a program says what became of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tracing {
    /// Of none: the program has no code for it.
    #[default]
    Nothing,
    /// Of what is dropped, or would be; one in so many.
    Drops {
        /// 1: each.
        one_in: u32,
    },
    /// Of all of them.
    All,
}

impl Tracing {
    /// The two constants of a program.
    pub(crate) fn knobs(self) -> (u32, u32) {
        match self {
            Tracing::Nothing => (0, 0),
            Tracing::Drops { one_in } => (1, one_in),
            Tracing::All => (2, 0),
        }
    }
}

/// `enum trace_verdict`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It goes on.
    Pass,
    /// It ends here.
    Drop,
    /// `--dry-run`: it goes on, and would not.
    WouldDrop,
}

impl Verdict {
    /// In a list.
    pub fn word(self) -> &'static str {
        match self {
            Verdict::Pass => "pass",
            Verdict::Drop => "drop",
            Verdict::WouldDrop => "would drop",
        }
    }
}

/// What a verdict stands on; what the numbers mean is each tool's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ground {
    /// The verdict.
    pub verdict: Verdict,
    /// Of the tool's `enum reason`.
    pub reason: u8,
    /// What holds beside it.
    pub flags: u8,
    /// A number that belongs to the reason.
    pub detail: u32,
    /// Another one.
    pub figure: i64,
}

/// A packet that a program tells of.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Record<'a> {
    /// CLOCK_MONOTONIC, in nanoseconds.
    pub time: u64,
    pub ground: Ground,
    pub ifindex: u32,
    /// Of the packet, without a tag in the metadata.
    pub length: u32,
    /// In the metadata: protocol and tag, in the order of the wire.
    pub tag: Option<[u8; 4]>,
    /// The packet's first bytes.
    pub bytes: &'a [u8],
}

/// Bytes in front of those of the packet.
const HEAD: usize = 40;

impl Record<'_> {
    /// What has been put into the ring buffer.
    pub(crate) fn read(bytes: &[u8]) -> Result<Record<'_>> {
        let (head, rest) = bytes
            .split_first_chunk::<HEAD>()
            .context("a record of the program is too short")?;
        let u32_at = |at: usize| {
            let mut word = [0; 4];
            word.copy_from_slice(&head[at..at + 4]);
            u32::from_ne_bytes(word)
        };
        let u64_at = |at: usize| {
            let mut word = [0; 8];
            word.copy_from_slice(&head[at..at + 8]);
            u64::from_ne_bytes(word)
        };
        let verdict = match head[8] {
            0 => Verdict::Pass,
            1 => Verdict::Drop,
            _ => Verdict::WouldDrop,
        };
        let tag = u16::from_ne_bytes([head[36], head[37]]).to_be_bytes();
        let protocol = [head[38], head[39]];
        let captured = u32_at(32) as usize;
        Ok(Record {
            time: u64_at(0),
            ground: Ground {
                verdict,
                reason: head[9],
                flags: head[10],
                detail: u32_at(12),
                figure: u64_at(16).cast_signed(),
            },
            ifindex: u32_at(24),
            length: u32_at(28),
            tag: (protocol != [0; 2]).then_some([protocol[0], protocol[1], tag[0], tag[1]]),
            bytes: rest
                .get(..captured)
                .context("a record of the program has fewer bytes than it says")?,
        })
    }
}
