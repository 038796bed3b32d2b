//! What the kernel says of a connection, and what it is told.

use std::os::fd::{AsFd, AsRawFd};

use anyhow::{Context, Result, ensure};
use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{
    SockaddrIn, SockaddrIn6, SockaddrStorage, getsockname, getsockopt, setsockopt, sockopt,
};

use crate::Failure;

/// `struct tcp_info` (linux/tcp.h) as far as it is needed here; the kernel fills in what there is room for.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
struct TcpInfo {
    state: u8,
    other_bytes: [u8; 7],
    other_words: [u32; 24],
    pacing_rate: u64,
    max_pacing_rate: u64,
    bytes_acked: u64,
    bytes_received: u64,
}

/// States in which the peer's FIN has come, with all before it (net/tcp_states.h).
const WITH_FIN: [u8; 3] = [8, 9, 11];
/// It has ended: after both FINs, or by a reset.
const CLOSED: u8 = 7;

/// linux/tcp.h
const TCP_REPAIR_OFF: u32 = 0;

/// How far a connection has come, in bytes of the peer's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// That have come in order.
    pub received: u64,
    /// That the application has read.
    pub read: u64,
}

fn tcp_info(socket: &impl AsFd) -> Result<TcpInfo> {
    let mut info = TcpInfo::default();
    let mut length = size_of::<TcpInfo>() as libc::socklen_t;
    // SAFETY: both places are this function's, and the kernel writes `length` bytes at most; every bit pattern
    // is a TcpInfo.
    let result = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            (&raw mut info).cast(),
            &raw mut length,
        )
    };
    Errno::result(result).context("ask for TCP_INFO: is it a TCP socket?")?;
    ensure!(
        length as usize == size_of::<TcpInfo>(),
        "this kernel's TCP_INFO ends before the received bytes"
    );
    Ok(info)
}

fn unread(socket: &impl AsFd) -> Result<u64> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: FIONREAD writes one int, which is this function's.
    let result = unsafe { libc::ioctl(socket.as_fd().as_raw_fd(), libc::FIONREAD, &raw mut bytes) };
    Errno::result(result).context("ask for unread bytes")?;
    Ok(u64::try_from(bytes)?)
}

/// An option of so many bytes.
fn option<const N: usize>(
    socket: &impl AsFd,
    level: libc::c_int,
    name: libc::c_int,
) -> Result<[u8; N], Errno> {
    let mut value = [0; N];
    let mut length = N as libc::socklen_t;
    // SAFETY: both places are this function's, and the kernel writes `length` bytes at most.
    let result = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            level,
            name,
            (&raw mut value).cast(),
            &raw mut length,
        )
    };
    Errno::result(result).map(|_| value)
}

/// Whether a listener takes what comes in a SYN (RFC 7413).
pub fn is_fast_open(listener: &impl AsFd) -> Result<bool> {
    let most = option::<4>(listener, libc::IPPROTO_TCP, libc::TCP_FASTOPEN);
    let most = most.context("ask for TCP_FASTOPEN: is it a TCP socket?")?;
    Ok(most != [0; 4])
}

/// The packets of MPTCP are of other sockets, which nobody has, and leave as the kernel likes.
fn ensure_plain(socket: &impl AsFd) -> Result<()> {
    let protocol = option::<4>(socket, libc::SOL_SOCKET, libc::SO_PROTOCOL);
    let protocol = i32::from_ne_bytes(protocol.context("ask for SO_PROTOCOL: is it a socket?")?);
    ensure!(
        protocol == libc::IPPROTO_TCP,
        Failure::Usage(format!(
            "only plain TCP sockets can be held, and this one is of protocol {protocol} (MPTCP is 262)"
        ))
    );
    Ok(())
}

/// The local port of a socket, and of all connections that it accepts where it listens. `None`: it is not known
/// yet, or a transparent proxy's, who accepts what goes to any port (linux/Documentation/networking/tproxy.rst).
pub fn own_port(socket: &impl AsFd) -> Result<Option<u16>> {
    ensure_plain(socket)?;
    let is_transparent = option::<4>(socket, libc::SOL_IP, libc::IP_TRANSPARENT);
    let is_transparent = is_transparent.context("ask for IP_TRANSPARENT: is it a TCP socket?")?;
    let address: SockaddrStorage =
        getsockname(socket.as_fd().as_raw_fd()).context("ask for the own address")?;
    let v4 = address.as_sockaddr_in().map(SockaddrIn::port);
    let v6 = address.as_sockaddr_in6().map(SockaddrIn6::port);
    let port = v4.or(v6).context("it is not a socket of TCP")?;
    Ok((port != 0 && is_transparent == [0; 4]).then_some(port))
}

/// The cookie of a socket's network namespace: no other one has it, as long as the machine runs.
pub fn network_namespace(socket: &impl AsFd) -> Result<u64> {
    let cookie = option::<8>(socket, libc::SOL_SOCKET, libc::SO_NETNS_COOKIE);
    let cookie = cookie.context("ask for SO_NETNS_COOKIE: is it a socket?")?;
    Ok(u64::from_ne_bytes(cookie))
}

impl Progress {
    /// As it is now. Nobody may be reading from the socket. `has_ended`: it is known that the peer's FIN has
    /// come.
    pub fn of(socket: &impl AsFd, has_ended: bool) -> Result<Progress> {
        // What comes between two questions must not pass for read.
        let mut before = tcp_info(socket)?;
        loop {
            let unread = unread(socket)?;
            let info = tcp_info(socket)?;
            let is_still =
                (info.state, info.bytes_received) == (before.state, before.bytes_received);
            before = info;
            if is_still {
                // The kernel counts the FIN. Where both have sent theirs, the state does not tell this end from
                // a reset: it passes for a byte then, until it is known.
                let has_fin = WITH_FIN.contains(&info.state) || (info.state == CLOSED && has_ended);
                let fin = u64::from(has_fin);
                let received = info.bytes_received.saturating_sub(fin);
                let read = received.checked_sub(unread);
                let read = read.context("more bytes are unread than were received")?;
                return Ok(Progress { received, read });
            }
        }
    }
}

/// What a socket had before it was held, and is to have again.
#[derive(Clone, Copy, Debug)]
pub struct Habits {
    linger: libc::linger,
    is_address_reused: bool,
}

impl Habits {
    /// From now on its end is a reset: every other segment of a closing socket would acknowledge what nobody
    /// has confirmed.
    pub fn suspend(socket: &impl AsFd) -> Result<Habits> {
        let habits = Habits {
            linger: getsockopt(socket, sockopt::Linger).context("ask for SO_LINGER")?,
            is_address_reused: getsockopt(socket, sockopt::ReuseAddr)
                .context("ask for SO_REUSEADDR")?,
        };
        let reset = libc::linger {
            l_onoff: 1,
            l_linger: 0,
        };
        setsockopt(socket, sockopt::Linger, &reset).context("set SO_LINGER")?;
        Ok(habits)
    }

    /// Its end is what it was before.
    pub fn resume(&self, socket: &impl AsFd) -> Result<()> {
        setsockopt(socket, sockopt::Linger, &self.linger).context("set SO_LINGER")
    }

    /// Has the kernel send a window probe, in a connection that is open both ways; in others nothing happens.
    pub fn probe(&self, socket: &impl AsFd) -> Result<()> {
        // To leave repair mode sends a probe, also where nobody had entered it. Never enter: until one has left
        // again, reads and writes of other threads fail.
        setsockopt(socket, sockopt::TcpRepair, &TCP_REPAIR_OFF)
            .context("send an acknowledgement (TCP_REPAIR; this takes CAP_NET_ADMIN)")?;
        // It cleared this, too.
        if self.is_address_reused {
            setsockopt(socket, sockopt::ReuseAddr, &true).context("set SO_REUSEADDR")?;
        }
        Ok(())
    }
}
