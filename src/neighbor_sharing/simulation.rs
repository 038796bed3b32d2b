//! The network of the original's example, and what the original says about it.

use std::io::{self, Write};

use anyhow::Result;
use netsetup::server::Kind;
use netsetup::topology::neighbor_sharing::{self, Host, Network};

use super::{Arguments, Ports};
use crate::netlink::{Link, Netlink};
use crate::preflight;
use crate::report::PROMPT;
use crate::session::Session;

/// Five hosts and a WAN host on a bridge; gone when it is dropped.
#[derive(Debug)]
pub struct Simulation {
    network: Network,
    server: Option<Kind>,
    /// Results on stdout are JSON only.
    quiet: bool,
}

impl Simulation {
    /// Builds the network; a signal ends that at once.
    pub fn build(arguments: &Arguments, session: &mut Session) -> Result<Simulation> {
        let network = neighbor_sharing::build(&mut |step| {
            arguments.common.say(format_args!("{step}"));
            session.check()
        });
        let network = network.map_err(|error| session.cause(error))?;
        Ok(Simulation {
            network,
            server: None,
            quiet: arguments.common.json,
        })
    }

    /// The host's ends of the veths.
    pub fn ports(&self) -> Result<Ports> {
        let mut netlink = Netlink::open()?;
        let mut links = |hosts: &[Host]| -> Result<Vec<Link>> {
            let port = |host: &Host| preflight::find_interface(&mut netlink, &host.port);
            hosts.iter().map(port).collect()
        };
        let wan = links(std::slice::from_ref(self.network.wan()))?;
        let neighbors = links(self.network.neighbors())?;
        let lan = links(self.network.locals())?;
        Ports::arrange(&wan[0], &neighbors, &lan, &netlink.links()?)
    }

    /// Starts what the WAN host measures against, where it is installed.
    pub fn start_servers(&mut self, session: &mut Session) -> Result<()> {
        session.check()?;
        let mut out = self.words();
        let servers = self
            .network
            .start_servers(&mut |line| Ok(writeln!(out, "{line}")?));
        self.server = servers.map_err(|error| session.cause(error))?;
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

    /// The network that was built.
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// The original's lines.
    pub fn introduce(&self) -> Result<()> {
        let wan = &self.network.wan().namespace;
        let neighbor = self.network.neighbors()[0].ipv4;
        let client = match self.server {
            Some(Kind::Netperf) => format!("netperf -H {neighbor} -l 2"),
            Some(Kind::Iperf3) => format!("iperf3 -c {neighbor} -t 10 -O 2"),
            None => format!("ping {neighbor}"),
        };
        let tool = if self.server == Some(Kind::Iperf3) {
            "iperf3"
        } else {
            "netperf"
        };
        let mut out = self.words();
        writeln!(
            out,
            "Network ready. Create a shell in the {wan} namespace and test with {tool}"
        )?;
        writeln!(
            out,
            "   (Neighbors are 172.16.1.100-102, and LAN clients are 172.16.1.150-151)"
        )?;
        writeln!(out, " e.g.: ip netns exec {wan} {client}")?;
        if self.server.is_none() {
            writeln!(
                io::stderr(),
                "neither netserver nor iperf3 is installed, so no servers run in the namespaces: \
                 install iperf3, or try --demo"
            )?;
        }
        write!(out, "{PROMPT}")?;
        out.flush()?;
        Ok(())
    }

    /// Removes the network, and says what could not be removed.
    pub fn close(self) -> Result<()> {
        self.network.close()
    }
}
