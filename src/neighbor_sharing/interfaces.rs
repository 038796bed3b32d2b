//! The interfaces that take part.

use anyhow::{Context, Result};

use super::{Arguments, PoliceAt};
use crate::netlink::{Link, Netlink};
use crate::preflight::{self, LinkLayer};

/// An interface that takes part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// Its name when it was looked up.
    pub name: String,
    /// Its number, which it keeps when it is renamed.
    pub ifindex: u32,
    /// Where its packets start.
    pub link_layer: LinkLayer,
}

impl TryFrom<Link> for Port {
    type Error = anyhow::Error;

    fn try_from(link: Link) -> Result<Port> {
        let link_layer = preflight::link_layer(&link)?;
        Ok(Port {
            name: link.name,
            ifindex: link.ifindex,
            link_layer,
        })
    }
}

/// All of them, by role.
#[derive(Clone, Debug)]
pub struct Ports {
    /// The shared link.
    pub wan: Port,
    /// Neighbors' ports.
    pub neighbors: Vec<Port>,
    /// The other ports that are known.
    pub lan: Vec<Port>,
}

impl Ports {
    /// The interfaces that the command line names.
    pub fn find(arguments: &Arguments) -> Result<Ports> {
        let mut netlink = Netlink::open()?;
        let wan = arguments.wan.as_deref().context("--wan was given")?;
        let wan = Port::try_from(preflight::find_interface(&mut netlink, wan)?)?;
        let mut expand = |patterns: &[String]| -> Result<Vec<Port>> {
            let expanded = preflight::expand_interfaces(&mut netlink, patterns)?;
            for left_out in &expanded.left_out {
                eprintln!("{left_out}");
            }
            expanded.links.into_iter().map(Port::try_from).collect()
        };
        Ok(Ports {
            wan,
            neighbors: expand(&arguments.neighbor)?,
            lan: expand(&arguments.lan)?,
        })
    }

    /// Says whose connections are about to be policed.
    pub fn warn(&self, arguments: &Arguments) -> Result<()> {
        let mut netlink = Netlink::open()?;
        // With --police-at lan the host's own traffic over the WAN is left alone.
        let wan = (arguments.police_at == Some(PoliceAt::Wan)).then_some(&self.wan);
        for port in wan.into_iter().chain(&self.neighbors).chain(&self.lan) {
            let sessions = preflight::sessions_over(&mut netlink, port.ifindex)?;
            if let Some(warning) = preflight::warning(&port.name, &sessions) {
                eprintln!("{warning}");
            }
        }
        Ok(())
    }
}
