//! The directory of MAC addresses that the BPF program looks clients up in: user space writes a new one
//! beside the one in use, then turns over.

use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result};
use libbpf_rs::MapCore;

use super::skeleton::types;
use crate::mac::Mac;
use crate::mapped::{Mapped, Shared};

/// As in the BPF program: words of a row.
const ROW_WORDS: usize = 8;
/// A word: MAC << 16 | number.
const NUMBER_BITS: u32 = 16;

/// A shift by 64 bits, for a single row, is not defined.
const FEWEST_ROWS: u32 = 2;
/// Multipliers to try. Each fails with less than 1 in 10.
const TRIES: usize = 64;

/// `struct directory_row`, which BPF programs read at any time.
#[repr(C)]
#[derive(Debug)]
struct Row([AtomicU64; ROW_WORDS]);

const _: () = assert!(size_of::<Row>() == size_of::<types::directory_row>());

// SAFETY: atomic integers only, all of one size.
unsafe impl Shared for Row {}

/// Both halves.
#[derive(Debug)]
pub struct Directory {
    rows: Mapped<Row>,
    /// Of a half.
    count: u32,
}

/// Rows of a half for so many clients, one for each: of random multipliers, 14 of 15 then overfill no row
/// even where there are 65,536 clients, and nearly all where there are fewer.
pub fn rows_for(clients: u32) -> u32 {
    clients.next_power_of_two().max(FEWEST_ROWS)
}

impl Directory {
    /// Of the map `directory`.
    pub fn open(map: &impl MapCore) -> Result<Directory> {
        let rows: Mapped<Row> = Mapped::open(map)?;
        let count = rows.count() / 2;
        Ok(Directory { rows, count })
    }

    /// Writes these clients into the half that `view` does not show. The view that shows them.
    pub fn write(&self, clients: &[(Mac, u32)], view: u64) -> Result<u64> {
        let half = !view & 1;
        for _ in 0..TRIES {
            let multiplier = u64::from_ne_bytes(netsetup::random::bytes()?) | 1;
            let Some(image) = arrange(clients, multiplier, self.count) else {
                continue;
            };
            for (place, words) in (0..).zip(&image) {
                let row = self.rows.get(half as u32 * self.count + place);
                let row = row.context("a row is missing in the directory")?;
                for (word, value) in row.0.iter().zip(words) {
                    word.store(*value, Ordering::Relaxed);
                }
            }
            return Ok(multiplier & !1 | half);
        }
        anyhow::bail!("no multiplier spreads {} clients", clients.len())
    }
}

/// The rows of one half; none where the multiplier puts too many clients into one.
fn arrange(clients: &[(Mac, u32)], multiplier: u64, rows: u32) -> Option<Vec<[u64; ROW_WORDS]>> {
    let mut image = vec![[0; ROW_WORDS]; rows as usize];
    for (mac, number) in clients {
        let row = mac.number().wrapping_mul(multiplier) >> (64 - rows.ilog2());
        let words = &mut image[row as usize];
        let free = words.iter_mut().find(|word| **word == 0)?;
        *free = mac.number() << NUMBER_BITS | u64::from(*number);
    }
    Some(image)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_enough_and_a_power_of_two() {
        for (clients, rows) in [(1, 2), (2, 2), (3, 4), (65_536, 65_536), (40_000, 65_536)] {
            assert_eq!(rows_for(clients), rows);
        }
    }

    #[test]
    fn every_client_is_in_the_row_of_its_address() {
        let clients: Vec<(Mac, u32)> = (0..1000)
            .map(|i| (Mac::from_number(0x0200_0000_0000 + u64::from(i)), i))
            .collect();
        let rows = rows_for(1000);
        let multiplier = 0x9e37_79b9_7f4a_7c15;
        let image = arrange(&clients, multiplier, rows).unwrap();
        for (mac, number) in clients {
            let row = mac.number().wrapping_mul(multiplier) >> (64 - 10);
            let word = mac.number() << 16 | u64::from(number);
            assert!(image[row as usize].contains(&word), "{mac}");
        }
    }

    #[test]
    fn what_overfills_a_row_is_refused() {
        let nine = (1..10).map(|i| (Mac::from_number(i), i as u32));
        assert!(arrange(&nine.collect::<Vec<_>>(), 1, 2).is_none());
    }
}
