//! Every opcode of every map, behind a few prefixes, with operands in registers and memory, cut off by the end of its page behind
//! each of its bytes: how far silicon reads before it says that there is no such instruction.
//!
//! Not responsible for: what instructions do with many operands (`generate`), nor for EVEX, which the models lack.

use crate::arena::{BASE, CODE, DATA, PAGE, STACK};
use crate::case::{Case, Mode};

/// What may stand before an opcode. Outside of 64-bit code the last two are INC and DEC, which the sweep has anyway.
const PREFIXES: [&[u8]; 8] = [&[], &[0xf2], &[0x67], &[0xf3], &[0x66], &[0xf0], &[0x41], &[0x48]];
/// ModRM and what follows it: a displacement of 32 bits, SIB with one of 8 bits, two registers; or an immediate.
const TAILS: [&[u8]; 3] = [&[0x05, 1, 2, 3, 4, 5, 6, 7], &[0x44, 0x24, 1, 2, 3, 4], &[0xf8, 1, 2, 3]];

/// The opcodes as they begin: in the four legacy maps, and behind VEX and XOP of every map, size and W.
fn heads() -> Vec<Vec<u8>> {
    let mut heads = Vec::new();
    for opcode in 0..=255u8 {
        heads.extend([vec![opcode], vec![0x0f, opcode], vec![0x0f, 0x38, opcode], vec![0x0f, 0x3a, opcode]]);
        for fields in (0..8).map(|n| 0x78 | n) {
            heads.push(vec![0xc5, 0x80 | fields, opcode]);
            for map in 0..5 {
                for w in [0, 0x80] {
                    heads.push(vec![0xc4, 0xe0 | map, w | fields, opcode]);
                }
            }
        }
        heads.extend([2, 8, 9, 10].map(|map| vec![0x8f, 0xe0 | map, 0x78, opcode]));
    }
    heads
}

/// The sweep's cases in one mode. Some may not be run.
pub fn cases(mode: Mode) -> impl Iterator<Item = Case> {
    let prefixes = &PREFIXES[..if mode == Mode::Long64 { 8 } else { 6 }];
    heads().into_iter().flat_map(move |head| {
        let head_is_long = matches!(head[..], [0xc4 | 0xc5 | 0x8f, _, _, ..]);
        let of_head = move |prefix: &'static [u8]| {
            let head = head.clone();
            TAILS.into_iter().flat_map(move |tail| {
                let bytes = [prefix, &head, tail].concat();
                (prefix.len() + 1..=bytes.len()).map(move |length| case(mode, &bytes[..length]))
            })
        };
        // Behind VEX and XOP, whose own fields take the place of most prefixes, every other one does.
        let step = if head_is_long { 2 } else { 1 };
        prefixes.iter().step_by(step).flat_map(move |prefix| of_head(prefix))
    })
}

/// Code at the end of its page; registers point to data, but for a count and the stack.
fn case(mode: Mode, code: &[u8]) -> Case {
    let base = if mode == Mode::Protected16 { BASE } else { 0 };
    let mut case = Case { mode, length: code.len() as u8, ..Case::default() };
    case.code[..code.len()].copy_from_slice(code);
    case.before.rip = u64::from(CODE + PAGE - base) - code.len() as u64;
    for (n, register) in (0..8).zip(&mut case.before.gpr) {
        *register = u64::from(DATA - base + 0x40 * n);
    }
    case.before.gpr[1] = 5;
    case.before.gpr[4] = u64::from(STACK - base + 0x800);
    case
}
