//! Signals as bytes in a pipe, so that poll sees them.
//!
//! Handlers and not a blocked mask with a signalfd: a program that `std::process::Command` starts
//! inherits the mask, and `ip` or a server could then be ended by nothing but SIGKILL. A handled
//! signal is back at its default after exec.

use std::fs;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::OnceLock;

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::libc;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use nix::unistd::{pipe2, read, write};

/// Both ends stay open to the end of the process: a handler may run at any time.
static PIPE: OnceLock<Pipe> = OnceLock::new();

#[derive(Debug)]
struct Pipe {
    receive: OwnedFd,
    send: OwnedFd,
}

extern "C" fn on_signal(number: libc::c_int) {
    // Nothing here but what signal-safety(7) allows. What was interrupted keeps its errno.
    let errno = Errno::last_raw();
    if let (Some(pipe), Ok(number)) = (PIPE.get(), u8::try_from(number)) {
        // A full pipe holds thousands of signals that were not looked at: one more is no news.
        let _ = write(&pipe.send, &[number]);
    }
    Errno::set_raw(errno);
}

/// No signal has this number: in the pipe it is the call of another thread.
const CALL: u8 = 0;

/// What came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Arrival {
    Signal(Signal),
    /// [`Waker::wake`] was called.
    Call,
}

/// Wakes the session from another thread.
#[derive(Debug, Clone, Copy)]
pub struct Waker {
    pipe: &'static Pipe,
}

impl Waker {
    /// [`super::Session::wait`] yields [`super::Event::Woken`]; once may stand for several calls.
    pub fn wake(&self) {
        // As in the handler: where the pipe is full, there is enough to wake for.
        let _ = write(&self.pipe.send, &[CALL]);
    }
}

/// The signals that came.
#[derive(Debug)]
pub(super) struct Signals {
    pipe: &'static Pipe,
}

impl Signals {
    /// From now on these signals end nothing by themselves.
    pub(super) fn take_over(signals: &[Signal]) -> Result<Self> {
        let (receive, send) =
            pipe2(OFlag::O_NONBLOCK | OFlag::O_CLOEXEC).context("make a pipe for signals")?;
        let pipe = PIPE.get_or_init(|| Pipe { receive, send });
        // What they interrupt goes on by itself; poll returns all the same.
        let action = SigAction::new(
            SigHandler::Handler(on_signal),
            SaFlags::SA_RESTART,
            SigSet::empty(),
        );
        for &signal in signals {
            // SAFETY: the handler does nothing but what is safe in one.
            unsafe { sigaction(signal, &action) }
                .with_context(|| format!("handle {}", signal.as_str()))?;
        }
        // Whoever started this process may have blocked them.
        let signals: SigSet = signals.iter().copied().collect();
        signals.thread_unblock().context("unblock signals")?;
        Ok(Signals { pipe })
    }

    pub(super) fn waker(&self) -> Waker {
        Waker { pipe: self.pipe }
    }

    /// The next in the order of arrival, if any came.
    pub(super) fn next(&self) -> Result<Option<Arrival>> {
        loop {
            let mut number = [0];
            return match read(&self.pipe.receive, &mut number) {
                Ok(1) if number == [CALL] => Ok(Some(Arrival::Call)),
                Ok(1) => Ok(Signal::try_from(i32::from(number[0]))
                    .ok()
                    .map(Arrival::Signal)),
                Ok(_) | Err(Errno::EAGAIN) => Ok(None),
                Err(Errno::EINTR) => continue,
                Err(errno) => Err(errno).context("read signals"),
            };
        }
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pipe.receive.as_fd()
    }
}

/// Whether this process was started with the signal ignored, as nohup(1) does with SIGHUP.
pub(super) fn ignored(signal: Signal) -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    status
        .lines()
        .find_map(|line| line.strip_prefix("SigIgn:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .is_some_and(|mask| mask >> (signal as i32 - 1) & 1 == 1)
}
