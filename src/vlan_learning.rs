//! vlan_learning: clients in the VLANs of a trunk, each brought to the worker that is configured for its
//! MAC address. The data plane and its reasons stand in `src/bpf/vlan_learning.bpf.c`; here it is
//! configured, loaded, attached and read.

mod arguments;
mod demux;
mod directory;
mod interfaces;
mod keeper;
mod mapping;
mod metrics;
mod picture;
mod report;
mod roster;
mod simulation;
mod tags;

pub use arguments::{Arguments, Table};
pub use demux::{Changes, Demux, Policy, Setup, Verdict, labels};
pub use interfaces::{Placed, Worker};
pub use keeper::Keeper;
pub use mapping::{Entry, Mapping};
/// What the command line and `--config` are read with; fuzzing reads with it too.
#[doc(hidden)]
pub use mapping::{Pair, Settings, Unknown, Untagged};
pub use report::{Report, Reporter};
pub use simulation::{Clients, Log, Servers, Simulation, Tagger, Tally};
/// What the two ends of the simulation make of each other's bytes, for fuzzing.
#[doc(hidden)]
pub use simulation::{read_page, read_request};
pub use tags::{Tags, Vlan};

/// The generated skeleton, as it is; tests and benchmarks run its programs one by one.
#[doc(hidden)]
pub mod skeleton {
    include!(concat!(env!("OUT_DIR"), "/vlan_learning.skel.rs"));

    // SAFETY: all integers, every bit pattern is a value, and no padding.
    unsafe impl plain::Plain for types::client_count {}
    // SAFETY: as above.
    unsafe impl plain::Plain for types::worker_count {}
    // SAFETY: as above.
    unsafe impl plain::Plain for types::stranger {}
    // SAFETY: as above.
    unsafe impl plain::Plain for types::events {}
}
