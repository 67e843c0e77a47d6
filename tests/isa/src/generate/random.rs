//! The generator's random numbers: seeded, so that a run comes again.
//!
//! Not responsible for: which values are interesting (`values`).

/// xorshift64*, seeded through splitmix64 so that neighbouring seeds give unlike streams.
pub struct Random(u64);

impl Random {
    /// A stream for a seed; any number will do.
    pub fn new(seed: u64) -> Self {
        let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        Self((z ^ z >> 31) | 1)
    }

    /// 64 random bits.
    pub fn bits(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number below `n`, which is not 0 and has at most 31 bits.
    pub fn below(&mut self, n: u64) -> u64 {
        ((self.bits() >> 33) * n) >> 31
    }

    /// True once in `n` times.
    pub fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    /// One of some choices, which are not none.
    pub fn of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len() as u64) as usize]
    }
}
