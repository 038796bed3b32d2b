//! Children that cannot outlive us, and what they are given on their way to exec.
//!
//! All closures here run between fork and exec: they make system calls and allocate nothing.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};

use anyhow::{Context, Error, Result};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl, open};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use nix::sys::stat::Mode;
use nix::unistd::read;

use crate::failure::Failure;
use crate::process::Stat;

/// Has the kernel kill the child when **the thread that spawned it** ends, and keeps signals of
/// the terminal away from it. Spawn from a thread that lives as long as the child is needed.
pub(crate) fn tie_to_this_thread(command: &mut Command) {
    let us = std::process::id();
    command.process_group(0);
    let tie = move || -> io::Result<()> {
        set_pdeathsig(Signal::SIGKILL)?;
        // We may have died between the fork and the line above; nobody would be told any more.
        if parent()? == us {
            Ok(())
        } else {
            Err(Errno::ESRCH.into())
        }
    };
    // SAFETY: the closure makes the system calls prctl, open, read and close.
    unsafe { command.pre_exec(tie) };
}

/// The parent's pid by /proc: getppid() is 0 for the first process of a PID namespace, whether its
/// parent lives or not.
fn parent() -> nix::Result<u32> {
    let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC;
    let file = open(c"/proc/self/stat", flags, Mode::empty())?;
    let mut stat = [0; 512];
    let length = read(&file, &mut stat)?;
    let stat = Stat::parse(stat.get(..length).unwrap_or_default());
    stat.map(|stat| stat.parent).ok_or(Errno::EINVAL)
}

/// Spawns the child as the first process of a PID namespace of its own: the kernel ends whatever is in
/// there, wherever it hides (a group, a session, a daemon), when the child ends.
pub(crate) fn spawn_with_its_own(command: &mut Command) -> Result<Child> {
    let path = "/proc/self/ns/pid";
    let ours = File::open(path).with_context(|| format!("open {path}"))?;
    unshare(CloneFlags::CLONE_NEWPID).map_err(|errno| match errno {
        Errno::EINVAL => {
            let missing = "this kernel has no PID namespaces (CONFIG_PID_NS)";
            Error::new(Failure::Kernel(missing.into()))
        }
        errno => Error::new(errno).context("make a PID namespace"),
    })?;
    let spawned = command.spawn();
    // The next child of this thread is to be among our own again.
    let back = setns(ours, CloneFlags::CLONE_NEWPID).context("leave the new PID namespace");
    let mut child = spawned?;
    if let Err(error) = back {
        let _ = child.kill();
        let _ = child.wait();
        return Err(error);
    }
    Ok(child)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parent_is_that_of_getppid_where_there_is_one() {
        assert_eq!(parent().unwrap(), std::os::unix::process::parent_id());
    }
}
