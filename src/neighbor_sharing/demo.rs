//! `--demo`: TCP from the WAN host to a neighbor and to a LAN client at once, measured by ourselves.

use std::ffi::OsString;
use std::fmt;
use std::io::{self, ErrorKind, IsTerminal, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::panic::resume_unwind;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use netsetup::namespace;
use netsetup::topology::neighbor_sharing::Host;
use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::TcpCongestion;
use serde::Serialize;

use super::{Class, Config, Simulation, Way};
use crate::failure::say;
use crate::privilege::{self, Scope};
use crate::rate::Rate;
use crate::session::{Ended, Event, Session};

/// Left out: the burst that may pass at once, and TCP finding the rate.
const SETTLING: Duration = Duration::from_secs(2);
/// How long is measured after that.
const MEASURED: Duration = Duration::from_secs(10);
/// The longest that a thread does not look whether it is to end.
const PATIENCE: Duration = Duration::from_millis(100);

/// What was measured, each flow beside its limit.
#[derive(Clone, Debug, Serialize)]
pub struct Demo {
    schema: &'static str,
    seconds: f64,
    flows: Vec<Flow>,
}

#[derive(Clone, Debug, Serialize)]
struct Flow {
    address: Ipv4Addr,
    namespace: String,
    class: Class,
    limit: Option<Rate>,
    /// TCP payload, bits per second.
    goodput: f64,
}

/// A flow while it runs.
struct Connection<'a> {
    host: &'a Host,
    class: Class,
    sender: TcpStream,
    receiver: TcpStream,
    received: AtomicU64,
}

impl<'a> Connection<'a> {
    fn open(wan: &Host, host: &'a Host, class: Class) -> Result<Connection<'a>> {
        let inside = namespace::open(&host.namespace)?;
        let listener = namespace::inside(&inside, || {
            Ok(TcpListener::bind(SocketAddr::from((host.ipv4, 0)))?)
        })
        .with_context(|| format!("listen in {}", host.namespace))?;
        let address = listener.local_addr()?;
        let outside = namespace::open(&wan.namespace)?;
        let sender = namespace::inside(&outside, || {
            Ok(TcpStream::connect_timeout(
                &address,
                Duration::from_secs(3),
            )?)
        })
        .with_context(|| format!("connect from {} to {address}", wan.namespace))?;
        let (receiver, _) = listener.accept()?;
        // Another algorithm would measure itself; where cubic is missing the default has to do.
        let _ = setsockopt(&sender, TcpCongestion, &OsString::from("cubic"));
        sender.set_write_timeout(Some(PATIENCE))?;
        receiver.set_read_timeout(Some(PATIENCE))?;
        Ok(Connection {
            host,
            class,
            sender,
            receiver,
            received: AtomicU64::new(0),
        })
    }

    fn send(&self, stop: &AtomicBool) {
        let chunk = [0; 16 * 1024];
        while !stop.load(Relaxed) {
            match (&self.sender).write(&chunk) {
                Ok(_) => {}
                Err(error) if is_impatience(&error) => {}
                Err(_) => return,
            }
        }
    }

    fn receive(&self, stop: &AtomicBool) {
        let mut chunk = [0; 16 * 1024];
        while !stop.load(Relaxed) {
            match (&self.receiver).read(&mut chunk) {
                Ok(0) => return,
                Ok(bytes) => {
                    self.received.fetch_add(bytes as u64, Relaxed);
                }
                Err(error) if is_impatience(&error) => {}
                Err(_) => return,
            }
        }
    }
}

/// What talks to a network holds no capability; the thread that undoes the network has them.
fn without_power(work: impl FnOnce()) -> Result<()> {
    privilege::drop_all(Scope::Thread)?;
    work();
    Ok(())
}

fn is_impatience(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted
    )
}

impl Demo {
    /// Measures, unless the session ends before.
    pub fn run(simulation: &Simulation, config: &Config, session: &mut Session) -> Result<Demo> {
        let network = simulation.network();
        let connections = [
            Connection::open(network.wan(), &network.neighbors()[0], Class::Neighbor)?,
            Connection::open(network.wan(), &network.locals()[0], Class::Rest)?,
        ];
        let stop = AtomicBool::new(false);
        let result = thread::scope(|scope| {
            let mut ends = Vec::new();
            for connection in &connections {
                ends.push(scope.spawn(|| without_power(|| connection.send(&stop))));
                ends.push(scope.spawn(|| without_power(|| connection.receive(&stop))));
            }
            let result = measure(&connections, session);
            stop.store(true, Relaxed);
            let ended = ends.into_iter().try_for_each(|end| match end.join() {
                Ok(ended) => ended,
                Err(panic) => resume_unwind(panic),
            });
            ended.and(result)
        });
        let (seconds, received) = result?;
        let flow = |(connection, bytes): (&Connection<'_>, u64)| Flow {
            address: connection.host.ipv4,
            namespace: connection.host.namespace.clone(),
            class: connection.class,
            limit: config
                .limits
                .get(&(connection.class, Way::Download))
                .map(|(rate, _)| *rate),
            goodput: bytes as f64 * 8.0 / seconds,
        };
        let flows = connections.iter().zip(received).map(flow).collect();
        Ok(Demo {
            schema: "netbpf.neighbor_sharing.demo/1",
            seconds,
            flows,
        })
    }

    /// As one JSON object, or as text.
    pub fn print(&self, json: bool) -> Result<()> {
        let mut out = io::stdout().lock();
        if json {
            serde_json::to_writer(&mut out, self)?;
            writeln!(out)?;
        } else {
            write!(out, "{self}")?;
        }
        Ok(())
    }
}

/// Seconds measured, and bytes that arrived in them.
fn measure(connections: &[Connection<'_>], session: &mut Session) -> Result<(f64, Vec<u64>)> {
    let counts = || {
        connections
            .iter()
            .map(|c| c.received.load(Relaxed))
            .collect::<Vec<_>>()
    };
    let mut progress = Progress::new(SETTLING + MEASURED);
    let start = Instant::now();
    let mut settled = None;
    loop {
        match session.wait(None)? {
            Event::Second => {}
            Event::End(reason) => return Err(Ended(reason).into()),
            _ => continue,
        }
        progress.show(start.elapsed())?;
        let now = Instant::now();
        match &settled {
            // Seconds come a little late, never early.
            None if now - start >= SETTLING => settled = Some((now, counts())),
            Some((since, before))
                if (now - *since).as_secs_f64().round() >= MEASURED.as_secs_f64() =>
            {
                progress.end()?;
                let bytes = counts()
                    .into_iter()
                    .zip(before)
                    .map(|(after, before)| after - before);
                return Ok(((now - *since).as_secs_f64(), bytes.collect()));
            }
            _ => {}
        }
    }
}

/// A bar on a terminal, a line now and then elsewhere; on stderr.
struct Progress {
    whole: Duration,
    terminal: bool,
}

impl Progress {
    fn new(whole: Duration) -> Progress {
        Progress {
            whole,
            terminal: io::stderr().is_terminal(),
        }
    }

    fn show(&mut self, done: Duration) -> io::Result<()> {
        let (done, whole) = (
            done.as_secs().min(self.whole.as_secs()),
            self.whole.as_secs(),
        );
        if self.terminal {
            let (full, rest) = (
                "#".repeat(done as usize),
                "-".repeat((whole - done) as usize),
            );
            let _ = write!(
                io::stderr(),
                "\rmeasuring [{full}{rest}] {done} of {whole} s "
            );
        } else if done % 4 == 0 {
            say(format_args!("measuring: {done} of {whole} s"));
        }
        io::stderr().flush()
    }

    fn end(&self) -> io::Result<()> {
        if self.terminal {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
        io::stderr().flush()
    }
}

impl fmt::Display for Demo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (seconds, settling) = (self.seconds, SETTLING.as_secs());
        writeln!(
            f,
            "TCP from wan0 to both at once, {seconds:.0} s after {settling} s of settling:"
        )?;
        for Flow {
            address,
            namespace,
            goodput,
            limit,
            ..
        } in &self.flows
        {
            let limit = limit.map_or_else(|| "no limit".into(), |rate| format!("limit {rate}"));
            let kilobits = goodput / 1000.0;
            writeln!(
                f,
                "  {address}  {namespace:<10} {kilobits:>8.1} kbit/s of payload   ({limit})"
            )?;
        }
        Ok(())
    }
}
