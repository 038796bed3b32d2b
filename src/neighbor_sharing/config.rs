//! What neighbor_sharing loads, and what it attaches where.

use std::collections::HashMap;
use std::fmt;
use std::time::Duration;

use anyhow::{Context, Result};

use super::{Class, Ports, Way};
use crate::cidr::Cidr;
use crate::netlink::{Link, Netlink};
use crate::policer::Limit;
use crate::port::Port;
use crate::rate::Rate;
use crate::tc::Direction;

/// Where downloads are policed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum PoliceAt {
    /// At the WAN's ingress, by learned address: the original's way, wrong behind masquerading.
    Wan,
    /// At the egress of the ports, by port: right behind masquerading too.
    Lan,
}

/// Rate and burst by class and way; what is missing is not limited.
pub type Limits = HashMap<(Class, Way), (Rate, Limit)>;

/// What to load and attach.
#[derive(Clone, Debug)]
pub struct Config {
    /// The interfaces.
    pub ports: Ports,
    /// Rates and bursts.
    pub limits: Limits,
    /// Where downloads are policed.
    pub police_at: PoliceAt,
    /// An address belongs to its owner until the owner was silent for so long.
    pub forget_after: Duration,
    /// Addresses that can be known at a time.
    pub max_entries: u32,
    /// Networks that are never limited.
    pub exempt: Vec<Cidr>,
    /// The neighbors' networks; none: neighbors are learned.
    pub neighbor_nets: Vec<Cidr>,
    /// Counts what would be dropped, drops nothing.
    pub dry_run: bool,
}

impl Config {
    /// The ports, neighbors' first: the order of the rows in `port_use`.
    pub(super) fn ports(&self) -> impl Iterator<Item = (&Port, Class)> {
        let Ports { neighbors, lan, .. } = &self.ports;
        let neighbors = neighbors.iter().map(|port| (port, Class::Neighbor));
        neighbors.chain(lan.iter().map(|port| (port, Class::Rest)))
    }

    /// The interfaces, looked up again, for those who watch them.
    pub fn links(&self) -> Result<Vec<Link>> {
        let mut netlink = Netlink::open()?;
        let mut links = Vec::new();
        for port in self.ports.all() {
            let link = port.link(&mut netlink)?;
            links.push(link.with_context(|| format!("{} is gone", port.name))?);
        }
        Ok(links)
    }

    /// Each port may own an equal share of the addresses.
    pub(super) fn quota(&self) -> u32 {
        let ports = self.ports().count().max(1) as u32;
        (self.max_entries / ports).max(1)
    }
}

/// One line: what is shared by whom, and how.
impl fmt::Display for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = |ports: &[Port]| {
            ports
                .iter()
                .map(|port| port.name.as_str())
                .collect::<Vec<_>>()
                .join(" ")
        };
        write!(
            f,
            "Sharing {} with neighbors at {}",
            self.ports.wan.name,
            names(&self.ports.neighbors)
        )?;
        for class in [Class::Neighbor, Class::Rest] {
            let limit = |way| {
                let limit = self.limits.get(&(class, way));
                limit.map_or_else(|| "no limit".to_owned(), |(rate, _)| rate.to_string())
            };
            let whose = match class {
                Class::Neighbor => "theirs",
                Class::Rest => "the rest",
            };
            write!(
                f,
                "; {whose}: {} down, {} up",
                limit(Way::Download),
                limit(Way::Upload)
            )?;
        }
        if self.dry_run {
            write!(f, " (dry run: nothing is dropped)")?;
        }
        Ok(())
    }
}

/// A program and where it belongs.
pub(super) struct Placement<'a> {
    pub program: String,
    pub port: &'a Port,
    pub direction: Direction,
}

impl Placement<'_> {
    fn new<'a>(stem: &str, port: &'a Port, direction: Direction) -> Placement<'a> {
        Placement {
            program: port.program(stem),
            port,
            direction,
        }
    }
}

impl Config {
    pub(super) fn placements(&self) -> Vec<Placement<'_>> {
        let mut placements = Vec::new();
        for (port, class) in self.ports() {
            let (classify, deliver) = match class {
                Class::Neighbor => ("classify_neighbor", "deliver_neighbor"),
                Class::Rest => ("classify_lan", "deliver_lan"),
            };
            placements.push(Placement::new(classify, port, Direction::Ingress));
            if self.police_at == PoliceAt::Lan {
                placements.push(Placement::new(deliver, port, Direction::Egress));
            }
        }
        if self.police_at == PoliceAt::Wan {
            placements.push(Placement::new(
                "classify_wan",
                &self.ports.wan,
                Direction::Ingress,
            ));
        }
        placements.push(Placement::new(
            "police_upload",
            &self.ports.wan,
            Direction::Egress,
        ));
        placements
    }
}
