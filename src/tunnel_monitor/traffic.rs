//! `tunnel_monitor traffic`: traffic of known sizes between the clients of the network that is up, in
//! place of the original's traffic.sh. No other program takes part: every packet is sent by a socket of
//! ours, and what arrives is counted by another one.

mod echo;
#[doc(hidden)] // fuzzing reads lists of its own
pub mod list;
mod pace;
mod report;
mod senders;
mod sites;
mod stream;

use std::io::{self, Write};
use std::time::Duration;

use anyhow::Result;
use clap::Args;

use crate::Failure;
use crate::failure::say;
use crate::notation::counted;
use crate::privilege::{self, Cap, Scope};
use crate::rate;
use crate::session::{self, Event, Session};
use report::Reporter;
use senders::{Senders, Sockets};
use sites::Sites;

/// What it takes to enter namespaces and to open raw sockets there.
const NEEDED: [Cap; 2] = [Cap::NetRaw, Cap::SysAdmin];

/// Sends traffic of known sizes between the clients of the network that is up: that of the original's
/// traffic.sh, or what a list of your own says
#[derive(Args, Clone, Debug)]
pub struct TrafficArguments {
    /// What is sent, a line each (see --show) [default: what the original's traffic.sh sends]
    #[arg(long, value_name = "FILE")]
    pub file: Option<String>,

    /// Print the default list, for a file of your own
    #[arg(long, conflicts_with_all = ["file", "heavy", "json", "interval", "duration"])]
    pub show: bool,

    /// Let this client (an address, or a host for its first client) send much more than all others
    #[arg(long, value_name = "WHO")]
    pub heavy: Option<String>,

    /// Write one JSON object a line instead of text (schema: docs/)
    #[arg(long)]
    pub json: bool,

    /// Report this often
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = rate::seconds)]
    pub interval: Duration,

    /// End by itself after this time; without it, when all that has an end was sent
    #[arg(long, value_name = "TIME", value_parser = rate::seconds)]
    pub duration: Option<Duration>,
}

impl TrafficArguments {
    /// What ends the session, and how often it wakes.
    pub fn session(&self) -> session::Options {
        session::Options {
            duration: self.duration,
            interval: Some(self.interval),
            confirm: None,
            reload: false,
            keys: false,
            seconds: true,
        }
    }

    /// The entries, as far as this network has who they are about.
    fn entries(&self, sites: &Sites) -> Result<Vec<list::Entry>> {
        let mut entries = list::read(self.file.as_deref())?;
        let heavy = self
            .heavy
            .as_ref()
            .map(|who| sites.heavy(who))
            .transpose()?;
        if self.file.is_none() {
            let all = entries.len();
            sites.keep_known(&mut entries);
            let left_out = all - entries.len();
            if left_out > 0 {
                say(format_args!(
                    "{} of the default list left out: {sites} does not have these addresses",
                    counted(left_out, "line")
                ));
            }
        }
        entries.extend(heavy.into_iter().flatten());
        if entries.is_empty() {
            return Err(Failure::Usage("there is nothing to send".into()).into());
        }
        Ok(entries)
    }
}

/// Sends until it is told to end, or until all is sent. The session is to be started with
/// [`TrafficArguments::session`].
pub fn run(arguments: &TrafficArguments, session: &mut Session) -> Result<()> {
    if arguments.show {
        io::stdout().write_all(list::DEFAULT.as_bytes())?;
        return Ok(io::stdout().flush()?);
    }
    // Whoever has written a list wants to know what is wrong with it, also without privileges.
    list::read(arguments.file.as_deref())?;
    privilege::require(&NEEDED)?;
    let sites = Sites::find()?;
    let entries = arguments.entries(&sites)?;
    let routes = sites.routes(&entries)?;
    let sockets = Sockets::open(&routes)?;
    session.check()?;
    let mut reporter = Reporter::new(arguments.json, &routes);
    privilege::drop_all(Scope::Process)?;
    let mut senders = Senders::start(sockets)?;

    let attended = attend(session, &sites, &senders, &mut reporter);
    let finished = senders.finish();
    let concluded = reporter.conclude(&senders.tallies());
    attended.and(finished).and(concluded)
}

/// Reports until the end is asked for, or nothing is left to be sent.
fn attend(
    session: &mut Session,
    sites: &Sites,
    senders: &Senders,
    reporter: &mut Reporter,
) -> Result<()> {
    loop {
        match session.wait(None)? {
            Event::End(_) => return Ok(()),
            _ if senders.are_over() => return Ok(()),
            Event::Tick => reporter.interim(&senders.tallies())?,
            Event::Second => sites.check()?,
            _ => {}
        }
    }
}
