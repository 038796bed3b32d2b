//! The shared library of the netbpf tools.

#![deny(missing_docs)]

pub mod cidr;
pub mod load;
mod map_value;
pub mod neighbor_sharing;
pub mod netlink;
mod notation;
pub mod options;
mod output;
pub mod policer;
pub mod port;
pub mod preflight;
pub mod privilege;
pub mod rate;
mod report;
pub mod session;
pub mod tc;
pub mod tokenbucket;

pub use netsetup::failure::{self, Failure};
