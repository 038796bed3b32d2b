//! What tunnel_monitor tells Prometheus: all of it together, by virtual network, by pair of hosts.

use super::flow::Counts;
use super::groups::Groups;
use super::sample::{Sample, Uncounted};
use crate::metrics::{Figures, OTHER};

/// The figures of a sample, which is added to the groups; to be called with every one, in their order.
pub(super) fn figures(sample: &Sample, groups: &mut Groups, skipped_reports: u64) -> Figures {
    groups.update(sample);
    let mut figures = Figures::default();
    let help = "Tunnel packets (wire segments) that came in by the monitored interfaces (rx) or went \
                out by them (tx).";
    let bytes = "Their bytes (Ethernet frames without FCS and tags).";
    both_ways(&mut figures, "tunnel", [help, bytes], sample.totals);
    let help = "Tunnel packets of flows that there was no room for.";
    both_ways(&mut figures, "other", [help, bytes], sample.other);
    let help = "Tunnel packets of flows that are forgotten since.";
    both_ways(&mut figures, "forgotten", [help, bytes], sample.forgotten);
    table(&mut figures, sample, groups);
    uncounted(&mut figures, sample.uncounted);
    networks(&mut figures, groups);
    pairs(&mut figures, groups);
    figures.skipped_reports(skipped_reports);
    figures
}

type PacketsAndBytes = fn(&Counts) -> [u64; 2];

/// The two directions of some counts, with how to take them out.
const DIRECTIONS: [(&str, PacketsAndBytes); 2] = [
    ("rx", |counts| [counts.rx_pkts, counts.rx_bytes]),
    ("tx", |counts| [counts.tx_pkts, counts.tx_bytes]),
];
const UNITS: [&str; 2] = ["packets", "bytes"];

fn both_ways(figures: &mut Figures, name: &'static str, help: [&'static str; 2], counts: Counts) {
    for (which, unit) in UNITS.into_iter().enumerate() {
        let family = figures.counter(name, unit, help[which]);
        for (direction, values) in DIRECTIONS {
            family.of([("direction", direction)], values(&counts)[which]);
        }
    }
}

fn table(figures: &mut Figures, sample: &Sample, groups: &Groups) {
    let help = "Flows that are known.";
    figures.gauge("table", "flows", help).is(groups.flows());
    let help = "Flows that there is room for (--max-entries).";
    let capacity = sample.capacity.into();
    figures.gauge("capacity", "flows", help).is(capacity);
    let help = "Flows that were forgotten after their silence (--forget-after).";
    let forgotten = sample.forgotten_flows;
    figures.counter("forgotten", "flows", help).is(forgotten);
    let help = "Interfaces that are monitored.";
    let interfaces = sample.interfaces.len() as u64;
    figures
        .gauge("monitored", "interfaces", help)
        .is(interfaces);
}

fn uncounted(figures: &mut Figures, uncounted: Uncounted) {
    let Uncounted {
        fragments,
        multicast,
        malformed,
        not_tunnel,
        table_errors,
    } = uncounted;
    let help = "Packets that are in no flow, and why.";
    figures
        .counter("uncounted", "packets", help)
        .of([("reason", "fragments")], fragments)
        .of([("reason", "multicast")], multicast)
        .of([("reason", "malformed")], malformed)
        .of([("reason", "not_tunnel")], not_tunnel)
        .of([("reason", "table_errors")], table_errors);
}

fn networks(figures: &mut Figures, groups: &Groups) {
    let help = [
        "Tunnel packets of a virtual network.",
        "Tunnel bytes of a virtual network.",
    ];
    for (which, unit) in UNITS.into_iter().enumerate() {
        let family = figures.counter("network", unit, help[which]);
        for (network, counts) in groups.networks() {
            let encap = network.map_or(OTHER, |network| network.encap.name());
            let vni = network.map_or_else(|| OTHER.to_owned(), |network| network.vni.to_string());
            for (direction, values) in DIRECTIONS {
                let labels = [("encap", encap), ("vni", &vni), ("direction", direction)];
                family.of(labels, values(&counts)[which]);
            }
        }
    }
}

fn pairs(figures: &mut Figures, groups: &Groups) {
    let help = [
        "Tunnel packets between two hosts, by their outer addresses.",
        "Tunnel bytes between two hosts, by their outer addresses.",
    ];
    for (which, unit) in UNITS.into_iter().enumerate() {
        let family = figures.counter("pair", unit, help[which]);
        for (pair, counts) in groups.pairs() {
            let [local, remote] = match pair {
                Some(pair) => [pair.local, pair.remote].map(|address| address.to_string()),
                None => [OTHER; 2].map(str::to_owned),
            };
            for (direction, values) in DIRECTIONS {
                let labels = [
                    ("local", local.as_str()),
                    ("remote", remote.as_str()),
                    ("direction", direction),
                ];
                family.of(labels, values(&counts)[which]);
            }
        }
    }
}
