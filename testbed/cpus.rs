//! Threads on CPUs of their own.

use crate::step;
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

/// The CPUs that this process may run on.
pub fn all() -> Vec<usize> {
    let allowed = step("ask for the CPUs", sched_getaffinity(Pid::from_raw(0)));
    let is_allowed = |cpu: &usize| allowed.is_set(*cpu).unwrap_or(false);
    (0..CpuSet::count()).filter(is_allowed).collect()
}

/// Two of them.
pub fn two() -> Option<[usize; 2]> {
    all().first_chunk().copied()
}

/// Keeps the calling thread on one CPU.
pub fn pin_to(cpu: usize) {
    let mut only = CpuSet::new();
    step("name a CPU", only.set(cpu));
    step("go to a CPU", sched_setaffinity(Pid::from_raw(0), &only));
}
