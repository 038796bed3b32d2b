//! When the next packet is due, and how much of a stream.

use std::time::{Duration, Instant};

/// Whoever is later than this, for the machine slept perhaps, does not catch up: a rate is also the
/// most that is sent in any second.
const LATEST: Duration = Duration::from_secs(1);

/// Packets one after the other.
#[derive(Debug)]
pub struct Pace {
    every: Duration,
    next: Instant,
    /// How many there are to be still; none: no end.
    left: Option<u64>,
}

impl Pace {
    /// The first one at `first`.
    pub fn new(first: Instant, every: Duration, count: Option<u64>) -> Pace {
        Pace {
            every,
            next: first,
            left: count,
        }
    }

    /// When the next one is due; none: there is none.
    pub fn due(&self) -> Option<Instant> {
        (self.left != Some(0)).then_some(self.next)
    }

    /// The one that was due is done with.
    pub fn advance(&mut self, now: Instant) {
        self.left = self.left.map(|left| left.saturating_sub(1));
        self.next += self.every;
        if now.saturating_duration_since(self.next) > LATEST {
            self.next = now;
        }
    }

    /// The one that was due has to wait.
    pub fn postpone(&mut self, until: Instant) {
        self.next = self.next.max(until);
    }
}

/// Bytes of a stream.
#[derive(Debug)]
pub struct Allowance {
    /// Bytes a second.
    rate: u64,
    /// From which on they count.
    since: Instant,
    used: u64,
    /// How many there are to be at all.
    total: Option<u64>,
    /// Less than this is not worth a system call.
    portion: u64,
}

impl Allowance {
    /// From now on.
    pub fn new(now: Instant, bits_per_second: u64, total: Option<u64>) -> Allowance {
        let rate = (bits_per_second / 8).max(1);
        Allowance {
            rate,
            since: now,
            used: 0,
            total,
            portion: (rate / 50).clamp(1, 16 << 10),
        }
    }

    /// How many bytes may be sent now: a portion at least, or what is left.
    pub fn at(&mut self, now: Instant) -> u64 {
        let late = now.saturating_duration_since(self.due().unwrap_or(now));
        if late > LATEST {
            self.since += late;
        }
        let elapsed = now.saturating_duration_since(self.since).as_nanos();
        let allowed = u64::try_from(elapsed * u128::from(self.rate) / 1_000_000_000);
        let allowed = allowed
            .unwrap_or(u64::MAX)
            .min(self.total.unwrap_or(u64::MAX));
        let allowed = allowed.saturating_sub(self.used);
        let left = self.left();
        if allowed < self.portion.min(left) {
            0
        } else {
            allowed
        }
    }

    /// When there is something to send; none: never again.
    pub fn due(&self) -> Option<Instant> {
        let portion = self.portion.min(self.left());
        let bytes = u128::from(self.used) + u128::from(portion);
        let ns = (bytes * 1_000_000_000).div_ceil(u128::from(self.rate));
        let span = Duration::from_nanos(u64::try_from(ns).unwrap_or(u64::MAX));
        (portion > 0)
            .then(|| self.since.checked_add(span))
            .flatten()
    }

    /// So many have been sent.
    pub fn take(&mut self, bytes: u64) {
        self.used += bytes;
    }

    /// How many there are to be still.
    pub fn left(&self) -> u64 {
        self.total
            .map_or(u64::MAX, |total| total.saturating_sub(self.used))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn packets_come_at_their_rate_and_end() {
        let start = Instant::now();
        let mut pace = Pace::new(start, SECOND / 4, Some(3));
        for k in 0..3 {
            assert_eq!(pace.due(), Some(start + SECOND / 4 * k));
            // Late by less than a second: it catches up.
            pace.advance(start + SECOND / 4 * k + SECOND / 2);
        }
        assert_eq!(pace.due(), None);
    }

    #[test]
    fn who_was_away_for_long_does_not_catch_up() {
        let start = Instant::now();
        let mut pace = Pace::new(start, SECOND / 100, None);
        let back = start + 60 * SECOND;
        let mut sent = 0;
        while pace.due().is_some_and(|due| due <= back) {
            pace.advance(back);
            sent += 1;
        }
        assert!(sent <= 101, "{sent} packets at once");

        let mut allowance = Allowance::new(start, 8000, None);
        let allowed = allowance.at(back);
        assert!((20..=1020).contains(&allowed), "{allowed} bytes at once");
        allowance.take(allowed);
        let next = allowance.at(back + SECOND);
        assert!(
            (980..=1020).contains(&next),
            "{next} bytes in the next second"
        );
    }

    #[test]
    fn a_packet_that_has_to_wait_is_due_then() {
        let start = Instant::now();
        let mut pace = Pace::new(start, SECOND, Some(1));
        pace.postpone(start + SECOND / 2);
        assert_eq!(pace.due(), Some(start + SECOND / 2));
        pace.advance(start + SECOND / 2);
        assert_eq!(pace.due(), None);
    }

    #[test]
    fn a_stream_has_its_rate_and_exactly_its_total() {
        let start = Instant::now();
        for (rate, total) in [(8000, 2500), (1_000_000_000, 1 << 20), (1, 3), (80_000, 1)] {
            let mut allowance = Allowance::new(start, rate, Some(total));
            let (mut sent, mut turns) = (0, 0);
            while let Some(due) = allowance.due() {
                let portion = allowance.at(due);
                assert!(portion > 0, "nothing when it is due, {rate} bit/s");
                allowance.take(portion);
                sent += portion;
                let fair = (due - start).as_secs_f64() * (rate as f64 / 8.0).max(1.0);
                assert!(sent as f64 <= fair + 1.0, "{sent} of {fair} bytes");
                turns += 1;
            }
            assert_eq!((sent, allowance.left()), (total, 0));
            assert!(turns <= 200, "{turns} turns");
        }
    }
}
