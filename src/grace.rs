//! Waits until no BPF program runs any more that has begun before (`src/bpf/grace.h`).

use std::os::fd::{AsFd, AsRawFd};

use anyhow::{Context, Result};
use libbpf_rs::{MapCore, MapFlags};

/// What the two maps of `grace.h` are for: `periods` holds `grace`, and the kernel answers the change of it
/// after a grace period of RCU.
pub(crate) fn wait_for_programs(grace: &impl AsFd, periods: &impl MapCore) -> Result<()> {
    let grace = grace.as_fd().as_raw_fd().to_ne_bytes();
    periods
        .update(&[0; 4], &grace, MapFlags::ANY)
        .context("wait for the CPUs")
}
