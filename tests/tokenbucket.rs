//! The BPF program of tokenbucket, one packet at a time, by BPF_PROG_TEST_RUN: verdicts, what is known
//! of each flow, and every counter. Time is the test's own, but for one test of the real clocks. And captures through
//! the tool itself: `--explain`.
//!
//! What BPF_PROG_TEST_RUN cannot do is left to real traffic: packets whose headers the driver left in
//! fragments (`linearise`), and tags in the metadata.

#[path = "tokenbucket/clocks.rs"]
mod clocks;
#[path = "tokenbucket/cpus.rs"]
mod cpus;
mod document;
#[path = "tokenbucket/documented.rs"]
mod documented;
#[path = "tokenbucket/engine.rs"]
mod engine;
#[path = "tokenbucket/explained.rs"]
mod explained;
#[path = "tokenbucket/frames.rs"]
mod frames;
#[path = "tokenbucket/generated.rs"]
mod generated;
#[path = "tokenbucket/keys.rs"]
mod keys;
#[path = "tokenbucket/machine.rs"]
mod machine;
#[path = "tokenbucket/machines.rs"]
mod machines;
#[path = "tokenbucket/metered.rs"]
mod metered;
#[path = "tokenbucket/model.rs"]
mod model;
#[path = "tokenbucket/rig.rs"]
mod rig;
mod seed;
#[path = "tokenbucket/table.rs"]
mod table;
#[path = "tokenbucket/times.rs"]
mod times;
#[path = "tokenbucket/verdicts.rs"]
mod verdicts;
