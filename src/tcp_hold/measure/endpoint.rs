//! How connections are made: all of them, before anything is sent.

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags};
use nix::sys::socket::{
    self, AddressFamily, Backlog, SockFlag, SockType, SockaddrStorage, getsockopt, setsockopt,
    sockopt,
};

use super::hook::Hook;
use super::socket::Socket;
use crate::Failure;
use crate::ending::wait;

/// How often it is looked whether the run is to end.
const LOOK: Duration = Duration::from_millis(50);

/// Called with each line that the original prints.
pub type OnLine<'a> = dyn FnMut(&str) -> Result<()> + 'a;
/// Called now and then; its error ends the wait.
pub type Check<'a> = dyn FnMut() -> Result<()> + 'a;

/// Listens, with room for all connections to wait.
pub fn listen(address: SocketAddr, connections: usize) -> Result<TcpListener> {
    let socket = open(address)?;
    let listening = || -> nix::Result<()> {
        // Or the next run would have to wait for the connections of the one before.
        setsockopt(&socket, sockopt::ReuseAddr, &true)?;
        socket::bind(socket.as_raw_fd(), &SockaddrStorage::from(address))?;
        let most = i32::try_from(connections).unwrap_or(i32::MAX);
        socket::listen(&socket, Backlog::new(most).unwrap_or(Backlog::MAXCONN))
    };
    match listening() {
        Ok(()) => Ok(TcpListener::from(socket)),
        Err(Errno::EADDRINUSE) => {
            let taken = format!("{address} is in use; choose another port, or end who has it");
            Err(Failure::Conflict(taken).into())
        }
        Err(Errno::EADDRNOTAVAIL) => {
            let absent = format!("no interface of this host has the address {}", address.ip());
            Err(Failure::Usage(absent).into())
        }
        Err(Errno::EACCES) => {
            let refused = format!(
                "listening at port {} takes CAP_NET_BIND_SERVICE",
                address.port()
            );
            Err(Failure::Privilege(refused).into())
        }
        Err(errno) => Err(errno).with_context(|| format!("listen at {address}")),
    }
}

/// Waits for so many connections.
pub fn accept(
    listener: &TcpListener,
    connections: usize,
    mut hook: Option<&mut Hook<'_>>,
    on_line: &mut OnLine<'_>,
    check: &mut Check<'_>,
) -> Result<Vec<Socket>> {
    let mut sockets = Vec::with_capacity(connections);
    while sockets.len() < connections {
        let (stream, peer) = match listener.accept() {
            Ok(accepted) => accepted,
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                wait_for(listener.as_fd(), PollFlags::POLLIN, check)?;
                continue;
            }
            // It has gone already.
            Err(error) if error.kind() == ErrorKind::ConnectionAborted => continue,
            Err(error) => return Err(error).context("accept a connection"),
        };
        check()?;
        Socket::prepare(&stream)?;
        let socket = match &mut hook {
            None => Socket::Plain(stream),
            Some(hook) => {
                let local = stream.local_addr().context("ask for the own address")?;
                hook.attach_towards(peer, Some(local.ip().to_canonical()))?;
                hook.hold(stream)?
            }
        };
        sockets.push(socket);
        let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
        on_line(&format!("Connection #{} from {peer}", sockets.len()))?;
    }
    Ok(sockets)
}

/// Makes so many connections.
pub fn connect(
    address: SocketAddr,
    connections: usize,
    mut hook: Option<&mut Hook<'_>>,
    on_line: &mut OnLine<'_>,
    check: &mut Check<'_>,
) -> Result<Vec<Socket>> {
    if let Some(hook) = &mut hook {
        hook.attach_towards(address, None)?;
    }
    let mut sockets = Vec::with_capacity(connections);
    while sockets.len() < connections {
        let stream = TcpStream::from(open(address)?);
        // Held before it connects, no byte can come before it is.
        let socket = match &hook {
            None => Socket::Plain(stream),
            Some(hook) => hook.hold(stream)?,
        };
        establish(socket.stream(), address, check)
            .with_context(|| format!("connect to {address}"))?;
        Socket::prepare(socket.stream())?;
        sockets.push(socket);
        on_line(&format!("Connected #{}", sockets.len()))?;
    }
    Ok(sockets)
}

fn open(address: SocketAddr) -> Result<OwnedFd> {
    let family = match address {
        SocketAddr::V4(_) => AddressFamily::Inet,
        SocketAddr::V6(_) => AddressFamily::Inet6,
    };
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    socket::socket(family, SockType::Stream, flags, None).context("open a socket")
}

fn establish(stream: &TcpStream, address: SocketAddr, check: &mut Check<'_>) -> Result<()> {
    check()?;
    match socket::connect(stream.as_raw_fd(), &SockaddrStorage::from(address)) {
        Ok(()) => return Ok(()),
        Err(Errno::EINPROGRESS) => {}
        Err(errno) => return Err(errno.into()),
    }
    while !wait_for(stream.as_fd(), PollFlags::POLLOUT, check)? {}
    match getsockopt(stream, sockopt::SocketError)? {
        0 => Ok(()),
        errno => Err(Errno::from_raw(errno).into()),
    }
}

/// Waits a moment; says whether it is ready.
fn wait_for(fd: BorrowedFd<'_>, wanted: PollFlags, check: &mut Check<'_>) -> Result<bool> {
    check()?;
    let mut fds = [PollFd::new(fd, wanted)];
    wait(&mut fds, Some(Instant::now() + LOOK)).context("wait for a connection")?;
    Ok(fds.first().and_then(PollFd::any) == Some(true))
}
