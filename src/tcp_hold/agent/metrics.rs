//! What the agent tells Prometheus. Connections have no series of their own: they come and go.

use anyhow::Result;

use super::served::Served;
use crate::metrics::Figures;
use crate::tcp_hold::holder::{Census, Events, Holder};

/// The figures of now; so many guards have taken the place of killed ones.
pub fn figures(holder: &Holder<'_>, served: &Served, guards: u64) -> Result<Figures> {
    let mut figures = Figures::default();
    let Census { held, ever, room } = holder.holds().census();
    figures
        .gauge("held", "connections", "Connections that are held.")
        .is(held);
    let help = "Connections that can be held at once.";
    figures.gauge("capacity", "connections", help).is(room);
    let help = "Connections that were held, each time that one began to be.";
    figures.counter("begun", "connections", help).is(ever);
    let help = "Applications that are connected to the agent.";
    figures
        .gauge("connected", "applications", help)
        .is(served.applications());
    let help = "What the agent has answered; docs/tcp_hold_agent.md explains each.";
    let family = figures.counter("", "answers", help);
    for (outcome, count) in served.answers() {
        family.of([("outcome", outcome)], count);
    }
    events(&mut figures, holder.events()?);
    let help = "Guards that were started because the one before was killed.";
    figures.counter("replaced", "guards", help).is(guards);
    // It prints none.
    figures.skipped_reports(0);
    Ok(figures)
}

fn events(figures: &mut Figures, events: Events) {
    let help =
        "What the program did to segments of held connections; docs/metrics.md explains each.";
    let family = figures.counter("", "events", help);
    let Events {
        lowered,
        bounds,
        probes,
        unreadable,
        failed,
    } = events;
    for (event, count) in [
        ("lowered", lowered),
        ("bounds", bounds),
        ("probes", probes),
        ("unreadable", unreadable),
        ("failed", failed),
    ] {
        family.of([("event", event)], count);
    }
}
