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

/// Where `struct ground` begins in `struct trace_record`, and how long it is.
const AT: usize = 8;
const LENGTH: usize = 16;

impl Ground {
    /// Of a record in the ring buffer.
    pub(crate) fn read(record: &[u8]) -> Result<Ground> {
        let ground = record
            .get(AT..)
            .and_then(|rest| rest.first_chunk::<LENGTH>());
        let [verdict, reason, flags, _, d0, d1, d2, d3, figure @ ..] =
            *ground.context("a record of the program is too short")?;
        Ok(Ground {
            verdict: match verdict {
                0 => Verdict::Pass,
                1 => Verdict::Drop,
                _ => Verdict::WouldDrop,
            },
            reason,
            flags,
            detail: u32::from_ne_bytes([d0, d1, d2, d3]),
            figure: i64::from_ne_bytes(figure),
        })
    }
}
