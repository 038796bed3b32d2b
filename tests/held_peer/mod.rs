//! A peer in a network namespace of his own, across a cable, and what his kernel says of a connection.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::os::fd::AsRawFd;
use std::thread::sleep;
use std::time::{Duration, Instant};

use netbpf::tc::Method;
use nix::libc;
use testbed::attaching;
use testbed::namespace::{Namespace, Place, Veth};
use testbed::sandbox;
use testbed::sandbox::Sandbox;
use testbed::step;

pub const HERE: [&str; 2] = ["192.0.2.1", "2001:db8::1"];
pub const PEER: [&str; 2] = ["192.0.2.2", "2001:db8::2"];
/// More than anything takes on a busy machine; nothing waits for it to pass. The longest is to load the program,
/// at which the verifier is busy for the better part of a second, and as many as there are tests load it at once.
pub const WITHIN: Duration = Duration::from_secs(60);
/// Longer than a delayed acknowledgement (200 ms at most), and than a probe for a lost tail.
pub const A_WHILE: Duration = Duration::from_millis(400);

/// The network around a holder.
pub struct Network {
    /// Where the peer is.
    pub peer: Place,
    /// Our address.
    pub here: IpAddr,
    /// The peer's.
    pub there: IpAddr,
}

/// By each way to attach and over IPv4 and IPv6.
pub fn in_each_network(name: &str, test: impl Fn(&Sandbox, &Network, Method) + Sync) {
    attaching::by_each_way(|way| {
        let method = match way {
            "tcx" => Method::Tcx,
            _ => Method::Clsact,
        };
        for family in [0, 1] {
            in_network(name, family, |sandbox, network| {
                test(sandbox, network, method);
            });
        }
    });
}

/// Over IPv4 (0) or IPv6 (1).
pub fn in_network(name: &str, family: usize, test: impl FnOnce(&Sandbox, &Network) + Send) {
    sandbox::run(name, |sandbox| {
        let namespace = Namespace::new("peer");
        let (here, peer) = (Place::here(), Place::named("peer"));
        let cable = Veth::new((&here, "up0"), (&peer, "eth0"));
        for (place, interface, addresses) in [(&here, "up0", HERE), (&peer, "eth0", PEER)] {
            place.ip(&format!("address add {}/24 dev {interface}", addresses[0]));
            place.ip(&format!(
                "address add {}/64 dev {interface} nodad",
                addresses[1]
            ));
        }
        let network = Network {
            peer,
            here: step(HERE[family], HERE[family].parse()),
            there: step(PEER[family], PEER[family].parse()),
        };
        test(sandbox, &network);
        drop((cable, namespace));
    });
}

impl Network {
    /// The peer connects to us.
    pub fn connect_from_peer(&self, address: SocketAddr) -> TcpStream {
        let stream = self
            .peer
            .run(|| TcpStream::connect_timeout(&address, WITHIN));
        let stream = patient(step("the peer connects", stream));
        let from = step("his address", stream.local_addr());
        assert_eq!(from.ip(), self.there);
        // Or a small segment would wait for the acknowledgement of the one before it (RFC 9293, 3.7.4).
        step("set TCP_NODELAY", stream.set_nodelay(true));
        stream
    }
}

pub fn patient(stream: TcpStream) -> TcpStream {
    step("bound", stream.set_read_timeout(Some(WITHIN)));
    step("bound", stream.set_write_timeout(Some(WITHIN)));
    stream
}

pub fn write(mut stream: &TcpStream, bytes: usize) {
    step("write", stream.write_all(&vec![7; bytes]));
}

pub fn read(mut stream: &TcpStream, bytes: usize) {
    step("read", stream.read_exact(&mut vec![0; bytes]));
}

/// Bytes that this end has sent and nobody has acknowledged.
pub fn unacknowledged(stream: &TcpStream) -> i32 {
    let mut bytes = 0;
    // SAFETY: TIOCOUTQ writes one int.
    let result = unsafe { libc::ioctl(stream.as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) };
    step(
        "ask for unacknowledged bytes",
        nix::errno::Errno::result(result),
    );
    bytes
}

#[track_caller]
pub fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < WITHIN, "{what} did not happen");
        sleep(Duration::from_millis(5));
    }
}

/// For a while, however often either end sends something.
#[track_caller]
pub fn assert_stays(peer: &TcpStream, unacknowledged_bytes: i32) {
    let start = Instant::now();
    while start.elapsed() < A_WHILE {
        assert_eq!(unacknowledged(peer), unacknowledged_bytes);
        sleep(Duration::from_millis(5));
    }
}
