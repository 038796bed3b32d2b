//! Blocks of what a program tells of, in the file.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use nix::time::{ClockId, clock_gettime};

use super::Tally;
use super::file::Blocks;
use super::pcapng;
use crate::failure::say;
use crate::ground::{Ground, Record, Verdict};

/// Where in an Ethernet frame a tag stands.
const TAG_AT: usize = 12;

/// Makes blocks of records.
pub(super) struct Writer {
    pub path: String,
    pub blocks: Blocks,
    /// Number in the file and link type, by ifindex.
    pub interfaces: BTreeMap<u32, (u32, u16)>,
    pub direction: u32,
    pub reason: Box<dyn Fn(&Ground) -> String + Send>,
    pub tally: Arc<Tally>,
}

impl Writer {
    /// Appends the packet, with the reason as its comment.
    pub(super) fn write(&mut self, record: &Record<'_>) {
        let Some((interface, link)) = self.interfaces.get(&record.ifindex).copied() else {
            return; // never: the program tells of those only
        };
        let mut bytes = record.bytes.to_vec();
        let mut length = record.length;
        if let Some(tag) = record.tag
            && link == pcapng::ETHERNET
            && bytes.len() >= TAG_AT
        {
            bytes.splice(TAG_AT..TAG_AT, tag);
            length += 4;
        }
        let reason = (self.reason)(&record.ground);
        let comment = match record.ground.verdict {
            Verdict::WouldDrop => format!("would drop: {reason}"),
            _ => format!("drop: {reason}"),
        };
        let block = pcapng::Dropped {
            interface,
            time: since_1970(record.time),
            bytes: &bytes,
            length,
            direction: self.direction,
            comment: &comment,
        };
        match self.blocks.append(&block.block()) {
            Ok(()) => drop(self.tally.written.fetch_add(1, Relaxed)),
            Err(error) => {
                // Once is enough.
                if self.tally.not_written.fetch_add(1, Relaxed) == 0 {
                    let path = &self.path;
                    say(format_args!(
                        "{path} cannot be written: {error}; the run goes on"
                    ));
                }
            }
        }
    }

    /// Statistics of an interface: how many of its packets are missing. Where the disk is full they are missing too.
    pub(super) fn conclude(&mut self, ifindex: &[u8], counts: &[u64; 4]) {
        let mut key = [0; 4];
        key.copy_from_slice(&ifindex[..4]);
        let Some((interface, _)) = self.interfaces.get(&u32::from_ne_bytes(key)).copied() else {
            return;
        };
        let [seen, not_sampled, above_rate, no_room] = counts;
        let missing = not_sampled + above_rate + no_room;
        let comment = format!(
            "{seen} packets dropped; not told of: {not_sampled} by --trace-sample, {above_rate} by \
             --trace-rate, {no_room} because the ring buffer was full"
        );
        let now = since_1970(monotonic());
        let block = pcapng::statistics(interface, now, *seen, missing, &comment);
        if let Err(error) = self.blocks.append_last(&block)
            && self.tally.not_written.load(Relaxed) == 0
        {
            say(format_args!(
                "{} has no statistics at its end: {error}",
                self.path
            ));
        }
    }
}

fn nanoseconds(clock: ClockId) -> u64 {
    clock_gettime(clock).map_or(0, |time| {
        time.tv_sec() as u64 * 1_000_000_000 + time.tv_nsec() as u64
    })
}

fn monotonic() -> u64 {
    nanoseconds(ClockId::CLOCK_MONOTONIC)
}

/// By the clocks of now: whoever sets the time of day meanwhile moves what comes after.
fn since_1970(monotonic_time: u64) -> u64 {
    let offset = nanoseconds(ClockId::CLOCK_REALTIME).wrapping_sub(monotonic());
    monotonic_time.wrapping_add(offset)
}
