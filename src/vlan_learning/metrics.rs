//! What vlan_learning tells Prometheus. Clients and workers have series of their own, up to a bound.

use std::collections::HashMap;
use std::hash::Hash;
use std::ops::{AddAssign, Bound};

use anyhow::Result;

use super::Reporter;
use super::demux::{Demux, Traffic, Volume};
use super::mapping::Mapping;
use super::report::{self, Events};
use super::roster::Member;
use crate::mac::Mac;
use crate::metrics::{Figures, Kept, MOST_KEPT, OTHER};

/// Clients without a series of their own that are looked at each second, one after the other: a look is
/// a system call, and there may be 65,536 of them.
const OTHERS_AT_A_TIME: usize = 1024;

/// What clients and workers have come to; they go and come back, their series stay.
#[derive(Debug, Default)]
pub(super) struct Lasting {
    clients: Series<Mac, Traffic>,
    workers: Series<String, Broadcasts>,
    /// The last of the other clients that was looked at.
    last_other: Option<Mac>,
}

/// Growing figures that may begin anew, made into ones that only grow.
#[derive(Debug)]
struct Series<K, V> {
    kept: Kept<K, V>,
    /// What each had come to at the last look.
    seen: HashMap<K, V>,
}

impl<K, V: Default> Default for Series<K, V> {
    fn default() -> Series<K, V> {
        Series {
            kept: Kept::default(),
            seen: HashMap::new(),
        }
    }
}

/// What can be taken from a later figure of its kind.
trait Since: Copy + Default + AddAssign {
    /// `None`: some of it is less than before.
    fn since(self, earlier: Self) -> Option<Self>;
}

impl<K: Clone + Eq + Hash, V: Since> Series<K, V> {
    fn look(&mut self, key: &K, now: V) {
        let before = self.seen.insert(key.clone(), now).unwrap_or_default();
        // Who has less than before was gone, and begins anew.
        let more = now.since(before).unwrap_or(now);
        let place = self.kept.place(key);
        self.kept.add(place, more);
    }

    /// All of them, and what the others have come to.
    fn all(&self) -> impl Iterator<Item = (Option<&K>, &V)> {
        let own = self.kept.series().map(|(key, value)| (Some(key), value));
        own.chain([(None, self.kept.other())])
    }
}

/// From a worker to all its clients.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Broadcasts {
    each_once: Volume,
    copies: u64,
}

impl Since for Volume {
    fn since(self, earlier: Volume) -> Option<Volume> {
        Some(Volume {
            packets: self.packets.checked_sub(earlier.packets)?,
            bytes: self.bytes.checked_sub(earlier.bytes)?,
        })
    }
}

impl Since for Traffic {
    fn since(self, earlier: Traffic) -> Option<Traffic> {
        Some(Traffic {
            rx: self.rx.since(earlier.rx)?,
            tx: self.tx.since(earlier.tx)?,
        })
    }
}

impl AddAssign for Traffic {
    fn add_assign(&mut self, other: Traffic) {
        self.rx += other.rx;
        self.tx += other.tx;
    }
}

impl Since for Broadcasts {
    fn since(self, earlier: Broadcasts) -> Option<Broadcasts> {
        Some(Broadcasts {
            each_once: self.each_once.since(earlier.each_once)?,
            copies: self.copies.checked_sub(earlier.copies)?,
        })
    }
}

impl AddAssign for Broadcasts {
    fn add_assign(&mut self, other: Broadcasts) {
        self.each_once += other.each_once;
        self.copies += other.copies;
    }
}

impl Lasting {
    fn look(&mut self, demux: &Demux<'_>) -> Result<()> {
        for (worker, each_once, copies) in demux.broadcasts()? {
            let now = Broadcasts { each_once, copies };
            self.workers.look(&worker.port.name, now);
        }
        self.look_at_clients(demux)
    }

    fn look_at_clients(&mut self, demux: &Demux<'_>) -> Result<()> {
        let roster = demux.roster();
        // Who is gone begins anew when he comes back.
        self.clients.seen.retain(|mac, _| roster.contains_key(mac));
        if roster.len() <= MOST_KEPT + OTHERS_AT_A_TIME {
            return self.look_at(demux, roster.iter());
        }
        let kept: Vec<Mac> = self.clients.kept.series().map(|(mac, _)| *mac).collect();
        self.look_at(
            demux,
            kept.iter().filter_map(|mac| roster.get_key_value(mac)),
        )?;
        let after = self.last_other.map_or(Bound::Unbounded, Bound::Excluded);
        let others: Vec<(Mac, Member)> = roster
            .range((after, Bound::Unbounded))
            .filter(|(mac, _)| !self.clients.kept.has(mac))
            .take(OTHERS_AT_A_TIME)
            .map(|(mac, member)| (*mac, *member))
            .collect();
        // From the beginning again after the last one.
        self.last_other = others.last().map(|(mac, _)| *mac);
        self.look_at(demux, others.iter().map(|(mac, member)| (mac, member)))
    }

    fn look_at<'c>(
        &mut self,
        demux: &Demux<'_>,
        clients: impl Iterator<Item = (&'c Mac, &'c Member)>,
    ) -> Result<()> {
        for (mac, member) in clients {
            self.clients.look(mac, demux.traffic_of(*member)?);
        }
        Ok(())
    }
}

impl Reporter {
    /// The figures of now. What a client has received or sent after the last look and before it was taken
    /// out of the table is among the removed only.
    pub fn figures(&mut self, demux: &Demux<'_>, mapping: &Mapping) -> Result<Figures> {
        self.lasting.look(demux)?;
        let mut figures = Figures::default();
        self.lasting.clients(&mut figures);
        self.lasting.workers(&mut figures);
        table(&mut figures, demux, mapping);
        removed(&mut figures, demux);
        events(&mut figures, report::events(demux)?);
        let help = "1: what would be dropped passes.";
        let dry_run = demux.setup().dry_run;
        figures.gauge("dry_run", "", help).is(dry_run.into());
        figures.skipped_reports(self.printer.skipped());
        Ok(figures)
    }
}

impl Lasting {
    fn clients(&self, figures: &mut Figures) {
        let mut family = |unit, help, value: fn(&Volume) -> u64| {
            let family = figures.counter("client", unit, help);
            for (mac, Traffic { rx, tx }) in self.clients.all() {
                let client = mac.map_or_else(|| OTHER.to_owned(), Mac::to_string);
                let client = ("client", client.as_str());
                family.of([client, ("direction", "rx")], value(rx));
                family.of([client, ("direction", "tx")], value(tx));
            }
        };
        let help =
            "Packets (wire segments) from a client (rx) and to it (tx), broadcasts to it apart.";
        family("packets", help, |it| it.packets);
        let help = "Bytes (Ethernet frames without FCS and tags) from a client (rx) and to it (tx), \
                    broadcasts to it apart.";
        family("bytes", help, |it| it.bytes);
    }

    fn workers(&self, figures: &mut Figures) {
        let mut family = |name, unit, help, value: fn(&Broadcasts) -> u64| {
            let family = figures.counter(name, unit, help);
            for (worker, broadcasts) in self.workers.all() {
                let worker = worker.map_or(OTHER, String::as_str);
                family.of([("worker", worker)], value(broadcasts));
            }
        };
        let help = "Broadcasts and multicasts from a worker to its clients, each once.";
        family("broadcast", "packets", help, |it| it.each_once.packets);
        let help = "Their bytes, each once.";
        family("broadcast", "bytes", help, |it| it.each_once.bytes);
        let help = "Copies of them that went out, one for each VLAN.";
        family("broadcast", "copies", help, |it| it.copies);
    }
}

fn table(figures: &mut Figures, demux: &Demux<'_>, mapping: &Mapping) {
    let clients = demux.roster().len() as u64;
    let help = "Clients that are configured and whose worker's interface is there.";
    figures.gauge("table", "clients", help).is(clients);
    let help = "Clients that there is room for (--max-entries).";
    let room = demux.setup().room.into();
    figures.gauge("capacity", "clients", help).is(room);
    let present: Vec<&str> = demux
        .workers()
        .map(|worker| worker.port.name.as_str())
        .collect();
    let help = "Workers that have clients.";
    figures
        .gauge("attached", "workers", help)
        .is(present.len() as u64);
    let absent = mapping.workers().filter(|name| !present.contains(name));
    let help = "Workers whose interfaces are not there.";
    figures
        .gauge("absent", "workers", help)
        .is(absent.count() as u64);
}

fn removed(figures: &mut Figures, demux: &Demux<'_>) {
    let removed = demux.removed();
    let help = "Clients that were taken out of the table.";
    figures
        .counter("removed", "clients", help)
        .is(removed.clients);
    let Traffic { rx, tx } = removed.traffic;
    let help = "Packets that were counted for them.";
    figures
        .counter("removed", "packets", help)
        .of([("direction", "rx")], rx.packets)
        .of([("direction", "tx")], tx.packets);
    let help = "Bytes that were counted for them.";
    figures
        .counter("removed", "bytes", help)
        .of([("direction", "rx")], rx.bytes)
        .of([("direction", "tx")], tx.bytes);
}

fn events(figures: &mut Figures, events: Events) {
    let help = "Frames that were not delivered, or not everywhere, and clients that moved; \
                docs/vlan_learning.md explains each.";
    let family = figures.counter("", "events", help);
    let Events {
        untagged,
        unknown,
        malformed,
        moved,
        refused,
        outlets_full,
        to_unknown,
        to_unheard,
        to_host,
        nowhere,
        copies_lost,
        not_tagged_back,
        table_errors,
    } = events;
    for (event, count) in [
        ("untagged", untagged),
        ("unknown", unknown),
        ("malformed", malformed),
        ("moved", moved),
        ("refused", refused),
        ("outlets_full", outlets_full),
        ("to_unknown", to_unknown),
        ("to_unheard", to_unheard),
        ("to_host", to_host),
        ("nowhere", nowhere),
        ("copies_lost", copies_lost),
        ("not_tagged_back", not_tagged_back),
        ("table_errors", table_errors),
    ] {
        family.of([("event", event)], count);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_that_begins_anew_goes_on_in_its_series() {
        let volume = |packets| Volume {
            packets,
            bytes: 60 * packets,
        };
        let mut series = Series::<u32, Volume>::default();
        for packets in [5, 5, 9, 2, 3] {
            series.look(&1, volume(packets));
        }
        let all: Vec<(Option<&u32>, &Volume)> = series.all().collect();
        // 9, then 3 from the beginning again.
        assert_eq!(all, [(Some(&1), &volume(12)), (None, &volume(0))]);
    }
}
