//! Those who send, and those who receive: one thread with all their sockets, each in the namespace of its
//! host.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use netsetup::namespace;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags};
use nix::sys::socket::{MsgFlags, SockaddrStorage, recvfrom, send, setsockopt, sockopt};

use super::echo::{EchoSocket, Request};
use super::list::{Load, MARK, Packets};
use super::pace::Pace;
use super::sites::Route;
use super::stream::StreamJob;
use crate::ending::{Ending, Running, Woken, ending, wait};

/// At the end, answers are waited for until none has come for this long,
const SILENCE: Duration = Duration::from_secs(1);
/// and no longer than this.
const FAREWELL: Duration = Duration::from_secs(3);
/// From one entry's first packet to that of the next.
const APART: Duration = Duration::from_millis(1);
/// When a queue is full.
const PAUSE: Duration = Duration::from_millis(1);
/// Packets of one entry before it is the next one's turn.
const AT_ONCE: u32 = 64;
/// Bytes of what has arrived and was not taken yet: a busy machine may come to it late.
const RECEIVE_BUFFER: usize = 4 << 20;

/// Packets and what they carry, without headers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Volume {
    /// Packets; of a stream they are not counted.
    pub packets: u64,
    /// Bytes.
    pub bytes: u64,
}

/// What came of an entry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// What the kernel took.
    pub sent: Volume,
    /// The answers to a ping; otherwise what arrived at the other end.
    pub received: Volume,
    /// Packets that the kernel refused; 1 for a stream that broke.
    pub failed: u64,
    /// Why the last of them was.
    pub problem: Option<String>,
}

impl Tally {
    /// Something was refused.
    pub fn fail(&mut self, problem: &str) {
        self.failed += 1;
        self.problem = Some(problem.to_owned());
    }
}

impl Volume {
    fn add(&mut self, bytes: usize) {
        self.packets += 1;
        self.bytes += bytes as u64;
    }
}

/// Sockets for all entries, opened. That takes privileges, sending by them does not.
#[derive(Debug)]
pub struct Sockets {
    /// By host and version of IP.
    echoes: Vec<EchoSocket>,
    jobs: Vec<Job>,
    mark: [u8; MARK],
}

impl Sockets {
    /// Opens them in the namespaces of the hosts that take part.
    pub fn open(routes: &[Route<'_>]) -> Result<Sockets> {
        let mark = netsetup::random::bytes()?;
        let mut sockets = Sockets {
            echoes: Vec::new(),
            jobs: Vec::new(),
            mark,
        };
        let mut echo_of = BTreeMap::new();
        for (number, route) in routes.iter().enumerate() {
            let to = route.entry.to;
            let job = match route.entry.load {
                Load::Ping(packets) => {
                    let key = (route.from, to.is_ipv6());
                    let socket = match echo_of.get(&key) {
                        Some(socket) => *socket,
                        None => {
                            let opened = inside(route.from, || EchoSocket::open(to.is_ipv6()))?;
                            enlarge(&opened);
                            sockets.echoes.push(opened);
                            echo_of.insert(key, sockets.echoes.len() - 1);
                            sockets.echoes.len() - 1
                        }
                    };
                    let id = u16::try_from(number).context("too many entries")?;
                    Job::Ping {
                        socket,
                        to,
                        request: Request::new(to.is_ipv6(), id, packets.size, &mark),
                        pace: start_of(packets),
                    }
                }
                Load::Udp(packets) => {
                    let (receiver, address) = inside(route.receiver()?, || listen(to))?;
                    let mut message = mark.to_vec();
                    message.resize(usize::from(packets.size).max(MARK), 0);
                    Job::Udp {
                        sender: inside(route.from, || connect(address))?,
                        receiver,
                        message,
                        pace: start_of(packets),
                    }
                }
                Load::Tcp(stream) => Job::Tcp(Box::new(StreamJob::open(route, stream)?)),
            };
            sockets.jobs.push(job);
        }
        Ok(sockets)
    }
}

/// Runs `action` in the namespace of that host.
pub(super) fn inside<T: Send>(host: &str, action: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    namespace::inside(&namespace::open(host)?, action).with_context(|| format!("in {host}"))
}

/// Not yet: see [`Senders::start`].
fn start_of(packets: Packets) -> Pace {
    Pace::new(Instant::now(), packets.every, packets.count)
}

fn listen(address: IpAddr) -> Result<(UdpSocket, SocketAddr)> {
    let socket = UdpSocket::bind(SocketAddr::new(address, 0))
        .with_context(|| format!("listen on {address}"))?;
    socket
        .set_nonblocking(true)
        .context("make it non-blocking")?;
    enlarge(&socket);
    let address = socket.local_addr().context("read its port")?;
    Ok((socket, address))
}

fn connect(to: SocketAddr) -> Result<UdpSocket> {
    let any: IpAddr = if to.is_ipv4() {
        std::net::Ipv4Addr::UNSPECIFIED.into()
    } else {
        std::net::Ipv6Addr::UNSPECIFIED.into()
    };
    let socket = UdpSocket::bind(SocketAddr::new(any, 0)).context("open a socket")?;
    socket
        .connect(to)
        .with_context(|| format!("find the way to {}", to.ip()))?;
    socket
        .set_nonblocking(true)
        .context("make it non-blocking")?;
    Ok(socket)
}

fn enlarge(socket: &impl AsFd) {
    // CAP_NET_ADMIN is not asked for: without it the buffer is as large as anybody's.
    let _ = setsockopt(socket, sockopt::RcvBufForce, &RECEIVE_BUFFER);
}

/// One entry at work.
#[derive(Debug)]
enum Job {
    Ping {
        /// Which of the echo sockets.
        socket: usize,
        to: IpAddr,
        request: Request,
        pace: Pace,
    },
    Udp {
        sender: UdpSocket,
        receiver: UdpSocket,
        message: Vec<u8>,
        pace: Pace,
    },
    Tcp(Box<StreamJob>),
}

impl Job {
    /// Sends what is due. When there is more to do, if nothing arrives; none: all is sent.
    fn send(&mut self, echoes: &[EchoSocket], tally: &mut Tally, now: Instant) -> Option<Instant> {
        match self {
            Job::Ping {
                socket,
                to,
                request,
                pace,
            } => send_due(pace, tally, now, |tally| {
                let socket = echoes.get(*socket).ok_or(Errno::EBADF)?;
                let message = request.message();
                socket.send(*to, message)?;
                tally.sent.add(message.len() - 8);
                request.sent();
                Ok(())
            }),
            Job::Udp {
                sender,
                message,
                pace,
                ..
            } => send_due(pace, tally, now, |tally| {
                let sent = send(sender.as_raw_fd(), message, MsgFlags::empty())?;
                tally.sent.add(sent);
                Ok(())
            }),
            Job::Tcp(stream) => stream.send(tally, now),
        }
    }

    /// What it waits for, besides time and echoes.
    fn waits_for(&self) -> [Option<(BorrowedFd<'_>, PollFlags)>; 2] {
        match self {
            Job::Ping { .. } => [None, None],
            Job::Udp { receiver, .. } => [Some((receiver.as_fd(), PollFlags::POLLIN)), None],
            Job::Tcp(stream) => stream.waits_for(),
        }
    }

    /// Takes what has arrived.
    fn receive(&mut self, tally: &mut Tally, mark: &[u8; MARK]) {
        match self {
            Job::Ping { .. } => {}
            Job::Udp { receiver, .. } => {
                let mut buffer = [0; 2048];
                for _ in 0..AT_ONCE {
                    let got = recvfrom::<SockaddrStorage>(receiver.as_raw_fd(), &mut buffer);
                    match got {
                        Ok((length, _))
                            if buffer.get(..length).is_some_and(|b| b.starts_with(mark)) =>
                        {
                            tally.received.add(length);
                        }
                        // A stranger's, or an error that belongs to nobody's packet.
                        Ok(_) | Err(Errno::EINTR) => {}
                        Err(_) => break,
                    }
                }
            }
            Job::Tcp(stream) => stream.receive(tally),
        }
    }

    /// Nothing more is to be sent.
    fn stop(&mut self) {
        if let Job::Tcp(stream) = self {
            stream.stop();
        }
    }

    /// Whether everything that was sent has arrived, and was answered.
    fn is_settled(&self, tally: &Tally) -> bool {
        match self {
            Job::Ping { .. } | Job::Udp { .. } => tally.received.packets >= tally.sent.packets,
            Job::Tcp(stream) => stream.is_over(),
        }
    }

    /// Starts the clock.
    fn begin(&mut self, at: Instant) {
        match self {
            Job::Ping { pace, .. } | Job::Udp { pace, .. } => pace.postpone(at),
            Job::Tcp(stream) => stream.begin(at),
        }
    }
}

/// One after the other, as long as they are due.
fn send_due(
    pace: &mut Pace,
    tally: &mut Tally,
    now: Instant,
    mut send: impl FnMut(&mut Tally) -> nix::Result<()>,
) -> Option<Instant> {
    for _ in 0..AT_ONCE {
        if pace.due()? > now {
            break;
        }
        match send(tally) {
            Ok(()) => pace.advance(now),
            // A queue is full: the packet is still to be sent.
            Err(Errno::EAGAIN | Errno::ENOBUFS | Errno::EINTR) => {
                pace.postpone(now + PAUSE);
                break;
            }
            Err(errno) => {
                tally.fail(errno.desc());
                pace.advance(now);
            }
        }
    }
    pace.due()
}

/// The thread at work. Dropping it ends it.
#[derive(Debug)]
pub struct Senders {
    /// `None` once the end has been asked for.
    running: Option<Running>,
    tallies: Arc<Mutex<Vec<Tally>>>,
    thread: Option<JoinHandle<Result<()>>>,
}

impl Senders {
    /// Begins to send. To be called without privileges: the thread has those that its maker has.
    pub fn start(sockets: Sockets) -> Result<Senders> {
        let (running, ending) = ending().context("make a pipe")?;
        let tallies = vec![Tally::default(); sockets.jobs.len()];
        let tallies = Arc::new(Mutex::new(tallies));
        let work = Work {
            sockets,
            ending,
            tallies: Arc::clone(&tallies),
        };
        let thread = thread::Builder::new()
            .name("senders".into())
            .spawn(move || work.run())
            .context("start a thread")?;
        Ok(Senders {
            running: Some(running),
            tallies,
            thread: Some(thread),
        })
    }

    /// Whether all that has an end was sent, and there is nothing else.
    pub fn are_over(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// What came of each entry so far.
    pub fn tallies(&self) -> Vec<Tally> {
        lock(&self.tallies).clone()
    }

    /// Ends it: nothing more is sent, what is on its way still counts.
    pub fn finish(&mut self) -> Result<()> {
        self.running = None;
        let outcome = self.thread.take().map_or(Ok(Ok(())), JoinHandle::join);
        outcome.unwrap_or_else(|_| Err(anyhow!("the thread of the senders broke down")))
    }
}

impl Drop for Senders {
    fn drop(&mut self) {
        // Whoever wants to know has called it before.
        let _ = self.finish();
    }
}

/// Whoever panicked while holding it has left numbers that are numbers still.
fn lock(tallies: &Mutex<Vec<Tally>>) -> MutexGuard<'_, Vec<Tally>> {
    tallies.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Work {
    sockets: Sockets,
    ending: Ending,
    tallies: Arc<Mutex<Vec<Tally>>>,
}

impl Work {
    fn run(mut self) -> Result<()> {
        let start = Instant::now();
        for (number, job) in (0..).zip(&mut self.sockets.jobs) {
            job.begin(start + APART * number);
        }
        let mut next = Some(start);
        while let Some(due) = next {
            let Some(ready) = self.wait(due, true)? else {
                break;
            };
            self.receive(&ready);
            next = self.send(Instant::now());
        }
        self.settle()
    }

    /// Waits for what was sent, until that has arrived or nothing more comes.
    fn settle(&mut self) -> Result<()> {
        let end = Instant::now() + FAREWELL;
        self.sockets.jobs.iter_mut().for_each(Job::stop);
        let mut heard = self.received();
        let mut patience = Instant::now() + SILENCE;
        while !self.is_settled() {
            let now = Instant::now();
            let until = patience.min(end);
            if now >= until {
                break;
            }
            let ready = self.wait(until, false)?.unwrap_or_default();
            self.receive(&ready);
            let received = self.received();
            if received != heard {
                heard = received;
                patience = Instant::now() + SILENCE;
            }
        }
        Ok(())
    }

    /// When something is due next; none: all is sent.
    fn send(&mut self, now: Instant) -> Option<Instant> {
        let Sockets { echoes, jobs, .. } = &mut self.sockets;
        let mut tallies = lock(&self.tallies);
        let due = jobs.iter_mut().zip(tallies.iter_mut());
        due.filter_map(|(job, tally)| job.send(echoes, tally, now))
            .min()
    }

    fn is_settled(&self) -> bool {
        let tallies = lock(&self.tallies);
        let mut jobs = self.sockets.jobs.iter().zip(tallies.iter());
        jobs.all(|(job, tally)| job.is_settled(tally))
    }

    /// Bytes of all entries.
    fn received(&self) -> u64 {
        let tallies = lock(&self.tallies);
        tallies.iter().map(|tally| tally.received.bytes).sum()
    }

    /// Which sockets are ready: the echo sockets, then two for each job. `None` when the end is asked for.
    fn wait(&self, until: Instant, attentive: bool) -> Result<Option<Vec<bool>>> {
        let Sockets { echoes, jobs, .. } = &self.sockets;
        let echoes = echoes
            .iter()
            .map(|socket| Some((socket.as_fd(), PollFlags::POLLIN)));
        let wanted: Vec<_> = echoes.chain(jobs.iter().flat_map(Job::waits_for)).collect();
        let mut fds: Vec<PollFd<'_>> = wanted
            .iter()
            .flatten()
            .map(|(fd, events)| PollFd::new(*fd, *events))
            .collect();
        if attentive {
            let woken = self.ending.wait(&mut fds, Some(until));
            if woken.context("wait for packets")? == Woken::ToEnd {
                return Ok(None);
            }
        } else {
            wait(&mut fds, Some(until)).context("wait for packets")?;
        }
        let mut ready = fds.iter().map(|fd| fd.any() != Some(false));
        let of = |wanted: &Option<_>| wanted.is_some() && ready.next().unwrap_or_default();
        Ok(Some(wanted.iter().map(of).collect()))
    }

    fn receive(&mut self, ready: &[bool]) {
        let Sockets { echoes, jobs, mark } = &mut self.sockets;
        let mut tallies = lock(&self.tallies);
        let (of_echoes, of_jobs) = ready.split_at(echoes.len().min(ready.len()));
        for (socket, _) in echoes.iter().zip(of_echoes).filter(|(_, ready)| **ready) {
            for _ in 0..AT_ONCE {
                // An error belongs to no packet of ours in particular, and is gone once it is read.
                let Ok(Some(answer)) = socket.receive(mark) else {
                    break;
                };
                let id = usize::from(answer.id);
                let asked = jobs
                    .get(id)
                    .is_some_and(|job| matches!(job, Job::Ping { to, .. } if *to == answer.from));
                if let Some(tally) = tallies.get_mut(id).filter(|_| asked) {
                    tally.received.add(answer.size);
                }
            }
        }
        let of_jobs = of_jobs.chunks(2).map(|pair| pair.contains(&true));
        for ((job, tally), _) in jobs
            .iter_mut()
            .zip(tallies.iter_mut())
            .zip(of_jobs)
            .filter(|(_, ready)| *ready)
        {
            job.receive(tally, mark);
        }
    }
}
