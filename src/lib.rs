//! The shared library of the netbpf tools.

pub use netsetup::failure::{self, Failure};
