//! `--explain`: runs a capture through a tool's program by BPF_PROG_TEST_RUN, with the capture's own times, and
//! prints of each packet what became of it and why. What is said comes from the program: see
//! `src/bpf/trace.h`. Nothing is attached, and nothing on this machine changes.

mod endpoints;
mod listing;
mod run;

use std::time::Duration;

use anyhow::Result;

use crate::Failure;
use crate::capture::{Capture, Packet};
use crate::ground::Ground;
pub use endpoints::Endpoints;
use listing::{Line, Listing, Summary};
pub use run::Runner;

/// Registers and buckets hold times of some years. No capture lasts as long; one whose clock was set does.
const LONGEST: u64 = 365 * 86_400 * 1_000_000_000;
/// Where the program's clock begins: long after boot.
const BEGINS: u64 = 1 << 50;
/// Less than an Ethernet header the kernel takes for no frame.
const LEAST: usize = 14;

/// What of a program is each tool's own.
pub trait Explained {
    /// Sets the program's clock, in nanoseconds, and the bytes that the next packet had.
    fn set_moment(&mut self, now: u64, length: u32);
    /// Why it decided so.
    fn reason(&self, ground: &Ground) -> Reason;
}

/// Why a packet passed or did not.
#[derive(Clone, Debug)]
pub struct Reason {
    /// For programs.
    pub name: &'static str,
    /// For readers.
    pub text: String,
    /// As long after this one the same packet would have passed.
    pub wait: Option<Duration>,
}

/// Explains a capture to its end.
pub fn explain(
    tool: &'static str,
    json: bool,
    capture: &mut Capture,
    program: &mut dyn Explained,
    runner: &mut Runner<'_>,
) -> Result<()> {
    let mut listing = Listing::new(tool, json)?;
    let mut summary = Summary::default();
    let mut clock = Clock::default();
    let outcome = loop {
        let packet = match capture.next_packet() {
            Ok(Some(packet)) => packet,
            Ok(None) => break Ok(()),
            Err(failure) => break Err(failure.into()),
        };
        let now = match clock.advance(&packet) {
            Ok(now) => now,
            Err(failure) => break Err(failure.into()),
        };
        let line = one(&packet, clock.shown(&packet), now, program, runner)?;
        summary.add(&line);
        listing.line(&line)?;
    };
    summary.earlier = clock.earlier;
    // What could be explained is summed up, whatever came then.
    listing.conclude(&summary)?;
    outcome
}

fn one<'a>(
    packet: &'a Packet,
    time: f64,
    now: u64,
    program: &mut dyn Explained,
    runner: &mut Runner<'_>,
) -> Result<Line<'a>> {
    let (verdict, reason) = if packet.frame.len() < LEAST {
        let reason = Reason {
            name: "too_short",
            text: "shorter than an Ethernet header".to_owned(),
            wait: None,
        };
        (None, reason)
    } else {
        program.set_moment(now, packet.length);
        let ground = runner.run(&packet.frame)?;
        (Some(ground.verdict), program.reason(&ground))
    };
    Ok(Line {
        packet,
        time,
        endpoints: Endpoints::of(&packet.frame),
        verdict,
        reason,
    })
}

/// The program's clock: that of the capture, but it does not go back.
#[derive(Debug, Default)]
struct Clock {
    first: Option<i128>,
    /// Since the first packet.
    latest: u64,
    /// Packets with an earlier time than one before.
    earlier: u64,
}

impl Clock {
    fn advance(&mut self, packet: &Packet) -> Result<u64, Failure> {
        let first = *self.first.get_or_insert(packet.time);
        let since = packet.time.saturating_sub(first);
        if since > LONGEST.into() {
            let text = format!(
                "packet {} is {} days after the first one: a year is the longest that can be explained",
                packet.number,
                since / (86_400 * 1_000_000_000)
            );
            return Err(Failure::Usage(text));
        }
        if since < self.latest.into() {
            self.earlier += 1;
        } else {
            self.latest = since as u64;
        }
        Ok(BEGINS + self.latest)
    }

    /// In seconds since the first packet, as the capture has it.
    fn shown(&self, packet: &Packet) -> f64 {
        let since = packet.time - self.first.unwrap_or(packet.time);
        since as f64 / 1e9
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(number: u64, time: i128) -> Packet {
        Packet {
            number,
            time,
            frame: vec![0; 60],
            length: 60,
            captured: 60,
        }
    }

    #[test]
    fn the_clock_follows_the_capture_and_does_not_go_back() {
        let mut clock = Clock::default();
        let start = 1_700_000_000_000_000_000;
        assert_eq!(clock.advance(&at(1, start)).unwrap(), BEGINS);
        assert_eq!(clock.advance(&at(2, start + 5)).unwrap(), BEGINS + 5);
        assert_eq!(clock.advance(&at(3, start - 7)).unwrap(), BEGINS + 5);
        assert_eq!(clock.advance(&at(4, start + 6)).unwrap(), BEGINS + 6);
        assert_eq!(clock.earlier, 1);
        let error = clock.advance(&at(5, start + (1 << 61))).unwrap_err();
        let text = error.to_string();
        assert!(
            text.starts_with("packet 5 is 26687 days after the first one"),
            "{text}"
        );
    }
}
