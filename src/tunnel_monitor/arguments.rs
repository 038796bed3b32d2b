//! The command line of tunnel_monitor, and what it configures.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use anyhow::Result;
use clap::{Parser, Subcommand};
use netsetup::topology::tunnel_monitor::Plan;

use super::monitor::{MOST_FLOWS, MOST_VXLAN_PORTS, Setup};
use super::top::TopArguments;
use super::traffic::TrafficArguments;
use crate::Failure;
use crate::http::HostName;
use crate::options::Common;
use crate::privilege::Cap;
use crate::rate;
use crate::session;

/// The window that deltas are over, where `--interval` says nothing; the original's.
pub(super) const WINDOW: Duration = Duration::from_secs(5);
/// Samples are taken this often.
const BEAT: Duration = Duration::from_secs(1);
/// What all tools say names fractions of a second, too; here a sample is taken each second.
const INTERVAL: &str = "Report this often, in whole seconds, e.g. 2s; deltas are over the same time \
                        [default: only at the end; deltas are over 5s]";
/// The original's port of HTTP.
const HTTP: u16 = 8080;

/// Shows who talks to whom through tunnels: packets and bytes by outer and inner addresses and network
/// number, of VXLAN, Geneve, GRE and IP in IP.
///
/// Without --iface it builds a network to try it in: hosts in namespaces, connected by VXLAN, and monitors
/// the first one. Enter ends it and undoes everything.
#[derive(Parser, Clone, Debug)]
#[command(
    name = "tunnel_monitor",
    version,
    max_term_width = 100,
    args_conflicts_with_subcommands = true
)]
#[command(mut_arg("exempt", |it| it.hide(true)), mut_arg("dry_run", |it| it.hide(true)),
          mut_arg("confirm", |it| it.hide(true)))]
#[command(mut_arg("interval", |it| it.help(INTERVAL)))]
pub struct Arguments {
    /// What else to do than to monitor.
    #[command(subcommand)]
    pub command: Option<Command>,

    /// Hosts of the simulation
    #[arg(long, value_name = "N", default_value_t = 9, conflicts_with = "iface")]
    pub hosts: u16,

    /// Virtual networks of the simulation
    #[arg(long, value_name = "N", default_value_t = 4, conflicts_with = "iface")]
    pub vnis: u16,

    /// How to monitor, and where the figures go.
    #[command(flatten)]
    pub monitoring: Monitoring,

    /// Where HTTP listens, or off [default: 127.0.0.1:8080; in the simulation 0.0.0.0:8080, as the
    /// original]
    #[arg(long, value_name = "ADDR:PORT")]
    pub listen: Option<Listen>,

    /// Names by which HTTP may be asked for this host, beside its addresses and its own name
    #[arg(long, value_name = "NAME", num_args = 1..)]
    pub allow_host: Vec<HostName>,

    /// Write tunnel.json and tunnel-delta.json into this folder too
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,

    /// What every tool has.
    #[command(flatten)]
    pub common: Common,
}

/// What is monitored, and how.
#[derive(clap::Args, Clone, Debug)]
pub struct Monitoring {
    /// The interfaces (names or globs), those that appear later too
    #[arg(long, value_name = "IF", num_args = 1..)]
    pub iface: Vec<String>,

    /// UDP ports of VXLAN
    #[arg(long, value_name = "PORT", value_delimiter = ',', default_value = "4789",
          value_parser = clap::value_parser!(u16).range(1..))]
    pub port: Vec<u16>,

    /// Read the keys of GRE that carries Ethernet as NVGRE does: 24 bits are the network, 8 tell flows apart
    #[arg(long)]
    pub nvgre: bool,

    /// Also count what is sent to all or to many: floods and multicast of the tunnels
    #[arg(long)]
    pub multicast: bool,

    /// Flows that can be known at a time
    #[arg(long, value_name = "N", default_value_t = 65536,
          value_parser = clap::value_parser!(u32).range(1..=i64::from(MOST_FLOWS)))]
    pub max_entries: u32,

    /// Take a flow out of the table when nothing came for so long, two intervals or more; it stays in the
    /// sum of the forgotten
    #[arg(long, value_name = "TIME", value_parser = rate::seconds, default_value = "300s")]
    pub forget_after: Duration,
}

/// What else there is to do.
#[derive(Subcommand, Clone, Debug)]
pub enum Command {
    /// Send traffic through the tunnels of a running simulation
    Traffic(TrafficArguments),
    /// Show the flows live on this terminal
    Top(TopArguments),
}

/// Where HTTP listens, if it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listen {
    /// Nowhere.
    Off,
    /// There.
    At(SocketAddr),
}

impl FromStr for Listen {
    type Err = String;

    fn from_str(text: &str) -> Result<Listen, String> {
        if text == "off" {
            return Ok(Listen::Off);
        }
        match text.parse() {
            Ok(address) => Ok(Listen::At(address)),
            Err(_) => Err("give an address and a port, as in 127.0.0.1:8080, or off".into()),
        }
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Listen::Off => f.write_str("off"),
            Listen::At(address) => address.fmt(f),
        }
    }
}

impl Monitoring {
    /// What the BPF programs are told.
    pub fn setup(&self) -> Setup {
        Setup {
            ports: self.port.clone(),
            nvgre: self.nvgre,
            multicast: self.multicast,
            max_entries: self.max_entries,
        }
    }

    pub(super) fn check(&self, window: Duration) -> Result<(), Failure> {
        if self.port.len() > MOST_VXLAN_PORTS {
            let text = format!("--port takes {MOST_VXLAN_PORTS} ports at most");
            return Err(Failure::Usage(text));
        }
        if self.forget_after < 2 * window {
            let least = 2 * window.as_secs();
            return Err(Failure::Usage(format!(
                "--forget-after must be two intervals or more, {least}s: a flow has to be in the deltas \
                 before it is forgotten"
            )));
        }
        Ok(())
    }
}

impl Arguments {
    /// What the kernel asks for where nothing is built: CAP_PERFMON because the verifier lets nobody else
    /// add a variable to a packet pointer.
    pub const NEEDED_ON_INTERFACES: &[Cap] = &[Cap::Bpf, Cap::Perfmon, Cap::NetAdmin];

    /// Without an interface the simulation is meant.
    pub fn simulated(&self) -> bool {
        self.monitoring.iface.is_empty()
    }

    /// What is built for the simulation.
    pub fn plan(&self) -> Plan {
        Plan {
            hosts: self.hosts,
            vnis: self.vnis,
        }
    }

    /// What deltas are over.
    pub fn window(&self) -> Duration {
        self.common.interval.unwrap_or(WINDOW)
    }

    /// Where HTTP listens.
    pub fn listen(&self) -> Option<SocketAddr> {
        let default = if self.simulated() {
            Ipv4Addr::UNSPECIFIED
        } else {
            Ipv4Addr::LOCALHOST
        };
        match self.listen {
            None => Some((default, HTTP).into()),
            Some(Listen::Off) => None,
            Some(Listen::At(address)) => Some(address),
        }
    }

    /// What ends the run, and how often it wakes. The window is a number of beats, so ticks are not asked
    /// for.
    pub fn session(&self) -> session::Options {
        session::Options {
            seconds: true,
            interval: None,
            ..self.common.session()
        }
    }

    /// What the kernel asks for.
    pub fn capabilities(&self) -> &'static [Cap] {
        if self.simulated() {
            &[Cap::Bpf, Cap::Perfmon, Cap::NetAdmin, Cap::SysAdmin]
        } else {
            Arguments::NEEDED_ON_INTERFACES
        }
    }

    /// Refuses what cannot be meant, before anything is changed.
    pub fn check(&self) -> Result<(), Failure> {
        let refuse = |text: &str| Err(Failure::Usage(text.into()));
        if !self.common.exempt.is_empty() || self.common.dry_run || self.common.confirm.is_some() {
            return refuse(
                "nothing is dropped here, so --exempt, --dry-run and --confirm mean nothing",
            );
        }
        let window = self.window();
        if window < BEAT || window.subsec_nanos() != 0 {
            return refuse(
                "--interval is a number of whole seconds: a sample is taken each second",
            );
        }
        self.monitoring.check(window)?;
        if self.simulated() {
            return self.plan().check();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn refusal(line: &str) -> String {
        let words = ["tunnel_monitor"]
            .into_iter()
            .chain(line.split_whitespace());
        match Arguments::try_parse_from(words) {
            Ok(arguments) => arguments.check().unwrap_err().to_string(),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn what_cannot_be_meant_is_refused_in_words() {
        for (line, words) in [
            ("--dry-run", "nothing is dropped here"),
            ("--interval 500ms", "whole seconds"),
            ("--interval 1.5s", "whole seconds"),
            ("--interval 10s --forget-after 19s", "20s"),
            ("--port 0", "0"),
            ("--port 1,2,3,4,5,6,7,8,9", "8 ports at most"),
            ("--hosts 3 --iface eth0", "cannot be used with"),
            ("--listen localhost", "an address and a port"),
            ("--hosts 0", "host"),
        ] {
            let said = refusal(line);
            assert!(said.contains(words), "{line}: {said}");
        }
    }

    #[test]
    fn intervals_that_the_help_names_are_taken() {
        let command = Arguments::command();
        let mut options = command.get_arguments();
        let option = options.find(|it| it.get_id() == "interval").unwrap();
        let help = option.get_help().unwrap().to_string();
        let words = help.split_whitespace();
        let words = words.map(|word| word.trim_end_matches(|it: char| !it.is_alphanumeric()));
        let times: Vec<_> = words.filter(|word| rate::seconds(word).is_ok()).collect();
        assert!(!times.is_empty(), "{help}");
        for time in times {
            let arguments = Arguments::parse_from(["tunnel_monitor", "--interval", time]);
            arguments
                .check()
                .unwrap_or_else(|error| panic!("{time}: {error}"));
        }
    }

    #[test]
    fn http_is_for_all_in_the_simulation_only() {
        let listen = |line: &str| {
            let words = ["tunnel_monitor"]
                .into_iter()
                .chain(line.split_whitespace());
            let listen = Arguments::parse_from(words).listen();
            listen.map_or_else(|| "off".into(), |address| address.to_string())
        };
        assert_eq!(listen(""), "0.0.0.0:8080");
        assert_eq!(listen("--iface eth0"), "127.0.0.1:8080");
        assert_eq!(listen("--iface eth0 --listen off"), "off");
        assert_eq!(listen("--listen [::1]:80"), "[::1]:80");
    }
}
