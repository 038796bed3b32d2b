//! `tcp_hold net-up` and `net-down`: the original's network, up without a measurement.

use anyhow::Result;
use clap::Args;
use netsetup::failure::Failure;
use netsetup::guard;
use netsetup::ledger::{Owner, Record};
use netsetup::topology::tcp_hold::{NAME, Plan, build};

use crate::failure::say;
use crate::progress::Progress;
use crate::session::{self, Session};

/// The bridge br0 (192.168.100.100/24), and the namespace ns0 (192.168.100.101/24) behind it
#[derive(Args, Clone, Debug)]
pub struct NetworkArguments {
    /// Let the namespace out through this interface: forwarding, and NAT by nft or iptables
    #[arg(long, value_name = "IF")]
    pub uplink: Option<String>,

    /// Say on stderr what is done
    #[arg(short, long)]
    pub verbose: bool,
}

/// Builds it and leaves it up.
pub fn up(arguments: &NetworkArguments) -> Result<()> {
    let mut session = Session::start(session::Options::default())?;
    if let Some(record) = Record::load(NAME)?
        && record.owner == Owner::Kept
    {
        let text = "the network is up already; take it down with `tcp_hold net-down` first";
        return Err(Failure::Conflict(text.into()).into());
    }
    let plan = Plan {
        uplink: arguments.uplink.clone(),
    };
    let mut progress = Progress::new(arguments.verbose);
    let network = build(&plan, &mut |step| {
        progress.step(step);
        session.check()
    });
    network.map_err(|error| session.cause(error))?.keep()
}

/// Removes it, or what a killed run has left of it.
pub fn down() -> Result<()> {
    if !guard::take_down(NAME)? {
        say(format_args!("tcp_hold: the network is not up"));
    }
    Ok(())
}
