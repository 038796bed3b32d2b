//! The proof of use: servers that confirm what is on the disk are killed in mid-stream, again and again, and have
//! successors.
//!
//! What the peer was told to have arrived was always on the disk, at most one batch that was on the disk had not
//! been told, and in the end the log has the whole stream once. The peer's word for it is threefold: SIOCOUTQ,
//! TCP_INFO, and every acknowledgement as it comes to him. A reset's number promises nothing, and is left out.
//!
//! The disk of these servers is slow, so that they are killed in the middle of its work as a rule, and it forgets
//! what was written and not synced: who confirms that fails here.

mod held_agent;
mod held_application;
#[expect(
    dead_code,
    reason = "these peers write a stream, and look for themselves"
)]
mod held_peer;
#[expect(dead_code, reason = "its main function is for its user")]
#[path = "../examples/tcp_hold_log.rs"]
mod log_server;

use std::fs::{self, File};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::thread::sleep;
use std::time::{Duration, Instant};

use etherparse::{SlicedPacket, TransportSlice};
use log_server::{BATCH, Log};
use netbpf::tc::Method;
use nix::libc;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use testbed::sandbox::Sandbox;
use testbed::step;
use testbed::traffic::Capture;

use held_agent::{Agent, SOCKET};
use held_application::{Application, Noted};
use held_peer::{Network, WITHIN, in_each_network, unacknowledged, until};

const FOLDER: &str = "/run/logs";
const LOG: &str = "/run/logs/log";
/// How much of it the example in Python has synced, 8 bytes in this machine's order.
const SYNCED: &str = "/run/logs/synced";
/// Debian's nobody.
const NOBODY: u32 = 65534;
/// That a disk takes, at most: about as long as all else that happens to a batch.
const SYNC_TAKES_US: u64 = 3000;
/// Bytes of the log after which a server is killed, at most.
const KILLED_WITHIN: u64 = 150_000;

/// A server that can be killed.
struct Server<'a> {
    port: u16,
    /// How much of the log is on the disk. It says so also when the server is dead.
    synced: Arc<dyn Fn() -> u64 + Send + Sync>,
    kill: Box<dyn FnOnce() + 'a>,
}

/// Who dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Death {
    /// The server.
    Server,
    /// Its guard, and the server after it has gone on for a while.
    GuardFirst,
    /// Its guard, and the server before it can have known.
    GuardAndServer,
}

/// Numbers that tell one kill point from the next: other ones in every run.
struct Chance {
    state: RandomState,
    drawn: u64,
}

impl Chance {
    fn new() -> Chance {
        Chance {
            state: RandomState::new(),
            drawn: 0,
        }
    }

    fn below(&mut self, end: u64) -> u64 {
        self.drawn += 1;
        let mut hasher = self.state.build_hasher();
        hasher.write_u64(self.drawn);
        hasher.finish() % end
    }
}

/// The peer, and what he has of his stream still.
struct Peer<'a> {
    sandbox: &'a Sandbox,
    network: &'a Network,
    chance: Chance,
    /// Up to here he has forgotten it.
    acknowledged: u64,
}

impl<'a> Peer<'a> {
    /// Nothing is acknowledged to him.
    fn new(sandbox: &'a Sandbox, network: &'a Network) -> Peer<'a> {
        Peer {
            sandbox,
            network,
            chance: Chance::new(),
            acknowledged: 0,
        }
    }

    /// Connects; how much the server has.
    fn connect(&self, server: &Server<'_>) -> (TcpStream, u64) {
        let address = SocketAddr::new(self.network.here, server.port);
        let stream = self.network.connect_from_peer(address);
        let mut from = [0; 8];
        step("hear how much is there", (&stream).read_exact(&mut from));
        let from = u64::from_be_bytes(from);
        let acknowledged = self.acknowledged;
        assert!(
            acknowledged <= from,
            "the successor has {from} bytes, and the peer none before {acknowledged}"
        );
        (stream, from)
    }

    /// Writes its stream to the server, who is killed meanwhile, and holds what both know against each other.
    fn lives_through(&mut self, server: Server<'_>, death: Death) {
        let witness = Witness::start(self.network, &server);
        let (stream, from) = self.connect(&server);
        witness.counts_from(from);
        let synced = &server.synced;
        let guard_dies_at = from + self.chance.below(KILLED_WITHIN / 2);
        let dies_at = from + self.chance.below(KILLED_WITHIN);
        let after = Duration::from_micros(self.chance.below(2 * SYNC_TAKES_US));
        let written = std::thread::scope(|scope| {
            let writer = scope.spawn(|| write_stream(&stream, from, u64::MAX));
            if death == Death::GuardFirst {
                soon("so much is synced", || synced() >= guard_dies_at);
                kill_the_guard(self.sandbox);
            }
            soon("so much is synced", || synced() >= dies_at);
            sleep(after);
            if death == Death::GuardAndServer {
                kill_the_guard(self.sandbox);
            }
            (server.kill)();
            testbed::joined(writer)
        });
        let acknowledged = written - unacknowledged(&stream) as u64;
        assert_eq!(acknowledged_by_tcp_info(&stream), acknowledged);
        assert_eq!(witness.finish(), acknowledged, "as it came to the peer");
        self.acknowledged = from + acknowledged;
        let synced = (server.synced)();
        let why = || {
            format!(
                "{} acknowledged, {synced} synced: {death:?}",
                self.acknowledged
            )
        };
        assert!(self.acknowledged <= synced, "{}", why());
        assert!(synced - self.acknowledged <= BATCH as u64, "{}", why());
        // The machine goes down as well, every other time: what was only written is gone.
        if self.chance.below(2) == 0 {
            let log = step("open the log", File::options().write(true).open(LOG));
            step("lose what was not synced", log.set_len(synced));
        }
    }

    /// The last server gets the rest, and the log is the stream.
    fn ends_the_stream(&self, server: Server<'_>) {
        let (stream, from) = self.connect(&server);
        let whole = from + 100_000;
        assert_eq!(write_stream(&stream, from, whole), whole - from);
        step("the peer is done", stream.shutdown(Shutdown::Write));
        assert_eq!(step("read to the end", (&stream).read(&mut [0])), 0);
        assert_eq!(unacknowledged(&stream), 0);
        (server.kill)();
        let log = step("read the log", fs::read(LOG));
        assert_eq!(log.len() as u64, whole);
        let wrong = (0..)
            .zip(&log)
            .find(|(at, byte)| stream_byte(*at) != **byte);
        assert_eq!(wrong, None);
    }
}

/// The acknowledgements of a server, as they come to the peer.
struct Witness {
    capture: Capture,
    seen: Arc<Mutex<Acknowledged>>,
}

#[derive(Default)]
struct Acknowledged {
    /// Of the peer's first byte.
    first: Option<u32>,
    /// Where that stands in the stream.
    from: u64,
    /// Bytes of this connection.
    most: u64,
    /// What came before it was synced.
    wrong: Vec<String>,
}

impl Witness {
    fn start(network: &Network, server: &Server<'_>) -> Witness {
        let seen = Arc::new(Mutex::new(Acknowledged::default()));
        let (taken, port, synced) = (Arc::clone(&seen), server.port, Arc::clone(&server.synced));
        let capture = Capture::start(&network.peer, "eth0", WITHIN * 2, move |frame| {
            let packet = SlicedPacket::from_ethernet(frame).ok();
            let Some(TransportSlice::Tcp(tcp)) = packet.and_then(|packet| packet.transport) else {
                return false;
            };
            let is_wanted = tcp.source_port() == port && tcp.ack() && !tcp.rst();
            if is_wanted {
                let mut seen = step("write it down", taken.lock());
                seen.note(tcp.syn(), tcp.acknowledgment_number(), synced());
            }
            is_wanted
        });
        Witness { capture, seen }
    }

    /// The connection carries the stream from there on. No byte of it was sent before this is called.
    fn counts_from(&self, from: u64) {
        step("write it down", self.seen.lock()).from = from;
    }

    /// How much was acknowledged; none of it before it was synced.
    fn finish(self) -> u64 {
        self.capture.finish();
        let seen = step("look at what came", self.seen.lock());
        assert_eq!(seen.wrong, [""; 0]);
        seen.most
    }
}

impl Acknowledged {
    fn note(&mut self, is_first: bool, number: u32, synced: u64) {
        if is_first {
            self.first = Some(number);
        }
        let Some(first) = self.first else {
            return self
                .wrong
                .push("acknowledged before there is a connection".into());
        };
        // It has far less than 4 GiB.
        let bytes = u64::from(number.wrapping_sub(first));
        self.most = self.most.max(bytes);
        let place = self.from + bytes;
        if bytes > 0 && place > synced {
            self.wrong
                .push(format!("{place} acknowledged, {synced} synced"));
        }
    }
}

/// Of a connection that the peer has made. The kernel counts its SYN as well.
fn acknowledged_by_tcp_info(stream: &TcpStream) -> u64 {
    /// Where `tcpi_bytes_acked` is in `struct tcp_info` (linux/tcp.h), 8 bytes.
    const BYTES_ACKED: usize = 120;
    let mut info = [0_u8; BYTES_ACKED + 8];
    let mut length = info.len() as libc::socklen_t;
    // SAFETY: both places are this function's, and the kernel writes `length` bytes at most.
    let result = unsafe {
        libc::getsockopt(
            stream.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            info.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    step("ask for TCP_INFO", nix::errno::Errno::result(result));
    assert_eq!(length as usize, info.len());
    let bytes = info.last_chunk().copied().unwrap_or_default();
    u64::from_ne_bytes(bytes) - 1
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

/// As `until`, for what must not be missed by much.
#[track_caller]
fn soon(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < WITHIN, "{what} did not happen");
        sleep(Duration::from_micros(100));
    }
}

fn guards(sandbox: &Sandbox) -> Vec<u32> {
    let name = |pid: &u32| fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    let processes = sandbox.processes().into_iter().map(|(pid, _)| pid);
    processes
        .filter(|pid| name(pid) == "tcp_hold_guard\n")
        .collect()
}

fn kill_the_guard(sandbox: &Sandbox) {
    let guards = guards(sandbox);
    assert_eq!(guards.len(), 1);
    step(
        "kill the guard",
        kill(Pid::from_raw(guards[0] as i32), Signal::SIGKILL),
    );
}

/// In each network, with as many kill points; `proof` is given their number.
fn prove(
    name: &str,
    (few, many): (u64, u64),
    proof: impl Fn(&Sandbox, &Network, Method, u64) + Sync,
) {
    let leaves_out = format!("{few} of {many} kill points in each network");
    let kills = if testbed::long(name, &leaves_out) {
        many
    } else {
        few
    };
    in_each_network(name, |sandbox, network, method| {
        step("make a folder", fs::create_dir(FOLDER));
        proof(sandbox, network, method, kills);
        step("remove the folder", fs::remove_dir_all(FOLDER));
    });
}

/// The example's log, on a slow disk, which says what it has.
struct SlowLog {
    file: File,
    synced: Noted,
    chance: Chance,
}

impl Write for SlowLog {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Log for SlowLog {
    fn length(&self) -> io::Result<u64> {
        self.file.length()
    }

    fn sync(&mut self) -> io::Result<()> {
        let length = self.length()?;
        sleep(Duration::from_micros(self.chance.below(SYNC_TAKES_US)));
        self.file.sync()?;
        self.synced.store(length, Ordering::SeqCst);
        Ok(())
    }
}

/// The application that holds is itself killed, and its guard.
#[test]
fn the_library_loses_nothing_and_doubles_nothing() {
    let name = "the_library_loses_nothing_and_doubles_nothing";
    prove(name, (8, 125), |sandbox, network, method, kills| {
        let mut peer = Peer::new(sandbox, network);
        for number in 0..kills {
            let death = match (number % 4, method) {
                (1, _) => Death::GuardFirst,
                // A filter stays where nobody takes it off.
                (3, Method::Tcx) => Death::GuardAndServer,
                _ => Death::Server,
            };
            peer.lives_through(start_by_library(network, method), death);
            // There is one guard at a time, so that it can be found; and his filter is not the successor's.
            until("the guard ends", || guards(sandbox).is_empty());
        }
        peer.ends_the_stream(start_by_library(network, method));
        until("the guard ends", || guards(sandbox).is_empty());
    });
}

fn start_by_library<'a>(network: &Network, method: Method) -> Server<'a> {
    let mut application = Application::start(|wire| {
        let file = step(
            "open the log",
            File::options().create(true).append(true).open(LOG),
        );
        let synced = wire.noted.clone();
        // What is there is on the disk.
        synced.store(step("look", file.length()), Ordering::SeqCst);
        let chance = Chance::new();
        let mut log = SlowLog {
            file,
            synced,
            chance,
        };
        let address = SocketAddr::new(network.here, 0);
        let ran = log_server::run("up0", Some(method), address, &mut log, |port| {
            wire.say(port.into());
        });
        step("serve", ran);
    });
    let port = application.wire.hear() as u16;
    let synced = application.wire.noted.clone();
    Server {
        port,
        synced: Arc::new(move || synced.load(Ordering::SeqCst)),
        kill: Box::new(move || application.kill()),
    }
}

/// `nobody` runs the example in Python, whose sockets the agent holds; that is killed, and the agent's guard.
#[test]
fn the_example_loses_nothing_and_doubles_nothing() {
    let name = "the_example_loses_nothing_and_doubles_nothing";
    if !Path::new("/usr/bin/python3").exists() {
        return testbed::skip(name, "python3 is not installed");
    }
    prove(name, (4, 125), |sandbox, network, method, kills| {
        let owner = |path| std::os::unix::fs::chown(path, Some(NOBODY), Some(NOBODY));
        step("make a file", fs::write(SYNCED, [0; 8]));
        step(
            "give it to nobody",
            owner(SYNCED).and_then(|()| owner(FOLDER)),
        );
        let agent = Agent::start(sandbox, method);
        let mut peer = Peer::new(sandbox, network);
        for number in 0..kills {
            let death = match number % 4 {
                1 => Death::GuardFirst,
                3 => Death::GuardAndServer,
                _ => Death::Server,
            };
            peer.lives_through(start_example(sandbox, network), death);
            // The agent starts another one within a second.
            until("a guard is there", || guards(sandbox).len() == 1);
        }
        peer.ends_the_stream(start_example(sandbox, network));
        agent.end();
    });
}

/// A slow disk, which says what it has, and then the example.
const SLOW_DISK: &str = r#"
import mmap, os, random, stat, time
real_sync = os.fsync
synced = mmap.mmap(os.open("/run/logs/synced", os.O_RDWR), 8)
def slow_sync(fd):
    status = os.fstat(fd)
    time.sleep(random.random() * SYNC_TAKES_US / 1e6)
    real_sync(fd)
    if stat.S_ISREG(status.st_mode):
        synced[:] = status.st_size.to_bytes(8, "little")
os.fsync = slow_sync
"#;

fn start_example<'a>(sandbox: &'a Sandbox, network: &Network) -> Server<'a> {
    let example = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/tcp_hold_log.py");
    // Nobody need be able to look into the folder that this stands in.
    let example = step("read the example", fs::read_to_string(example));
    let disk = SLOW_DISK.replace("SYNC_TAKES_US", &SYNC_TAKES_US.to_string());
    let length = fs::metadata(LOG).map_or(0, |log| log.len());
    // What is there is on the disk.
    step("write it down", fs::write(SYNCED, length.to_le_bytes()));
    let mut command = Command::new("/usr/bin/python3");
    command.args(["-c", &(disk + &example), SOCKET, LOG]);
    command.args([network.here.to_string(), "0".to_owned()]);
    command.uid(NOBODY).gid(NOBODY).current_dir("/");
    let server = sandbox.start(command);
    until("it is ready", || server.stdout().ends_with('\n'));
    let ready = server.stdout();
    let port = ready.trim_end().trim_start_matches("ready ");
    Server {
        port: step("read the port", port.parse()),
        synced: Arc::new(|| {
            let bytes = step("read how much is synced", fs::read(SYNCED));
            u64::from_le_bytes(step("8 bytes", bytes.try_into().map_err(|_| "other ones")))
        }),
        kill: Box::new(move || {
            server.signal(Signal::SIGKILL);
            assert!(!server.finish(WITHIN).status.success());
        }),
    }
}
