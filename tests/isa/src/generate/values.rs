//! Operand values: boundaries as often as others, for integers and for the formats of x87 and SIMD.
//!
//! Not responsible for: where a value goes (`state`).

use super::random::Random;

/// Limits of the integer widths and their neighbours.
const INTEGERS: [u64; 28] = [
    0,
    1,
    2,
    3,
    0xf,
    0x10,
    0x1f,
    0x20,
    0x3f,
    0x40,
    0x7e,
    0x7f,
    0x80,
    0x81,
    0xff,
    0x100,
    0x7fff,
    0x8000,
    0xffff,
    0x1_0000,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_ffff,
    0x1_0000_0000,
    0x7fff_ffff_ffff_ffff,
    0x8000_0000_0000_0000,
    0xffff_ffff_ffff_fffe,
    0xffff_ffff_ffff_ffff,
];

/// Zeros, ones, denormals, limits, infinities, quiet and signalling NaNs, limits of the integer formats.
const SINGLES: [u32; 20] = [
    0,
    0x8000_0000,
    0x3f80_0000,
    0xbf80_0000,
    1,
    0x807f_ffff,
    0x0080_0000,
    0x7f7f_ffff,
    0x7f80_0000,
    0xff80_0000,
    0x7fc0_0001,
    0x7f80_0001,
    0xffc0_0000,
    0xffbf_ffff,
    0x4eff_ffff,
    0x4f00_0000,
    0xcf00_0000,
    0x5f00_0000,
    0x3f00_0000,
    0x3eff_ffff,
];

/// The same in double precision, with limits of single precision.
const DOUBLES: [u64; 24] = [
    0,
    1 << 63,
    0x3ff << 52,
    0xbff << 52,
    1,
    0x800f_ffff_ffff_ffff,
    1 << 52,
    0x7fef_ffff_ffff_ffff,
    0x7ff << 52,
    0xfff << 52,
    0x7ff8_0000_0000_0001,
    0x7ff0_0000_0000_0001,
    0xfff8 << 48,
    0xfff7_ffff_ffff_ffff,
    0x43e << 52,
    0xc3e << 52,
    0x41e << 52,
    0x41df_ffff_ffe0_0000,
    0x3fe << 52,
    0x3fdf_ffff_ffff_ffff,
    0x36a0_0000_0000_0001,
    0x380f_ffff_ffff_ffff,
    0x47ef_ffff_f000_0000,
    0x47ef_ffff_e000_0000,
];

/// Sign with exponent, and mantissa, of the extended format; among them pseudo-denormals, unnormals and pseudo-infinities.
const EXTENDEDS: [(u64, u64); 25] = [
    (0, 0),
    (0x8000, 0),
    (0x3fff, 1 << 63),
    (0xbfff, 1 << 63),
    (0, 1),
    (0x8000, u64::MAX >> 1),
    (0, 1 << 63),
    (1, 1 << 63),
    (0x7ffe, u64::MAX),
    (0x7fff, 1 << 63),
    (0xffff, 1 << 63),
    (0x7fff, 0xc << 60),
    (0xffff, 0xc << 60),
    (0x7fff, 0xa << 60),
    (0xffff, u64::MAX),
    (0x3fff, 0x4 << 60),
    (0x7fff, 0),
    (0x7fff, 1),
    (0x403e, 1 << 63),
    (0xc03d, u64::MAX),
    (0x401e, 1 << 63),
    (0x3ffe, 1 << 63),
    (0xbffe, 1 << 63),
    (0x4000, 0xc90f_daa2_2168_c235),
    (0x403a, 0xde0b_6b3a_763f_ffff),
];

impl Random {
    /// An integer: a limit, a small one, a random one, or one with a random number of bits.
    pub fn integer(&mut self) -> u64 {
        match self.below(4) {
            0 => self.of(&INTEGERS),
            1 => self.below(64),
            2 => self.bits(),
            _ => {
                let shift = self.below(64);
                self.bits() >> shift
            }
        }
    }

    /// Single precision.
    pub fn single(&mut self) -> u32 {
        match self.below(4) {
            0 => self.bits() as u32,
            1 => (100 + self.below(60) as u32) << 23 | self.bits() as u32 & 0x807f_ffff,
            _ => self.of(&SINGLES),
        }
    }

    /// Double precision.
    pub fn double(&mut self) -> u64 {
        match self.below(4) {
            0 => self.bits(),
            1 => (960 + self.below(128)) << 52 | self.bits() & 0x800f_ffff_ffff_ffff,
            _ => self.of(&DOUBLES),
        }
    }

    /// Half precision: every class is frequent among random ones.
    pub fn half(&mut self) -> u16 {
        match self.below(2) {
            0 => self.bits() as u16,
            _ => self.of(&[0, 0x8000, 1, 0x83ff, 0x3c00, 0x7bff, 0x7c00, 0xfc00, 0x7e00, 0x7c01, 0xfdff]),
        }
    }

    /// Extended precision: 80 bits.
    pub fn extended(&mut self) -> u128 {
        let (high, mantissa) = match self.below(5) {
            0 => (self.bits() & 0xffff, self.bits()),
            1 | 2 => ((0x3ff0 + self.below(40)) | self.below(2) << 15, self.bits() | 1 << 63),
            _ => self.of(&EXTENDEDS),
        };
        u128::from(high) << 64 | u128::from(mantissa)
    }

    /// 18 digits and a sign, seldom with digits beyond nine.
    pub fn packed_decimal(&mut self) -> u128 {
        let digit = if self.one_in(8) { 16 } else { 10 };
        let digits = (0..18).fold(0u128, |v, _| v << 4 | u128::from(self.below(digit)));
        digits | u128::from(self.of(&[0u8, 0x80, 0x7f])) << 72
    }

    /// 128 bits of one format.
    pub fn vector(&mut self) -> u128 {
        let pair = |a: u64, b: u64| u128::from(a) << 64 | u128::from(b);
        match self.below(6) {
            0 => pair(self.bits(), self.bits()),
            1 => pair(self.double(), self.double()),
            2 => (0..4).fold(0, |v, _| v << 32 | u128::from(self.single())),
            3 => pair(self.integer(), self.integer()),
            4 => (0..8).fold(0, |v, _| v << 16 | u128::from(self.half())),
            // Ends of strings and bytes at their limits.
            _ => (0..16)
                .fold(0, |v, _| v << 8 | u128::from(self.of(&[0u8, 1, 0x7f, 0x80, 0xff, 0x41, 0x42, 0x61]))),
        }
    }
}
