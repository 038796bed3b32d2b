//! tunnel_monitor: who talks to whom through the tunnels of an interface, by outer and inner addresses.
//! The data plane and its reasons stand in `src/bpf/tunnel_monitor.bpf.c`; here it is configured, loaded,
//! attached and read, and what was read goes out.

mod arguments;
mod files;
mod flow;
mod groups;
mod keeper;
mod metrics;
mod monitor;
mod picture;
mod recorder;
mod report;
mod rows;
mod sample;
mod sampler;
mod simulation;
pub mod top;
pub mod traffic;
pub mod web;

pub use arguments::{Arguments, Command, Listen, Monitoring};
pub use flow::{Counts, Encap, Flow, Inner, Outer};
pub use groups::{Groups, Network, Pair};
pub use keeper::Keeper;
pub use monitor::{MOST_FLOWS, MOST_VXLAN_PORTS, Monitor, Setup, labels};
pub use recorder::{Outlets, Recorder};
pub use report::Report;
pub use rows::{Which, write_rows};
pub use sample::{Column, Row, Sample, Span, Tally, Uncounted};
pub use sampler::{Sampler, Source};
pub use simulation::Simulation;

/// The generated skeleton, as it is; tests and benchmarks run its programs one by one.
#[doc(hidden)]
pub mod skeleton {
    include!(concat!(env!("OUT_DIR"), "/tunnel_monitor.skel.rs"));
}
