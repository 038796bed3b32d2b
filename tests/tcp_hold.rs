//! Held connections, with a peer across a cable, in a network namespace of his own: what he is told to have
//! arrived, as his own kernel says, is what was confirmed, and never more.
//!
//! What holds of every hold, and the tests that fail where it is broken:
//!
//! 1. An acknowledgement never goes back, and never beyond what is confirmed, in numbers that begin again:
//!    `only_what_is_confirmed_is_acknowledged`, `a_connection_at_work_is_held_from_now_on`,
//!    `sequence_numbers_begin_again`.
//! 2. None is dropped: `who_leaves_first_holds_back_still`, and with losses `what_is_lost_is_sent_again`.
//! 3. A probe that was asked for leaves as an acknowledgement: `only_what_is_confirmed_is_acknowledged`.
//! 4. A hold has bounds: `more_than_the_bound_is_released`, `more_than_the_bound_is_kept_and_said`.
//! 5. It has them in time, too: `what_is_held_for_too_long_is_released`,
//!    `what_is_confirmed_in_time_reaches_no_bound`.
//! 6. A FIN is acknowledged with the last byte before it, and not earlier: `a_fin_waits_for_what_is_before_it`;
//!    also when the socket is gone: `who_leaves_first_holds_back_still`.
//! 7. Options stay as they are: `what_is_lost_is_sent_again`, by SACK.
//! 8. An acknowledgement is forced only where one is due, and that leaves the socket as it was:
//!    `only_what_is_confirmed_is_acknowledged`, `who_is_released_is_as_before`.
//! 9. Checksums stay right, where the packet has one already as well (what IPv4 sends in TIME-WAIT):
//!    `who_leaves_first_holds_back_still`.
//! 10. A hold is its connection's, whatever is used again: `what_is_no_longer_confirmed_stays_held`,
//!     `what_comes_before_it_is_accepted_waits_too`, `the_next_one_between_the_same_ends_begins_anew`.
//! 11. Death acknowledges nothing: `whoever_goes_with_unconfirmed_bytes_resets_the_connection`, and
//!     tests/tcp_hold_guard.rs.
//! 12. A socket that was passed on is closed by whoever has it: tests/tcp_hold_agent.rs.

mod held_peer;

/// A link that loses packets.
mod lossy {
    include!(concat!(env!("OUT_DIR"), "/lossy.skel.rs"));
}

use std::io::Read;
use std::mem::MaybeUninit;
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::ops::Deref;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::{Arc, Mutex};
use std::thread::sleep;
use std::time::Duration;

use etherparse::{SlicedPacket, TransportSlice};
use libbpf_rs::skel::SkelBuilder;
use libbpf_rs::{MapCore, OpenObject};
use lossy::LossySkelBuilder;
use netbpf::netlink::Netlink;
use netbpf::port::Port;
use netbpf::tc::{Attacher, Direction, Method};
use netbpf::tcp_hold::{AtBound, Bounds, Events, Held, Holder, Reached, Setup};
use nix::libc;
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrStorage, bind, connect, setsockopt, socket, sockopt,
};
use testbed::step;
use testbed::traffic::Capture;

use held_peer::{
    A_WHILE, Network, PEER, WITHIN, assert_stays, in_each_network, patient, read, unacknowledged,
    until, write,
};

/// A holder at the cable to the peer, and the network around it.
struct Bench<'a, 'obj> {
    holder: Holder<'obj>,
    network: &'a Network,
}

impl Deref for Bench<'_, '_> {
    type Target = Network;

    fn deref(&self) -> &Network {
        self.network
    }
}

fn run(name: &str, test: impl Fn(&Bench<'_, '_>) + Sync) {
    in_each_network(name, |_, network, method| {
        let mut object = MaybeUninit::uninit();
        let bench = Bench {
            holder: holder(method, &mut object),
            network,
        };
        test(&bench);
        let Events {
            unreadable, failed, ..
        } = step("read the events", bench.holder.events());
        assert_eq!((unreadable, failed), (0, 0));
    });
}

fn holder(method: Method, object: &mut MaybeUninit<OpenObject>) -> Holder<'_> {
    let mut holder = step("load", Holder::load(&Setup::default(), object));
    let mut netlink = step("open netlink", Netlink::open());
    let port = step("find up0", Port::find(&mut netlink, "up0"));
    step("attach", holder.attach(Some(method), &[port]));
    holder
}

impl Bench<'_, '_> {
    /// A listener of ours, and how the peer gets there.
    fn listen(&self) -> (TcpListener, SocketAddr) {
        let listener = step("listen", TcpListener::bind((self.here, 0)));
        let address = step("own address", listener.local_addr());
        (listener, address)
    }

    /// The peer's address.
    fn there(&self) -> IpAddr {
        let there = PEER[usize::from(self.here.is_ipv6())];
        step(there, there.parse())
    }

    /// A connection that the peer made, held since it was accepted, and his end of it.
    fn accepted(&self) -> (Held<TcpStream>, TcpStream) {
        let (listener, address) = self.listen();
        step(
            "hold what is accepted",
            self.holder.hold_accepted(&listener),
        );
        let peer = self.connect_from_peer(address);
        let (stream, _) = step("accept", listener.accept());
        (self.hold(patient(stream)), peer)
    }

    fn hold(&self, stream: TcpStream) -> Held<TcpStream> {
        step("hold", self.holder.hold(stream))
    }
}

#[track_caller]
fn confirm(held: &Held<TcpStream>, bytes: u64) {
    step("confirm", held.confirm(bytes));
    step("announce", held.announce());
}

#[test]
fn only_what_is_confirmed_is_acknowledged() {
    run("only_what_is_confirmed_is_acknowledged", |bench| {
        let (held, peer) = bench.accepted();
        write(&peer, 5000);
        read(&held, 5000);
        assert_stays(&peer, 5000);
        confirm(&held, 2000);
        until("2,000 are acknowledged", || unacknowledged(&peer) == 3000);
        assert_eq!(step("ask", held.promised()), 2000);
        // Not what was read, but what was confirmed: the rest comes in between.
        write(&peer, 100);
        read(&held, 100);
        assert_stays(&peer, 3100);
        confirm(&held, 3100);
        until("all are acknowledged", || unacknowledged(&peer) == 0);
        assert!(step("ask", held.is_settled()));
        assert!(
            !step("announce", held.announce()),
            "nothing was left to tell"
        );
    });
}

#[test]
fn what_goes_the_other_way_carries_it() {
    run("what_goes_the_other_way_carries_it", |bench| {
        let (held, peer) = bench.accepted();
        write(&peer, 1000);
        read(&held, 1000);
        write(&held, 10);
        read(&peer, 10);
        assert_stays(&peer, 1000);
        step("confirm", held.confirm(400));
        assert_eq!(unacknowledged(&peer), 1000);
        write(&held, 10);
        until("it is acknowledged", || unacknowledged(&peer) == 600);
        // That the peer acknowledges what was sent is not held back.
        read(&peer, 10);
        until("the peer has it", || unacknowledged(&held) == 0);
        assert_stays(&peer, 600);
    });
}

#[test]
fn what_comes_before_it_is_accepted_waits_too() {
    run("what_comes_before_it_is_accepted_waits_too", |bench| {
        let (listener, address) = bench.listen();
        step(
            "hold what is accepted",
            bench.holder.hold_accepted(&listener),
        );
        let peer = bench.connect_from_peer(address);
        write(&peer, 3000);
        assert_stays(&peer, 3000);
        let (stream, _) = step("accept", listener.accept());
        let stream = patient(stream);
        read(&stream, 1000);
        assert_stays(&peer, 3000);
        // What was read before counts as confirmed.
        let held = bench.hold(stream);
        assert_eq!(held.exposed(), 0);
        assert_eq!(step("ask", held.confirmed()), 1000);
        step("announce", held.announce());
        until("it is acknowledged", || unacknowledged(&peer) == 2000);
        read(&held, 2000);
        assert_stays(&peer, 2000);
    });
}

#[test]
fn who_connects_is_held_from_the_first_byte() {
    run("who_connects_is_held_from_the_first_byte", |bench| {
        let there = bench.there();
        let listener = bench.peer.run(|| TcpListener::bind((there, 0)));
        let listener = step("the peer listens", listener);
        let address = step("his address", listener.local_addr());
        let family = match address {
            SocketAddr::V4(_) => AddressFamily::Inet,
            SocketAddr::V6(_) => AddressFamily::Inet6,
        };
        let fd = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None);
        let fd: OwnedFd = step("make a socket", fd);
        let held = step("hold", bench.holder.hold(TcpStream::from(fd)));
        let connected = connect(held.as_raw_fd(), &SockaddrStorage::from(address));
        step("connect", connected);
        let (peer, _) = step("the peer accepts", listener.accept());
        write(&peer, 2500);
        read(&held, 2500);
        assert_stays(&peer, 2500);
        confirm(&held, 2500);
        until("it is acknowledged", || unacknowledged(&peer) == 0);
    });
}

#[test]
fn a_connection_at_work_is_held_from_now_on() {
    run("a_connection_at_work_is_held_from_now_on", |bench| {
        let (listener, address) = bench.listen();
        let peer = bench.connect_from_peer(address);
        let (stream, _) = step("accept", listener.accept());
        let stream = patient(stream);
        write(&peer, 4000);
        until("the kernel acknowledges", || unacknowledged(&peer) == 0);
        read(&stream, 1500);
        let (capture, acknowledgements) = capture(bench);
        let held = bench.hold(stream);
        assert_eq!(held.exposed(), 2500);
        assert_eq!(step("ask", held.confirmed()), 1500);
        write(&peer, 1000);
        read(&held, 3500);
        assert_stays(&peer, 1000);
        // Up to what was acknowledged before, nothing is new to the peer.
        confirm(&held, 2500);
        assert_stays(&peer, 1000);
        confirm(&held, 1000);
        until("it is acknowledged", || unacknowledged(&peer) == 0);
        drop(capture);
        let acknowledgements = step("look at the capture", acknowledgements.lock());
        assert!(acknowledgements.len() > 1);
        let goes_on = |pair: &[u32]| pair[1].wrapping_sub(pair[0]) as i32 >= 0;
        assert!(
            acknowledgements.windows(2).all(goes_on),
            "one goes back: {acknowledgements:?}"
        );
    });
}

/// Up to where the peer is told that all has come, in the order in which it comes to him; a connection's begin
/// and a reset say nothing of that.
fn capture(bench: &Bench<'_, '_>) -> (Capture, Arc<Mutex<Vec<u32>>>) {
    let numbers = Arc::new(Mutex::new(Vec::new()));
    let taken = Arc::clone(&numbers);
    let capture = Capture::start(&bench.peer, "eth0", WITHIN * 2, move |frame| {
        let packet = SlicedPacket::from_ethernet(frame).ok();
        let Some(TransportSlice::Tcp(tcp)) = packet.and_then(|packet| packet.transport) else {
            return false;
        };
        let is_plain = tcp.ack() && !tcp.syn() && !tcp.rst();
        if is_plain {
            step("write it down", taken.lock()).push(tcp.acknowledgment_number());
        }
        is_plain
    });
    (capture, numbers)
}

/// Where the sequence numbers of both ends pass 2^32.
#[test]
fn sequence_numbers_begin_again() {
    run("sequence_numbers_begin_again", |bench| {
        let (ours, his) = (u32::MAX - 99, u32::MAX - 1499);
        let here = SocketAddr::new(bench.here, 40_000);
        let there = SocketAddr::new(bench.there(), 40_001);
        let stream = repaired(here, there, ours, his);
        let peer = bench.peer.run(|| repaired(there, here, his, ours));
        let held = bench.hold(patient(stream));
        for stream in [&held, &peer] {
            tcp_option(stream, libc::TCP_REPAIR, 0_u32);
        }
        write(&peer, 5000);
        read(&held, 5000);
        assert_stays(&peer, 5000);
        for unconfirmed in [4000, 3500, 3499, 3000] {
            let more = unacknowledged(&peer) - unconfirmed;
            confirm(&held, more as u64);
            until("it is acknowledged", || {
                unacknowledged(&peer) == unconfirmed
            });
        }
        write(&held, 300);
        read(&peer, 300);
        until("the peer acknowledges", || unacknowledged(&held) == 0);
        assert_stays(&peer, 3000);
        confirm(&held, 3000);
        until("all is acknowledged", || unacknowledged(&peer) == 0);
        assert_eq!(step("ask", held.promised()), 5000);
    });
}

/// One end of a connection that nobody has made, with these sequence numbers to send and to receive next
/// (linux/tcp.h, TCP_REPAIR). It is in repair still: the other end has to be there before it says anything.
fn repaired(local: SocketAddr, remote: SocketAddr, send: u32, receive: u32) -> TcpStream {
    const RECEIVE_QUEUE: u32 = 1;
    const SEND_QUEUE: u32 = 2;
    const TCP_REPAIR_WINDOW: i32 = 29;
    let family = match local {
        SocketAddr::V4(_) => AddressFamily::Inet,
        SocketAddr::V6(_) => AddressFamily::Inet6,
    };
    let fd = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None);
    let stream = TcpStream::from(step("make a socket", fd));
    tcp_option(&stream, libc::TCP_REPAIR, 1_u32);
    step(
        "bind",
        bind(stream.as_raw_fd(), &SockaddrStorage::from(local)),
    );
    for (queue, sequence) in [(SEND_QUEUE, send), (RECEIVE_QUEUE, receive)] {
        tcp_option(&stream, libc::TCP_REPAIR_QUEUE, queue);
        tcp_option(&stream, libc::TCP_QUEUE_SEQ, sequence);
    }
    let connected = connect(stream.as_raw_fd(), &SockaddrStorage::from(remote));
    step("connect", connected);
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

fn tcp_option<T>(socket: &impl AsRawFd, name: i32, value: T) {
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
    step(
        format!("set TCP option {name}"),
        nix::errno::Errno::result(result),
    );
}

/// The peer's FIN is a byte of the sequence, which is acknowledged with the last byte before it.
#[test]
fn a_fin_waits_for_what_is_before_it() {
    run("a_fin_waits_for_what_is_before_it", |bench| {
        let (held, peer) = bench.accepted();
        write(&peer, 1200);
        step("the peer is done", peer.shutdown(Shutdown::Write));
        let mut all = Vec::new();
        step("read to the end", (&*held).read_to_end(&mut all));
        assert_eq!(all.len(), 1200);
        let waits = || unacknowledged(&peer);
        // TIOCOUTQ counts the FIN.
        let with_fin = waits();
        assert!((1200..=1201).contains(&with_fin), "{with_fin}");
        assert_stays(&peer, with_fin);
        confirm(&held, 1199);
        write(&held, 1);
        until("all but one byte", || waits() == with_fin - 1199);
        assert_stays(&peer, with_fin - 1199);
        confirm(&held, 1);
        write(&held, 1);
        until("the last byte, and the FIN", || waits() == 0);
        assert!(step("ask", held.is_settled()));
        read(&peer, 2);
    });
}

/// When both have sent their FIN the kernel gives up the socket, and goes on to acknowledge for a minute.
#[test]
fn who_leaves_first_holds_back_still() {
    run("who_leaves_first_holds_back_still", |bench| {
        let (held, peer, with_fin) = half_closed(bench, 2000);
        assert_stays(&peer, with_fin);
        confirm(&held, 1500);
        // There is nothing to force an acknowledgement with; the peer asks for it.
        let rest = with_fin - 1500;
        until("1,500 are acknowledged", || unacknowledged(&peer) == rest);
        assert_stays(&peer, rest);
        assert_eq!(step("ask", held.promised()), 1500);
        confirm(&held, 500);
        until("the rest, and the FIN", || unacknowledged(&peer) == 0);
    });
}

#[test]
fn who_leaves_first_and_dies_holds_back_still() {
    run("who_leaves_first_and_dies_holds_back_still", |bench| {
        let (held, peer, with_fin) = half_closed(bench, 2000);
        confirm(&held, 700);
        drop(held);
        // Its account may be another connection's.
        let (next, next_peer) = bench.accepted();
        write(&next_peer, 5000);
        read(&next, 5000);
        confirm(&next, 5000);
        until("the next one's are", || unacknowledged(&next_peer) == 0);
        let left = unacknowledged(&peer);
        assert!((with_fin - 700..=with_fin).contains(&left), "{left}");
        assert_stays(&peer, left);
        // The guard would wait until TIME-WAIT is over.
        let leavers = &bench.holder.skeleton().maps.leavers;
        for ends in leavers.keys() {
            step("forget it", leavers.delete(&ends));
        }
    });
}

#[test]
fn who_leaves_first_is_released_too() {
    run("who_leaves_first_is_released_too", |bench| {
        let (held, peer, with_fin) = half_closed(bench, 2000);
        assert_stays(&peer, with_fin);
        step("release", held.release());
        until("the kernel acknowledges", || unacknowledged(&peer) == 0);
    });
}

/// A held connection that has ended in both directions, from here first, with so many unconfirmed bytes; how
/// much the peer waits for.
fn half_closed(bench: &Bench<'_, '_>, bytes: usize) -> (Held<TcpStream>, TcpStream, i32) {
    let (held, peer) = bench.accepted();
    write(&peer, bytes);
    step("we are done", held.shutdown(Shutdown::Write));
    let mut rest = Vec::new();
    step("the peer reads to the end", (&peer).read_to_end(&mut rest));
    read(&held, bytes);
    step("the peer is done", peer.shutdown(Shutdown::Write));
    let mut end = Vec::new();
    step("read to the end", (&*held).read_to_end(&mut end));
    assert!(end.is_empty());
    // TIOCOUTQ counts the FIN.
    let with_fin = unacknowledged(&peer);
    let bytes = bytes as i32;
    assert!((bytes..=bytes + 1).contains(&with_fin), "{with_fin}");
    (held, peer, with_fin)
}

/// Whoever confirms only whole messages would wait for ever for the rest of one that is larger than what his
/// peer sends without an answer.
#[test]
fn more_than_the_bound_is_released() {
    run("more_than_the_bound_is_released", |bench| {
        let (held, peer) = bench.accepted();
        step("bound", held.bound(&bytes_at_most(3000, AtBound::Release)));
        write(&peer, 3000);
        read(&held, 3000);
        assert_stays(&peer, 3000);
        assert_eq!(step("ask", held.reached()), None);
        // Another one: by now that peer sends nothing new before something is acknowledged (RFC 6298, 5).
        let (held, peer) = bench.accepted();
        step("bound", held.bound(&bytes_at_most(3000, AtBound::Release)));
        write(&peer, 3001);
        read(&held, 3001);
        until("it is released", || unacknowledged(&peer) == 0);
        let released = Some(Reached::Bytes(AtBound::Release));
        assert_eq!(step("ask", held.reached()), released);
        write(&peer, 500);
        read(&held, 500);
        until("it stays released", || unacknowledged(&peer) == 0);
        assert_eq!(step("ask", held.reached()), released, "once and for all");
        assert_eq!(step("ask", held.promised()), 3501);
    });
}

#[test]
fn more_than_the_bound_is_kept_and_said() {
    run("more_than_the_bound_is_kept_and_said", |bench| {
        let (held, peer) = bench.accepted();
        step("bound", held.bound(&bytes_at_most(3000, AtBound::Keep)));
        write(&peer, 3001);
        read(&held, 3001);
        let kept = Some(Reached::Bytes(AtBound::Keep));
        until("it is said", || step("ask", held.reached()) == kept);
        assert_stays(&peer, 3001);
        assert!(step("read the events", bench.holder.events()).bounds > 0);
        confirm(&held, 1);
        until("it is acknowledged", || unacknowledged(&peer) == 3000);
        // What was sent again before is answered first.
        until("nothing more is said", || {
            step("ask", held.reached());
            sleep(A_WHILE);
            step("ask", held.reached()).is_none()
        });
    });
}

#[test]
fn what_is_held_for_too_long_is_released() {
    run("what_is_held_for_too_long_is_released", |bench| {
        let (held, peer) = bench.accepted();
        let time = Some(Duration::from_millis(300));
        let bounds = |at_bound| Bounds {
            time,
            at_bound,
            ..Bounds::default()
        };
        step("bound", held.bound(&bounds(AtBound::Keep)));
        write(&peer, 900);
        read(&held, 900);
        let kept = Some(Reached::Time(AtBound::Keep));
        until("it is said", || step("ask", held.reached()) == kept);
        assert_eq!(unacknowledged(&peer), 900);
        step("bound", held.bound(&bounds(AtBound::Release)));
        until("it is released", || unacknowledged(&peer) == 0);
        let released = Some(Reached::Time(AtBound::Release));
        assert_eq!(step("ask", held.reached()), released);
    });
}

/// What is confirmed in time does not add up.
#[test]
fn what_is_confirmed_in_time_reaches_no_bound() {
    run("what_is_confirmed_in_time_reaches_no_bound", |bench| {
        let (held, peer) = bench.accepted();
        let bounds = Bounds {
            bytes: Some(3000),
            time: Some(WITHIN * 3),
            at_bound: AtBound::Release,
        };
        step("bound", held.bound(&bounds));
        for _ in 0..10 {
            write(&peer, 2000);
            read(&held, 2000);
            confirm(&held, 2000);
        }
        until("all is acknowledged", || unacknowledged(&peer) == 0);
        assert_eq!(step("ask", held.reached()), None);
        write(&peer, 2000);
        read(&held, 2000);
        assert_stays(&peer, 2000);
    });
}

fn bytes_at_most(bytes: u64, at_bound: AtBound) -> Bounds {
    Bounds {
        bytes: Some(bytes),
        at_bound,
        ..Bounds::default()
    }
}

/// Whatever is lost on the way to us is sent again, and only that: what the peer needs for it, SACK, is in
/// acknowledgements that acknowledge nothing new.
#[test]
fn what_is_lost_is_sent_again() {
    run("what_is_lost_is_sent_again", |bench| {
        let mut object = MaybeUninit::uninit();
        let open = step("open", LossySkelBuilder::default().open(&mut object));
        let lossy = step("load", netbpf::load::load(open));
        let program = lossy.progs.lose.as_fd();
        let attacher = Attacher::new(Method::best(program));
        let ifindex = step("find up0", nix::net::if_::if_nametoindex("up0"));
        let attached = attacher.attach(program, "netbpf_lose", ifindex, Direction::Ingress);
        let attached = step("attach", attached);
        let (held, peer) = bench.accepted();
        stream(&held, &peer, 3_000_000);
        let lost = lossy.maps.bss_data.as_ref().map(|bss| bss.lost);
        assert!(lost > Some(0), "{lost:?}");
        drop(attached);
    });
}

/// A peer who was told to wait is told to go on, though nothing new is acknowledged to him.
#[test]
fn a_window_that_was_shut_opens_again() {
    run("a_window_that_was_shut_opens_again", |bench| {
        let (held, peer) = bench.accepted();
        let small: usize = 20_000;
        step("set SO_RCVBUF", setsockopt(&*held, sockopt::RcvBuf, &small));
        std::thread::scope(|scope| {
            let writer = scope.spawn(|| write(&peer, 2_000_000));
            let mut before = 0;
            until("the window is shut", || {
                sleep(A_WHILE);
                let now = unread(&held);
                let is_shut = now > 0 && now == before;
                before = now;
                is_shut
            });
            take(&held, 2_000_000);
            testbed::joined(writer);
        });
        until("all is acknowledged", || unacknowledged(&peer) == 0);
    });
}

/// What was confirmed of one connection says nothing of the next one between the same ends.
#[test]
fn the_next_one_between_the_same_ends_begins_anew() {
    run("the_next_one_between_the_same_ends_begins_anew", |bench| {
        let (listener, address) = bench.listen();
        step(
            "hold what is accepted",
            bench.holder.hold_accepted(&listener),
        );
        let there = SocketAddr::new(bench.there(), 40_001);
        let connect = || {
            let peer = bench.peer.run(|| bound(there, address));
            let (stream, _) = step("accept", listener.accept());
            (bench.hold(patient(stream)), peer)
        };
        for end in ["by a reset", "in order", "by a reset"] {
            let (held, mut peer) = connect();
            write(&peer, 5000);
            read(&held, 5000);
            assert_stays(&peer, 5000);
            confirm(&held, 5000);
            until("it is acknowledged", || unacknowledged(&peer) == 0);
            if end == "in order" {
                // We leave first: what is left of this connection stays here, in TIME-WAIT.
                step("we are done", held.shutdown(Shutdown::Write));
                assert_eq!(step("read to the end", peer.read(&mut [0])), 0);
                step("the peer is done", peer.shutdown(Shutdown::Write));
                until("the FIN is acknowledged", || unacknowledged(&peer) == 0);
            } else {
                drop(held);
                peer.read(&mut [0]).unwrap_err();
            }
        }
    });
}

/// Both ends ask, when nothing is to be sent, whether the other one is there (RFC 9293, 3.8.4).
#[test]
fn who_is_asked_whether_he_is_there_answers() {
    run("who_is_asked_whether_he_is_there_answers", |bench| {
        let (held, peer) = bench.accepted();
        write(&peer, 1000);
        read(&held, 1000);
        confirm(&held, 1000);
        until("it is acknowledged", || unacknowledged(&peer) == 0);
        for stream in [&held, &peer] {
            step("ask", setsockopt(stream, sockopt::KeepAlive, &true));
            tcp_option(stream, libc::TCP_KEEPINTVL, 1_u32);
            tcp_option(stream, libc::TCP_KEEPCNT, 2_u32);
            tcp_option(stream, libc::TCP_KEEPIDLE, 1_u32);
        }
        // Whoever is not answered twice gives up after 3 s.
        sleep(Duration::from_secs(5));
        write(&peer, 1000);
        read(&held, 1000);
        assert_stays(&peer, 1000);
        confirm(&held, 1000);
        until("it is acknowledged", || unacknowledged(&peer) == 0);
        write(&held, 1000);
        read(&peer, 1000);
    });
}

#[test]
fn the_peers_reset_ends_it() {
    run("the_peers_reset_ends_it", |bench| {
        let (held, peer) = bench.accepted();
        write(&peer, 1000);
        read(&held, 1000);
        let at_once = libc::linger {
            l_onoff: 1,
            l_linger: 0,
        };
        step("reset", setsockopt(&peer, sockopt::Linger, &at_once));
        drop(peer);
        let ended = (&*held).read(&mut [0]).map_err(|error| error.kind());
        assert_eq!(ended, Err(std::io::ErrorKind::ConnectionReset));
        confirm(&held, 1000);
        step("release", held.release());
    });
}

/// From the peer to us, confirmed as it comes.
fn stream(held: &Held<TcpStream>, peer: &TcpStream, bytes: usize) {
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| write(peer, bytes));
        take(held, bytes);
        testbed::joined(writer);
    });
    until("all is acknowledged", || unacknowledged(peer) == 0);
}

/// Reads so much, and confirms each read.
fn take(held: &Held<TcpStream>, bytes: usize) {
    let mut left = bytes;
    let mut buffer = vec![0; 8192];
    while left > 0 {
        let read = step("read", (&**held).read(&mut buffer));
        assert!(read > 0, "{left} bytes are missing");
        left -= read;
        confirm(held, read as u64);
    }
}

fn unread(stream: &TcpStream) -> i32 {
    let mut bytes = 0;
    // SAFETY: FIONREAD writes one int.
    let result = unsafe { libc::ioctl(stream.as_raw_fd(), libc::FIONREAD, &raw mut bytes) };
    step("ask for unread bytes", nix::errno::Errno::result(result));
    bytes
}

/// A connection from there, whatever was there before.
fn bound(from: SocketAddr, to: SocketAddr) -> TcpStream {
    let family = match from {
        SocketAddr::V4(_) => AddressFamily::Inet,
        SocketAddr::V6(_) => AddressFamily::Inet6,
    };
    let fd = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None);
    let stream = TcpStream::from(step("make a socket", fd));
    step("reuse", setsockopt(&stream, sockopt::ReuseAddr, &true));
    step(
        "bind",
        bind(stream.as_raw_fd(), &SockaddrStorage::from(from)),
    );
    step(
        "connect",
        connect(stream.as_raw_fd(), &SockaddrStorage::from(to)),
    );
    patient(stream)
}

/// What comes in a SYN would be acknowledged before there is a socket to hold.
#[test]
fn a_listener_with_fast_open_is_refused() {
    run("a_listener_with_fast_open_is_refused", |bench| {
        // In the peer's namespace, which goes with the key that the kernel makes for it.
        let there = bench.there();
        let listener = bench.peer.run(|| TcpListener::bind((there, 0)));
        let listener = step("listen", listener);
        tcp_option(&listener, libc::TCP_FASTOPEN, 5_u32);
        let refused = bench.holder.hold_accepted(&listener);
        let error = refused.map_err(|error| error.to_string()).unwrap_err();
        assert!(error.contains("TCP Fast Open"), "{error}");
    });
}

#[test]
fn whoever_goes_with_unconfirmed_bytes_resets_the_connection() {
    let name = "whoever_goes_with_unconfirmed_bytes_resets_the_connection";
    run(name, |bench| {
        let (held, mut peer) = bench.accepted();
        write(&peer, 2000);
        read(&held, 2000);
        confirm(&held, 500);
        until("500 are acknowledged", || unacknowledged(&peer) == 1500);
        drop(held);
        let ended = peer.read(&mut [0; 16]);
        let ended = ended.map_err(|error| error.kind());
        assert_eq!(ended, Err(std::io::ErrorKind::ConnectionReset));
    });
}

/// Somebody else has the socket still; its slot may be another connection's.
#[test]
fn what_is_no_longer_confirmed_stays_held() {
    run("what_is_no_longer_confirmed_stays_held", |bench| {
        let (held, peer) = bench.accepted();
        let other = step("take a copy", held.try_clone());
        write(&peer, 900);
        read(&held, 900);
        confirm(&held, 300);
        until("300 are acknowledged", || unacknowledged(&peer) == 600);
        drop(held);
        let (next, next_peer) = bench.accepted();
        write(&next_peer, 5000);
        read(&next, 5000);
        confirm(&next, 5000);
        until("the next one's are", || unacknowledged(&next_peer) == 0);
        write(&other, 10);
        read(&peer, 10);
        assert_stays(&peer, 600);
        // It can be held again, by whoever takes over.
        let again = bench.hold(other);
        assert_eq!(again.exposed(), 0);
        confirm(&again, 0);
        until("what was read counts as confirmed", || {
            unacknowledged(&peer) == 0
        });
    });
}

#[test]
fn who_is_released_is_as_before() {
    run("who_is_released_is_as_before", |bench| {
        let (listener, address) = bench.listen();
        let peer = bench.connect_from_peer(address);
        let (stream, _) = step("accept", listener.accept());
        step("reuse", setsockopt(&stream, sockopt::ReuseAddr, &true));
        let held = bench.hold(patient(stream));
        write(&peer, 800);
        read(&held, 800);
        assert_stays(&peer, 800);
        let stream = step("release", held.release());
        until("the kernel acknowledges", || unacknowledged(&peer) == 0);
        write(&peer, 800);
        read(&stream, 800);
        until("the kernel acknowledges", || unacknowledged(&peer) == 0);
        let reuse = nix::sys::socket::getsockopt(&stream, sockopt::ReuseAddr);
        assert!(step("ask for SO_REUSEADDR", reuse));
        drop(stream);
        // By FIN, not by a reset.
        let mut rest = Vec::new();
        step("read to the end", (&peer).read_to_end(&mut rest));
        assert!(rest.is_empty());
    });
}

#[test]
fn others_are_left_alone() {
    run("others_are_left_alone", |bench| {
        let (held, held_peer) = bench.accepted();
        let (listener, address) = bench.listen();
        let peer = bench.connect_from_peer(address);
        let (stream, _) = step("accept", listener.accept());
        write(&held_peer, 100);
        write(&peer, 100_000);
        read(&patient(stream), 100_000);
        until("the kernel acknowledges", || unacknowledged(&peer) == 0);
        assert_stays(&held_peer, 100);
        let refused = bench.holder.hold(held.as_fd()).map(drop);
        let refused = refused.map_err(|error| error.to_string());
        assert_eq!(refused, Err("the socket is held already".to_owned()));
    });
}
