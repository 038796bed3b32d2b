//! From the names of interfaces to what can be attached to.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use anyhow::Result;

use super::mapping::Mapping;
use crate::Failure;
use crate::mac::Mac;
use crate::netlink::Link;
use crate::port::Port;
use crate::preflight::{self, LinkLayer};

/// Where a worker is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Worker {
    /// The interface that its frames come in by.
    pub port: Port,
    /// It is the other end of a veth, in another namespace, and can be given frames there.
    pub has_peer: bool,
}

/// Clients, and the interfaces of their workers as they are now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Placed {
    /// By MAC address, the ifindex of the worker's interface.
    pub clients: BTreeMap<Mac, u32>,
    /// By ifindex.
    pub workers: BTreeMap<u32, Worker>,
    /// Interfaces that are not there; their clients are not among the clients.
    pub absent: BTreeSet<String>,
}

impl Placed {
    /// Finds the interfaces of a mapping among all links.
    pub fn find(mapping: &Mapping, trunk: &Port, all: &[Link]) -> Result<Placed> {
        let by_name: HashMap<&str, &Link> = all
            .iter()
            .flat_map(|link| {
                let names = std::iter::once(&link.name).chain(&link.altnames);
                names.map(move |name| (name.as_str(), link))
            })
            .collect();
        let above = preflight::standing_on(trunk.ifindex, all);
        let mut placed = Placed::default();
        for name in mapping.workers() {
            match by_name.get(name) {
                Some(link) => {
                    check(link, "a worker's interface", trunk, &above)?;
                    let worker = Worker {
                        port: Port::try_from(*link)?,
                        has_peer: link.kind.as_deref() == Some("veth") && link.lower_elsewhere,
                    };
                    placed.workers.insert(link.ifindex, worker);
                }
                None => drop(placed.absent.insert(name.to_owned())),
            }
        }
        for (mac, entry) in &mapping.clients {
            if let Some(link) = by_name.get(entry.worker.as_str()) {
                placed.clients.insert(*mac, link.ifindex);
            }
        }
        Ok(placed)
    }

    /// All interfaces have to be there.
    pub fn complete(self) -> Result<Placed, Failure> {
        if self.absent.is_empty() {
            return Ok(self);
        }
        let names: Vec<&str> = self.absent.iter().map(String::as_str).collect();
        Err(Failure::Usage(format!(
            "there is no interface '{}' (ip link shows what there is)",
            names.join("', '")
        )))
    }
}

/// The interface that clients come in by.
pub fn trunk(link: &Link) -> Result<Port> {
    ethernet(link, "the trunk")
}

/// An interface that frames are sent to, and that is not where they come from.
pub fn check(link: &Link, role: &str, trunk: &Port, above_trunk: &BTreeSet<u32>) -> Result<()> {
    ethernet(link, role)?;
    let (name, trunk_name) = (&link.name, &trunk.name);
    if link.ifindex == trunk.ifindex {
        let text = format!("{name} cannot be the trunk and {role}");
        return Err(Failure::Usage(text).into());
    }
    if above_trunk.contains(&link.ifindex) {
        return Err(Failure::Usage(format!(
            "{name}, {role}, stands on the trunk {trunk_name}: frames would go back to where they \
             came from"
        ))
        .into());
    }
    Ok(())
}

fn ethernet(link: &Link, role: &str) -> Result<Port> {
    let port = Port::try_from(link)?;
    if port.link_layer == LinkLayer::Raw {
        return Err(Failure::Kernel(format!(
            "{} cannot be {role}: its packets have no Ethernet header, and so neither MAC addresses \
             nor VLANs",
            link.name
        ))
        .into());
    }
    Ok(port)
}
