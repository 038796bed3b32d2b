//! What the kernel counts of a network namespace and of a thread.

use std::fs;
use std::ops::AddAssign;

use anyhow::{Context, Result};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use serde::Serialize;

/// Of all connections of this network namespace: the kernel counts these for no single one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counters {
    /// Times that a retransmission timer (RTO) expired.
    pub timeouts: u64,
    /// Probes for a lost tail (RFC 8985, 7).
    pub loss_probes: u64,
}

impl Counters {
    /// As they are in the network namespace of the calling thread.
    pub fn read() -> Result<Counters> {
        let path = "/proc/thread-self/net/netstat";
        let text = fs::read_to_string(path).with_context(|| format!("read {path}"))?;
        let find = |name| {
            counter(&text, name).with_context(|| format!("there is no {name} of TcpExt in {path}"))
        };
        Ok(Counters {
            timeouts: find("TCPTimeouts")?,
            loss_probes: find("TCPLossProbes")?,
        })
    }

    /// What was counted from then on.
    pub fn since(&self, before: &Counters) -> Counters {
        Counters {
            timeouts: self.timeouts.saturating_sub(before.timeouts),
            loss_probes: self.loss_probes.saturating_sub(before.loss_probes),
        }
    }
}

impl AddAssign for Counters {
    fn add_assign(&mut self, other: Counters) {
        self.timeouts += other.timeouts;
        self.loss_probes += other.loss_probes;
    }
}

/// A counter of TcpExt: a line of names, then one of values.
fn counter(text: &str, name: &str) -> Option<u64> {
    let mut lines = text.lines().filter(|line| line.starts_with("TcpExt: "));
    let place = lines.next()?.split(' ').position(|word| word == name)?;
    lines.next()?.split(' ').nth(place)?.parse().ok()
}

/// Seconds of CPU time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Cpu {
    /// In the program.
    pub user: f64,
    /// In the kernel on its behalf, packets that happened to come meanwhile included.
    pub system: f64,
}

impl Cpu {
    /// What the calling thread has used.
    pub fn of_this_thread() -> Result<Cpu> {
        let usage = getrusage(UsageWho::RUSAGE_THREAD).context("ask for the CPU time")?;
        let seconds = |time: nix::sys::time::TimeVal| time.num_microseconds() as f64 / 1e6;
        Ok(Cpu {
            user: seconds(usage.user_time()),
            system: seconds(usage.system_time()),
        })
    }
}

impl AddAssign for Cpu {
    fn add_assign(&mut self, other: Cpu) {
        self.user += other.user;
        self.system += other.system;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_found_by_name() {
        let text = "TcpExt: SyncookiesSent TCPTimeouts TCPLossProbes\nTcpExt: 1 22 333\n\
                    IpExt: TCPTimeouts\nIpExt: 5\n";
        assert_eq!(counter(text, "TCPTimeouts"), Some(22));
        assert_eq!(counter(text, "TCPLossProbes"), Some(333));
        assert_eq!(counter(text, "Others"), None);
        Counters::read().unwrap();
    }

    #[test]
    fn a_busy_thread_uses_cpu_time() {
        let before = Cpu::of_this_thread().unwrap();
        let mut after = before;
        while after.user + after.system < before.user + before.system + 0.01 {
            after = Cpu::of_this_thread().unwrap();
        }
    }
}
