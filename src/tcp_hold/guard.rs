//! The process that stands at the links for as long as a socket is held, whatever becomes of the application.
//!
//! It is a fork of the application's that has none of its sockets: nothing but the links and the maps by which
//! it sees whether anything is held still. A socket that the application had passed on is held when the
//! application is long dead, and so is what the kernel acknowledges without a socket.

use std::fs;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::libc;
use nix::sys::prctl::set_name;
use nix::sys::signal::{SigSet, SigmaskHow};
use nix::sys::socket::{MsgFlags, recv};
use nix::sys::stat::Mode;
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, chdir, dup2_stderr, dup2_stdin, dup2_stdout, fork, setsid};

use super::accounts::Accounts;
use super::post::Post;
use crate::netlink::sockets_in;
use crate::privilege::{Cap, Scope, keep_only};

/// The guard says that sockets are held still, after it has looked so often.
const LOOKS: u32 = 10;
/// It looks again after 1 ms, then after twice as long each time up to this.
const LOOKS_EVERY: Duration = Duration::from_millis(256);
/// Longer than all looks take, on a busy machine.
const ANSWERS_WITHIN: Duration = Duration::from_secs(10);

/// What it is told, and what it says.
const ANOTHER_STANDS: u8 = b'a';
const HELD_STILL: u8 = b'h';

/// A guard, as the application knows it. When its end of the wire is closed, by whatever kind of end, the guard
/// takes the program off as soon as nothing is held.
#[derive(Debug)]
pub struct Guard {
    wire: UnixStream,
    pid: u32,
}

impl Guard {
    /// Starts one for these posts, which stay this process's too.
    pub fn start(posts: &mut Vec<Post>, accounts: &Accounts) -> Result<Guard> {
        // What it will ask for can be asked for.
        sockets_in(accounts.holds())?;
        let (mut wire, its_wire) = UnixStream::pair().context("make the guard's wire")?;
        // No handler of the application's is to run in the guard.
        let mask = SigSet::all().thread_swap_mask(SigmaskHow::SIG_BLOCK)?;
        // SAFETY: the child is a copy with this thread alone; it allocates, which glibc allows after fork, and does
        // not return. As long as nothing fails it takes no lock that another thread of the application could
        // have had; where something does, it may wait for ever for that of backtraces (RUST_BACKTRACE) or of the
        // standard error, with the program still at the links.
        let forked = match unsafe { fork() } {
            Ok(ForkResult::Child) => stand(its_wire, posts, accounts),
            Ok(ForkResult::Parent { child }) => {
                // It ends at once. An application that ignores SIGCHLD has none to wait for.
                while waitpid(child, None) == Err(Errno::EINTR) {}
                Ok(())
            }
            Err(error) => Err(error),
        };
        mask.thread_set_mask()?;
        forked.context("start the guard")?;
        drop(its_wire);
        wire.set_read_timeout(Some(ANSWERS_WITHIN))?;
        let mut pid = [0; 4];
        wire.read_exact(&mut pid)
            .context("wait for the guard, which did not begin")?;
        Ok(Guard {
            wire,
            pid: u32::from_ne_bytes(pid),
        })
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Whether it is there.
    pub fn is_alive(&self) -> bool {
        let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT;
        recv(self.wire.as_raw_fd(), &mut [0], flags) == Err(Errno::EAGAIN)
    }

    /// Ends it, as another one stands there.
    pub fn hand_over(mut self) {
        // One that is dead needs no word.
        let _ = self.wire.write_all(&[ANOTHER_STANDS]);
    }

    /// Lets it end, when nothing is held any more. Says whether that is so now.
    pub fn end(mut self) -> Result<bool> {
        self.wire.shutdown(std::net::Shutdown::Write)?;
        let is_held = hear(&mut self.wire)
            .context("wait for the guard")?
            .is_some();
        // Its end of the wire is closed before the rest of it is gone.
        let deadline = Instant::now() + ANSWERS_WITHIN;
        while !is_held && has_anything(self.pid) && Instant::now() < deadline {
            sleep(Duration::from_millis(1));
        }
        Ok(!is_held)
    }
}

/// A word, or the end. A read that has a bound in time is not made again by itself after a signal.
fn hear(wire: &mut UnixStream) -> io::Result<Option<u8>> {
    let mut word = [0];
    loop {
        match wire.read(&mut word) {
            Ok(length) => return Ok((length > 0).then_some(word[0])),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Whether a process has anything open still. One that nobody has waited for has not, and stays in /proc for as
/// long as its parent likes: for ever, below the first process of some containers.
fn has_anything(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // proc_pid_stat(5): the state comes after the name, in which there may be anything.
    let state = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
    !state.is_empty() && !state.starts_with(['Z', 'X'])
}

/// The guard's life. Whatever it cannot do in the beginning, it ends with, and the application is told.
fn stand(wire: UnixStream, posts: &mut Vec<Post>, accounts: &Accounts) -> ! {
    let stood = setsid().map_err(anyhow::Error::from).and_then(|_| {
        // SAFETY: as above. Whoever is no child of the application's leaves it nothing to wait for.
        match unsafe { fork() }? {
            ForkResult::Parent { .. } => Ok(()),
            ForkResult::Child => guard(wire, posts, accounts),
        }
    });
    // SAFETY: it takes a number and does not return; nothing of the application's is undone.
    unsafe { libc::_exit(i32::from(stood.is_err())) }
}

fn guard(mut wire: UnixStream, posts: &mut Vec<Post>, accounts: &Accounts) -> Result<()> {
    let of_posts = posts.iter().flat_map(Post::descriptors);
    let mut kept: Vec<RawFd> = of_posts.map(|descriptor| descriptor.as_raw_fd()).collect();
    kept.push(wire.as_raw_fd());
    kept.push(accounts.holds().as_raw_fd());
    kept.push(accounts.leavers().as_raw_fd());
    close_all_but(kept)?;
    let _ = set_name(c"tcp_hold_guard");
    chdir("/")?;
    keep_only(&[Cap::Bpf, Cap::NetAdmin], Scope::Process)?;
    wire.write_all(&std::process::id().to_ne_bytes())?;

    if matches!(hear(&mut wire), Ok(Some(ANOTHER_STANDS))) {
        // SAFETY: as above; the posts are not this one's any more.
        unsafe { libc::_exit(0) }
    }
    // Where that fails, successors wait for the lock a while, and stand beside us all the same.
    let _ = posts.iter().try_for_each(Post::take_over);
    let mut looks = 0;
    // As long as it cannot be told, something is held.
    while is_anything_held(accounts).unwrap_or(true) {
        looks += 1;
        if looks == LOOKS {
            // Nobody need be there.
            let _ = wire.write_all(&[HELD_STILL]);
        }
        sleep(LOOKS_EVERY.min(Duration::from_millis(1 << looks.min(16))));
    }
    posts.clear();
    Ok(())
}

fn is_anything_held(accounts: &Accounts) -> Result<bool> {
    Ok(sockets_in(accounts.holds())? > 0 || accounts.has_leavers()?)
}

/// Closes what the application had open: its sockets above all. What it reads and writes by is /dev/null.
fn close_all_but(mut kept: Vec<RawFd>) -> Result<()> {
    kept.sort_unstable();
    if kept.iter().any(|&fd| fd <= libc::STDERR_FILENO) {
        bail!("the application has no standard input, output or error");
    }
    let null = open("/dev/null", OFlag::O_RDWR, Mode::empty())?;
    dup2_stdin(null.as_fd())?;
    dup2_stdout(null.as_fd())?;
    dup2_stderr(null.as_fd())?;
    drop(null);
    let mut first = libc::STDERR_FILENO + 1;
    for fd in kept {
        close_from(first, fd - 1)?;
        first = fd + 1;
    }
    close_from(first, RawFd::MAX)
}

fn close_from(first: RawFd, last: RawFd) -> Result<()> {
    if first <= last {
        // SAFETY: numbers only. Whatever owns these descriptors is never dropped in this process.
        let result = unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
        Errno::result(result).context("close the application's descriptors")?;
    }
    Ok(())
}
