//! What lies at a case's operands.
//!
//! Not responsible for: where they are (`place`).

use super::place::Places;
use super::random::Random;
use super::{selectors, state};
use crate::arena;
use crate::case::{Case, Patch};
use iced_x86::{Instruction, MemorySize, Mnemonic};

/// Fills memory, and the registers that select what is loaded from it.
pub fn fill(case: &mut Case, i: &Instruction, places: Places, random: &mut Random) {
    if let Some(at) = places.operand {
        let bytes = operand(case, i, random);
        case.patches[0] = patch(at, &bytes);
        if let Some(second) = second(case, i, random) {
            case.patches[3] = patch(at.wrapping_add(512), &second);
        }
    }
    if let Some(at) = places.destination {
        let mut bytes = case.patches[0].bytes;
        // Strings that are equal for a while.
        if case.patches[0].length == 0 || random.one_in(2) {
            bytes = values(i, random);
        }
        case.patches[1] = patch(at, &bytes);
    }
    if i.stack_pointer_increment() != 0 || matches!(i.mnemonic(), Mnemonic::Leave | Mnemonic::Enter) {
        let at = if i.mnemonic() == Mnemonic::Leave { case.before.gpr[5] } else { places.stack };
        case.patches[2] = patch(at, &stack(i, random));
    }
    // Empty ones last, as a text has them.
    case.patches.sort_by_key(|patch| patch.length == 0);
}

/// A patch of as many of the bytes as lie in data.
fn patch(address: u64, bytes: &[u8; 64]) -> Patch {
    let Ok(address) = u32::try_from(address) else { return Patch::default() };
    let Some(length) = [64, 32, 16, 8, 4, 2, 1].into_iter().find(|n| arena::holds_data(address, *n)) else {
        return Patch::default();
    };
    let mut patch = Patch { address, length: length as u8, bytes: [0; 64] };
    patch.bytes[..length as usize].copy_from_slice(&bytes[..length as usize]);
    patch
}

fn values(i: &Instruction, random: &mut Random) -> [u8; 64] {
    let mut bytes = [0; 64];
    for slot in bytes.chunks_exact_mut(16) {
        slot.copy_from_slice(&random.vector().to_le_bytes());
    }
    let first = match i.memory_size() {
        MemorySize::Float80 => random.extended(),
        MemorySize::Bcd => random.packed_decimal(),
        _ => return bytes,
    };
    bytes[..10].copy_from_slice(&first.to_le_bytes()[..10]);
    bytes
}

fn operand(case: &mut Case, i: &Instruction, random: &mut Random) -> [u8; 64] {
    use Mnemonic as M;
    let mut bytes = values(i, random);
    match i.mnemonic() {
        M::Ldmxcsr | M::Vldmxcsr => set_mxcsr(&mut bytes[..4], random),
        M::Fxrstor | M::Fxrstor64 | M::Xrstor | M::Xrstor64 => {
            bytes[..2].copy_from_slice(&case.before.fcw.to_le_bytes());
            bytes[2..4].copy_from_slice(&state::status_word(case.before.fcw, random).to_le_bytes());
            set_mxcsr(&mut bytes[24..28], random);
        }
        M::Cmpxchg if random.one_in(2) => bytes[..8].copy_from_slice(&case.before.gpr[0].to_le_bytes()),
        M::Cmpxchg8b | M::Cmpxchg16b if random.one_in(2) => {
            let part = if i.mnemonic() == M::Cmpxchg8b { 4 } else { 8 };
            bytes[..part].copy_from_slice(&case.before.gpr[0].to_le_bytes()[..part]);
            bytes[part..2 * part].copy_from_slice(&case.before.gpr[2].to_le_bytes()[..part]);
        }
        M::Call | M::Jmp if far(i) => bytes = refused_selectors(random),
        M::Lds | M::Les | M::Lfs | M::Lgs | M::Mov | M::Lldt | M::Ltr if holds_selector(i) => {
            bytes = refused_selectors(random);
        }
        _ => {}
    }
    bytes
}

/// Mostly one that may be loaded; never with bit 17, which silicon may have and no model has.
fn set_mxcsr(bytes: &mut [u8], random: &mut Random) {
    if !random.one_in(8) {
        bytes.copy_from_slice(&state::mxcsr(random).to_le_bytes());
    }
    bytes[2] &= !2;
}

/// XSAVE's header, 512 bytes behind its start, and the components in EDX:EAX: those that the model has.
fn second(case: &mut Case, i: &Instruction, random: &mut Random) -> Option<[u8; 64]> {
    use Mnemonic as M;
    if !matches!(i.mnemonic(), M::Xsave | M::Xsave64 | M::Xrstor | M::Xrstor64 | M::Xsaveopt | M::Xsaveopt64)
    {
        return None;
    }
    case.before.gpr[0] = random.below(8);
    case.before.gpr[2] = 0;
    let mut header = [0; 64];
    header[0] = random.below(8) as u8;
    if random.one_in(16) {
        header[random.below(64) as usize] = random.bits() as u8;
    }
    Some(header)
}

fn far(i: &Instruction) -> bool {
    i.is_call_far_indirect() || i.is_jmp_far_indirect()
}

/// Whether a segment register is loaded.
fn holds_selector(i: &Instruction) -> bool {
    i.mnemonic() != Mnemonic::Mov || i.op0_register().is_segment_register()
}

fn refused_selectors(random: &mut Random) -> [u8; 64] {
    let mut bytes = [0; 64];
    for slot in bytes.chunks_exact_mut(2) {
        slot.copy_from_slice(&selectors::refused(random).to_le_bytes());
    }
    bytes
}

fn stack(i: &Instruction, random: &mut Random) -> [u8; 64] {
    use Mnemonic as M;
    match i.mnemonic() {
        M::Retf | M::Iret | M::Iretd | M::Iretq => refused_selectors(random),
        M::Pop if i.op0_register().is_segment_register() => refused_selectors(random),
        _ => {
            let mut bytes = [0; 64];
            for slot in bytes.chunks_exact_mut(8) {
                slot.copy_from_slice(&random.integer().to_le_bytes());
            }
            bytes
        }
    }
}
