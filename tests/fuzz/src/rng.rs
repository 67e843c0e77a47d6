//! Seeded random numbers, and the values that break things more often than others.
//!
//! Not responsible for: what they are used for.

use std::cell::Cell;

/// SplitMix64. Drawing needs no exclusive borrow, so that draws can stand in each other's arguments.
#[derive(Clone, Debug)]
pub struct Rng(Cell<u64>);

impl Rng {
    /// A generator for part `number` of the run that `seed` names.
    pub fn of(seed: u64, number: u64) -> Self {
        let rng = Self(Cell::new(seed ^ number.wrapping_mul(0xd6e8_feb8_6659_fd93)));
        rng.next();
        rng
    }

    /// 64 random bits.
    #[allow(clippy::should_implement_trait)] // it never ends, and `for` over it would not either
    pub fn next(&self) -> u64 {
        self.0.set(self.0.get().wrapping_add(0x9e37_79b9_7f4a_7c15));
        let z = (self.0.get() ^ self.0.get() >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    /// A number below `n`; zero when `n` is.
    pub fn below(&self, n: u64) -> u64 {
        if n == 0 { 0 } else { self.next() % n }
    }

    /// True once in `n` times.
    pub fn once_in(&self, n: u64) -> bool {
        self.below(n) == 0
    }

    /// One of a list that is not empty.
    pub fn pick<T: Copy>(&self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize]
    }

    /// The bits of `mask`, each set half of the time.
    pub fn bits(&self, mask: u64) -> u64 {
        self.next() & mask
    }

    /// A number of any magnitude, with those near powers of two as often as all others.
    pub fn value(&self) -> u64 {
        let shift = self.below(64);
        match self.below(4) {
            0 => (1u64 << shift).wrapping_add(self.below(5)).wrapping_sub(2),
            1 => !(1u64 << shift).wrapping_add(self.below(3)),
            _ => self.next() >> shift,
        }
    }

    /// Fills a buffer.
    pub fn fill(&self, out: &mut [u8]) {
        for piece in out.chunks_mut(8) {
            piece.copy_from_slice(&self.next().to_le_bytes()[..piece.len()]);
        }
    }
}
