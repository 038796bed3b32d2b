//! The network of the original's example: workers that all have one address, clients that all have
//! another, and what they fetch from each other.

mod clients;
mod log;
mod servers;
mod tagger;

use std::io::{self, Write};
use std::time::Duration;

use anyhow::{Result, bail};
use netsetup::topology::vlan_learning::{self, Network};

use super::arguments::{Arguments, Table};
use super::demux::{Policy, Verdict};
use super::interfaces::{self, Placed};
use super::mapping::{Entry, Mapping, Unknown, Untagged};
use crate::mac::Mac;
use crate::netlink::Netlink;
use crate::port::Port;
use crate::preflight;
use crate::progress::Progress;
use crate::session::{Ended, Event, Session};
pub use clients::{Clients, Tally, read_page};
pub use log::Log;
pub use servers::{Servers, read_request};
pub use tagger::Tagger;

/// How often each client fetches the page, and how far apart.
const FETCHES: u32 = 8;
const EVERY: Duration = Duration::from_secs(1);

/// The original's words.
pub const PROMPT: &str = "Press enter to exit: ";

/// Workers, clients and a trunk; gone when it is dropped.
#[derive(Debug)]
pub struct Simulation {
    // Their sockets keep the namespaces, so they go before the network.
    clients: Option<Clients>,
    servers: Option<Servers>,
    network: Network,
    log: Log,
    /// Results on stdout are JSON only.
    quiet: bool,
    prompted: bool,
}

impl Simulation {
    /// Builds the network; a signal ends that at once.
    pub fn build(arguments: &Arguments, session: &mut Session) -> Result<Simulation> {
        let mut progress = Progress::new(arguments.common.verbose);
        let network = vlan_learning::build(&arguments.plan(), &mut |step| {
            progress.step(step);
            session.check()
        });
        drop(progress);
        let network = network.map_err(|error| session.cause(error))?;
        // Lines in between would take the picture apart that is drawn in its place.
        let drawn = arguments.common.interval.is_some() && !arguments.common.verbose;
        Ok(Simulation {
            clients: None,
            servers: None,
            network,
            log: if drawn { Log::Quiet } else { Log::to_stderr() },
            quiet: arguments.common.json,
            prompted: false,
        })
    }

    /// Who belongs where.
    pub fn table(&self, arguments: &Arguments) -> Result<Table> {
        let mut mapping = Mapping::default();
        let workers = self.network.workers();
        for client in self.network.clients() {
            let entry = Entry {
                worker: workers[client.worker].port.clone(),
                address: Some(client.ipv4.into()),
            };
            mapping
                .add(Mac::from(client.mac), entry)
                .map_err(crate::Failure::Usage)?;
        }
        let mut netlink = Netlink::open()?;
        let trunk = preflight::find_interface(&mut netlink, self.network.trunk())?;
        let trunk = interfaces::trunk(&trunk)?;
        let placed = Placed::find(&mapping, &trunk, &netlink.links()?)?;
        let unknown = match &arguments.unknown {
            None | Some(Unknown::Drop) => Verdict::Drop,
            Some(Unknown::Pass) => Verdict::Pass,
            Some(Unknown::To(name)) => Verdict::Redirect(Port::find(&mut netlink, name)?),
        };
        let untagged = arguments.untagged.unwrap_or(Untagged::Drop).into();
        Ok(Table {
            trunk,
            mapping,
            placed: placed.complete()?,
            policy: Policy {
                unknown,
                untagged,
                no_move: arguments.no_move,
            },
        })
    }

    /// The network that was built.
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// Whether its clients' frames get their tags from a BPF program.
    pub fn needs_tagger(&self) -> bool {
        matches!(self.network.tagger(), vlan_learning::Tagger::Bpf)
    }

    /// Starts the workers' servers, then the clients.
    pub fn start(&mut self) -> Result<()> {
        let mut out = self.words();
        let mut on_line = |line: &str| Ok(writeln!(out, "{line}")?);
        let log = self.log.clone();
        self.servers = Some(Servers::start(&self.network, log, &mut on_line)?);
        out.flush()?;
        let log = self.log.clone();
        self.clients = Some(Clients::start(&self.network, FETCHES, EVERY, log)?);
        Ok(())
    }

    /// Where words go that are no results.
    fn words(&self) -> Box<dyn Write> {
        if self.quiet {
            Box::new(io::stderr())
        } else {
            Box::new(io::stdout())
        }
    }

    /// To be called now and then: an error where a server has ended before its time. Once the clients have
    /// fetched all that they will, the prompt is shown, as the original does.
    pub fn tend(&mut self) -> Result<()> {
        self.check()?;
        if self.is_over() && !std::mem::replace(&mut self.prompted, true) {
            let mut out = self.words();
            write!(out, "{PROMPT}")?;
            out.flush()?;
        }
        Ok(())
    }

    fn check(&mut self) -> Result<()> {
        self.servers.as_mut().map_or(Ok(()), Servers::check)
    }

    /// Whether the clients have fetched all that they will.
    pub fn is_over(&self) -> bool {
        self.clients.as_ref().is_none_or(Clients::are_over)
    }

    /// Waits for the clients, and prints who answered them. An error where that was not each one's own
    /// worker, every time.
    pub fn demonstrate(&mut self, session: &mut Session) -> Result<()> {
        while !self.is_over() {
            self.check()?;
            if let Event::End(reason) = session.wait(None)? {
                return Err(Ended(reason).into());
            }
        }
        let mut out = self.words();
        let mut astray = Vec::new();
        let tallies = self.clients.iter().flat_map(Clients::tally);
        for (client, tally) in self.network.clients().iter().zip(tallies) {
            let workers: Vec<&str> = tally.workers.iter().map(String::as_str).collect();
            writeln!(
                out,
                "{} in VLAN {}: {} pages from {}, {} failed",
                tally.client,
                client.vlan,
                tally.fetched,
                workers.join(" "),
                tally.failed
            )?;
            let own = &self.network.workers()[client.worker].namespace;
            if tally.fetched != u64::from(FETCHES) || workers != [own] {
                astray.push(tally.client);
            }
        }
        out.flush()?;
        if astray.is_empty() {
            return Ok(());
        }
        bail!(
            "not always, or not only, answered by their own worker: {}",
            astray.join(" ")
        )
    }

    /// Ends clients and servers, removes the network, and says what could not be removed.
    pub fn close(self) -> Result<()> {
        drop(self.clients);
        drop(self.servers);
        self.network.close()
    }
}
