//! Networks of namespaces, bridges and tunnels for the netbpf tools, built by `ip` commands and
//! undone exactly.

#![deny(missing_docs)]

pub mod failure;
