//! How many files this process may have open.

use anyhow::{Context, Result, ensure};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// A tool has up to 36 open at a time, on two interfaces: programs, maps, links, sockets, and what libbpf tries
/// the kernel with.
const FEWEST_DESCRIPTORS: u64 = 64;

/// Lets this process open as many files as it may. The usual 1,024 are not enough for a few hundred
/// interfaces, each with its lock and a link for each program. Where it may open next to none, that is said here:
/// later each step would fail in its own words.
pub fn take_all_descriptors() -> Result<()> {
    let limit = Resource::RLIMIT_NOFILE;
    let (_, most) = getrlimit(limit).context("read the limit of open files")?;
    setrlimit(limit, most, most).context("raise the limit of open files")?;
    ensure!(
        most >= FEWEST_DESCRIPTORS,
        "{most} files may be open at a time, {FEWEST_DESCRIPTORS} are needed: raise the limit (ulimit -n, LimitNOFILE= \
         of a unit)"
    );
    Ok(())
}
