//! Where memory operands and stacks go.
//!
//! Not responsible for: the registers that make the address (`place`).

use super::random::Random;
use crate::arena::{BASE, CODE, DATA, PAGE, READ_ONLY, RIM, SPAN, STACK};
use crate::case::Mode;

/// A linear address for an operand of `size` bytes (0 when nobody knows): most lie in writable data, aligned by their size;
/// the others are unaligned, cross pages, can't be written, are not mapped, or are no address at all.
pub fn operand(mode: Mode, size: u64, random: &mut Random) -> u64 {
    let align = size.clamp(1, 64).next_power_of_two();
    let within = |page: u32, length: u32, random: &mut Random| {
        u64::from(page) + random.below(u64::from(length) / align) * align
    };
    let crossing = |edge: u32, random: &mut Random| u64::from(edge) - random.below(size.max(2) + 1);
    match random.below(64) {
        0..36 => within(DATA, 2 * PAGE, random),
        36..46 => u64::from(DATA) + random.below(u64::from(2 * PAGE - 64)),
        46..49 => crossing(DATA + PAGE, random),
        49 => crossing(DATA, random),
        50 => crossing(DATA + 2 * PAGE, random),
        51 => crossing(READ_ONLY, random),
        52 | 53 => within(READ_ONLY, PAGE, random),
        54 => within(CODE, PAGE, random),
        55 => within(STACK, PAGE, random),
        56 | 57 => crossing(RIM + PAGE, random),
        58 => u64::from(BASE + SPAN) + random.below(0x1000),
        59 => u64::from(BASE + 0x7000) + random.below(0x2000),
        60 => u64::from(BASE) - random.below(64),
        _ if mode == Mode::Long64 => outside(size, random),
        61 => random.below(64).wrapping_neg(),
        _ => within(DATA, 2 * PAGE, random),
    }
}

/// Beyond user addresses, beyond addresses, and at the edges of both.
fn outside(size: u64, random: &mut Random) -> u64 {
    let edge = random.of(&[1 << 47, (1 << 47) - u64::from(PAGE), 0xffff_8000_0000_0000, 0, 1 << 32]);
    match random.below(4) {
        0 => random.bits() & 0xffff_ffff_ffff | 1 << 47,
        1 => random.bits() | 0xffff_8000_0000_0000,
        _ => edge.wrapping_sub(random.below(size.max(2) + 1)),
    }
}

/// A linear address for RSP: mostly in the stack's page, some at its ends.
pub fn stack(mode: Mode, random: &mut Random) -> u64 {
    match random.below(32) {
        0..24 => u64::from(STACK) + 0x400 + random.below(0x100) * 8,
        24..27 => u64::from(STACK) + random.below(u64::from(PAGE)),
        27 => u64::from(STACK) + random.below(40),
        28 => u64::from(STACK + PAGE) - random.below(40),
        29 => u64::from(RIM + PAGE) - random.below(40),
        30 => u64::from(DATA) + random.below(40),
        _ if mode == Mode::Long64 => outside(8, random),
        _ => u64::from(BASE) + random.below(8),
    }
}
