//! Enter, read from stdin.

use std::io::{self, IsTerminal};
use std::os::fd::AsFd;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, SigmaskHow, Signal};
use nix::sys::termios::{FlushArg, tcflush};
use nix::unistd::{getpgrp, read, tcgetpgrp};

/// Bytes without an end of line after which stdin is taken for data that is not meant for us.
const LONGEST_LINE: usize = 64 * 1024;

/// Bytes read at a time, so that a flood of them does not keep the caller from its signals.
const BYTES_A_CALL: usize = 4096;

/// What stdin had to say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Line {
    /// Nothing yet.
    None,
    /// A line ended.
    Read,
    /// It just ended, and is not looked at any more.
    Closed,
}

/// The state of stdin. It is read one byte at a time: what follows the line belongs to whoever
/// reads stdin next, as for the `read` of a shell.
#[derive(Debug)]
pub(super) struct Stdin {
    open: bool,
    terminal: bool,
    /// Bytes of the line that has not ended yet.
    length: usize,
    /// A line that was read while only looking.
    held: bool,
}

impl Stdin {
    pub(super) fn new() -> Self {
        Stdin {
            open: true,
            terminal: io::stdin().is_terminal(),
            length: 0,
            held: false,
        }
    }

    /// False once it has ended.
    pub(super) fn is_open(&self) -> bool {
        self.open
    }

    /// It is a terminal that another job is reading at present: what is typed is not for us.
    pub(super) fn in_background(&self) -> bool {
        // An error means that it is not our controlling terminal, and nobody's job.
        self.open
            && self.terminal
            && tcgetpgrp(io::stdin()).is_ok_and(|foreground| foreground != getpgrp())
    }

    /// Throws away what was typed on a terminal and not read yet.
    pub(super) fn forget_typed(&self) {
        if self.terminal && !self.in_background() {
            // Failing that, an early Enter counts as an answer: not worth an error.
            let _ = tcflush(io::stdin(), FlushArg::TCIFLUSH);
        }
    }

    /// Finds out whether it has ended already; a line met on the way is kept for
    /// [`Stdin::line`].
    pub(super) fn look(&mut self) {
        self.held = self.held || self.line(ready()) == Line::Read;
    }

    /// The end of a line, if `readable` and there is one.
    pub(super) fn line(&mut self, readable: bool) -> Line {
        if std::mem::take(&mut self.held) {
            return Line::Read;
        }
        if !self.open || !readable {
            return Line::None;
        }
        for _ in 0..BYTES_A_CALL {
            if self.in_background() || !ready() {
                return Line::None;
            }
            let mut byte = [0];
            match self.read(&mut byte) {
                Ok(1) if byte == *b"\n" => {
                    self.length = 0;
                    return Line::Read;
                }
                Ok(1) if self.length < LONGEST_LINE => self.length += 1,
                Err(Errno::EAGAIN | Errno::EINTR) => return Line::None,
                // Sent to the background between the check and the read.
                Err(Errno::EIO) if self.in_background() => return Line::None,
                Ok(_) | Err(_) => {
                    self.open = false;
                    return Line::Closed;
                }
            }
        }
        Line::None
    }

    /// Reads; a terminal from the background is then an error (EIO) and does not stop this job
    /// and its neighbours in a pipeline by SIGTTIN.
    fn read(&self, bytes: &mut [u8]) -> nix::Result<usize> {
        if !self.terminal {
            return read(io::stdin(), bytes);
        }
        let mut mask = SigSet::empty();
        mask.add(Signal::SIGTTIN);
        let before = mask.thread_swap_mask(SigmaskHow::SIG_BLOCK)?;
        let result = read(io::stdin(), bytes);
        before.thread_set_mask()?;
        result
    }
}

/// Whether reading stdin now would not wait. Its end and errors count.
fn ready() -> bool {
    let stdin = io::stdin();
    let mut fds = [PollFd::new(stdin.as_fd(), PollFlags::POLLIN)];
    poll(&mut fds, PollTimeout::ZERO).is_ok_and(|count| count > 0)
}
