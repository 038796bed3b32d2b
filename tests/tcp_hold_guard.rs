//! Whatever becomes of the application: no more is acknowledged than it had confirmed.
//!
//! What they have confirmed the applications note before they confirm it.

mod held_application;
mod held_peer;

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::mem::MaybeUninit;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use netbpf::netlink::Netlink;
use netbpf::port::Port;
use netbpf::tc::{self, Direction, Method};
use netbpf::tcp_hold::{Held, Holder, Setup};
use nix::libc;
use nix::sys::prctl::set_child_subreaper;
use nix::sys::pthread::{pthread_kill, pthread_self};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, kill, sigaction};
use nix::unistd::{ForkResult, Pid, fork};
use testbed::namespace::{Place, Veth};
use testbed::{Over, step};

use held_application::{Application, Wire};
use held_peer::{
    Network, assert_stays, in_each_network, patient, read, unacknowledged, until, write,
};

/// So long a stream stands still before it is no stream.
const A_MOMENT: Duration = Duration::from_millis(300);

/// So long the end of a holder waits for a guard that does not go.
const GIVES_UP_AFTER: Duration = Duration::from_secs(10);

/// Confirms, after it has noted that it does.
fn confirm(wire: &Wire, held: &Held<TcpStream>, bytes: u64) {
    wire.noted.fetch_add(bytes, Ordering::SeqCst);
    step("confirm", held.confirm(bytes));
    step("announce", held.announce());
}

/// Until it is killed.
fn wait(wire: &mut Wire) -> ! {
    loop {
        wire.hear();
    }
}

fn holder(method: Method, object: &mut MaybeUninit<libbpf_rs::OpenObject>) -> Holder<'_> {
    let mut holder = step("load", Holder::load(&Setup::default(), object));
    let mut netlink = step("open netlink", Netlink::open());
    let port = step("find up0", Port::find(&mut netlink, "up0"));
    step("attach", holder.attach(Some(method), &[port]));
    holder
}

/// In the application: a connection from the peer, held, after the port was said.
fn accept(network: &Network, holder: &Holder<'_>, wire: &mut Wire) -> Held<TcpStream> {
    let listener = step("listen", TcpListener::bind((network.here, 0)));
    step("hold what is accepted", holder.hold_accepted(&listener));
    wire.say(step("own address", listener.local_addr()).port().into());
    let (stream, _) = step("accept", listener.accept());
    step("hold", holder.hold(patient(stream)))
}

fn address(network: &Network, port: u32) -> SocketAddr {
    SocketAddr::new(network.here, port as u16)
}

fn guard_of(holder: &Holder<'_>) -> u32 {
    let guard = holder.guard();
    guard.unwrap_or_else(|| panic!("there is no guard"))
}

fn is_there(pid: u32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

fn is_a_zombie(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"));
    stat.is_ok_and(|stat| stat.contains("(tcp_hold_guard) Z "))
}

/// Writes until the connection is reset; how much was acknowledged of it.
fn write_until_reset(mut peer: &TcpStream) -> u64 {
    let mut written = 0;
    loop {
        match peer.write(&[7; 700]) {
            Ok(bytes) => written += bytes as u64,
            Err(error) => {
                let kind = error.kind();
                let is_reset = matches!(kind, ErrorKind::ConnectionReset | ErrorKind::BrokenPipe);
                assert!(is_reset, "{error}");
                return written - unacknowledged(peer) as u64;
            }
        }
    }
}

/// Kills the application in mid-stream, its guard before it if so asked, and looks at what the peer knows.
fn kill_in_mid_stream(network: &Network, method: Method, after: u64, guard_first: bool) {
    let mut application = Application::start(|wire| {
        let mut object = MaybeUninit::uninit();
        let holder = holder(method, &mut object);
        wire.say(guard_of(&holder));
        let held = accept(network, &holder, wire);
        step("wait less", held.set_read_timeout(Some(A_MOMENT)));
        let mut unconfirmed = 0;
        loop {
            let mut buffer = [0; 1000];
            // The last 2,000 bytes stay unconfirmed, as long as more come: a peer whose timer has run out, as it may
            // on a busy machine, sends them again, and nothing else before they are acknowledged.
            let kept = match (&*held).read(&mut buffer) {
                Ok(bytes) => {
                    unconfirmed += bytes as u64;
                    2000
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => 0,
                Err(error) => panic!("read: {error}"),
            };
            if unconfirmed > kept {
                confirm(wire, &held, unconfirmed - kept);
                unconfirmed = kept;
            }
        }
    });
    let guard = application.wire.hear();
    let port = application.wire.hear();
    let peer = network.connect_from_peer(address(network, port));
    let acknowledged = std::thread::scope(|scope| {
        let writer = scope.spawn(|| write_until_reset(&peer));
        until("so much is confirmed", || {
            application.wire.noted.load(Ordering::SeqCst) > after
        });
        if guard_first {
            end_by_force(guard);
        }
        application.kill();
        testbed::joined(writer)
    });
    let confirmed = application.wire.noted.load(Ordering::SeqCst);
    assert!(
        acknowledged <= confirmed,
        "{acknowledged} bytes are acknowledged, {confirmed} were confirmed"
    );
    assert!(acknowledged > 0, "nothing was acknowledged at all");
    until("the guard ends", || !is_there(guard));
}

#[test]
fn who_is_killed_has_acknowledged_nothing_more() {
    let name = "who_is_killed_has_acknowledged_nothing_more";
    let runs = if testbed::long(name, "5 of 250 kill points in each network") {
        250
    } else {
        5
    };
    in_each_network(name, |_, network, method| {
        for run in 0..runs {
            kill_in_mid_stream(network, method, run * 7919 % 100_000, false);
        }
    });
}

/// The application's own copy of the link holds until then, and the reset is all that its sockets send.
#[test]
fn who_is_killed_after_his_guard_has_neither() {
    let name = "who_is_killed_after_his_guard_has_neither";
    let runs = if testbed::long(name, "5 of 250 kill points in each network") {
        250
    } else {
        5
    };
    in_each_network(name, |_, network, method| {
        // A filter stays where nobody takes it off.
        if method == Method::Tcx {
            for run in 0..runs {
                kill_in_mid_stream(network, method, run * 7919 % 100_000, true);
            }
        }
    });
}

/// A socket that somebody else has lives on, held, and the program with it.
#[test]
fn what_was_passed_on_stays_held() {
    in_each_network("what_was_passed_on_stays_held", |_, network, method| {
        let mut application = Application::start(|wire| {
            let mut object = MaybeUninit::uninit();
            let holder = holder(method, &mut object);
            wire.say(guard_of(&holder));
            let held = accept(network, &holder, wire);
            read(&held, 4000);
            confirm(wire, &held, 1000);
            pass_on(&held, wire);
            wait(wire);
        });
        let guard = application.wire.hear();
        let port = application.wire.hear();
        let mut peer = network.connect_from_peer(address(network, port));
        write(&peer, 4000);
        let heir = application.wire.hear();
        until("1,000 are acknowledged", || unacknowledged(&peer) == 3000);
        application.kill();
        // Nobody reads; the kernel would acknowledge this, and what was there before.
        write(&peer, 100);
        assert_stays(&peer, 3100);
        assert!(is_there(guard));
        end_by_force(heir);
        let ended = peer.read(&mut [0; 16]).map_err(|error| error.kind());
        assert_eq!(ended, Err(ErrorKind::ConnectionReset));
        assert_eq!(unacknowledged(&peer), 3100);
        until("the guard ends", || !is_there(guard));
    });
}

/// The guard of a dead application takes off its own program, not that of whoever came after.
#[test]
fn a_successor_stands_beside_the_guard_of_a_dead_one() {
    let name = "a_successor_stands_beside_the_guard_of_a_dead_one";
    in_each_network(name, |_, network, method| {
        let mut application = Application::start(|wire| {
            let mut object = MaybeUninit::uninit();
            let holder = holder(method, &mut object);
            wire.say(guard_of(&holder));
            let held = accept(network, &holder, wire);
            pass_on(&held, wire);
            wait(wire);
        });
        let guard = application.wire.hear();
        let port = application.wire.hear();
        let of_dead = network.connect_from_peer(address(network, port));
        let heir = application.wire.hear();
        application.kill();

        let mut object = MaybeUninit::uninit();
        let holder = holder(method, &mut object);
        let next_guard = guard_of(&holder);
        let listener = step("listen", TcpListener::bind((network.here, 0)));
        step("hold what is accepted", holder.hold_accepted(&listener));
        let peer = network.connect_from_peer(step("address", listener.local_addr()));
        let (stream, _) = step("accept", listener.accept());
        let held = step("hold", holder.hold(patient(stream)));
        write(&of_dead, 500);
        assert_stays(&of_dead, 500);
        end_by_force(heir);
        until("the guard ends", || !is_there(guard));
        write(&peer, 3000);
        read(&held, 3000);
        assert_stays(&peer, 3000);
        step("confirm", held.confirm(3000));
        step("announce", held.announce());
        until("it is acknowledged", || unacknowledged(&peer) == 0);
        drop((held, listener, holder));
        until("the next guard ends", || !is_there(next_guard));
    });
}

/// Nobody takes it off before somebody comes.
#[test]
fn a_filter_of_a_killed_guard_goes_with_the_next_start() {
    let name = "a_filter_of_a_killed_guard_goes_with_the_next_start";
    in_each_network(name, |_, network, method| {
        if method == Method::Tcx {
            return;
        }
        let mut application = Application::start(|wire| {
            let mut object = MaybeUninit::uninit();
            let holder = holder(method, &mut object);
            wire.say(guard_of(&holder));
            wait(wire);
        });
        let guard = application.wire.hear();
        end_by_force(guard);
        until("the guard ends", || !is_there(guard));
        application.kill();
        let ifindex = step("find up0", nix::net::if_::if_nametoindex("up0"));
        let programs = || step("list", tc::programs(ifindex, Direction::Egress)).len();
        assert_eq!(programs(), 1);
        // At whatever interface.
        let _cable = Veth::new((&Place::here(), "up1"), (&network.peer, "eth1"));
        let mut object = MaybeUninit::uninit();
        let mut next = step("load", Holder::load(&Setup::default(), &mut object));
        let mut netlink = step("open netlink", Netlink::open());
        let port = step("find up1", Port::find(&mut netlink, "up1"));
        step("attach", next.attach(Some(method), &[port]));
        assert_eq!(programs(), 0);
    });
}

fn end_by_force(pid: u32) {
    step("kill", kill(Pid::from_raw(pid as i32), Signal::SIGKILL));
}

/// Another process has the socket as well, and nothing else. Says which.
fn pass_on(held: &Held<TcpStream>, wire: &mut Wire) {
    // SAFETY: as in Application::start.
    match step("fork", unsafe { fork() }) {
        ForkResult::Parent { child } => wire.say(child.as_raw() as u32),
        ForkResult::Child => keep_only(held.as_raw_fd()),
    }
}

/// Closes everything else, and waits to be killed.
fn keep_only(socket: i32) -> ! {
    for fd in (0..1024).filter(|&fd| fd != socket) {
        // SAFETY: a number; nothing in this process uses what it closes.
        unsafe { libc::close(fd) };
    }
    loop {
        nix::unistd::pause();
    }
}

/// When both ends have sent their FIN there is no socket any more, and the kernel goes on to acknowledge.
#[test]
fn what_is_acknowledged_without_a_socket_stays_held() {
    let name = "what_is_acknowledged_without_a_socket_stays_held";
    in_each_network(name, |_, network, method| {
        let mut application = Application::start(|wire| {
            let mut object = MaybeUninit::uninit();
            let holder = holder(method, &mut object);
            wire.say(guard_of(&holder));
            let held = accept(network, &holder, wire);
            step("we are done", held.shutdown(Shutdown::Write));
            read(&held, 4000);
            // The peer's FIN: this end of the connection is over.
            assert_eq!(step("read to the end", (&*held).read(&mut [0])), 0);
            confirm(wire, &held, 1000);
            wire.say(0);
            wait(wire);
        });
        let guard = application.wire.hear();
        let port = application.wire.hear();
        let mut peer = network.connect_from_peer(address(network, port));
        assert_eq!(step("read to the end", peer.read(&mut [0])), 0);
        write(&peer, 4000);
        step("the peer is done", peer.shutdown(Shutdown::Write));
        application.wire.hear();
        application.kill();
        // His FIN counts.
        until("1,000 are acknowledged", || unacknowledged(&peer) == 3001);
        assert_stays(&peer, 3001);
        assert!(is_there(guard));
        // It would wait until TIME-WAIT is over.
        end_by_force(guard);
        until("the guard ends", || !is_there(guard));
    });
}

/// It stands at every link; the one before goes, though something is held.
#[test]
fn one_guard_stands_at_all_links() {
    in_each_network("one_guard_stands_at_all_links", |_, network, method| {
        let _cable = Veth::new((&Place::here(), "up1"), (&network.peer, "eth1"));
        let mut object = MaybeUninit::uninit();
        let mut holder = holder(method, &mut object);
        let first = guard_of(&holder);
        let listener = step("listen", TcpListener::bind((network.here, 0)));
        step("hold what is accepted", holder.hold_accepted(&listener));
        let mut netlink = step("open netlink", Netlink::open());
        let port = step("find up1", Port::find(&mut netlink, "up1"));
        step("attach", holder.attach(Some(method), &[port]));
        until("the first one ends", || !is_there(first));
        let second = guard_of(&holder);
        assert!(is_there(second));
        drop((listener, holder));
        until("the guard ends", || !is_there(second));
    });
}

#[test]
fn a_killed_guard_is_known_and_replaced() {
    in_each_network(
        "a_killed_guard_is_known_and_replaced",
        |_, network, method| {
            let mut application = Application::start(|wire| {
                let mut object = MaybeUninit::uninit();
                let mut holder = holder(method, &mut object);
                let first = guard_of(&holder);
                assert!(!step("look", holder.guard_again()), "there is one");
                let held = accept(network, &holder, wire);
                read(&held, 4000);
                confirm(wire, &held, 1000);
                end_by_force(first);
                until("it is known", || holder.guard().is_none());
                wire.say(first);
                wire.hear();
                assert!(step("start another", holder.guard_again()));
                wire.say(guard_of(&holder));
                wait(wire);
            });
            let port = application.wire.hear();
            let peer = network.connect_from_peer(address(network, port));
            write(&peer, 4000);
            let first = application.wire.hear();
            until("1,000 are acknowledged", || unacknowledged(&peer) == 3000);
            assert_stays(&peer, 3000);
            application.wire.say(0);
            let second = application.wire.hear();
            assert_ne!(first, second);
            assert!(is_there(second));
            application.kill();
            until("the guard ends", || !is_there(second));
            assert_eq!(unacknowledged(&peer), 3000);
        },
    );
}

/// A process that nobody waits for stays in /proc, but has closed everything.
#[test]
fn the_end_does_not_wait_until_somebody_waits_for_the_guard() {
    let name = "the_end_does_not_wait_until_somebody_waits_for_the_guard";
    in_each_network(name, |_, _, method| {
        let mut application = Application::start(|wire| {
            // The guard, which has lost its parent, becomes a child of this one.
            step("be its parent", set_child_subreaper(true));
            let mut object = MaybeUninit::uninit();
            let holder = holder(method, &mut object);
            let guard = guard_of(&holder);
            let began = Instant::now();
            drop(holder);
            assert!(began.elapsed() < GIVES_UP_AFTER / 2);
            wire.say(guard);
            wait(wire);
        });
        let guard = application.wire.hear();
        assert!(is_a_zombie(guard));
    });
}

extern "C" fn handle(_signal: i32) {}

/// An application may have handlers, and timers that call them all the time.
#[test]
fn signals_of_the_application_disturb_nothing() {
    let name = "signals_of_the_application_disturb_nothing";
    let handling = SigAction::new(
        SigHandler::Handler(handle),
        SaFlags::empty(),
        SigSet::empty(),
    );
    // SAFETY: the handler does nothing; nothing else in this process uses the signal.
    step("handle a signal", unsafe {
        sigaction(Signal::SIGURG, &handling)
    });
    in_each_network(name, |_, network, method| {
        let (this, is_over) = (pthread_self(), AtomicBool::new(false));
        let life = || {
            let mut object = MaybeUninit::uninit();
            let holder = holder(method, &mut object);
            let guard = guard_of(&holder);
            let listener = step("listen", TcpListener::bind((network.here, 0)));
            step("hold what is accepted", holder.hold_accepted(&listener));
            let address = step("own address", listener.local_addr());
            let peer = network.connect_from_peer(address);
            let (stream, _) = step("accept", listener.accept());
            let held = step("hold", holder.hold(patient(stream)));
            write(&peer, 3000);
            read(&held, 3000);
            step("confirm", held.confirm(1000));
            step("announce", held.announce());
            step("release", held.release());
            drop((peer, listener, holder));
            guard
        };
        thread::scope(|scope| {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    step("send a signal", pthread_kill(this, Signal::SIGURG));
                    sleep(Duration::from_micros(300));
                }
            });
            let over = Over(&is_over);
            let guard = life();
            drop(over);
            // The end has waited for it.
            assert!(!is_there(guard) || is_a_zombie(guard));
        });
    });
}

#[test]
fn the_guard_has_none_of_the_applications_sockets() {
    let name = "the_guard_has_none_of_the_applications_sockets";
    in_each_network(name, |_, network, method| {
        let mut object = MaybeUninit::uninit();
        let listener = step("listen", TcpListener::bind((network.here, 0)));
        let holder = holder(method, &mut object);
        let guard = guard_of(&holder);
        let folder = step("list", fs::read_dir(format!("/proc/{guard}/fd")));
        let mut open: Vec<String> = folder
            .map(|entry| step("read", fs::read_link(step("list", entry).path())))
            .map(|target| target.to_string_lossy().into_owned())
            .map(|target| target.split('[').next().unwrap().to_owned())
            .collect();
        open.sort();
        let mut expected = vec!["/dev/null"; 3];
        expected.push(match method {
            Method::Tcx => "anon_inode:bpf_link",
            Method::Clsact => "socket:", // the lock
        });
        expected.extend(["anon_inode:bpf-map", "anon_inode:bpf-map", "socket:"]);
        expected.sort();
        assert_eq!(open, expected);
        drop((holder, listener));
        until("the guard ends", || !is_there(guard));
    });
}

#[test]
fn without_its_holder_a_socket_stays_held() {
    in_each_network(
        "without_its_holder_a_socket_stays_held",
        |_, network, method| {
            let mut object = MaybeUninit::uninit();
            let holder = holder(method, &mut object);
            let guard = guard_of(&holder);
            let listener = step("listen", TcpListener::bind((network.here, 0)));
            step("hold what is accepted", holder.hold_accepted(&listener));
            let peer = network.connect_from_peer(step("address", listener.local_addr()));
            let (stream, _) = step("accept", listener.accept());
            let held = step("hold", holder.hold(patient(stream)));
            drop((listener, holder));
            write(&peer, 3000);
            read(&held, 3000);
            assert_stays(&peer, 3000);
            step("confirm", held.confirm(1000));
            step("announce", held.announce());
            until("it is acknowledged", || unacknowledged(&peer) == 2000);
            assert!(is_there(guard));
            let stream = step("release", held.release());
            until("the kernel acknowledges", || unacknowledged(&peer) == 0);
            until("the guard ends", || !is_there(guard));
            drop(stream);
        },
    );
}
