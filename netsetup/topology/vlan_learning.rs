//! Workers behind a trunk, and the clients in its VLANs, all with the same addresses.
//!
//! ```text
//!      client0..2                                        worker0..2         namespaces
//!   172.16.1.100/24, all                             172.16.1.5/24, all
//!  fd00:ac10:1::100/64, all                         fd00:ac10:1::5/64, all
//!   02:00:00:00:00:00..02
//!     +----------+                                      +----------+
//!     |   eth0   | x3                                   |   eth0   | x3
//!     +----++----+                                      +----++----+
//!          || VLAN 2..17,                                    || veth
//!          ||  each its own                             +----++----+
//!      +---++---+    trunk    +---------+               | worker0a |
//!      | eth0a  |=============|  eth0b  |               |    ..    |
//!  ----+--------+----veth-----+---------+---------------+----------+---   host
//! ```
//!
//! Nothing connects `eth0b` and the workers: that is the tool's part. Where the kernel has no VLAN devices
//! (CONFIG_VLAN_8021Q), the clients are behind veths of their own, and a BPF program at their host-side
//! ends, `client<i>a`, is to tag what they send and to pass it to `eth0a`. The machine itself has no
//! address on any of these links.
//!
//! The IPv6 addresses are ours, the original has none.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;

use anyhow::Result;

pub use super::host::Host as Worker;
use super::host::{self, DEVICE};
use crate::failure::Failure;
use crate::guard::Guard;
use crate::link::{Link, Mac};
use crate::random;
use crate::removal::complain;
use crate::topology::OnStep;

/// Name of the topology.
pub const NAME: &str = "vlan_learning";

/// The trunk: where the clients' frames go in, and where the tool takes them out.
const FAR_TRUNK: &str = "eth0a";
const TRUNK: &str = "eth0b";

const IPV4: [u8; 3] = [172, 16, 1];
const IPV6: [u16; 4] = [0xfd00, 0xac10, 1, 0];
/// The last digits of the workers' addresses, and of the first client's.
const WORKER: u8 = 5;
const CLIENT: u8 = 100;
/// Clients with addresses of their own have those up to 172.16.1.249.
const MOST_CLIENTS: u8 = 150;
const MOST_WORKERS: u16 = 64;
/// What IEEE 802.1Q leaves of 12 bits: 0 is no VLAN, 4095 is reserved.
const VLAN_IDS: RangeInclusive<u16> = 1..=4094;

/// How the clients' frames get their tags.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Tagger {
    /// As [`Tagger::Device`] where the kernel can, otherwise as [`Tagger::Bpf`].
    #[default]
    Auto,
    /// VLAN devices do it.
    Device,
    /// A BPF program at each client's port is to do it.
    Bpf,
}

/// How large a network is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// 1 to 150.
    pub clients: u16,
    /// 1 to 64.
    pub workers: u16,
    /// What the clients' VLAN ids are drawn from. Where these are too few, more are taken.
    pub vlans: RangeInclusive<u16>,
    /// How the clients' frames get their tags.
    pub tagger: Tagger,
}

impl Default for Plan {
    /// The network of the original.
    fn default() -> Plan {
        Plan {
            clients: 3,
            workers: 3,
            vlans: 2..=17,
            tagger: Tagger::Auto,
        }
    }
}

impl Plan {
    /// [`Failure::Usage`] if there can be no such network.
    pub fn check(&self) -> Result<(), Failure> {
        let (first, last) = (self.vlans.start(), self.vlans.end());
        let refusal = if !(1..=u16::from(MOST_CLIENTS)).contains(&self.clients) {
            format!(
                "there can be 1 to {MOST_CLIENTS} clients, not {}",
                self.clients
            )
        } else if !(1..=MOST_WORKERS).contains(&self.workers) {
            format!(
                "there can be 1 to {MOST_WORKERS} workers, not {}",
                self.workers
            )
        } else if self.vlans.is_empty() {
            format!("the VLANs {first}-{last} are none: the lower id comes first")
        } else if !VLAN_IDS.contains(first) || !VLAN_IDS.contains(last) {
            format!("the VLANs {first}-{last} cannot all be: ids are 1 to 4094")
        } else {
            return Ok(());
        };
        Err(Failure::Usage(refusal))
    }

    /// As many VLANs as there are clients, at least: upwards first, then downwards.
    fn wide_enough(&self) -> RangeInclusive<u16> {
        let (first, last) = (*self.vlans.start(), *self.vlans.end());
        let last = last.max((first + self.clients - 1).min(*VLAN_IDS.end()));
        let first = first.min(last + 1 - self.clients);
        first..=last
    }

    fn workers(&self) -> Vec<Worker> {
        let (ipv4, ipv6) = host::addresses(IPV4, IPV6, WORKER);
        (0..self.workers)
            .map(|i| Worker {
                namespace: format!("worker{i}"),
                port: format!("worker{i}a"),
                ipv4,
                ipv6,
            })
            .collect()
    }

    /// Clients in VLANs as [`draw`] has them, each with a port of its own.
    fn clients(&self, vlans: Vec<u16>) -> Vec<Client> {
        let workers = usize::from(self.workers);
        (0..MOST_CLIENTS)
            .zip(vlans)
            .map(|(i, vlan)| {
                // One worker cannot tell two clients with one address apart.
                let own = if self.clients > self.workers { i } else { 0 };
                let (ipv4, ipv6) = host::addresses(IPV4, IPV6, CLIENT + own);
                Client {
                    namespace: format!("client{i}"),
                    mac: [2, 0, 0, 0, 0, i],
                    vlan,
                    worker: usize::from(i) % workers,
                    ipv4,
                    ipv6,
                    port: Some(format!("client{i}a")),
                }
            })
            .collect()
    }
}

/// `count` numbers of the range, each once, as `random` has them.
fn draw(
    range: RangeInclusive<u16>,
    count: u16,
    mut random: impl FnMut() -> Result<[u8; 4]>,
) -> Result<Vec<u16>> {
    let mut left: Vec<u16> = range.collect();
    let mut drawn = Vec::new();
    while drawn.len() < usize::from(count) && !left.is_empty() {
        // The bias of 32 bits among 4094 is one in a million.
        let number = u32::from_ne_bytes(random()?) as usize;
        drawn.push(left.swap_remove(number % left.len()));
    }
    Ok(drawn)
}

/// A client: a namespace with one device, the frames of which are in a VLAN of their own on the trunk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Client {
    /// Its namespace.
    pub namespace: String,
    /// Its link-layer address, by which the tool knows it.
    pub mac: Mac,
    /// Its VLAN.
    pub vlan: u16,
    /// Which worker it is to reach, from 0.
    pub worker: usize,
    /// Its IPv4 address.
    pub ipv4: Ipv4Addr,
    /// Its IPv6 address; not assigned where the kernel speaks no IPv6.
    pub ipv6: Ipv6Addr,
    /// The host-side end of its veth pair, where its frames have no tag. `None` where a VLAN device tags
    /// them.
    pub port: Option<String>,
}

impl Client {
    /// The device that tags what the client sends.
    fn device(&self) -> Link {
        let tagged = (FAR_TRUNK, self.vlan);
        Link::vlan(DEVICE, self.mac, &self.namespace, tagged)
    }

    fn veth(&self) -> Option<Link> {
        let port = self.port.as_deref()?;
        Some(Link::veth_to(port, (DEVICE, self.mac), &self.namespace))
    }
}

/// The network, up. Dropping it removes it.
#[derive(Debug)]
pub struct Network {
    guard: Guard,
    workers: Vec<Worker>,
    clients: Vec<Client>,
    tagger: Tagger,
}

/// Builds the network; see [`OnStep`].
pub fn build(plan: &Plan, on_step: &mut OnStep<'_>) -> Result<Network> {
    plan.check()?;
    let vlans = plan.wide_enough();
    if vlans != plan.vlans {
        on_step(&format!(
            "taking the VLANs {}-{}: there are {} clients",
            vlans.start(),
            vlans.end(),
            plan.clients
        ))?;
    }
    let workers = plan.workers();
    let mut clients = plan.clients(draw(vlans, plan.clients, random::bytes)?);
    let trunk = Link::cable(FAR_TRUNK, TRUNK);
    let ports = workers
        .iter()
        .map(|worker| Link::veth(&worker.port, DEVICE, &worker.namespace));
    let links: Vec<Link> = [trunk].into_iter().chain(ports).collect();
    let client_links: Vec<Link> = match plan.tagger {
        Tagger::Device => Vec::new(),
        Tagger::Auto | Tagger::Bpf => clients.iter().filter_map(Client::veth).collect(),
    };
    let namespaces: Vec<&str> = workers
        .iter()
        .map(|worker| worker.namespace.as_str())
        .chain(clients.iter().map(|client| client.namespace.as_str()))
        .collect();

    on_step("looking for what is there already")?;
    let mut guard = Guard::claim(NAME, &namespaces, &[&links[..], &client_links].concat())?;
    for name in &namespaces {
        on_step(&format!("making the namespace {name}"))?;
        guard.make_namespace(name)?;
    }
    on_step("making the trunk and the workers' ports")?;
    guard.make_links(&links)?;
    // VLAN devices take their carrier over from the trunk.
    guard.wait_until_up(&[FAR_TRUNK, TRUNK])?;
    let tagger = make_devices(plan.tagger, &guard, &clients, on_step)?;
    if tagger == Tagger::Bpf {
        on_step("making the clients' ports")?;
        guard.make_links(&client_links)?;
    } else {
        clients.iter_mut().for_each(|client| client.port = None);
    }
    for worker in &workers {
        on_step(&format!("giving {} its addresses", worker.namespace))?;
        guard.configure(&worker.namespace, &worker.configuration())?;
    }
    for client in &clients {
        on_step(&format!("giving {} its addresses", client.namespace))?;
        let lines = host::configuration(client.ipv4, client.ipv6);
        guard.configure(&client.namespace, &lines)?;
    }
    on_step("waiting for the ports to come up")?;
    let ports: Vec<&str> = workers
        .iter()
        .map(|worker| worker.port.as_str())
        .chain(clients.iter().filter_map(|client| client.port.as_deref()))
        .collect();
    guard.wait_until_up(&ports)?;
    Ok(Network {
        guard,
        workers,
        clients,
        tagger,
    })
}

/// Makes the clients' VLAN devices, unless a BPF program is to tag or has to, because the kernel knows no
/// such devices; then it refuses the first of them. Who tags.
///
/// They are not in the ledger: each is made in the namespace of its client, and goes with that, or with
/// the trunk that it stands on. Both are in the ledger.
fn make_devices(
    wanted: Tagger,
    guard: &Guard,
    clients: &[Client],
    on_step: &mut OnStep<'_>,
) -> Result<Tagger> {
    if wanted == Tagger::Bpf {
        return Ok(Tagger::Bpf);
    }
    on_step("making the clients' VLAN devices")?;
    let devices: Vec<Link> = clients.iter().map(Client::device).collect();
    match guard.make_links_inside(&devices) {
        Ok(()) => Ok(Tagger::Device),
        Err(error) if wanted == Tagger::Auto && is_missing_feature(&error) => {
            on_step(
                "leaving the tags to BPF: this kernel has no VLAN devices (CONFIG_VLAN_8021Q)",
            )?;
            Ok(Tagger::Bpf)
        }
        Err(error) => Err(error),
    }
}

fn is_missing_feature(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(Failure::Kernel(_)))
}

/// Builds the network of the original for those who only look around.
pub(super) fn build_alone(on_step: &mut OnStep<'_>) -> Result<Guard> {
    let network = build(&Plan::default(), on_step)?;
    if network.tagger == Tagger::Bpf {
        complain(
            NAME,
            "this kernel has no VLAN devices (CONFIG_VLAN_8021Q), so nothing tags what the clients send",
        );
    }
    Ok(network.into_guard())
}

impl Network {
    /// The workers.
    pub fn workers(&self) -> &[Worker] {
        &self.workers
    }

    /// The clients.
    pub fn clients(&self) -> &[Client] {
        &self.clients
    }

    /// The end of the trunk at which the clients' frames come out.
    pub fn trunk(&self) -> &'static str {
        TRUNK
    }

    /// The end of the trunk that they go in at.
    pub fn far_trunk(&self) -> &'static str {
        FAR_TRUNK
    }

    /// What tags the clients' frames; never [`Tagger::Auto`].
    pub fn tagger(&self) -> Tagger {
        self.tagger
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

    fn plan(clients: u16, workers: u16, vlans: RangeInclusive<u16>) -> Plan {
        Plan {
            clients,
            workers,
            vlans,
            tagger: Tagger::Auto,
        }
    }

    #[test]
    fn what_cannot_be_is_refused_in_one_line() {
        for (plan, refusal) in [
            (plan(0, 3, 2..=17), "there can be 1 to 150 clients, not 0"),
            (
                plan(151, 3, 2..=17),
                "there can be 1 to 150 clients, not 151",
            ),
            (plan(3, 0, 2..=17), "there can be 1 to 64 workers, not 0"),
            (plan(3, 65, 2..=17), "there can be 1 to 64 workers, not 65"),
            (
                plan(3, 3, RangeInclusive::new(17, 2)),
                "the VLANs 17-2 are none: the lower id comes first",
            ),
            (
                plan(3, 3, 0..=17),
                "the VLANs 0-17 cannot all be: ids are 1 to 4094",
            ),
            (
                plan(3, 3, 4000..=4095),
                "the VLANs 4000-4095 cannot all be: ids are 1 to 4094",
            ),
        ] {
            match plan.check() {
                Err(Failure::Usage(text)) => assert_eq!(text, refusal),
                other => panic!("{plan:?}: {other:?}"),
            }
        }
        for good in [
            Plan::default(),
            plan(1, 1, 1..=1),
            plan(150, 64, 4094..=4094),
            plan(150, 1, 1..=4094),
        ] {
            good.check().unwrap();
        }
    }

    #[test]
    fn a_range_that_is_too_small_grows_upwards_then_downwards() {
        for (clients, range, wide_enough) in [
            (3, 2..=17, 2..=17),
            (16, 2..=17, 2..=17),
            (17, 2..=17, 2..=18),
            (150, 2..=17, 2..=151),
            (1, 4094..=4094, 4094..=4094),
            (3, 4093..=4094, 4092..=4094),
            (150, 4000..=4001, 3945..=4094),
            (150, 1..=1, 1..=150),
        ] {
            assert_eq!(plan(clients, 3, range).wide_enough(), wide_enough);
        }
    }

    #[test]
    fn ids_are_drawn_from_the_whole_range_and_never_twice() {
        let mut seed = 0_u32;
        let mut random = || {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            Ok((seed >> 8).to_ne_bytes())
        };
        let mut all = [0; 16];
        for _ in 0..1000 {
            let drawn = draw(2..=17, 3, &mut random).unwrap();
            let [a, b, c] = drawn[..] else {
                panic!("{drawn:?}");
            };
            assert!(a != b && b != c && a != c, "{drawn:?}");
            for id in drawn {
                all[usize::from(id) - 2] += 1;
            }
        }
        // 3000 draws of 16: 187.5 of each, give or take 13.
        assert!(
            all.iter().all(|times| (110..=265).contains(times)),
            "{all:?}"
        );
        let mut drawn = draw(1..=150, 150, random::bytes).unwrap();
        drawn.sort_unstable();
        assert!(drawn.into_iter().eq(1..=150));
    }

    #[test]
    fn clients_share_an_address_while_each_has_a_worker_of_its_own() {
        let clients = plan(3, 3, 2..=17).clients(vec![9, 2, 17]);
        for (i, client) in (0..).zip(&clients) {
            assert_eq!(client.namespace, format!("client{i}"));
            assert_eq!(client.port, Some(format!("client{i}a")));
            assert_eq!(client.mac, [2, 0, 0, 0, 0, i]);
            assert_eq!(client.worker, usize::from(i));
            assert_eq!(client.ipv4.to_string(), "172.16.1.100");
            assert_eq!(client.ipv6.to_string(), "fd00:ac10:1::100");
        }
        assert_eq!(
            [clients[0].vlan, clients[1].vlan, clients[2].vlan],
            [9, 2, 17]
        );

        let clients = plan(150, 64, 1..=150).clients((1..=150).collect());
        assert_eq!(clients.len(), 150);
        let last = &clients[149];
        assert_eq!((last.worker, last.mac[5]), (149 % 64, 149));
        assert_eq!(last.ipv4.to_string(), "172.16.1.249");
        assert_eq!(last.ipv6.to_string(), "fd00:ac10:1::249");
        assert_eq!(clients[0].ipv4.to_string(), "172.16.1.100");
    }

    #[test]
    fn workers_share_an_address_always() {
        let workers = plan(3, 64, 2..=17).workers();
        assert_eq!(workers.len(), 64);
        let last = &workers[63];
        assert_eq!(
            (last.namespace.as_str(), last.port.as_str()),
            ("worker63", "worker63a")
        );
        assert_eq!(last.ipv4.to_string(), "172.16.1.5");
        assert_eq!(last.ipv6.to_string(), "fd00:ac10:1::5");
    }
}
