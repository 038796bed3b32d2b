//! Packets through the BPF programs of neighbor_sharing, one at a time, by BPF_PROG_TEST_RUN: the
//! verdict, the maps, the tag and the packet that came out. Time is the test's own.
//!
//! What BPF_PROG_TEST_RUN cannot do is left to real traffic: packets whose headers the driver left in
//! fragments (`linearise`), tags in the metadata, and a tag's way through a bridge or a router.

#[path = "neighbor_sharing/control.rs"]
mod control;
#[path = "neighbor_sharing/counting.rs"]
mod counting;
#[path = "neighbor_sharing/generated.rs"]
mod generated;
#[path = "neighbor_sharing/ownership.rs"]
mod ownership;
#[path = "neighbor_sharing/parsing.rs"]
mod parsing;
#[path = "neighbor_sharing/rig.rs"]
mod rig;
mod seed;
#[path = "neighbor_sharing/wire_size.rs"]
mod wire_size;
