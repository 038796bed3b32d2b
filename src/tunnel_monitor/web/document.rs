//! What the page draws, in one document: docs/tunnel_monitor.page.schema.json. The page asks for it each
//! second, so it is short: a row of bare values for each flow.

use std::io;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, Response};
use serde::Serialize;

use super::Monitor;
use super::lending::{Loan, Moment};
use super::pieces::{self, Made};
use super::revalidation::unless_known;
use super::selection::Rest;
use crate::tunnel_monitor::flow::Counts;
use crate::tunnel_monitor::rows::{PIECE, ROOM, put_address, put_number};
use crate::tunnel_monitor::sample::{Row, Sample, Uncounted};

const SCHEMA: &str = "netbpf.tunnel_monitor.page/1";
/// What the members of a row are.
const COLUMNS: [&str; 18] = [
    "vni",
    "encap",
    "outer_local",
    "outer_remote",
    "inner_local",
    "inner_remote",
    "window_tx_pkts",
    "window_tx_bytes",
    "window_rx_pkts",
    "window_rx_bytes",
    "since_tx_pkts",
    "since_tx_bytes",
    "since_rx_pkts",
    "since_rx_bytes",
    "total_tx_pkts",
    "total_tx_bytes",
    "total_rx_pkts",
    "total_rx_bytes",
];

pub(super) async fn answer(
    State(monitor): State<Arc<Monitor>>,
    asked: HeaderMap,
) -> Response<Body> {
    let loan = monitor.last();
    let tag = format!("\"{:x}-{}\"", monitor.run, loan.number());
    unless_known(&asked, Some(&tag), "application/json", || {
        let reading = Reading {
            monitor,
            loan,
            part: Part::Head,
        };
        pieces::body(reading, Reading::piece)
    })
}

/// A reader in the middle of it.
struct Reading {
    monitor: Arc<Monitor>,
    loan: Arc<Loan>,
    part: Part,
}

/// What comes next.
enum Part {
    Head,
    /// From this place among the rows on.
    Rows(usize),
    Over,
}

impl Reading {
    async fn piece(mut self) -> Made<Reading> {
        if matches!(self.part, Part::Over) {
            return None;
        }
        let Some(moment) = self.loan.moment() else {
            return Some(Err(io::Error::other("the sample is too old by now")));
        };
        let mut piece = Vec::with_capacity(ROOM);
        if matches!(self.part, Part::Head) {
            put_head(&self.monitor, &moment, &mut piece);
            self.part = Part::Rows(0);
        }
        if let Part::Rows(from) = self.part {
            self.part = put_rows(&moment, from, &mut piece);
        }
        Some(Ok((piece, self)))
    }
}

/// Everything in front of the rows.
#[derive(Serialize)]
struct Head<'a> {
    schema: &'static str,
    version: &'static str,
    run: String,
    number: u64,
    time: u64,
    started: u64,
    elapsed: f64,
    interval: f64,
    simulation: bool,
    namespace: Option<&'a str>,
    interfaces: &'a [String],
    ports: &'a [u16],
    traffic: Option<&'a str>,
    window: Window,
    flows: usize,
    capacity: u32,
    totals: Counts,
    other: Counts,
    forgotten: Counts,
    forgotten_flows: u64,
    uncounted: Uncounted,
    columns: [&'static str; COLUMNS.len()],
    rest: Rest,
}

#[derive(Serialize)]
struct Window {
    from: u64,
    to: u64,
    seconds: f64,
    age: f64,
}

/// Since 1970.
fn milliseconds(time: SystemTime) -> u64 {
    let since_1970 = time.duration_since(UNIX_EPOCH);
    since_1970.map_or(0, |time| time.as_millis() as u64)
}

fn put_head(monitor: &Monitor, moment: &Moment, piece: &mut Vec<u8>) {
    let (sample, about) = (&*moment.sample, &monitor.about);
    let window = &sample.window;
    let head = Head {
        schema: SCHEMA,
        version: env!("CARGO_PKG_VERSION"),
        run: format!("{:x}", monitor.run),
        number: sample.number,
        time: milliseconds(sample.time),
        started: milliseconds(monitor.started),
        elapsed: sample.elapsed.as_secs_f64(),
        interval: about.interval.as_secs_f64(),
        simulation: about.simulation,
        namespace: about.namespace.as_deref(),
        interfaces: &sample.interfaces,
        ports: &about.ports,
        traffic: about.traffic.as_deref(),
        window: Window {
            from: milliseconds(window.from),
            to: milliseconds(window.to),
            seconds: window.length.as_secs_f64(),
            age: sample.window_age.as_secs_f64(),
        },
        flows: moment.flows(),
        capacity: sample.capacity,
        totals: sample.totals,
        other: sample.other,
        forgotten: sample.forgotten,
        forgotten_flows: sample.forgotten_flows,
        uncounted: sample.uncounted,
        columns: COLUMNS,
        rest: moment.selection().rest,
    };
    // Numbers, strings and arrays of them: there is nothing in it that JSON could not say.
    let json = serde_json::to_string(&head).unwrap_or_default();
    piece.extend_from_slice(json.strip_suffix('}').unwrap_or_default().as_bytes());
    piece.extend_from_slice(b",\"rows\":[\n");
}

/// A line for each row, as far as a piece goes.
fn put_rows(moment: &Moment, from: usize, piece: &mut Vec<u8>) -> Part {
    let sample = &*moment.sample;
    let slots = moment.selection().slots.iter().enumerate().skip(from);
    for (place, slot) in slots {
        if piece.len() >= PIECE {
            return Part::Rows(place);
        }
        piece.extend_from_slice(if place > 0 { b",[" } else { b"[" });
        // Nobody leaves a sample, so it is there.
        if let Some(row) = sample.rows_from(*slot as usize).next() {
            put_row(piece, sample, row);
        }
        piece.extend_from_slice(b"]\n");
    }
    piece.extend_from_slice(b"]}\n");
    Part::Over
}

/// What [`COLUMNS`] names.
fn put_row(out: &mut Vec<u8>, sample: &Sample, row: Row<'_>) {
    put_number(out, row.flow.vni.into());
    out.extend_from_slice(b",\"");
    out.extend_from_slice(row.flow.encap.name().as_bytes());
    out.push(b'"');
    for address in row.flow.outer() {
        out.push(b',');
        put_address(out, address);
    }
    match row.flow.inner() {
        Some(ends) => {
            for address in ends {
                out.push(b',');
                put_address(out, address);
            }
        }
        None => out.extend_from_slice(b",null,null"),
    }
    for counts in [row.window, sample.since_window(&row), row.total] {
        for figure in [
            counts.tx_pkts,
            counts.tx_bytes,
            counts.rx_pkts,
            counts.rx_bytes,
        ] {
            out.push(b',');
            put_number(out, figure);
        }
    }
}
