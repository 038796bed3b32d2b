//! Standard output as tools write reports to it: redrawn in place on a terminal, plain lines in a
//! pipe, and never waited for. A reader that has stopped (Ctrl-S, a paused pager, the very ssh session
//! that is policed) must not keep a tool from its work or from its end. Standard error likewise, for
//! what is said in between.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, IsTerminal, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::libc::{O_CLOEXEC, O_NOCTTY, O_NONBLOCK};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::write;

/// How long the last words may wait for their reader.
const PATIENCE: Duration = Duration::from_millis(500);

/// Where reports go.
#[derive(Debug)]
pub struct Output {
    given: Given,
    /// None: it is a file or the like, where writing does not wait.
    without_waiting: Option<File>,
    terminal: bool,
    /// What the reader has not taken yet.
    pending: Vec<u8>,
    /// Lines between the cursor and the first line of the last picture.
    drawn: usize,
    skipped: u64,
}

/// The stream as it was given to us.
#[derive(Debug)]
enum Given {
    Stdout(io::Stdout),
    Stderr(io::Stderr),
}

impl AsFd for Given {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Given::Stdout(stdout) => stdout.as_fd(),
            Given::Stderr(stderr) => stderr.as_fd(),
        }
    }
}

impl Output {
    /// Standard output. Opens it once more without blocking, so it is to be called before privileges
    /// are dropped: the terminal may be another user's.
    pub fn open() -> Output {
        Output::on(Given::Stdout(io::stdout()))
    }

    /// Standard error, likewise.
    pub fn open_stderr() -> Output {
        Output::on(Given::Stderr(io::stderr()))
    }

    fn on(given: Given) -> Output {
        let terminal = given.as_fd().is_terminal();
        Output {
            without_waiting: reopened(given.as_fd(), terminal),
            given,
            terminal,
            pending: Vec::new(),
            drawn: 0,
            skipped: 0,
        }
    }

    /// Reports that were left out because the one before had not been taken.
    pub fn skipped(&self) -> u64 {
        self.skipped
    }

    /// Shows a picture in the place of the last one, and `prompt` below it. In a pipe there is no
    /// place to go back to and nobody to prompt: the picture follows after an empty line.
    pub fn draw(&mut self, picture: &str, prompt: &str) -> io::Result<()> {
        if !self.terminal {
            return self.offer(&format!("\n{picture}"));
        }
        let back = match self.drawn {
            0 => "\r\x1b[J".to_owned(),
            lines => format!("\r\x1b[{lines}A\x1b[J"),
        };
        self.drawn = picture.lines().count();
        // Without wrapping, so that a line of the picture is a line of the screen.
        self.offer(&format!("{back}\x1b[?7l{picture}\x1b[?7h{prompt}"))
    }

    /// Writes a line.
    pub fn line(&mut self, line: &str) -> io::Result<()> {
        self.offer(&format!("{line}\n"))
    }

    /// Writes the last words, below everything else; waits a moment for the reader to take them.
    pub fn conclude(&mut self, words: &str) -> io::Result<()> {
        self.pending.extend_from_slice(words.as_bytes());
        let deadline = Instant::now() + PATIENCE;
        loop {
            self.flush()?;
            let left = deadline.saturating_duration_since(Instant::now());
            if self.pending.is_empty() {
                return Ok(());
            }
            if left.is_zero() {
                return Err(io::Error::new(
                    ErrorKind::TimedOut,
                    "nobody took the last report from stdout",
                ));
            }
            let mut fds = [PollFd::new(self.target(), PollFlags::POLLOUT)];
            let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::ZERO);
            // An interrupted wait is looked at again like one that is over.
            let _ = poll(&mut fds, timeout);
        }
    }

    /// Writes `text`, or leaves it out where what was written before has not been taken, by the reader
    /// or by a full disk. What has been taken in part goes on where it stopped.
    fn offer(&mut self, text: &str) -> io::Result<()> {
        self.flush().inspect_err(|_| self.skipped += 1)?;
        if self.pending.is_empty() {
            self.pending.extend_from_slice(text.as_bytes());
            self.flush()
        } else {
            self.skipped += 1;
            Ok(())
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        if let (Given::Stdout(stdout), None) = (&mut self.given, &self.without_waiting) {
            // What others print goes before.
            stdout.flush()?;
        }
        while !self.pending.is_empty() {
            // Not by way of Stdout, which keeps what it could not write and does not say how much.
            match write(self.target(), &self.pending) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(written) => drop(self.pending.drain(..written)),
                Err(Errno::EAGAIN) => return Ok(()),
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(())
    }

    fn target(&self) -> BorrowedFd<'_> {
        match &self.without_waiting {
            Some(file) => file.as_fd(),
            None => self.given.as_fd(),
        }
    }
}

/// A pipe or terminal opened once more: O_NONBLOCK on the descriptor that we were given would be set
/// for everybody who shares it. (A file opened once more would be written from its start.)
fn reopened(given: BorrowedFd<'_>, is_terminal: bool) -> Option<File> {
    let path = format!("/proc/self/fd/{}", given.as_raw_fd());
    let kind = std::fs::metadata(&path).ok()?.file_type();
    if !(kind.is_fifo() || is_terminal) {
        return None;
    }
    let mut options = OpenOptions::new();
    options
        .write(true)
        .custom_flags(O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    options.open(path).ok()
}
