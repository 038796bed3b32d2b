//! One uplink shared with the neighbors.
//!
//! ```text
//!       wan0                 neighbor0..2                local0..1        namespaces
//!   172.16.1.5/24        172.16.1.100..102/24      172.16.1.150..151/24
//!  fd00:ac10:1::5/64    fd00:ac10:1::100../64     fd00:ac10:1::150../64
//!     +--------+             +--------+                +--------+
//!     |  eth0  |             |  eth0  | x3             |  eth0  | x2
//!     +---++---+             +---++---+                +---++---+
//!         || veth                ||                        ||
//!     +---++---+             +---++---+                +---++---+
//!     | wan0a  |             |neigh-  |                |local0a |
//!     |        |             |bor0a.. |                |   ..   |
//!  ===+========+=============+========+================+========+=== br100   host
//! ```
//!
//! The IPv6 addresses are ours, the original has none: unique local ones (RFC 4193) that repeat
//! the digits of the IPv4 addresses, usable at once (no duplicate address detection). The host
//! has no address on the bridge, so it sends nothing into this network.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::Result;

use crate::guard::Guard;
use crate::link::Link;
use crate::server::{self, OnLine};
use crate::topology::OnStep;
use crate::{ip, namespace};

/// Name of the topology.
pub const NAME: &str = "neighbor_sharing";

const BRIDGE: &str = "br100";
const NEIGHBORS: u8 = 3;
const LOCALS: u8 = 2;
/// Every host's only device, at the far end of its port.
const DEVICE: &str = "eth0";
const IPV4_PREFIX: u8 = 24;
const IPV6_PREFIX: u8 = 64;

/// One host of the network: a namespace behind a port of the bridge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// Its namespace.
    pub namespace: String,
    /// The host-side end of its veth pair.
    pub port: String,
    /// Its IPv4 address.
    pub ipv4: Ipv4Addr,
    /// Its IPv6 address; not assigned where the kernel speaks no IPv6.
    pub ipv6: Ipv6Addr,
}

impl Host {
    /// `digits` are the last ones of both addresses, read as decimal in IPv4 and as hexadecimal
    /// in IPv6: 172.16.1.100 and fd00:ac10:1::100.
    fn new(namespace: String, digits: u8) -> Host {
        let (hundreds, tens, ones) = (digits / 100, digits / 10 % 10, digits % 10);
        let same_digits = u16::from(hundreds) << 8 | u16::from(tens) << 4 | u16::from(ones);
        Host {
            port: format!("{namespace}a"),
            namespace,
            ipv4: Ipv4Addr::new(172, 16, 1, digits),
            ipv6: Ipv6Addr::new(0xfd00, 0xac10, 1, 0, 0, 0, 0, same_digits),
        }
    }

    fn link(&self) -> Link {
        Link::veth(&self.port, DEVICE, &self.namespace).port_of(BRIDGE)
    }

    fn configuration(&self) -> Vec<String> {
        let mut lines = vec![
            ip::up_line("lo"),
            ip::address_line(DEVICE, IpAddr::V4(self.ipv4), IPV4_PREFIX),
        ];
        if namespace::has_ipv6() {
            let address = IpAddr::V6(self.ipv6);
            lines.push(ip::address_line(DEVICE, address, IPV6_PREFIX));
        }
        lines.push(ip::up_line(DEVICE));
        lines
    }
}

/// The network, up. Dropping it removes it.
#[derive(Debug)]
pub struct Network {
    guard: Guard,
    wan: Host,
    neighbors: Vec<Host>,
    locals: Vec<Host>,
}

/// Builds the network; see [`OnStep`].
pub fn build(on_step: &mut OnStep<'_>) -> Result<Network> {
    let wan = Host::new("wan0".into(), 5);
    let neighbors: Vec<Host> = (0..NEIGHBORS)
        .map(|i| Host::new(format!("neighbor{i}"), 100 + i))
        .collect();
    let locals: Vec<Host> = (0..LOCALS)
        .map(|i| Host::new(format!("local{i}"), 150 + i))
        .collect();
    let hosts = || [&wan].into_iter().chain(&neighbors).chain(&locals);

    let namespaces: Vec<&str> = hosts().map(|host| host.namespace.as_str()).collect();
    let ports: Vec<&str> = hosts().map(|host| host.port.as_str()).collect();
    let links: Vec<Link> = [Link::bridge(BRIDGE)]
        .into_iter()
        .chain(hosts().map(Host::link))
        .collect();

    on_step("looking for what is there already")?;
    let mut guard = Guard::claim(NAME, &namespaces, &links)?;
    for name in namespaces {
        on_step(&format!("making the namespace {name}"))?;
        guard.make_namespace(name)?;
    }
    on_step(&format!("making the bridge {BRIDGE} and its ports"))?;
    guard.make_links(&links)?;
    for host in hosts() {
        on_step(&format!("giving {} its addresses", host.namespace))?;
        guard.configure(&host.namespace, &host.configuration())?;
    }
    on_step("waiting for the ports to forward")?;
    guard.wait_until_up(&ports)?;
    Ok(Network {
        guard,
        wan,
        neighbors,
        locals,
    })
}

impl Network {
    /// The host at the uplink.
    pub fn wan(&self) -> &Host {
        &self.wan
    }

    /// The hosts of the neighbors.
    pub fn neighbors(&self) -> &[Host] {
        &self.neighbors
    }

    /// The clients in our own LAN.
    pub fn locals(&self) -> &[Host] {
        &self.locals
    }

    /// The bridge that they all are ports of.
    pub fn bridge(&self) -> &'static str {
        BRIDGE
    }

    /// Starts a measurement server on every neighbor and LAN client; they listen when this
    /// returns. `None` if no such program is installed. The servers end with the network, or with
    /// the calling thread if that ends earlier.
    pub fn start_servers(&mut self, on_line: &mut OnLine<'_>) -> Result<Option<server::Kind>> {
        let Some(kind) = server::Kind::find() else {
            return Ok(None);
        };
        let namespaces: Vec<&str> = self
            .neighbors
            .iter()
            .chain(&self.locals)
            .map(|host| host.namespace.as_str())
            .collect();
        self.guard.start_servers(kind, &namespaces, on_line)?;
        Ok(Some(kind))
    }

    /// Removes the network, and says what could not be removed.
    pub fn close(self) -> Result<()> {
        self.guard.close()
    }

    /// Its guard, for those who need no names.
    pub fn into_guard(self) -> Guard {
        self.guard
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_repeat_their_digits() {
        let texts = |host: &Host| (host.ipv4.to_string(), host.ipv6.to_string());
        let wan = Host::new("wan0".into(), 5);
        assert_eq!(texts(&wan), ("172.16.1.5".into(), "fd00:ac10:1::5".into()));
        let neighbor = Host::new("neighbor2".into(), 102);
        assert_eq!(neighbor.port, "neighbor2a");
        assert_eq!(
            texts(&neighbor),
            ("172.16.1.102".into(), "fd00:ac10:1::102".into())
        );
        let local = Host::new("local1".into(), 151);
        assert_eq!(
            texts(&local),
            ("172.16.1.151".into(), "fd00:ac10:1::151".into())
        );
    }
}
