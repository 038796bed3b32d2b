//! Threads on CPUs of their own.

use crate::step;
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

/// Two CPUs that this process may run on.
pub fn two() -> Option<[usize; 2]> {
    let allowed = step("ask for the CPUs", sched_getaffinity(Pid::from_raw(0)));
    let mut cpus = (0..CpuSet::count()).filter(|cpu| allowed.is_set(*cpu).unwrap_or(false));
    Some([cpus.next()?, cpus.next()?])
}

/// Keeps the calling thread on one CPU.
pub fn pin_to(cpu: usize) {
    let mut only = CpuSet::new();
    step("name a CPU", only.set(cpu));
    step("go to a CPU", sched_setaffinity(Pid::from_raw(0), &only));
}
