//! What a connection has done, until somebody takes it.

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde::Serialize;

/// Three digits of every latency are right.
const DIGITS: u8 = 3;

/// System calls, and the time from call to return.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Calls {
    /// How many.
    pub calls: u64,
    /// How long all of them took.
    pub seconds: f64,
}

impl Calls {
    fn add(&mut self, other: Calls) {
        self.calls += other.calls;
        self.seconds += other.seconds;
    }
}

/// The system calls that connections are served by.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct SystemCalls {
    /// Sending.
    pub send: Calls,
    /// Receiving; what it waits for is in it.
    pub receive: Calls,
    /// Having the kernel send an acknowledgement.
    pub announce: Calls,
}

/// Which system call.
#[derive(Clone, Copy, Debug)]
pub enum Call {
    Send,
    Receive,
    Announce,
}

/// Messages, bytes, latencies.
#[derive(Clone, Debug)]
pub struct Tally {
    /// Messages that were dealt with: those that a latency was recorded of.
    pub messages: u64,
    /// Bytes that were read.
    pub received: u64,
    /// Bytes that were written.
    pub sent: u64,
    /// Nanoseconds; where messages are sent by the clock, from when they were to be sent.
    pub latencies: Histogram<u64>,
    /// The same from when they were really sent, where they are sent by the clock.
    pub uncorrected: Histogram<u64>,
    /// System calls.
    pub calls: SystemCalls,
}

impl Tally {
    /// Nothing was done yet.
    pub fn new() -> anyhow::Result<Tally> {
        Ok(Tally {
            messages: 0,
            received: 0,
            sent: 0,
            latencies: Histogram::new(DIGITS)?,
            uncorrected: Histogram::new(DIGITS)?,
            calls: SystemCalls::default(),
        })
    }

    /// A message was dealt with.
    pub(super) fn record(&mut self, latency: Duration) {
        self.messages += 1;
        put(&mut self.latencies, latency);
    }

    /// Likewise, of one that is sent by the clock.
    pub(super) fn record_paced(&mut self, since_due: Duration, since_sent: Duration) {
        self.record(since_due);
        put(&mut self.uncorrected, since_sent);
    }

    /// A system call that began then has returned.
    pub(super) fn called(&mut self, call: Call, began: Instant) {
        let calls = match call {
            Call::Send => &mut self.calls.send,
            Call::Receive => &mut self.calls.receive,
            Call::Announce => &mut self.calls.announce,
        };
        calls.add(Calls {
            calls: 1,
            seconds: began.elapsed().as_secs_f64(),
        });
    }

    /// Takes what the other one has.
    pub fn absorb(&mut self, other: &mut Tally) -> anyhow::Result<()> {
        self.messages += std::mem::take(&mut other.messages);
        self.received += std::mem::take(&mut other.received);
        self.sent += std::mem::take(&mut other.sent);
        self.latencies.add(&other.latencies)?;
        other.latencies.reset();
        self.uncorrected.add(&other.uncorrected)?;
        other.uncorrected.reset();
        let calls = std::mem::take(&mut other.calls);
        self.calls.send.add(calls.send);
        self.calls.receive.add(calls.receive);
        self.calls.announce.add(calls.announce);
        Ok(())
    }
}

fn put(histogram: &mut Histogram<u64>, latency: Duration) {
    let ns = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX);
    // It grows as it has to; where it cannot, the largest that it has stands for more.
    if histogram.record(ns).is_err() {
        histogram.saturating_record(ns);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_taken_is_counted_once() {
        let (mut all, mut one) = (Tally::new().unwrap(), Tally::new().unwrap());
        one.record(Duration::from_micros(250));
        one.record_paced(Duration::from_secs(3), Duration::from_secs(1));
        one.received = 32;
        one.called(Call::Send, Instant::now());
        all.absorb(&mut one).unwrap();
        all.absorb(&mut one).unwrap();
        assert_eq!((all.messages, all.received, all.sent), (2, 32, 0));
        assert_eq!((all.latencies.len(), all.uncorrected.len()), (2, 1));
        assert!((2_990_000_000..=3_010_000_000).contains(&all.latencies.max()));
        assert!((999_000_000..=1_001_000_000).contains(&all.uncorrected.max()));
        assert_eq!(all.calls.send.calls, 1);
    }
}
