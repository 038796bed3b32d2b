//! What neighbor_sharing reports: the figures, as JSON lines and as a table.

use std::collections::HashMap;
use std::fmt;
use std::io::{self, Write as _};
use std::net::IpAddr;
use std::time::{Duration, Instant, SystemTime};

use anyhow::Result;
use serde::Serialize;

use super::table::FIRST_SLOT;
use super::{Class, Counter, Forgotten, PerWay, Sharing, Way};
use crate::rate::Rate;
use crate::screen::Screen;

/// Version of the JSON report; a field that changes its meaning makes a new one.
const SCHEMA: &str = "netbpf.neighbor_sharing/1";
/// How a run is ended, said wherever it waits for that.
pub const PROMPT: &str = "Press enter when finished: ";
/// Addresses in the table on the terminal; the JSON report has all of them.
const TOP: usize = 10;

/// The figures of one moment, counted from the start.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    schema: &'static str,
    /// Seconds since 1970.
    time: f64,
    /// Seconds since the programs were attached.
    elapsed: f64,
    /// Seconds that the rates were taken over.
    interval: f64,
    /// The last report of a run.
    r#final: bool,
    dry_run: bool,
    meters: Vec<Meter>,
    /// The busiest first.
    addresses: Vec<Address>,
    /// Counted, but for no address: unknown ones, and what is not IP.
    unattributed: PerWay<Counter>,
    forgotten: Forgotten,
    ports: Vec<PortReport>,
    /// A neighbor's share of the table is used up: unknown addresses count as this class.
    unknown_counts_as: Class,
    events: Events,
}

#[derive(Clone, Debug, Serialize)]
struct Meter {
    class: Class,
    way: Way,
    /// Bits per second; null: not limited.
    limit: Option<Rate>,
    /// Bits per second that passed in the interval.
    passed_rate: f64,
    #[serde(flatten)]
    total: Counter,
}

#[derive(Clone, Debug, Serialize)]
struct Address {
    address: IpAddr,
    class: Class,
    port: String,
    /// Seconds since its last packet.
    silent: f64,
    #[serde(flatten)]
    counts: PerWay<Counter>,
}

#[derive(Clone, Debug, Serialize)]
struct PortReport {
    port: String,
    class: Class,
    addresses: u64,
    quota: u32,
}

/// Whatever was passed over, given up or lost; `struct events` of the BPF program.
#[derive(Clone, Copy, Debug, Default, Serialize)]
struct Events {
    control: u64,
    exempt: u64,
    malformed: u64,
    not_from_a_port: u64,
    lost_race: u64,
    learned: u64,
    moved: u64,
    taken_over: u64,
    claim_by_neighbor: u64,
    claim_by_lan: u64,
    neighbors_full: u64,
    lan_full: u64,
    outside_nets: u64,
    unknown_while_full: u64,
}

/// Takes reports and prints them.
#[derive(Debug)]
pub struct Reporter {
    json: bool,
    screen: Screen,
    started: Instant,
    last: Instant,
    last_bytes: HashMap<(Class, Way), u64>,
}

impl Reporter {
    /// Starts counting time now.
    pub fn new(json: bool) -> Reporter {
        let now = Instant::now();
        let screen = Screen::stdout();
        Reporter {
            json,
            screen,
            started: now,
            last: now,
            last_bytes: HashMap::new(),
        }
    }

    /// Prints what is counted so far.
    pub fn interim(&mut self, sharing: &Sharing<'_>) -> Result<()> {
        let report = self.take(sharing, false)?;
        if self.json {
            print_line(&report)?;
        } else {
            self.screen.draw(&report.to_string(), PROMPT)?;
        }
        Ok(())
    }

    /// Prints the last word.
    pub fn conclude(&mut self, sharing: &Sharing<'_>) -> Result<()> {
        // Rates over the whole run.
        self.last = self.started;
        self.last_bytes.clear();
        let report = self.take(sharing, true)?;
        if self.json {
            print_line(&report)?;
        } else {
            self.screen.conclude(&report.to_string())?;
        }
        Ok(())
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
                    .config
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
            dry_run: sharing.config.dry_run,
            meters,
            addresses: addresses(sharing)?,
            unattributed: unattributed(sharing)?,
            forgotten: sharing.forgotten,
            ports: ports(sharing)?,
            unknown_counts_as: if sharing.neighbors_are_full() && !sharing.config.lan.is_empty() {
                Class::Neighbor
            } else {
                Class::Rest
            },
            events: events(sharing)?,
        })
    }
}

fn print_line(report: &Report) -> Result<()> {
    let mut out = io::stdout().lock();
    serde_json::to_writer(&mut out, report)?;
    writeln!(out)?;
    Ok(())
}

fn addresses(sharing: &Sharing<'_>) -> Result<Vec<Address>> {
    let names: HashMap<u32, &str> = sharing
        .config
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
            silent: sharing.clock.silence(&learned).as_secs_f64(),
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

fn unattributed(sharing: &Sharing<'_>) -> Result<PerWay<Counter>> {
    let mut sum = PerWay::default();
    for slot in 0..FIRST_SLOT {
        sum += sharing.table().counts_in(slot)?;
    }
    Ok(sum)
}

fn ports(sharing: &Sharing<'_>) -> Result<Vec<PortReport>> {
    let quota = sharing.config.quota();
    let row = |(index, (port, class)): (u32, (&super::Port, Class))| {
        let addresses = sharing.table().owned_by(index)?;
        Ok(PortReport {
            port: port.name.clone(),
            class,
            addresses,
            quota,
        })
    };
    (0..).zip(sharing.config.ports()).map(row).collect()
}

fn events(sharing: &Sharing<'_>) -> Result<Events> {
    let mut sum = Events::default();
    for cpu in sharing.events()? {
        sum.control += cpu.control;
        sum.exempt += cpu.exempt;
        sum.malformed += cpu.malformed;
        sum.not_from_a_port += cpu.not_from_a_port;
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
    }
    Ok(sum)
}

impl Events {
    /// What a reader should know of, in his words. What is ordinary is left to the JSON report.
    fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        let mut note = |count: u64, text: &str| {
            if count > 0 {
                notes.push(format!("{} {text}", grouped(count)));
            }
        };
        note(
            self.lost_race,
            "packets dropped because other CPUs were quicker at the bucket",
        );
        note(
            self.claim_by_neighbor,
            "packets of neighbors with an address of the LAN",
        );
        note(
            self.claim_by_lan,
            "packets of the LAN with an address of a neighbor",
        );
        note(
            self.taken_over,
            "addresses went to the other class after a long silence",
        );
        note(
            self.neighbors_full,
            "addresses of neighbors not learned: their share is used up",
        );
        note(
            self.lan_full,
            "addresses of the LAN not learned: their share is used up",
        );
        note(
            self.outside_nets,
            "packets on the wrong side of --neighbor-net",
        );
        note(
            self.unknown_while_full,
            "packets to unknown addresses while neighbors' share was full",
        );
        note(self.malformed, "packets that could not be parsed");
        note(self.exempt, "packets exempt");
        notes
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let dropped = if self.dry_run {
            "would drop"
        } else {
            "dropped"
        };
        let (seconds, span) = (self.elapsed, self.interval);
        let last = if self.r#final {
            "in all".to_owned()
        } else {
            format!("last {span:.1} s")
        };
        writeln!(
            f,
            "{seconds:.1} s; rates: {last}; packets are wire segments, bytes L2 frames"
        )?;
        writeln!(
            f,
            "{:<9} {:<9} {:>9} {:>11} {:>12} {:>10} {:>12} {:>10}",
            "class", "way", "limit", "rate", "packets", "bytes", dropped, "bytes"
        )?;
        for meter in &self.meters {
            let limit = meter
                .limit
                .map_or_else(|| "none".to_owned(), |rate| rate.to_string());
            writeln!(
                f,
                "{:<9} {:<9} {:>9} {:>11} {:>12} {:>10} {:>12} {:>10}",
                meter.class.name(),
                meter.way.name(),
                limit,
                bits_per_second(meter.passed_rate),
                grouped(meter.total.packets),
                bytes(meter.total.bytes),
                grouped(meter.total.dropped_packets),
                bytes(meter.total.dropped_bytes),
            )?;
        }
        self.write_addresses(f, dropped)?;
        if self.forgotten.addresses > 0 {
            writeln!(
                f,
                "{} addresses forgotten after silence",
                grouped(self.forgotten.addresses)
            )?;
        }
        for port in &self.ports {
            if port.addresses * 10 >= u64::from(port.quota) * 9 {
                let PortReport {
                    port,
                    addresses,
                    quota,
                    ..
                } = port;
                writeln!(
                    f,
                    "{port} owns {addresses} addresses of the {quota} that it may"
                )?;
            }
        }
        for note in self.events.notes() {
            writeln!(f, "{note}")?;
        }
        Ok(())
    }
}

impl Report {
    fn write_addresses(&self, f: &mut fmt::Formatter<'_>, dropped: &str) -> fmt::Result {
        if self.addresses.is_empty() {
            return writeln!(f, "no address learned yet");
        }
        writeln!(
            f,
            "{:<25} {:<9} {:<15} {:>9} {:>10} {:>9} {:>10} {:>6}",
            "address", "class", "port", "download", dropped, "upload", dropped, "silent"
        )?;
        for address in self.addresses.iter().take(TOP) {
            let PerWay { download, upload } = address.counts;
            writeln!(
                f,
                "{:<25} {:<9} {:<15} {:>9} {:>10} {:>9} {:>10} {:>6}",
                address.address.to_string(),
                address.class.name(),
                address.port,
                bytes(download.bytes),
                bytes(download.dropped_bytes),
                bytes(upload.bytes),
                bytes(upload.dropped_bytes),
                span(Duration::from_secs_f64(address.silent)),
            )?;
        }
        match self.addresses.len().saturating_sub(TOP) {
            0 => Ok(()),
            more => writeln!(f, "and {} addresses more", grouped(more as u64)),
        }
    }
}

impl Class {
    fn name(self) -> &'static str {
        match self {
            Class::Rest => "rest",
            Class::Neighbor => "neighbor",
        }
    }
}

impl Way {
    fn name(self) -> &'static str {
        match self {
            Way::Download => "download",
            Way::Upload => "upload",
        }
    }
}

/// 1234567 as "1,234,567".
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn bytes(count: u64) -> String {
    scaled(count as f64, "B")
}

fn bits_per_second(rate: f64) -> String {
    scaled(rate, "bit/s")
}

/// Three digits and a prefix of thousands.
fn scaled(mut value: f64, unit: &str) -> String {
    let mut prefix = "";
    for next in ["k", "M", "G", "T", "P"] {
        if value < 999.5 {
            break;
        }
        value /= 1000.0;
        prefix = next;
    }
    let decimals = match value {
        _ if prefix.is_empty() => 0,
        ..9.995 => 2,
        ..99.95 => 1,
        _ => 0,
    };
    format!("{value:.decimals$} {prefix}{unit}")
}

fn span(time: Duration) -> String {
    match time.as_secs() {
        seconds @ 0..120 => format!("{seconds}s"),
        seconds @ 120..7200 => format!("{}m", seconds / 60),
        seconds => format!("{}h", seconds / 3600),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_for_readers() {
        let cases = [
            (0, "0"),
            (999, "999"),
            (1000, "1,000"),
            (1_234_567, "1,234,567"),
        ];
        assert!(cases.iter().all(|(number, text)| grouped(*number) == *text));
        assert_eq!(bits_per_second(127_900.0), "128 kbit/s");
        assert_eq!(bits_per_second(1_024_000.0), "1.02 Mbit/s");
        assert_eq!(bytes(0), "0 B");
        assert_eq!(bytes(999_600), "1.00 MB");
    }
}
