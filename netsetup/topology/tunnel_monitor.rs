//! Hosts on one bridge, and networks of their clients that VXLAN tunnels carry from host to host.
//!
//! ```text
//!   in each host h = 0..8, for each network v = 0..3:
//!
//!      client                     bridge                       tunnel
//!   192.168.v.(h+1)/24                                  VNI 10000+v, UDP 4789,
//!  fd00:c0a8:v::(h+1)/64                                  group 239.1.1.(1+v)
//!    +---------+               +---------+               +---------+
//!    |  c<v>a  |======veth=====|  c<v>b  |--- br<v> -----| vxlan<v>|
//!    +---------+   MTU 1450    +---------+               +----++---+
//!                                                             ||     172.16.1.(100+h)/24
//!       host0                   host1            ..      +----++---+ fd00:ac10:1::(100+h)/64
//!    +---------+             +---------+                 |  eth0   |            namespaces
//!    |  eth0   |             |  eth0   |                 +----++---+
//!    +----++---+             +----++---+                      || veth
//!    +----++---+             +----++---+                 +----++---+
//!    | host0a  |             | host1a  |         ..      | host8a  |
//!  ==+=========+=============+=========+=================+=========+=== br100    host
//! ```
//!
//! A client reaches all others of its network, and none of another: the tunnels of a network find each
//! other by multicast and learn where every client is. All clients of a host are in its one namespace,
//! so each sends from its own device only.
//!
//! The IPv6 addresses are ours, the original has none. Digits are read as decimal in IPv4 and as
//! hexadecimal in IPv6: client 12 of network 10 has 192.168.10.12 and fd00:c0a8:10::12. Neither the
//! clients nor the bridges have link-local addresses, so nothing but a client's own traffic and its
//! multicast memberships is in a tunnel.
//!
//! In a large network not everybody can talk to everybody at once: the kernel knows 1024 neighbors of
//! each family at most, of all namespaces together (net.ipv4.neigh.default.gc_thresh3).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;

use anyhow::{Context, Result};

use super::host::{self, DEVICE, IPV4_PREFIX, IPV6_PREFIX, Lan};
use crate::failure::Failure;
use crate::guard::Guard;
use crate::ip;
use crate::ledger::{Object, Record};
use crate::link::{Ends, Link, VXLAN_PORT, Vxlan};
use crate::namespace;
use crate::server::{self, OnLine};
use crate::topology::OnStep;

/// Name of the topology.
pub const NAME: &str = "tunnel_monitor";

const LAN: Lan = Lan {
    bridge: "br100",
    ipv4: [172, 16, 1],
    ipv6: [0xfd00, 0xac10, 1, 0],
};
/// The last digits of the first host's addresses; those of the last one are 249.
const FIRST: u8 = 100;
const HOSTS: RangeInclusive<u16> = 2..=150;
/// As many groups as one socket may join (net.ipv4.igmp_max_memberships, 20 in a new namespace): all
/// tunnels of a host share the socket of their port.
const VNIS: RangeInclusive<u16> = 1..=20;
/// Each is four devices, in one host.
const MOST_CLIENTS: u16 = 1024;
const FIRST_VNI: u32 = 10_000;
/// What is left of 1500 bytes by the headers of a tunnel: outer IPv4, UDP, VXLAN, inner Ethernet.
const MTU: u16 = 1450;

/// How large a network is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plan {
    /// 2 to 150.
    pub hosts: u16,
    /// How many networks there are for the clients, each with a client in every host: 1 to 20.
    pub vnis: u16,
}

impl Default for Plan {
    /// The network of the original.
    fn default() -> Plan {
        Plan { hosts: 9, vnis: 4 }
    }
}

impl Plan {
    /// [`Failure::Usage`] if there can be no such network.
    pub fn check(&self) -> Result<(), Failure> {
        let Plan { hosts, vnis } = *self;
        let refusal = if !HOSTS.contains(&hosts) {
            let (first, last) = (HOSTS.start(), HOSTS.end());
            format!("there can be {first} to {last} hosts, not {hosts}")
        } else if !VNIS.contains(&vnis) {
            let (first, last) = (VNIS.start(), VNIS.end());
            format!("there can be {first} to {last} VNIs, not {vnis}")
        } else if hosts * vnis > MOST_CLIENTS {
            format!(
                "{hosts} hosts with {vnis} VNIs are {} clients; there can be {MOST_CLIENTS} at most",
                hosts * vnis
            )
        } else {
            return Ok(());
        };
        Err(Failure::Usage(refusal))
    }

    fn hosts(&self) -> Vec<Host> {
        (0..)
            .take(usize::from(self.hosts))
            .map(|h| {
                let host::Host {
                    namespace,
                    port,
                    ipv4,
                    ipv6,
                } = LAN.host(format!("host{h}"), FIRST + h);
                let clients = (0..).take(usize::from(self.vnis));
                Host {
                    namespace,
                    port,
                    ipv4,
                    ipv6,
                    clients: clients.map(|v| Client::new(h, v)).collect(),
                }
            })
            .collect()
    }
}

/// A host: a namespace behind a port of the bridge, in which there is a client of every network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// Its namespace.
    pub namespace: String,
    /// The host-side end of its veth pair.
    pub port: String,
    /// Its IPv4 address, by which the tunnels go.
    pub ipv4: Ipv4Addr,
    /// Its IPv6 address; not assigned where the kernel speaks no IPv6.
    pub ipv6: Ipv6Addr,
    /// The first of the first network, and so on.
    pub clients: Vec<Client>,
}

/// A client: a device in the namespace of its host, whose frames pass a tunnel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Client {
    /// The number of its network in the tunnels' headers.
    pub vni: u32,
    /// Its device.
    pub device: String,
    /// Its IPv4 address.
    pub ipv4: Ipv4Addr,
    /// Its IPv6 address; not assigned where the kernel speaks no IPv6.
    pub ipv6: Ipv6Addr,
    /// Which network it is in, from 0.
    network: u8,
}

impl Client {
    fn new(host: u8, network: u8) -> Client {
        let subnet = [0xfd00, 0xc0a8, host::same_digits(network), 0];
        let (ipv4, ipv6) = host::addresses([192, 168, network], subnet, host + 1);
        Client {
            vni: FIRST_VNI + u32::from(network),
            device: format!("c{network}a"),
            ipv4,
            ipv6,
            network,
        }
    }

    /// Its bridge, its tunnel and the cable to it, which are in its host.
    fn links(&self) -> [Link; 3] {
        let v = self.network;
        let bridge = self.bridge();
        let tunnel = Vxlan {
            vni: self.vni,
            ends: Ends::Group {
                group: Ipv4Addr::new(239, 1, 1, 1 + v),
                device: DEVICE.into(),
            },
            port: VXLAN_PORT,
            learning: true,
        };
        [
            Link::bridge(&bridge),
            Link::vxlan(self.tunnel(), tunnel).port_of(&bridge),
            Link::cable(self.port(), &self.device).port_of(&bridge),
        ]
    }

    fn bridge(&self) -> String {
        format!("br{}", self.network)
    }

    fn tunnel(&self) -> String {
        format!("vxlan{}", self.network)
    }

    /// The far end of its device, at its bridge.
    fn port(&self) -> String {
        format!("c{}b", self.network)
    }

    fn configuration(&self) -> Vec<String> {
        let device = &self.device;
        let mut lines = vec![
            // It is in one namespace with its client, and would answer for the client's address.
            format!("link set dev {} arp off", self.bridge()),
            format!("link set dev {device} mtu {MTU}"),
            ip::address_line(device, IpAddr::V4(self.ipv4), IPV4_PREFIX),
        ];
        if namespace::has_ipv6() {
            lines.push(ip::address_line(device, self.ipv6.into(), IPV6_PREFIX));
        }
        lines
    }
}

impl Host {
    /// Makes what its clients need.
    fn fill(&self, guard: &Guard) -> Result<()> {
        let links: Vec<Link> = self.clients.iter().flat_map(Client::links).collect();
        // A tunnel joins its group when it is set up, which it is here.
        guard.make_links_of(&self.namespace, &links)?;
        let lines: Vec<String> = self
            .clients
            .iter()
            .flat_map(Client::configuration)
            .collect();
        guard.configure(&self.namespace, &lines)
    }

    /// Waits until packets pass from its clients to its device, and back.
    fn wait_until_up(&self, guard: &Guard) -> Result<()> {
        let clients = self.clients.iter();
        let names: Vec<String> = clients
            .flat_map(|client| [client.device.clone(), client.port(), client.tunnel()])
            .chain([DEVICE.to_owned()])
            .collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        guard.wait_until_up_in(&self.namespace, &names)
    }
}

/// The network, up. Dropping it removes it.
#[derive(Debug)]
pub struct Network {
    guard: Guard,
    hosts: Vec<Host>,
}

/// Builds the network; packets pass when it returns. See [`OnStep`].
pub fn build(plan: &Plan, on_step: &mut OnStep<'_>) -> Result<Network> {
    plan.check()?;
    let hosts = plan.hosts();
    let on_the_bridge: Vec<host::Host> = hosts
        .iter()
        .map(|host| host::Host {
            namespace: host.namespace.clone(),
            port: host.port.clone(),
            ipv4: host.ipv4,
            ipv6: host.ipv6,
        })
        .collect();
    let on_the_bridge: Vec<&host::Host> = on_the_bridge.iter().collect();
    let guard = LAN.build(NAME, &on_the_bridge, on_step)?;
    for host in &hosts {
        on_step(&format!("making the tunnels of {}", host.namespace))?;
        host.fill(&guard)?;
    }
    for host in &hosts {
        on_step(&format!("waiting for the tunnels of {}", host.namespace))?;
        host.wait_until_up(&guard)?;
    }
    Ok(Network { guard, hosts })
}

/// The hosts of the network that is up, whoever built it; none: there is no such network, or not yet.
pub fn running() -> Result<Option<Vec<Host>>> {
    let Some(record) = Record::load(NAME)? else {
        return Ok(None);
    };
    let namespaces = record.objects.iter().filter_map(|object| match object {
        Object::Namespace { name, .. } => Some(name),
        _ => None,
    });
    // Of those that a killed run began to remove, or to make, there is nothing to be had.
    let (mut hosts, mut last) = (0, None);
    for name in namespaces {
        if !namespace::exists(name) {
            return Ok(None);
        }
        hosts += 1;
        last = Some(name);
    }
    let Some(last) = last else { return Ok(None) };
    // Every host has one client of each network, and the last one gets its own last.
    let links = namespace::inside(&namespace::open(last)?, ip::links)
        .with_context(|| format!("look at the links of {last}"))?;
    let of_network = |v: u16| links.iter().any(|link| link.ifname == format!("c{v}a"));
    let vnis = (0..).take_while(|v| of_network(*v)).count();
    let plan = Plan {
        hosts,
        vnis: u16::try_from(vnis).unwrap_or(u16::MAX),
    };
    Ok(plan.check().is_ok().then(|| plan.hosts()))
}

impl Network {
    /// The hosts.
    pub fn hosts(&self) -> &[Host] {
        &self.hosts
    }

    /// The bridge that they all are at.
    pub fn bridge(&self) -> &'static str {
        LAN.bridge
    }

    /// The device of every host that its tunnels go through.
    pub fn device(&self) -> &'static str {
        DEVICE
    }

    /// Starts a measurement server in every host; they listen when this returns. `None` if no such
    /// program is installed. The servers end with the network, or with the calling thread if that ends
    /// earlier.
    pub fn start_servers(&mut self, on_line: &mut OnLine<'_>) -> Result<Option<server::Kind>> {
        let Some(kind) = server::Kind::find() else {
            return Ok(None);
        };
        let hosts = self.hosts.iter();
        let namespaces: Vec<&str> = hosts.map(|host| host.namespace.as_str()).collect();
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
    fn what_cannot_be_is_refused_in_one_line() {
        for (hosts, vnis, refusal) in [
            (0, 4, "there can be 2 to 150 hosts, not 0"),
            (1, 4, "there can be 2 to 150 hosts, not 1"),
            (151, 4, "there can be 2 to 150 hosts, not 151"),
            (u16::MAX, 4, "there can be 2 to 150 hosts, not 65535"),
            (9, 0, "there can be 1 to 20 VNIs, not 0"),
            (9, 21, "there can be 1 to 20 VNIs, not 21"),
            (
                150,
                7,
                "150 hosts with 7 VNIs are 1050 clients; there can be 1024 at most",
            ),
        ] {
            match (Plan { hosts, vnis }).check() {
                Err(Failure::Usage(text)) => assert_eq!(text, refusal),
                other => panic!("{hosts} hosts, {vnis} VNIs: {other:?}"),
            }
        }
        for (hosts, vnis) in [(9, 4), (2, 1), (150, 6), (51, 20), (64, 16)] {
            (Plan { hosts, vnis }).check().unwrap();
        }
    }

    #[test]
    fn the_network_of_the_original_has_its_names_and_addresses() {
        let hosts = Plan::default().hosts();
        assert_eq!(hosts.len(), 9);
        let last = &hosts[8];
        assert_eq!(
            (last.namespace.as_str(), last.port.as_str()),
            ("host8", "host8a")
        );
        assert_eq!(last.ipv4.to_string(), "172.16.1.108");
        assert_eq!(last.ipv6.to_string(), "fd00:ac10:1::108");
        let networks: Vec<String> = last
            .clients
            .iter()
            .map(|client| {
                let Client {
                    vni,
                    device,
                    ipv4,
                    ipv6,
                    ..
                } = client;
                format!("{vni} {device} {ipv4} {ipv6}")
            })
            .collect();
        assert_eq!(
            networks,
            [
                "10000 c0a 192.168.0.9 fd00:c0a8::9",
                "10001 c1a 192.168.1.9 fd00:c0a8:1::9",
                "10002 c2a 192.168.2.9 fd00:c0a8:2::9",
                "10003 c3a 192.168.3.9 fd00:c0a8:3::9"
            ]
        );
        let lines: Vec<String> = hosts[0].clients[2]
            .links()
            .iter()
            .map(|link| link.add_line(None))
            .collect();
        assert_eq!(
            lines,
            [
                "link add br2 type bridge",
                "link add vxlan2 type vxlan id 10002 group 239.1.1.3 dev eth0 dstport 4789 learning",
                "link add c2b type veth peer name c2a"
            ]
        );
    }

    #[test]
    fn no_two_addresses_are_the_same_in_the_largest_networks() {
        for (hosts, vnis) in [(150, 6), (51, 20)] {
            let plan = Plan { hosts, vnis };
            plan.check().unwrap();
            let hosts = plan.hosts();
            let clients = || hosts.iter().flat_map(|host| &host.clients);
            let mut all: Vec<IpAddr> = hosts
                .iter()
                .flat_map(|host| [host.ipv4.into(), host.ipv6.into()])
                .chain(clients().flat_map(|client| [client.ipv4.into(), client.ipv6.into()]))
                .collect();
            let count = all.len();
            all.sort_unstable();
            all.dedup();
            assert_eq!(all.len(), count);
        }
    }
}
