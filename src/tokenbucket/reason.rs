//! Why the program has passed or dropped a packet, in words: `enum reason` of tokenbucket.bpf.c.

use std::time::Duration;

use super::config::Config;
use super::machine::Machine;
use super::rule::Rule;
use super::skeleton::types;
use crate::Failure;
use crate::explain::Reason;
use crate::ground::{Ground, Verdict};
use crate::map_value;
use crate::notation::grouped;
use crate::policer::{COST_SHIFT, UNITS_PER_NS};

/// In the program's order.
const REASONS: [&str; 10] = [
    "not_ip",
    "control",
    "exempt",
    "malformed",
    "no_transport",
    "by_row",
    "without_row",
    "by_bytes",
    "lost_race",
    "no_cell",
];
/// `NEW_FLOW` and `TABLE_FULL`.
const NEW_FLOW: u8 = 1;
const TABLE_FULL: u8 = 2;

/// What is needed to understand the program's figures.
#[derive(Clone, Debug)]
pub struct Reasons {
    machine: Machine,
    /// Tokens of a full bucket, and what one takes in ns; none: the machine is not the token bucket.
    bucket: Option<(u64, u64)>,
    /// Of a byte, and of the burst, as the policer has them.
    cost: u64,
    burst: u64,
}

impl Reasons {
    /// Of a program that was loaded with these.
    pub(super) fn new(config: &Config, figures: &types::rule) -> Result<Reasons, Failure> {
        let Config {
            machine,
            count_segments,
            rule,
            ..
        } = config;
        let ours = machine.compile(*count_segments)?.machine;
        let usual = Machine::tokenbucket()?.compile(*count_segments)?.machine;
        let is_usual = map_value::bytes(&ours) == map_value::bytes(&usual);
        let bucket = match rule {
            Rule::Tokens { tokens, .. } if is_usual => Some((*tokens, figures.regeneration.max(1))),
            _ => None,
        };
        Ok(Reasons {
            machine: machine.clone(),
            bucket,
            cost: figures.cost.max(1),
            burst: figures.burst,
        })
    }

    /// What the program's numbers mean.
    pub fn of(&self, ground: &Ground) -> Reason {
        let name = REASONS.get(usize::from(ground.reason)).copied();
        let name = name.unwrap_or("unknown");
        let wait = self.wait(name, ground);
        Reason {
            name: match (name, ground.verdict) {
                ("by_row", Verdict::Pass) if self.bucket.is_some() => "token",
                ("by_row", _) if self.bucket.is_some() => "no_token",
                ("by_bytes", Verdict::Pass) => "room",
                ("by_bytes", _) => "no_room",
                _ => name,
            },
            text: self.text(name, wait, ground),
            wait,
        }
    }

    /// How long after this packet there is what it lacks.
    fn wait(&self, name: &str, ground: &Ground) -> Option<Duration> {
        let figure = ground.figure.unsigned_abs();
        match name {
            _ if ground.verdict == Verdict::Pass => None,
            "by_row" if self.bucket.is_some() => Some(Duration::from_nanos(figure)),
            "by_bytes" => Some(Duration::from_nanos(figure.div_ceil(UNITS_PER_NS))),
            _ => None,
        }
    }

    fn text(&self, name: &str, wait: Option<Duration>, ground: &Ground) -> String {
        let mut text = match name {
            "not_ip" => "not IP: not metered".to_owned(),
            "control" => "what a network needs to work: not metered".to_owned(),
            "exempt" => "exempt: not metered".to_owned(),
            "malformed" => {
                "says that it is IP and is not, or ends too early: not metered".to_owned()
            }
            "no_transport" => {
                "the machine looks behind the IP header, and that cannot be followed".to_owned()
            }
            "by_row" => self.row(wait, ground),
            "without_row" => format!("{}: no row for it", self.machine.taken(ground.detail)),
            "by_bytes" => self.bytes(wait, ground),
            "lost_race" => "other CPUs were quicker at every try".to_owned(),
            "no_cell" => "no place for the flow".to_owned(),
            _ => format!(
                "a reason that this version does not know ({})",
                ground.reason
            ),
        };
        if ground.flags & NEW_FLOW != 0 {
            text.insert_str(0, "new flow: ");
        }
        if ground.flags & TABLE_FULL != 0 {
            text.push_str(" (table full)");
        }
        text
    }

    fn row(&self, wait: Option<Duration>, ground: &Ground) -> String {
        let Some((tokens, regeneration)) = self.bucket else {
            return self.machine.taken(ground.detail);
        };
        if let Some(wait) = wait {
            return format!("no token left, next in {}", shown(wait));
        }
        // Whole tokens that there were: this packet's own had just regenerated, or is one of them.
        let left = ground.figure.max(0).unsigned_abs() / regeneration;
        match left.min(tokens) {
            0 => "the last token".to_owned(),
            1 => "1 token left".to_owned(),
            left => format!("{} tokens left", grouped(left)),
        }
    }

    fn bytes(&self, wait: Option<Duration>, ground: &Ground) -> String {
        if let Some(wait) = wait {
            return format!("no room for it, enough in {}", shown(wait));
        }
        let units = ground.figure.unsigned_abs();
        let left = (u128::from(units.min(self.burst)) << COST_SHIFT) / u128::from(self.cost);
        format!("room for {} bytes more", grouped(left as u64))
    }
}

/// A time in as many digits as one reads.
fn shown(time: Duration) -> String {
    match time.as_nanos() {
        nanoseconds @ 0..1_000 => format!("{nanoseconds} ns"),
        nanoseconds @ 1_000..1_000_000 => format!("{:.1} us", nanoseconds as f64 / 1e3),
        nanoseconds @ 1_000_000..1_000_000_000 => format!("{:.1} ms", nanoseconds as f64 / 1e6),
        nanoseconds => format!("{:.3} s", nanoseconds as f64 / 1e9),
    }
}
