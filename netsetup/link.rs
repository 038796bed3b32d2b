//! Links to be made, as values: what they are, and the lines of `ip` that make them.

use std::net::{IpAddr, Ipv4Addr};

use anyhow::Result;
use serde::{Deserialize, Serialize};

use crate::ip::LinkState;
use crate::random;

/// UDP port of VXLAN, RFC 7348.
pub const VXLAN_PORT: u16 = 4789;

/// A link that a topology wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Its name, 15 bytes at most.
    pub name: String,
    kind: Kind,
    bridge: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Kind {
    Bridge,
    Veth {
        peer: String,
        namespace: String,
        /// The far end's link-layer address, where the kernel is not to choose it.
        mac: Option<Mac>,
    },
    Cable {
        other: String,
    },
    Vlan {
        lower: String,
        id: u16,
        namespace: String,
        mac: Mac,
    },
    Vxlan(Vxlan),
}

/// A link-layer address.
pub type Mac = [u8; 6];

/// A VXLAN tunnel end point.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vxlan {
    /// Network identifier, 24 bits.
    pub vni: u32,
    /// Where outer packets go.
    pub ends: Ends,
    /// UDP port of the other ends.
    pub port: u16,
    /// Whether it learns which end point an inner address is behind from the packets it gets.
    pub learning: bool,
}

/// Where the outer packets of a tunnel go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ends {
    /// To one other end, or wherever the forwarding table says.
    Fixed {
        /// Address of this end, the source of outer packets.
        local: IpAddr,
        /// Address of the other end; `None` if the forwarding table is filled by hand.
        remote: Option<IpAddr>,
    },
    /// To all others at first, by multicast, and to the right one when that has been heard (RFC 7348, 4.2).
    Group {
        /// What all ends join when they are set up.
        group: Ipv4Addr,
        /// The device through which they do, in the same namespace.
        device: String,
    },
}

impl Link {
    /// A bridge without spanning tree: its ports forward as soon as they are up.
    pub fn bridge(name: impl Into<String>) -> Link {
        Link::new(name, Kind::Bridge)
    }

    /// A veth pair: this end here, the other one as `peer` in `namespace`.
    pub fn veth(
        name: impl Into<String>,
        peer: impl Into<String>,
        namespace: impl Into<String>,
    ) -> Link {
        Link::new(
            name,
            Kind::Veth {
                peer: peer.into(),
                namespace: namespace.into(),
                mac: None,
            },
        )
    }

    /// A veth pair as [`Link::veth`], the far end with this link-layer address.
    pub fn veth_to(
        name: impl Into<String>,
        (peer, mac): (impl Into<String>, Mac),
        namespace: impl Into<String>,
    ) -> Link {
        Link::new(
            name,
            Kind::Veth {
                peer: peer.into(),
                namespace: namespace.into(),
                mac: Some(mac),
            },
        )
    }

    /// A veth pair with both ends here. The one named first proves the pair to be ours, the other one
    /// goes with it.
    pub fn cable(one: impl Into<String>, other: impl Into<String>) -> Link {
        let other = other.into();
        Link::new(one, Kind::Cable { other })
    }

    /// A device in `namespace` whose frames pass `lower`, a link of the host, in the VLAN `id` (IEEE
    /// 802.1Q). It goes with either of them.
    pub fn vlan(
        name: impl Into<String>,
        mac: Mac,
        namespace: impl Into<String>,
        (lower, id): (impl Into<String>, u16),
    ) -> Link {
        Link::new(
            name,
            Kind::Vlan {
                lower: lower.into(),
                id,
                namespace: namespace.into(),
                mac,
            },
        )
    }

    /// A VXLAN tunnel end point.
    pub fn vxlan(name: impl Into<String>, vxlan: Vxlan) -> Link {
        Link::new(name, Kind::Vxlan(vxlan))
    }

    fn new(name: impl Into<String>, kind: Kind) -> Link {
        Link {
            name: name.into(),
            kind,
            bridge: None,
        }
    }

    /// Makes it a port of a bridge; of a cable, the end that is named first.
    pub fn port_of(self, bridge: impl Into<String>) -> Link {
        Link {
            bridge: Some(bridge.into()),
            ..self
        }
    }

    /// The names that it takes on the host.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        let (own, other) = match &self.kind {
            Kind::Cable { other } => (true, Some(other)),
            Kind::Vlan { .. } => (false, None),
            Kind::Bridge | Kind::Veth { .. } | Kind::Vxlan(_) => (true, None),
        };
        let own = own.then_some(&self.name);
        own.into_iter().chain(other).map(String::as_str)
    }

    /// The line that makes it, down. Inside a namespace that is ours it needs no identity: it
    /// goes with the namespace.
    pub fn add_line(&self, identity: Option<&Identity>) -> String {
        let name = &self.name;
        let identity = match identity {
            Some(Identity { index, mac }) => format!(" index {index} address {mac}"),
            None => String::new(),
        };
        let kind = match &self.kind {
            Kind::Bridge => "bridge".to_string(),
            Kind::Veth {
                peer,
                namespace,
                mac,
            } => {
                let mac = mac.map_or_else(String::new, |mac| format!(" address {}", text(mac)));
                format!("veth peer name {peer}{mac} netns {namespace}")
            }
            Kind::Cable { other } => format!("veth peer name {other}"),
            Kind::Vlan {
                lower,
                id,
                namespace,
                mac,
            } => {
                let mac = text(*mac);
                return format!(
                    "link add link {lower} name {name} address {mac} netns {namespace} \
                     type vlan id {id}"
                );
            }
            Kind::Vxlan(vxlan) => vxlan.arguments(),
        };
        format!("link add {name}{identity} type {kind}")
    }

    /// The lines that put it on its bridge and set it up, with all that it has on the host. `silent` is
    /// for the ends that stay on the host: without a link-local address the host sends nothing of its
    /// own into the network.
    pub fn up_lines(&self, silent: bool) -> impl Iterator<Item = String> {
        self.names().flat_map(move |name| {
            let set = format!("link set dev {name}");
            // In a line before: of one line, the kernel does `up` first, and then has made the address.
            let no_address = silent.then(|| format!("{set} addrgenmode none"));
            let up = match self.bridge.as_ref().filter(|_| name == self.name) {
                Some(bridge) => format!("{set} master {bridge} up"),
                None => format!("{set} up"),
            };
            no_address.into_iter().chain([up])
        })
    }

    /// The kernel option that this kind of link needs.
    pub(crate) fn kernel_option(&self) -> &'static str {
        match self.kind {
            Kind::Bridge => "CONFIG_BRIDGE",
            Kind::Veth { .. } | Kind::Cable { .. } => "CONFIG_VETH",
            Kind::Vlan { .. } => "CONFIG_VLAN_8021Q",
            Kind::Vxlan(_) => "CONFIG_VXLAN",
        }
    }
}

impl Vxlan {
    fn arguments(&self) -> String {
        let ends = match &self.ends {
            Ends::Fixed {
                local,
                remote: Some(remote),
            } => format!("local {local} remote {remote}"),
            Ends::Fixed {
                local,
                remote: None,
            } => format!("local {local}"),
            Ends::Group { group, device } => format!("group {group} dev {device}"),
        };
        let learning = if self.learning { "" } else { "no" };
        let Vxlan { vni, port, .. } = self;
        format!("vxlan id {vni} {ends} dstport {port} {learning}learning")
    }
}

/// As `ip` writes it.
fn text(mac: Mac) -> String {
    let [a, b, c, d, e, f] = mac;
    format!("{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}")
}

/// What proves a link of the host to be ours: chosen by us before the link is made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Interface index.
    pub index: u32,
    /// Link-layer address.
    pub mac: String,
}

impl Identity {
    /// Whether `state` is the link of this identity, whatever its name is now.
    pub fn is(&self, state: &LinkState) -> bool {
        state.ifindex == self.index && state.address.as_deref() == Some(&self.mac)
    }
}

/// Identities for the links of one network: neighbouring indices, and MAC addresses that differ
/// in their last two bytes.
#[derive(Debug)]
pub(crate) struct Identities {
    index: u32,
    mac: [u8; 4],
    next: u16,
}

impl Identities {
    /// Chooses a range of indices that is free among `links`.
    pub(crate) fn choose(links: &[LinkState]) -> Result<Identities> {
        loop {
            let random: [u8; 7] = random::bytes()?;
            let [a, b, c, d, mac @ ..] = random;
            // From 2^20, far above what the kernel counts up to, to 2^30, below the sign bit.
            let index = (u32::from_ne_bytes([a, b, c, d]) & 0x3fff_ffff) | 0x10_0000;
            let range = index..=index + u32::from(u16::MAX);
            if links.iter().all(|link| !range.contains(&link.ifindex)) {
                let [x, y, z] = mac;
                // 02: locally administered, unicast.
                return Ok(Identities {
                    index,
                    mac: [0x02, x, y, z],
                    next: 0,
                });
            }
        }
    }

    pub(crate) fn next(&mut self) -> Identity {
        let [a, b, c, d] = self.mac;
        let [e, f] = self.next.to_be_bytes();
        let identity = Identity {
            index: self.index + u32::from(self.next),
            mac: text([a, b, c, d, e, f]),
        };
        self.next += 1;
        identity
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity() -> Identity {
        Identity {
            index: 1_048_577,
            mac: "02:00:00:00:00:01".into(),
        }
    }

    fn up_lines(link: &Link, silent: bool) -> Vec<String> {
        link.up_lines(silent).collect()
    }

    #[test]
    fn lines_of_a_port() {
        let link = Link::veth("wan0a", "eth0", "wan0").port_of("br100");
        assert_eq!(
            link.add_line(Some(&identity())),
            "link add wan0a index 1048577 address 02:00:00:00:00:01 \
             type veth peer name eth0 netns wan0"
        );
        assert_eq!(
            up_lines(&link, true),
            [
                "link set dev wan0a addrgenmode none",
                "link set dev wan0a master br100 up"
            ]
        );
        let link = Link::veth_to("client7a", ("eth0", [2, 0, 0, 0, 0, 0x17]), "client7");
        assert_eq!(
            link.add_line(Some(&identity())),
            "link add client7a index 1048577 address 02:00:00:00:00:01 \
             type veth peer name eth0 address 02:00:00:00:00:17 netns client7"
        );
        assert_eq!(link.names().collect::<Vec<_>>(), ["client7a"]);
    }

    #[test]
    fn lines_of_a_cable() {
        let link = Link::cable("eth0a", "eth0b");
        assert_eq!(
            link.add_line(Some(&identity())),
            "link add eth0a index 1048577 address 02:00:00:00:00:01 type veth peer name eth0b"
        );
        assert_eq!(
            up_lines(&link, true),
            [
                "link set dev eth0a addrgenmode none",
                "link set dev eth0a up",
                "link set dev eth0b addrgenmode none",
                "link set dev eth0b up"
            ]
        );
        assert_eq!(
            up_lines(&link.port_of("br7"), false),
            ["link set dev eth0a master br7 up", "link set dev eth0b up"]
        );
    }

    #[test]
    fn lines_of_a_vlan() {
        let link = Link::vlan("eth0", [2, 0, 0, 0, 0, 1], "client1", ("eth0a", 4094));
        assert_eq!(
            link.add_line(None),
            "link add link eth0a name eth0 address 02:00:00:00:00:01 netns client1 \
             type vlan id 4094"
        );
        assert_eq!(up_lines(&link, false), [""; 0]);
    }

    #[test]
    fn lines_of_a_tunnel() {
        let vxlan = Vxlan {
            vni: 42,
            ends: Ends::Fixed {
                local: "192.0.2.1".parse().unwrap(),
                remote: Some("192.0.2.2".parse().unwrap()),
            },
            port: VXLAN_PORT,
            learning: true,
        };
        assert_eq!(
            Link::vxlan("vx42", vxlan.clone()).add_line(None),
            "link add vx42 type vxlan id 42 local 192.0.2.1 remote 192.0.2.2 dstport 4789 learning"
        );
        let by_hand = Vxlan {
            ends: Ends::Fixed {
                local: "192.0.2.1".parse().unwrap(),
                remote: None,
            },
            learning: false,
            ..vxlan.clone()
        };
        let link = Link::vxlan("vx42", by_hand);
        assert_eq!(
            link.add_line(None),
            "link add vx42 type vxlan id 42 local 192.0.2.1 dstport 4789 nolearning"
        );
        assert_eq!(up_lines(&link, false), ["link set dev vx42 up"]);
        let to_a_group = Vxlan {
            ends: Ends::Group {
                group: "239.1.1.4".parse().unwrap(),
                device: "eth0".into(),
            },
            ..vxlan
        };
        assert_eq!(
            Link::vxlan("vx42", to_a_group).add_line(None),
            "link add vx42 type vxlan id 42 group 239.1.1.4 dev eth0 dstport 4789 learning"
        );
    }

    #[test]
    fn identities_differ_and_are_proved_by_index_and_address() {
        let mut identities = Identities::choose(&[]).unwrap();
        let (first, second) = (identities.next(), identities.next());
        assert_eq!(first.index + 1, second.index);
        assert_ne!(first.mac, second.mac);
        let state = |index: u32, mac: &str| -> LinkState {
            let json = format!(r#"{{"ifindex":{index},"ifname":"any","address":"{mac}"}}"#);
            serde_json::from_str(&json).unwrap()
        };
        assert!(first.is(&state(first.index, &first.mac)));
        assert!(!first.is(&state(first.index, &second.mac)));
        assert!(!first.is(&state(second.index, &first.mac)));
    }
}
