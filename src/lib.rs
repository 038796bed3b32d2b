//! The shared library of the netbpf tools.

#![deny(missing_docs)]

pub mod netlink;
pub mod preflight;
pub mod privilege;
pub mod rate;
pub mod session;

pub use netsetup::failure::{self, Failure};
