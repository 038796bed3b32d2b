//! How much may be held back, and for how long, and what becomes of it then.

use std::mem::MaybeUninit;
use std::net::Shutdown;
use std::thread::sleep;
use std::time::{Duration, Instant};

use netbpf::tc::Direction;
use netbpf::tcp_hold::{AtBound, Bounds, Reached};
use testbed::step;

use crate::bench::{Lossy, confirm, held, read_to_the_end};
use crate::held_peer::{A_WHILE, WITHIN, assert_stays, read, unacknowledged, until, write};

/// Whoever confirms only whole messages would wait for ever for the rest of one that is larger than what his
/// peer sends without an answer.
#[test]
fn more_than_the_bound_is_released() {
    held("more_than_the_bound_is_released", |bench, held, peer| {
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
    held(
        "more_than_the_bound_is_kept_and_said",
        |bench, held, peer| {
            step("bound", held.bound(&bytes_at_most(3000, AtBound::Keep)));
            write(&peer, 3001);
            read(&held, 3001);
            let kept = Some(Reached::Bytes(AtBound::Keep));
            until("it is said", || step("ask", held.reached()) == kept);
            assert_stays(&peer, 3001);
            assert!(bench.events().bounds > 0);
            confirm(&held, 1);
            until("it is acknowledged", || unacknowledged(&peer) == 3000);
            // What was sent again before is answered first.
            until("nothing more is said", || {
                step("ask", held.reached());
                sleep(A_WHILE);
                step("ask", held.reached()).is_none()
            });
        },
    );
}

#[test]
fn what_is_held_for_too_long_is_released() {
    held("what_is_held_for_too_long_is_released", |_, held, peer| {
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
    held(
        "what_is_confirmed_in_time_reaches_no_bound",
        |_, held, peer| {
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
        },
    );
}

/// The age of what was confirmed long ago is not that of what has come since.
#[test]
fn a_byte_is_as_old_as_it_is() {
    held("a_byte_is_as_old_as_it_is", |_, held, peer| {
        let longest = Duration::from_millis(500);
        let bounds = Bounds {
            time: Some(longest),
            at_bound: AtBound::Keep,
            ..Bounds::default()
        };
        step("bound", held.bound(&bounds));
        // Where the machine takes longer than the bound, nothing is said about it.
        let hold_for_a_moment = || {
            let start = Instant::now();
            write(&peer, 100);
            read(&held, 100);
            let reached = step("ask", held.reached());
            confirm(&held, 100);
            until("it is acknowledged", || unacknowledged(&peer) == 0);
            let reached = reached.or(step("ask", held.reached()));
            (start.elapsed() < longest).then_some(reached)
        };
        until("the machine is quick enough", || {
            hold_for_a_moment().is_some()
        });
        until("the machine is quick enough once more", || {
            sleep(longest);
            match hold_for_a_moment() {
                Some(reached) => {
                    assert_eq!(reached, None, "of the byte before");
                    true
                }
                None => false,
            }
        });
    });
}

/// Also what the kernel acknowledges when the socket has gone.
#[test]
fn what_is_released_at_its_bound_is_so_to_the_end() {
    let name = "what_is_released_at_its_bound_is_so_to_the_end";
    held(name, |_, held, peer| {
        step("bound", held.bound(&bytes_at_most(3000, AtBound::Release)));
        step("we are done", held.shutdown(Shutdown::Write));
        read_to_the_end(&peer);
        write(&peer, 3001);
        read(&held, 3001);
        until("it is released", || unacknowledged(&peer) == 0);
        step("the peer is done", peer.shutdown(Shutdown::Write));
        until("his FIN is acknowledged", || unacknowledged(&peer) == 0);
    });
}

/// Whoever waits for what was lost behind unconfirmed bytes may wait for ever: a peer whose timer has run out sends
/// again what is not acknowledged, beginning with what has come already, and then, with nothing acknowledged,
/// only that. The bound in time ends it.
#[test]
fn what_is_lost_behind_what_is_held_comes_at_the_bound() {
    let name = "what_is_lost_behind_what_is_held_comes_at_the_bound";
    held(name, |_, held, peer| {
        let mut object = MaybeUninit::uninit();
        let mut lossy = Lossy::new(Direction::Ingress, 0, &mut object);
        let bounds = Bounds {
            time: Some(Duration::from_millis(300)),
            at_bound: AtBound::Release,
            ..Bounds::default()
        };
        step("bound", held.bound(&bounds));
        write(&peer, 1000);
        read(&held, 1000);
        lossy.lose(1);
        for _ in 0..5 {
            write(&peer, 1000);
        }
        read(&held, 5000);
        assert_eq!(lossy.lost(), 1);
        until("it is released", || unacknowledged(&peer) == 0);
        let released = Some(Reached::Time(AtBound::Release));
        assert_eq!(step("ask", held.reached()), released);
    });
}

fn bytes_at_most(bytes: u64, at_bound: AtBound) -> Bounds {
    Bounds {
        bytes: Some(bytes),
        at_bound,
        ..Bounds::default()
    }
}
