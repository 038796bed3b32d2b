//! The networks that can be built, by name.

pub mod host;
pub mod neighbor_sharing;
pub mod tcp_hold;
pub mod tokenbucket;
pub mod tunnel_monitor;
pub mod vlan_learning;

use anyhow::Result;

use crate::failure::Failure;
use crate::guard::Guard;

/// Called before each step of a build with a few words about it. An error stops the build: what
/// was built so far is removed, and the error is returned.
pub type OnStep<'a> = dyn FnMut(&str) -> Result<()> + 'a;

/// A network that can be built without knowing more than its name.
#[derive(Debug)]
pub struct Topology {
    /// Its name, on the command line and in the ledger.
    pub name: &'static str,
    /// What it is, in a line.
    pub summary: &'static str,
    build: fn(&mut OnStep<'_>) -> Result<Guard>,
}

/// All of them.
pub static ALL: [Topology; 5] = [
    Topology {
        name: neighbor_sharing::NAME,
        summary: "a wan, three neighbors and two LAN clients on one bridge",
        build: |on_step| Ok(neighbor_sharing::build(on_step)?.into_guard()),
    },
    Topology {
        name: tcp_hold::NAME,
        summary: "a namespace behind the host, on a bridge with the host's own address",
        build: |on_step| {
            let plan = tcp_hold::Plan::default();
            Ok(tcp_hold::build(&plan, on_step)?.into_guard())
        },
    },
    Topology {
        name: tokenbucket::NAME,
        summary: "three senders and a receiver on one bridge",
        build: |on_step| Ok(tokenbucket::build(on_step)?.into_guard()),
    },
    Topology {
        name: tunnel_monitor::NAME,
        summary: "nine hosts on one bridge, four VXLAN networks through all of them",
        build: |on_step| {
            let plan = tunnel_monitor::Plan::default();
            Ok(tunnel_monitor::build(&plan, on_step)?.into_guard())
        },
    },
    Topology {
        name: vlan_learning::NAME,
        summary: "three workers with one address behind a trunk, three clients with one address in \
                  VLANs",
        build: vlan_learning::build_alone,
    },
];

impl Topology {
    /// The topology of that name, or [`Failure::Usage`].
    pub fn find(name: &str) -> Result<&'static Topology> {
        let found = ALL.iter().find(|topology| topology.name == name);
        found.ok_or_else(|| {
            let known: Vec<&str> = ALL.iter().map(|topology| topology.name).collect();
            Failure::Usage(format!(
                "there is no topology {name}; known: {}",
                known.join(", ")
            ))
            .into()
        })
    }

    /// Builds it.
    pub fn build(&self, on_step: &mut OnStep<'_>) -> Result<Guard> {
        (self.build)(on_step)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_name_is_told_which_ones_are_known() {
        let error = Topology::find("neighbour_sharing").unwrap_err();
        assert_eq!(
            error.to_string(),
            "there is no topology neighbour_sharing; known: neighbor_sharing, tcp_hold, tokenbucket, \
             tunnel_monitor, vlan_learning"
        );
        assert!(matches!(
            error.downcast_ref::<Failure>(),
            Some(Failure::Usage(_))
        ));
    }
}
