//! What happens, as server-sent events: a snapshot, then what changed with each sample. The format stands
//! in docs/tunnel_monitor.events.schema.json.
//!
//! The next event is begun when the last one has been taken. Who is slower than samples come misses some,
//! and gets a snapshot again: nothing waits for him but one piece.

use std::io::{self, Write};
use std::sync::Arc;
use std::time::SystemTime;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderValue, Response, header};
use serde::Serialize;

use super::lending::{Loan, Moment};
use super::pieces::{self, Made};
use super::{Feed, Monitor};
use crate::tunnel_monitor::flow::Counts;
use crate::tunnel_monitor::rows::{PIECE, ROOM, put_address, put_counts, put_number};
use crate::tunnel_monitor::sample::{Row, Sample, Uncounted};

const SCHEMA: &str = "netbpf.tunnel_monitor.events/1";
/// How soon a browser asks again when it was cut off.
const RETRY: &str = "retry: 1000\n";

pub(super) async fn answer(State(monitor): State<Arc<Monitor>>) -> Response<Body> {
    let stream = Stream {
        feed: monitor.feed.clone(),
        monitor,
        told: None,
        telling: None,
    };
    let mut response = Response::new(pieces::body(stream, Stream::piece));
    let events = HeaderValue::from_static("text/event-stream");
    response.headers_mut().insert(header::CONTENT_TYPE, events);
    response
}

/// One reader.
struct Stream {
    monitor: Arc<Monitor>,
    feed: Feed,
    /// What the last event was about, or is.
    told: Option<Arc<Loan>>,
    telling: Option<Telling>,
}

/// An event of which a part is still to be written.
struct Telling {
    is_delta: bool,
    part: Part,
}

/// What comes next.
enum Part {
    Head,
    /// From this place in the list on.
    Gone(usize),
    /// From this slot on; in a delta, from this place in the list.
    Rows(usize),
    Over,
}

impl Stream {
    async fn piece(mut self) -> Made<Stream> {
        let mut piece = Vec::with_capacity(ROOM);
        if self.told.is_none() {
            piece.extend_from_slice(RETRY.as_bytes());
        }
        if self.telling.is_none() {
            self.begin().await?;
        }
        let moment = self.told.as_ref().and_then(|loan| loan.moment());
        let (Some(moment), Some(telling)) = (moment, &mut self.telling) else {
            return Some(Err(io::Error::other("the sample is too old by now")));
        };
        telling.fill(&moment, &mut piece);
        if matches!(telling.part, Part::Over) {
            self.telling = None;
        }
        Some(Ok((piece, self)))
    }

    /// Begins the next event, when there is something to tell. `None`: there will be nothing any more.
    async fn begin(&mut self) -> Option<()> {
        if let Some(told) = &self.told {
            while self.feed.borrow().number == told.number() {
                self.feed.changed().await.ok()?;
            }
        }
        let sample = Arc::clone(&self.feed.borrow_and_update());
        let number = sample.number;
        let loan = self.monitor.lending.lend(sample);
        let told = self.told.replace(Arc::clone(&loan));
        let told = told.filter(|told| told.number().checked_add(1) == Some(number));
        // Unless the one before had to be given back meanwhile.
        let before = told.and_then(|told| told.moment());
        if let (Some(before), Some(moment)) = (&before, loan.moment()) {
            moment.compare_with(&before.sample);
        }
        self.telling = Some(Telling {
            is_delta: before.is_some(),
            part: Part::Head,
        });
        Some(())
    }
}

impl Telling {
    /// Appends what has room in a piece.
    fn fill(&mut self, moment: &Moment, piece: &mut Vec<u8>) {
        let (changed, gone) = match moment.changes() {
            Some(changes) if self.is_delta => (&changes.changed[..], &changes.gone[..]),
            _ => (&[][..], &[][..]),
        };
        if let Part::Head = self.part {
            self.put_head(moment, piece);
            self.part = Part::Gone(0);
        }
        if let Part::Gone(from) = self.part {
            let (to, is_all) = put_gone(gone, from, piece);
            self.part = Part::Gone(to);
            if !is_all {
                return;
            }
            piece.extend_from_slice(b"data: ],\"rows\":[\n");
            self.part = Part::Rows(0);
        }
        if let Part::Rows(from) = self.part {
            let sample = &*moment.sample;
            let next = if self.is_delta {
                let places = changed.iter().enumerate().skip(from);
                // Nobody leaves a sample, so each is there.
                let rows = places.filter_map(|(place, slot)| {
                    let row = sample.rows_from(*slot as usize).next()?;
                    Some((place, row))
                });
                put_rows(rows, None, from == 0, piece)
            } else {
                let rows = sample.rows_from(from).map(|row| (row.slot, row));
                let is_first = from == 0;
                put_rows(rows, Some(sample), is_first, piece)
            };
            self.part = next.map_or(Part::Over, Part::Rows);
            if next.is_none() {
                piece.extend_from_slice(b"data: ]}\n\n");
            }
        }
    }

    fn put_head(&self, moment: &Moment, piece: &mut Vec<u8>) {
        let sample = &*moment.sample;
        let event = if self.is_delta { "delta" } else { "snapshot" };
        let window = &sample.window;
        let head = Head {
            schema: SCHEMA,
            event,
            number: sample.number,
            time: seconds(sample.time),
            elapsed: sample.elapsed.as_secs_f64(),
            seconds: sample.second.length.as_secs_f64(),
            interfaces: &sample.interfaces,
            window: Window {
                from: seconds(window.from),
                to: seconds(window.to),
                seconds: window.length.as_secs_f64(),
                ended: !window.length.is_zero() && window.to == sample.time,
            },
            flows: moment.flows(),
            capacity: sample.capacity,
            totals: sample.totals,
            other: sample.other,
            forgotten: sample.forgotten,
            forgotten_flows: sample.forgotten_flows,
            uncounted: sample.uncounted,
        };
        // Numbers, strings and arrays of them: there is nothing in it that JSON could not say.
        let json = serde_json::to_string(&head).unwrap_or_default();
        let open = json.strip_suffix('}').unwrap_or_default();
        let _ = write!(
            piece,
            "id: {}\nevent: {event}\ndata: {open},\"gone\":[\n",
            sample.number
        );
    }
}

/// Everything in front of the lists.
#[derive(Serialize)]
struct Head<'a> {
    schema: &'static str,
    event: &'static str,
    number: u64,
    time: f64,
    elapsed: f64,
    seconds: f64,
    interfaces: &'a [String],
    window: Window,
    flows: usize,
    capacity: u32,
    totals: Counts,
    other: Counts,
    forgotten: Counts,
    forgotten_flows: u64,
    uncounted: Uncounted,
}

#[derive(Serialize)]
struct Window {
    from: f64,
    to: f64,
    seconds: f64,
    ended: bool,
}

fn seconds(time: SystemTime) -> f64 {
    let since_1970 = time.duration_since(SystemTime::UNIX_EPOCH);
    since_1970.map_or(0.0, |time| time.as_secs_f64())
}

/// A line of the list, as far as a piece goes; to which place, and whether that is the end.
fn put_gone(gone: &[u32], from: usize, piece: &mut Vec<u8>) -> (usize, bool) {
    let mut place = from;
    for slot in gone.iter().skip(from) {
        if piece.len() >= PIECE {
            break;
        }
        piece.extend_from_slice(if place == from { b"data: " } else { b"" });
        piece.extend_from_slice(if place > 0 { b"," } else { b"" });
        put_number(piece, u64::from(*slot));
        place += 1;
    }
    if place > from {
        piece.push(b'\n');
    }
    (place, place == gone.len())
}

/// A line for each row, as far as a piece goes; then the place of the first that is missing. With the sample
/// where it is to be told what only a snapshot tells.
fn put_rows<'a>(
    rows: impl Iterator<Item = (usize, Row<'a>)>,
    snapshot: Option<&Sample>,
    mut is_first: bool,
    piece: &mut Vec<u8>,
) -> Option<usize> {
    for (place, row) in rows {
        if piece.len() >= PIECE {
            return Some(place);
        }
        piece.extend_from_slice(if is_first { b"data: " } else { b"data: ," });
        is_first = false;
        put_row(piece, row, snapshot);
        piece.push(b'\n');
    }
    None
}

fn put_row(out: &mut Vec<u8>, row: Row<'_>, snapshot: Option<&Sample>) {
    out.extend_from_slice(b"{\"slot\":");
    put_number(out, row.slot as u64);
    out.extend_from_slice(b",\"encap\":\"");
    out.extend_from_slice(row.flow.encap.name().as_bytes());
    out.extend_from_slice(b"\",\"vni\":");
    put_number(out, row.flow.vni.into());
    out.extend_from_slice(b",\"outer\":[");
    let [local, remote] = row.flow.outer();
    put_address(out, local);
    out.push(b',');
    put_address(out, remote);
    match row.flow.inner() {
        Some([local, remote]) => {
            out.extend_from_slice(b"],\"inner\":[");
            put_address(out, local);
            out.push(b',');
            put_address(out, remote);
            out.push(b']');
        }
        None => out.extend_from_slice(b"],\"inner\":null"),
    }
    let named = |out: &mut Vec<u8>, name: &str, counts: Counts| {
        out.extend_from_slice(name.as_bytes());
        put_counts(out, counts);
        out.push(b'}');
    };
    named(out, ",\"total\":{", row.total);
    if !row.second.is_zero() {
        named(out, ",\"second\":{", row.second);
    }
    if let Some(sample) = snapshot {
        let since = sample.since_window(&row);
        if !row.window.is_zero() {
            named(out, ",\"window\":{", row.window);
        }
        if !since.is_zero() {
            named(out, ",\"since\":{", since);
        }
    }
    out.push(b'}');
}
