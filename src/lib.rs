//! The shared library of the netbpf tools.

#![deny(missing_docs)]

pub use netsetup::failure::{self, Failure};
