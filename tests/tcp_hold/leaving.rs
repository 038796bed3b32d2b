//! Connections that end: in whichever order, and with unconfirmed bytes.

use std::io::Read;
use std::mem::MaybeUninit;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;

use libbpf_rs::{MapCore, MapFlags};
use netbpf::tc::Direction;
use netbpf::tcp_hold::{Held, Setup};
use nix::libc;
use testbed::step;
use testbed::traffic::reset_when_closed;

use crate::bench::{
    Bench, Lossy, accept, confirm, held, leave_first, read_to_the_end, run, waits_for,
};
use crate::held_peer::{
    A_WHILE, assert_stays, in_each_network, patient, read, unacknowledged, until, write,
};
use crate::repaired::{self, bound, connect_to};

/// net/tcp_states.h
const CLOSE: u8 = 7;
const CLOSING: u8 = 11;

/// The peer's FIN is a byte of the sequence, which is acknowledged with the last byte before it.
#[test]
fn a_fin_waits_for_what_is_before_it() {
    held("a_fin_waits_for_what_is_before_it", |_, held, peer| {
        let with_fin = peer_leaves(&held, &peer, 1200);
        assert_stays(&peer, with_fin);
        confirm(&held, 1199);
        write(&held, 1);
        let waits = || unacknowledged(&peer);
        until("all but one byte", || waits() == with_fin - 1199);
        assert_stays(&peer, with_fin - 1199);
        confirm(&held, 1);
        write(&held, 1);
        until("the last byte, and the FIN", || waits() == 0);
        assert!(step("ask", held.is_settled()));
        read(&peer, 2);
    });
}

#[test]
fn who_leaves_last_acknowledges_all_with_his_own_fin() {
    let name = "who_leaves_last_acknowledges_all_with_his_own_fin";
    held(name, |_, held, peer| {
        peer_leaves(&held, &peer, 1200);
        confirm(&held, 1200);
        step("we are done", held.shutdown(Shutdown::Write));
        read_to_the_end(&peer);
        assert_eq!(unacknowledged(&peer), 0);
        until("the connection is over", || state(&held) == CLOSE);
        assert!(step("ask", held.is_settled()));
        assert_eq!(step("ask", held.promised()), 1201);
    });
}

/// The kernel gives up such a connection with the acknowledgement of our FIN: what the peer sends again is
/// answered by a reset.
#[test]
fn who_leaves_last_with_unconfirmed_bytes_resets_the_connection() {
    let name = "who_leaves_last_with_unconfirmed_bytes_resets_the_connection";
    held(name, |_, held, peer| {
        let with_fin = peer_leaves(&held, &peer, 1200);
        confirm(&held, 500);
        step("we are done", held.shutdown(Shutdown::Write));
        until("the connection is over", || state(&held) == CLOSE);
        until("the peer hears of it", || state(&peer) == CLOSE);
        assert_eq!(unacknowledged(&peer), with_fin - 500);
        confirm(&held, 700);
        assert_stays(&peer, with_fin - 500);
        assert_eq!(step("ask", held.promised()), 500);
    });
}

/// Each has sent his FIN before he hears of the other's: what we send on the way is lost.
#[test]
fn both_leave_at_once() {
    held("both_leave_at_once", |_, held, peer| {
        let mut object = MaybeUninit::uninit();
        let mut lossy = Lossy::new(Direction::Egress, 0, &mut object);
        let with_fin = fins_cross(&mut lossy, &held, &peer, 2000);
        read_to_the_end(&peer);
        assert_stays(&peer, with_fin);
        confirm(&held, 1500);
        let rest = with_fin - 1500;
        until("1,500 are acknowledged", || unacknowledged(&peer) == rest);
        assert_stays(&peer, rest);
        confirm(&held, 500);
        until("the rest, and the FIN", || unacknowledged(&peer) == 0);
        until("it is known", || step("ask", held.is_settled()));
    });
}

/// With all that came before it confirmed, the peer's FIN is acknowledged by the next one of ours.
#[test]
fn both_leave_at_once_with_all_confirmed() {
    let name = "both_leave_at_once_with_all_confirmed";
    held(name, |_, held, peer| {
        let mut object = MaybeUninit::uninit();
        let mut lossy = Lossy::new(Direction::Egress, 0, &mut object);
        write(&peer, 2000);
        read(&held, 2000);
        confirm(&held, 2000);
        until("all is acknowledged", || unacknowledged(&peer) == 0);
        fins_cross(&mut lossy, &held, &peer, 0);
        read_to_the_end(&peer);
        assert_eq!(unacknowledged(&peer), 0);
        assert!(step("ask", held.is_settled()));
    });
}

/// The peer sends so many bytes, and his packets reach us, and ours do not reach him, until both are done; how
/// much he waits for.
fn fins_cross(
    lossy: &mut Lossy<'_>,
    held: &Held<TcpStream>,
    peer: &TcpStream,
    bytes: usize,
) -> i32 {
    lossy.lose(u32::MAX);
    step("we are done", held.shutdown(Shutdown::Write));
    write(peer, bytes);
    step("the peer is done", peer.shutdown(Shutdown::Write));
    read(held, bytes);
    read_to_the_end(held);
    assert_eq!(state(held), CLOSING);
    let with_fin = waits_for(peer, bytes);
    lossy.lose(0);
    with_fin
}

/// When both have sent their FIN the kernel gives up the socket, and goes on to acknowledge for a minute.
#[test]
fn who_leaves_first_holds_back_still() {
    held("who_leaves_first_holds_back_still", |_, held, peer| {
        let with_fin = leave_first(&held, &peer, 2000);
        assert_stays(&peer, with_fin);
        assert!(!step("ask", held.is_settled()));
        confirm(&held, 1500);
        // There is nothing to force an acknowledgement with; the peer asks for it.
        let rest = with_fin - 1500;
        until("1,500 are acknowledged", || unacknowledged(&peer) == rest);
        assert_stays(&peer, rest);
        assert_eq!(step("ask", held.promised()), 1500);
        confirm(&held, 499);
        until("all but one byte", || unacknowledged(&peer) == rest - 499);
        assert_stays(&peer, rest - 499);
        assert!(!step("ask", held.is_settled()));
        confirm(&held, 1);
        until("the last byte, and the FIN", || unacknowledged(&peer) == 0);
        assert!(step("ask", held.is_settled()));
    });
}

/// Where the peer's numbers begin again on the way, and where so much had come before that they did.
#[test]
fn who_leaves_first_holds_back_with_any_numbers() {
    let name = "who_leaves_first_holds_back_with_any_numbers";
    run(name, |bench| {
        let (ours, his) = (u32::MAX - 99, u32::MAX - 1499);
        let (stream, peer) = bench.repaired(ours, his);
        let held = bench.hold(stream);
        repaired::go([&held, &peer]);
        let with_fin = leave_first(&held, &peer, 2000);
        assert_stays(&peer, with_fin);
        confirm(&held, 700);
        let waits = || unacknowledged(&peer);
        until("700 are acknowledged", || waits() == with_fin - 700);
        let more = 3 << 32;
        more_had_come(bench, &held, more);
        confirm(&held, 700);
        until("1,400 are acknowledged", || waits() == with_fin - 1400);
        assert_stays(&peer, with_fin - 1400);
        confirm(&held, 200);
        until("1,600 are acknowledged", || waits() == with_fin - 1600);
        assert_stays(&peer, with_fin - 1600);
        assert_eq!(step("ask", held.promised()), more + 1600);
        confirm(&held, 400);
        until("the rest, and the FIN", || waits() == 0);
        assert_eq!(step("ask", held.promised()), more + 2001);
    });
}

/// As if the one connection that is remembered had brought so many more bytes, a multiple of 2^32, all of them
/// confirmed: to send them would take a minute.
fn more_had_come(bench: &Bench<'_, '_>, held: &Held<TcpStream>, bytes: u64) {
    /// Of `promised` in struct leaver, behind the generation.
    const PROMISED: std::ops::Range<usize> = 8..16;
    let leavers = &bench.holder.skeleton().maps.leavers;
    let ends: Vec<_> = leavers.keys().collect();
    assert_eq!(ends.len(), 1);
    let leaver = step("look for it", leavers.lookup(&ends[0], MapFlags::ANY));
    let Some(mut leaver) = leaver else {
        panic!("it is not remembered");
    };
    let promised = step("ask", held.promised());
    assert_eq!(leaver[PROMISED], promised.to_ne_bytes());
    leaver[PROMISED].copy_from_slice(&(promised + bytes).to_ne_bytes());
    // In this order, or the peer could be told of bytes that nobody has confirmed.
    let changed = leavers.update(&ends[0], &leaver, MapFlags::EXIST);
    step("change it", changed);
    step("confirm", held.confirm(bytes));
}

#[test]
fn who_leaves_first_and_dies_holds_back_still() {
    let name = "who_leaves_first_and_dies_holds_back_still";
    held(name, |bench, held, peer| {
        let with_fin = leave_first(&held, &peer, 2000);
        confirm(&held, 700);
        drop(held);
        // Its account may be another connection's.
        let _next = bench.confirmed(5000);
        let left = unacknowledged(&peer);
        assert!((with_fin - 700..=with_fin).contains(&left), "{left}");
        assert_stays(&peer, left);
        bench.forget_leavers();
    });
}

#[test]
fn who_leaves_first_is_released_too() {
    held("who_leaves_first_is_released_too", |_, held, peer| {
        let with_fin = leave_first(&held, &peer, 2000);
        assert_stays(&peer, with_fin);
        step("release", held.release());
        until("the kernel acknowledges", || unacknowledged(&peer) == 0);
    });
}

/// What is acknowledged without a socket is held as long as it is remembered; who would be forgotten waits.
#[test]
fn without_room_a_fin_does_not_leave() {
    let name = "without_room_a_fin_does_not_leave";
    in_each_network(name, |_, network, method| {
        let mut object = MaybeUninit::uninit();
        let setup = Setup { max_holds: 1 };
        let bench = Bench::new(network, method, &setup, &mut object);
        // As many as are remembered with room for one.
        let mut peers = Vec::new();
        for _ in 0..4 {
            let (held, peer) = bench.accepted();
            leave_first(&held, &peer, 1000);
            peers.push(peer);
        }
        bench.assert_nothing_was_dropped();
        let (held, peer) = bench.accepted();
        step("we are done", held.shutdown(Shutdown::Write));
        until("it waits", || bench.events().failed > 0);
        step("bound", peer.set_read_timeout(Some(A_WHILE)));
        let nothing = (&peer).read(&mut [0]).map_err(|error| error.kind());
        assert_eq!(nothing, Err(std::io::ErrorKind::WouldBlock));
        // The others have no more to wait for; what their peers send again is answered as the kernel likes.
        bench.forget_leavers();
        read_to_the_end(&patient(peer));
        drop(held);
        bench.forget_leavers();
    });
}

/// What was confirmed of one connection says nothing of the next one between the same ends.
#[test]
fn the_next_one_between_the_same_ends_begins_anew() {
    run("the_next_one_between_the_same_ends_begins_anew", |bench| {
        let (listener, address) = bench.listen_and_hold();
        for end in ["by a reset", "in order", "by a reset"] {
            let mut peer = connect_again(bench, address);
            let held = bench.hold(accept(&listener));
            write(&peer, 5000);
            read(&held, 5000);
            assert_stays(&peer, 5000);
            confirm(&held, 5000);
            until("it is acknowledged", || unacknowledged(&peer) == 0);
            if end == "in order" {
                // We leave first: what is left of this connection stays here, in TIME-WAIT.
                step("we are done", held.shutdown(Shutdown::Write));
                read_to_the_end(&peer);
                step("the peer is done", peer.shutdown(Shutdown::Write));
                until("the FIN is acknowledged", || unacknowledged(&peer) == 0);
            } else {
                drop(held);
                peer.read(&mut [0]).unwrap_err();
            }
        }
    });
}

/// Nor does what was not confirmed of one concern the next, which nobody holds: here what the kernel
/// acknowledges without a socket is between the same ends, and of another connection.
#[test]
fn the_next_one_between_the_same_ends_need_not_be_held() {
    let name = "the_next_one_between_the_same_ends_need_not_be_held";
    run(name, |bench| {
        let (listener, address) = bench.listen_and_hold();
        let peer = connect_again(bench, address);
        let held = bench.hold(accept(&listener));
        let with_fin = leave_first(&held, &peer, 2000);
        assert_stays(&peer, with_fin);
        // Which ends TIME-WAIT (RFC 1337).
        reset(peer);
        drop((held, listener));
        let listener = listen_again(address);
        let peer = connect_again(bench, address);
        let stream = accept(&listener);
        write(&peer, 100);
        read(&stream, 100);
        step("we are done", stream.shutdown(Shutdown::Write));
        read_to_the_end(&peer);
        // The socket's own answer to the FIN is lost: it takes another one.
        let mut object = MaybeUninit::uninit();
        let mut lossy = Lossy::new(Direction::Egress, 0, &mut object);
        lossy.lose(1);
        step("the peer is done", peer.shutdown(Shutdown::Write));
        until("the FIN is acknowledged", || unacknowledged(&peer) == 0);
        bench.forget_leavers();
    });
}

/// A guard that another test starts is a copy of this process for a moment, with the listener that was there.
fn listen_again(address: SocketAddr) -> TcpListener {
    let mut listener = None;
    until("nobody listens there any more", || {
        listener = TcpListener::bind(address).ok();
        listener.is_some()
    });
    step("listen again", listener.ok_or("not bound"))
}

/// From the same address each time.
fn connect_again(bench: &Bench<'_, '_>, address: SocketAddr) -> TcpStream {
    let from = SocketAddr::new(bench.there, 40_001);
    let stream = bench.peer.run(|| bound(from));
    connect_to(&stream, address);
    patient(stream)
}

#[test]
fn the_peers_reset_ends_it() {
    held("the_peers_reset_ends_it", |_, held, peer| {
        write(&peer, 1000);
        read(&held, 1000);
        reset(peer);
        let ended = (&*held).read(&mut [0]).map_err(|error| error.kind());
        assert_eq!(ended, Err(std::io::ErrorKind::ConnectionReset));
        assert!(!step("ask", held.is_settled()));
        confirm(&held, 1000);
        assert!(step("ask", held.is_settled()));
        step("release", held.release());
    });
}

#[test]
fn whoever_goes_with_unconfirmed_bytes_resets_the_connection() {
    let name = "whoever_goes_with_unconfirmed_bytes_resets_the_connection";
    held(name, |_, held, mut peer| {
        write(&peer, 2000);
        read(&held, 2000);
        confirm(&held, 500);
        until("500 are acknowledged", || unacknowledged(&peer) == 1500);
        drop(held);
        let ended = peer.read(&mut [0; 16]);
        let ended = ended.map_err(|error| error.kind());
        assert_eq!(ended, Err(std::io::ErrorKind::ConnectionReset));
        assert_eq!(unacknowledged(&peer), 1500);
    });
}

/// The peer sends so many bytes, and his FIN, and we read them; how much he waits for then.
fn peer_leaves(held: &Held<TcpStream>, peer: &TcpStream, bytes: usize) -> i32 {
    write(peer, bytes);
    step("the peer is done", peer.shutdown(Shutdown::Write));
    read(held, bytes);
    read_to_the_end(held);
    waits_for(peer, bytes)
}

fn reset(stream: TcpStream) {
    reset_when_closed(&stream);
}

fn state(stream: &TcpStream) -> u8 {
    let mut state = 0_u8;
    let mut length = 1;
    // SAFETY: both places are this function's, and the kernel writes `length` bytes at most: of struct tcp_info
    // its first, the state.
    let result = unsafe {
        libc::getsockopt(
            stream.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            (&raw mut state).cast(),
            &raw mut length,
        )
    };
    step("ask for the state", nix::errno::Errno::result(result));
    state
}
