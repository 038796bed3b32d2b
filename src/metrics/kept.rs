//! Series of things that come and go: the first ones keep theirs for life, the rest share one.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hash, Hasher};
use std::ops::AddAssign;

/// How many have a series of their own. Whoever stores metrics pays for each series for as long as he
/// keeps them, whatever the tables of a tool hold.
pub const MOST_KEPT: usize = 256;

/// What was counted for each of them, and for the rest. All of it only grows.
#[derive(Clone, Debug)]
pub struct Kept<K, V> {
    places: HashMap<K, usize, BuildHasherDefault<Quick>>,
    series: Vec<(K, V)>,
    other: V,
}

/// Some ns a key, where a million new flows at once are looked up. It can be outwitted, but among 256 keys
/// that gains nobody anything.
#[derive(Debug, Default)]
struct Quick(u64);

impl Hasher for Quick {
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.write_u64(u64::from_ne_bytes(word));
        }
    }

    fn write_u8(&mut self, value: u8) {
        self.write_u64(value.into());
    }

    fn write_u32(&mut self, value: u32) {
        self.write_u64(value.into());
    }

    fn write_u64(&mut self, value: u64) {
        // An odd number without a pattern: 2^64 by the golden ratio.
        self.0 = (self.0.rotate_left(5) ^ value).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    fn write_isize(&mut self, value: isize) {
        self.write_u64(value as u64);
    }

    fn write_usize(&mut self, value: usize) {
        self.write_u64(value as u64);
    }

    fn finish(&self) -> u64 {
        // What is multiplied mixes upwards only.
        self.0 ^ self.0 >> 32
    }
}

impl<K, V: Default> Default for Kept<K, V> {
    fn default() -> Kept<K, V> {
        Kept {
            places: HashMap::default(),
            series: Vec::new(),
            other: V::default(),
        }
    }
}

impl<K: Clone + Eq + Hash, V: AddAssign + Default> Kept<K, V> {
    /// The series of this one, for [`Kept::add`]: its own while there are any left, or else the common
    /// one. It stays the same for life.
    pub fn place(&mut self, key: &K) -> usize {
        if let Some(place) = self.places.get(key) {
            return *place;
        }
        if self.series.len() == MOST_KEPT {
            return MOST_KEPT;
        }
        let place = self.series.len();
        self.series.push((key.clone(), V::default()));
        self.places.insert(key.clone(), place);
        place
    }

    /// Counts what has come since the last time.
    pub fn add(&mut self, place: usize, more: V) {
        match self.series.get_mut(place) {
            Some((_, sum)) => *sum += more,
            None => self.other += more,
        }
    }

    /// Those with a series of their own, the oldest first.
    pub fn series(&self) -> impl Iterator<Item = &(K, V)> {
        self.series.iter()
    }

    /// What was counted for all others.
    pub fn other(&self) -> &V {
        &self.other
    }

    /// Whether this one has a series of its own, without giving it one.
    pub fn has(&self, key: &K) -> bool {
        self.places.contains_key(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_keep_their_series_and_nothing_is_lost() {
        let mut kept = Kept::<u32, u64>::default();
        for round in 1..=3 {
            // From the other end, once they are known: who comes first then makes no difference.
            for key in 0..1000 {
                let key = if round == 1 { key } else { 999 - key };
                let place = kept.place(&key);
                kept.add(place, u64::from(key));
            }
            let own: Vec<(u32, u64)> = kept.series().copied().collect();
            let expected: Vec<(u32, u64)> =
                (0..256).map(|key| (key, round * u64::from(key))).collect();
            assert_eq!(own, expected);
            assert_eq!(*kept.other(), round * (256..1000).sum::<u64>());
        }
        assert!(kept.has(&255));
        assert!(!kept.has(&256));
    }
}
