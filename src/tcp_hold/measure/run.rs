//! Connections at work, each with a thread.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::counters::Cpu;
use super::handlers;
use super::plan::Plan;
use super::socket::Socket;
use super::stream::{Shared, Stop};
use super::tally::Tally;
use crate::ending::{Ending, Running, ending};
use crate::privilege::{self, Cap, Scope};

/// The peer has begun so much earlier at most.
const BEGAN_EARLIER: Duration = Duration::from_secs(1);

/// Connections at work. When it is dropped they end by themselves, a moment later.
#[derive(Debug)]
pub struct Run {
    workers: Vec<Worker>,
    _running: Running,
    is_over: Arc<AtomicBool>,
}

#[derive(Debug)]
struct Worker {
    tally: Arc<Mutex<Tally>>,
    thread: JoinHandle<Result<Done>>,
}

/// How a thread is told to end.
struct Told {
    ending: Ending,
    is_over: Arc<AtomicBool>,
}

/// What has become of a connection.
#[derive(Debug)]
struct Done {
    stop: Stop,
    at: Instant,
    cpu: Cpu,
    retransmitted: u64,
}

/// What has become of all connections.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// CPU time of all threads.
    pub cpu: Cpu,
    /// Segments that this end has sent again.
    pub retransmitted: u64,
    /// When the peer closed connections, before he was told.
    closed: Vec<Instant>,
    /// What went wrong with one of them.
    pub problem: Option<String>,
}

impl Run {
    /// Lets them work, in threads with the capabilities of this one and in its network namespace.
    pub fn start(plan: &Plan, sockets: Vec<Socket>) -> Result<Run> {
        let (running, ending) = ending().context("make a pipe")?;
        let is_over = Arc::new(AtomicBool::new(false));
        let first = Instant::now();
        let count = u32::try_from(sockets.len().max(1))?;
        let mut workers = Vec::with_capacity(sockets.len());
        for (socket, place) in sockets.into_iter().zip(0..) {
            // Those that send by the clock take turns.
            let first = first + plan.every.unwrap_or_default() * place / count;
            let told = Told {
                ending: ending.clone(),
                is_over: Arc::clone(&is_over),
            };
            workers.push(Worker::start(plan.clone(), socket, told, first)?);
        }
        Ok(Run {
            workers,
            _running: running,
            is_over,
        })
    }

    /// What all have done since this was asked the last time.
    pub fn take(&self) -> Result<Tally> {
        let mut sum = Tally::new()?;
        for worker in &self.workers {
            let mut tally = worker.tally.lock().unwrap_or_else(PoisonError::into_inner);
            sum.absorb(&mut tally)?;
        }
        Ok(sum)
    }

    /// No connection is at work any more.
    pub fn is_over(&self) -> bool {
        self.workers
            .iter()
            .all(|worker| worker.thread.is_finished())
    }

    /// Ends all connections.
    pub fn finish(mut self) -> Result<Outcome> {
        let workers = std::mem::take(&mut self.workers);
        // It tells them.
        drop(self);
        let mut outcome = Outcome::default();
        for worker in workers {
            let done = worker.thread.join();
            outcome.add(done.unwrap_or_else(|panic| std::panic::resume_unwind(panic))?);
        }
        Ok(outcome)
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
    }
}

impl Worker {
    fn start(plan: Plan, socket: Socket, told: Told, first: Instant) -> Result<Worker> {
        let tally = Arc::new(Mutex::new(Tally::new()?));
        let own = Arc::clone(&tally);
        let work = move || {
            let shared = Shared {
                socket: &socket,
                tally: &own,
                ending: &told.ending,
                is_over: &told.is_over,
            };
            // That of an experiment has more, for its clean-up.
            match &socket {
                Socket::Plain(_) => privilege::drop_all(Scope::Thread)?,
                Socket::Held(_) => privilege::keep_after_attach(&[Cap::NetAdmin], Scope::Thread)?,
            }
            let (stop, others) = handlers::serve(&plan, shared, first);
            let mut cpu = Cpu::of_this_thread()?;
            cpu += others;
            Ok(Done {
                stop,
                at: Instant::now(),
                cpu,
                retransmitted: socket.retransmitted()?,
            })
        };
        let thread = thread::Builder::new().name("connection".into());
        let thread = thread.spawn(work).context("start a thread")?;
        Ok(Worker { tally, thread })
    }
}

impl Outcome {
    fn add(&mut self, done: Done) {
        self.cpu += done.cpu;
        self.retransmitted += done.retransmitted;
        match done.stop {
            Stop::Told => {}
            Stop::Closed => self.closed.push(done.at),
            Stop::Failed(error) => self.problem = Some(format!("{error:#}")),
        }
    }

    /// Connections that were closed too early for a peer who measures as long as this end does.
    pub fn closed_before(&self, end: Instant, duration: Duration) -> usize {
        let earlier = BEGAN_EARLIER.min(duration / 2);
        let too_early = self.closed.iter().filter(|at| **at + earlier < end);
        too_early.count()
    }
}
