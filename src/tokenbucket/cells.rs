//! The cells of all flows, as memory: reading them costs no system call, and a cell is taken back from
//! its flow by one exchange that the BPF program sees at once.

use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::Result;
use libbpf_rs::MapCore;
use serde::Serialize;

use super::skeleton::types;
use crate::mapped::{Mapped, Shared};

/// `struct cell` of the BPF program, which writes to it at any time.
#[derive(Debug)]
#[repr(C)]
struct Cell {
    word: AtomicU64,
    passed: AtomicU64,
    dropped: AtomicU64,
}

const _: () = assert!(size_of::<Cell>() == size_of::<types::cell>());

// SAFETY: atomic integers only, all of one size.
unsafe impl Shared for Cell {}

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
    cells: Mapped<Cell>,
}

impl Cells {
    /// Maps it into memory.
    pub fn map(map: &impl MapCore) -> Result<Cells> {
        let cells = Mapped::open(map)?;
        Ok(Cells { cells })
    }

    /// The flow's word, 0 where there is no flow.
    pub fn word(&self, index: u32) -> u64 {
        self.cells
            .get(index)
            .map_or(0, |cell| cell.word.load(Ordering::Relaxed))
    }

    /// The words of all cells.
    pub fn words(&self) -> Vec<u64> {
        (0..self.count()).map(|index| self.word(index)).collect()
    }

    /// What was counted in the cell.
    pub fn counts(&self, index: u32) -> Counts {
        self.cells
            .get(index)
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
        self.cells
            .get(index)
            .is_some_and(|cell| exchange(cell).is_ok())
    }

    /// How many there are.
    pub fn count(&self) -> u32 {
        self.cells.count()
    }
}
