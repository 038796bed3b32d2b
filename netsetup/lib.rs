//! Networks of namespaces, bridges and tunnels for the netbpf tools, built by `ip` commands and
//! undone exactly.
//!
//! A topology ([`topology`]) is built through a [`guard::Guard`]: it holds the instance lock,
//! writes every object into the ledger before the object exists, and removes on drop what it
//! made. What a killed run left is removed by the next start, as far as its ledger proves it.

#![deny(missing_docs)]

pub mod arguments;
mod child;
pub mod failure;
pub mod guard;
pub mod instance;
pub mod ip;
pub mod ledger;
pub mod link;
pub mod namespace;
pub mod nat;
pub mod privilege;
pub mod process;
pub mod queue;
pub mod random;
mod removal;
pub mod server;
pub mod topology;
