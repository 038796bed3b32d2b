//! What tunnel_monitor answers over HTTP: the original's two files, a stream of events, a page with what it
//! draws, and a plain page beside it.
//!
//! Everything is made from samples that never change, in pieces, while its reader takes it: a million rows
//! are never one buffer, and nobody holds up the next sample. See [`lending`] for how many a reader who
//! takes his time can keep from being freed.

mod about;
mod assets;
mod document;
mod events;
mod export;
mod lending;
mod pieces;
mod plain;
mod revalidation;
mod selection;

use std::sync::Arc;
use std::time::SystemTime;

use axum::Router;
use axum::routing::get;
use tokio::sync::watch;

use super::rows::Which;
use super::sample::Sample;
pub use about::About;
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
    /// When counting began.
    started: SystemTime,
    about: About,
}

impl Monitor {
    fn last(&self) -> Arc<Loan> {
        let sample = Arc::clone(&self.feed.borrow());
        self.lending.lend(sample)
    }
}

/// All of it; other routers may be merged with it. The feed's other end belongs to whoever takes samples.
pub fn router(feed: Feed, about: About) -> Router {
    let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let started = {
        let sample = feed.borrow();
        sample.time - sample.elapsed
    };
    let monitor = Arc::new(Monitor {
        feed,
        lending: Lending::default(),
        run: since_1970.map_or(0, |time| time.as_micros() as u64),
        started,
        about,
    });
    let export = |which| {
        let monitor = Arc::clone(&monitor);
        get(move |headers| async move { export::answer(&monitor, which, &headers) })
    };
    Router::new()
        .route("/data/tunnel.json", export(Which::Totals))
        .route("/data/tunnel-delta.json", export(Which::Window))
        .route("/data/page.json", get(document::answer))
        .route("/events", get(events::answer))
        .route("/plain", get(plain::answer))
        .route("/plain.css", get(plain::style))
        .with_state(monitor)
        .merge(assets::router())
}
