//! The command line of vlan_learning, and what it configures.

use std::fmt;
use std::ops::RangeInclusive;

use anyhow::{Context, Result};
use clap::Parser;
use netsetup::topology::vlan_learning::{Plan, Tagger};

use super::demux::{MOST_CLIENTS, Policy, Setup, Verdict};
use super::interfaces::{self, Placed};
use super::mapping::{Mapping, Pair, Settings, Unknown, Untagged};
use crate::Failure;
use crate::netlink::{Link, Netlink};
use crate::notation::counted;
use crate::options::Common;
use crate::port::Port;
use crate::preflight;
use crate::privilege::Cap;
use crate::session;

/// Brings clients in the VLANs of a trunk to their workers: a client belongs to the worker that its MAC
/// address is configured for, and its VLAN is learned from its frames.
///
/// Without --trunk it builds a network to try it in: workers and clients in namespaces, the workers all
/// with one address and the clients too, on a trunk with a VLAN for each client. Enter ends it and undoes
/// everything.
#[derive(Parser, Clone, Debug)]
#[command(name = "vlan_learning", version, max_term_width = 100)]
#[command(mut_arg("exempt", |exempt| exempt.hide(true)))]
pub struct Arguments {
    /// Clients of the simulation
    #[arg(long, value_name = "N", default_value_t = 3,
          conflicts_with_all = ["trunk", "config"])]
    pub clients: u16,

    /// Workers of the simulation; clients with one address need one each
    #[arg(long, value_name = "N", default_value_t = 3,
          conflicts_with_all = ["trunk", "config"])]
    pub workers: u16,

    /// VLANs of the simulation's clients, drawn at random
    #[arg(long, value_name = "FIRST-LAST", default_value = "2-17", value_parser = vlans,
          conflicts_with_all = ["trunk", "config"])]
    pub vlans: RangeInclusive<u16>,

    /// What tags the frames of the simulation's clients
    #[arg(long, value_enum, value_name = "HOW", default_value_t = TaggedBy::Auto,
          conflicts_with_all = ["trunk", "config"])]
    pub tagger: TaggedBy,

    /// End the simulation when its clients have fetched their pages
    #[arg(long, conflicts_with_all = ["trunk", "config", "duration", "confirm", "metrics"])]
    pub demo: bool,

    /// The interface that the clients' VLANs come in by
    #[arg(long, value_name = "IF")]
    pub trunk: Option<String>,

    /// Clients by MAC address, and the interfaces of their workers
    #[arg(long, value_name = "MAC=IF", num_args = 1.., conflicts_with = "config", requires = "trunk")]
    pub map: Vec<Pair>,

    /// The same from a file (TOML), which SIGHUP reads again
    #[arg(long, value_name = "FILE")]
    pub config: Option<String>,

    /// What happens to tagged frames from other MAC addresses: pass, drop, or an interface that they go
    /// to with their tags [default: drop in the simulation, pass on real interfaces]
    #[arg(long, value_name = "pass|drop|IF")]
    pub unknown: Option<Unknown>,

    /// What happens to frames without a tag [default: drop in the simulation, pass on real interfaces]
    #[arg(long, value_enum, value_name = "WHAT")]
    pub untagged: Option<Untagged>,

    /// Keep every client in the VLAN that it was first seen in; frames from others are dropped
    #[arg(long)]
    pub no_move: bool,

    /// Clients that there can be at a time
    #[arg(long, value_name = "N", default_value_t = MOST_CLIENTS,
          value_parser = clap::value_parser!(u32).range(1..=i64::from(MOST_CLIENTS)))]
    pub max_entries: u32,

    /// What every tool has.
    #[command(flatten)]
    pub common: Common,
}

/// What tags the frames of the simulation's clients.
#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum TaggedBy {
    /// VLAN devices where the kernel has them, BPF elsewhere
    Auto,
    /// VLAN devices (8021q)
    Device,
    /// A BPF program at the client's port
    Bpf,
}

/// Who belongs where on real interfaces, and what happens to the rest.
#[derive(Clone, Debug)]
pub struct Table {
    /// The trunk's interface.
    pub trunk: Port,
    /// Who belongs where, by name.
    pub mapping: Mapping,
    /// The same on the interfaces that are there.
    pub placed: Placed,
    /// What happens to the rest.
    pub policy: Policy,
}

impl Table {
    /// All interfaces, looked up again, for those who watch them.
    pub fn links(&self) -> Result<Vec<Link>> {
        let mut netlink = Netlink::open()?;
        let workers = self.placed.workers.values().map(|worker| &worker.port);
        [&self.trunk]
            .into_iter()
            .chain(workers)
            .map(|port| {
                let link = port.link(&mut netlink)?;
                link.with_context(|| format!("{} is gone", port.name))
            })
            .collect()
    }
}

/// One line: what is brought where, and what happens to the rest.
impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = |verdict: &Verdict| match verdict {
            Verdict::Pass => "pass".to_owned(),
            Verdict::Drop => "are dropped".to_owned(),
            Verdict::Redirect(port) => format!("go to {}", port.name),
        };
        write!(
            f,
            "Bringing {} from {} to {}; frames from unknown MAC addresses {}, \
             untagged ones {}",
            counted(self.placed.clients.len(), "client"),
            self.trunk.name,
            counted(self.placed.workers.len(), "worker"),
            verdict(&self.policy.unknown),
            verdict(&self.policy.untagged),
        )?;
        if self.policy.no_move {
            f.write_str("; clients stay in their VLANs")?;
        }
        Ok(())
    }
}

impl Arguments {
    /// Without a trunk the simulation is meant.
    pub fn simulated(&self) -> bool {
        self.trunk.is_none() && self.config.is_none()
    }

    /// What ends the run, and how often it wakes.
    pub fn session(&self) -> session::Options {
        session::Options {
            seconds: self.simulated() || self.common.metrics.is_some(),
            reload: self.config.is_some(),
            ..self.common.session()
        }
    }

    /// What the kernel asks for; CAP_PERFMON because the verifier lets nobody else add a variable to a
    /// packet pointer, CAP_NET_RAW for the promiscuous interfaces.
    pub fn capabilities(&self) -> &'static [Cap] {
        if self.simulated() {
            &[
                Cap::Bpf,
                Cap::Perfmon,
                Cap::NetAdmin,
                Cap::NetRaw,
                Cap::SysAdmin,
            ]
        } else {
            &[Cap::Bpf, Cap::Perfmon, Cap::NetAdmin, Cap::NetRaw]
        }
    }

    /// Refuses what cannot be meant, before anything is changed.
    pub fn check(&self) -> Result<(), Failure> {
        let refuse = |text: &str| Err(Failure::Usage(text.into()));
        if !self.common.exempt.is_empty() {
            return refuse("nothing is limited here, so --exempt means nothing");
        }
        if self.simulated() {
            return self.plan().check();
        }
        if self.trunk.is_some() && self.map.is_empty() && self.config.is_none() {
            return refuse("--trunk needs clients: --map MAC=IF or --config FILE");
        }
        Ok(())
    }

    /// The simulation's network.
    pub fn plan(&self) -> Plan {
        Plan {
            clients: self.clients,
            workers: self.workers,
            vlans: self.vlans.clone(),
            tagger: match self.tagger {
                TaggedBy::Auto => Tagger::Auto,
                TaggedBy::Device => Tagger::Device,
                TaggedBy::Bpf => Tagger::Bpf,
            },
        }
    }

    /// Who belongs where, as the command line and the file say now.
    pub fn table(&self) -> Result<Table> {
        let settings = match &self.config {
            Some(path) => Settings::read(path)?,
            None => Settings {
                mapping: Mapping::of_pairs(&self.map)?,
                ..Settings::default()
            },
        };
        let mut netlink = Netlink::open()?;
        // What the command line says goes before what the file says.
        let trunk = self.trunk.as_ref().or(settings.trunk.as_ref());
        let trunk = trunk.ok_or_else(|| {
            Failure::Usage("the trunk is missing: --trunk IF, or trunk = \"IF\" in the file".into())
        })?;
        let trunk = interfaces::trunk(&preflight::find_interface(&mut netlink, trunk)?)?;
        let all = netlink.links()?;
        let placed = Placed::find(&settings.mapping, &trunk, &all)?;
        let unknown = self.unknown.as_ref().or(settings.unknown.as_ref());
        let unknown = match unknown {
            None | Some(Unknown::Pass) => Verdict::Pass,
            Some(Unknown::Drop) => Verdict::Drop,
            Some(Unknown::To(name)) => {
                let link = preflight::find_interface(&mut netlink, name)?;
                let above = preflight::standing_on(trunk.ifindex, &all);
                interfaces::check(&link, "where unknown frames go", &trunk, &above)?;
                Verdict::Redirect(Port::try_from(&link)?)
            }
        };
        Ok(Table {
            policy: Policy {
                unknown,
                untagged: self
                    .untagged
                    .or(settings.untagged)
                    .unwrap_or(Untagged::Pass)
                    .into(),
                no_move: self.no_move || settings.no_move.unwrap_or(false),
            },
            trunk,
            mapping: settings.mapping,
            placed,
        })
    }

    /// What to load on this trunk.
    pub fn setup(&self, trunk: Port) -> Setup {
        Setup {
            trunk,
            room: if self.simulated() {
                self.clients.into()
            } else {
                self.max_entries
            },
            hosts_too: !self.simulated(),
            dry_run: self.common.dry_run,
        }
    }
}

fn vlans(text: &str) -> Result<RangeInclusive<u16>, String> {
    let number = |text: &str| {
        let number: Option<u16> = text.trim().parse().ok();
        number.filter(|number| (1..=4094).contains(number))
    };
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    match (number(first), number(last)) {
        (Some(first), Some(last)) if first <= last => Ok(first..=last),
        _ => Err("VLANs are written as 2-17, and are from 1 to 4094".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(words: &[&str]) -> String {
        let words = std::iter::once("vlan_learning").chain(words.iter().copied());
        match Arguments::try_parse_from(words) {
            Ok(arguments) => arguments.check().unwrap_err().to_string(),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        assert!(refusal(&["--trunk", "eth0"]).contains("--map MAC=IF or --config FILE"));
        assert!(refusal(&["--exempt", "10.0.0.0/8"]).contains("--exempt means nothing"));
        assert!(refusal(&["--map", "02:00:00:00:00:01=a"]).contains("--trunk"));
        assert!(refusal(&["--vlans", "0-5"]).contains("from 1 to 4094"));
        assert!(refusal(&["--vlans", "9-5"]).contains("from 1 to 4094"));
        assert!(refusal(&["--map", "02=a", "--trunk", "b"]).contains("no MAC address"));
        assert!(refusal(&["--max-entries", "65537"]).contains("65537"));
    }

    #[test]
    fn vlans_are_one_or_a_range() {
        assert_eq!(vlans("2-17"), Ok(2..=17));
        assert_eq!(vlans("5"), Ok(5..=5));
        assert_eq!(vlans("4094-4094"), Ok(4094..=4094));
    }
}
