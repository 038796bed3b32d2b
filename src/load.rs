//! Loading BPF programs in a process that gets signals, and running those that are for no packets.

use std::mem::MaybeUninit;

use anyhow::{Context, Result};
use libbpf_rs::skel::{OpenSkel, SkelBuilder};
use libbpf_rs::{OpenObject, ProgramInput, ProgramMut};
use nix::sys::signal::{SigSet, SigmaskHow};

/// Opens a skeleton, of which nothing is in the kernel yet.
pub fn open<'obj, Builder: SkelBuilder<'obj>>(
    builder: Builder,
    object: &'obj mut MaybeUninit<OpenObject>,
) -> Result<Builder::Output> {
    builder.open(object).context("open the BPF programs")
}

/// Loads with every signal held back from this thread until it is done.
///
/// The verifier gives up with EAGAIN as soon as a signal is pending for the thread that loads, and
/// libbpf's tries (five, and five more with a log) begin again at the first instruction: a program
/// that takes 300 ms is never loaded in a process whose profiler sends signals, or whose other
/// threads' children end, more often than that.
pub fn load<'obj, Open: OpenSkel<'obj>>(open: Open) -> Result<Open::Output> {
    let _held = Held::back()?;
    Ok(open.load()?)
}

/// Runs a program that answers user space and looks at no packet.
pub fn run_once(program: &ProgramMut<'_>) -> libbpf_rs::Result<()> {
    // Some kernels refuse a frame without anything behind its Ethernet header.
    let any_frame = [0; 64];
    let input = ProgramInput {
        data_in: Some(&any_frame),
        ..Default::default()
    };
    program.test_run(input).map(drop)
}

/// While this lives, signals for this thread wait; those for the process go to other threads first.
struct Held {
    before: SigSet,
}

impl Held {
    fn back() -> nix::Result<Held> {
        let before = SigSet::all().thread_swap_mask(SigmaskHow::SIG_BLOCK)?;
        Ok(Held { before })
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // It was the mask before, so it can be set.
        let _ = self.before.thread_set_mask();
    }
}
