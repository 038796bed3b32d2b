//! A flow's word as user space sees it: 6 bits of state above 58 bits of register, or, with a rate in
//! bytes, the time at which everything is paid. Times are those of the monotonic clock, in ns.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::time::{ClockId, clock_gettime};

use super::maps::Maps;
use super::skeleton::types;
use crate::Failure;
use crate::policer::UNITS_PER_NS;

/// `REGISTER_BITS` of the BPF program.
const REGISTER_BITS: u32 = 58;
const REGISTER_MASK: u64 = (1 << REGISTER_BITS) - 1;
/// The program's clock may be a tick behind ours.
const MARGIN_NS: i64 = 100_000_000;

/// Reads words at one moment.
pub struct Reader {
    polices_bytes: bool,
    figures: types::figures,
    now: u64,
}

impl Reader {
    /// Now, by the rule that is in use.
    pub fn now(maps: &Maps) -> Result<Reader> {
        check_clock()?;
        let now = clock_gettime(ClockId::CLOCK_MONOTONIC).context("read the clock")?;
        Ok(Reader {
            polices_bytes: maps.knobs.polices_bytes != 0,
            figures: maps.figures()?.xfsm,
            now: Duration::from(now).as_nanos() as u64,
        })
    }

    /// Time since the register, in ns; of bytes, time since everything was paid, in the policer's units.
    fn age(&self, word: u64) -> i64 {
        if self.polices_bytes {
            let units = self.now.wrapping_mul(UNITS_PER_NS);
            return units.wrapping_sub(word).cast_signed();
        }
        // The state falls out at the upper end, the sign comes in again.
        let spare = u64::BITS - REGISTER_BITS;
        (self.now.wrapping_sub(word) << spare).cast_signed() >> spare
    }

    fn with_age(&self, word: u64, age: i64) -> u64 {
        let age = age.cast_unsigned();
        if self.polices_bytes {
            return self.now.wrapping_mul(UNITS_PER_NS).wrapping_sub(age);
        }
        word & !REGISTER_MASK | self.now.wrapping_sub(age) & REGISTER_MASK
    }

    /// Whether the flow says no more than a new one would.
    pub fn says_nothing(&self, word: u64) -> bool {
        if self.polices_bytes {
            return self.age(word) > MARGIN_NS * UNITS_PER_NS as i64;
        }
        self.age(word) > self.figures.forget.saturating_add(MARGIN_NS)
    }

    /// Whether the flow has to wait for longer than this, in the unit of its word, and a good while.
    pub fn waits_longer(&self, word: u64, wait: u64) -> bool {
        let margin = if self.polices_bytes {
            MARGIN_NS * UNITS_PER_NS as i64
        } else {
            MARGIN_NS
        };
        i128::from(self.age(word)) < -(i128::from(wait) + i128::from(margin))
    }

    /// The word of a flow that has as many tokens, or bytes, left at another pace: times stretch by
    /// `new / old`.
    pub fn at_pace(&self, word: u64, new: u64, old: u64) -> u64 {
        let stretched = i128::from(self.age(word)) * i128::from(new) / i128::from(old.max(1));
        let farthest = i128::from(REGISTER_MASK >> 2);
        self.with_age(word, stretched.clamp(-farthest, farthest) as i64)
    }
}

/// In a time namespace our clock is not the program's.
fn check_clock() -> Result<()> {
    // Kernels without time namespaces have no such file.
    let offsets = fs::read_to_string("/proc/self/timens_offsets").unwrap_or_default();
    let monotonic = offsets.lines().find(|line| line.starts_with("monotonic"));
    let shifted = monotonic.is_some_and(|line| {
        let mut numbers = line.split_whitespace().skip(1);
        numbers.any(|number| number != "0")
    });
    if shifted {
        let text = "the clock of this time namespace is not the kernel's: run it outside";
        return Err(Failure::Usage(text.into()).into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn reader(polices_bytes: bool, now: u64) -> Reader {
        Reader {
            polices_bytes,
            figures: types::figures {
                forget: 10 * SECOND as i64,
                ..Default::default()
            },
            now,
        }
    }

    #[test]
    fn a_flow_is_forgotten_when_its_register_is_old_in_any_state() {
        for now in [100 * SECOND, (1 << REGISTER_BITS) + 5 * SECOND] {
            for state in [0, 1, 63] {
                let register = |age: u64| now.wrapping_sub(age) & REGISTER_MASK;
                let word = |age: u64| state << REGISTER_BITS | register(age);
                let reader = reader(false, now);
                assert!(reader.says_nothing(word(11 * SECOND)));
                assert!(!reader.says_nothing(word(10 * SECOND)));
                assert!(!reader.says_nothing(word(0)));
                // Some seconds ahead: tokens that are used up.
                assert!(!reader.says_nothing(word(0_u64.wrapping_sub(3 * SECOND))));
            }
        }
    }

    #[test]
    fn a_bucket_of_bytes_is_forgotten_when_everything_is_paid() {
        let reader = reader(true, 100 * SECOND);
        assert!(reader.says_nothing(99 * SECOND * UNITS_PER_NS));
        assert!(!reader.says_nothing(100 * SECOND * UNITS_PER_NS));
        assert!(!reader.says_nothing(101 * SECOND * UNITS_PER_NS));
    }

    #[test]
    fn a_flow_of_a_slower_rule_waits_longer() {
        let now = 100 * SECOND;
        for (polices_bytes, units) in [(false, 1), (true, UNITS_PER_NS)] {
            let reader = reader(polices_bytes, now);
            let waits_longer = |ms: u64| {
                let word = (now + ms * 1_000_000) * units;
                reader.waits_longer(word, SECOND * units)
            };
            assert!(waits_longer(3_600_000));
            assert!(waits_longer(1_101));
            assert!(!waits_longer(1_100));
            assert!(!waits_longer(0));
        }
    }

    #[test]
    fn tokens_are_as_many_at_another_pace() {
        let now = 100 * SECOND;
        let state = 1 << REGISTER_BITS;
        let reader = reader(false, now);
        // Three tokens of a second each, or one that is still missing for half of its second.
        for (age, stretched) in [(3_000_i64, 150_i64), (-500, -25), (0, 0)] {
            let word = |ms: i64| state | now.wrapping_add_signed(-ms * 1_000_000) & REGISTER_MASK;
            assert_eq!(reader.at_pace(word(age), 50, 1000), word(stretched));
        }
        let reader = self::reader(true, now);
        let paid_in = |ms: u64| (now + ms * 1_000_000) * UNITS_PER_NS;
        assert_eq!(reader.at_pace(paid_in(800), 1, 8), paid_in(100));
    }
}
