//! tcp_hold: a peer's bytes are acknowledged when the application has confirmed them, and not before. Whoever
//! dies with bytes that it had read and not dealt with has a peer who still has them, and sends them again
//! to a successor.
//!
//! [`Holder`] loads the program and stands at the links to the peers; [`Holder::hold`] takes a socket, and
//! [`Held`] is that socket with its confirmations.

mod accounts;
pub mod agent;
mod arguments;
mod bounds;
mod connection;
pub mod experiment;
mod guard;
mod held;
mod holder;
pub mod lockstep;
pub mod measure;
pub mod network;
pub mod plug;
mod post;
mod standing;

pub use arguments::{Arguments, Command};
pub use bounds::{AtBound, Bounds, Reached};
pub use held::Held;
pub use holder::{Events, Holder, Holds, MOST_HOLDS, Setup};

/// The generated skeleton, as it is; tests and benchmarks run its programs one by one.
#[doc(hidden)]
pub mod skeleton {
    include!(concat!(env!("OUT_DIR"), "/tcp_hold.skel.rs"));
}
