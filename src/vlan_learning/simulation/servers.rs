//! The workers' web servers: one page each, which names its worker. One thread serves all of them, and no
//! other program takes part.
//!
//! A listener stays in the namespace in which it was opened, so only opening it takes that namespace and
//! privileges. The thread that talks to strangers holds no capability.

mod date;
mod request;

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, anyhow};
use netsetup::namespace;
use netsetup::server::OnLine;
use netsetup::topology::vlan_learning::{Network, Worker};
use nix::libc::{EMFILE, ENFILE, ENOBUFS, ENOMEM};
use nix::poll::{PollFd, PollFlags};
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, SockaddrStorage, bind, listen, setsockopt, socket,
    sockopt,
};

use super::log::Log;
use crate::ending::{Ending, Running, Woken, ending, reset};
use crate::privilege::{self, Scope};
use request::{Head, Request};

const PORT: u16 = 80;
/// Connections at a time, over all workers.
const MOST: usize = 256;
/// How long a client may say nothing.
const SILENCE: Duration = Duration::from_secs(5);
/// How long a connection may take in all, however busy its client is.
const LONGEST: Duration = Duration::from_secs(10);
/// How long a client may take to close its end once it has been answered.
const FAREWELL: Duration = Duration::from_secs(1);
/// What a client may send after its request before it is cut off.
const DISREGARDED: usize = 64 * 1024;
/// Taken from one listener before anything else is looked at.
const AT_ONCE: usize = 64;
/// How long nobody is let in when the machine has run out of something.
const PAUSE: Duration = Duration::from_millis(100);

/// The servers at work. Dropping it ends them; until then their sockets keep the namespaces, so it is to
/// go before the network does.
#[derive(Debug)]
pub struct Servers {
    /// `None` once the end has been asked for.
    running: Option<Running>,
    /// `None` once it has ended.
    thread: Option<JoinHandle<Result<()>>>,
}

/// What a server makes of a request that comes in these pieces, for fuzzing: what it logs of it, the code of its
/// answer, and whether that is to have no body.
#[doc(hidden)]
pub fn read_request<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Option<(String, u16, bool)> {
    let mut head = Head::default();
    let request = pieces.into_iter().find_map(|piece| head.take(piece))?;
    Some((request.line, request.status.code(), request.header_only))
}

impl Servers {
    /// Starts a server in the namespace of each worker; they listen when this returns, and `on_line` has
    /// been called for each of them.
    pub fn start(network: &Network, log: Log, on_line: &mut OnLine<'_>) -> Result<Servers> {
        let mut listeners = Vec::new();
        for worker in network.workers() {
            listeners.extend(open(worker)?);
        }
        let (running, ending) = ending().context("make a pipe")?;
        let server = Server {
            listeners,
            connections: VecDeque::new(),
            closed_until: None,
            ending,
            log,
        };
        let (tell, told) = mpsc::channel();
        let thread = thread::Builder::new()
            .name("http".into())
            .spawn(move || {
                let dropped = privilege::drop_all(Scope::Thread);
                let is_harmless = dropped.is_ok();
                // Who asked waits for the answer, and gets no second one.
                let _ = tell.send(dropped);
                if is_harmless { server.run() } else { Ok(()) }
            })
            .context("start a thread")?;
        let servers = Servers {
            running: Some(running),
            thread: Some(thread),
        };
        told.recv().context("start a web server")??;
        for _ in network.workers() {
            on_line(&format!(
                "Serving HTTP on {} port {PORT} ...",
                Ipv4Addr::UNSPECIFIED
            ))?;
        }
        Ok(servers)
    }

    /// To be called now and then: an error if the servers have ended before their time.
    pub fn check(&mut self) -> Result<()> {
        match self.thread.take_if(|thread| thread.is_finished()) {
            Some(thread) => Err(match thread.join() {
                Ok(Err(error)) => error.context("the web servers have stopped"),
                Ok(Ok(())) => anyhow!("the web servers have stopped"),
                Err(_) => anyhow!("the web servers have stopped: their thread panicked"),
            }),
            None => Ok(()),
        }
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        self.running = None;
        if let Some(thread) = self.thread.take() {
            // What it ended by concerns nobody any more.
            let _ = thread.join();
        }
    }
}

/// The sockets that a worker listens on.
fn open(worker: &Worker) -> Result<Vec<Listener>> {
    let mut addresses = vec![IpAddr::V4(Ipv4Addr::UNSPECIFIED)];
    if namespace::has_ipv6() {
        addresses.push(IpAddr::V6(Ipv6Addr::UNSPECIFIED));
    }
    let name = &worker.namespace;
    let file = namespace::open(name)?;
    addresses
        .into_iter()
        .map(|address| {
            let address = SocketAddr::new(address, PORT);
            let socket = namespace::inside(&file, || Ok(listener(address)?))
                .with_context(|| format!("listen on {address} in {name}"))?;
            Ok(Listener {
                socket,
                worker: name.clone(),
            })
        })
        .collect()
}

fn listener(address: SocketAddr) -> nix::Result<TcpListener> {
    let family = match address {
        SocketAddr::V4(_) => AddressFamily::Inet,
        SocketAddr::V6(_) => AddressFamily::Inet6,
    };
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket(family, SockType::Stream, flags, None)?;
    setsockopt(&socket, sockopt::ReuseAddr, &true)?;
    if address.is_ipv6() {
        // IPv4 has a socket of its own.
        setsockopt(&socket, sockopt::Ipv6V6Only, &true)?;
    }
    bind(socket.as_raw_fd(), &SockaddrStorage::from(address))?;
    listen(&socket, Backlog::MAXCONN)?;
    Ok(TcpListener::from(socket))
}

#[derive(Debug)]
struct Listener {
    socket: TcpListener,
    worker: String,
}

/// What the thread works on.
struct Server {
    listeners: Vec<Listener>,
    /// The oldest first.
    connections: VecDeque<Connection>,
    /// When somebody may be let in again.
    closed_until: Option<Instant>,
    ending: Ending,
    log: Log,
}

impl Server {
    fn run(mut self) -> Result<()> {
        loop {
            let Some(ready) = self.wait()? else {
                self.connections.drain(..).for_each(Connection::cut);
                return Ok(());
            };
            let now = Instant::now();
            self.go_on(&ready, now);
            self.let_in(&ready, now);
        }
    }

    /// Waits for something to do: what is ready, the listeners first, then the connections. `None` at
    /// the end.
    fn wait(&mut self) -> Result<Option<Vec<bool>>> {
        let now = Instant::now();
        self.closed_until = self.closed_until.filter(|until| *until > now);
        let wanted = match self.closed_until {
            Some(_) => PollFlags::empty(),
            None => PollFlags::POLLIN,
        };
        let listeners = self.listeners.iter();
        let mut fds: Vec<PollFd<'_>> = listeners
            .map(|listener| PollFd::new(listener.socket.as_fd(), wanted))
            .collect();
        let connections = self.connections.iter();
        fds.extend(connections.map(|connection| {
            PollFd::new(connection.stream.as_fd(), connection.state.waits_for())
        }));
        let deadlines = self.connections.iter().map(Connection::deadline);
        let next = deadlines.chain(self.closed_until).min();
        match self
            .ending
            .wait(&mut fds, next)
            .context("wait for clients")?
        {
            Woken::ToEnd => Ok(None),
            Woken::ToWork => Ok(Some(fds.iter().map(|fd| fd.any() != Some(false)).collect())),
        }
    }

    /// Goes on with the connections that are ready, and drops those that are over.
    fn go_on(&mut self, ready: &[bool], now: Instant) {
        let ready = ready.iter().skip(self.listeners.len());
        let connections = std::mem::take(&mut self.connections);
        for (mut connection, ready) in connections.into_iter().zip(ready) {
            let outcome = if *ready {
                connection.go_on(now, &self.log)
            } else {
                Ok(true)
            };
            match outcome {
                Ok(false) => {}
                Ok(true) if now < connection.deadline() => self.connections.push_back(connection),
                // Too late, or the connection is broken.
                Ok(true) | Err(_) => connection.cut(),
            }
        }
    }

    fn let_in(&mut self, ready: &[bool], now: Instant) {
        if self.closed_until.is_some() {
            return;
        }
        for (listener, _) in self
            .listeners
            .iter()
            .zip(ready)
            .filter(|(_, ready)| **ready)
        {
            for _ in 0..AT_ONCE {
                match listener.socket.accept() {
                    Ok((stream, client)) => {
                        let connection =
                            Connection::new(stream, client.ip(), &listener.worker, now);
                        // A socket that cannot be made non-blocking would stop everybody.
                        let Ok(connection) = connection else { continue };
                        if self.connections.len() == MOST
                            && let Some(oldest) = self.connections.pop_front()
                        {
                            oldest.cut();
                        }
                        self.connections.push_back(connection);
                    }
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    Err(error) if has_run_out(&error) => {
                        // The client waits in the kernel's queue, and would wake us at once.
                        self.closed_until = Some(now + PAUSE);
                        return;
                    }
                    // Of the network, or the client has gone already (accept(2)).
                    Err(_) => {}
                }
            }
        }
    }
}

fn has_run_out(error: &io::Error) -> bool {
    let errnos = [EMFILE, ENFILE, ENOBUFS, ENOMEM];
    error
        .raw_os_error()
        .is_some_and(|errno| errnos.contains(&errno))
}

/// A client, from its first word to its last.
struct Connection {
    stream: TcpStream,
    client: IpAddr,
    worker: String,
    state: State,
    opened: Instant,
    /// When it last got on.
    heard: Instant,
}

enum State {
    /// The request is coming.
    Listening(Head),
    /// This is still to be sent.
    Answering(Vec<u8>),
    /// The answer is on its way. What the client still sends is read: a socket that is closed with bytes
    /// unread resets the connection, which may overtake the answer (RFC 9112, 9.6).
    Parting { since: Instant, left: usize },
}

impl State {
    fn waits_for(&self) -> PollFlags {
        match self {
            State::Listening(_) | State::Parting { .. } => PollFlags::POLLIN,
            State::Answering(_) => PollFlags::POLLOUT,
        }
    }
}

impl Connection {
    fn new(
        stream: TcpStream,
        client: IpAddr,
        worker: &str,
        now: Instant,
    ) -> io::Result<Connection> {
        stream.set_nonblocking(true)?;
        Ok(Connection {
            stream,
            client,
            worker: worker.into(),
            state: State::Listening(Head::default()),
            opened: now,
            heard: now,
        })
    }

    /// When it is over, if nothing more comes.
    fn deadline(&self) -> Instant {
        let silence = self.heard + SILENCE;
        let patience = match self.state {
            State::Parting { since, .. } => silence.min(since + FAREWELL),
            State::Listening(_) | State::Answering(_) => silence,
        };
        patience.min(self.opened + LONGEST)
    }

    /// Does what can be done without waiting. Whether there is more to come; an error if the connection
    /// is broken.
    fn go_on(&mut self, now: Instant, log: &Log) -> io::Result<bool> {
        let outcome = loop {
            match self.step(now, log) {
                Ok(true) => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                outcome => break outcome,
            }
        };
        match outcome {
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(true),
            outcome => outcome,
        }
    }

    /// One read or write. False at the end.
    fn step(&mut self, now: Instant, log: &Log) -> io::Result<bool> {
        match &mut self.state {
            State::Listening(head) => {
                let mut chunk = [0; 4096];
                let length = self.stream.read(&mut chunk)?;
                self.heard = now;
                if length == 0 {
                    return Ok(false);
                }
                if let Some(request) = head.take(chunk.get(..length).unwrap_or_default()) {
                    let time = SystemTime::now();
                    log.line(format_args!(
                        "{} - - [{}] \"{}\" {} -",
                        self.client,
                        date::for_log(time),
                        request.line,
                        request.status.code()
                    ));
                    self.state = State::Answering(answer(&request, &self.worker, time));
                }
            }
            State::Answering(left) => {
                let sent = self.stream.write(left)?;
                self.heard = now;
                left.drain(..sent);
                if left.is_empty() {
                    self.stream.shutdown(Shutdown::Write)?;
                    self.state = State::Parting {
                        since: now,
                        left: DISREGARDED,
                    };
                }
            }
            State::Parting { left, .. } => {
                let mut chunk = [0; 4096];
                let length = self.stream.read(&mut chunk)?;
                if length == 0 {
                    return Ok(false);
                }
                *left = left.saturating_sub(length);
                if *left == 0 {
                    return Err(ErrorKind::ConnectionAborted.into());
                }
            }
        }
        Ok(true)
    }

    fn cut(self) {
        reset(self.stream);
    }
}

/// The answer, as RFC 9112 has it.
fn answer(request: &Request, worker: &str, time: SystemTime) -> Vec<u8> {
    let (code, reason) = (request.status.code(), request.status.reason());
    let page = match request.status {
        request::Status::Ok => page(worker),
        _ => page(&format!("{code} {reason}")),
    };
    let mut text = format!(
        "HTTP/1.1 {code} {reason}\r\n\
         Date: {}\r\n\
         Content-Type: text/html; charset=utf-8\r\n\
         Content-Length: {}\r\n\
         Connection: close\r\n\r\n",
        date::for_header(time),
        page.len()
    );
    if !request.header_only {
        text.push_str(&page);
    }
    text.into_bytes()
}

/// A page with nothing but its title, a name of ours, in which nothing has to be escaped.
fn page(title: &str) -> String {
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head><meta charset=\"utf-8\">\
         <title>{title}</title></head>\n<body><h1>{title}</h1></body>\n</html>\n"
    )
}
