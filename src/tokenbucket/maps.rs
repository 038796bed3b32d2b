//! The maps of a token bucket in the kernel: of this process, or of another that has loaded it. All of
//! this works without any capability once they are open (kernel 5.19 and later).

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::mem::offset_of;
use std::sync::Arc;

use anyhow::{Context, Result};
use libbpf_rs::{MapCore, MapFlags, MapHandle};
use serde::Serialize;

use super::cells::{Cells, Counts};
use super::key::Key;
use super::rule::Rule;
use super::skeleton::types;
use crate::Failure;
use crate::map_value;
use crate::trace::Tally;

/// Cells below this one are shared by flows that found no room (`OVERFLOW_CELLS` of the BPF program).
pub const OVERFLOW_CELLS: u32 = 4096;
/// `LAYOUT` of the BPF program.
const LAYOUT: u32 = 2;
/// The kernel cuts names off.
const LONGEST_NAME: usize = 15;

/// Packets as they are charged, and their bytes as Ethernet frames without FCS and VLAN tag.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Volume {
    /// Packets, or segments with `--count segments`.
    pub packets: u64,
    /// Bytes.
    pub bytes: u64,
}

impl From<types::meter> for Volume {
    fn from(types::meter { packets, bytes }: types::meter) -> Volume {
        Volume { packets, bytes }
    }
}

impl std::ops::AddAssign for Volume {
    fn add_assign(&mut self, other: Volume) {
        self.packets += other.packets;
        self.bytes += other.bytes;
    }
}

/// `struct events` of the BPF program, all CPUs together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Events {
    /// Forwarded.
    pub passed: Volume,
    /// Dropped, or with `--dry-run` passed beyond the rule.
    pub dropped: Volume,
    /// New entries in the table.
    pub flows: u64,
    /// ARP and the like, neighbour discovery …: passed, not metered.
    pub not_ip: u64,
    /// `--exempt`: passed, not metered.
    pub exempt: u64,
    /// Says IP and is not, or ends too early: passed, not metered; but dropped where the machine cannot
    /// see the header that it looks at.
    pub malformed: u64,
    /// The machine says nothing about the packet: passed.
    pub no_row: u64,
    /// Packets that shared an overflow cell, because the table was full.
    pub overflowed: u64,
    /// Dropped: other CPUs won every exchange for the flow's word.
    pub lost_race: u64,
    /// An insert failed though there was room.
    pub table_errors: u64,
}

/// An entry of the table.
#[derive(Clone, Copy, Debug)]
pub struct Entry<'a> {
    /// As the BPF program has it: see [`Key::flow`].
    pub key: &'a [u8],
    /// Number of the flow's cell.
    pub cell: u32,
}

/// What flows have and what was counted: a program that takes over from another goes on with these.
pub(super) const INHERITED: [&str; 6] = [
    "state_table",
    "wide_state_table",
    "cells",
    "cells_taken",
    "free_cells",
    "events",
];
/// What each program has of its own: its constants, with the machine, and its rules.
pub(super) const RODATA: &str = ".rodata";
pub(super) const RULEBOOK: &str = ".data";

/// The maps, open.
#[derive(Debug)]
pub struct Maps {
    handles: BTreeMap<&'static str, MapHandle>,
    /// Every flow's word and counts.
    pub cells: Cells,
    /// What the program was loaded with.
    pub knobs: types::knobs,
    /// What tells flows from each other.
    pub key: Key,
    /// Of what is dropped, where that is written to a file.
    pub trace: Option<Arc<Tally>>,
}

impl Maps {
    /// Those that are needed among all maps of the program.
    pub fn among(maps: Vec<MapHandle>) -> Result<Maps> {
        let mut maps = maps;
        let mut take = |name: &'static str| -> Result<(&'static str, MapHandle)> {
            let place = maps.iter().position(|map| is_named(map.name(), name));
            let place = place.with_context(|| format!("the program has no map {name}"))?;
            Ok((name, maps.swap_remove(place)))
        };
        let names = INHERITED.into_iter().chain([RODATA, RULEBOOK]);
        let handles = names.map(&mut take).collect::<Result<BTreeMap<_, _>>>()?;
        let knobs = read_knobs(map_of(&handles, RODATA)?)?;
        Ok(Maps {
            cells: Cells::map(map_of(&handles, "cells")?)?,
            key: Key::of_knobs(&knobs),
            knobs,
            trace: None,
            handles,
        })
    }

    /// Whether all that are needed are there.
    pub fn are_among(maps: &[MapHandle]) -> bool {
        let mut names = INHERITED.into_iter().chain([RODATA, RULEBOOK]);
        names.all(|name| maps.iter().any(|map| is_named(map.name(), name)))
    }

    /// Whether what is known of flows is the same: they are of one instance.
    pub fn share_cells(&self, other: &Maps) -> bool {
        let ids = self.cells_id().ok().zip(other.cells_id().ok());
        ids.is_some_and(|(ours, theirs)| ours == theirs)
    }

    /// The number that the kernel has given to the cells.
    pub(super) fn cells_id(&self) -> Result<u32> {
        Ok(self.map("cells")?.info()?.info.id)
    }

    /// One of them.
    pub(super) fn map(&self, name: &str) -> Result<&MapHandle> {
        map_of(&self.handles, name)
    }

    fn table(&self) -> Result<&MapHandle> {
        self.map(if self.key.is_wide() {
            "wide_state_table"
        } else {
            "state_table"
        })
    }

    /// Entries that the table has room for.
    pub fn room(&self) -> u32 {
        self.knobs.flows
    }

    /// The machine's rows and conditions, byte by byte.
    pub(super) fn machine(&self) -> Result<Vec<u8>> {
        let value = self
            .map(RODATA)?
            .lookup(&0_u32.to_ne_bytes(), MapFlags::ANY)?;
        let machine = value.context("the constants are in the map")?;
        Ok(machine[offset_of!(types::rodata, machine)..].to_vec())
    }

    /// What was counted so far.
    pub fn events(&self) -> Result<Events> {
        let key = 0_u32.to_ne_bytes();
        let values = self.map("events")?.lookup_percpu(&key, MapFlags::ANY)?;
        let mut sum = Events::default();
        for cpu in map_value::read_each::<types::events>(&values.context("no events")?)? {
            sum.passed += cpu.passed.into();
            sum.dropped += cpu.dropped.into();
            sum.flows += cpu.flows;
            sum.not_ip += cpu.not_ip;
            sum.exempt += cpu.exempt;
            sum.malformed += cpu.malformed;
            sum.no_row += cpu.no_row;
            sum.overflowed += cpu.overflowed;
            sum.lost_race += cpu.lost_race;
            sum.table_errors += cpu.table_errors;
        }
        Ok(sum)
    }

    /// What flows counted that found the table full.
    pub fn overflow(&self) -> Counts {
        let mut sum = Counts::default();
        for cell in 0..OVERFLOW_CELLS {
            let Counts { passed, dropped } = self.cells.counts(cell);
            sum.passed += passed;
            sum.dropped += dropped;
        }
        sum
    }

    /// Visits every flow.
    pub fn for_each_flow(&self, mut visit: impl FnMut(Entry<'_>)) -> Result<()> {
        map_value::for_each(self.table()?, |key, value| {
            let cell = map_value::read(value)?;
            visit(Entry { key, cell });
            Ok(())
        })
    }

    /// Removes an entry whose cell was taken back.
    pub fn remove(&self, key: &[u8]) -> Result<()> {
        self.table()?.delete(key).context("remove a flow")
    }

    /// Hands a cell to the next new flow. It has rested since it was taken back: a packet that has just
    /// found it is long gone.
    pub fn hand_back(&self, cell: u32) -> Result<()> {
        let value = cell.to_ne_bytes();
        let result = self.map("free_cells")?.update(&[], &value, MapFlags::ANY);
        result.with_context(|| format!("hand back cell {cell}"))
    }

    /// Takes every cell from the stack that new flows are given from.
    pub(super) fn take_free_cells(&self) -> Result<BTreeSet<u32>> {
        let stack = self.map("free_cells")?;
        let mut cells = BTreeSet::new();
        while let Some(cell) = stack.lookup_and_delete(&[]).context("take a free cell")? {
            cells.insert(map_value::read(&cell)?);
        }
        Ok(cells)
    }

    /// How many cells have ever been a flow's.
    pub(super) fn cells_taken(&self) -> Result<u32> {
        let taken = self.map("cells_taken")?;
        let value = taken.lookup(&0_u32.to_ne_bytes(), MapFlags::ANY)?;
        let taken: u32 = map_value::read(&value.context("the count is in the map")?)?;
        // CPUs that find the last one at once count on.
        Ok(taken.min(self.knobs.flows))
    }

    /// The figures that the program goes by.
    pub(super) fn figures(&self) -> Result<types::rule> {
        let book = self.read_rulebook()?;
        Ok(book.rules[in_use(&book)])
    }

    /// The rule that the program goes by.
    pub fn rule(&self) -> Result<Rule> {
        Ok(Rule::of_figures(&self.figures()?))
    }

    /// The first rule, before the program is attached.
    pub(super) fn begin_with(&self, figures: types::rule) -> Result<()> {
        self.write_rulebook(&types::rulebook {
            rules: [figures; 2],
            in_use: 0,
        })
    }

    /// Changes the rule at once for every packet: it is written beside the one in use. Its clock goes on.
    pub(super) fn set_figures(&self, figures: types::rule) -> Result<()> {
        let mut book = self.read_rulebook()?;
        let now = in_use(&book);
        let next = 1 - now;
        book.rules[next] = types::rule {
            ns_at_tick_0: book.rules[now].ns_at_tick_0,
            ..figures
        };
        self.write_rulebook(&book)?;
        book.in_use = next as u64;
        self.write_rulebook(&book)
    }

    fn read_rulebook(&self) -> Result<types::rulebook> {
        let value = self
            .map(RULEBOOK)?
            .lookup(&0_u32.to_ne_bytes(), MapFlags::ANY)?;
        map_value::read(&value.context("the rules are in the map")?)
    }

    fn write_rulebook(&self, book: &types::rulebook) -> Result<()> {
        let (key, value) = (0_u32.to_ne_bytes(), map_value::bytes(book));
        let result = self.map(RULEBOOK)?.update(&key, value, MapFlags::ANY);
        result.context("write the rules")
    }
}

fn map_of<'a>(handles: &'a BTreeMap<&'static str, MapHandle>, name: &str) -> Result<&'a MapHandle> {
    let map = handles.get(name);
    map.with_context(|| format!("no map {name} is open"))
}

fn in_use(book: &types::rulebook) -> usize {
    (book.in_use & 1) as usize
}

/// Maps of global data have the object's name in front.
fn is_named(name: &OsStr, wanted: &str) -> bool {
    let name = name.to_string_lossy();
    if wanted.starts_with('.') {
        name.ends_with(wanted)
    } else {
        name == wanted.get(..LONGEST_NAME).unwrap_or(wanted) || name == wanted
    }
}

/// Constants of the program; another layout is another version's.
fn read_knobs(rodata: &MapHandle) -> Result<types::knobs> {
    let value = rodata.lookup(&0_u32.to_ne_bytes(), MapFlags::ANY)?;
    let value = value.context("the constants are in the map")?;
    let knobs: types::knobs = map_value::read_first(&value)?;
    let expected = offset_of!(types::rodata, machine) + size_of::<types::machine>();
    if value.len() < expected || knobs.layout != LAYOUT {
        return Err(Failure::Conflict(
            "the token bucket in the kernel is of another version; use that version's tokenbucket \
             to look at it or to detach it"
                .into(),
        )
        .into());
    }
    Ok(knobs)
}
