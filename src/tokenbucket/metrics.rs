//! What tokenbucket tells Prometheus. Flows have no series of their own: there is no end to them.

use anyhow::Result;

use super::cells::Counts;
use super::maps::{Events, Maps};
use super::report::Reporter;
use super::rule::Rule;
use super::sweep::Sweeper;
use crate::metrics::Figures;

impl Reporter {
    /// The figures of now; totals only, however many flows there are.
    pub fn figures(&self, maps: &Maps, sweeper: &Sweeper) -> Result<Figures> {
        let mut figures = Figures::default();
        let counted = maps.events()?;
        volumes(&mut figures, &counted);
        table(&mut figures, maps, sweeper, &counted)?;
        events(&mut figures, &counted);
        rule(&mut figures, maps.rule()?);
        let help = "1: what is beyond the rule passes too, and is counted as dropped.";
        let dry_run = u64::from(maps.knobs.dry_run);
        figures.gauge("dry_run", "", help).is(dry_run);
        figures.skipped_reports(self.printer.skipped());
        Ok(figures)
    }
}

fn volumes(
    figures: &mut Figures,
    Events {
        passed, dropped, ..
    }: &Events,
) {
    let help = "Packets that passed, as they are charged: wire segments with --count segments.";
    figures
        .counter("passed", "packets", help)
        .is(passed.packets);
    let help = "Bytes (Ethernet frames without FCS and VLAN tag) that passed.";
    figures.counter("passed", "bytes", help).is(passed.bytes);
    let help = "Packets that were dropped, or would have been without --dry-run.";
    figures
        .counter("dropped", "packets", help)
        .is(dropped.packets);
    let help = "Bytes that were dropped, or would have been without --dry-run.";
    figures.counter("dropped", "bytes", help).is(dropped.bytes);
}

fn table(figures: &mut Figures, maps: &Maps, sweeper: &Sweeper, counted: &Events) -> Result<()> {
    let flows = sweeper.flows(maps)?;
    figures
        .gauge("table", "flows", "Flows that are known.")
        .is(flows);
    let help = "Flows that there is room for (--max-entries).";
    figures
        .gauge("capacity", "flows", help)
        .is(maps.room().into());
    let help = "Flows that were new in the table.";
    figures.counter("new", "flows", help).is(counted.flows);
    let help = "Flows that were removed because they said no more than new ones.";
    figures
        .counter("removed", "flows", help)
        .is(sweeper.removed());
    let Counts { passed, dropped } = maps.overflow();
    let help = "Packets of flows that found the table full and shared a bucket.";
    figures
        .counter("overflow", "packets", help)
        .of([("outcome", "passed")], passed)
        .of([("outcome", "dropped")], dropped);
    Ok(())
}

fn events(figures: &mut Figures, events: &Events) {
    let help = "What was passed over, given up or lost; docs/tokenbucket.md explains each.";
    let family = figures.counter("", "events", help);
    let Events {
        passed: _,
        dropped: _,
        flows: _,
        not_ip,
        exempt,
        malformed,
        no_row,
        overflowed,
        lost_race,
        table_errors,
    } = *events;
    for (event, count) in [
        ("not_ip", not_ip),
        ("exempt", exempt),
        ("malformed", malformed),
        ("no_row", no_row),
        ("overflowed", overflowed),
        ("lost_race", lost_race),
        ("table_errors", table_errors),
    ] {
        family.of([("event", event)], count);
    }
}

/// Those of a rule that it does not have stay without a value.
fn rule(figures: &mut Figures, rule: Rule) {
    let help = "Packets that a flow may send at once after a pause, less one (--tokens).";
    let tokens_family = figures.gauge("limit", "tokens", help);
    if let Rule::Tokens { tokens, .. } = rule {
        tokens_family.is(tokens);
    }
    let help = "Tokens that regenerate (--rate).";
    let pace = figures.gauge("limit", "tokens_per_second", help);
    if let Rule::Tokens { regeneration, .. } = rule {
        pace.measures(regeneration.as_secs_f64().recip());
    }
    let help = "The rate of each flow, in bytes (--rate).";
    let rate_family = figures.gauge("limit", "bytes_per_second", help);
    if let Rule::Bytes { rate, .. } = rule {
        rate_family.measures(rate.bits() as f64 / 8.0);
    }
    let help = "What may pass at once after a pause (--burst).";
    let burst_family = figures.gauge("limit_burst", "bytes", help);
    if let Rule::Bytes { burst, .. } = rule {
        burst_family.is(burst.bytes());
    }
}
