//! The rule that every flow is under: tokens, bytes, or whatever another machine says.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use anyhow::Result;
use serde::Serialize;

use super::machine::Machine;
use super::skeleton::types;
use crate::Failure;
use crate::policer::{Clock, Limit, Tick};
use crate::rate::{Rate, Size};

/// `--rate`: packets, or bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// One token regenerates in this time.
    Token(Duration),
    /// Bytes at a rate.
    Bytes(Rate),
}

impl FromStr for Pace {
    type Err = String;

    fn from_str(text: &str) -> Result<Pace, String> {
        let Some((count, unit)) = text.split_once('/') else {
            return text
                .parse()
                .map(Pace::Bytes)
                .map_err(|error| format!("{error}; or tokens, as in 5/s, 0.5/s, 10/min or 100/h"));
        };
        let usage = || format!("'{text}' is no rate of tokens: write it like 5/s, 10/min or 100/h");
        let span: f64 = match unit {
            "s" => 1e9,
            "m" | "min" => 60e9,
            "h" => 3600e9,
            _ => return Err(usage()),
        };
        let count: f64 = count.parse().map_err(|_| usage())?;
        // Whole ns, as the original has them; 292 years are the longest that a u64 holds.
        let regeneration = (span / count).round();
        if !count.is_finite() || count <= 0.0 || !(1.0..9.2e18).contains(&regeneration) {
            return Err(format!(
                "'{text}' is out of range: between one token a year and 1,000,000,000 a second"
            ));
        }
        Ok(Pace::Token(Duration::from_nanos(regeneration as u64)))
    }
}

/// What every flow may send.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Rule {
    /// So many packets and one more at once, then one in each regeneration.
    Tokens {
        /// The bucket's depth.
        tokens: u64,
        /// Of one token, in seconds.
        #[serde(serialize_with = "as_seconds")]
        regeneration: Duration,
    },
    /// Bytes at a rate.
    Bytes {
        /// In bits per second.
        rate: Rate,
        /// What may pass at once after a pause.
        burst: Size,
    },
    /// What the machine says.
    Machine,
}

fn as_seconds<S: serde::Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(time.as_secs_f64())
}

impl Rule {
    /// The rule in the BPF program's figures. `ns_at_tick_0` is the program's own.
    pub(super) fn figures(
        self,
        machine: &Machine,
        count_segments: bool,
        tick: Tick,
    ) -> Result<types::rule, Failure> {
        let mut rule = types::rule::default();
        let clock = match self {
            Rule::Tokens {
                tokens,
                regeneration,
            } => {
                let machine = machine.clone().with_tokens(tokens, regeneration)?;
                rule.xfsm = machine.compile(count_segments)?.figures;
                rule.tokens = tokens;
                rule.regeneration = regeneration.as_nanos() as u64;
                Clock::for_spans([tokens.saturating_mul(rule.regeneration)], tick)
            }
            Rule::Bytes { rate, burst } => {
                let limit = Limit::new(rate, burst)?;
                rule.cost = limit.cost;
                rule.burst = limit.burst;
                rule.bits_per_second = rate.bits();
                rule.burst_bytes = burst.bytes();
                Clock::for_limits([&limit], tick)
            }
            Rule::Machine => {
                let compiled = machine.compile(count_segments)?;
                rule.xfsm = compiled.figures;
                let spans = machine.times().map(|(_, time)| time.as_nanos() as u64);
                Clock::for_spans(spans.filter(|span| *span > 0), tick)
            }
        };
        rule.ns_per_tick = match clock {
            Clock::Ticks => tick.ns,
            Clock::Precise => 0,
        };
        Ok(rule)
    }

    /// The rule that a running program goes by.
    pub(super) fn of_figures(rule: &types::rule) -> Rule {
        let bytes = Rate::from_bits(rule.bits_per_second).zip(Size::from_bytes(rule.burst_bytes));
        match (bytes, rule.tokens) {
            (Some((rate, burst)), _) => Rule::Bytes { rate, burst },
            (None, 0) => Rule::Machine,
            (None, tokens) => Rule::Tokens {
                tokens,
                regeneration: Duration::from_nanos(rule.regeneration),
            },
        }
    }

    /// What a source that never pauses may send in a time, in packets; none where packets are not what
    /// counts.
    pub fn allows(self, time: Duration) -> Option<u64> {
        let Rule::Tokens {
            tokens,
            regeneration,
        } = self
        else {
            return None;
        };
        Some(tokens + 1 + (time.as_nanos() / regeneration.as_nanos().max(1)) as u64)
    }
}

impl types::rule {
    /// What a token or a byte takes.
    pub(super) fn pace(&self) -> u64 {
        if self.bits_per_second > 0 {
            self.cost
        } else {
            self.regeneration
        }
    }

    /// How far ahead of now a flow's time may be, as its word counts: a packet that is larger than the
    /// bucket puts it farther.
    pub(super) fn longest_wait(&self) -> u64 {
        if self.bits_per_second > 0 {
            self.burst
        } else {
            self.regeneration
        }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Rule::Tokens {
                tokens,
                regeneration,
            } => {
                let plural = if *tokens == 1 { "" } else { "s" };
                let per_second = 1.0 / regeneration.as_secs_f64();
                if *regeneration > Duration::from_secs(1) {
                    write!(f, "{tokens} token{plural}, one in {regeneration:?}")
                } else if (per_second - per_second.round()).abs() < 1e-6 * per_second {
                    write!(f, "{tokens} token{plural}, {per_second:.0} a second")
                } else {
                    write!(f, "{tokens} token{plural}, {per_second:.3} a second")
                }
            }
            Rule::Bytes { rate, burst } => write!(f, "{rate}, burst {burst}"),
            Rule::Machine => f.write_str("what the machine says"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paces_are_tokens_or_bytes() {
        let token = |ns| Pace::Token(Duration::from_nanos(ns));
        for (text, pace) in [
            ("1/s", token(1_000_000_000)),
            ("3/s", token(333_333_333)),
            ("0.5/s", token(2_000_000_000)),
            ("10/min", token(6_000_000_000)),
            ("100/h", token(36_000_000_000)),
            ("1000000000/s", token(1)),
            ("1mbit", Pace::Bytes("1mbit".parse().unwrap())),
        ] {
            assert_eq!(text.parse(), Ok(pace), "{text}");
        }
    }

    #[test]
    fn what_is_no_pace_is_told_so() {
        for (text, says) in [
            ("5/", "is no rate of tokens"),
            ("five/s", "is no rate of tokens"),
            ("0/s", "is out of range"),
            ("-1/s", "is out of range"),
            ("inf/s", "is out of range"),
            ("2000000001/s", "is out of range"),
            ("five", "or tokens, as in 5/s"),
        ] {
            let error = text.parse::<Pace>().unwrap_err();
            assert!(error.contains(says), "{text}: {error}");
        }
    }

    #[test]
    fn a_source_that_never_pauses_gets_one_more_than_the_bucket_holds() {
        let rule = Rule::Tokens {
            tokens: 5,
            regeneration: Duration::from_secs(1),
        };
        assert_eq!(rule.allows(Duration::from_millis(9_990)), Some(15));
        assert_eq!(rule.allows(Duration::ZERO), Some(6));
        assert_eq!(Rule::Machine.allows(Duration::ZERO), None);
    }

    #[test]
    fn rules_for_readers() {
        let tokens = |tokens, ms| Rule::Tokens {
            tokens,
            regeneration: Duration::from_millis(ms),
        };
        assert_eq!(tokens(5, 1000).to_string(), "5 tokens, 1 a second");
        assert_eq!(tokens(1, 50).to_string(), "1 token, 20 a second");
        assert_eq!(tokens(5, 300).to_string(), "5 tokens, 3.333 a second");
        assert_eq!(tokens(5, 6000).to_string(), "5 tokens, one in 6s");
    }
}
