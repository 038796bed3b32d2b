//! A host and a namespace behind it.
//!
//! ```text
//!                                       ns0         namespace
//!                                192.168.100.101/24
//!                               fd00:c0a8:64::101/64
//!                                   +--------+
//!                                   | inner0 |
//!                                   +---++---+
//!                                       || veth
//!        uplink                     +---++---+
//!    (only if asked for)            | outer0 |
//!  ======+======== br0 =============+========+=====   host
//!     NAT       192.168.100.100/24
//!              fd00:c0a8:64::100/64
//! ```
//!
//! The host has an address on the bridge, and is the namespace's way out. The IPv6 addresses are ours, the
//! original has none.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::Result;

use super::host::{IPV4_PREFIX, IPV6_PREFIX, addresses};
use crate::failure::Failure;
use crate::guard::Guard;
use crate::link::Link;
use crate::nat::{By, Nat};
use crate::queue::Limit;
use crate::topology::OnStep;
use crate::{ip, namespace};

/// Name of the topology.
pub const NAME: &str = "tcp_hold";

const BRIDGE: &str = "br0";
const OUTER: &str = "outer0";
const INNER: &str = "inner0";
const NAMESPACE: &str = "ns0";
const IPV4: [u8; 3] = [192, 168, 100];
const IPV6: [u16; 4] = [0xfd00, 0xc0a8, 0x64, 0];
const HOST: u8 = 100;
const GUEST: u8 = 101;

/// What is built.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// The host's interface through which the namespace gets out; none: it does not.
    pub uplink: Option<String>,
}

/// The network, up. Dropping it removes it.
#[derive(Debug)]
pub struct Network {
    guard: Guard,
}

/// Builds the network; see [`OnStep`].
pub fn build(plan: &Plan, on_step: &mut OnStep<'_>) -> Result<Network> {
    let links = [
        Link::bridge(BRIDGE),
        Link::veth(OUTER, INNER, NAMESPACE).port_of(BRIDGE),
    ];
    on_step("looking for what is there already")?;
    let uplink = plan.uplink.as_deref().map(find_uplink).transpose()?;
    let mut guard = Guard::claim(NAME, &[NAMESPACE], &links)?;
    on_step(&format!("making the namespace {NAMESPACE}"))?;
    guard.make_namespace(NAMESPACE)?;
    on_step(&format!("making the bridge {BRIDGE} and its port"))?;
    guard.make_links(&links)?;
    on_step("giving the host and the namespace their addresses")?;
    guard.configure_host(&address_lines(BRIDGE, HOST))?;
    let mut lines = vec![ip::up_line("lo")];
    lines.extend(address_lines(INNER, GUEST));
    lines.push(ip::up_line(INNER));
    lines.extend(default_routes());
    guard.configure(NAMESPACE, &lines)?;
    // Or nobody but root could ping there.
    guard.write_sysctl(NAMESPACE, "net/ipv4/ping_group_range", "0 2147483647")?;
    on_step("waiting for the links to come up")?;
    guard.wait_until_up(&[OUTER])?;
    guard.wait_until_up_in(NAMESPACE, &[INNER])?;
    if let Some((uplink, by)) = uplink {
        on_step(&format!("opening the way out through {uplink}"))?;
        guard.open_way_out(Nat {
            by,
            uplink,
            bridge: BRIDGE.into(),
            network: network_of(IPV4),
        })?;
    }
    Ok(Network { guard })
}

/// The interface must be there, and what makes the rules installed, before anything is made.
fn find_uplink(name: &str) -> Result<(String, By)> {
    let links = ip::links()?;
    let found = links
        .into_iter()
        .find(|link| link.ifname == name || link.altnames.iter().any(|other| other == name));
    match found {
        Some(link) => Ok((link.ifname, By::find()?)),
        None => {
            let text = format!("there is no interface {name} (ip link shows what there is)");
            Err(Failure::Usage(text).into())
        }
    }
}

fn network_of([a, b, c]: [u8; 3]) -> String {
    format!("{a}.{b}.{c}.0/{IPV4_PREFIX}")
}

fn address_lines(device: &str, digits: u8) -> Vec<String> {
    let (ipv4, ipv6) = addresses(IPV4, IPV6, digits);
    let mut lines = vec![ip::address_line(device, IpAddr::V4(ipv4), IPV4_PREFIX)];
    if namespace::has_ipv6() {
        lines.push(ip::address_line(device, IpAddr::V6(ipv6), IPV6_PREFIX));
    }
    lines
}

fn default_routes() -> Vec<String> {
    let (ipv4, ipv6) = addresses(IPV4, IPV6, HOST);
    let mut lines = vec![format!("route add default via {ipv4}")];
    if namespace::has_ipv6() {
        lines.push(format!("route add default via {ipv6}"));
    }
    lines
}

impl Network {
    /// The namespace.
    pub fn namespace(&self) -> &'static str {
        NAMESPACE
    }

    /// The namespace's device.
    pub fn inner(&self) -> &'static str {
        INNER
    }

    /// The host's end of it.
    pub fn outer(&self) -> &'static str {
        OUTER
    }

    /// The host's addresses in the network.
    pub fn host(&self) -> (Ipv4Addr, Ipv6Addr) {
        addresses(IPV4, IPV6, HOST)
    }

    /// Makes the line between host and namespace slow, both ways.
    pub fn limit(&self, limit: &Limit) -> Result<()> {
        self.guard.limit(None, OUTER, Some(limit))?;
        self.guard.limit(Some(NAMESPACE), INNER, Some(limit))
    }

    /// Makes it fast again.
    pub fn unlimit(&self) -> Result<()> {
        self.guard.limit(None, OUTER, None)?;
        self.guard.limit(Some(NAMESPACE), INNER, None)
    }

    /// Leaves it up after the end of this process.
    pub fn keep(self) -> Result<()> {
        self.guard.keep()
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
