//! The BPF programs of vlan_learning and their loader, on real interfaces: what comes out where for what
//! goes in, byte by byte, what is known and what is counted.

#[path = "vlan_learning/broadcasts.rs"]
mod broadcasts;
#[path = "vlan_learning/directory.rs"]
mod directory;
#[path = "vlan_learning/generated.rs"]
mod generated;
#[path = "vlan_learning/lost.rs"]
mod lost;
#[path = "vlan_learning/moves.rs"]
mod moves;
#[path = "vlan_learning/peers.rs"]
mod peers;
#[path = "vlan_learning/policies.rs"]
mod policies;
#[path = "vlan_learning/promiscuous.rs"]
mod promiscuous;
#[path = "vlan_learning/rig.rs"]
mod rig;
mod seed;
#[path = "vlan_learning/strangers.rs"]
mod strangers;
#[path = "vlan_learning/tags.rs"]
mod tags;
#[path = "vlan_learning/traffic.rs"]
mod traffic;
