//! A network to try the token bucket in: three senders at different paces, one receiver.

use std::fmt;
use std::io::{self, Write};
use std::time::{Duration, Instant};

use anyhow::Result;
use netsetup::topology::tokenbucket::{self, Network};
use serde::Serialize;

use super::arguments::Arguments;
use super::rule::Rule;
use super::traffic::{Tally, Traffic};
use crate::failure::say;
use crate::netlink::Netlink;
use crate::port::Port;
use crate::report::PROMPT;
use crate::session::{Ended, Event, Session};

/// How long the demonstration sends.
const DEMO: Duration = Duration::from_secs(10);

/// Three senders and a receiver on a bridge; gone when it is dropped.
#[derive(Debug)]
pub struct Simulation {
    // Its sockets keep the namespaces, so it goes before the network.
    traffic: Option<Traffic>,
    network: Network,
    /// Results on stdout are JSON only.
    json: bool,
}

impl Simulation {
    /// Builds the network; a signal ends that at once.
    pub fn build(arguments: &Arguments, session: &mut Session) -> Result<Simulation> {
        let network = tokenbucket::build(&mut |step| {
            arguments.common.say(format_args!("{step}"));
            session.check()
        });
        let network = network.map_err(|error| session.cause(error))?;
        Ok(Simulation {
            traffic: None,
            network,
            json: arguments.common.json,
        })
    }

    /// The host's ends of the senders' veths: what they send comes in there.
    pub fn ports(&self) -> Result<Vec<Port>> {
        let mut netlink = Netlink::open()?;
        let senders = self.network.senders().iter();
        senders
            .map(|sender| Port::find(&mut netlink, &sender.port))
            .collect()
    }

    /// Lets the senders send.
    pub fn start_traffic(&mut self) -> Result<()> {
        self.traffic = Some(Traffic::start(&self.network)?);
        Ok(())
    }

    /// To be called now and then: an error where a sender has ended before its time.
    pub fn check(&self) -> Result<()> {
        match &self.traffic {
            Some(traffic) => traffic.so_far().map(drop),
            None => Ok(()),
        }
    }

    /// Says what there is to see, and where to try more.
    pub fn introduce(&self) -> Result<()> {
        let mut out: Box<dyn Write> = if self.json {
            Box::new(io::stderr())
        } else {
            Box::new(io::stdout())
        };
        let receiver = self.network.receiver();
        writeln!(
            out,
            "Network ready. The senders send to {}; a shell in one can send more",
            receiver.ipv4
        )?;
        let sender = &self.network.senders()[0].namespace;
        let address = receiver.ipv4;
        writeln!(out, " e.g.: ip netns exec {sender} ping -i 0.2 {address}")?;
        write!(out, "{PROMPT}")?;
        Ok(out.flush()?)
    }

    /// Waits for what the demonstration shows, unless the session ends before.
    pub fn demonstrate(&self, session: &mut Session) -> Result<()> {
        let end = Instant::now() + DEMO;
        while Instant::now() < end {
            match session.wait(None)? {
                Event::End(reason) => return Err(Ended(reason).into()),
                Event::Second => {
                    self.check()?;
                    let left = end.saturating_duration_since(Instant::now());
                    say(format_args!("sending, {:.0} s left", left.as_secs_f64()));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Ends the senders. Prints what they sent and what arrived, beside what the rule allows.
    pub fn conclude(&mut self, rule: Rule) -> Result<()> {
        let Some(traffic) = self.traffic.take() else {
            return Ok(());
        };
        let outcome = Outcome::of(traffic.stop()?, rule);
        let mut out = io::stdout().lock();
        if self.json {
            writeln!(out, "{}", serde_json::to_string(&outcome)?)?;
        } else {
            write!(out, "\n{outcome}")?;
        }
        Ok(out.flush()?)
    }

    /// Removes the network, and says what could not be removed.
    pub fn close(self) -> Result<()> {
        drop(self.traffic);
        self.network.close()
    }
}

/// What became of the senders' packets.
#[derive(Debug, Serialize)]
struct Outcome {
    schema: &'static str,
    rule: Rule,
    senders: Vec<Sender>,
}

#[derive(Debug, Serialize)]
struct Sender {
    namespace: String,
    address: String,
    /// "ping" or "UDP".
    sends: &'static str,
    per_second: f64,
    sent: u64,
    arrived: u64,
    /// What the rule lets through of so many in this time; none where packets are not what it counts.
    allowed: Option<u64>,
}

impl Outcome {
    fn of(tallies: Vec<Tally>, rule: Rule) -> Outcome {
        // The pace says when packets were due, which is what the rule sees, but for some microseconds.
        let due = |tally: &Tally| {
            let intervals = tally.sent.saturating_sub(1) as f64;
            tally
                .span
                .max(Duration::from_secs_f64(intervals / tally.per_second))
        };
        let sender = |tally: Tally| Sender {
            allowed: rule.allows(due(&tally)).map(|most| most.min(tally.sent)),
            namespace: tally.sender,
            address: tally.source.to_string(),
            sends: tally.what,
            per_second: tally.per_second,
            sent: tally.sent,
            arrived: tally.arrived,
        };
        Outcome {
            schema: "netbpf.tokenbucket.simulation/1",
            rule,
            senders: tallies.into_iter().map(sender).collect(),
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "each source: {}", self.rule)?;
        writeln!(
            f,
            "{:<9} {:<14} {:<10} {:>7} {:>8} {:>8} {:>12}",
            "sender", "address", "sends", "sent", "passed", "dropped", "rule allows"
        )?;
        for sender in &self.senders {
            let pace = format!("{} {}/s", sender.sends, sender.per_second);
            let allowed = sender
                .allowed
                .map_or_else(|| "-".into(), |most| most.to_string());
            writeln!(
                f,
                "{:<9} {:<14} {pace:<10} {:>7} {:>8} {:>8} {allowed:>12}",
                sender.namespace,
                sender.address,
                sender.sent,
                sender.arrived,
                sender.sent.saturating_sub(sender.arrived),
            )?;
        }
        Ok(())
    }
}
