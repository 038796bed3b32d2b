//! Links to be made, as values: what they are, and the lines of `ip` that make them.

use std::net::IpAddr;

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
    Veth { peer: String, namespace: String },
    Vxlan(Vxlan),
}

/// A VXLAN tunnel end point.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vxlan {
    /// Network identifier, 24 bits.
    pub vni: u32,
    /// Address of this end, the source of outer packets.
    pub local: IpAddr,
    /// Address of the other end; `None` if the forwarding table is filled by hand.
    pub remote: Option<IpAddr>,
    /// UDP port of the other ends.
    pub port: u16,
    /// Whether it learns which end point an inner address is behind from the packets it gets.
    pub learning: bool,
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

    /// Makes it a port of a bridge.
    pub fn port_of(self, bridge: impl Into<String>) -> Link {
        Link {
            bridge: Some(bridge.into()),
            ..self
        }
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
            Kind::Veth { peer, namespace } => format!("veth peer name {peer} netns {namespace}"),
            Kind::Vxlan(vxlan) => vxlan.arguments(),
        };
        format!("link add {name}{identity} type {kind}")
    }

    /// The line that puts it on its bridge and sets it up. `silent` is for the ends that stay on
    /// the host: without a link-local address the host sends nothing of its own into the network.
    pub fn up_line(&self, silent: bool) -> String {
        let mut line = format!("link set dev {}", self.name);
        if silent {
            line.push_str(" addrgenmode none");
        }
        if let Some(bridge) = &self.bridge {
            line.push_str(" master ");
            line.push_str(bridge);
        }
        line.push_str(" up");
        line
    }

    /// The kernel option that this kind of link needs.
    pub(crate) fn kernel_option(&self) -> &'static str {
        match self.kind {
            Kind::Bridge => "CONFIG_BRIDGE",
            Kind::Veth { .. } => "CONFIG_VETH",
            Kind::Vxlan(_) => "CONFIG_VXLAN",
        }
    }
}

impl Vxlan {
    fn arguments(&self) -> String {
        let remote = match self.remote {
            Some(address) => format!(" remote {address}"),
            None => String::new(),
        };
        let learning = if self.learning { "" } else { "no" };
        let Vxlan {
            vni, local, port, ..
        } = self;
        format!("vxlan id {vni} local {local}{remote} dstport {port} {learning}learning")
    }
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
            mac: format!("{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}"),
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

    #[test]
    fn lines_of_a_port() {
        let link = Link::veth("wan0a", "eth0", "wan0").port_of("br100");
        assert_eq!(
            link.add_line(Some(&identity())),
            "link add wan0a index 1048577 address 02:00:00:00:00:01 \
             type veth peer name eth0 netns wan0"
        );
        assert_eq!(
            link.up_line(true),
            "link set dev wan0a addrgenmode none master br100 up"
        );
    }

    #[test]
    fn lines_of_a_tunnel() {
        let vxlan = Vxlan {
            vni: 42,
            local: "192.0.2.1".parse().unwrap(),
            remote: Some("192.0.2.2".parse().unwrap()),
            port: VXLAN_PORT,
            learning: true,
        };
        assert_eq!(
            Link::vxlan("vx42", vxlan.clone()).add_line(None),
            "link add vx42 type vxlan id 42 local 192.0.2.1 remote 192.0.2.2 dstport 4789 learning"
        );
        let by_hand = Vxlan {
            remote: None,
            learning: false,
            ..vxlan
        };
        let link = Link::vxlan("vx42", by_hand);
        assert_eq!(
            link.add_line(None),
            "link add vx42 type vxlan id 42 local 192.0.2.1 dstport 4789 nolearning"
        );
        assert_eq!(link.up_line(false), "link set dev vx42 up");
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
