//! Messages into a connection and out of it.

use std::io::{self, ErrorKind, Read, Write};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use anyhow::{Context, anyhow};

use super::message::{HEADER, Header};
use super::plan::SIZES;
use super::socket::Socket;
use super::tally::{Call, Tally};
use crate::ending::{Ending, Woken};

/// Bytes that are read at a time, at most, and then confirmed. Whoever reads waits for no more than there is: a
/// peer may send ten segments at first, so one that is to confirm more at a time waits for what never comes.
const PIECE: usize = 64 << 10;

/// Why a connection is served no longer.
#[derive(Debug)]
pub enum Stop {
    /// The time is over.
    Told,
    /// The peer has closed it.
    Closed,
    /// Something else.
    Failed(anyhow::Error),
}

impl From<anyhow::Error> for Stop {
    fn from(error: anyhow::Error) -> Stop {
        Stop::Failed(error)
    }
}

/// What is known of a connection by all who serve it.
#[derive(Clone, Copy, Debug)]
pub struct Shared<'a> {
    pub socket: &'a Socket,
    pub tally: &'a Mutex<Tally>,
    /// For those who wait for a moment, and
    pub ending: &'a Ending,
    /// for those who are kept busy by their peer.
    pub is_over: &'a AtomicBool,
}

impl Shared<'_> {
    pub fn tally(&self) -> MutexGuard<'_, Tally> {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sleeps until then.
    pub fn sleep_until(&self, moment: Instant) -> Result<(), Stop> {
        loop {
            let woken = self.ending.wait(&mut Vec::new(), Some(moment));
            match woken.context("sleep")? {
                Woken::ToEnd => return Err(Stop::Told),
                Woken::ToWork if Instant::now() >= moment => return Ok(()),
                Woken::ToWork => {}
            }
        }
    }

    fn check(&self) -> Result<(), Stop> {
        match self.is_over.load(Ordering::Relaxed) {
            true => Err(Stop::Told),
            false => Ok(()),
        }
    }

    /// What is to be done after a call that has brought nothing: to try again, or to stop.
    fn judge(error: io::Error, what: &'static str) -> Result<(), Stop> {
        match error.kind() {
            ErrorKind::WouldBlock | ErrorKind::Interrupted => Ok(()),
            ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => Err(Stop::Closed),
            _ => Err(Stop::Failed(anyhow!(error).context(what))),
        }
    }
}

/// Sends messages of one size.
#[derive(Debug)]
pub struct Sender<'a> {
    shared: Shared<'a>,
    message: Vec<u8>,
}

impl<'a> Sender<'a> {
    /// `padding` is what they begin and end with, but for their header.
    pub fn new(shared: Shared<'a>, padding: Vec<u8>) -> Sender<'a> {
        Sender {
            shared,
            message: padding,
        }
    }

    /// All of a message with that stamp.
    pub fn send(&mut self, stamp: u64) -> Result<(), Stop> {
        let size = self.message.len() as u64;
        Header { size, stamp }.write(&mut self.message);
        let mut rest = self.message.as_slice();
        while !rest.is_empty() {
            self.shared.check()?;
            let began = Instant::now();
            let written = self.shared.socket.stream().write(rest);
            let mut tally = self.shared.tally();
            tally.called(Call::Send, began);
            match written {
                Ok(written) => {
                    tally.sent += written as u64;
                    rest = rest.get(written..).unwrap_or_default();
                }
                Err(error) => {
                    drop(tally);
                    Shared::judge(error, "write to the connection")?;
                }
            }
        }
        Ok(())
    }
}

/// Receives messages of any size, and confirms what it has read: each piece before it waits for the next one,
/// and the last one of a message when whoever takes it is done with it.
#[derive(Debug)]
pub struct Receiver<'a> {
    shared: Shared<'a>,
    buffer: Vec<u8>,
    /// Of the buffer, what no message was made of yet.
    unused: Range<usize>,
    /// Bytes that were read and not confirmed.
    unconfirmed: u64,
}

impl<'a> Receiver<'a> {
    pub fn new(shared: Shared<'a>) -> Receiver<'a> {
        Receiver {
            shared,
            buffer: vec![0; PIECE],
            unused: 0..0,
            unconfirmed: 0,
        }
    }

    /// The next message, all of which has come.
    pub fn message(&mut self) -> Result<Header, Stop> {
        let header = loop {
            let unused = self.buffer.get(self.unused.clone()).unwrap_or_default();
            if let Some(header) = Header::read(unused) {
                break header;
            }
            self.fill()?;
        };
        if !SIZES.contains(&header.size) {
            return Err(Stop::Failed(anyhow!(
                "the peer sends something else than messages: one of {} bytes",
                header.size
            )));
        }
        self.unused.start += HEADER;
        let mut rest = header.size as usize - HEADER;
        loop {
            let part = rest.min(self.unused.len());
            self.unused.start += part;
            rest -= part;
            if rest == 0 {
                return Ok(header);
            }
            self.fill()?;
        }
    }

    /// The messages that were received are dealt with.
    pub fn done(&mut self) -> Result<(), Stop> {
        let waiting = self.unconfirmed.min(self.unused.len() as u64);
        let dealt_with = self.unconfirmed - waiting;
        self.unconfirmed = waiting;
        Ok(self.shared.socket.confirm(dealt_with)?)
    }

    /// Lets the peer know, before anything is waited for.
    pub fn tell(&self) -> Result<(), Stop> {
        let began = Instant::now();
        if self.shared.socket.announce()? {
            self.shared.tally().called(Call::Announce, began);
        }
        Ok(())
    }

    fn fill(&mut self) -> Result<(), Stop> {
        // What there is of a message is confirmed, too. Otherwise a peer who may send only one segment at a
        // time would not send the rest.
        let read = std::mem::take(&mut self.unconfirmed);
        self.shared.socket.confirm(read)?;
        self.tell()?;
        self.buffer.copy_within(self.unused.clone(), 0);
        self.unused = 0..self.unused.len();
        loop {
            self.shared.check()?;
            let room = self.buffer.get_mut(self.unused.end..).unwrap_or_default();
            let began = Instant::now();
            let read = self.shared.socket.stream().read(room);
            let mut tally = self.shared.tally();
            tally.called(Call::Receive, began);
            match read {
                Ok(0) => return Err(Stop::Closed),
                Ok(read) => {
                    tally.received += read as u64;
                    self.unused.end += read;
                    self.unconfirmed += read as u64;
                    return Ok(());
                }
                Err(error) => {
                    drop(tally);
                    Shared::judge(error, "read from the connection")?;
                }
            }
        }
    }
}
