//! neighbor_sharing: a WAN link shared with the neighbors, whose ports are held to one small rate
//! together. The data plane and its reasons stand in `src/bpf/neighbor_sharing.bpf.c`; here it is
//! configured, loaded, attached and read.

mod arguments;
mod config;
mod demo;
mod interfaces;
mod metrics;
mod picture;
mod report;
mod sharing;
mod simulation;
mod table;

use std::ops::AddAssign;

use serde::Serialize;

pub use arguments::Arguments;
pub use config::{Config, Limits, PoliceAt};
pub use demo::Demo;
pub use interfaces::Ports;
pub use report::{Report, Reporter};
pub use sharing::{Forgotten, Sharing, labels};
pub use simulation::Simulation;
use skeleton::types;

/// The generated skeleton, as it is; tests and benchmarks run its programs one by one.
#[doc(hidden)]
pub mod skeleton {
    include!(concat!(env!("OUT_DIR"), "/neighbor_sharing.skel.rs"));

    // SAFETY: all integers, every bit pattern is a value, and no padding.
    unsafe impl plain::Plain for types::learned {}
    // SAFETY: as above.
    unsafe impl plain::Plain for types::address_count {}
    // SAFETY: as above.
    unsafe impl plain::Plain for types::meter {}
    // SAFETY: as above.
    unsafe impl plain::Plain for types::port_use {}
    // SAFETY: as above.
    unsafe impl plain::Plain for types::port {}
    // SAFETY: as above.
    unsafe impl plain::Plain for types::events {}
    // SAFETY: as above.
    unsafe impl plain::Plain for types::bucket {}
}

/// Whose traffic it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Class {
    /// Everybody else's.
    Rest,
    /// The neighbors', all of them together.
    Neighbor,
}

impl Class {
    /// All classes, in the order of `enum class` of the BPF program.
    pub const ALL: [Class; 2] = [Class::Rest, Class::Neighbor];

    fn in_bpf(self) -> types::class {
        match self {
            Class::Rest => types::class::REST,
            Class::Neighbor => types::class::NEIGHBOR,
        }
    }
}

/// Which way traffic flows, seen from the ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Way {
    /// From the WAN to a port.
    Download,
    /// From a port to the WAN.
    Upload,
}

impl Way {
    /// Both, in the order of `enum direction` of the BPF program.
    pub const ALL: [Way; 2] = [Way::Download, Way::Upload];
}

/// Packets (wire segments) and bytes (Ethernet frames without FCS and VLAN tag).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counter {
    /// Passed.
    pub packets: u64,
    /// Passed.
    pub bytes: u64,
    /// Dropped, or with `--dry-run` passed beyond the limit.
    pub dropped_packets: u64,
    /// Dropped, or with `--dry-run` passed beyond the limit.
    pub dropped_bytes: u64,
}

impl AddAssign for Counter {
    fn add_assign(&mut self, other: Counter) {
        self.packets += other.packets;
        self.bytes += other.bytes;
        self.dropped_packets += other.dropped_packets;
        self.dropped_bytes += other.dropped_bytes;
    }
}

/// One of a thing for each way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct PerWay<T> {
    /// From the WAN to a port.
    pub download: T,
    /// From a port to the WAN.
    pub upload: T,
}

impl<T: AddAssign> AddAssign for PerWay<T> {
    fn add_assign(&mut self, other: PerWay<T>) {
        self.download += other.download;
        self.upload += other.upload;
    }
}
