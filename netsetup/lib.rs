//! Networks of namespaces, bridges and tunnels for the netbpf tools, built by `ip` commands and
//! undone exactly.

pub mod failure;
