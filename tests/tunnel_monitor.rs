//! The BPF programs of tunnel_monitor and their loader: what is counted, and for whom, for what goes in.

#[path = "tunnel_monitor/encapsulations.rs"]
mod encapsulations;
#[path = "tunnel_monitor/rig.rs"]
mod rig;
