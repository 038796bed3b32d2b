//! What neighbor_sharing tells Prometheus. Addresses have no series of their own: there is no end to them.

use anyhow::Result;

use super::report::{self, Events};
use super::{Class, Counter, PerWay, Reporter, Sharing, Way};
use crate::metrics::Figures;

impl Reporter {
    /// The figures of now; totals only, however many addresses there are.
    pub fn figures(&self, sharing: &Sharing<'_>) -> Result<Figures> {
        let mut figures = Figures::default();
        meters(&mut figures, sharing)?;
        addresses(&mut figures, sharing)?;
        events(&mut figures, report::events(sharing)?);
        let config = sharing.config();
        let help = "1: what is beyond the limits passes too, and is counted as dropped.";
        figures.gauge("dry_run", "", help).is(config.dry_run.into());
        figures.skipped_reports(self.printer.skipped());
        Ok(figures)
    }
}

impl Class {
    fn label(self) -> &'static str {
        match self {
            Class::Rest => "rest",
            Class::Neighbor => "neighbor",
        }
    }
}

impl Way {
    fn label(self) -> &'static str {
        match self {
            Way::Download => "download",
            Way::Upload => "upload",
        }
    }
}

type Meter = (Class, Way, Counter);

fn meters(figures: &mut Figures, sharing: &Sharing<'_>) -> Result<()> {
    let mut meters: Vec<Meter> = Vec::new();
    for class in Class::ALL {
        for way in Way::ALL {
            meters.push((class, way, sharing.meter(class, way)?));
        }
    }
    let mut of_meters = |name, unit, help, value: fn(&Counter) -> u64| {
        let family = figures.counter(name, unit, help);
        for (class, way, counter) in &meters {
            let labels = [("class", class.label()), ("way", way.label())];
            family.of(labels, value(counter));
        }
    };
    let help = "Packets (wire segments) that passed.";
    of_meters("passed", "packets", help, |it| it.packets);
    let help = "Bytes (Ethernet frames without FCS and VLAN tag) that passed.";
    of_meters("passed", "bytes", help, |it| it.bytes);
    let help = "Packets that were dropped, or would have been without --dry-run.";
    of_meters("dropped", "packets", help, |it| it.dropped_packets);
    let help = "Bytes that were dropped, or would have been without --dry-run.";
    of_meters("dropped", "bytes", help, |it| it.dropped_bytes);
    let help = "The rate of a class; without a series there is none.";
    let limits = figures.gauge("limit", "bytes_per_second", help);
    for (class, way, _) in &meters {
        if let Some((rate, _)) = sharing.config().limits.get(&(*class, *way)) {
            let labels = [("class", class.label()), ("way", way.label())];
            limits.measure_of(labels, rate.bits() as f64 / 8.0);
        }
    }
    Ok(())
}

fn addresses(figures: &mut Figures, sharing: &Sharing<'_>) -> Result<()> {
    let ports = report::ports(sharing)?;
    let known = ports.iter().map(|port| port.addresses).sum();
    let help = "Addresses that are known.";
    figures.gauge("table", "addresses", help).is(known);
    let room = sharing.config().max_entries;
    let help = "Addresses that there is room for (--max-entries).";
    figures.gauge("capacity", "addresses", help).is(room.into());
    let help = "Addresses that belong to a port.";
    let family = figures.gauge("port", "addresses", help);
    for port in &ports {
        let labels = [("port", port.port.as_str()), ("class", port.class.label())];
        family.of(labels, port.addresses);
    }
    let help = "Addresses that may belong to a port: its share of the table.";
    let family = figures.gauge("port_quota", "addresses", help);
    for port in &ports {
        let labels = [("port", port.port.as_str()), ("class", port.class.label())];
        family.of(labels, port.quota.into());
    }
    let help = "1 for the class that unknown addresses count as: neighbor while the share of a \
                neighbor's port is used up.";
    let family = figures.gauge("unknown_counts_as", "", help);
    for class in Class::ALL {
        let is_it = sharing.unknown_counts_as() == class;
        family.of([("class", class.label())], is_it.into());
    }
    let help = "Addresses that were forgotten after their silence (--forget-after).";
    let forgotten = sharing.forgotten;
    figures
        .counter("forgotten", "addresses", help)
        .is(forgotten.addresses);
    let help = "Packets that were counted for no address: unknown ones, and what is not IP.";
    outcomes(
        figures,
        "unattributed",
        help,
        report::unattributed(sharing)?,
    );
    let help = "Packets that were counted for addresses which are forgotten since.";
    outcomes(figures, "forgotten", help, forgotten.counts);
    Ok(())
}

fn outcomes(
    figures: &mut Figures,
    name: &'static str,
    help: &'static str,
    counts: PerWay<Counter>,
) {
    let family = figures.counter(name, "packets", help);
    let PerWay { download, upload } = counts;
    for (way, counter) in [(Way::Download, download), (Way::Upload, upload)] {
        let way = ("way", way.label());
        family.of([way, ("outcome", "passed")], counter.packets);
        family.of([way, ("outcome", "dropped")], counter.dropped_packets);
    }
}

fn events(figures: &mut Figures, events: Events) {
    let help = "What was passed over, learned, given up or lost; docs/neighbor_sharing.md explains \
                each.";
    let family = figures.counter("", "events", help);
    let Events {
        control,
        exempt,
        malformed,
        not_from_a_port,
        not_from_wan,
        lost_race,
        learned,
        moved,
        taken_over,
        claim_by_neighbor,
        claim_by_lan,
        neighbors_full,
        lan_full,
        outside_nets,
        unknown_while_full,
        tag_lost,
        table_errors,
    } = events;
    for (event, count) in [
        ("control", control),
        ("exempt", exempt),
        ("malformed", malformed),
        ("not_from_a_port", not_from_a_port),
        ("not_from_wan", not_from_wan),
        ("lost_race", lost_race),
        ("learned", learned),
        ("moved", moved),
        ("taken_over", taken_over),
        ("claim_by_neighbor", claim_by_neighbor),
        ("claim_by_lan", claim_by_lan),
        ("neighbors_full", neighbors_full),
        ("lan_full", lan_full),
        ("outside_nets", outside_nets),
        ("unknown_while_full", unknown_while_full),
        ("tag_lost", tag_lost),
        ("table_errors", table_errors),
    ] {
        family.of([("event", event)], count);
    }
}
