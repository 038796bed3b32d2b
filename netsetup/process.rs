//! Which process is meant by a pid that was written down: pids are reused, a pid together with
//! its start time is not.

use std::fs;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

/// A process, told apart from later ones with the same pid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Its pid, in the pid namespace of whoever wrote it down.
    pub pid: i32,
    /// Its start, in clock ticks since boot (field 22 of `/proc/PID/stat`).
    pub start_time: u64,
}

impl Process {
    /// The calling process.
    pub fn current() -> Result<Process> {
        let pid = i32::try_from(std::process::id()).context("own pid")?;
        Process::of(pid).with_context(|| format!("read /proc/{pid}/stat"))
    }

    /// The process that the pid means now, if there is one.
    pub(crate) fn of(pid: i32) -> Option<Process> {
        let start_time = Stat::read(pid)?.start_time;
        Some(Process { pid, start_time })
    }

    /// Whether it still runs; a process that waits to be reaped holds nothing any more.
    pub fn is_alive(&self) -> bool {
        Stat::read(self.pid).is_some_and(|stat| stat.running && stat.start_time == self.start_time)
    }
}

/// `/proc/PID/stat`.
pub(crate) struct Stat {
    running: bool,
    /// As /proc counts pids, not as the process does where it has a PID namespace of its own.
    pub(crate) parent: u32,
    start_time: u64,
}

impl Stat {
    fn read(pid: i32) -> Option<Stat> {
        Stat::parse(&fs::read(format!("/proc/{pid}/stat")).ok()?)
    }

    /// The command name (field 2) may hold anything: fields count from its last parenthesis, which
    /// field 3, the state, follows. Allocates nothing.
    pub(crate) fn parse(line: &[u8]) -> Option<Stat> {
        let fields = line.rsplit(|byte| *byte == b')').next()?;
        let mut fields = str::from_utf8(fields).ok()?.split_ascii_whitespace();
        let state = fields.next()?;
        Some(Stat {
            running: !matches!(state, "Z" | "X" | "x"),
            parent: fields.next()?.parse().ok()?,
            start_time: fields.nth(17)?.parse().ok()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_name_shifts_the_fields() {
        let fields = b"S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4711 20 21\n";
        for name in [b"7 (a) S (b) ".as_slice(), b"7 (\xff) "] {
            let stat = Stat::parse(&[name, fields].concat()).unwrap();
            assert!(stat.running);
            assert_eq!(stat.parent, 1);
            assert_eq!(stat.start_time, 4711);
        }
    }

    #[test]
    fn a_zombie_does_not_run() {
        let line = b"7 (x) Z 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4711 20\n";
        assert!(!Stat::parse(line).unwrap().running);
    }

    #[test]
    fn this_process_is_alive_and_its_pid_at_another_start_is_not() {
        let this = Process::current().unwrap();
        assert!(this.is_alive());
        let earlier = Process {
            start_time: this.start_time - 1,
            ..this
        };
        assert!(!earlier.is_alive());
    }
}
