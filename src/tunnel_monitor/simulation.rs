//! The network of the original's example, and what the original says about it.

use std::io::{self, Write};
use std::net::SocketAddr;

use anyhow::{Context, Result};
use netsetup::namespace::{self, Entered};
use netsetup::topology::tunnel_monitor::{self, Network};

use super::arguments::Arguments;
use super::recorder::PROMPT;
use crate::netlink::Netlink;
use crate::port::Port;
use crate::progress::Progress;
use crate::session::Session;

/// Hosts with clients in virtual networks; gone when it is dropped.
#[derive(Debug)]
pub struct Simulation {
    network: Network,
    /// Results on stdout are JSON only.
    quiet: bool,
}

impl Simulation {
    /// Builds the network; a signal ends that at once.
    pub fn build(arguments: &Arguments, session: &mut Session) -> Result<Simulation> {
        let mut progress = Progress::new(arguments.common.verbose);
        let quiet = arguments.common.json;
        let (mut launched, mut started) = (0, 0);
        let network = tunnel_monitor::build(&arguments.plan(), &mut |step| {
            progress.step(step);
            // What the original says at these steps.
            let (what, number) = if step.starts_with("making the namespace ") {
                ("Launching host", &mut launched)
            } else if step.starts_with("making the tunnels of ") {
                ("Starting tunnel", &mut started)
            } else {
                return session.check();
            };
            *number += 1;
            let mut out = words(quiet);
            writeln!(out, "{what} {number} of {}", arguments.hosts)?;
            out.flush()?;
            session.check()
        });
        drop(progress);
        let network = network.map_err(|error| session.cause(error))?;
        Ok(Simulation { network, quiet })
    }

    /// Takes this thread to the host that is monitored, the first one, until the result is dropped.
    pub fn enter(&self) -> Result<Entered> {
        let host = self.network.hosts().first().context("no hosts")?;
        let file = namespace::open(&host.namespace)?;
        namespace::enter(&file).with_context(|| format!("enter {}", host.namespace))
    }

    /// The monitored interface; only in that host.
    pub fn port(&self) -> Result<Port> {
        Port::find(&mut Netlink::open()?, self.network.device())
    }

    /// Starts what traffic can be measured against, where it is installed.
    pub fn start_servers(&mut self, session: &mut Session) -> Result<()> {
        session.check()?;
        let mut out = words(self.quiet);
        let servers = self
            .network
            .start_servers(&mut |line| Ok(writeln!(out, "{line}")?));
        servers.map_err(|error| session.cause(error))?;
        Ok(())
    }

    /// The original's last lines.
    pub fn introduce(&self, http: Option<SocketAddr>) -> Result<()> {
        let mut out = words(self.quiet);
        if let Some(address) = http {
            writeln!(out, "HTTPServer listening on {address}")?;
        }
        write!(out, "{PROMPT}")?;
        Ok(out.flush()?)
    }

    /// Removes the network, and says what could not be removed.
    pub fn close(self) -> Result<()> {
        self.network.close()
    }
}

/// Where words go that are no results.
fn words(quiet: bool) -> Box<dyn Write> {
    if quiet {
        Box::new(io::stderr())
    } else {
        Box::new(io::stdout())
    }
}
