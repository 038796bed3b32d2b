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
//! The IPv6 addresses are ours, the original has none.

use anyhow::Result;

pub use super::host::Host;
use super::host::Lan;
use crate::guard::Guard;
use crate::server::{self, OnLine};
use crate::topology::OnStep;

/// Name of the topology.
pub const NAME: &str = "neighbor_sharing";

const LAN: Lan = Lan {
    bridge: "br100",
    ipv4: [172, 16, 1],
    ipv6: [0xfd00, 0xac10, 1, 0],
};
const NEIGHBORS: u8 = 3;
const LOCALS: u8 = 2;

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
    let wan = LAN.host("wan0", 5);
    let neighbors: Vec<Host> = (0..NEIGHBORS)
        .map(|i| LAN.host(format!("neighbor{i}"), 100 + i))
        .collect();
    let locals: Vec<Host> = (0..LOCALS)
        .map(|i| LAN.host(format!("local{i}"), 150 + i))
        .collect();
    let hosts: Vec<&Host> = [&wan]
        .into_iter()
        .chain(&neighbors)
        .chain(&locals)
        .collect();
    let guard = LAN.build(NAME, &hosts, on_step)?;
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
        LAN.bridge
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
