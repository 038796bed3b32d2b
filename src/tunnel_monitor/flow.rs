//! What is counted: a conversation inside a tunnel, and how much of it passed.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

/// How the inner packet is packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Encap {
    /// RFC 7348; the identifier has 24 bits.
    Vxlan,
    /// RFC 8926; likewise.
    Geneve,
    /// RFC 2784 and 2890; the identifier is the whole key, or 0 without one.
    Gre,
    /// RFC 7637: GRE whose key is an identifier of 24 bits and 8 bits that tell flows apart.
    Nvgre,
    /// IPv4 in IP (protocol 4, RFC 2003 and 2473); there is no identifier.
    Ipip,
    /// IPv6 in IP (protocol 41, RFC 4213 and 2473); there is no identifier.
    Sit,
}

impl Encap {
    /// All of them, in the order of `enum encap` of the BPF program.
    pub const ALL: [Encap; 6] = [
        Encap::Vxlan,
        Encap::Geneve,
        Encap::Gre,
        Encap::Nvgre,
        Encap::Ipip,
        Encap::Sit,
    ];

    /// As reports name it.
    pub fn name(self) -> &'static str {
        match self {
            Encap::Vxlan => "vxlan",
            Encap::Geneve => "geneve",
            Encap::Gre => "gre",
            Encap::Nvgre => "nvgre",
            Encap::Ipip => "ipip",
            Encap::Sit => "sit",
        }
    }
}

impl fmt::Display for Encap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The inner addresses, seen from the local end of the tunnel.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Inner {
    /// ARP, for example: no IP addresses.
    NotIp,
    /// IPv4.
    V4 {
        /// Behind the local end.
        local: Ipv4Addr,
        /// Behind the remote end.
        remote: Ipv4Addr,
    },
    /// IPv6. In a box, so that a million flows of IPv4 stay small.
    V6(Box<[Ipv6Addr; 2]>),
}

/// A conversation, seen from the monitored interface: what it sends comes from the local end.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Flow {
    /// How it is packed.
    pub encap: Encap,
    /// Number of the virtual network; 0 where there is none.
    pub vni: u32,
    /// Outer addresses: the local and the remote end of the tunnel.
    pub outer: Outer,
    /// Inner addresses, in the same order.
    pub inner: Inner,
}

/// The ends of a tunnel; small for IPv4, as [`Inner`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Outer {
    /// IPv4.
    V4 {
        /// This end.
        local: Ipv4Addr,
        /// The other end.
        remote: Ipv4Addr,
    },
    /// IPv6: local, remote.
    V6(Box<[Ipv6Addr; 2]>),
}

impl Flow {
    /// The tunnel's ends: local, remote.
    pub fn outer(&self) -> [IpAddr; 2] {
        match &self.outer {
            Outer::V4 { local, remote } => [(*local).into(), (*remote).into()],
            Outer::V6(ends) => ends.map(IpAddr::V6),
        }
    }

    /// Who talks: behind the local end, behind the remote one. `None`: it is not IP.
    pub fn inner(&self) -> Option<[IpAddr; 2]> {
        match &self.inner {
            Inner::NotIp => None,
            Inner::V4 { local, remote } => Some([(*local).into(), (*remote).into()]),
            Inner::V6(ends) => Some(ends.map(IpAddr::V6)),
        }
    }

    /// As [`Flow::inner`], with the original's 0.0.0.0 for what is not IP.
    pub fn inner_or_zeros(&self) -> [IpAddr; 2] {
        self.inner().unwrap_or([Ipv4Addr::UNSPECIFIED.into(); 2])
    }

    /// Whether the original names the remote end first: it orders a pair by the outer addresses.
    pub fn is_remote_first(&self) -> bool {
        let [local, remote] = self.outer();
        remote < local
    }
}

/// Wire segments, and bytes of Ethernet frames without FCS and tags, as they pass the monitored
/// interface: `rx` comes in by it, `tx` goes out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Sent.
    pub tx_pkts: u64,
    /// Sent.
    pub tx_bytes: u64,
    /// Received.
    pub rx_pkts: u64,
    /// Received.
    pub rx_bytes: u64,
}

impl Counts {
    /// Both ways together.
    pub fn bytes(&self) -> u64 {
        self.tx_bytes + self.rx_bytes
    }

    /// Both ways together.
    pub fn packets(&self) -> u64 {
        self.tx_pkts + self.rx_pkts
    }

    /// Whether nothing passed.
    pub fn is_zero(&self) -> bool {
        *self == Counts::default()
    }
}

impl std::ops::AddAssign for Counts {
    fn add_assign(&mut self, other: Counts) {
        self.tx_pkts += other.tx_pkts;
        self.tx_bytes += other.tx_bytes;
        self.rx_pkts += other.rx_pkts;
        self.rx_bytes += other.rx_bytes;
    }
}

impl std::ops::Sub for Counts {
    type Output = Counts;

    fn sub(self, earlier: Counts) -> Counts {
        Counts {
            tx_pkts: self.tx_pkts - earlier.tx_pkts,
            tx_bytes: self.tx_bytes - earlier.tx_bytes,
            rx_pkts: self.rx_pkts - earlier.rx_pkts,
            rx_bytes: self.rx_bytes - earlier.rx_bytes,
        }
    }
}

impl std::iter::Sum for Counts {
    fn sum<I: Iterator<Item = Counts>>(counts: I) -> Counts {
        counts.fold(Counts::default(), |mut sum, counts| {
            sum += counts;
            sum
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_million_flows_of_ipv4_stay_small() {
        assert!(size_of::<Flow>() <= 40, "{}", size_of::<Flow>());
        assert_eq!(size_of::<Counts>(), 32);
    }
}
