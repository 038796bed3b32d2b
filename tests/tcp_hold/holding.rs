//! What a held connection's peer is told, from its first byte on.

use std::mem::MaybeUninit;
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::sync::{Arc, Mutex};
use std::thread::sleep;
use std::time::Duration;

use etherparse::{SlicedPacket, TransportSlice};
use netbpf::tc::Direction;
use netbpf::tcp_hold::Held;
use nix::libc;
use nix::sys::socket::{getsockopt, setsockopt, sockopt};
use testbed::traffic::Capture;
use testbed::{skip, step};

use crate::bench::{Bench, Lossy, accept, confirm, held, read_to_the_end, run, take, tcp_option};
use crate::held_peer::{A_WHILE, WITHIN, assert_stays, read, unacknowledged, until, write};
use crate::repaired::{self, connect_to, unbound};

#[test]
fn only_what_is_confirmed_is_acknowledged() {
    let name = "only_what_is_confirmed_is_acknowledged";
    held(name, |bench, held, peer| {
        let told = Told::to(&peer, bench);
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
        // We have sent no byte, and what would be a window probe is none: the peer would not look at it.
        assert!(bench.events().probes > 0);
        let told = told.finish();
        assert!(told.windows(2).all(|pair| pair[0].from == pair[1].from));
        assert_goes_on(&told);
    });
}

#[test]
fn what_goes_the_other_way_carries_it() {
    held("what_goes_the_other_way_carries_it", |_, held, peer| {
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
        let (listener, address) = bench.listen_and_hold();
        let peer = bench.connect_from_peer(address);
        write(&peer, 3000);
        assert_stays(&peer, 3000);
        let stream = accept(&listener);
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
        let there = bench.there;
        let listener = bench.peer.run(|| TcpListener::bind((there, 0)));
        let listener = step("the peer listens", listener);
        let address = step("his address", listener.local_addr());
        let held = bench.hold(unbound(address));
        connect_to(&held, address);
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
        let stream = accept(&listener);
        let told = Told::to(&peer, bench);
        write(&peer, 4000);
        until("the kernel acknowledges", || unacknowledged(&peer) == 0);
        read(&stream, 1500);
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
        assert_goes_on(&told.finish());
    });
}

/// Where the sequence numbers of both ends pass 2^32.
#[test]
fn sequence_numbers_begin_again() {
    run("sequence_numbers_begin_again", |bench| {
        let (ours, his) = (u32::MAX - 99, u32::MAX - 1499);
        let (stream, peer) = bench.repaired(ours, his);
        let held = bench.hold(stream);
        repaired::go([&held, &peer]);
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

/// Whatever is lost on the way to us is sent again, and only that: what the peer needs for it, SACK, is in
/// acknowledgements that acknowledge nothing new.
#[test]
fn what_is_lost_is_sent_again() {
    run("what_is_lost_is_sent_again", |bench| {
        let mut object = MaybeUninit::uninit();
        let lossy = Lossy::new(Direction::Ingress, 25, &mut object);
        let (held, peer) = bench.accepted();
        stream(&held, &peer, 3_000_000);
        assert!(lossy.lost() > 0);
    });
}

/// A peer who was told to wait is told to go on, though nothing new is acknowledged to him.
#[test]
fn a_window_that_was_shut_opens_again() {
    held("a_window_that_was_shut_opens_again", |_, held, peer| {
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

/// Both ends ask, when nothing is to be sent, whether the other one is there (RFC 9293, 3.8.4).
#[test]
fn who_is_asked_whether_he_is_there_answers() {
    held(
        "who_is_asked_whether_he_is_there_answers",
        |_, held, peer| {
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
        },
    );
}

/// What comes in a SYN would be acknowledged before there is a socket to hold.
#[test]
fn a_listener_with_fast_open_is_refused() {
    run("a_listener_with_fast_open_is_refused", |bench| {
        // In the peer's namespace, which goes with the key that the kernel makes for it.
        let there = bench.there;
        let listener = bench.peer.run(|| TcpListener::bind((there, 0)));
        let listener = step("listen", listener);
        tcp_option(&listener, libc::TCP_FASTOPEN, 5_u32);
        let refused = bench.holder.hold_accepted(&listener);
        let error = refused.map_err(|error| error.to_string()).unwrap_err();
        assert!(error.contains("TCP Fast Open"), "{error}");
    });
}

/// Its packets are of sockets that are nobody's: it would seem to be held.
#[test]
fn a_socket_of_mptcp_is_refused() {
    let name = "a_socket_of_mptcp_is_refused";
    run(name, |bench| {
        // SAFETY: a call with numbers.
        let socket = unsafe { libc::socket(libc::AF_INET, libc::SOCK_STREAM, libc::IPPROTO_MPTCP) };
        if socket < 0 {
            return skip(name, "this kernel has no MPTCP (CONFIG_MPTCP)");
        }
        // SAFETY: the kernel has just opened it, and nobody else knows it.
        let socket = unsafe { OwnedFd::from_raw_fd(socket) };
        let refused = bench.holder.hold_accepted(&socket);
        let error = refused.map_err(|error| error.to_string()).unwrap_err();
        assert!(error.contains("MPTCP"), "{error}");
        let refused = bench.holder.holds().hold(socket).map(drop);
        let error = refused.map_err(|error| error.to_string()).unwrap_err();
        assert!(error.contains("MPTCP"), "{error}");
    });
}

/// Somebody else has the socket still; its slot may be another connection's.
#[test]
fn what_is_no_longer_confirmed_stays_held() {
    let name = "what_is_no_longer_confirmed_stays_held";
    held(name, |bench, held, peer| {
        let told = Told::to(&peer, bench);
        let other = step("take a copy", held.try_clone());
        write(&peer, 900);
        read(&held, 900);
        confirm(&held, 300);
        until("300 are acknowledged", || unacknowledged(&peer) == 600);
        drop(held);
        let _next = bench.confirmed(5000);
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
        assert_goes_on(&told.finish());
    });
}

/// Whoever takes over goes on where the one before had come to.
#[test]
fn what_is_no_longer_confirmed_can_be_held_again() {
    let name = "what_is_no_longer_confirmed_can_be_held_again";
    held(name, |bench, held, peer| {
        let other = step("take a copy", held.try_clone());
        write(&peer, 900);
        read(&held, 300);
        confirm(&held, 300);
        until("300 are acknowledged", || unacknowledged(&peer) == 600);
        drop(held);
        let again = bench.hold(other);
        assert_eq!(step("ask", again.confirmed()), 300);
        assert_stays(&peer, 600);
        read(&again, 600);
        confirm(&again, 600);
        until("it is acknowledged", || unacknowledged(&peer) == 0);
    });
}

#[test]
fn who_is_released_is_as_before() {
    run("who_is_released_is_as_before", |bench| {
        let (listener, address) = bench.listen();
        let peer = bench.connect_from_peer(address);
        let stream = accept(&listener);
        step("reuse", setsockopt(&stream, sockopt::ReuseAddr, &true));
        let held = bench.hold(stream);
        write(&peer, 800);
        read(&held, 800);
        assert_stays(&peer, 800);
        let stream = step("release", held.release());
        until("the kernel acknowledges", || unacknowledged(&peer) == 0);
        write(&peer, 800);
        read(&stream, 800);
        until("the kernel acknowledges", || unacknowledged(&peer) == 0);
        let reuse = getsockopt(&stream, sockopt::ReuseAddr);
        assert!(step("ask for SO_REUSEADDR", reuse));
        drop(stream);
        // By FIN, not by a reset.
        read_to_the_end(&peer);
    });
}

#[test]
fn others_are_left_alone() {
    run("others_are_left_alone", |bench| {
        let (held, held_peer) = bench.accepted();
        let (listener, address) = bench.listen();
        let peer = bench.connect_from_peer(address);
        let stream = accept(&listener);
        write(&held_peer, 100);
        write(&peer, 100_000);
        read(&stream, 100_000);
        until("the kernel acknowledges", || unacknowledged(&peer) == 0);
        assert_stays(&held_peer, 100);
        let refused = bench.holder.hold(held.as_fd()).map(drop);
        let refused = refused.map_err(|error| error.to_string());
        assert_eq!(refused, Err("the socket is held already".to_owned()));
    });
}

/// What sends an acknowledgement at once is seen by no other thread, which goes on to read and write.
#[test]
fn announcing_disturbs_nobody() {
    const TIMES: usize = 5000;
    held("announcing_disturbs_nobody", |_, held, peer| {
        std::thread::scope(|scope| {
            // One byte for each announcement, and one the other way for each.
            let reader = scope.spawn(|| (0..TIMES).for_each(|_| read(&held, 1)));
            let writer = scope.spawn(|| (0..TIMES).for_each(|_| write(&held, 1)));
            let sink = scope.spawn(|| read(&peer, TIMES));
            write(&peer, TIMES);
            while step("ask", held.confirmed()) < TIMES as u64 {
                confirm(&held, 1);
            }
            for thread in [reader, writer, sink] {
                testbed::joined(thread);
            }
        });
        until("all is acknowledged", || unacknowledged(&peer) == 0);
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

fn unread(stream: &TcpStream) -> i32 {
    let mut bytes = 0;
    // SAFETY: FIONREAD writes one int.
    let result = unsafe { libc::ioctl(stream.as_raw_fd(), libc::FIONREAD, &raw mut bytes) };
    step("ask for unread bytes", nix::errno::Errno::result(result));
    bytes
}

/// Segments of a connection that reach the peer, in their order; not those by which it begins, and no resets,
/// which acknowledge nothing.
struct Told {
    capture: Capture,
    segments: Arc<Mutex<Vec<Segment>>>,
}

struct Segment {
    /// Its number.
    from: u32,
    /// Up to here all has come.
    acknowledges: u32,
}

impl Told {
    fn to(peer: &TcpStream, bench: &Bench<'_, '_>) -> Told {
        let port = step("his address", peer.local_addr()).port();
        let segments = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&segments);
        let capture = Capture::start(&bench.peer, "eth0", WITHIN * 2, move |frame| {
            let packet = SlicedPacket::from_ethernet(frame).ok();
            let Some(TransportSlice::Tcp(tcp)) = packet.and_then(|packet| packet.transport) else {
                return false;
            };
            let is_plain = tcp.ack() && !tcp.syn() && !tcp.rst();
            let is_wanted = is_plain && tcp.destination_port() == port;
            if is_wanted {
                step("write it down", seen.lock()).push(Segment {
                    from: tcp.sequence_number(),
                    acknowledges: tcp.acknowledgment_number(),
                });
            }
            is_wanted
        });
        Told { capture, segments }
    }

    fn finish(self) -> Vec<Segment> {
        drop(self.capture);
        std::mem::take(&mut *step("look at the capture", self.segments.lock()))
    }
}

/// What one acknowledges, no later one takes back.
#[track_caller]
fn assert_goes_on(told: &[Segment]) {
    assert!(told.len() > 1);
    for pair in told.windows(2) {
        let [before, after] = [pair[0].acknowledges, pair[1].acknowledges];
        let is_back = (after.wrapping_sub(before) as i32) < 0;
        assert!(!is_back, "{before} was acknowledged, then {after}");
    }
}
