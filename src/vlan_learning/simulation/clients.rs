//! The clients of the simulation: each fetches its worker's page several times, from its own namespace,
//! on a thread of its own. No other program takes part.
//!
//! Each thread enters the namespace of its client for good, and holds no capability once it is there.

mod response;

use std::collections::BTreeSet;
use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::os::fd::{AsFd, AsRawFd};
use std::sync::mpsc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use netsetup::namespace;
use netsetup::topology::vlan_learning::Network;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags};
use nix::sched::{CloneFlags, setns};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrStorage, connect, socket};

use super::log::Log;
use crate::ending::{Ending, Running, Woken, ending, reset};
use crate::privilege::{self, Scope};
use response::Page;

const PORT: u16 = 80;
/// How long a connection may take to be made, and then the answer to come.
const PATIENCE: Duration = Duration::from_secs(5);
/// Bytes of an answer; a page of ours is far shorter.
const LONGEST: usize = 64 * 1024;

/// What a client makes of an answer, for fuzzing: the worker that it names, and the bytes of the page.
#[doc(hidden)]
pub fn read_page(response: &[u8]) -> Result<(String, usize), String> {
    let page = Page::read(response)?;
    Ok((page.worker, page.bytes))
}

/// What a client has fetched so far.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tally {
    /// Its namespace.
    pub client: String,
    /// Pages that came.
    pub fetched: u64,
    /// Pages that did not.
    pub failed: u64,
    /// Of all pages, without headers.
    pub bytes: u64,
    /// Who has answered.
    pub workers: BTreeSet<String>,
}

/// The clients at work. Dropping it ends them; until then they keep the namespaces, so it is to go before
/// the network does.
#[derive(Debug)]
pub struct Clients {
    /// `None` once the end has been asked for.
    running: Option<Running>,
    tallies: Vec<Arc<Mutex<Tally>>>,
    threads: Vec<JoinHandle<()>>,
}

impl Clients {
    /// Starts the clients of the network: each fetches the page of its worker so many times, one `every`
    /// so long, from start to start.
    pub fn start(network: &Network, fetches: u32, every: Duration, log: Log) -> Result<Clients> {
        let (running, ending) = ending().context("make a pipe")?;
        let mut clients = Clients {
            running: Some(running),
            tallies: Vec::new(),
            threads: Vec::new(),
        };
        let (tell, told) = mpsc::channel();
        for client in network.clients() {
            let name = &client.namespace;
            let worker = network.workers().get(client.worker);
            let worker = worker.with_context(|| format!("{name} has no worker"))?;
            let tally = Arc::new(Mutex::new(Tally {
                client: name.clone(),
                ..Tally::default()
            }));
            let fetcher = Fetcher {
                client: name.clone(),
                address: worker.ipv4,
                ending: ending.clone(),
                tally: Arc::clone(&tally),
                log: log.clone(),
            };
            let namespace = namespace::open(name)?;
            let tell = tell.clone();
            let thread = thread::Builder::new()
                .name(name.clone())
                .spawn(move || {
                    let entered = setns(&namespace, CloneFlags::CLONE_NEWNET)
                        .with_context(|| format!("enter {}", fetcher.client))
                        .and_then(|()| privilege::drop_all(Scope::Thread));
                    let is_there = entered.is_ok();
                    // Nobody waits for it where another client could not be started.
                    let _ = tell.send(entered);
                    if is_there {
                        fetcher.run(fetches, every);
                    }
                })
                .context("start a thread")?;
            clients.threads.push(thread);
            clients.tallies.push(tally);
        }
        for _ in network.clients() {
            told.recv().context("start a client")??;
        }
        Ok(clients)
    }

    /// Whether all of them have done what they were to do.
    pub fn are_over(&self) -> bool {
        self.threads.iter().all(JoinHandle::is_finished)
    }

    /// What each of them has done so far.
    pub fn tally(&self) -> Vec<Tally> {
        let tallies = self.tallies.iter();
        tallies.map(|tally| lock(tally).clone()).collect()
    }
}

impl Drop for Clients {
    fn drop(&mut self) {
        self.running = None;
        for thread in self.threads.drain(..) {
            // One that panicked has said so itself.
            let _ = thread.join();
        }
    }
}

/// Whoever panicked while holding it has left numbers that are numbers still.
fn lock(tally: &Mutex<Tally>) -> MutexGuard<'_, Tally> {
    tally.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Why a fetch has come to nothing.
#[derive(Debug)]
enum Nothing {
    /// The end was asked for.
    Ended,
    /// This went wrong.
    Failed(String),
}

impl Nothing {
    fn failed(what: &str, error: impl fmt::Display) -> Nothing {
        Nothing::Failed(format!("{what}: {error}"))
    }

    fn from(what: &str, error: &io::Error) -> Nothing {
        match error.raw_os_error() {
            Some(errno) => Nothing::failed(what, Errno::from_raw(errno).desc()),
            None => Nothing::failed(what, error),
        }
    }
}

/// One client, on its thread.
struct Fetcher {
    client: String,
    address: Ipv4Addr,
    ending: Ending,
    tally: Arc<Mutex<Tally>>,
    log: Log,
}

impl Fetcher {
    fn run(self, fetches: u32, every: Duration) {
        let name = &self.client;
        for fetch in 0..fetches {
            let start = Instant::now();
            match self.fetch() {
                Ok(page) => {
                    let took = start.elapsed();
                    self.log.line(format_args!(
                        "{name}: {}, {}",
                        page.worker,
                        Pace(page.bytes, took)
                    ));
                    let mut tally = lock(&self.tally);
                    tally.fetched += 1;
                    tally.bytes += page.bytes as u64;
                    tally.workers.insert(page.worker);
                }
                Err(Nothing::Failed(reason)) => {
                    self.log.line(format_args!("{name}: failed: {reason}"));
                    lock(&self.tally).failed += 1;
                }
                Err(Nothing::Ended) => return,
            }
            let is_last = fetch + 1 == fetches;
            if is_last || self.pause_until(start + every).is_err() {
                return;
            }
        }
    }

    fn pause_until(&self, moment: Instant) -> Result<(), Nothing> {
        while Instant::now() < moment {
            self.wait(&mut Vec::new(), moment)?;
        }
        Ok(())
    }

    fn fetch(&self) -> Result<Page, Nothing> {
        let stream = self.connect()?;
        match self.exchange(&stream) {
            Ok(response) => Page::read(&response).map_err(Nothing::Failed),
            Err(nothing) => {
                reset(stream);
                Err(nothing)
            }
        }
    }

    fn connect(&self) -> Result<TcpStream, Nothing> {
        let failed = |errno: Errno| Nothing::failed("connect", errno.desc());
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let socket = socket(AddressFamily::Inet, SockType::Stream, flags, None).map_err(failed)?;
        let address = SocketAddr::new(IpAddr::V4(self.address), PORT);
        let begun = connect(socket.as_raw_fd(), &SockaddrStorage::from(address));
        let stream = TcpStream::from(socket);
        match begun {
            Ok(()) => return Ok(stream),
            Err(Errno::EINPROGRESS | Errno::EINTR) => {}
            Err(errno) => return Err(failed(errno)),
        }
        self.wait_for(
            &stream,
            PollFlags::POLLOUT,
            "connect",
            Instant::now() + PATIENCE,
        )?;
        match stream.take_error() {
            Ok(None) => Ok(stream),
            Ok(Some(error)) | Err(error) => Err(Nothing::from("connect", &error)),
        }
    }

    /// Asks for the page, and reads to the end of the answer.
    fn exchange(&self, stream: &TcpStream) -> Result<Vec<u8>, Nothing> {
        let deadline = Instant::now() + PATIENCE;
        let request = format!(
            "GET / HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n",
            self.address
        );
        let mut left = request.as_bytes();
        while !left.is_empty() {
            self.wait_for(stream, PollFlags::POLLOUT, "send", deadline)?;
            let sent = taken((&*stream).write(left), "send")?;
            left = left.get(sent.unwrap_or(0)..).unwrap_or_default();
        }
        let mut response = Vec::new();
        let mut chunk = [0; 4096];
        loop {
            self.wait_for(stream, PollFlags::POLLIN, "receive", deadline)?;
            match taken((&*stream).read(&mut chunk), "receive")? {
                Some(0) => return Ok(response),
                Some(length) => response.extend(chunk.iter().take(length)),
                None => {}
            }
            if response.len() > LONGEST {
                return Err(Nothing::failed("receive", "the answer does not end"));
            }
        }
    }

    /// Waits until the stream is ready for that.
    fn wait_for(
        &self,
        stream: &TcpStream,
        flags: PollFlags,
        what: &str,
        deadline: Instant,
    ) -> Result<(), Nothing> {
        loop {
            let mut fds = vec![PollFd::new(stream.as_fd(), flags)];
            self.wait(&mut fds, deadline)?;
            if fds.iter().any(|fd| fd.any() != Some(false)) {
                return Ok(());
            }
            if Instant::now() >= deadline {
                let seconds = PATIENCE.as_secs();
                return Err(Nothing::failed(what, format!("nothing for {seconds} s")));
            }
        }
    }

    fn wait<'a>(&'a self, fds: &mut Vec<PollFd<'a>>, until: Instant) -> Result<(), Nothing> {
        match self.ending.wait(fds, Some(until)) {
            Ok(Woken::ToWork) => Ok(()),
            Ok(Woken::ToEnd) => Err(Nothing::Ended),
            Err(error) => Err(Nothing::failed("wait", error)),
        }
    }
}

/// What a read or write has come to; `None` if it is to be tried again.
fn taken(result: io::Result<usize>, what: &str) -> Result<Option<usize>, Nothing> {
    match result {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {
            Ok(None)
        }
        Err(error) => Err(Nothing::from(what, &error)),
    }
}

/// Bytes, the time that they took, and the speed.
struct Pace(usize, Duration);

impl fmt::Display for Pace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Pace(bytes, took) = *self;
        let milliseconds = took.as_secs_f64() * 1000.0;
        // No clock is so fine that a page takes no time.
        let speed = bytes as f64 / took.as_secs_f64().max(1e-9);
        let (speed, unit) = match speed {
            speed if speed < 1e3 => (speed, "B"),
            speed if speed < 1e6 => (speed / 1e3, "kB"),
            speed => (speed / 1e6, "MB"),
        };
        write!(
            f,
            "{bytes} bytes in {milliseconds:.1} ms ({speed:.0} {unit}/s)"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pace_is_in_units_that_can_be_read() {
        for (bytes, microseconds, text) in [
            (132, 400, "132 bytes in 0.4 ms (330 kB/s)"),
            (132, 1_500_000, "132 bytes in 1500.0 ms (88 B/s)"),
            (65536, 1000, "65536 bytes in 1.0 ms (66 MB/s)"),
            (0, 0, "0 bytes in 0.0 ms (0 B/s)"),
        ] {
            let took = Duration::from_micros(microseconds);
            assert_eq!(Pace(bytes, took).to_string(), text);
        }
    }
}
