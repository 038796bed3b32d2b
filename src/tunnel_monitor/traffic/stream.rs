//! One TCP connection, both ends of which are ours.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::poll::PollFlags;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrStorage, connect, socket};

use super::list::Stream;
use super::pace::Allowance;
use super::senders::{Tally, inside};
use super::sites::Route;
use crate::ending::reset;

/// Bytes of one system call.
const PIECE: usize = 64 << 10;
/// What is sent.
static ZEROS: [u8; PIECE] = [0; PIECE];
/// System calls before it is another's turn.
const AT_ONCE: u32 = 16;

/// Sends bytes, and counts those that arrive.
#[derive(Debug)]
pub struct StreamJob {
    to: SocketAddr,
    plan: Stream,
    allowance: Allowance,
    sender: Sender,
    /// Until the connection has been made.
    listener: Option<TcpListener>,
    receiver: Option<TcpStream>,
    /// The receiver has seen the last byte, or never will.
    over: bool,
}

#[derive(Debug)]
enum Sender {
    Idle(OwnedFd),
    Sending {
        stream: TcpStream,
        /// The kernel takes no more for now.
        full: bool,
    },
    /// All is sent. Kept until the other end has it.
    Done(TcpStream),
    Broken,
}

impl StreamJob {
    /// A listener at the other end, and a socket at this one.
    pub fn open(route: &Route<'_>, plan: Stream) -> Result<StreamJob> {
        let address = route.entry.to;
        let (listener, to) = inside(route.receiver()?, || {
            let listener = TcpListener::bind(SocketAddr::new(address, 0))
                .with_context(|| format!("listen on {address}"))?;
            listener
                .set_nonblocking(true)
                .context("make it non-blocking")?;
            let to = listener.local_addr().context("read its port")?;
            Ok((listener, to))
        })?;
        let family = if address.is_ipv4() {
            AddressFamily::Inet
        } else {
            AddressFamily::Inet6
        };
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let sender = inside(route.from, || {
            socket(family, SockType::Stream, flags, None).context("open a socket")
        })?;
        let total = plan.total.map(|total| total.bytes());
        Ok(StreamJob {
            to,
            plan,
            allowance: Allowance::new(Instant::now(), plan.rate.bits(), total),
            sender: Sender::Idle(sender),
            listener: Some(listener),
            receiver: None,
            over: false,
        })
    }

    /// Starts the clock.
    pub fn begin(&mut self, at: Instant) {
        let total = self.plan.total.map(|total| total.bytes());
        self.allowance = Allowance::new(at, self.plan.rate.bits(), total);
    }

    /// Sends what is due. When there is more, if nothing happens before; none: no more.
    pub fn send(&mut self, tally: &mut Tally, now: Instant) -> Option<Instant> {
        for _ in 0..AT_ONCE {
            if let Sender::Idle(_) = self.sender {
                self.connect(tally);
            }
            let Sender::Sending { stream, full } = &mut self.sender else {
                return None;
            };
            if *full {
                // What wakes us is room; should that never come, we look as rarely as this.
                return Some(now + Duration::from_secs(1));
            }
            let allowed = self.allowance.at(now);
            if allowed == 0 {
                break;
            }
            let piece = usize::try_from(allowed).unwrap_or(PIECE).min(PIECE);
            match stream.write(ZEROS.get(..piece).unwrap_or_default()) {
                Ok(sent) => {
                    self.allowance.take(sent as u64);
                    tally.sent.bytes += sent as u64;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => *full = true,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => {
                    self.fail(tally, &error.to_string());
                    return None;
                }
            }
            if self.allowance.left() == 0 {
                self.stop();
                return None;
            }
        }
        self.allowance.due()
    }

    fn connect(&mut self, tally: &mut Tally) {
        let Sender::Idle(socket) = std::mem::replace(&mut self.sender, Sender::Broken) else {
            return;
        };
        match connect(socket.as_raw_fd(), &SockaddrStorage::from(self.to)) {
            Ok(()) | Err(Errno::EINPROGRESS | Errno::EINTR) => {
                self.sender = Sender::Sending {
                    stream: TcpStream::from(socket),
                    // Until it is made.
                    full: true,
                };
            }
            Err(errno) => self.fail(tally, errno.desc()),
        }
    }

    fn fail(&mut self, tally: &mut Tally, problem: &str) {
        tally.fail(problem);
        self.cut();
        self.over = true;
    }

    /// What it waits for, besides time.
    pub fn waits_for(&self) -> [Option<(BorrowedFd<'_>, PollFlags)>; 2] {
        let sender = match &self.sender {
            Sender::Sending { stream, full: true } => Some((stream.as_fd(), PollFlags::POLLOUT)),
            _ => None,
        };
        let listener = self.listener.as_ref().map(AsFd::as_fd);
        let receiver = self.receiver.as_ref().map(AsFd::as_fd);
        let arriving = receiver.or(listener).filter(|_| !self.over);
        [sender, arriving.map(|fd| (fd, PollFlags::POLLIN))]
    }

    /// Takes what has arrived, or notices that there is room again.
    pub fn receive(&mut self, tally: &mut Tally) {
        if let Sender::Sending { full, .. } = &mut self.sender {
            *full = false;
        }
        if let Some(Ok((stream, _))) = self.listener.as_ref().map(TcpListener::accept)
            && stream.set_nonblocking(true).is_ok()
        {
            self.receiver = Some(stream);
            self.listener = None;
        }
        let Some(stream) = &mut self.receiver else {
            return;
        };
        let mut buffer = [0; PIECE];
        for _ in 0..AT_ONCE {
            match stream.read(&mut buffer) {
                Ok(0) => self.over = true,
                Ok(length) => {
                    tally.received.bytes += length as u64;
                    continue;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                // The sender is told of it as well, and says so.
                Err(_) => self.over = true,
            }
            return;
        }
    }

    /// Nothing more is to be sent.
    pub fn stop(&mut self) {
        match std::mem::replace(&mut self.sender, Sender::Broken) {
            Sender::Sending { stream, .. } => {
                // Fails where the connection has not been made: then nothing will arrive.
                self.over |= stream.shutdown(Shutdown::Write).is_err();
                self.sender = Sender::Done(stream);
            }
            Sender::Idle(_) => self.over = true,
            other => self.sender = other,
        }
    }

    /// Whether the other end has all of it, or never will.
    pub fn is_over(&self) -> bool {
        self.over
    }

    /// Closes both ends, so that neither keeps its namespace.
    fn cut(&mut self) {
        match std::mem::replace(&mut self.sender, Sender::Broken) {
            Sender::Sending { stream, .. } | Sender::Done(stream) => reset(stream),
            Sender::Idle(_) | Sender::Broken => {}
        }
        if let Some(stream) = self.receiver.take() {
            reset(stream);
        }
    }
}

impl Drop for StreamJob {
    fn drop(&mut self) {
        self.cut();
    }
}
