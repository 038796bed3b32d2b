//! The original's two files.

use std::io;
use std::sync::Arc;
use std::time::SystemTime;

use axum::body::Body;
use axum::http::{HeaderMap, Response};

use super::lending::Loan;
use super::pieces::{self, Made};
use super::revalidation::unless_known;
use super::{Monitor, Which};
use crate::tunnel_monitor::rows::{Export, ROOM};
use crate::tunnel_monitor::sample::Sample;

/// All rows, or that they are those which the reader has.
pub(super) fn answer(monitor: &Monitor, which: Which, headers: &HeaderMap) -> Response<Body> {
    let loan = monitor.last();
    let tag = loan
        .moment()
        .map(|moment| tag(monitor.run, &moment.sample, which));
    unless_known(headers, tag.as_deref(), "application/json", || {
        let export = Export::new(which);
        pieces::body(Reading { loan, export }, Reading::piece)
    })
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
