//! The original's two files.

use std::io;
use std::sync::Arc;
use std::time::SystemTime;

use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, Response, StatusCode, header};

use super::lending::Loan;
use super::pieces::{self, Made};
use super::{Monitor, Which};
use crate::tunnel_monitor::rows::{Export, ROOM};
use crate::tunnel_monitor::sample::Sample;

/// All rows, or that they are those which the reader has.
pub(super) fn answer(monitor: &Monitor, which: Which, headers: &HeaderMap) -> Response<Body> {
    let loan = monitor.last();
    let tag = loan
        .moment()
        .map(|moment| tag(monitor.run, &moment.sample, which));
    let is_known = tag.as_ref().is_some_and(|tag| is_among(tag, headers));
    let mut response = Response::new(if is_known {
        Body::empty()
    } else {
        let export = Export::new(which);
        pieces::body(Reading { loan, export }, Reading::piece)
    });
    if is_known {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
    }
    let headers = response.headers_mut();
    let json = HeaderValue::from_static("application/json");
    headers.insert(header::CONTENT_TYPE, json);
    let ask_first = HeaderValue::from_static("no-cache");
    headers.insert(header::CACHE_CONTROL, ask_first);
    if let Some(tag) = tag.and_then(|tag| HeaderValue::try_from(tag).ok()) {
        headers.insert(header::ETAG, tag);
    }
    response
}

/// Names what is answered: another text has another tag.
fn tag(run: u64, sample: &Sample, which: Which) -> String {
    match which {
        Which::Totals => format!("\"{run:x}-{}\"", sample.number),
        Which::Window => {
            let end = sample.window.to.duration_since(SystemTime::UNIX_EPOCH);
            let end = end.map_or(0, |time| time.as_nanos());
            // A flow that is taken out leaves the window too.
            format!("\"{run:x}-{end:x}-{}\"", sample.forgotten_flows)
        }
    }
}

/// Whether the reader has what this tag names (RFC 9110, section 13.1.2).
fn is_among(tag: &str, headers: &HeaderMap) -> bool {
    let lists = headers.get_all(header::IF_NONE_MATCH).iter();
    // None of our tags has a comma.
    let mut tags = lists
        .filter_map(|list| list.to_str().ok())
        .flat_map(|list| list.split(','))
        .map(|known| known.trim());
    tags.any(|known| known == "*" || known.strip_prefix("W/").unwrap_or(known) == tag)
}

/// A reader in the middle of it.
struct Reading {
    loan: Arc<Loan>,
    export: Export,
}

impl Reading {
    async fn piece(mut self) -> Made<Reading> {
        let mut piece = Vec::with_capacity(ROOM);
        loop {
            if self.export.is_over() {
                return None;
            }
            let Some(moment) = self.loan.moment() else {
                return Some(Err(io::Error::other("the sample is too old by now")));
            };
            self.export.fill(&moment.sample, &mut piece);
            if !piece.is_empty() {
                return Some(Ok((piece, self)));
            }
            // A long stretch without a row; others may be waiting.
            drop(moment);
            tokio::task::yield_now().await;
        }
    }
}
