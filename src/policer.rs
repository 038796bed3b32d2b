//! The user side of `src/bpf/policer.h`: rates and bursts in the policer's units, and its clock.

use crate::Failure;
use crate::rate::{Rate, Size};
pub use crate::tick::Tick;

/// `UNITS_PER_NS` in policer.h.
pub const UNITS_PER_NS: u64 = 16;
/// `COST_SHIFT` in policer.h.
pub const COST_SHIFT: u32 = 10;
/// The coarse clock is taken where the burst lasts so many of its ticks: a tick's worth of traffic is
/// then little beside the burst that may pass at once anyway.
const TICKS_IN_A_BURST: u64 = 16;
/// A full Ethernet frame. A smaller burst would treat every such packet as the exception.
pub const SMALLEST_BURST: u64 = 1514;

/// A rate and a burst in the policer's units, as `struct bucket` has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// Units << [`COST_SHIFT`] that a byte costs, rounded up: never more than the rate.
    pub cost: u64,
    /// Units that it takes to send the burst at the rate.
    pub burst: u64,
}

impl Limit {
    /// Bounds: 8 bit/s and more; the burst holds a full frame and lasts a year at most.
    pub fn new(rate: Rate, burst: Size) -> Result<Limit, Failure> {
        const LONGEST: u128 = 365 * 86_400 * 1_000_000_000 * UNITS_PER_NS as u128;
        let refuse = |text: String| Err(Failure::Usage(text));
        let bits_per_second = u128::from(rate.bits());
        if bits_per_second < 8 {
            return refuse(format!(
                "a rate of {rate} is too low: 8bit (a second) is the least"
            ));
        }
        if burst.bytes() < SMALLEST_BURST {
            return refuse(format!(
                "a burst of {burst} is smaller than a packet; give {SMALLEST_BURST}b or more"
            ));
        }
        let units_per_byte_shifted = (8 * 1_000_000_000 * u128::from(UNITS_PER_NS)) << COST_SHIFT;
        let cost = units_per_byte_shifted.div_ceil(bits_per_second);
        let burst_units = (u128::from(burst.bytes()) * cost) >> COST_SHIFT;
        if burst_units > LONGEST {
            return refuse(format!(
                "a burst of {burst} lasts more than a year at {rate}"
            ));
        }
        Ok(Limit {
            cost: cost as u64,
            burst: burst_units as u64,
        })
    }
}

/// What tells the policer the time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clock {
    /// The kernel's tick counter: a load, and as coarse as a tick.
    Ticks,
    /// `bpf_ktime_get_ns`: 27 ns a packet.
    Precise,
}

impl Clock {
    /// The cheapest clock that is good enough for all of these.
    pub fn for_limits<'a>(limits: impl IntoIterator<Item = &'a Limit>, tick: Tick) -> Clock {
        let enough = units_of(tick) * TICKS_IN_A_BURST;
        let coarse_will_do = limits.into_iter().all(|limit| limit.burst >= enough);
        if coarse_will_do {
            Clock::Ticks
        } else {
            Clock::Precise
        }
    }

    /// As [`Clock::for_limits`], where the bursts are known as times, in ns.
    pub fn for_spans(spans: impl IntoIterator<Item = u64>, tick: Tick) -> Clock {
        let enough = tick.ns * TICKS_IN_A_BURST;
        if spans.into_iter().all(|span| span >= enough) {
            Clock::Ticks
        } else {
            Clock::Precise
        }
    }

    /// `units_per_tick` for the BPF side.
    pub fn units_per_tick(self, tick: Tick) -> u64 {
        match self {
            Clock::Ticks => units_of(tick),
            Clock::Precise => 0,
        }
    }
}

fn units_of(tick: Tick) -> u64 {
    tick.ns * UNITS_PER_NS
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limit(rate: &str, burst: &str) -> Result<Limit, Failure> {
        Limit::new(rate.parse().unwrap(), burst.parse().unwrap())
    }

    #[test]
    fn a_byte_costs_its_time_at_the_rate() {
        let limit = limit("128kbit", "32kb").unwrap();
        assert_eq!(limit.cost >> COST_SHIFT, 62_500 * UNITS_PER_NS); // 8 bits at 128 kbit/s: 62.5 us
        assert_eq!(limit.burst, 2_048_000_000 * UNITS_PER_NS); // 32 KiB: 2.048 s
    }

    #[test]
    fn rounding_never_gives_more_than_the_rate_and_little_less() {
        for bits in [
            8_u64,
            1_000,
            999_983,
            128_000,
            1_000_000_007,
            10_000_000_000,
            100_000_000_000,
        ] {
            let limit = limit(&format!("{bits}bit"), "32kb").unwrap();
            let exact = (8.0 * 1e9 * 16.0 * 1024.0) / bits as f64;
            let error = limit.cost as f64 / exact - 1.0;
            assert!((-1e-15..0.001).contains(&error), "{bits} bit/s: {error}");
        }
    }

    #[test]
    fn what_cannot_be_policed_is_refused() {
        let text = |result: Result<Limit, Failure>| result.unwrap_err().to_string();
        assert!(text(limit("7bit", "32kb")).contains("too low"));
        assert!(text(limit("1mbit", "1000b")).contains("smaller than a packet"));
        assert!(text(limit("8bit", "1gb")).contains("more than a year"));
    }

    #[test]
    fn the_largest_packet_at_the_lowest_rate_fits_the_arithmetic() {
        let limit = limit("8bit", "2kb").unwrap();
        assert!(limit.cost.checked_mul(512 * 1024).is_some());
    }

    #[test]
    fn the_coarse_clock_only_where_the_burst_lasts_many_ticks() {
        let tick = Tick { ns: 4_000_000 };
        let slow = limit("128kbit", "32kb").unwrap();
        let fast = limit("10gbit", "32kb").unwrap(); // 26 us: far below a tick
        assert_eq!(Clock::for_limits([&slow], tick), Clock::Ticks);
        assert_eq!(Clock::for_limits([&slow, &fast], tick), Clock::Precise);
    }
}
