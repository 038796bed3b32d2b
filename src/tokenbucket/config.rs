//! What tokenbucket loads, and what it attaches where.

use std::fmt;

use anyhow::{Context, Result};

use super::key::Key;
use super::machine::Machine;
use super::rule::Rule;
use crate::cidr::Cidr;
use crate::ground::Tracing;
use crate::netlink::{Link, Netlink};
use crate::notation::grouped;
use crate::port::Port;
use crate::tc::Direction;

/// What to load and attach.
#[derive(Clone, Debug)]
pub struct Config {
    /// The interfaces.
    pub ports: Vec<Port>,
    /// The sides of them.
    pub directions: Vec<Direction>,
    /// What judges packets, where the rule is not in bytes.
    pub machine: Machine,
    /// What every flow may send.
    pub rule: Rule,
    /// What tells flows from each other.
    pub key: Key,
    /// Charge segments, not packets as the kernel hands them over.
    pub count_segments: bool,
    /// Flows that can be known at a time.
    pub max_entries: u32,
    /// Networks that are never limited.
    pub exempt: Vec<Cidr>,
    /// Counts what would be dropped, drops nothing.
    pub dry_run: bool,
    /// Of which packets the program says what became of them and why.
    pub tracing: Tracing,
}

impl Config {
    /// The interfaces, looked up again, for those who watch them.
    pub fn links(&self) -> Result<Vec<Link>> {
        let mut netlink = Netlink::open()?;
        let mut link = |port: &Port| {
            let link = port.link(&mut netlink)?;
            link.with_context(|| format!("{} is gone", port.name))
        };
        self.ports.iter().map(&mut link).collect()
    }

    pub(super) fn placements(&self) -> impl Iterator<Item = (&Port, Direction)> {
        let both = |port| {
            self.directions
                .iter()
                .map(move |direction| (port, *direction))
        };
        self.ports.iter().flat_map(both)
    }

    /// What is about to be taken.
    pub fn room(&self) -> String {
        let memory = self.memory().div_ceil(1 << 20);
        let flows = grouped(self.max_entries.into());
        format!("Taking {memory} MiB of kernel memory for a table of {flows} flows")
    }

    /// What is left behind, and how to go on with it.
    pub fn stay(&self) -> String {
        let names = self.names();
        format!("It stays attached: tokenbucket status, set or detach --iface {names}")
    }

    fn names(&self) -> String {
        let names: Vec<&str> = self.ports.iter().map(|port| port.name.as_str()).collect();
        names.join(" ")
    }

    /// Bytes of kernel memory that the tables take, for as long as they are there.
    fn memory(&self) -> u64 {
        // An element of a hash table has a header of 48 bytes and a place among the buckets; the
        // cells and the stack of free ones are plain arrays.
        const HEADER: u64 = 48;
        const BUCKET: u64 = 16;
        const CELL: u64 = 24;
        let key = if self.key.is_wide() { 40 } else { 16 };
        let entries = u64::from(self.max_entries);
        let buckets = entries.next_power_of_two() * BUCKET;
        entries * (HEADER + key + 8 + CELL + 4) + buckets
    }
}

/// One line: what is limited, where.
impl fmt::Display for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sides: Vec<String> = self.directions.iter().map(ToString::to_string).collect();
        let (names, sides) = (self.names(), sides.join(" and "));
        write!(f, "Limiting {names} {sides} by {}: ", self.key)?;
        match self.rule {
            Rule::Machine => write!(f, "machine {}", self.machine.name())?,
            rule => write!(f, "{rule}")?,
        }
        if self.dry_run {
            write!(f, " (dry run: drops nothing)")?;
        }
        Ok(())
    }
}
