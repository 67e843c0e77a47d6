//! Registers before a case, as far as they do not serve an address.
//!
//! Not responsible for: addresses and what lies at them (`place`).

use super::random::Random;
use crate::case::{Mode, Registers};
use gemel_x86::flags::{AC, DF, RF, STATUS};

/// x87 errors in FSW and FCW.
const X87_ERRORS: u16 = 0x3f;
/// Error summary and busy.
const ES_AND_BUSY: u16 = 0x8080;

/// A random state; with AVX-512's if that is there.
pub fn registers(mode: Mode, avx512: bool, random: &mut Random) -> Registers {
    let mut r = Registers::default();
    let wide = mode == Mode::Long64;
    for (n, register) in r.gpr.iter_mut().enumerate() {
        *register = match wide {
            true => random.integer(),
            false if n < 8 => random.integer() & 0xffff_ffff,
            false => 0,
        };
    }
    r.rflags = random.bits() & STATUS
        | if random.one_in(4) { DF } else { 0 }
        | if random.one_in(24) { AC } else { 0 }
        | if random.one_in(16) { RF } else { 0 };
    for (n, vector) in r.ymm.iter_mut().enumerate() {
        if n < 8 || wide {
            let (low, high) = (random.vector(), random.vector());
            *vector = [low as u64, (low >> 64) as u64, high as u64, (high >> 64) as u64];
        }
    }
    if avx512 {
        self::avx512(&mut r, wide, random);
    }
    r.mxcsr = mxcsr(random);
    x87(&mut r, random);
    r
}

fn avx512(r: &mut Registers, wide: bool, random: &mut Random) {
    let half = |random: &mut Random| {
        let (low, high) = (random.vector(), random.vector());
        [low as u64, (low >> 64) as u64, high as u64, (high >> 64) as u64]
    };
    // Compares and gathers see many elements, most masks have some of them.
    r.opmask = std::array::from_fn(|_| match random.below(8) {
        0 => 0,
        1 => u64::MAX,
        2 => 1 << random.below(64),
        3 => random.bits() & random.bits() & random.bits(),
        _ => random.bits(),
    });
    for (n, (upper, high)) in r.zmm_upper.iter_mut().zip(&mut r.zmm_high).enumerate() {
        if n < 8 || wide {
            *upper = half(random);
        }
        if wide {
            let ([a, b, c, d], [e, f, g, h]) = (half(random), half(random));
            *high = [a, b, c, d, e, f, g, h];
        }
    }
}

/// Most errors are masked most of the time: who traps shows no result.
pub fn mxcsr(random: &mut Random) -> u32 {
    let masks = match random.below(4) {
        0 => random.below(64),
        1 => 0x3f & !(1 << random.below(6)),
        _ => 0x3f,
    };
    let flags = random.below(64) & random.bits();
    let modes = random.of(&[0, 0, 0, 0x40, 0x8000, 0x8040]);
    (masks << 7 | flags | modes | random.below(4) << 13) as u32
}

fn x87(r: &mut Registers, random: &mut Random) {
    let masks = match random.below(4) {
        0 => random.below(64) as u16,
        1 => X87_ERRORS & !(1 << random.below(6)),
        _ => X87_ERRORS,
    };
    // Reserved precision 1 is seldom, infinity control (bit 12) does nothing since the 80387.
    let precision = random.of(&[3u16, 3, 3, 0, 2, 1]);
    let infinity = if random.one_in(8) { 0x1000 } else { 0 };
    r.fcw = 0x40 | masks | precision << 8 | (random.below(4) as u16) << 10 | infinity;
    r.fsw = status_word(r.fcw, random);
    let some = random.bits() as u8;
    // Most stacks are full or half full, so that most operands are there.
    r.ftw = random.of(&[0xff, 0xff, 0xff, some, some, 0x0f, 0xf0, 0]);
    for register in &mut r.st {
        *register = random.extended();
    }
    // Without a waiting error they do not survive: XSAVE stores zeroes, and the host's kernel may save and load the state between
    // the signal and the instruction.
    if r.fsw & ES_AND_BUSY == 0 {
        return;
    }
    r.fop = random.bits() as u16 & 0x7ff;
    r.fip = random.bits() & 0x7fff_ffff_ffff;
    r.fdp = random.bits() & 0x7fff_ffff_ffff;
}

/// A status word that goes with a control word: its summary is right.
pub fn status_word(fcw: u16, random: &mut Random) -> u16 {
    let masks = fcw & X87_ERRORS;
    // A pending error stops every instruction that waits, so few states have one.
    let sticky = random.below(64) as u16;
    let sticky = if random.one_in(6) { sticky } else { sticky & masks };
    let stack_fault = if sticky & 1 != 0 && random.one_in(2) { 0x40 } else { 0 };
    let summary = if sticky & !masks != 0 { ES_AND_BUSY } else { 0 };
    random.bits() as u16 & 0x4700 | (random.below(8) as u16) << 11 | sticky | stack_fault | summary
}
