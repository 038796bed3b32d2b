//! The command line of tokenbucket, and what it configures.

use std::time::Duration;

use anyhow::Result;
use clap::{Parser, Subcommand, ValueEnum};

use super::config::Config;
use super::key::Key;
use super::machine::Machine;
use super::rule::{Pace, Rule};
use crate::Failure;
use crate::ground::Tracing;
use crate::netlink::Netlink;
use crate::options::Common;
use crate::port::{self, Port};
use crate::privilege::Cap;
use crate::rate::Size;
use crate::session;
use crate::tc::Direction;
use crate::trace::TraceArguments;

/// Flows that any table may hold.
const MOST_FLOWS: u32 = 16 << 20;

/// Limits what each source may send: a token bucket for every flow, as a state machine in the kernel.
///
/// Without --iface it builds a network to try it in: three senders and a receiver in namespaces behind
/// the bridge br200. Enter ends it and undoes everything.
#[derive(Parser, Clone, Debug)]
#[command(
    name = "tokenbucket",
    version,
    max_term_width = 100,
    args_conflicts_with_subcommands = true
)]
pub struct Arguments {
    /// What to do with an instance that is there; none: start one.
    #[command(subcommand)]
    pub command: Option<Command>,

    /// Show what the simulation's senders get through for 10 s, then end
    #[arg(long, conflicts_with_all = ["iface", "duration", "confirm", "metrics"])]
    pub demo: bool,

    /// The interfaces (names or globs)
    #[arg(long, value_name = "IF", num_args = 1..)]
    pub iface: Vec<String>,

    /// Limit what comes in by the interfaces; the default
    #[arg(long, requires = "iface")]
    pub ingress: bool,

    /// Limit what goes out by them
    #[arg(long, requires = "iface")]
    pub egress: bool,

    /// The rule.
    #[command(flatten)]
    pub limit: LimitArguments,

    /// Whose packets share a bucket: src, dst or 5tuple; src and dst also with prefixes of IPv4 and
    /// IPv6 addresses, as in src/24,/56 [an IPv6 source is its /64]
    #[arg(long, value_name = "KEY", default_value = "src")]
    pub key: Key,

    /// What costs a token
    #[arg(long, value_enum, value_name = "WHAT", default_value_t = Count::Packets)]
    pub count: Count,

    /// Another state machine: its TOML file, or port_knocking
    #[arg(long, value_name = "FILE")]
    pub xfsm: Option<String>,

    /// Run a capture (pcap or pcapng; -: standard input) through the program, and say of each packet what
    /// becomes of it and why; nothing is attached
    #[arg(long, value_name = "PCAP", conflicts_with_all = ["demo", "iface", "interval", "duration",
          "confirm", "attach", "before", "after", "metrics", "trace_drops"])]
    pub explain: Option<String>,

    /// Print the state machine, then end
    #[arg(long)]
    pub show_xfsm: bool,

    /// Flows that can be known at a time
    #[arg(long, value_name = "N", default_value_t = 65536,
          value_parser = clap::value_parser!(u32).range(1..=i64::from(MOST_FLOWS)))]
    pub max_entries: u32,

    /// Stay in the kernel when this process has ended
    #[arg(long, requires = "iface", conflicts_with_all = ["confirm", "trace_drops"])]
    pub pin: bool,

    /// The same, with the maps pinned under the original's names: tc/globals/state_table and xfsm_table
    #[arg(long, requires = "iface", conflicts_with_all = ["confirm", "trace_drops"])]
    pub pin_legacy: bool,

    /// What is dropped, in a file.
    #[command(flatten)]
    pub trace: TraceArguments,

    /// What every tool has.
    #[command(flatten)]
    pub common: Common,
}

/// The options that make the rule.
#[derive(clap::Args, Clone, Debug)]
pub struct LimitArguments {
    /// Packets that a flow may send at once after a pause, and one more [default: 5]
    #[arg(long, value_name = "N")]
    pub tokens: Option<u64>,

    /// Tokens that regenerate, as in 20/s or 10/min; or bytes, as in 1mbit [default: 1/s]
    #[arg(long, value_name = "RATE")]
    pub rate: Option<Pace>,

    /// With a rate in bytes: what may pass at once after a pause [default: 32kb]
    #[arg(long, value_name = "SIZE")]
    pub burst: Option<Size>,
}

/// What is done with an instance that runs, or is pinned.
#[derive(Subcommand, Clone, Debug)]
pub enum Command {
    /// Change the rule at once, at all its interfaces; what is known of flows is kept
    Set {
        /// Which instance.
        #[command(flatten)]
        which: Which,
        /// The new rule; what is not named stays.
        #[command(flatten)]
        limit: LimitArguments,
    },
    /// Print what it has counted
    Status {
        /// Which instance.
        #[command(flatten)]
        which: Which,
        /// Write one JSON object a line instead of text (schema: docs/)
        #[arg(long)]
        json: bool,
    },
    /// End it, at all its interfaces, and remove exactly what it has left in the kernel
    Detach {
        /// Which instance.
        #[command(flatten)]
        which: Which,
    },
}

/// Which instance.
#[derive(clap::Args, Clone, Debug)]
pub struct Which {
    /// An interface that it is attached to
    #[arg(long, value_name = "IF")]
    pub iface: String,
}

/// What costs a token.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Count {
    /// Packets as the kernel hands them over, as in the original
    Packets,
    /// Packets as they are on the wire
    Segments,
}

impl LimitArguments {
    /// The rule that they make for such a machine.
    pub fn rule(&self, machine: Option<&str>) -> Result<Rule, Failure> {
        let refuse = |text: &str| Err(Failure::Usage(text.into()));
        match (self.rate, self.tokens, self.burst) {
            (Some(Pace::Bytes(rate)), tokens, burst) => {
                if tokens.is_some() {
                    return refuse("--tokens are for rates like 1/s; a rate in bytes has --burst");
                }
                if machine.is_some() {
                    return refuse("a rate in bytes has no state machine: leave out --xfsm");
                }
                let default = Size::from_bytes(32 << 10);
                match burst.or(default) {
                    Some(burst) => Ok(Rule::Bytes { rate, burst }),
                    None => refuse("--burst must be more than 0"),
                }
            }
            (_, _, Some(_)) => refuse("--burst is for rates in bytes, as in --rate 1mbit"),
            (None, None, None) if machine.is_some() => Ok(Rule::Machine),
            (pace, tokens, None) => {
                let regeneration = match pace {
                    Some(Pace::Token(regeneration)) => regeneration,
                    _ => Duration::from_secs(1),
                };
                Ok(Rule::Tokens {
                    tokens: tokens.unwrap_or(5),
                    regeneration,
                })
            }
        }
    }

    /// Such a rule with what they change in it. What a rule counts cannot be changed: it is in what is
    /// known of flows.
    pub fn change(&self, rule: Rule) -> Result<Rule, Failure> {
        let refuse = |text: &str| Err(Failure::Usage(text.into()));
        match (rule, self.rate, self.tokens, self.burst) {
            (_, None, None, None) => {
                refuse("name what is to be changed: --tokens, --rate or --burst")
            }
            (Rule::Machine, ..) => {
                refuse("this instance runs another machine, whose figures are in its file")
            }
            (Rule::Tokens { .. }, Some(Pace::Bytes(_)), ..)
            | (Rule::Tokens { .. }, .., Some(_)) => {
                refuse("this instance counts tokens: --tokens N and --rate N/s can be changed")
            }
            (Rule::Bytes { .. }, Some(Pace::Token(_)), ..)
            | (Rule::Bytes { .. }, _, Some(_), _) => refuse(
                "this instance counts bytes: --rate (as in 1mbit) and --burst can be changed",
            ),
            (Rule::Bytes { rate, burst }, pace, ..) => Ok(Rule::Bytes {
                rate: match pace {
                    Some(Pace::Bytes(rate)) => rate,
                    _ => rate,
                },
                burst: self.burst.unwrap_or(burst),
            }),
            (
                Rule::Tokens {
                    tokens,
                    regeneration,
                },
                pace,
                ..,
            ) => Ok(Rule::Tokens {
                tokens: self.tokens.unwrap_or(tokens),
                regeneration: match pace {
                    Some(Pace::Token(regeneration)) => regeneration,
                    _ => regeneration,
                },
            }),
        }
    }
}

impl Arguments {
    /// Without interfaces the simulation is meant.
    pub fn simulated(&self) -> bool {
        self.iface.is_empty()
    }

    /// Whether the program stays in the kernel.
    pub fn pinned(&self) -> bool {
        self.pin || self.pin_legacy
    }

    /// Of which packets the program is to say what became of them.
    fn tracing(&self) -> Tracing {
        match self.explain {
            Some(_) => Tracing::All,
            None => self.trace.tracing(),
        }
    }

    /// What ends the run, and how often it wakes.
    pub fn session(&self) -> session::Options {
        session::Options {
            seconds: true,
            ..self.common.session()
        }
    }

    /// The interfaces that are named.
    pub fn ports(&self) -> Result<Vec<Port>> {
        let mut netlink = Netlink::open()?;
        let links = port::expand(&mut netlink, &self.iface)?;
        let roles: Vec<_> = links.iter().map(|link| (link, "to be limited")).collect();
        port::check_roles(&roles, &netlink.links()?)?;
        links.iter().map(Port::try_from).collect()
    }

    /// What the kernel asks for; CAP_PERFMON because the verifier lets nobody else add a variable to a
    /// packet pointer.
    pub fn capabilities(&self) -> &'static [Cap] {
        if self.command.is_some() || self.pinned() {
            // Programs and maps of others are opened by their ids.
            &[Cap::Bpf, Cap::Perfmon, Cap::NetAdmin, Cap::SysAdmin]
        } else if self.explain.is_none() && self.simulated() {
            &[
                Cap::Bpf,
                Cap::Perfmon,
                Cap::NetAdmin,
                Cap::NetRaw,
                Cap::SysAdmin,
            ]
        } else {
            &[Cap::Bpf, Cap::Perfmon, Cap::NetAdmin]
        }
    }

    /// The state machine that judges packets; one that cannot is refused here, before anything is changed.
    pub fn machine(&self) -> Result<Machine, Failure> {
        let machine = match &self.xfsm {
            Some(name) => Machine::find(name)?,
            None => Machine::tokenbucket()?,
        };
        let machine = match self.rule()? {
            Rule::Tokens {
                tokens,
                regeneration,
            } => machine.with_tokens(tokens, regeneration)?,
            _ => machine,
        };
        machine.compile(self.count == Count::Segments)?;
        Ok(machine)
    }

    /// What every flow may send; refused here, before anything is changed.
    pub fn rule(&self) -> Result<Rule, Failure> {
        self.limit.rule(self.xfsm.as_deref())
    }

    /// The sides of the interfaces.
    fn directions(&self) -> Vec<Direction> {
        let mut directions = Vec::new();
        if self.ingress || !self.egress {
            directions.push(Direction::Ingress);
        }
        if self.egress {
            directions.push(Direction::Egress);
        }
        directions
    }

    /// What to load and attach on these interfaces.
    pub fn configure(&self, ports: Vec<Port>) -> Result<Config> {
        if self.pinned() && ports.len() != 1 {
            let text = "--pin takes one interface: what stays is found by its name";
            return Err(Failure::Usage(text.into()).into());
        }
        Ok(Config {
            ports,
            directions: self.directions(),
            machine: self.machine()?,
            rule: self.rule()?,
            key: self.key,
            count_segments: self.count == Count::Segments,
            max_entries: self.max_entries,
            exempt: self.common.exempt.clone(),
            dry_run: self.common.dry_run,
            tracing: self.tracing(),
        })
    }
}
