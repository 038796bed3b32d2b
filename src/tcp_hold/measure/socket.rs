//! A connection, held or not.

use std::net::TcpStream;
use std::os::fd::AsRawFd;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{setsockopt, sockopt};
use nix::sys::time::TimeVal;

use crate::tcp_hold::Held;

/// How often a thread that waits for its peer looks whether it is to end.
const LOOK: TimeVal = TimeVal::new(0, 100_000);
const _: () = assert!(Duration::from_millis(100).as_micros() == 100_000);

/// A connection.
#[derive(Debug)]
pub enum Socket {
    /// The kernel acknowledges what comes.
    Plain(TcpStream),
    /// What is confirmed is acknowledged.
    Held(Held<TcpStream>),
}

impl Socket {
    /// Set up as the original's are: small segments do not wait, and its end is a reset.
    pub fn prepare(stream: &TcpStream) -> Result<()> {
        stream.set_nodelay(true).context("set TCP_NODELAY")?;
        stream.set_nonblocking(false).context("let it block")?;
        let reset = libc::linger {
            l_onoff: 1,
            l_linger: 0,
        };
        setsockopt(stream, sockopt::Linger, &reset).context("set SO_LINGER")?;
        setsockopt(stream, sockopt::ReceiveTimeout, &LOOK).context("set SO_RCVTIMEO")?;
        setsockopt(stream, sockopt::SendTimeout, &LOOK).context("set SO_SNDTIMEO")
    }

    /// To read from and to write to.
    pub fn stream(&self) -> &TcpStream {
        match self {
            Socket::Plain(stream) => stream,
            Socket::Held(held) => held,
        }
    }

    /// So many bytes were dealt with.
    pub fn confirm(&self, bytes: u64) -> Result<()> {
        match self {
            Socket::Plain(_) => Ok(()),
            Socket::Held(held) => held.confirm(bytes),
        }
    }

    /// Tells the peer what was confirmed, unless it knows. Says whether that took system calls.
    pub fn announce(&self) -> Result<bool> {
        match self {
            Socket::Plain(_) => Ok(false),
            Socket::Held(held) => held.announce(),
        }
    }

    /// Bytes that were acknowledged before it was held.
    pub fn exposed(&self) -> u64 {
        match self {
            Socket::Plain(_) => 0,
            Socket::Held(held) => held.exposed(),
        }
    }

    /// Segments that this end has sent again.
    pub fn retransmitted(&self) -> Result<u64> {
        // SAFETY: integers only; zero is a value of each.
        let mut info: libc::tcp_info = unsafe { std::mem::zeroed() };
        let mut length = size_of::<libc::tcp_info>() as libc::socklen_t;
        // SAFETY: both places are this function's, and the kernel writes `length` bytes at most.
        let result = unsafe {
            libc::getsockopt(
                self.stream().as_raw_fd(),
                libc::IPPROTO_TCP,
                libc::TCP_INFO,
                (&raw mut info).cast(),
                &raw mut length,
            )
        };
        Errno::result(result).context("ask for TCP_INFO")?;
        Ok(info.tcpi_total_retrans.into())
    }
}
