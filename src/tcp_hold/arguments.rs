//! The command line of tcp_hold.

use clap::{Parser, Subcommand};

use super::agent::AgentArguments;
use super::experiment::ExperimentArguments;
use super::lockstep::{Lockstep, Step};
use super::measure::MeasureArguments;
use super::network::NetworkArguments;

/// Holds back TCP acknowledgements until the application has confirmed what it has read, and measures what
/// that costs.
///
/// Without a command it builds a network to try it in, a namespace behind this host, measures round trips with
/// and without holding, and shows what it costs. Enter ends it and undoes everything.
///
/// For client and server, HOOK=1 in the environment is --hold, and COUNT=N is --duration N.
#[derive(Parser, Clone, Debug)]
#[command(
    name = "tcp_hold",
    version,
    max_term_width = 100,
    args_conflicts_with_subcommands = true
)]
pub struct Arguments {
    /// What else is to be done than the experiment.
    #[command(subcommand)]
    pub command: Option<Command>,

    /// What the experiment is about.
    #[command(flatten)]
    pub experiment: ExperimentArguments,
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
    /// Hold connections of other programs, which pass their sockets on to this agent
    Agent(AgentArguments),
    /// Hold what leaves an interface, and let it go in epochs, until Enter
    Lockstep(Lockstep),
    /// Hold what leaves an interface, and let it go step by step
    Plug(Step),
}
