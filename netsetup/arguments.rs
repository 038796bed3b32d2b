//! The command line of netsetup.

use clap::{Parser, Subcommand};

/// Builds the networks of the netbpf tools, and removes them exactly.
#[derive(Parser, Clone, Debug)]
#[command(name = "netsetup", version)]
pub struct Arguments {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What there is to do.
#[derive(Subcommand, Clone, Debug)]
pub enum Command {
    /// Build a topology and leave it up.
    Up {
        /// Name of the topology; `netsetup list` shows them.
        topology: String,
        /// Show each step on stderr.
        #[arg(short, long)]
        verbose: bool,
    },
    /// Remove a topology that was left up, or what a killed tool left of it.
    Down {
        /// Name of the topology.
        topology: String,
    },
    /// Show the topologies, which of them are up, since when, and who owns them.
    List {
        /// Only this topology.
        topology: Option<String>,
    },
}
