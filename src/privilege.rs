//! Giving up the capabilities that are no longer needed.
//!
//! The kernel keeps them per thread. [`Scope::Process`] therefore refuses when other threads
//! exist: drop before the first is started, it inherits what is left.

use std::fs;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use netsetup::privilege::Sets;
pub use netsetup::privilege::{Cap, require};
use nix::errno::Errno;
use nix::libc;
use nix::sys::prctl::set_no_new_privs;

use crate::tc::Method;

/// Whose capabilities are given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// The whole process; an error if it has other threads, which would keep theirs.
    Process,
    /// The calling thread, and those that it starts later.
    Thread,
}

/// Gives up every capability for good: effective, permitted, inheritable and ambient sets, the
/// bounding set where CAP_SETPCAP allows it, and what set-user-id programs would give
/// (no_new_privs).
pub fn drop_all(scope: Scope) -> Result<()> {
    keep_only(&[], scope)
}

/// As [`drop_all`], but keeps those of `caps` that this thread has. A program that root runs
/// afterwards keeps them too.
pub fn keep_only(caps: &[Cap], scope: Scope) -> Result<()> {
    if scope == Scope::Process {
        refuse_other_threads()?;
    }
    let keep = caps.iter().fold(0, |mask, cap| mask | cap.bit());
    // Bounds first: that takes CAP_SETPCAP, which goes with the rest.
    narrow_bounds(keep)?;
    clear_ambient()?;
    let before = Sets::read()?;
    let wanted = Sets {
        effective: before.effective & keep,
        permitted: before.permitted & keep,
        inheritable: 0,
    };
    write(wanted)?;
    set_no_new_privs().context("set no_new_privs")?;
    if Sets::read()? != wanted {
        bail!("the kernel did not take the capabilities away");
    }
    Ok(())
}

/// Gives up what is not needed once programs are attached by links and their maps are open:
/// everything, but CAP_BPF where the kernel still asks for it at each access to a map.
///
/// Filters are detached by the process itself, so with them CAP_NET_ADMIN stays.
pub fn drop_after_attach(method: Method, scope: Scope) -> Result<()> {
    match method {
        Method::Tcx => keep_after_attach(&[], scope),
        Method::Clsact => keep_after_attach(&[Cap::NetAdmin], scope),
    }
}

/// As [`drop_after_attach`], for those who need some capabilities in their work.
pub fn keep_after_attach(caps: &[Cap], scope: Scope) -> Result<()> {
    let mut keep = caps.to_vec();
    if !map_access_is_free() {
        keep.push(Cap::Bpf);
    }
    keep_only(&keep, scope)
}

/// Since 5.19 an open descriptor suffices to read and update a map.
fn map_access_is_free() -> bool {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    // Unknown means old: keeping one capability too many breaks nothing.
    version(&release).is_some_and(|version| version >= (5, 19))
}

fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// A thread that was joined is listed until the kernel has taken it apart, so the list is given time.
fn refuse_other_threads() -> Result<()> {
    const TAKEN_APART_WITHIN: Duration = Duration::from_secs(2);
    let deadline = Instant::now() + TAKEN_APART_WITHIN;
    loop {
        match threads()? {
            1 => return Ok(()),
            threads if Instant::now() >= deadline => {
                bail!("capabilities are per thread, and {threads} threads run already")
            }
            _ => sleep(Duration::from_millis(1)),
        }
    }
}

/// How many threads this process has.
fn threads() -> Result<usize> {
    let path = "/proc/self/task";
    let tasks = fs::read_dir(path).with_context(|| format!("read {path}"))?;
    Ok(tasks.count())
}

/// `_LINUX_CAPABILITY_VERSION_3`: 64 capabilities, in two halves.
const VERSION: u32 = 0x2008_0522;

/// `struct __user_cap_header_struct`.
#[repr(C)]
struct Header {
    version: u32,
    /// 0 is the calling thread.
    pid: libc::c_int,
}

/// `struct __user_cap_data_struct`, one half of each set.
#[repr(C)]
struct Half {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// Gives the calling thread these sets.
fn write(sets: Sets) -> Result<()> {
    let mut header = Header {
        version: VERSION,
        pid: 0,
    };
    let halves = [0, 32].map(|shift| Half {
        effective: (sets.effective >> shift) as u32,
        permitted: (sets.permitted >> shift) as u32,
        inheritable: (sets.inheritable >> shift) as u32,
    });
    // SAFETY: both pointers are to live values laid out as linux/capability.h says; version 3
    // makes the kernel read two halves.
    let result = unsafe { libc::syscall(libc::SYS_capset, &raw mut header, halves.as_ptr()) };
    Errno::result(result).context("drop capabilities")?;
    Ok(())
}

/// Takes all but `keep` out of the bounding set. Without CAP_SETPCAP it stays as it is, and
/// no_new_privs alone keeps later programs from gaining anything.
fn narrow_bounds(keep: u64) -> Result<()> {
    for cap in (0..64u64).filter(|cap| keep & (1 << cap) == 0) {
        match prctl(libc::PR_CAPBSET_READ, cap, 0) {
            Ok(1) => {}
            Ok(_) => continue,
            // Beyond the last capability of this kernel.
            Err(Errno::EINVAL) => break,
            Err(errno) => return Err(errno).context("read the capability bounding set"),
        }
        match prctl(libc::PR_CAPBSET_DROP, cap, 0) {
            Ok(_) => {}
            Err(Errno::EPERM) => break,
            Err(errno) => return Err(errno).context("narrow the capability bounding set"),
        }
    }
    Ok(())
}

fn clear_ambient() -> Result<()> {
    prctl(
        libc::PR_CAP_AMBIENT,
        libc::PR_CAP_AMBIENT_CLEAR_ALL as u64,
        0,
    )
    .context("clear the ambient capabilities")?;
    Ok(())
}

fn prctl(option: libc::c_int, second: u64, third: u64) -> Result<libc::c_int, Errno> {
    let zero: libc::c_ulong = 0;
    // SAFETY: the options used here take plain numbers, no pointers.
    let result = unsafe {
        libc::prctl(
            option,
            second as libc::c_ulong,
            third as libc::c_ulong,
            zero,
            zero,
        )
    };
    Errno::result(result)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Failure;
    use std::os::unix::fs::MetadataExt;
    use std::process::Command;

    /// The capability lines of this thread: CapInh, CapPrm, CapEff, CapBnd, CapAmb.
    fn status() -> Vec<(String, u64)> {
        fs::read_to_string("/proc/thread-self/status")
            .unwrap()
            .lines()
            .filter_map(|line| line.strip_prefix("Cap")?.split_once(":\t"))
            .map(|(name, mask)| (name.into(), u64::from_str_radix(mask, 16).unwrap()))
            .collect()
    }

    fn in_thread(test: impl FnOnce() + Send + 'static) {
        std::thread::spawn(test).join().unwrap();
    }

    fn has(cap: Cap) -> bool {
        Sets::read().unwrap().effective & cap.bit() != 0
    }

    #[test]
    fn after_drop_all_nothing_is_left_and_nothing_comes_back() {
        in_thread(|| {
            let bounded = has(Cap::SetPcap);
            drop_all(Scope::Thread).unwrap();
            for (name, mask) in status() {
                if name != "Bnd" || bounded {
                    assert_eq!(mask, 0, "Cap{name}");
                }
            }
            let text = fs::read_to_string("/proc/thread-self/status").unwrap();
            assert!(text.contains("NoNewPrivs:\t1"), "{text}");
            let error = require(&[Cap::NetAdmin]).unwrap_err();
            assert!(
                error
                    .downcast_ref::<Failure>()
                    .is_some_and(|failure| failure.code() == 3)
            );
            // Not even by running a program as root.
            let child = Command::new("cat")
                .arg("/proc/self/status")
                .output()
                .unwrap();
            let child = String::from_utf8(child.stdout).unwrap();
            assert!(child.contains("CapEff:\t0000000000000000"), "{child}");
            assert!(child.contains("CapPrm:\t0000000000000000"), "{child}");
            // A second time is no error.
            drop_all(Scope::Thread).unwrap();
        });
    }

    #[test]
    fn keep_only_keeps_what_it_names_also_across_exec() {
        if !has(Cap::NetAdmin) {
            let name = "keep_only_keeps_what_it_names_also_across_exec";
            return testbed::skip(name, "needs CAP_NET_ADMIN");
        }
        in_thread(|| {
            keep_only(&[Cap::NetAdmin], Scope::Thread).unwrap();
            let sets = Sets::read().unwrap();
            let only = Cap::NetAdmin.bit();
            assert_eq!((sets.effective, sets.permitted), (only, only));
            assert_eq!(sets.inheritable, 0);
            require(&[Cap::NetAdmin]).unwrap();
            require(&[Cap::Bpf]).unwrap_err();
            if fs::metadata("/proc/self").unwrap().uid() == 0 {
                let child = Command::new("cat")
                    .arg("/proc/self/status")
                    .output()
                    .unwrap();
                let child = String::from_utf8(child.stdout).unwrap();
                assert!(child.contains(&format!("CapEff:\t{only:016x}")), "{child}");
            }
            drop_all(Scope::Thread).unwrap();
            require(&[Cap::NetAdmin]).unwrap_err();
        });
    }

    #[test]
    fn other_threads_keep_theirs() {
        let before = Sets::read().unwrap();
        in_thread(|| drop_all(Scope::Thread).unwrap());
        assert_eq!(Sets::read().unwrap(), before);
    }

    #[test]
    fn a_process_with_threads_is_refused_untouched() {
        // The thread of this test and that which it starts are two at least.
        in_thread(|| {
            let before = status();
            let error = drop_all(Scope::Process).unwrap_err().to_string();
            assert!(error.contains("threads run already"), "{error}");
            assert_eq!(status(), before);
        });
    }

    /// A join returns while the kernel still closes what the thread had to itself.
    #[test]
    fn a_thread_that_was_joined_is_no_other_thread() {
        let has_many_files = || {
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_FILES).unwrap();
            (0..500).for_each(|_| std::mem::forget(fs::File::open("/proc/self/status")));
        };
        // SAFETY: as in the test below; glibc allows threads after fork as well.
        match unsafe { nix::unistd::fork() }.unwrap() {
            nix::unistd::ForkResult::Child => {
                let alone = (0..50).all(|_| {
                    let thread = std::thread::Builder::new().spawn(has_many_files);
                    thread.is_ok_and(|thread| thread.join().is_ok())
                        && refuse_other_threads().is_ok()
                });
                // SAFETY: it takes a number and does not return.
                unsafe { libc::_exit(i32::from(!alone)) }
            }
            nix::unistd::ForkResult::Parent { child } => {
                let ended = nix::sys::wait::waitpid(child, None).unwrap();
                assert_eq!(ended, nix::sys::wait::WaitStatus::Exited(child, 0));
            }
        }
    }

    #[test]
    fn a_process_of_one_thread_drops_for_all_of_it() {
        // SAFETY: the child is a copy with this thread alone; it allocates and reads /proc,
        // which glibc allows after fork, and leaves without running what the parent set up.
        match unsafe { nix::unistd::fork() }.unwrap() {
            nix::unistd::ForkResult::Child => {
                let dropped = drop_all(Scope::Process);
                let left = Sets::read().map_or(u64::MAX, |sets| sets.effective | sets.permitted);
                let code = i32::from(dropped.is_err()) + 2 * i32::from(left != 0);
                // SAFETY: it takes a number and does not return.
                unsafe { libc::_exit(code) }
            }
            nix::unistd::ForkResult::Parent { child } => {
                let status = nix::sys::wait::waitpid(child, None).unwrap();
                assert_eq!(status, nix::sys::wait::WaitStatus::Exited(child, 0));
            }
        }
    }

    #[test]
    fn the_version_is_read_from_any_release() {
        assert_eq!(version("6.1.0-28-amd64\n"), Some((6, 1)));
        assert_eq!(version("5.15.0"), Some((5, 15)));
        assert_eq!(version("7.2-rc1+"), Some((7, 2)));
        assert_eq!(version(""), None);
        assert_eq!(version("linux"), None);
    }
}
