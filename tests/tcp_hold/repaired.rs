//! Connections that nobody has made, with any sequence numbers (linux/tcp.h, TCP_REPAIR).

use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsRawFd;

use nix::libc;
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrStorage, bind, connect, setsockopt, socket, sockopt,
};
use testbed::namespace::Place;
use testbed::step;

use crate::bench::tcp_option;
use crate::held_peer::patient;

const RECEIVE_QUEUE: u32 = 1;
const SEND_QUEUE: u32 = 2;
const TCP_REPAIR_WINDOW: i32 = 29;

/// Where an end is, and the number of the next byte that it sends.
#[derive(Clone, Copy)]
pub struct End<'a> {
    pub place: &'a Place,
    pub address: SocketAddr,
    pub next: u32,
}

/// Both ends of a connection. Neither says anything before [`go`].
pub fn connection(one: End<'_>, other: End<'_>) -> (TcpStream, TcpStream) {
    let end = |from: End<'_>, to: End<'_>| {
        (from.place).run(|| repaired(from.address, to.address, from.next, to.next))
    };
    (end(one, other), end(other, one))
}

/// From now on they are at work.
pub fn go(ends: [&TcpStream; 2]) {
    for end in ends {
        tcp_option(end, libc::TCP_REPAIR, 0_u32);
    }
}

fn repaired(local: SocketAddr, remote: SocketAddr, send: u32, receive: u32) -> TcpStream {
    let stream = bound(local);
    tcp_option(&stream, libc::TCP_REPAIR, 1_u32);
    for (queue, sequence) in [(SEND_QUEUE, send), (RECEIVE_QUEUE, receive)] {
        tcp_option(&stream, libc::TCP_REPAIR_QUEUE, queue);
        tcp_option(&stream, libc::TCP_QUEUE_SEQ, sequence);
    }
    connect_to(&stream, remote);
    // What a handshake would have agreed on, as code and value: the largest segment, the factors of both windows
    // (2^7 to send into, 2^7 to receive into), selective acknowledgements (RFC 9293, 7323, 2018).
    let options: [u32; 6] = [2, 1400, 3, 7 | 7 << 16, 4, 0];
    tcp_option(&stream, libc::TCP_REPAIR_OPTIONS, options);
    // struct tcp_repair_window: since which number of his which window to send into, the largest so far, the
    // window to receive into, and since which number that was said.
    let window = 65_535;
    let windows = [receive, window, window, window, receive];
    tcp_option(&stream, TCP_REPAIR_WINDOW, windows);
    patient(stream)
}

/// A socket at this address, whatever was there before.
pub fn bound(address: SocketAddr) -> TcpStream {
    let stream = unbound(address);
    step("reuse", setsockopt(&stream, sockopt::ReuseAddr, &true));
    let address = SockaddrStorage::from(address);
    step("bind", bind(stream.as_raw_fd(), &address));
    stream
}

/// A socket of this address's family.
pub fn unbound(address: SocketAddr) -> TcpStream {
    let family = match address {
        SocketAddr::V4(_) => AddressFamily::Inet,
        SocketAddr::V6(_) => AddressFamily::Inet6,
    };
    let fd = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None);
    TcpStream::from(step("make a socket", fd))
}

pub fn connect_to(stream: &TcpStream, address: SocketAddr) {
    let address = SockaddrStorage::from(address);
    step("connect", connect(stream.as_raw_fd(), &address));
}
