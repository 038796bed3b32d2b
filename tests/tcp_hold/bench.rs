//! A holder at the cable to the peer, and the network around it.

use std::io::Read;
use std::mem::MaybeUninit;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::ops::Deref;
use std::os::fd::{AsFd, AsRawFd};

use libbpf_rs::skel::SkelBuilder;
use libbpf_rs::{MapCore, OpenObject};
use netbpf::netlink::Netlink;
use netbpf::port::Port;
use netbpf::tc::{Attacher, Attachment, Direction, Method};
use netbpf::tcp_hold::{Events, Held, Holder, Setup};
use nix::errno::Errno;
use nix::libc;
use testbed::namespace::Place;
use testbed::step;

use crate::held_peer::{Network, in_each_network, patient, read, unacknowledged, until, write};
use crate::repaired::{self, End};

/// A link that loses packets.
mod lossy {
    include!(concat!(env!("OUT_DIR"), "/lossy.skel.rs"));
}

pub struct Bench<'a, 'obj> {
    pub holder: Holder<'obj>,
    network: &'a Network,
}

impl Deref for Bench<'_, '_> {
    type Target = Network;

    fn deref(&self) -> &Network {
        self.network
    }
}

/// In each network; whatever is done there, no packet may have been lost by the program.
pub fn run(name: &str, test: impl Fn(&Bench<'_, '_>) + Sync) {
    in_each_network(name, |_, network, method| {
        let mut object = MaybeUninit::uninit();
        let bench = Bench::new(network, method, &Setup::default(), &mut object);
        test(&bench);
        bench.assert_nothing_was_dropped();
    });
}

/// The same, with a connection that the peer made, held since it was accepted, and his end of it.
pub fn held(name: &str, test: impl Fn(&Bench<'_, '_>, Held<TcpStream>, TcpStream) + Sync) {
    run(name, |bench| {
        let (held, peer) = bench.accepted();
        test(bench, held, peer);
    });
}

impl<'a, 'obj> Bench<'a, 'obj> {
    /// Attached to `up0`, which leads to the peer.
    pub fn new(
        network: &'a Network,
        method: Method,
        setup: &Setup,
        object: &'obj mut MaybeUninit<OpenObject>,
    ) -> Bench<'a, 'obj> {
        let mut holder = step("load", Holder::load(setup, object));
        let mut netlink = step("open netlink", Netlink::open());
        let port = step("find up0", Port::find(&mut netlink, "up0"));
        step("attach", holder.attach(Some(method), &[port]));
        Bench { holder, network }
    }

    pub fn events(&self) -> Events {
        step("read the events", self.holder.events())
    }

    pub fn assert_nothing_was_dropped(&self) {
        let Events {
            unreadable, failed, ..
        } = self.events();
        assert_eq!((unreadable, failed), (0, 0));
    }

    /// A listener of ours, and how the peer gets there.
    pub fn listen(&self) -> (TcpListener, SocketAddr) {
        let listener = step("listen", TcpListener::bind((self.here, 0)));
        let address = step("own address", listener.local_addr());
        (listener, address)
    }

    /// The same, and what it accepts is held.
    pub fn listen_and_hold(&self) -> (TcpListener, SocketAddr) {
        let (listener, address) = self.listen();
        step(
            "hold what is accepted",
            self.holder.hold_accepted(&listener),
        );
        (listener, address)
    }

    /// A connection that the peer made, held since it was accepted, and his end of it.
    pub fn accepted(&self) -> (Held<TcpStream>, TcpStream) {
        let (listener, address) = self.listen_and_hold();
        let peer = self.connect_from_peer(address);
        (self.hold(accept(&listener)), peer)
    }

    /// The same, after so many bytes that came, were confirmed and acknowledged.
    pub fn confirmed(&self, bytes: usize) -> (Held<TcpStream>, TcpStream) {
        let (held, peer) = self.accepted();
        write(&peer, bytes);
        read(&held, bytes);
        confirm(&held, bytes as u64);
        until("all of it is acknowledged", || unacknowledged(&peer) == 0);
        (held, peer)
    }

    pub fn hold(&self, stream: TcpStream) -> Held<TcpStream> {
        step("hold", self.holder.hold(stream))
    }

    /// A connection with these numbers of the next bytes that we and the peer send, and his end of it; neither
    /// is at work yet.
    pub fn repaired(&self, ours: u32, his: u32) -> (TcpStream, TcpStream) {
        let here = End {
            place: &Place::here(),
            address: SocketAddr::new(self.here, 40_000),
            next: ours,
        };
        let there = End {
            place: &self.peer,
            address: SocketAddr::new(self.there, 40_001),
            next: his,
        };
        repaired::connection(here, there)
    }

    /// What is held beyond a socket's end, so that the guard need not wait until TIME-WAIT is over.
    pub fn forget_leavers(&self) {
        let leavers = &self.holder.skeleton().maps.leavers;
        for ends in leavers.keys() {
            step("forget it", leavers.delete(&ends));
        }
    }
}

pub fn accept(listener: &TcpListener) -> TcpStream {
    let (stream, _) = step("accept", listener.accept());
    patient(stream)
}

#[track_caller]
pub fn confirm(held: &Held<TcpStream>, bytes: u64) {
    step("confirm", held.confirm(bytes));
    step("announce", held.announce());
}

/// Reads so much, and confirms each read.
pub fn take(held: &Held<TcpStream>, bytes: usize) {
    let mut left = bytes;
    let mut buffer = vec![0; 8192];
    while left > 0 {
        let read = step("read", (&**held).read(&mut buffer));
        assert!(read > 0, "{left} bytes are missing");
        left -= read;
        confirm(held, read as u64);
    }
}

/// Ends a held connection in both directions, from here first, with so many bytes that were read and not
/// confirmed; how much the peer waits for then.
pub fn leave_first(held: &Held<TcpStream>, peer: &TcpStream, bytes: usize) -> i32 {
    step("we are done", held.shutdown(Shutdown::Write));
    read_to_the_end(peer);
    // One after the other: when his timer has run out, a peer sends no FIN before something is acknowledged.
    write(peer, bytes);
    step("the peer is done", peer.shutdown(Shutdown::Write));
    read(held, bytes);
    read_to_the_end(held);
    waits_for(peer, bytes)
}

#[track_caller]
pub fn read_to_the_end(mut stream: &TcpStream) {
    let mut rest = Vec::new();
    step("read to the end", stream.read_to_end(&mut rest));
    assert!(rest.is_empty(), "{} bytes more", rest.len());
}

/// How much a peer waits for who has sent so many bytes and his FIN: TIOCOUTQ counts it, when it has left.
#[track_caller]
pub fn waits_for(peer: &TcpStream, bytes: usize) -> i32 {
    let with_fin = unacknowledged(peer);
    let bytes = bytes as i32;
    assert!((bytes..=bytes + 1).contains(&with_fin), "{with_fin}");
    with_fin
}

pub fn tcp_option<T>(socket: &impl AsRawFd, name: i32, value: T) {
    // SAFETY: the kernel reads the value, which outlives the call, and no more than its size.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            name,
            (&raw const value).cast(),
            size_of_val(&value) as libc::socklen_t,
        )
    };
    step(format!("set TCP option {name}"), Errno::result(result));
}

/// Loses packets that come in at `up0`, or leave there.
pub struct Lossy<'obj> {
    skeleton: lossy::LossySkel<'obj>,
    _attached: Attachment,
}

impl<'obj> Lossy<'obj> {
    /// One of so many, always the same ones; none with 0.
    pub fn new(
        direction: Direction,
        one_of: u32,
        object: &'obj mut MaybeUninit<OpenObject>,
    ) -> Lossy<'obj> {
        let mut open = step("open", lossy::LossySkelBuilder::default().open(object));
        match open.maps.rodata_data.as_mut() {
            Some(rodata) => rodata.one_of = one_of,
            None => panic!("the losing program has no constants"),
        }
        let skeleton = step("load", netbpf::load::load(open));
        let program = skeleton.progs.lose.as_fd();
        let attacher = Attacher::new(Method::best(program));
        let ifindex = step("find up0", nix::net::if_::if_nametoindex("up0"));
        let attached = attacher.attach(program, "netbpf_lose", ifindex, direction);
        Lossy {
            _attached: step("attach", attached),
            skeleton,
        }
    }

    /// Loses so many of those that come next.
    pub fn lose(&mut self, packets: u32) {
        match self.skeleton.maps.bss_data.as_mut() {
            Some(bss) => bss.to_lose = packets,
            None => panic!("the losing program has no memory"),
        }
    }

    pub fn lost(&self) -> u32 {
        let bss = self.skeleton.maps.bss_data.as_ref();
        bss.map_or(0, |bss| bss.lost)
    }
}
