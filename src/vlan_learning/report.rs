//! What vlan_learning reports: the figures, as JSON lines and as a table.

use std::net::IpAddr;
use std::time::{Instant, SystemTime};

use anyhow::Result;
use serde::Serialize;

use super::demux::{Demux, Removed, Traffic, Volume};
use super::mapping::Mapping;
use super::metrics::Lasting;
use super::simulation::PROMPT;
use super::tags::Tags;
use crate::mac::Mac;
use crate::report::Printer;

/// Version of the JSON report; a field that changes its meaning makes a new one.
const SCHEMA: &str = "netbpf.vlan_learning/1";

/// The figures of one moment, counted from the start.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    pub(super) schema: &'static str,
    /// Seconds since 1970.
    pub(super) time: f64,
    /// Seconds since the start.
    pub(super) elapsed: f64,
    /// The last report of a run.
    pub(super) r#final: bool,
    pub(super) dry_run: bool,
    pub(super) trunk: String,
    /// By MAC address.
    pub(super) clients: Vec<Client>,
    pub(super) workers: Vec<WorkerReport>,
    /// Workers' interfaces that are not there.
    pub(super) absent: Vec<String>,
    /// MAC addresses that are not configured, the busiest first; of very many only the latest.
    pub(super) strangers: Vec<Stranger>,
    /// Clients that were taken out of the table.
    pub(super) removed: Removed,
    pub(super) events: Events,
    /// Reports that were left out because nobody took the ones before.
    pub(super) skipped_reports: u64,
}

#[derive(Clone, Debug, Serialize)]
pub(super) struct Client {
    pub(super) mac: Mac,
    /// Its address, where it is configured.
    pub(super) address: Option<IpAddr>,
    pub(super) worker: String,
    /// Null: it was not heard of.
    pub(super) vlan: Option<Tags>,
    /// Seconds since its last frame.
    pub(super) silent: Option<f64>,
    #[serde(flatten)]
    pub(super) traffic: Traffic,
    /// Its worker's broadcasts reach it.
    pub(super) gets_broadcasts: bool,
    /// How often it was in another VLAN than before.
    pub(super) moves: u32,
    /// Where it was before the last move.
    pub(super) moved_from: Option<Tags>,
    /// Frames that --no-move kept out.
    pub(super) refusals: u32,
    /// Where the last of them came from.
    pub(super) refused_from: Option<Tags>,
}

#[derive(Clone, Debug, Serialize)]
pub(super) struct WorkerReport {
    pub(super) worker: String,
    pub(super) clients: usize,
    /// Broadcasts and multicasts from the worker, each once.
    pub(super) broadcasts: Volume,
    /// Copies of them that went out, one for each VLAN.
    pub(super) copies: u64,
}

#[derive(Clone, Debug, Serialize)]
pub(super) struct Stranger {
    pub(super) mac: Mac,
    pub(super) vlan: Option<Tags>,
    pub(super) frames: u64,
    pub(super) silent: f64,
}

/// Frames that were not delivered, or not everywhere; `struct events` of the BPF program.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(super) struct Events {
    pub(super) untagged: u64,
    pub(super) unknown: u64,
    pub(super) malformed: u64,
    pub(super) moved: u64,
    pub(super) refused: u64,
    pub(super) outlets_full: u64,
    pub(super) to_unknown: u64,
    pub(super) to_unheard: u64,
    pub(super) to_host: u64,
    pub(super) nowhere: u64,
    pub(super) copies_lost: u64,
    pub(super) not_tagged_back: u64,
    pub(super) table_errors: u64,
}

/// Takes reports and prints them.
#[derive(Debug)]
pub struct Reporter {
    pub(super) printer: Printer,
    started: Instant,
    /// Series of metrics that outlive what they are about.
    pub(super) lasting: Lasting,
}

impl Reporter {
    /// Starts counting time now. To be made before privileges are dropped: see [`Printer::new`].
    pub fn new(json: bool) -> Reporter {
        Reporter {
            printer: Printer::new(json, PROMPT),
            started: Instant::now(),
            lasting: Lasting::default(),
        }
    }

    /// Prints what is counted so far.
    pub fn interim(&mut self, demux: &Demux<'_>, mapping: &Mapping) -> Result<()> {
        let report = self.take(demux, mapping, false)?;
        self.printer.interim(&report)
    }

    /// Prints the last word.
    pub fn conclude(&mut self, demux: &Demux<'_>, mapping: &Mapping) -> Result<()> {
        let report = self.take(demux, mapping, true)?;
        self.printer.conclude(&report)
    }

    fn take(&self, demux: &Demux<'_>, mapping: &Mapping, r#final: bool) -> Result<Report> {
        let time = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        let present: Vec<&str> = demux
            .workers()
            .map(|worker| worker.port.name.as_str())
            .collect();
        let absent = mapping.workers().filter(|name| !present.contains(name));
        Ok(Report {
            schema: SCHEMA,
            time: time.as_secs_f64(),
            elapsed: self.started.elapsed().as_secs_f64(),
            r#final,
            dry_run: demux.setup().dry_run,
            trunk: demux.setup().trunk.name.clone(),
            clients: clients(demux, mapping)?,
            workers: workers(demux)?,
            absent: absent.map(str::to_owned).collect(),
            strangers: strangers(demux)?,
            removed: demux.removed(),
            events: events(demux)?,
            skipped_reports: self.printer.skipped(),
        })
    }
}

/// Everybody that is configured, those too whose worker is not there.
fn clients(demux: &Demux<'_>, mapping: &Mapping) -> Result<Vec<Client>> {
    let mut clients = Vec::new();
    for (mac, entry) in &mapping.clients {
        let mut client = Client {
            mac: *mac,
            address: entry.address,
            worker: entry.worker.clone(),
            vlan: None,
            silent: None,
            traffic: Traffic::default(),
            gets_broadcasts: false,
            moves: 0,
            moved_from: None,
            refusals: 0,
            refused_from: None,
        };
        if let Some(member) = demux.roster().get(mac) {
            let state = demux.state_of(*member)?;
            let silence = demux.clock.since(state.seen).as_secs_f64();
            client.traffic = demux.traffic_of(*member)?;
            client.vlan = state.tags;
            client.silent = state.tags.map(|_| silence);
            client.gets_broadcasts = state.is_listed;
            client.moves = state.moves;
            client.moved_from = state.before;
            client.refusals = state.refusals;
            client.refused_from = state.refused;
        }
        clients.push(client);
    }
    Ok(clients)
}

fn workers(demux: &Demux<'_>) -> Result<Vec<WorkerReport>> {
    let report = |(worker, broadcasts, copies): (&super::Worker, Volume, u64)| WorkerReport {
        worker: worker.port.name.clone(),
        clients: demux.clients_of(worker.port.ifindex),
        broadcasts,
        copies,
    };
    Ok(demux.broadcasts()?.into_iter().map(report).collect())
}

fn strangers(demux: &Demux<'_>) -> Result<Vec<Stranger>> {
    let mut strangers: Vec<Stranger> = demux
        .strangers()?
        .into_iter()
        .map(|(mac, stranger)| Stranger {
            mac,
            vlan: Tags::from_word(stranger.tags),
            frames: stranger.packets,
            silent: demux.clock.since(stranger.seen).as_secs_f64(),
        })
        .collect();
    strangers.sort_by_key(|stranger| (std::cmp::Reverse(stranger.frames), stranger.mac));
    Ok(strangers)
}

pub(super) fn events(demux: &Demux<'_>) -> Result<Events> {
    let mut sum = Events::default();
    for cpu in demux.events()? {
        sum.untagged += cpu.untagged;
        sum.unknown += cpu.unknown;
        sum.malformed += cpu.malformed;
        sum.moved += cpu.moved;
        sum.refused += cpu.refused;
        sum.outlets_full += cpu.outlets_full;
        sum.to_unknown += cpu.to_unknown;
        sum.to_unheard += cpu.to_unheard;
        sum.to_host += cpu.to_host;
        sum.nowhere += cpu.nowhere;
        sum.copies_lost += cpu.copies_lost;
        sum.not_tagged_back += cpu.not_tagged_back;
        sum.table_errors += cpu.table_errors;
    }
    Ok(sum)
}
