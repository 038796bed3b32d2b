//! Children that cannot outlive us, and what they are given on their way to exec.
//!
//! All closures here run between fork and exec: they make system calls and allocate nothing.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sched::{CloneFlags, setns};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use nix::unistd::getppid;

/// Has the kernel kill the child when **the thread that spawned it** ends, and keeps signals of
/// the terminal away from it. Spawn from a thread that lives as long as the child is needed.
pub(crate) fn tie_to_this_thread(command: &mut Command) {
    let parent = std::process::id();
    command.process_group(0);
    let tie = move || -> io::Result<()> {
        set_pdeathsig(Signal::SIGKILL)?;
        // We may have died between the fork and the line above; nobody would be told any more.
        if getppid().as_raw().unsigned_abs() == parent {
            Ok(())
        } else {
            Err(Errno::ESRCH.into())
        }
    };
    // SAFETY: the closure only makes the system calls prctl and getppid.
    unsafe { command.pre_exec(tie) };
}

/// Starts the child in the network namespace that `namespace` refers to.
pub(crate) fn put_into(command: &mut Command, namespace: &File) -> io::Result<()> {
    let namespace = namespace.try_clone()?;
    let enter = move || Ok(setns(&namespace, CloneFlags::CLONE_NEWNET)?);
    // SAFETY: the closure only makes the system call setns.
    unsafe { command.pre_exec(enter) };
    Ok(())
}

/// Leaves `fd` open in the child; `fd` has to stay open until the child is spawned.
pub(crate) fn hand_over(command: &mut Command, fd: BorrowedFd<'_>) {
    let fd = fd.as_raw_fd();
    let keep_open = move || {
        // SAFETY: the child has a copy of every descriptor that its parent had at the fork, and
        // the caller keeps this one open until then.
        let fd = unsafe { BorrowedFd::borrow_raw(fd) };
        fcntl(fd, FcntlArg::F_SETFD(FdFlag::empty()))?;
        Ok(())
    };
    // SAFETY: the closure only makes the system call fcntl.
    unsafe { command.pre_exec(keep_open) };
}
