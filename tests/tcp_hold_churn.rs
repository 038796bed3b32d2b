//! Held connections that come and go, hundreds a second, and as many at once as there is room for: no peer is
//! told of a byte that was not confirmed, and nothing is left of a connection that has gone.

#[expect(
    dead_code,
    reason = "tests of single connections take their time, and want each network"
)]
mod held_peer;

use std::fs;
use std::io::{IoSlice, IoSliceMut, Read};
use std::mem::MaybeUninit;
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::thread::{scope, sleep};
use std::time::{Duration, Instant};

use libbpf_rs::{MapCore, OpenObject};
use netbpf::netlink::{Netlink, sockets_in};
use netbpf::port::Port;
use netbpf::preflight::take_all_descriptors;
use netbpf::tc::Method;
use netbpf::tcp_hold::{Events, Held, Holder, Holds, MOST_HOLDS, Setup};
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};
use testbed::namespace::Place;
use testbed::traffic::reset_when_closed;
use testbed::{joined, step};

use held_peer::{HERE, Network, in_network, patient, read, unacknowledged, until, write};

/// Descriptors are counted of the whole process: one test at a time.
static ALONE: Mutex<()> = Mutex::new(());

/// Connections a second.
const RATE: u64 = 500;
/// So many of them are made and served beside each other: an end where we go first takes 200 ms, because the
/// peer has to send his FIN again.
const LANES: u64 = 64;
/// The peer's ports: each lane comes round to the same ones within two seconds.
const PORTS: &str = "40000 40015";
/// Bytes of a connection's only message.
const MOST_BYTES: u64 = 4000;
/// Every so manieth leaves what nobody is going to confirm.
const KINDS: u64 = 12;

/// Longer than the kernel acknowledges for a socket that it has given up, and than that is remembered.
const FORGOTTEN_WITHIN: Duration = Duration::from_secs(100);

fn holder<'obj>(
    method: Method,
    max_holds: u32,
    object: &'obj mut MaybeUninit<OpenObject>,
) -> Holder<'obj> {
    let mut holder = step("load", Holder::load(&Setup { max_holds }, object));
    let mut netlink = step("open netlink", Netlink::open());
    let port = step("find up0", Port::find(&mut netlink, "up0"));
    step("attach", holder.attach(Some(method), &[port]));
    holder
}

fn descriptors() -> usize {
    step("list descriptors", fs::read_dir("/proc/self/fd")).count()
}

fn leavers(holder: &Holder<'_>) -> usize {
    holder.skeleton().maps.leavers.keys().count()
}

/// Of the bytes that the peer has written.
fn acknowledged(peer: &TcpStream, written: u64) -> u64 {
    // A FIN that is not acknowledged counts as one more, so that this is too little, never too much.
    written.saturating_sub(unacknowledged(peer) as u64)
}

/// What became of a connection leaves no trace: its storage, its account, its descriptors.
fn assert_nothing_is_left(holder: &Holder<'_>, descriptors_before: usize, most_leavers: usize) {
    let holds = holder.skeleton().maps.holds.as_fd();
    until("no socket is held", || {
        step("ask for held sockets", sockets_in(holds)) == 0
    });
    assert_eq!(descriptors(), descriptors_before);
    let left = leavers(holder);
    assert!(left <= most_leavers, "{left} connections are remembered");
    let Events {
        unreadable,
        failed,
        bounds,
        ..
    } = step("read the events", holder.events());
    assert_eq!((unreadable, failed, bounds), (0, 0, 0));
}

#[test]
fn whoever_comes_and_goes_leaves_nothing() {
    let name = "whoever_comes_and_goes_leaves_nothing";
    let long = testbed::long(
        name,
        "connections come and go for 3 s each way, not for 60 s",
    );
    let seconds = if long { 60 } else { 3 };
    for way in testbed::attaching::ways() {
        let method = match *way {
            "tcx" => Method::Tcx,
            _ => Method::Clsact,
        };
        in_network(name, 0, |_, network| {
            let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
            churn(network, method, RATE * seconds, long);
        });
    }
}

fn churn(network: &Network, method: Method, connections: u64, is_long: bool) {
    ports_of_peer(network, PORTS);
    let mut object = MaybeUninit::uninit();
    // Far fewer than connections: an account that is not given back is missed soon.
    let holder = holder(method, 1024, &mut object);
    let before = descriptors();
    let began = Instant::now();
    scope(|scope| {
        let lanes = (0..LANES).map(|lane| {
            let holds = holder.holds();
            scope.spawn(move || Lane::new(lane, &network.peer).run(&holds, connections))
        });
        let lanes: Vec<_> = lanes.collect();
        lanes.into_iter().for_each(joined);
    });
    let took = began.elapsed().as_secs_f64();
    eprintln!("{connections} connections in {took:.1} s ({method})");
    let dead = connections.div_ceil(KINDS) as usize;
    assert_nothing_is_left(&holder, before, dead);
    if is_long {
        let start = Instant::now();
        while leavers(&holder) > 0 {
            assert!(start.elapsed() < FORGOTTEN_WITHIN, "not all are forgotten");
            sleep(Duration::from_secs(1));
            // They are looked for when another one is held.
            let (ours, _peers) = Lane::new(0, &network.peer).pair();
            drop(step("hold", holder.hold(ours)));
        }
    } else {
        // The guard would stay for a minute.
        let map = &holder.skeleton().maps.leavers;
        for ends in map.keys() {
            step("forget one", map.delete(&ends));
        }
    }
}

/// The ports that connections of the peer's get.
fn ports_of_peer(network: &Network, range: &str) {
    network.peer.run(|| {
        let path = "/proc/sys/net/ipv4/ip_local_port_range";
        step(path, fs::write(path, range));
    });
}

/// A listener, and a peer who comes again and again.
struct Lane {
    number: u64,
    peer: Place,
    listener: TcpListener,
    address: SocketAddr,
}

/// How a connection ends.
#[derive(Clone, Copy, Debug)]
enum Ending {
    /// By a reset, with something unconfirmed.
    Reset,
    /// By a reset, with nothing unconfirmed.
    ResetSettled,
    /// In order, once it is released.
    Released,
    /// The peer has said all that he has to say, at once: whoever waits for more before he confirms may wait for
    /// ever.
    PeerFirst,
    /// We have; all is confirmed, and so says what the kernel sends when it has given the socket up.
    WeFirst,
    /// We have, and reset it while the peer goes on.
    WeFirstReset,
    /// We have, so has the peer, and we die with something unconfirmed.
    WeFirstDead,
}

impl Ending {
    fn of(connection: u64) -> Ending {
        match connection % KINDS {
            0 | 1 => Ending::Reset,
            2 | 3 => Ending::ResetSettled,
            4 | 5 => Ending::Released,
            6 | 7 => Ending::PeerFirst,
            8 | 9 => Ending::WeFirst,
            10 => Ending::WeFirstReset,
            _ => Ending::WeFirstDead,
        }
    }
}

impl Lane {
    /// Every other one over IPv6.
    fn new(number: u64, peer: &Place) -> Lane {
        let address = HERE[number as usize % 2];
        let address: IpAddr = step(address, address.parse());
        let listener = step("listen", TcpListener::bind((address, 0)));
        Lane {
            number,
            peer: peer.clone(),
            address: step("own address", listener.local_addr()),
            listener,
        }
    }

    /// Its share of the connections, each when it is due.
    fn run(&self, holds: &Holds, connections: u64) {
        step("hold what is accepted", holds.hold_accepted(&self.listener));
        let (come, coming) = sync_channel(1);
        scope(|scope| {
            let peer = scope.spawn(move || self.connect(connections, &come));
            self.serve(holds, &coming);
            joined(peer);
        });
    }

    fn connect(&self, connections: u64, come: &SyncSender<(u64, TcpStream)>) {
        self.peer.enter();
        let start = Instant::now();
        for number in (self.number..connections).step_by(LANES as usize) {
            let due = start + Duration::from_secs(1) * number as u32 / RATE as u32;
            sleep(due.saturating_duration_since(Instant::now()));
            let stream = patient(step("connect", TcpStream::connect(self.address)));
            step("set TCP_NODELAY", stream.set_nodelay(true));
            // Before anybody has accepted it.
            write(&stream, bytes_of(number) as usize);
            if let Ending::PeerFirst = Ending::of(number) {
                step("the peer is done", stream.shutdown(Shutdown::Write));
            }
            if come.send((number, stream)).is_err() {
                return; // That lane has panicked, and says why.
            }
        }
    }

    fn serve(&self, holds: &Holds, coming: &Receiver<(u64, TcpStream)>) {
        for (number, peer) in coming {
            let (stream, address) = step("accept", self.listener.accept());
            assert_eq!(step("his address", peer.local_addr()), address);
            let held = step("hold", holds.hold(patient(stream)));
            live(number, held, peer);
        }
    }

    fn pair(&self) -> (TcpStream, TcpStream) {
        let peer = self.peer.run(|| TcpStream::connect(self.address));
        let peer = step("connect", peer);
        let (stream, _) = step("accept", self.listener.accept());
        (stream, peer)
    }
}

/// Bytes that the peer writes, from 1 on.
fn bytes_of(connection: u64) -> u64 {
    1 + connection * 997 % MOST_BYTES
}

/// A connection from its first byte to its end.
fn live(number: u64, held: Held<TcpStream>, peer: TcpStream) {
    let ending = Ending::of(number);
    let bytes = bytes_of(number);
    let has_fin = matches!(ending, Ending::PeerFirst);
    // A FIN counts as a byte.
    let written = bytes + u64::from(has_fin);
    let told = || acknowledged(&peer, written);
    assert_eq!(held.exposed(), 0, "{ending:?}");
    read(&held, bytes as usize);
    if has_fin {
        assert_eq!(step("read to the end", (&*held).read(&mut [0])), 0);
    }
    assert_eq!(told(), 0, "{ending:?} of {bytes} bytes, none confirmed");
    let part = bytes / 2;
    step("confirm", held.confirm(part));
    if !has_fin {
        step("announce", held.announce());
        until("a part is acknowledged", || told() >= part);
        assert_eq!(told(), part, "{ending:?} of {bytes} bytes");
    }
    // An answer acknowledges as much, and no more.
    write(&held, 1);
    read(&peer, 1);
    assert_eq!(told(), part, "{ending:?} of {bytes} bytes");

    // Whatever is left of a peer who is not answered any more is not to keep the machine busy.
    reset_when_closed(&peer);
    end(ending, held, &peer, bytes - part);
    match ending {
        Ending::Reset | Ending::WeFirstReset => {
            assert_eq!(told(), part, "{ending:?} of {bytes} bytes");
        }
        Ending::WeFirstDead => {
            assert!(told() <= part, "{ending:?} of {bytes} bytes");
        }
        Ending::ResetSettled | Ending::Released | Ending::PeerFirst | Ending::WeFirst => {
            assert_eq!(told(), written, "{ending:?} of {bytes} bytes");
        }
    }
}

/// So many bytes are unconfirmed still.
fn end(ending: Ending, held: Held<TcpStream>, mut peer: &TcpStream, unconfirmed: u64) {
    let confirm = || {
        step("confirm", held.confirm(unconfirmed));
        step("announce", held.announce());
    };
    let all_is_told = || unacknowledged(peer) == 0;
    match ending {
        Ending::Reset => {
            drop(held);
            assert_reset(peer);
        }
        Ending::ResetSettled => {
            confirm();
            until("all is acknowledged", all_is_told);
            drop(held);
            assert_reset(peer);
        }
        Ending::Released => {
            drop(step("release", held.release()));
            let mut more = Vec::new();
            step("read to the end", peer.read_to_end(&mut more));
            assert!(more.is_empty());
        }
        Ending::PeerFirst => {
            step("confirm", held.confirm(unconfirmed));
            write(&held, 1);
            until("all is acknowledged, and the FIN", all_is_told);
        }
        Ending::WeFirst => {
            confirm();
            step("we are done", held.shutdown(Shutdown::Write));
            assert_eq!(step("read to the end", peer.read(&mut [0])), 0);
            step("the peer is done", peer.shutdown(Shutdown::Write));
            until("all is acknowledged, and the FIN", all_is_told);
        }
        Ending::WeFirstReset => {
            step("we are done", held.shutdown(Shutdown::Write));
            assert_eq!(step("read to the end", peer.read(&mut [0])), 0);
            drop(held);
            until("the connection is reset", || {
                step("ask for an error", peer.take_error()).is_some()
            });
        }
        Ending::WeFirstDead => {
            step("we are done", held.shutdown(Shutdown::Write));
            assert_eq!(step("read to the end", peer.read(&mut [0])), 0);
            step("the peer is done", peer.shutdown(Shutdown::Write));
            drop(held);
        }
    }
}

#[track_caller]
fn assert_reset(mut peer: &TcpStream) {
    let ended = peer.read(&mut [0]).map_err(|error| error.kind());
    assert_eq!(ended, Err(std::io::ErrorKind::ConnectionReset));
}

/// Each has its own account still, when there are so many.
#[test]
fn as_many_are_held_as_there_is_room_for() {
    let name = "as_many_are_held_as_there_is_room_for";
    let long = testbed::long(name, "2,048 connections at once, not 65,536");
    let connections = if long { MOST_HOLDS } else { 2048 };
    in_network(name, 0, |_, network| {
        let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        step("raise the limit of open files", take_all_descriptors());
        let mut object = MaybeUninit::uninit();
        let probe = step("load", Holder::load(&Setup::default(), &mut object));
        let method = probe.best_method();
        drop(probe);
        let mut object = MaybeUninit::uninit();
        let holder = holder(method, connections, &mut object);
        let before = descriptors();
        fill(network, &holder, connections);
        assert_nothing_is_left(&holder, before, 0);
    });
}

fn fill(network: &Network, holder: &Holder<'_>, connections: u32) {
    // A quarter of the peer's ports for each of ours: where half of them are taken, connect() looks long for a
    // free one.
    ports_of_peer(network, "1024 65535");
    let lanes: [Lane; 4] = std::array::from_fn(|number| Lane::new(number as u64, &network.peer));
    let (come, coming) = sync_channel(BATCH);
    let mut batches: Vec<Batch> = Vec::new();
    scope(|scope| {
        let lanes = &lanes;
        let peer = scope.spawn(move || {
            network.peer.enter();
            for number in 0..connections {
                let address = lanes[number as usize % lanes.len()].address;
                let stream = patient(step("connect", TcpStream::connect(address)));
                if come.send((number, stream)).is_err() {
                    return; // The others have panicked.
                }
            }
        });
        let mut batch = Batch::default();
        for (number, peer) in coming {
            let listener = &lanes[number as usize % lanes.len()].listener;
            let (stream, _) = step("accept", listener.accept());
            let stream = Parked::Here(patient(stream));
            batch.held.push(step("hold", holder.hold(stream)));
            batch.peers.push(peer);
            if batch.held.len() == BATCH {
                batch.park();
                batches.push(std::mem::take(&mut batch));
            }
        }
        assert!(batch.held.is_empty(), "batches are full");
        joined(peer);
    });
    let (one_more, _peer) = lanes[0].pair();
    let refused = holder.hold(one_more).map(drop);
    let refused = step("hold another", refused.err().ok_or("it is held")).to_string();
    assert!(refused.contains("there is no room for more"), "{refused}");

    let numbered = |batch: usize| batch * BATCH..(batch + 1) * BATCH;
    for (place, batch) in batches.iter_mut().enumerate() {
        batch.fetch();
        for ((held, peer), number) in batch.held.iter().zip(&batch.peers).zip(numbered(place)) {
            write(peer, 100);
            read(held.stream(), 100);
            step("confirm", held.confirm(own(number)));
            step("announce", held.announce());
            until("what is confirmed is acknowledged", || {
                acknowledged(peer, 100) >= own(number)
            });
        }
        batch.park();
    }
    // Now, since any of the others could have said too much.
    for (place, batch) in batches.iter_mut().enumerate() {
        batch.fetch();
        for ((held, peer), number) in batch.held.iter().zip(&batch.peers).zip(numbered(place)) {
            assert_eq!(acknowledged(peer, 100), own(number), "connection {number}");
            assert_eq!(step("ask", held.promised()), own(number));
        }
        batch.park();
    }
    let middle = batches.len() / 2;
    batches[middle].fetch();
    drop(batches[middle].held.swap_remove(BATCH / 2));
    let (ours, _peer) = lanes[0].pair();
    drop(step("hold another", holder.hold(ours)));
}

/// Bytes that are confirmed of a connection: neighbours have different ones.
fn own(number: usize) -> u64 {
    number as u64 * 37 % 101
}

/// Connections that are parked together. One message passes 253 descriptors at most (unix(7)).
const BATCH: usize = 64;

/// Held connections and their peers. A process may not be allowed as many descriptors as connections can be
/// held: those that nobody is looking at are on their way from one end of a socket to the other, open still.
#[derive(Default)]
struct Batch {
    held: Vec<Held<Parked>>,
    peers: Vec<TcpStream>,
    lot: Option<(UnixStream, UnixStream)>,
}

enum Parked {
    Here(TcpStream),
    Away,
}

impl AsFd for Parked {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Parked::Here(stream) => stream.as_fd(),
            Parked::Away => panic!("it is parked"),
        }
    }
}

impl Parked {
    fn stream(&self) -> &TcpStream {
        match self {
            Parked::Here(stream) => stream,
            Parked::Away => panic!("it is parked"),
        }
    }
}

impl Batch {
    fn park(&mut self) {
        let lot = self
            .lot
            .get_or_insert_with(|| step("make a parking lot", UnixStream::pair()));
        let held = self.held.iter().map(|held| held.stream().as_raw_fd());
        let peers = self.peers.iter().map(AsRawFd::as_raw_fd);
        let all: Vec<_> = held.chain(peers).collect();
        let (rights, parts) = ([ControlMessage::ScmRights(&all)], [IoSlice::new(&[0])]);
        let (to, flags) = (lot.0.as_raw_fd(), MsgFlags::empty());
        step("park", sendmsg::<()>(to, &parts, &rights, flags, None));
        self.held.iter_mut().for_each(|held| **held = Parked::Away);
        self.peers.clear();
    }

    fn fetch(&mut self) {
        let lot = step("find the parking lot", self.lot.as_ref().ok_or("none"));
        let (mut byte, mut space) = ([0], nix::cmsg_space!([RawFd; 2 * BATCH]));
        let mut parts = [IoSliceMut::new(&mut byte)];
        let flags = MsgFlags::MSG_CMSG_CLOEXEC;
        let message = recvmsg::<()>(lot.1.as_raw_fd(), &mut parts, Some(&mut space), flags);
        let message = step("fetch", message);
        let mut fetched = Vec::new();
        for control in step("look", message.cmsgs()) {
            if let ControlMessageOwned::ScmRights(all) = control {
                // SAFETY: the kernel has just opened them, and nobody else knows them.
                fetched.extend(
                    all.into_iter()
                        .map(|fd| unsafe { TcpStream::from_raw_fd(fd) }),
                );
            }
        }
        assert_eq!(fetched.len(), 2 * BATCH);
        self.peers = fetched.split_off(BATCH);
        for (held, stream) in self.held.iter_mut().zip(fetched) {
            **held = Parked::Here(stream);
        }
    }
}
