//! The kernel's tick: how long it is, and which one is now.

use std::time::{Duration, Instant};

use nix::time::{ClockId, clock_getres};

/// How long a tick of the kernel is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tick {
    /// Nanoseconds: 4,000,000 at HZ=250.
    pub ns: u64,
}

impl Tick {
    /// The resolution of the coarse clock is the kernel's tick.
    pub fn of_this_kernel() -> nix::Result<Tick> {
        let resolution = clock_getres(ClockId::CLOCK_MONOTONIC_COARSE)?;
        let seconds = resolution.tv_sec().unsigned_abs();
        Ok(Tick {
            ns: seconds * 1_000_000_000 + resolution.tv_nsec().unsigned_abs(),
        })
    }

    /// Ticks in a time, rounded up.
    pub fn count_in(self, time: Duration) -> u64 {
        time.as_nanos().div_ceil(u128::from(self.ns)) as u64
    }
}

/// Which tick is now: read once from the kernel, then counted by the monotonic clock, which the
/// kernel's ticks follow.
#[derive(Clone, Copy, Debug)]
pub struct TickClock {
    tick: Tick,
    ticks: u64,
    read_at: Instant,
}

impl TickClock {
    /// The kernel's counter says `ticks` just now.
    pub fn starting(tick: Tick, ticks: u64) -> TickClock {
        TickClock {
            tick,
            ticks,
            read_at: Instant::now(),
        }
    }

    /// Time since that tick.
    pub fn since(&self, ticks: u64) -> Duration {
        let passed = self.read_at.elapsed().as_nanos() / u128::from(self.tick.ns);
        let now = self.ticks + passed as u64;
        Duration::from_nanos(now.saturating_sub(ticks) * self.tick.ns)
    }
}
