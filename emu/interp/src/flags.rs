//! The six status flags, kept as the last result and its carries, and computed only when somebody asks.
//!
//! Not responsible for: which instruction changes which flag (`isa`).
//!
//! `result` is the last result, sign-extended: ZF, SF and PF come from it. `carries` holds CF in bit 63, CF^OF in
//! bit 62 and AF in bit 3: that is where the carry-out vector of an addition has them once it is shifted to the top. Two more
//! fields let any combination of flags be written: bit 0 inverts SF, bits 8-15 are XORed into the byte whose parity
//! is PF. The scheme is well known from fast interpreters; it makes ADD cost two stores.

use crate::cpu::Width;
use gemel_x86::flags::{AF, CF, OF, PF, SF, STATUS, ZF};

const CARRY: u64 = 1 << 63;
const CARRY_XOR_OVERFLOW: u64 = 1 << 62;
const ADJUST: u64 = 1 << 3;
const KEEP: u64 = CARRY | CARRY_XOR_OVERFLOW | ADJUST;

/// The lazily kept status flags.
#[derive(Clone, Copy, Debug)]
pub struct LazyFlags {
    result: u64,
    carries: u64,
}

impl LazyFlags {
    /// Flags from the bits of RFLAGS.
    pub fn from_bits(bits: u64) -> Self {
        let mut f = Self { result: u64::from(bits & ZF == 0), carries: 0 };
        // result is 0 or 1 here: SF reads 0, PF reads 1 for 0 and 0 for 1.
        if bits & SF != 0 {
            f.carries |= 1;
        }
        let parity_now = f.result == 0;
        if parity_now != (bits & PF != 0) {
            f.carries |= 1 << 8;
        }
        f.set_cf_of(bits & CF != 0, bits & OF != 0);
        if bits & AF != 0 {
            f.carries |= ADJUST;
        }
        f
    }

    /// The bits of RFLAGS.
    pub fn bits(self) -> u64 {
        u64::from(self.cf())
            | if self.pf() { PF } else { 0 }
            | if self.af() { AF } else { 0 }
            | if self.zf() { ZF } else { 0 }
            | if self.sf() { SF } else { 0 }
            | if self.of() { OF } else { 0 }
    }

    /// Changes the flags in `mask` to those of `bits`.
    #[inline]
    pub fn update(&mut self, mask: u64, bits: u64) {
        *self = Self::from_bits((self.bits() & !mask | bits & mask) & STATUS);
    }

    /// Carry.
    #[inline(always)]
    pub fn cf(self) -> bool {
        self.carries & CARRY != 0
    }

    /// Zero.
    #[inline(always)]
    pub fn zf(self) -> bool {
        self.result == 0
    }

    /// Sign.
    #[inline(always)]
    pub fn sf(self) -> bool {
        (self.result >> 63) ^ (self.carries & 1) != 0
    }

    /// Overflow.
    #[inline(always)]
    pub fn of(self) -> bool {
        (self.carries ^ (self.carries << 1)) & CARRY != 0
    }

    /// Adjust.
    #[inline(always)]
    pub fn af(self) -> bool {
        self.carries & ADJUST != 0
    }

    /// Parity of the low result byte: even.
    #[inline(always)]
    pub fn pf(self) -> bool {
        ((self.result ^ (self.carries >> 8)) as u8).count_ones() & 1 == 0
    }

    /// Changes CF and OF alone.
    #[inline]
    pub fn set_cf_of(&mut self, cf: bool, of: bool) {
        self.carries &= !(CARRY | CARRY_XOR_OVERFLOW);
        self.carries |= if cf { CARRY } else { 0 } | if cf != of { CARRY_XOR_OVERFLOW } else { 0 };
    }

    /// Changes CF alone.
    #[inline]
    pub fn set_cf(&mut self, cf: bool) {
        let of = self.of();
        self.set_cf_of(cf, of);
    }

    /// After an addition (with or without carry in) `a + b + c = r`.
    #[inline(always)]
    pub fn add<W: Width>(&mut self, a: W, b: W, r: W) {
        let (a, b, v) = (a.zext(), b.zext(), r.zext());
        self.store::<W>(r, (a & b) | ((a | b) & !v));
    }

    /// After a subtraction or comparison (with or without borrow in) `a - b - c = r`.
    #[inline(always)]
    pub fn sub<W: Width>(&mut self, a: W, b: W, r: W) {
        let (a, b, v) = (a.zext(), b.zext(), r.zext());
        self.store::<W>(r, (!a & b) | ((!a | b) & v));
    }

    #[inline(always)]
    fn store<W: Width>(&mut self, r: W, carries: u64) {
        self.result = r.sext();
        self.carries = (carries << (64 - W::BITS)) & (CARRY | CARRY_XOR_OVERFLOW) | carries & ADJUST;
    }

    /// After a logical operation: CF and OF clear, AF given.
    #[inline(always)]
    pub fn logic<W: Width>(&mut self, r: W, af: bool) {
        self.result = r.sext();
        self.carries = if af { ADJUST } else { 0 };
    }

    /// ZF, SF, PF of a result with CF, OF, AF given.
    #[inline]
    pub fn set<W: Width>(&mut self, r: W, cf: bool, of: bool, af: bool) {
        self.result = r.sext();
        self.carries = if af { ADJUST } else { 0 };
        self.set_cf_of(cf, of);
    }

    /// After INC or DEC: like the addition or subtraction of one, but CF stays.
    #[inline(always)]
    pub fn keep_cf(&mut self, before: Self) {
        let (cf, of) = (before.cf(), self.of());
        self.carries &= KEEP;
        self.set_cf_of(cf, of);
    }

    /// A condition code of Jcc, SETcc, CMOVcc (SDM 1 appendix B).
    #[inline(always)]
    pub fn condition<const CC: u8>(self) -> bool {
        let base = match CC >> 1 {
            0 => self.of(),
            1 => self.cf(),
            2 => self.zf(),
            3 => self.cf() || self.zf(),
            4 => self.sf(),
            5 => self.pf(),
            6 => self.sf() != self.of(),
            _ => self.zf() || self.sf() != self.of(),
        };
        base != (CC & 1 != 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_combination_of_flags_comes_back() {
        for bits in 0..=0xfff_u64 {
            if bits & !STATUS == 0 {
                assert_eq!(LazyFlags::from_bits(bits).bits(), bits, "{bits:#x}");
            }
        }
    }

    #[test]
    fn eight_bit_sums_and_differences_agree_with_the_definition() {
        for a in 0..=255u8 {
            for b in 0..=255u8 {
                for c in 0..=1u8 {
                    let mut f = LazyFlags::from_bits(0);
                    let r = a.wrapping_add(b).wrapping_add(c);
                    f.add(a, b, r);
                    assert_eq!(f.cf(), u16::from(a) + u16::from(b) + u16::from(c) > 255);
                    assert_eq!(f.af(), (a & 15) + (b & 15) + c > 15);
                    let signed = i16::from(a as i8) + i16::from(b as i8) + i16::from(c);
                    assert_eq!(f.of(), i8::try_from(signed).is_err());
                    let r = a.wrapping_sub(b).wrapping_sub(c);
                    f.sub(a, b, r);
                    assert_eq!(f.cf(), u16::from(a) < u16::from(b) + u16::from(c));
                    assert_eq!(f.af(), (a & 15) < (b & 15) + c);
                    let signed = i16::from(a as i8) - i16::from(b as i8) - i16::from(c);
                    assert_eq!(f.of(), i8::try_from(signed).is_err());
                    assert_eq!((f.zf(), f.sf(), f.pf()), (r == 0, r > 127, r.count_ones() % 2 == 0));
                }
            }
        }
    }
}
