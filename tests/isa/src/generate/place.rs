//! Gives registers the values that bring an instruction's memory operands to their targets.
//!
//! Not responsible for: what lies there (`contents`), which targets there are (`target`).

use super::random::Random;
use super::target;
use crate::arena;
use crate::case::{Case, Mode};
use iced_x86::{EncodingKind, Instruction, Mnemonic, OpKind, Register};

/// Where a case's operands came to lie: linear addresses.
#[derive(Clone, Copy, Default)]
pub struct Places {
    /// The explicit operand, or a string's source.
    pub operand: Option<u64>,
    /// A string's destination.
    pub destination: Option<u64>,
    /// RSP.
    pub stack: u64,
}

/// Sets the registers. `operand` is the target of the first memory operand.
pub fn place(case: &mut Case, i: &Instruction, operand: u64, random: &mut Random) -> Places {
    let mode = case.mode;
    let mut places = Places { stack: target::stack(mode, random), ..Places::default() };
    let stack = places.stack.wrapping_sub(base_of(mode, Register::SS));
    set(case, if mode == Mode::Long64 { Register::RSP } else { Register::ESP }, stack, random);
    if matches!(i.mnemonic(), Mnemonic::Leave | Mnemonic::Enter) || random.one_in(8) {
        let frame = target::stack(mode, random).wrapping_sub(base_of(mode, Register::SS));
        set(case, if mode == Mode::Long64 { Register::RBP } else { Register::EBP }, frame, random);
    }
    counts(case, i, random);
    for n in 0..i.op_count() {
        match i.op_kind(n) {
            OpKind::Memory => {
                explicit(case, i, operand, random);
                places.operand = Some(operand_address(case, i).unwrap_or(operand));
                continue;
            }
            OpKind::MemorySegSI => string(case, Register::SI, i.memory_segment(), operand, random),
            OpKind::MemorySegESI => string(case, Register::ESI, i.memory_segment(), operand, random),
            OpKind::MemorySegRSI => string(case, Register::RSI, i.memory_segment(), operand, random),
            OpKind::MemorySegDI => string(case, Register::DI, i.memory_segment(), operand, random),
            OpKind::MemorySegEDI => string(case, Register::EDI, i.memory_segment(), operand, random),
            OpKind::MemorySegRDI => string(case, Register::RDI, i.memory_segment(), operand, random),
            kind @ (OpKind::MemoryESDI | OpKind::MemoryESEDI | OpKind::MemoryESRDI) => {
                let register = match kind {
                    OpKind::MemoryESDI => Register::DI,
                    OpKind::MemoryESEDI => Register::EDI,
                    _ => Register::RDI,
                };
                let to = target::operand(mode, i.memory_size().size() as u64, random);
                string(case, register, Register::ES, to, random);
                places.destination = Some(to);
            }
            _ => continue,
        }
        if places.destination.is_none() {
            places.operand = Some(operand);
        }
    }
    places.stack = case.before.gpr[4].wrapping_add(base_of(mode, Register::SS));
    places
}

/// The linear address of an instruction's explicit memory operand, if it has one.
pub fn operand_address(case: &Case, i: &Instruction) -> Option<u64> {
    let n = (0..i.op_count()).find(|n| i.op_kind(*n) == OpKind::Memory)?;
    let address = i.virtual_address(n, 0, |register, _, _| {
        if register.is_segment_register() {
            return Some(arena::segment(case.mode, register.number()).base);
        }
        if !register.is_gpr() {
            return None;
        }
        let whole = case.before.gpr.get(register.full_register().number())?;
        Some(whole & u64::MAX >> (64 - 8 * register.size()))
    })?;
    Some(address & address_mask(case.mode))
}

/// Registers that count or select: small values are worth more than random ones.
fn counts(case: &mut Case, i: &Instruction, random: &mut Random) {
    use Mnemonic as M;
    let repeats = i.is_string_instruction() && (i.has_rep_prefix() || i.has_repne_prefix());
    let loops = matches!(i.mnemonic(), M::Loop | M::Loope | M::Loopne | M::Jcxz | M::Jecxz | M::Jrcxz);
    if repeats || loops && random.one_in(2) {
        let register = random.of(&[Register::CX, Register::ECX, Register::RCX]);
        let count = random.below(4);
        case.before.gpr[1] = random.integer() & address_mask(case.mode);
        set(case, register, count, random);
    }
    let bit_offset =
        matches!(i.mnemonic(), M::Bt | M::Bts | M::Btr | M::Btc) && i.op0_kind() == OpKind::Memory;
    if bit_offset && i.op1_kind() == OpKind::Register && !random.one_in(16) {
        let offset = random.below(1024).wrapping_sub(512);
        set(case, i.op1_register(), offset, random);
    }
    // Quotients that fit are rarer than those that do not.
    if matches!(i.mnemonic(), M::Div | M::Idiv) && random.one_in(2) {
        let high = random.of(&[0, 0, 1, u64::MAX]);
        case.before.gpr[2] = high & address_mask(case.mode);
        if random.one_in(2) {
            case.before.gpr[0] &= 0xff;
        }
    }
}

fn address_mask(mode: Mode) -> u64 {
    if mode == Mode::Long64 { u64::MAX } else { 0xffff_ffff }
}

/// Base of a segment register.
fn base_of(mode: Mode, segment: Register) -> u64 {
    let number = segment.number();
    if segment == Register::None || number > 5 {
        return 0;
    }
    arena::segment(mode, number).base
}

fn string(case: &mut Case, register: Register, segment: Register, to: u64, random: &mut Random) {
    let offset = to.wrapping_sub(base_of(case.mode, segment));
    set(case, register, offset, random);
}

fn explicit(case: &mut Case, i: &Instruction, to: u64, random: &mut Random) {
    let (base, index) = (i.memory_base(), i.memory_index());
    let scale = u64::from(i.memory_index_scale());
    let rest =
        to.wrapping_sub(base_of(case.mode, i.memory_segment())).wrapping_sub(i.memory_displacement64());
    if index.is_vector_register() {
        if base != Register::None {
            set(case, base, rest, random);
        }
        return elements(case, i, if base == Register::None { rest } else { 0 }, random);
    }
    let gpr = |r: Register| r != Register::None && r.is_gpr();
    match (gpr(base), gpr(index)) {
        (true, true) if base == index => {
            // An odd factor has an inverse modulo every power of two; two has none.
            let value = match scale {
                2 => rest.wrapping_mul(0xaaaa_aaaa_aaaa_aaab),
                4 => rest.wrapping_mul(0xcccc_cccc_cccc_cccd),
                8 => rest.wrapping_mul(0x8e38_e38e_38e3_8e39),
                _ => rest >> 1,
            };
            set(case, base, value, random);
        }
        (true, true) => {
            let by = get(case, index).wrapping_mul(scale);
            set(case, base, rest.wrapping_sub(by), random);
        }
        (true, false) => set(case, base, rest, random),
        (false, true) => {
            let mask = if index.size() == 4 { 0xffff_ffff } else { u64::MAX };
            set(case, index, (rest & mask) / scale, random);
        }
        (false, false) => {}
    }
}

/// Elements of a vector index: around the base, some far away.
fn elements(case: &mut Case, i: &Instruction, from: u64, random: &mut Random) {
    let number = i.memory_index().number();
    let scale = u64::from(i.memory_index_scale());
    let wide = i.code().op_code().op_kinds().iter().any(|k| {
        use iced_x86::OpCodeOperandKind as K;
        matches!(k, K::mem_vsib64x | K::mem_vsib64y | K::mem_vsib64z)
    });
    let element = |random: &mut Random| {
        if random.one_in(32) {
            random.bits()
        } else {
            (from / scale).wrapping_add(random.below(64)).wrapping_sub(32)
        }
    };
    let indices: [u64; 8] = std::array::from_fn(|_| {
        let one = element(random);
        if wide { one } else { one & 0xffff_ffff | element(random) << 32 }
    });
    let [a, b, c, d, ..] = indices;
    if i.code().op_code().encoding() == EncodingKind::EVEX {
        case.before.set_zmm(number, indices);
    } else {
        case.before.ymm[number] = [a, b, c, d];
    }
}

/// Value of a general register or a part of it.
fn get(case: &Case, r: Register) -> u64 {
    let whole = case.before.gpr[r.full_register().number()];
    match r.size() {
        1 => whole & 0xff,
        2 => whole & 0xffff,
        4 => whole & 0xffff_ffff,
        _ => whole,
    }
}

/// Sets a register or a part of it. What an address does not use of the register is often not zero.
fn set(case: &mut Case, r: Register, value: u64, random: &mut Random) {
    let number = r.full_register().number();
    let used = match r.size() {
        1 => 0xff,
        2 => 0xffff,
        4 => 0xffff_ffff,
        _ => u64::MAX,
    };
    let garbage = if random.one_in(2) { random.bits() } else { 0 };
    let there = if case.mode == Mode::Protected16 && number == 4 { 0xffff } else { address_mask(case.mode) };
    case.before.gpr[number] = (value & used | garbage & !used) & there;
}
