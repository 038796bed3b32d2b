//! Keeps room in the table: flows that say no more than new ones are removed when it fills.

use std::collections::BTreeSet;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::Result;

use super::maps::{Maps, OVERFLOW_CELLS};
use super::word::Reader;

/// Looking through the table takes so many times less than what is left to others.
const SHARE_OF_TIME: u32 = 10;

/// As long as a packet may be under way that has found a flow which is being removed.
const REST: Duration = Duration::from_millis(50);

/// Hands out the cells that a killed process had taken back and not yet handed on. Nobody else takes
/// cells back meanwhile; packets may come.
pub(super) fn recover(maps: &Maps) -> Result<()> {
    let mut cells = maps.take_free_cells()?;
    let looked = look_for_lost(maps, &mut cells);
    let handed_back = cells.into_iter().try_for_each(|cell| maps.hand_back(cell));
    looked.and(handed_back)
}

fn look_for_lost(maps: &Maps, cells: &mut BTreeSet<u32>) -> Result<()> {
    let taken = maps.cells_taken()?;
    // New flows find no free cell now. One that has just been taken gets its entry, or comes back.
    sleep(REST);
    let mut has_flow = vec![false; maps.cells.count() as usize];
    maps.for_each_flow(|entry| {
        if let Some(place) = has_flow.get_mut(entry.cell as usize) {
            *place = true;
        }
    })?;
    let nobodys = |cell: &u32| !has_flow[*cell as usize] && maps.cells.word(*cell) == 0;
    cells.extend((OVERFLOW_CELLS..OVERFLOW_CELLS + taken).filter(nobodys));
    cells.extend(maps.take_free_cells()?);
    Ok(())
}

/// Removes flows, and gives their cells to new ones a while later.
#[derive(Debug)]
pub struct Sweeper {
    /// Entries that were removed, of those that the program has made.
    removed: u64,
    /// Cells that were taken back and may still be used by a packet that is just being judged.
    resting: Vec<u32>,
    /// Since when they rest.
    swept: Instant,
    not_before: Instant,
}

impl Sweeper {
    /// For the maps of a program that has just been loaded, or of one that has run for long.
    pub fn new(maps: &Maps) -> Result<Sweeper> {
        let mut listed = 0;
        maps.for_each_flow(|_| listed += 1)?;
        Ok(Sweeper {
            removed: maps.events()?.flows.saturating_sub(listed),
            resting: Vec::new(),
            swept: Instant::now(),
            not_before: Instant::now(),
        })
    }

    /// Flows in the table.
    pub fn flows(&self, maps: &Maps) -> Result<u64> {
        Ok(maps.events()?.flows.saturating_sub(self.removed))
    }

    /// Flows that were removed since they said nothing any more.
    pub fn removed(&self) -> u64 {
        self.removed
    }

    /// To be called about once a second.
    pub fn tend(&mut self, maps: &Maps) -> Result<()> {
        if self.swept.elapsed() >= REST {
            self.hand_back(maps)?;
        }
        let now = Instant::now();
        if now < self.not_before || self.flows(maps)? * 4 < u64::from(maps.room()) * 3 {
            return Ok(());
        }
        self.sweep(maps)?;
        self.swept = Instant::now();
        self.not_before = Instant::now() + now.elapsed() * SHARE_OF_TIME;
        Ok(())
    }

    /// To be called at the end, where the maps stay: nobody else knows of the cells that rest.
    pub fn finish(&mut self, maps: &Maps) -> Result<()> {
        if self.resting.is_empty() {
            return Ok(());
        }
        sleep(REST);
        self.hand_back(maps)
    }

    fn hand_back(&mut self, maps: &Maps) -> Result<()> {
        let rested = std::mem::take(&mut self.resting);
        rested.into_iter().try_for_each(|cell| maps.hand_back(cell))
    }

    fn sweep(&mut self, maps: &Maps) -> Result<()> {
        let reader = Reader::now(maps)?;
        let mut gone = Vec::new();
        maps.for_each_flow(|entry| {
            let word = maps.cells.word(entry.cell);
            // 0: whoever took it back was killed before he could remove it.
            if word == 0 || reader.says_nothing(word) {
                gone.push((entry.key.to_vec(), entry.cell, word));
            }
        })?;
        for (key, cell, word) in gone {
            if word == 0 || maps.cells.exchange(cell, word, 0) {
                maps.remove(&key)?;
                self.removed += 1;
                self.resting.push(cell);
            }
        }
        Ok(())
    }
}
