//! The process that holds a lock: found by asking the lock's socket, and, where that says too little,
//! by who has the socket open. Held by a pidfd, so that no later process of the same pid is meant.

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, UnixAddr, connect, getsockopt, socket, sockopt,
};
use nix::unistd::geteuid;

use crate::process::Process;

/// A process that is dying has no descriptors any more; its socket is closed a moment later, which a busy
/// machine may put off.
const CLOSES_WITHIN: Duration = Duration::from_secs(1);

/// A process of our own user that holds a lock.
#[derive(Debug)]
pub struct Holder {
    /// Its pid, as seen from here.
    pub pid: i32,
    process: OwnedFd,
}

impl Holder {
    /// Asks it to end (SIGTERM). That it has ended already is as good.
    pub fn terminate(&self) -> Result<()> {
        // SAFETY: the descriptor is open as long as self; no siginfo is passed.
        let sent = unsafe {
            libc::syscall(
                libc::SYS_pidfd_send_signal,
                self.process.as_raw_fd(),
                libc::SIGTERM,
                std::ptr::null::<libc::siginfo_t>(),
                0,
            )
        };
        match Errno::result(sent) {
            Ok(_) | Err(Errno::ESRCH) => Ok(()),
            Err(errno) => Err(errno).with_context(|| format!("end pid {}", self.pid)),
        }
    }

    /// The process that the pid means now.
    fn open(pid: i32) -> nix::Result<Holder> {
        // SAFETY: pidfd_open takes two integers and returns a descriptor that nobody else knows.
        let opened = Errno::result(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) })?;
        let raw = RawFd::try_from(opened).map_err(|_| Errno::EBADF)?;
        // SAFETY: it was just opened, for us alone.
        let process = unsafe { OwnedFd::from_raw_fd(raw) };
        Ok(Holder { pid, process })
    }

    /// Whether it still runs; one that waits to be reaped does not.
    fn runs(&self) -> nix::Result<bool> {
        let mut fds = [PollFd::new(self.process.as_fd(), PollFlags::POLLIN)];
        loop {
            match poll(&mut fds, PollTimeout::ZERO) {
                Ok(ready) => return Ok(ready == 0),
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno),
            }
        }
    }
}

/// What a socket says of who keeps it.
#[derive(Debug)]
pub(super) enum Answer {
    Holder(Holder),
    /// Another user's: anybody may take a name.
    Foreign {
        uid: u32,
        pid: i32,
    },
    /// It lives in a pid namespace that we cannot see.
    Unnamed,
    /// It has just gone, or is dead and an `ip` command of its still has to die.
    Ending,
}

/// Asks the abstract socket of that name.
pub(super) fn ask(address: &str) -> Result<Answer> {
    // Not blocking: nobody takes the connections out of the queue, and a full one would block for ever.
    let client = socket(
        AddressFamily::Unix,
        SockType::Stream,
        SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
        None,
    )?;
    let name = UnixAddr::new_abstract(address.as_bytes())?;
    let start = Instant::now();
    loop {
        match connect(client.as_raw_fd(), &name) {
            Ok(()) => break,
            Err(Errno::ECONNREFUSED) => return Ok(Answer::Ending),
            // Anybody can fill the queue. Who has the socket open does not depend on it.
            Err(Errno::EAGAIN) => {}
            Err(errno) => return Err(errno.into()),
        }
        if let Some(answer) = keeper(address)? {
            return Ok(answer);
        }
        if start.elapsed() > CLOSES_WITHIN {
            return Ok(Answer::Unnamed);
        }
        sleep(Duration::from_millis(1));
    }
    // As they were when it began to listen.
    let peer = getsockopt(&client, sockopt::PeerCredentials)?;
    let (uid, pid) = (peer.uid(), peer.pid());
    if uid != geteuid().as_raw() {
        return Ok(Answer::Foreign { uid, pid });
    }
    if pid == 0 {
        return Ok(Answer::Unnamed);
    }
    let holder = match getsockopt(&client, sockopt::PeerPidfd) {
        Ok(process) => Some(Holder { pid, process }),
        // Reaped.
        Err(Errno::ESRCH | Errno::EINVAL) => None,
        // Before Linux 6.5: the pid may be another process's by now.
        Err(Errno::ENOPROTOOPT) => proved(pid, &inodes(address)?)?,
        Err(errno) => return Err(errno.into()),
    };
    match holder {
        Some(holder) if holder.runs()? => Ok(Answer::Holder(holder)),
        _ => Ok(Answer::Ending),
    }
}

/// Who has the socket of that name open, as far as we may look: the eldest process of our own user, or
/// else another user's.
pub(super) fn keeper(address: &str) -> Result<Option<Answer>> {
    let inodes = inodes(address)?;
    let entries = fs::read_dir("/proc").context("read /proc")?;
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let mut ours = Vec::new();
    let mut foreign = None;
    for pid in pids {
        // The owner of /proc/PID is root where a process has made itself undumpable.
        let Some(uid) = effective_uid(pid) else {
            continue; // it has just ended
        };
        if uid == geteuid().as_raw() {
            // A child of the holder is younger.
            ours.extend(proved(pid, &inodes)?.and_then(|holder| {
                let process = Process::of(pid)?;
                Some((process.start_time, holder))
            }));
        } else if foreign.is_none() && has_open(pid, &inodes).unwrap_or(false) {
            foreign = Some(Answer::Foreign { uid, pid });
        }
    }
    let eldest = ours.into_iter().min_by_key(|(start, _)| *start);
    Ok(eldest.map(|(_, holder)| Answer::Holder(holder)).or(foreign))
}

/// The process of that pid, if it has one of these sockets open.
fn proved(pid: i32, inodes: &[u64]) -> nix::Result<Option<Holder>> {
    let holder = match Holder::open(pid) {
        Ok(holder) => holder,
        Err(Errno::ESRCH | Errno::EINVAL) => return Ok(None),
        Err(errno) => return Err(errno),
    };
    let has_it = has_open(pid, inodes);
    // Alive after the look, so it was this process that was looked at.
    if !holder.runs()? {
        return Ok(None);
    }
    Ok(has_it.unwrap_or(false).then_some(holder))
}

/// Whether a process has one of these sockets open.
fn has_open(pid: i32, inodes: &[u64]) -> io::Result<bool> {
    let wanted = inodes.iter().map(|inode| format!("socket:[{inode}]"));
    let wanted: Vec<String> = wanted.collect();
    let descriptors = fs::read_dir(format!("/proc/{pid}/fd"))?;
    let mut files = descriptors.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
    Ok(files.any(|file| wanted.iter().any(|socket| file.as_os_str() == &**socket)))
}

/// The sockets of that abstract name in this network namespace, as /proc numbers them.
fn inodes(address: &str) -> Result<Vec<u64>> {
    // That of the thread: the main thread may be in another network namespace.
    let path = "/proc/thread-self/net/unix";
    let table = fs::read(path).with_context(|| format!("read {path}"))?;
    let table = String::from_utf8_lossy(&table);
    // Num RefCount Protocol Flags Type St Inode Path, the last with blanks as they are. What waits in
    // the queue has the name too, and no inode.
    let row = |line: &str| {
        let (fields, path) = line.split_once(" @")?;
        let inode = fields.split_ascii_whitespace().nth(6)?.parse().ok()?;
        (path == address && inode != 0).then_some(inode)
    };
    Ok(table.lines().filter_map(row).collect())
}

fn effective_uid(pid: i32) -> Option<u32> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let uids = status.lines().find_map(|line| line.strip_prefix("Uid:"))?;
    uids.split_ascii_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::{SocketAddr, UnixListener};
    use std::process::Command;

    #[test]
    fn the_pid_is_a_holder_only_where_the_process_has_the_socket() {
        let address = format!("netbpf/test of proofs in {}", std::process::id());
        assert!(inodes(&address).unwrap().is_empty());
        let name = SocketAddr::from_abstract_name(&address).unwrap();
        let _listener = UnixListener::bind_addr(&name).unwrap();
        let inodes = inodes(&address).unwrap();
        assert_eq!(inodes.len(), 1);
        let own = i32::try_from(std::process::id()).unwrap();
        assert!(proved(own, &inodes).unwrap().is_some());

        // As if the pid had been reused.
        let mut stranger = Command::new("sleep").arg("100").spawn().unwrap();
        let pid = i32::try_from(stranger.id()).unwrap();
        let proof = proved(pid, &inodes).unwrap();
        stranger.kill().unwrap();
        stranger.wait().unwrap();
        assert!(proof.is_none(), "{proof:?}");
        assert!(proved(pid, &inodes).unwrap().is_none());
    }

    #[test]
    fn a_holder_is_asked_to_end_and_may_have_ended() {
        let mut child = Command::new("sleep").arg("100").spawn().unwrap();
        let holder = Holder::open(i32::try_from(child.id()).unwrap()).unwrap();
        assert!(holder.runs().unwrap());
        holder.terminate().unwrap();
        child.wait().unwrap();
        assert!(!holder.runs().unwrap());
        holder.terminate().unwrap();
    }
}
