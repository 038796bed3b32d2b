//! The command line of neighbor_sharing, and what it configures.

use std::time::Duration;

use anyhow::Result;
use clap::{Parser, ValueEnum};

use super::table::MOST_ADDRESSES;
use super::{Class, Config, Limits, PoliceAt, Ports, Way};
use crate::Failure;
use crate::cidr::Cidr;
use crate::options::Common;
use crate::policer::Limit;
use crate::privilege::Cap;
use crate::rate::{self, Rate, Size};
use crate::session;

/// Shares a WAN link with the neighbors: what goes to and from their ports has one small rate
/// together, the rest has another one.
///
/// Without --wan it builds a network to try it in: three neighbors, two LAN clients and a WAN host in
/// namespaces behind the bridge br100. Enter ends it and undoes everything.
#[derive(Parser, Clone, Debug)]
#[command(name = "neighbor_sharing", version, max_term_width = 100)]
pub struct Arguments {
    /// Measure TCP to a neighbor and to a LAN client of the simulation for 10 s, then end
    #[arg(long, conflicts_with_all = ["wan", "duration", "confirm", "metrics"])]
    pub demo: bool,

    /// The interface of the shared link
    #[arg(long, value_name = "IF", requires = "neighbor")]
    pub wan: Option<String>,

    /// Interfaces of neighbors (names or globs)
    #[arg(long, value_name = "IF", num_args = 1.., requires = "wan")]
    pub neighbor: Vec<String>,

    /// Interfaces of everybody else: with them known, a neighbor's flood of addresses frees nobody
    #[arg(long, value_name = "IF", num_args = 1.., requires = "wan")]
    pub lan: Vec<String>,

    /// Rate of all neighbors together, each way
    #[arg(long, value_name = "RATE", default_value = "128kbit")]
    pub neighbor_rate: Rate,

    /// Rate of the rest, each way
    #[arg(long, value_name = "RATE", default_value = "1024kbit")]
    pub rest_rate: Rate,

    /// What may pass at once after a pause
    #[arg(long, value_name = "SIZE", default_value = "32kb")]
    pub burst: Size,

    /// Which way is limited; both are counted
    #[arg(long, value_enum, default_value_t = Limited::Both)]
    pub direction: Limited,

    /// Where downloads are told apart: by address at the WAN, or by port at the ports, which is right
    /// behind masquerading too [default: wan in the simulation, lan on real interfaces]
    #[arg(long, value_enum, value_name = "SIDE")]
    pub police_at: Option<PoliceAt>,

    /// The neighbors' networks: addresses in them are neighbors' without being learned, addresses
    /// outside never become theirs
    #[arg(long, value_name = "CIDR", num_args = 1..)]
    pub neighbor_net: Vec<Cidr>,

    /// Forget an address after this silence; until then it stays with its first owner
    #[arg(long, value_name = "TIME", default_value = "300s", value_parser = rate::seconds)]
    pub forget_after: Duration,

    /// Addresses that can be known at a time, shared equally by the ports
    #[arg(long, value_name = "N", default_value_t = 16384,
          value_parser = clap::value_parser!(u32).range(1..=i64::from(MOST_ADDRESSES)))]
    pub max_entries: u32,

    /// What every tool has.
    #[command(flatten)]
    pub common: Common,
}

/// The ways that are limited.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limited {
    /// Both ways
    Both,
    /// Only from the WAN
    Download,
    /// Only to the WAN, as the original never did
    Upload,
}

impl Arguments {
    /// Without interfaces the simulation is meant.
    pub fn simulated(&self) -> bool {
        self.wan.is_none()
    }

    /// What ends the run, and how often it wakes.
    pub fn session(&self) -> session::Options {
        session::Options {
            seconds: true,
            ..self.common.session()
        }
    }

    /// What the kernel asks for; CAP_PERFMON because the verifier lets nobody else add a variable to a
    /// packet pointer.
    pub fn capabilities(&self) -> &'static [Cap] {
        if self.simulated() {
            &[Cap::Bpf, Cap::Perfmon, Cap::NetAdmin, Cap::SysAdmin]
        } else {
            &[Cap::Bpf, Cap::Perfmon, Cap::NetAdmin]
        }
    }

    /// What to load and attach on these interfaces.
    pub fn configure(&self, ports: Ports) -> Result<Config> {
        let count = ports.neighbors.len() + ports.lan.len();
        if count > self.max_entries as usize {
            let text = format!("{count} ports cannot share {} addresses", self.max_entries);
            return Err(Failure::Usage(text).into());
        }
        let default_side = if self.simulated() {
            PoliceAt::Wan
        } else {
            PoliceAt::Lan
        };
        Ok(Config {
            ports,
            limits: self.limits()?,
            police_at: self.police_at.unwrap_or(default_side),
            forget_after: self.forget_after,
            max_entries: self.max_entries,
            exempt: self.common.exempt.clone(),
            neighbor_nets: self.neighbor_net.clone(),
            dry_run: self.common.dry_run,
        })
    }

    /// Rates and bursts; refused here, before anything is changed.
    pub fn limits(&self) -> Result<Limits, Failure> {
        let mut limits = Limits::new();
        for (class, rate) in [
            (Class::Neighbor, self.neighbor_rate),
            (Class::Rest, self.rest_rate),
        ] {
            let limit = Limit::new(rate, self.burst)?;
            for way in Way::ALL {
                let unlimited = match way {
                    Way::Download => Limited::Upload,
                    Way::Upload => Limited::Download,
                };
                if self.direction != unlimited {
                    limits.insert((class, way), (rate, limit));
                }
            }
        }
        Ok(limits)
    }
}
