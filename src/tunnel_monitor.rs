//! tunnel_monitor: who talks to whom through the tunnels of an interface, by outer and inner addresses.
//! The data plane and its reasons stand in `src/bpf/tunnel_monitor.bpf.c`; here it is configured, loaded,
//! attached and read, and what was read goes out.

mod flow;
mod sample;
mod sampler;

pub use flow::{Counts, Encap, Flow, Inner, Outer};
pub use sample::{Column, Row, Sample, Span, Uncounted};
pub use sampler::{Sampler, Source, Tally};
