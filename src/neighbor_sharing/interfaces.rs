//! The interfaces that take part, and what stands around them.

use std::collections::BTreeSet;

use anyhow::{Context, Result};

use super::{Arguments, Class, PoliceAt};
use crate::Failure;
use crate::failure::say;
use crate::netlink::{self, Link, Netlink};
use crate::port::{self, Port};
use crate::preflight;

/// `WAN_SIDES` of the BPF program.
pub(super) const WAN_SIDES: usize = 8;
/// Rows of the BPF program's `port_use`.
const MOST_PORTS: usize = 512;

/// All of them, by role.
#[derive(Clone, Debug)]
pub struct Ports {
    /// The shared link.
    pub wan: Port,
    /// Neighbors' ports.
    pub neighbors: Vec<Port>,
    /// The other ports that are known.
    pub lan: Vec<Port>,
    /// The WAN, and the VLANs, tunnels and bridges on it: where the kernel says that a download came
    /// in.
    pub wan_sides: BTreeSet<u32>,
    /// Bridges and the like on ports: where the kernel says that an upload came in when it is routed.
    /// A neighbor's among them makes it a neighbor's.
    pub uppers: Vec<(u32, Class)>,
}

impl Ports {
    /// The interfaces that the command line names.
    pub fn find(arguments: &Arguments) -> Result<Ports> {
        let mut netlink = Netlink::open()?;
        let wan = arguments.wan.as_deref().context("--wan was given")?;
        let wan = preflight::find_interface(&mut netlink, wan)?;
        let neighbors = port::expand(&mut netlink, &arguments.neighbor)?;
        let lan = port::expand(&mut netlink, &arguments.lan)?;
        Ports::arrange(&wan, &neighbors, &lan, &netlink.links()?)
    }

    /// Gives each its role; refuses what would be counted twice or not at all.
    pub fn arrange(wan: &Link, neighbors: &[Link], lan: &[Link], all: &[Link]) -> Result<Ports> {
        let roles: Vec<(&Link, &str)> = [(wan, "the WAN")]
            .into_iter()
            .chain(neighbors.iter().map(|link| (link, "a neighbor's port")))
            .chain(lan.iter().map(|link| (link, "a LAN port")))
            .collect();
        if roles.len() > MOST_PORTS {
            let text = format!(
                "{} interfaces are too many: {MOST_PORTS} at most",
                roles.len()
            );
            return Err(Failure::Usage(text).into());
        }
        port::check_roles(&roles, all)?;
        let ports = neighbors.iter().chain(lan);
        let shared: BTreeSet<u32> = ports.filter_map(|link| link.master).collect();
        let wan_sides = sides_of(wan, &shared, all);
        if wan_sides.len() > WAN_SIDES {
            return Err(Failure::Usage(format!(
                "{} interfaces stand on {}; name the one that carries the traffic",
                wan_sides.len() - 1,
                wan.name
            ))
            .into());
        }
        let to_ports = |links: &[Link]| links.iter().map(Port::try_from).collect::<Result<_>>();
        Ok(Ports {
            wan: Port::try_from(wan)?,
            neighbors: to_ports(neighbors)?,
            lan: to_ports(lan)?,
            wan_sides,
            uppers: uppers_of(neighbors, lan, all),
        })
    }

    /// Says whose connections are about to be policed.
    pub fn warn(&self, arguments: &Arguments) -> Result<()> {
        if arguments.police_at == Some(PoliceAt::Wan) && netlink::rewrites_sources()? {
            say(format_args!(
                "source addresses are rewritten here (NAT), so at {} downloads bear this host's own \
                 address and count as the rest: --police-at lan tells them apart by port",
                self.wan.name
            ));
        }
        // With --police-at lan the host's own traffic over the WAN is left alone.
        let wan = (arguments.police_at == Some(PoliceAt::Wan)).then_some(&self.wan);
        port::warn(wan.into_iter().chain(&self.neighbors).chain(&self.lan))
    }

    /// The WAN first.
    pub fn all(&self) -> impl Iterator<Item = &Port> {
        [&self.wan]
            .into_iter()
            .chain(&self.neighbors)
            .chain(&self.lan)
    }
}

/// The WAN and what stands on it, but for a bridge that it shares with the ports: what is forwarded
/// there came in by the WAN itself.
fn sides_of(wan: &Link, shared: &BTreeSet<u32>, all: &[Link]) -> BTreeSet<u32> {
    let mut links = all.to_vec();
    for link in &mut links {
        if link.ifindex == wan.ifindex {
            link.master = link.master.filter(|master| !shared.contains(master));
        }
    }
    preflight::standing_on(wan.ifindex, &links)
}

fn uppers_of(neighbors: &[Link], lan: &[Link], all: &[Link]) -> Vec<(u32, Class)> {
    let above = |links: &[Link]| -> BTreeSet<u32> {
        let above = |link: &Link| {
            let mut above = preflight::standing_on(link.ifindex, all);
            above.remove(&link.ifindex);
            above
        };
        links.iter().flat_map(above).collect()
    };
    let of_neighbors = above(neighbors);
    let of_lan = above(lan);
    let of_lan = of_lan
        .difference(&of_neighbors)
        .map(|index| (*index, Class::Rest));
    let of_neighbors = of_neighbors.iter().map(|index| (*index, Class::Neighbor));
    of_neighbors.chain(of_lan).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(ifindex: u32, name: &str, master: Option<u32>, lower: Option<u32>) -> Link {
        Link {
            ifindex,
            name: name.into(),
            altnames: Vec::new(),
            arphrd: 1,
            kind: None,
            master,
            lower,
            lower_elsewhere: false,
            up: true,
            running: true,
            mac: None,
            mtu: 1500,
        }
    }

    fn arrange(wan: &Link, neighbors: &[&Link], lan: &[&Link], all: &[Link]) -> Result<Ports> {
        let owned = |links: &[&Link]| links.iter().map(|link| (*link).clone()).collect::<Vec<_>>();
        Ports::arrange(wan, &owned(neighbors), &owned(lan), all)
    }

    fn refusal(wan: &Link, neighbors: &[&Link], lan: &[&Link], all: &[Link]) -> String {
        arrange(wan, neighbors, lan, all).unwrap_err().to_string()
    }

    #[test]
    fn a_bridge_and_its_port_are_not_named_together() {
        let all = [
            link(1, "wan", None, None),
            link(2, "n0", Some(4), None),
            link(3, "n1", Some(4), None),
            link(4, "br0", None, None),
        ];
        let [wan, n0, n1, br0] = all.clone();
        let text = refusal(&wan, &[&n0], &[&br0], &all);
        assert!(
            text.starts_with("br0 (a LAN port) stands on n0 (a neighbor's port)"),
            "{text}"
        );
        let text = refusal(&wan, &[&n0], &[&n0], &all);
        assert_eq!(
            text,
            "n0 cannot be a neighbor's port and a LAN port at once"
        );
        let text = refusal(&br0, &[&n0], &[], &all);
        assert!(text.starts_with("br0 (the WAN) stands on n0"), "{text}");
        let ports = arrange(&wan, &[&n0], &[&n1], &all).unwrap();
        assert_eq!(ports.uppers, [(4, Class::Neighbor)]);
    }

    #[test]
    fn downloads_come_in_by_what_stands_on_the_wan() {
        let all = [
            link(1, "eth0", None, None),
            link(2, "eth0.7", None, Some(1)),
            link(3, "n0", Some(5), None),
            link(4, "w0", Some(5), None),
            link(5, "br0", None, None),
        ];
        let [eth0, tagged, n0, w0, _] = all.clone();
        let ports = arrange(&eth0, &[&n0], &[], &all).unwrap();
        assert_eq!(ports.wan_sides, BTreeSet::from([1, 2]));
        // What is bridged between WAN and ports came in by the WAN; by the bridge comes the rest.
        let ports = arrange(&w0, &[&n0], &[], &all).unwrap();
        assert_eq!(ports.wan_sides, BTreeSet::from([4]));
        let text = refusal(&eth0, &[&tagged], &[], &all);
        assert!(
            text.starts_with("eth0.7 (a neighbor's port) stands on eth0 (the WAN)"),
            "{text}"
        );
    }
}
