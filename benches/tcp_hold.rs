//! What a packet costs in the program of tcp_hold: `make bench`.
//!
//! BPF_PROG_TEST_RUN has no connections, so this is real traffic over a cable, by the time that the kernel
//! counts for a program (kernel.bpf_stats_enabled). An empty program stands at the same link and sees the same
//! packets; from round to round the two change places, because the first one finds a packet cold.

use std::io::{Error, Read, Write};
use std::mem::MaybeUninit;
use std::net::{IpAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use libbpf_rs::skel::{OpenSkel, SkelBuilder};
use libbpf_sys as sys;
use netbpf::tc::{Attacher, Direction, Method, program_info};
use netbpf::tcp_hold::{Held, Holder, Setup};
use nix::net::if_::if_nametoindex;
use testbed::namespace::{Namespace, Place, Veth};
use testbed::{sandbox, step};

#[expect(
    dead_code,
    reason = "the other benchmarks' test runs; here figures of traffic are shown"
)]
mod cost;
mod baseline {
    include!(concat!(env!("OUT_DIR"), "/baseline.skel.rs"));
}

use cost::ROUNDS;

/// Messages of a round, of so many bytes.
const MESSAGES: u64 = 2000;
const SIZE: usize = 200;
/// What takes longer was lost.
const PATIENCE: Duration = Duration::from_secs(10);

const OURS: [&str; 2] = ["192.0.2.1", "2001:db8::1"];
const PEERS: [&str; 2] = ["192.0.2.2", "2001:db8::2"];

fn main() {
    sandbox::run("cost", |_| step("measure", measure()));
}

/// Two ends, ours first, and what happens there to a message of the peer's.
enum Line {
    Udp(UdpSocket, UdpSocket),
    Tcp(TcpStream, TcpStream),
    /// It is confirmed, then answered: the answer acknowledges all that has come.
    Confirmed(Held<TcpStream>, TcpStream),
    /// It is answered, then confirmed: the answer's acknowledgement is lowered.
    Lowered(Held<TcpStream>, TcpStream),
    /// It is confirmed, and the kernel has to say so, because nothing is answered.
    Announced(Held<TcpStream>, TcpStream),
}

fn measure() -> Result<()> {
    let peer = Namespace::new("peer");
    let here = Place::here();
    let _cable = Veth::new((&here, "up0"), (&peer, "eth0"));
    for (place, interface, addresses) in [(&here, "up0", OURS), (&*peer, "eth0", PEERS)] {
        let [v4, v6] = addresses;
        place.ip(&format!("address add {v4}/24 dev {interface}"));
        place.ip(&format!("address add {v6}/64 dev {interface} nodad"));
    }
    let ifindex = if_nametoindex("up0")?;
    let (mut object, mut other) = (MaybeUninit::uninit(), MaybeUninit::uninit());
    let holder = Holder::load(&Setup::default(), &mut object)?;
    let ours = holder.skeleton().progs.hold_back.as_fd();
    let baseline = baseline::BaselineSkelBuilder::default()
        .open(&mut other)?
        .load()?;
    let empty = baseline.progs.empty.as_fd();
    let attacher = Attacher::new(Method::best(ours));
    let mut lines = lines(&holder, &peer)?;

    let _counting = count_time()?;
    let mut times = vec![Vec::new(); lines.len()];
    let mut floors = vec![Vec::new(); lines.len()];
    for round in 0..ROUNDS {
        // The one that is attached last is first.
        let mut order = [(ours, "netbpf_hold_back"), (empty, "netbpf_empty")];
        if round % 2 == 1 {
            order.reverse();
        }
        let egress = Direction::Egress;
        let _attached = order
            .map(|(program, label)| step(label, attacher.attach(program, label, ifindex, egress)));
        for (place, (_, line)) in lines.iter_mut().enumerate() {
            let before = (Count::of(ours)?, Count::of(empty)?);
            for _ in 0..MESSAGES {
                line.carry()?;
            }
            line.finish()?;
            times[place].push(Count::of(ours)?.each_since(before.0)?);
            floors[place].push(Count::of(empty)?.each_since(before.1)?);
        }
    }
    println!(
        "ns a packet of real traffic, median of {ROUNDS} rounds of {MESSAGES} messages; above: paired with the \
         empty program"
    );
    cost::print_head();
    for ((name, _), (times, floors)) in lines.iter().zip(times.iter().zip(&floors)) {
        cost::print_line(name, times, floors);
    }
    let floors = floors.concat();
    let floors = cost::sorted(floors);
    let (min, median, max) = (
        floors[0],
        floors[floors.len() / 2],
        floors[floors.len() - 1],
    );
    println!(
        "{:<36} {min:>6.1} {median:>6.1} {max:>6.1}",
        "empty program, beside them all"
    );
    let events = holder.events()?;
    ensure!(
        events.lowered > 0 && events.probes > 0 && events.unreadable + events.failed == 0,
        "something else was measured: {events:?}"
    );

    Ok(())
}

/// By what they are called.
fn lines(holder: &Holder<'_>, peer: &Place) -> Result<Vec<(&'static str, Line)>> {
    let [v4, v6] = OURS.map(|address| step(address, address.parse::<IpAddr>()));
    let tcp = |address| -> Result<Line> {
        let (ours, peers) = connection(peer, address)?;
        Ok(Line::Tcp(ours, peers))
    };
    let held = |address, kind: fn(Held<TcpStream>, TcpStream) -> Line| -> Result<Line> {
        let (ours, peers) = connection(peer, address)?;
        Ok(kind(holder.hold(ours)?, peers))
    };
    Ok(vec![
        ("not held, UDP", datagrams(peer, v4)?),
        ("not held, TCP", tcp(v4)?),
        ("not held, TCP over IPv6", tcp(v6)?),
        ("held, nothing to lower", held(v4, Line::Confirmed)?),
        ("held, lowered", held(v4, Line::Lowered)?),
        ("held, lowered, over IPv6", held(v6, Line::Lowered)?),
        ("held, acknowledged by force", held(v4, Line::Announced)?),
    ])
}

fn datagrams(peer: &Place, address: IpAddr) -> Result<Line> {
    let ours = UdpSocket::bind((address, 0))?;
    let peers = peer.run(|| UdpSocket::bind((PEERS[0], 0)))?;
    ours.connect(peers.local_addr()?)?;
    peers.connect(ours.local_addr()?)?;
    for socket in [&ours, &peers] {
        socket.set_read_timeout(Some(PATIENCE))?;
    }
    Ok(Line::Udp(ours, peers))
}

fn connection(peer: &Place, address: IpAddr) -> Result<(TcpStream, TcpStream)> {
    let listener = TcpListener::bind((address, 0))?;
    let address = listener.local_addr()?;
    let peers = peer.run(|| TcpStream::connect_timeout(&address, PATIENCE))?;
    let (ours, _) = listener.accept()?;
    for stream in [&ours, &peers] {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
    }
    Ok((ours, peers))
}

impl Line {
    /// A message of the peer's, and what becomes of it.
    fn carry(&mut self) -> Result<()> {
        let mut message = [7; SIZE];
        match self {
            Line::Udp(ours, peers) => {
                peers.send(&message)?;
                ours.recv(&mut message)?;
                ours.send(&message)?;
                peers.recv(&mut message)?;
            }
            Line::Tcp(ours, peers) => {
                pass(peers, ours, &mut message)?;
                pass(ours, peers, &mut message)?;
            }
            Line::Confirmed(ours, peers) => {
                pass(peers, ours, &mut message)?;
                ours.confirm(SIZE as u64)?;
                pass(ours, peers, &mut message)?;
            }
            Line::Lowered(ours, peers) => {
                pass(peers, ours, &mut message)?;
                pass(ours, peers, &mut message)?;
                ours.confirm(SIZE as u64)?;
            }
            Line::Announced(ours, peers) => {
                pass(peers, ours, &mut message)?;
                ours.confirm(SIZE as u64)?;
                ours.announce()?;
            }
        }
        Ok(())
    }

    /// Nothing is left that the peer would send again meanwhile.
    fn finish(&mut self) -> Result<()> {
        match self {
            Line::Udp(..) | Line::Tcp(..) => {}
            Line::Confirmed(ours, _) | Line::Lowered(ours, _) | Line::Announced(ours, _) => {
                ours.announce()?;
            }
        }
        Ok(())
    }
}

/// From one end to the other.
fn pass(mut from: &TcpStream, mut to: &TcpStream, message: &mut [u8]) -> Result<()> {
    from.write_all(message)?;
    to.read_exact(message).context("wait for a message")
}

/// What the kernel has counted of a program.
#[derive(Clone, Copy)]
struct Count {
    nanoseconds: u64,
    packets: u64,
}

impl Count {
    fn of(program: BorrowedFd<'_>) -> Result<Count> {
        let info = program_info(program)?;
        Ok(Count {
            nanoseconds: info.run_time_ns,
            packets: info.run_cnt,
        })
    }

    /// ns a packet since then.
    fn each_since(self, before: Count) -> Result<f64> {
        let packets = self.packets - before.packets;
        ensure!(packets >= MESSAGES, "it has seen {packets} packets");
        Ok((self.nanoseconds - before.nanoseconds) as f64 / packets as f64)
    }
}

/// The kernel counts as long as this is open.
fn count_time() -> Result<OwnedFd> {
    // SAFETY: a call with a number.
    let fd = unsafe { sys::bpf_enable_stats(sys::BPF_STATS_RUN_TIME) };
    ensure!(
        fd >= 0,
        "have it counted: {}",
        Error::from_raw_os_error(-fd)
    );
    // SAFETY: libbpf has just handed us this new descriptor, nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
