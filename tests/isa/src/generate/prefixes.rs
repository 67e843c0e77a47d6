//! Prefixes that an instruction did not ask for: useless, repeated, in conflict, forbidden, too many; and bytes gone wrong.
//!
//! Not responsible for: prefixes that belong to a form (iced's encoder sets them).

use super::random::Random;

/// Longest instruction (SDM 2A 2.3.11).
pub const LONGEST: usize = 15;
const LEGACY: [u8; 11] = [0x66, 0x67, 0xf2, 0xf3, 0xf0, 0x26, 0x2e, 0x36, 0x3e, 0x64, 0x65];

/// Changes some instructions; most stay as they are.
pub fn season(bytes: &mut Vec<u8>, bits: u32, random: &mut Random) {
    match random.below(64) {
        0..40 => {}
        40..58 => {
            for _ in 0..=random.below(3) {
                insert(bytes, bits, random);
            }
        }
        58 => {
            // As long as an instruction may be, or one byte longer.
            let length = LONGEST + random.below(2) as usize;
            while bytes.len() < length {
                insert(bytes, bits, random);
            }
        }
        59 => {
            let one = random.of(&LEGACY);
            bytes.splice(0..0, std::iter::repeat_n(one, 1 + random.below(15) as usize));
        }
        60 => {
            bytes.truncate(1 + random.below(bytes.len() as u64) as usize);
        }
        _ => {
            let at = random.below(bytes.len() as u64) as usize;
            bytes[at] ^= match random.below(3) {
                0 => random.bits() as u8,
                _ => 1 << random.below(8),
            };
        }
    }
    bytes.truncate(LONGEST);
}

fn insert(bytes: &mut Vec<u8>, bits: u32, random: &mut Random) {
    let mut prefix = random.of(&LEGACY);
    if bits == 64 && random.one_in(3) {
        prefix = 0x40 | random.bits() as u8 & 0xf;
    }
    // Mostly in front; else among the prefixes, where REX stops being one.
    let prefixes =
        bytes.iter().take_while(|b| LEGACY.contains(b) || bits == 64 && **b & 0xf0 == 0x40).count();
    bytes.insert(random.below(prefixes as u64 + 1) as usize, prefix);
}
