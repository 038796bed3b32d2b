//! The shared library of the netbpf tools.

#![deny(missing_docs)]

pub mod capture;
pub mod cidr;
mod ending;
pub mod explain;
mod grace;
pub mod ground;
pub mod http;
pub mod load;
pub mod mac;
mod map_value;
mod mapped;
pub mod metrics;
pub mod neighbor_sharing;
pub mod netlink;
mod notation;
pub mod options;
mod output;
pub mod policer;
pub mod port;
pub mod preflight;
pub mod privilege;
mod progress;
mod promiscuous;
pub mod rate;
mod report;
pub mod session;
mod settings;
pub mod tc;
pub mod tcp_hold;
mod tick;
pub mod tokenbucket;
pub mod trace;
pub mod tunnel_monitor;
pub mod vlan_learning;

pub use netsetup::failure::{self, Failure};
