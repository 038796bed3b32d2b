//! The command line of tcp_hold.

use clap::{Parser, Subcommand};

use super::measure::MeasureArguments;
use super::network::NetworkArguments;

/// Holds back TCP acknowledgements until the application has confirmed what it has read, and measures what
/// that costs.
///
/// HOOK=1 in the environment is --hold, COUNT=N is --duration N.
#[derive(Parser, Clone, Debug)]
#[command(name = "tcp_hold", version, max_term_width = 100)]
#[command(subcommand_required = true, arg_required_else_help = true)]
pub struct Arguments {
    /// What is to be done.
    #[command(subcommand)]
    pub command: Command,
}

/// What there is to do.
#[derive(Subcommand, Clone, Debug)]
pub enum Command {
    /// Make connections and measure them
    Client(MeasureArguments),
    /// Wait for connections and measure them
    Server(MeasureArguments),
    /// Build the network of the simulation and leave it up
    NetUp(NetworkArguments),
    /// Remove the network that was left up
    NetDown,
}
