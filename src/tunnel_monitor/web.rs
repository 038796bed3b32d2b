//! What tunnel_monitor answers over HTTP: the original's two files, a stream of events, a plain page.
//!
//! Everything is made from samples that never change, in pieces, while its reader takes it: a million rows
//! are never one buffer, and nobody holds up the next sample. See [`lending`] for how many a reader who
//! takes his time can keep from being freed.

mod events;
mod export;
mod lending;
mod page;
mod pieces;

use std::sync::Arc;
use std::time::SystemTime;

use axum::Router;
use axum::response::Redirect;
use axum::routing::get;
use tokio::sync::watch;

use super::rows::Which;
use super::sample::Sample;
use lending::{Lending, Loan};

/// Where samples come from: the last one, and a sign when there is another.
pub type Feed = watch::Receiver<Arc<Sample>>;

/// What all requests have in common.
#[derive(Debug)]
struct Monitor {
    feed: Feed,
    lending: Lending,
    /// Tells this run's samples from those of another, in whose place it may have come.
    run: u64,
}

impl Monitor {
    fn last(&self) -> Arc<Loan> {
        let sample = Arc::clone(&self.feed.borrow());
        self.lending.lend(sample)
    }
}

/// All of it; other routers may be merged with it. The feed's other end belongs to whoever takes samples.
pub fn router(feed: Feed) -> Router {
    let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let monitor = Arc::new(Monitor {
        feed,
        lending: Lending::default(),
        run: since_1970.map_or(0, |time| time.as_micros() as u64),
    });
    let export = |which| {
        let monitor = Arc::clone(&monitor);
        get(move |headers| async move { export::answer(&monitor, which, &headers) })
    };
    Router::new()
        .route("/data/tunnel.json", export(Which::Totals))
        .route("/data/tunnel-delta.json", export(Which::Window))
        .route("/events", get(events::answer))
        .route("/", get(page::answer))
        .route("/tunnel.css", get(page::style))
        // Where the original has its page.
        .route("/demos/tunnel.html", get(async || Redirect::temporary("/")))
        .with_state(monitor)
}
