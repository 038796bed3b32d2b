//! The cells of all flows, as memory: reading them costs no system call, and a cell is taken back from
//! its flow by one exchange that the BPF program sees at once.

use std::io;
use std::num::NonZeroUsize;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result};
use libbpf_rs::MapCore;
use nix::libc::c_void;
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};
use serde::Serialize;

use super::skeleton::types;

/// `struct cell` of the BPF program, which writes to it at any time.
#[repr(C)]
struct Cell {
    word: AtomicU64,
    passed: AtomicU64,
    dropped: AtomicU64,
}

const _: () = assert!(size_of::<Cell>() == size_of::<types::cell>());

/// What was counted for a flow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Counts {
    /// Packets, as they are charged.
    pub passed: u64,
    /// Packets, as they are charged.
    pub dropped: u64,
}

impl Counts {
    /// What is new since an earlier look at the same cell, which may have been another flow's.
    pub fn since(self, earlier: Counts) -> Counts {
        if self.passed < earlier.passed || self.dropped < earlier.dropped {
            return self;
        }
        Counts {
            passed: self.passed - earlier.passed,
            dropped: self.dropped - earlier.dropped,
        }
    }
}

/// The map `cells`.
#[derive(Debug)]
pub struct Cells {
    first: NonNull<Cell>,
    count: usize,
    bytes: NonZeroUsize,
}

impl Cells {
    /// Maps it into memory.
    pub fn map(map: &impl MapCore) -> Result<Cells> {
        let count = map.max_entries() as usize;
        let bytes = NonZeroUsize::new(count * size_of::<Cell>()).context("no cells")?;
        if map.value_size() as usize != size_of::<Cell>() {
            return Err(io::Error::from(io::ErrorKind::InvalidData)).context("the size of a cell");
        }
        let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a new mapping, at a place of the kernel's choice.
        let memory = unsafe {
            mmap(
                None,
                bytes,
                protection,
                MapFlags::MAP_SHARED,
                map.as_fd(),
                0,
            )
        };
        Ok(Cells {
            first: memory.context("map the cells into memory")?.cast(),
            count,
            bytes,
        })
    }

    fn cell(&self, index: u32) -> Option<&Cell> {
        let index = index as usize;
        // SAFETY: below `count` it is within the mapping, which lasts as long as `self`; mappings begin
        // at a page, so it is aligned, and atomics may be written by anybody.
        (index < self.count).then(|| unsafe { self.first.add(index).as_ref() })
    }

    /// The flow's word, 0 where there is no flow.
    pub fn word(&self, index: u32) -> u64 {
        self.cell(index)
            .map_or(0, |cell| cell.word.load(Ordering::Relaxed))
    }

    /// The words of all cells.
    pub fn words(&self) -> Vec<u64> {
        (0..self.count()).map(|index| self.word(index)).collect()
    }

    /// What was counted in the cell.
    pub fn counts(&self, index: u32) -> Counts {
        self.cell(index)
            .map_or_else(Counts::default, |cell| Counts {
                passed: cell.passed.load(Ordering::Relaxed),
                dropped: cell.dropped.load(Ordering::Relaxed),
            })
    }

    /// Changes the flow's word, unless it is no longer `seen`: then the flow has just used it. 0 takes the
    /// cell from its flow.
    pub fn exchange(&self, index: u32, seen: u64, next: u64) -> bool {
        let exchange = |cell: &Cell| {
            cell.word
                .compare_exchange(seen, next, Ordering::AcqRel, Ordering::Relaxed)
        };
        self.cell(index).is_some_and(|cell| exchange(cell).is_ok())
    }

    /// How many there are.
    pub fn count(&self) -> u32 {
        self.count as u32
    }
}

impl Drop for Cells {
    fn drop(&mut self) {
        // SAFETY: this mapping, whole; no reference into it outlives `self`.
        let unmapped = unsafe { munmap(self.first.cast::<c_void>(), self.bytes.get()) };
        debug_assert!(unmapped.is_ok(), "{unmapped:?}");
    }
}
