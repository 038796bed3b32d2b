//! The agent's socket, and the applications that have come by it.

use std::fs;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags};
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, UnixAddr, accept4, bind, connect, listen, socket,
};
use nix::sys::stat::{Mode, umask};

use super::client::Client;
use super::served::Served;
use super::taken;
use crate::ending::{Ending, Woken};
use crate::failure::say;
use crate::tcp_hold::holder::Holds;

/// Connections that wait to be accepted.
const WAITING: i32 = 128;
/// After an application could not be accepted, for want of a descriptor as a rule, it goes on waiting, and what
/// it waits for is ready all the time. So often it is tried again.
const TRIED_EVERY: Duration = Duration::from_millis(250);

pub struct Server {
    socket: OwnedFd,
    /// Removed in the end.
    path: PathBuf,
    holds: Holds,
    served: Arc<Served>,
}

impl Server {
    /// Makes the socket, in place of one that a killed agent left.
    pub fn open(path: &Path, mode: u32, holds: Holds, served: &Arc<Served>) -> Result<Server> {
        let address = UnixAddr::new(path).context("name the agent's socket")?;
        let socket = packet_socket()?;
        let making = || format!("make the socket {}", path.display());
        match bind_as(&socket, &address, mode) {
            Err(Errno::EADDRINUSE) => {
                let tried = packet_socket()?;
                if connect(tried.as_raw_fd(), &address) != Err(Errno::ECONNREFUSED) {
                    return Err(taken(path).into());
                }
                fs::remove_file(path).with_context(making)?;
                bind_as(&socket, &address, mode).with_context(making)?;
            }
            made => made.with_context(making)?,
        }
        let server = Server {
            socket,
            path: path.to_owned(),
            holds,
            served: Arc::clone(served),
        };
        listen(&server.socket, Backlog::new(WAITING)?).context("listen for applications")?;
        Ok(server)
    }

    /// Serves applications until it is to end.
    pub fn serve(self, ending: &Ending) -> Result<()> {
        let mut clients: Vec<Client> = Vec::new();
        // After it has failed.
        let mut next_try: Option<Instant> = None;
        loop {
            let pause = next_try.filter(|at| *at > Instant::now());
            let calls = match pause {
                Some(_) => PollFlags::empty(),
                None => PollFlags::POLLIN,
            };
            let mut ready = vec![PollFd::new(self.socket.as_fd(), calls)];
            let wires = clients.iter().map(Client::wire);
            ready.extend(wires.map(|wire| PollFd::new(wire, PollFlags::POLLIN)));
            if ending.wait(&mut ready, pause)? == Woken::ToEnd {
                return Ok(());
            }
            let mut is_ready = ready.iter().map(|fd| fd.any() == Some(true));
            let is_called = is_ready.next() == Some(true);
            let is_ready: Vec<bool> = is_ready.collect();
            let mut is_ready = is_ready.into_iter();
            clients.retain_mut(|client| {
                is_ready.next() != Some(true) || client.serve(&self.holds, &self.served)
            });
            if is_called {
                match accept4(self.socket.as_raw_fd(), SockFlag::SOCK_CLOEXEC) {
                    Ok(wire) => {
                        // SAFETY: the kernel has just opened it, and nobody else knows it.
                        clients.push(Client::new(unsafe { OwnedFd::from_raw_fd(wire) }));
                        next_try = None;
                    }
                    // It has gone again.
                    Err(Errno::EAGAIN | Errno::EINTR | Errno::ECONNABORTED) => {}
                    Err(error) => {
                        if next_try.is_none() {
                            say(format_args!(
                                "accept an application: {error}; it waits until that works"
                            ));
                        }
                        next_try = Some(Instant::now() + TRIED_EVERY);
                    }
                }
            }
            self.served.connected(clients.len());
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Who has removed it already meant it.
        let _ = fs::remove_file(&self.path);
    }
}

fn packet_socket() -> Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    socket(AddressFamily::Unix, SockType::SeqPacket, flags, None).context("open a unix socket")
}

/// Nobody gets in before its mode is right.
fn bind_as(socket: &OwnedFd, address: &UnixAddr, mode: u32) -> nix::Result<()> {
    let before = umask(Mode::from_bits_truncate(0o777 & !mode));
    let bound = bind(socket.as_raw_fd(), address);
    umask(before);
    bound
}
