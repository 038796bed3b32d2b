//! The agent, as programs without any privilege use it.

mod held_peer;

use std::array::from_fn;
use std::fs;
use std::io::{IoSlice, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::Command;

use netbpf::options::Attach;
use netbpf::tc::Method;
use netbpf::tcp_hold::agent::{self, AgentArguments};
use nix::libc;
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{
    AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, UnixAddr, connect, recv, sendmsg,
    socket,
};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork};
use testbed::process::Process;
use testbed::sandbox::Sandbox;
use testbed::step;

use held_peer::{
    Network, WITHIN, assert_stays, in_each_network, patient, read, unacknowledged, until, write,
};

const SOCKET: &str = "/run/agent";
const FOLDER: &str = "/run/logs";
const LOG: &str = "/run/logs/log";
/// Debian's nobody.
const NOBODY: u32 = 65534;
/// Bytes that the example reads, writes and confirms at once.
const BATCH: u64 = 65536;

/// The agent, in a fork of the test.
struct Agent {
    pid: Pid,
}

impl Agent {
    fn start(method: Method) -> Agent {
        let arguments = AgentArguments {
            socket: SOCKET.into(),
            iface: vec!["up0".to_owned()],
            mode: 0o666,
            attach: match method {
                Method::Tcx => Attach::Tcx,
                Method::Clsact => Attach::Clsact,
            },
            metrics: None,
        };
        // SAFETY: the child is a copy with this thread alone; it allocates, which glibc allows after fork, and
        // leaves without running what the test set up.
        let pid = match step("fork", unsafe { fork() }) {
            ForkResult::Parent { child } => child,
            ForkResult::Child => {
                let ran = catch_unwind(AssertUnwindSafe(|| agent::run(&arguments)));
                let is_well = ran.is_ok_and(|ran| match ran {
                    Ok(()) => true,
                    Err(error) => {
                        eprintln!("agent: {error:#}");
                        false
                    }
                });
                // SAFETY: it takes a number and does not return.
                unsafe { libc::_exit(i32::from(!is_well)) }
            }
        };
        until("the agent's socket is there", || Path::new(SOCKET).exists());
        Agent { pid }
    }

    fn end(self) {
        step("end the agent", kill(self.pid, Signal::SIGTERM));
        let ended = step("wait for the agent", waitpid(self.pid, None));
        assert_eq!(ended, WaitStatus::Exited(self.pid, 0));
        assert!(!Path::new(SOCKET).exists());
    }
}

/// An application's control connection.
struct Control(OwnedFd);

impl Control {
    fn open() -> Control {
        let flags = SockFlag::SOCK_CLOEXEC;
        let wire = socket(AddressFamily::Unix, SockType::SeqPacket, flags, None);
        let wire = step("open a socket", wire);
        let address = step("name it", UnixAddr::new(SOCKET));
        until("the agent listens", || {
            connect(wire.as_raw_fd(), &address).is_ok()
        });
        Control(wire)
    }

    /// The answer to these bytes.
    fn say(&self, bytes: &[u8], descriptors: &[RawFd]) -> [u8; 24] {
        let rights = [ControlMessage::ScmRights(descriptors)];
        let rights = if descriptors.is_empty() {
            &[]
        } else {
            &rights[..]
        };
        let parts = [IoSlice::new(bytes)];
        let sent = sendmsg::<()>(self.0.as_raw_fd(), &parts, rights, MsgFlags::empty(), None);
        step("ask", sent);
        let mut answer = [0; 24];
        let length = recv(self.0.as_raw_fd(), &mut answer, MsgFlags::empty());
        assert_eq!(step("hear", length), 24);
        answer
    }

    /// Error, handle, confirmed, promised.
    fn ask(&self, verb: u8, handle: u32, bytes: u64, fds: &[RawFd]) -> (u16, u32, u64, u64) {
        let mut request = vec![1, verb, 0, 0];
        request.extend(handle.to_be_bytes());
        request.extend(bytes.to_be_bytes());
        let answer = self.say(&request, fds);
        assert_eq!(answer[..2], [1, verb]);
        let number = |at: usize| u64::from_be_bytes(from_fn(|place| answer[at + place]));
        (
            u16::from_be_bytes([answer[2], answer[3]]),
            u32::from_be_bytes(from_fn(|place| answer[4 + place])),
            number(8),
            number(16),
        )
    }
}

/// A connection whose bytes are held from the first one on, and the peer's end of it.
fn accepted(network: &Network, control: &Control) -> (TcpStream, TcpStream) {
    let listener = step("listen", TcpListener::bind((network.here, 0)));
    assert_eq!(control.ask(6, 0, 0, &[listener.as_raw_fd()]), (0, 0, 0, 0));
    let peer = network.connect_from_peer(step("address", listener.local_addr()));
    let (stream, _) = step("accept", listener.accept());
    (patient(stream), peer)
}

#[test]
fn every_verb_does_what_the_document_says() {
    let name = "every_verb_does_what_the_document_says";
    in_each_network(name, |_, network, method| {
        let agent = Agent::start(method);
        let control = Control::open();
        let (stream, peer) = accepted(network, &control);
        write(&peer, 3000);
        read(&stream, 500);
        assert_stays(&peer, 3000);
        let fd = [stream.as_raw_fd()];
        let (error, handle, confirmed, promised) = control.ask(1, 0, 0, &fd);
        assert_eq!((error, confirmed, promised), (0, 500, 0));
        assert_ne!(handle, 0);
        let (error, ..) = control.ask(1, 0, 0, &fd);
        assert_eq!(error, 6, "it is held already");
        let (error, ..) = control.ask(2, handle, 1, &[]);
        assert_eq!(error, 5, "more than was read");
        read(&stream, 2500);
        assert_eq!(control.ask(2, handle, 1000, &[]).0, 0);
        until("1,500 are acknowledged", || unacknowledged(&peer) == 1500);
        assert_eq!(control.ask(5, handle, 0, &[]), (0, handle, 1500, 1500));
        assert_stays(&peer, 1500);
        assert_eq!(control.ask(3, handle, 0, &[]).0, 0);
        until("the kernel acknowledges", || unacknowledged(&peer) == 0);
        for verb in 2..=5 {
            assert_eq!(control.ask(verb, handle, 0, &[]).0, 3, "no such handle");
        }
        drop(stream);
        // It was released: the end is no reset.
        assert_eq!(step("read to the end", (&peer).read(&mut [0])), 0);

        let (stream, mut peer) = accepted(network, &control);
        write(&peer, 700);
        let (_, handle, ..) = control.ask(1, 0, 0, &[stream.as_raw_fd()]);
        drop(stream);
        assert_stays(&peer, 700);
        assert_eq!(control.ask(4, handle, 0, &[]).0, 0);
        let ended = peer.read(&mut [0]).map_err(|error| error.kind());
        assert_eq!(ended, Err(std::io::ErrorKind::ConnectionReset));
        assert_eq!(unacknowledged(&peer), 700);
        drop(control);
        agent.end();
    });
}

#[test]
fn what_is_not_in_the_document_is_refused() {
    let name = "what_is_not_in_the_document_is_refused";
    in_each_network(name, |_, network, method| {
        let agent = Agent::start(method);
        let control = Control::open();
        let (stream, _peer) = accepted(network, &control);
        let fd = stream.as_raw_fd();
        let error = |bytes: &[u8], fds: &[RawFd]| control.say(bytes, fds)[3];
        let hold = [1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        let other_version = [2, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(error(&other_version, &[fd]), 1);
        assert_eq!(error(&hold[..15], &[fd]), 2, "too short");
        assert_eq!(error(&[0; 64].map(|_| 1), &[fd]), 2, "too long");
        assert_eq!(error(&hold, &[]), 2, "no socket");
        assert_eq!(error(&hold, &[fd, fd]), 2, "two sockets");
        assert_eq!(error(&hold, &[fd; 200]), 2, "many sockets");
        let mut ask = hold;
        ask[1] = 5;
        assert_eq!(error(&ask, &[fd]), 2, "a socket that nobody asked for");
        let file = step("open a file", fs::File::open("/proc/version"));
        assert_eq!(error(&hold, &[file.as_raw_fd()]), 6, "no socket at all");
        assert_eq!(error(&hold, &[control.0.as_raw_fd()]), 6, "not TCP");
        let foreign = network.peer.run(|| TcpListener::bind(("0.0.0.0", 0)));
        let foreign = step("listen elsewhere", foreign);
        assert_eq!(error(&hold, &[foreign.as_raw_fd()]), 4);
        // It has kept none of them: no descriptor of the agent's is one of this test's sockets.
        let open = format!("/proc/{}/fd", agent.pid);
        let own = step("look", fs::read_link(format!("/proc/self/fd/{fd}")));
        for entry in step("list the agent's descriptors", fs::read_dir(open)) {
            // One may be closed meanwhile.
            let target = fs::read_link(step("list", entry).path()).unwrap_or_default();
            assert_ne!(target, own);
        }
        // And serves on.
        assert_eq!(error(&hold, &[fd]), 0);
        drop((stream, control));
        agent.end();
    });
}

/// `nobody` runs the example, is killed in mid-stream, and has a successor.
#[test]
fn the_example_loses_nothing_and_doubles_nothing() {
    let name = "the_example_loses_nothing_and_doubles_nothing";
    if !Path::new("/usr/bin/python3").exists() {
        return testbed::skip(name, "python3 is not installed");
    }
    let kills = if testbed::long(name, "3 of 250 kill points in each network") {
        250
    } else {
        3
    };
    in_each_network(name, |sandbox, network, method| {
        step("make a folder", fs::create_dir(FOLDER));
        step(
            "give it to nobody",
            std::os::unix::fs::chown(FOLDER, Some(NOBODY), Some(NOBODY)),
        );
        let agent = Agent::start(method);
        let mut acknowledged = 0;
        for number in 0..kills {
            let (server, peer, from) = begin(sandbox, network);
            assert!(acknowledged <= from, "{acknowledged} of {from}");
            if number == 1 {
                replace_the_guard(sandbox);
            }
            let kill_at = from + 1 + number * 7919 % 300_000;
            let written = std::thread::scope(|scope| {
                let writer = scope.spawn(|| write_stream(&peer, from, u64::MAX));
                until("so much is in the log", || log_length() > kill_at);
                server.signal(Signal::SIGKILL);
                testbed::joined(writer)
            });
            let ended = server.finish(WITHIN);
            assert!(!ended.status.success());
            acknowledged = from + written - unacknowledged(&peer) as u64;
            let logged = log_length();
            assert!(acknowledged <= logged, "{acknowledged} of {logged}");
            assert!(logged - acknowledged <= BATCH, "{acknowledged} of {logged}");
        }
        let (server, peer, from) = begin(sandbox, network);
        assert!(acknowledged <= from);
        let whole = from + 100_000;
        assert_eq!(write_stream(&peer, from, whole), whole - from);
        step("the peer is done", peer.shutdown(Shutdown::Write));
        assert_eq!(step("read to the end", (&peer).read(&mut [0])), 0);
        assert_eq!(unacknowledged(&peer), 0);
        server.signal(Signal::SIGKILL);
        server.finish(WITHIN);
        let log = step("read the log", fs::read(LOG));
        assert_eq!(log.len() as u64, whole);
        let wrong = (0..)
            .zip(&log)
            .find(|(at, byte)| stream_byte(*at) != **byte);
        assert_eq!(wrong, None);
        agent.end();
        step("remove the folder", fs::remove_dir_all(FOLDER));
    });
}

/// Starts the example and connects to it; how much of the stream it has.
fn begin<'a>(sandbox: &'a Sandbox, network: &Network) -> (Process<'a>, TcpStream, u64) {
    let mut command = Command::new("/usr/bin/python3");
    let example = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/tcp_hold_log.py");
    // Nobody need be able to look into the folder that this stands in.
    let example = step("read the example", fs::read_to_string(example));
    command.args(["-c", &example, SOCKET, LOG]);
    command.args([network.here.to_string(), "0".to_owned()]);
    command.uid(NOBODY).gid(NOBODY).current_dir("/");
    let server = sandbox.start(command);
    until("it is ready", || server.stdout().ends_with('\n'));
    let ready = server.stdout();
    let port = ready.trim_end().trim_start_matches("ready ");
    let port = step("read the port", port.parse::<u16>());
    let peer = network.connect_from_peer(SocketAddr::new(network.here, port));
    let mut from = [0; 8];
    step("hear how much is there", (&peer).read_exact(&mut from));
    (server, peer, u64::from_be_bytes(from))
}

/// A stream in which no place looks like another one near it.
fn stream_byte(at: u64) -> u8 {
    (at.wrapping_mul(31) ^ (at >> 8).wrapping_mul(17)) as u8
}

/// Writes the stream from there until it is whole or the connection is reset; how much was written.
fn write_stream(mut peer: &TcpStream, from: u64, whole: u64) -> u64 {
    let mut at = from;
    while at < whole {
        let next: Vec<u8> = (at..whole.min(at + 5000)).map(stream_byte).collect();
        match peer.write(&next) {
            Ok(bytes) => at += bytes as u64,
            Err(error) => {
                let kind = error.kind();
                use std::io::ErrorKind::{BrokenPipe, ConnectionReset};
                assert!(matches!(kind, ConnectionReset | BrokenPipe), "{error}");
                break;
            }
        }
    }
    at - from
}

fn log_length() -> u64 {
    fs::metadata(LOG).map_or(0, |log| log.len())
}

fn guards(sandbox: &Sandbox) -> Vec<u32> {
    let name = |pid: &u32| fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    let processes = sandbox.processes().into_iter().map(|(pid, _)| pid);
    processes
        .filter(|pid| name(pid) == "tcp_hold_guard\n")
        .collect()
}

fn replace_the_guard(sandbox: &Sandbox) {
    let before = guards(sandbox);
    assert_eq!(before.len(), 1);
    step(
        "kill the guard",
        kill(Pid::from_raw(before[0] as i32), Signal::SIGKILL),
    );
    until("another guard stands there", || {
        let now = guards(sandbox);
        now.len() == 1 && now != before
    });
}
