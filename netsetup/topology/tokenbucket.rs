//! Three senders and the one that they all send to.
//!
//! ```text
//!         sender0..2                receiver           namespaces
//!     172.16.2.100..102/24        172.16.2.5/24
//!    fd00:ac10:2::100../64      fd00:ac10:2::5/64
//!        +----------+             +-----------+
//!        |   eth0   | x3          |   eth0    |
//!        +----++----+             +----++-----+
//!             || veth                  ||
//!        +----++----+             +----++-----+
//!        | sender0a |             | receivera |
//!        |    ..    |             |           |
//!  ======+==========+=============+===========+======= br200   host
//! ```
//!
//! The original has no network of its own: this one is built as that of neighbor_sharing is, with
//! other names and prefixes, so that both can be up at once.

use anyhow::Result;

pub use super::host::Host;
use super::host::Lan;
use crate::guard::Guard;
use crate::topology::OnStep;

/// Name of the topology.
pub const NAME: &str = "tokenbucket";

const LAN: Lan = Lan {
    bridge: "br200",
    ipv4: [172, 16, 2],
    ipv6: [0xfd00, 0xac10, 2, 0],
};
const SENDERS: u8 = 3;

/// The network, up. Dropping it removes it.
#[derive(Debug)]
pub struct Network {
    guard: Guard,
    senders: Vec<Host>,
    receiver: Host,
}

/// Builds the network; see [`OnStep`].
pub fn build(on_step: &mut OnStep<'_>) -> Result<Network> {
    let senders: Vec<Host> = (0..SENDERS)
        .map(|i| LAN.host(format!("sender{i}"), 100 + i))
        .collect();
    let receiver = LAN.host("receiver", 5);
    let hosts: Vec<&Host> = senders.iter().chain([&receiver]).collect();
    let guard = LAN.build(NAME, &hosts, on_step)?;
    Ok(Network {
        guard,
        senders,
        receiver,
    })
}

impl Network {
    /// The hosts that send.
    pub fn senders(&self) -> &[Host] {
        &self.senders
    }

    /// The host that they send to.
    pub fn receiver(&self) -> &Host {
        &self.receiver
    }

    /// The bridge that they all are ports of.
    pub fn bridge(&self) -> &'static str {
        LAN.bridge
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
