//! The agent, as programs without any privilege use it.

mod held_agent;
mod held_peer;

use std::array::from_fn;
use std::fs;
use std::io::{ErrorKind, IoSlice, Read};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::process::Command;
use std::thread::sleep;
use std::time::Duration;

use nix::sys::signal::Signal;
use nix::sys::socket::{
    AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, UnixAddr, connect, recv, sendmsg,
    socket,
};
use testbed::step;

use held_agent::{Agent, SOCKET};
use held_peer::{
    Network, WITHIN, assert_stays, in_each_network, patient, read, unacknowledged, until, write,
};

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
    in_each_network(name, |sandbox, network, method| {
        let agent = Agent::start(sandbox, method);
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
        // What has come is acknowledged from then on, whatever was confirmed.
        assert_eq!(control.ask(3, handle, 0, &[]), (0, handle, 1500, 3000));
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
        assert_eq!(control.ask(4, handle, 0, &[]), (0, handle, 0, 0));
        let ended = peer.read(&mut [0]).map_err(|error| error.kind());
        assert_eq!(ended, Err(ErrorKind::ConnectionReset));
        assert_eq!(unacknowledged(&peer), 700);
        drop(control);
        agent.end();
    });
}

#[test]
fn what_is_not_in_the_document_is_refused() {
    let name = "what_is_not_in_the_document_is_refused";
    in_each_network(name, |sandbox, network, method| {
        let agent = Agent::start(sandbox, method);
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
        let open = format!("/proc/{}/fd", agent.process.pid());
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

/// Reads until the connection is reset, which acknowledges nothing more.
fn assert_reset(mut peer: &TcpStream, unacknowledged_bytes: i32) {
    let ended = peer.read(&mut [0]).map_err(|error| error.kind());
    assert_eq!(ended, Err(ErrorKind::ConnectionReset));
    assert_eq!(unacknowledged(peer), unacknowledged_bytes);
}

#[test]
fn the_end_of_the_control_connection_closes_what_came_by_it() {
    let name = "the_end_of_the_control_connection_closes_what_came_by_it";
    in_each_network(name, |sandbox, network, method| {
        let agent = Agent::start(sandbox, method);
        let (control, other) = (Control::open(), Control::open());
        let hold = |control: &Control, bytes| {
            let (stream, peer) = accepted(network, control);
            write(&peer, bytes);
            read(&stream, bytes);
            let (error, handle, ..) = control.ask(1, 0, 0, &[stream.as_raw_fd()]);
            // What was read before is confirmed; what comes now is not. (Unread bytes would be reason enough
            // for a reset.)
            assert_eq!(error, 0);
            write(&peer, 700);
            read(&stream, 700);
            (stream, peer, handle)
        };
        let (stream, peer, _) = hold(&control, 100);
        let (others, others_peer, others_handle) = hold(&other, 200);
        // A handle is that of the control connection by which it came.
        let (kept, kept_peer, handle) = hold(&control, 300);
        assert_ne!(handle, others_handle);
        assert_eq!(other.ask(5, handle, 0, &[]).0, 3);
        // The agent has the only copy.
        drop(stream);
        assert_stays(&peer, 700);
        drop(control);
        assert_reset(&peer, 700);
        // Its program has one of this.
        assert_stays(&kept_peer, 700);
        drop(kept);
        assert_reset(&kept_peer, 700);
        // And this is somebody else's.
        let (error, _, confirmed, _) = other.ask(2, others_handle, 700, &[]);
        assert_eq!((error, confirmed), (0, 900));
        until("all is acknowledged", || unacknowledged(&others_peer) == 0);
        drop((other, others));
        agent.end();
    });
}

#[test]
fn what_was_held_by_a_killed_agent_stays_held() {
    let name = "what_was_held_by_a_killed_agent_stays_held";
    in_each_network(name, |sandbox, network, method| {
        let agent = Agent::start(sandbox, method);
        let control = Control::open();
        let (stream, peer) = accepted(network, &control);
        write(&peer, 3000);
        let (error, handle, ..) = control.ask(1, 0, 0, &[stream.as_raw_fd()]);
        assert_eq!(error, 0);
        read(&stream, 3000);
        assert_eq!(control.ask(2, handle, 1000, &[]).0, 0);
        until("1,000 are acknowledged", || unacknowledged(&peer) == 2000);
        agent.process.signal(Signal::SIGKILL);
        agent.process.finish(WITHIN);
        write(&peer, 100);
        assert_stays(&peer, 2100);
        drop(stream);
        assert_reset(&peer, 2100);
        until("the guard ends", || sandbox.processes().is_empty());
        step("remove its socket", fs::remove_file(SOCKET));
    });
}

/// It neither spins nor dies, and goes on when there are some again.
#[test]
fn without_descriptors_it_waits() {
    let name = "without_descriptors_it_waits";
    in_each_network(name, |sandbox, network, method| {
        let agent = held_agent::command(method);
        let mut limited = Command::new("sh");
        limited.args(["-c", "ulimit -n 64; exec \"$@\"", "sh"]);
        limited.arg(agent.get_program()).args(agent.get_args());
        let agent = Agent::run(sandbox, limited);
        let mut controls = vec![Control::open()];
        let (stream, _peer) = accepted(network, &controls[0]);
        // More than it may open files.
        controls.extend((0..70).map(|_| Control::open()));
        until("it says so", || {
            agent.process.stderr().contains("accept an application")
        });
        let last = controls.pop();
        let mut asleep = 0;
        until("its thread sleeps", || {
            asleep = if is_asleep(agent.process.pid(), "agent") {
                asleep + 1
            } else {
                0
            };
            asleep == 10
        });
        // Nor is there one for a socket.
        let fd = [stream.as_raw_fd()];
        assert_eq!(controls[0].ask(1, 0, 0, &fd).0, 6);
        controls.truncate(1);
        let last = step("the last one", last.ok_or("there is none"));
        assert_eq!(last.ask(1, 0, 0, &fd).0, 0);
        // It does not repeat itself; when one has ended, the next one may be one too many again.
        let said = agent.process.stderr();
        let times = said.matches("accept an application").count();
        assert!(times < 10, "{said}");
        drop((stream, last, controls));
        agent.end();
    });
}

/// Whether the thread of that name waits for something.
fn is_asleep(pid: u32, thread: &str) -> bool {
    let tasks = step("list", fs::read_dir(format!("/proc/{pid}/task")));
    let stats = tasks.map(|task| {
        let path = step("list", task).path().join("stat");
        step("read", fs::read_to_string(path))
    });
    let name = format!("({thread}) ");
    let mut states = stats.filter_map(|stat| Some(stat.split_once(&name)?.1.starts_with('S')));
    let is_asleep = states
        .next()
        .unwrap_or_else(|| panic!("no thread {thread}"));
    sleep(Duration::from_millis(2));
    is_asleep
}
