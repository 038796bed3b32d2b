//! What neighbor_sharing reports: the figures, as JSON lines and as a table.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Instant, SystemTime};

use anyhow::Result;
use serde::Serialize;

use super::table::FIRST_SLOT;
use super::{Class, Counter, Forgotten, PerWay, Sharing, Way};
use crate::port::Port;
use crate::rate::Rate;
use crate::report::{PROMPT, Printer};

/// Version of the JSON report; a field that changes its meaning makes a new one.
const SCHEMA: &str = "netbpf.neighbor_sharing/1";

/// The figures of one moment, counted from the start.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    pub(super) schema: &'static str,
    /// Seconds since 1970.
    pub(super) time: f64,
    /// Seconds since the programs were attached.
    pub(super) elapsed: f64,
    /// Seconds that the rates were taken over.
    pub(super) interval: f64,
    /// The last report of a run.
    pub(super) r#final: bool,
    pub(super) dry_run: bool,
    pub(super) meters: Vec<Meter>,
    /// The busiest first.
    pub(super) addresses: Vec<Address>,
    /// Counted, but for no address: unknown ones, and what is not IP.
    pub(super) unattributed: PerWay<Counter>,
    pub(super) forgotten: Forgotten,
    pub(super) ports: Vec<PortReport>,
    /// A neighbor's share of the table is used up: unknown addresses count as this class.
    pub(super) unknown_counts_as: Class,
    pub(super) events: Events,
    /// Reports that were left out because nobody took the ones before.
    pub(super) skipped_reports: u64,
}

#[derive(Clone, Debug, Serialize)]
pub(super) struct Meter {
    pub(super) class: Class,
    pub(super) way: Way,
    /// Bits per second; null: not limited.
    pub(super) limit: Option<Rate>,
    /// Bits per second that passed in the interval.
    pub(super) passed_rate: f64,
    #[serde(flatten)]
    pub(super) total: Counter,
}

#[derive(Clone, Debug, Serialize)]
pub(super) struct Address {
    pub(super) address: IpAddr,
    pub(super) class: Class,
    pub(super) port: String,
    /// Seconds since its last packet.
    pub(super) silent: f64,
    #[serde(flatten)]
    pub(super) counts: PerWay<Counter>,
}

#[derive(Clone, Debug, Serialize)]
pub(super) struct PortReport {
    pub(super) port: String,
    pub(super) class: Class,
    pub(super) addresses: u64,
    pub(super) quota: u32,
}

/// Whatever was passed over, given up or lost; `struct events` of the BPF program.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(super) struct Events {
    pub(super) control: u64,
    pub(super) exempt: u64,
    pub(super) malformed: u64,
    pub(super) not_from_a_port: u64,
    pub(super) not_from_wan: u64,
    pub(super) lost_race: u64,
    pub(super) learned: u64,
    pub(super) moved: u64,
    pub(super) taken_over: u64,
    pub(super) claim_by_neighbor: u64,
    pub(super) claim_by_lan: u64,
    pub(super) neighbors_full: u64,
    pub(super) lan_full: u64,
    pub(super) outside_nets: u64,
    pub(super) unknown_while_full: u64,
    pub(super) tag_lost: u64,
    pub(super) table_errors: u64,
}

/// Takes reports and prints them.
#[derive(Debug)]
pub struct Reporter {
    pub(super) printer: Printer,
    started: Instant,
    last: Instant,
    last_bytes: HashMap<(Class, Way), u64>,
}

impl Reporter {
    /// Starts counting time now. To be made before privileges are dropped: see [`Printer::new`].
    pub fn new(json: bool) -> Reporter {
        let now = Instant::now();
        Reporter {
            printer: Printer::new(json, PROMPT),
            started: now,
            last: now,
            last_bytes: HashMap::new(),
        }
    }

    /// Prints what is counted so far.
    pub fn interim(&mut self, sharing: &Sharing<'_>) -> Result<()> {
        let report = self.take(sharing, false)?;
        self.printer.interim(&report)
    }

    /// Prints the last word.
    pub fn conclude(&mut self, sharing: &Sharing<'_>) -> Result<()> {
        // Rates over the whole run.
        self.last = self.started;
        self.last_bytes.clear();
        let report = self.take(sharing, true)?;
        self.printer.conclude(&report)
    }

    fn take(&mut self, sharing: &Sharing<'_>, r#final: bool) -> Result<Report> {
        let now = Instant::now();
        let interval = now - self.last;
        let mut meters = Vec::new();
        for class in [Class::Neighbor, Class::Rest] {
            for way in Way::ALL {
                let total = sharing.meter(class, way)?;
                let before = self
                    .last_bytes
                    .insert((class, way), total.bytes)
                    .unwrap_or(0);
                let bits = (total.bytes - before) as f64 * 8.0;
                let passed_rate = bits / interval.as_secs_f64().max(f64::EPSILON);
                let limit = sharing
                    .config()
                    .limits
                    .get(&(class, way))
                    .map(|(rate, _)| *rate);
                meters.push(Meter {
                    class,
                    way,
                    limit,
                    passed_rate,
                    total,
                });
            }
        }
        self.last = now;
        let time = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        Ok(Report {
            schema: SCHEMA,
            time: time.as_secs_f64(),
            elapsed: (now - self.started).as_secs_f64(),
            interval: interval.as_secs_f64(),
            r#final,
            dry_run: sharing.config().dry_run,
            meters,
            addresses: addresses(sharing)?,
            unattributed: unattributed(sharing)?,
            forgotten: sharing.forgotten,
            ports: ports(sharing)?,
            unknown_counts_as: sharing.unknown_counts_as(),
            events: events(sharing)?,
            skipped_reports: self.printer.skipped(),
        })
    }
}

fn addresses(sharing: &Sharing<'_>) -> Result<Vec<Address>> {
    let names: HashMap<u32, &str> = sharing
        .config()
        .ports()
        .map(|(port, _)| (port.ifindex, port.name.as_str()))
        .collect();
    let table = sharing.table();
    let mut addresses = Vec::new();
    for learned in table.addresses()? {
        addresses.push(Address {
            address: learned.ip,
            class: Class::ALL[usize::from(learned.class).min(1)],
            port: names
                .get(&learned.port)
                .map_or_else(String::new, |name| (*name).to_owned()),
            silent: sharing.clock.since(learned.seen).as_secs_f64(),
            counts: table.counts(&learned)?,
        });
    }
    addresses.sort_by_key(|address| (std::cmp::Reverse(address.traffic()), address.address));
    Ok(addresses)
}

impl Address {
    fn traffic(&self) -> u64 {
        let PerWay { download, upload } = self.counts;
        [download, upload]
            .iter()
            .map(|counter| counter.bytes + counter.dropped_bytes)
            .sum()
    }
}

pub(super) fn unattributed(sharing: &Sharing<'_>) -> Result<PerWay<Counter>> {
    let mut sum = PerWay::default();
    for slot in 0..FIRST_SLOT {
        sum += sharing.table().counts_in(slot)?;
    }
    Ok(sum)
}

pub(super) fn ports(sharing: &Sharing<'_>) -> Result<Vec<PortReport>> {
    let quota = sharing.config().quota();
    let row = |(index, (port, class)): (u32, (&Port, Class))| {
        let addresses = sharing.table().owned_by(index)?;
        Ok(PortReport {
            port: port.name.clone(),
            class,
            addresses,
            quota,
        })
    };
    (0..).zip(sharing.config().ports()).map(row).collect()
}

pub(super) fn events(sharing: &Sharing<'_>) -> Result<Events> {
    let mut sum = Events::default();
    for cpu in sharing.events()? {
        sum.control += cpu.control;
        sum.exempt += cpu.exempt;
        sum.malformed += cpu.malformed;
        sum.not_from_a_port += cpu.not_from_a_port;
        sum.not_from_wan += cpu.not_from_wan;
        sum.lost_race += cpu.lost_race;
        sum.learned += cpu.learned;
        sum.moved += cpu.moved;
        sum.taken_over += cpu.taken_over;
        sum.claim_by_neighbor += cpu.claim_by_neighbor;
        sum.claim_by_lan += cpu.claim_by_lan;
        sum.neighbors_full += cpu.neighbors_full;
        sum.lan_full += cpu.lan_full;
        sum.outside_nets += cpu.outside_nets;
        sum.unknown_while_full += cpu.unknown_while_full;
        sum.tag_lost += cpu.tag_lost;
        sum.table_errors += cpu.table_errors;
    }
    Ok(sum)
}
