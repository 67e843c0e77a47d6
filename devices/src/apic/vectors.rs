//! A set of interrupt vectors as the local APIC keeps them: 256 bits in eight registers (SDM 3A 10.8.4).
//!
//! Not responsible for: which sets there are and what moves between them (`lapic`).

use serde::{Deserialize, Serialize};

/// 256 vectors, one bit each.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct Vectors([u32; 8]);

impl Vectors {
    pub(super) fn insert(&mut self, vector: u8) {
        self.0[usize::from(vector >> 5)] |= 1 << (vector & 31);
    }

    pub(super) fn remove(&mut self, vector: u8) {
        self.0[usize::from(vector >> 5)] &= !(1 << (vector & 31));
    }

    pub(super) fn contains(&self, vector: u8) -> bool {
        self.0[usize::from(vector >> 5)] & 1 << (vector & 31) != 0
    }

    /// The highest vector, which is the one of the highest priority.
    pub(super) fn highest(&self) -> Option<u8> {
        let word = self.0.iter().rposition(|w| *w != 0)?;
        Some((word as u8) << 5 | (31 - self.0[word].leading_zeros() as u8))
    }

    /// One of the eight registers, lowest vectors first.
    pub(super) fn word(&self, index: usize) -> u32 {
        self.0.get(index).copied().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_highest_is_found_in_any_word() {
        let mut set = Vectors::default();
        assert_eq!(set.highest(), None);
        for vector in [0, 31, 32, 200, 255] {
            set.insert(vector);
            assert_eq!(set.highest(), Some(vector));
        }
        set.remove(255);
        assert_eq!(set.highest(), Some(200));
        assert_eq!(set.word(6), 1 << 8);
        assert!(set.contains(32) && !set.contains(33));
    }
}
