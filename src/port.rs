//! Interfaces that programs are attached to: named, claimed, cleared of what a killed run left.

use anyhow::Result;
use netsetup::instance::Instance;

use crate::Failure;
use crate::failure::say;
use crate::netlink::{Link, Netlink};
use crate::preflight::{self, LinkLayer, TcpSessions};
use crate::tc;

/// An interface that programs are attached to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// Its name when it was looked up.
    pub name: String,
    /// Its number, which it keeps when it is renamed.
    pub ifindex: u32,
    /// Where its packets start.
    pub link_layer: LinkLayer,
}

impl TryFrom<&Link> for Port {
    type Error = anyhow::Error;

    fn try_from(link: &Link) -> Result<Port> {
        Ok(Port {
            name: link.name.clone(),
            ifindex: link.ifindex,
            link_layer: preflight::link_layer(link)?,
        })
    }
}

impl Port {
    /// The interface of this name.
    pub fn find(netlink: &mut Netlink, name: &str) -> Result<Port> {
        Port::try_from(&preflight::find_interface(netlink, name)?)
    }

    /// The interface as it is now; none: it is gone, or has another name.
    pub fn link(&self, netlink: &mut Netlink) -> Result<Option<Link>> {
        let link = netlink.link(self.ifindex)?;
        Ok(link.filter(|link| link.name == self.name))
    }

    /// The program of that stem for such an interface: those without an Ethernet header take its twin.
    pub fn program(&self, stem: &str) -> String {
        match self.link_layer {
            LinkLayer::Ethernet => stem.to_owned(),
            LinkLayer::Raw => format!("{stem}_raw"),
        }
    }
}

/// The interfaces that names and patterns stand for; what is left out is said on stderr.
pub fn expand(netlink: &mut Netlink, patterns: &[String]) -> Result<Vec<Link>> {
    let expanded = preflight::expand_interfaces(netlink, patterns)?;
    for left_out in &expanded.left_out {
        say(format_args!("{left_out}"));
    }
    Ok(expanded.links)
}

/// No interface twice, and none that stands on another: its packets would be charged twice.
pub fn check_roles(roles: &[(&Link, &str)], all: &[Link]) -> Result<(), Failure> {
    for (place, (link, role)) in roles.iter().enumerate() {
        let above = preflight::standing_on(link.ifindex, all);
        for (other_place, (other, other_role)) in roles.iter().enumerate() {
            let (name, other_name) = (&link.name, &other.name);
            if place == other_place || !above.contains(&other.ifindex) {
                continue;
            }
            return Err(Failure::Usage(if link.ifindex == other.ifindex {
                format!("{name} cannot be {role} and {other_role} at once")
            } else {
                format!(
                    "{other_name} ({other_role}) stands on {name} ({role}), so packets would be \
                     charged twice; name one of them"
                )
            }));
        }
    }
    Ok(())
}

/// Says whose connections are about to be limited.
pub fn warn<'a>(ports: impl IntoIterator<Item = &'a Port>) -> Result<()> {
    let sessions = TcpSessions::read(&mut Netlink::open()?)?;
    for port in ports {
        if let Some(warning) = preflight::warning(&port.name, &sessions.over(port.ifindex)) {
            say(format_args!("{warning}"));
        }
    }
    Ok(())
}

/// The name of the lock that a tool has on an interface.
pub fn lock_of(tool: &str, interface: &str) -> String {
    format!("{tool} on {interface}")
}

/// One lock for each interface: what one instance does there, another one would undo.
pub fn claim<'a>(tool: &str, ports: impl IntoIterator<Item = &'a Port>) -> Result<Vec<Instance>> {
    preflight::take_all_descriptors()?;
    ports
        .into_iter()
        .map(|port| Instance::claim(&lock_of(tool, &port.name)))
        .collect()
}

/// Removes what a killed run of the tool left at any interface, where it could only attach by filters.
/// The `claimed` interfaces are ours; on others a living instance keeps what it has.
pub fn remove_leftovers(tool: &str, claimed: &[&Port], labels: &[String]) -> Result<()> {
    let mut netlink = Netlink::open()?;
    for link in netlink.links()? {
        let ours = claimed.iter().any(|port| port.ifindex == link.ifindex);
        let lock = if ours {
            None
        } else {
            Instance::claim(&lock_of(tool, &link.name)).ok()
        };
        if ours || lock.is_some() {
            remove_left(&mut netlink, &link, labels)?;
        }
    }
    Ok(())
}

/// Removes what a killed run left at this interface under any of these labels.
pub fn remove_left(netlink: &mut Netlink, link: &Link, labels: &[String]) -> Result<()> {
    if tc::remove_leftovers(netlink, link.ifindex, labels)? {
        say(format_args!(
            "removed from {} what a killed run had left",
            link.name
        ));
    }
    Ok(())
}
