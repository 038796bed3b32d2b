//! tokenbucket: a token bucket for every source that sends through an interface, as a state machine of
//! the Open Packet Processor. The data plane and its reasons stand in `src/bpf/tokenbucket.bpf.c` and
//! `src/bpf/xfsm.h`; here it is configured, loaded, attached and read.

mod arguments;
mod attached;
mod cells;
mod command;
mod config;
mod explain;
mod key;
mod label;
pub mod machine;
mod maps;
mod metering;
mod metrics;
mod picture;
mod pins;
mod reason;
mod report;
mod rule;
mod simulation;
mod stretch;
mod sweep;
pub mod traffic;
mod word;

pub use arguments::{Arguments, Command};
pub use attached::{Attached, Owner};
pub use cells::Counts;
pub use config::Config;
pub use explain::explain;
pub use key::{By, Flow, Key};
pub use label::labels;
pub use machine::Machine;
pub use maps::{Events, Maps, Volume};
pub use metering::Metering;
pub use pins::Pins;
pub use report::{Report, Reporter};
pub use rule::{Pace, Rule};
pub use simulation::Simulation;
pub use sweep::Sweeper;

/// The generated skeleton, as it is; tests and benchmarks run its programs one by one.
#[doc(hidden)]
pub mod skeleton {
    include!(concat!(env!("OUT_DIR"), "/tokenbucket.skel.rs"));

    // SAFETY: all integers, every bit pattern is a value, and no padding.
    unsafe impl plain::Plain for types::events {}
    // SAFETY: as above.
    unsafe impl plain::Plain for types::flow_key {}
    // SAFETY: as above.
    unsafe impl plain::Plain for types::wide_flow_key {}
    // SAFETY: as above.
    unsafe impl plain::Plain for types::rulebook {}
    // SAFETY: as above.
    unsafe impl plain::Plain for types::machine {}
    // SAFETY: as above.
    unsafe impl plain::Plain for types::knobs {}
}
