//! What is to be measured.

use std::fmt;
use std::ops::RangeInclusive;
use std::time::Duration;

use clap::ValueEnum;
use serde::Serialize;

use super::message::HEADER;

/// Bytes that a message may have.
pub(super) const SIZES: RangeInclusive<u64> = HEADER as u64..=16 << 20;
/// Connections that there may be: each takes a thread, or two.
pub(super) const MOST_CONNECTIONS: u64 = 4096;

/// The original leaves out so much at either end.
const LEFT_OUT: Duration = Duration::from_secs(5);

/// Which end this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// It connects.
    Client,
    /// It accepts.
    Server,
}

/// What is done with a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Handler {
    /// Send a message, wait for its echo, record the round trip
    Ping,
    /// Answer every message, after SLEEP_MS
    Echo,
    /// Send every SLEEP_MS (10), and record how old the messages are that come back
    Push,
    /// Only read
    Pull,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Role::Client => "client",
            Role::Server => "server",
        })
    }
}

impl fmt::Display for Handler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Handler::Ping => "ping",
            Handler::Echo => "echo",
            Handler::Push => "push",
            Handler::Pull => "pull",
        })
    }
}

impl Handler {
    /// How long it sleeps for each message, where the command line says nothing.
    pub fn pause(self) -> Duration {
        match self {
            Handler::Push => Duration::from_millis(10),
            Handler::Ping | Handler::Echo | Handler::Pull => Duration::ZERO,
        }
    }
}

/// One end of a measurement.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Which one.
    pub role: Role,
    /// What it does.
    pub handler: Handler,
    /// With how many connections.
    pub connections: usize,
    /// Bytes of a message.
    pub size: usize,
    /// How long it sleeps for each message.
    pub pause: Duration,
    /// From one message of a connection to the next, where they are sent by the clock.
    pub every: Option<Duration>,
    /// How long it takes.
    pub duration: Duration,
    /// How often figures are taken; a quarter of the duration at most.
    pub interval: Duration,
}

impl Plan {
    /// The original's name of it.
    pub fn name(&self) -> String {
        let Plan {
            role,
            handler,
            connections,
            size,
            ..
        } = self;
        format!("{role}-{handler}-t{connections}-sz{size}")
    }

    /// Intervals that the whole takes, and how many of them are left out of the sum at either end: those of
    /// five seconds, or of a quarter of the time if that is less.
    pub fn intervals(&self) -> (u32, u32) {
        let count = |time: Duration| time.as_nanos() / self.interval.as_nanos().max(1);
        let all = count(self.duration + self.interval / 2);
        let left_out = count(LEFT_OUT.min(self.duration / 4));
        let number = |count| u32::try_from(count).unwrap_or(u32::MAX);
        (number(all), number(left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn intervals(seconds: f64, interval: f64) -> (u32, u32) {
        let plan = Plan {
            role: Role::Client,
            handler: Handler::Ping,
            connections: 1,
            size: 16,
            pause: Duration::ZERO,
            every: None,
            duration: Duration::from_secs_f64(seconds),
            interval: Duration::from_secs_f64(interval),
        };
        plan.intervals()
    }

    #[test]
    fn the_ends_are_left_out_and_the_middle_is_not() {
        assert_eq!(intervals(20.0, 1.0), (20, 5));
        assert_eq!(intervals(60.0, 1.0), (60, 5));
        // The original leaves nothing of these.
        assert_eq!(intervals(10.0, 1.0), (10, 2));
        assert_eq!(intervals(4.0, 1.0), (4, 1));
        assert_eq!(intervals(1.0, 0.25), (4, 1));
        assert_eq!(intervals(7.0, 1.0), (7, 1));
        assert_eq!(intervals(20.0, 3.0), (7, 1));
    }
}
