//! The BPF programs of tunnel_monitor and their loader: what is counted, and for whom, for what goes in.

#[path = "tunnel_monitor/attaching.rs"]
mod attaching;
#[path = "tunnel_monitor/encapsulations.rs"]
mod encapsulations;
#[path = "tunnel_monitor/frames.rs"]
mod frames;
#[path = "tunnel_monitor/generated.rs"]
mod generated;
#[path = "tunnel_monitor/oracle.rs"]
mod oracle;
#[path = "tunnel_monitor/rig.rs"]
mod rig;
mod seed;
#[path = "tunnel_monitor/table.rs"]
mod table;
