//! One instruction of a given form: random registers, addressing, immediates, encoded by iced.
//!
//! Not responsible for: which form (`forms`), further prefixes (`prefixes`), register contents (`place`).

use super::random::Random;
use iced_x86::{
    Code, Encoder, EncodingKind, Instruction, OpCodeOperandKind, OpKind, Register, RoundingControl,
};

/// Encodes forms for one code size.
pub struct Assembler {
    bits: u32,
    encoder: Encoder,
}

impl Assembler {
    /// For 16-, 32- or 64-bit code.
    pub fn new(bits: u32) -> Self {
        Self { bits, encoder: Encoder::new(bits) }
    }

    /// Bytes of an instance of the form at `rip` whose memory operand, where it depends on a displacement alone, is at
    /// `target`. `None` when ten tries gave nothing that can be encoded.
    pub fn instance(&mut self, code: Code, rip: u64, target: u64, random: &mut Random) -> Option<Vec<u8>> {
        (0..10).find_map(|_| {
            let instruction = self.form(code, rip, target, random)?;
            let encoded = self.encoder.encode(&instruction, rip);
            let bytes = self.encoder.take_buffer();
            encoded.ok().map(|_| bytes)
        })
    }

    fn form(&self, code: Code, rip: u64, target: u64, random: &mut Random) -> Option<Instruction> {
        let mut i = Instruction::default();
        i.set_code(code);
        for (n, kind) in code.op_code().op_kinds().iter().enumerate() {
            self.operand(&mut i, n as u32, *kind, rip, target, random)?;
        }
        if code.op_code().encoding() == EncodingKind::EVEX {
            masked(&mut i, code, random);
        }
        Some(i)
    }

    /// How many vector registers an encoding reaches.
    fn vectors(&self, code: Code) -> u64 {
        match (self.bits, code.op_code().encoding()) {
            (64, EncodingKind::EVEX) => 32,
            (64, _) => 16,
            _ => 8,
        }
    }

    fn operand(
        &self,
        i: &mut Instruction,
        n: u32,
        kind: OpCodeOperandKind,
        rip: u64,
        target: u64,
        random: &mut Random,
    ) -> Option<()> {
        use OpCodeOperandKind as K;
        let in_memory = random.below(5) < 3;
        if in_memory && kind_has_memory(kind) || kind_is_memory(kind) {
            i.set_op_kind(n, OpKind::Memory);
            let vsib = vsib(kind).map(|first| first + random.below(self.vectors(i.code())) as u32);
            self.address(i, vsib, target, random);
            if kind == K::mem_offs {
                i.set_memory_base(Register::None);
                i.set_memory_index(Register::None);
                let wide = [u64::MAX, 0xffff_ffff, 0xffff];
                let size = match self.bits {
                    64 => random.of(&[8u32, 8, 4]),
                    _ => random.of(&[4u32, 4, 2]),
                };
                i.set_memory_displ_size(size);
                i.set_memory_displacement64(target & wide[(3 - size.ilog2()) as usize]);
            }
            return Some(());
        }
        let banks = if self.bits == 64 { 16 } else { 8 };
        let vectors = self.vectors(i.code());
        let register = match kind {
            K::r8_or_mem | K::r8_reg | K::r8_opcode => self.byte_register(random),
            K::r16_or_mem | K::r16_reg | K::r16_reg_mem | K::r16_rm | K::r16_opcode => {
                Register::AX + random.below(banks) as u32
            }
            K::r32_or_mem | K::r32_reg | K::r32_reg_mem | K::r32_rm | K::r32_opcode | K::r32_vvvv => {
                Register::EAX + random.below(banks) as u32
            }
            K::r64_or_mem | K::r64_reg | K::r64_reg_mem | K::r64_rm | K::r64_opcode | K::r64_vvvv => {
                Register::RAX + random.below(16) as u32
            }
            K::mm_or_mem | K::mm_reg | K::mm_rm => Register::MM0 + random.below(8) as u32,
            K::xmm_or_mem | K::xmm_reg | K::xmm_rm | K::xmm_vvvv | K::xmm_is4 | K::xmm_is5 => {
                Register::XMM0 + random.below(vectors) as u32
            }
            K::ymm_or_mem | K::ymm_reg | K::ymm_rm | K::ymm_vvvv | K::ymm_is4 | K::ymm_is5 => {
                Register::YMM0 + random.below(vectors) as u32
            }
            K::zmm_or_mem | K::zmm_reg | K::zmm_rm | K::zmm_vvvv => {
                Register::ZMM0 + random.below(vectors) as u32
            }
            K::k_or_mem | K::k_reg | K::k_rm | K::k_vvvv => Register::K0 + random.below(8) as u32,
            K::seg_reg => Register::ES + random.below(6) as u32,
            K::cr_reg => Register::CR0 + random.of(&[0u32, 2, 3, 4, 8]),
            K::dr_reg => Register::DR0 + random.below(8) as u32,
            K::es => Register::ES,
            K::cs => Register::CS,
            K::ss => Register::SS,
            K::ds => Register::DS,
            K::fs => Register::FS,
            K::gs => Register::GS,
            K::al => Register::AL,
            K::cl => Register::CL,
            K::ax => Register::AX,
            K::dx => Register::DX,
            K::eax => Register::EAX,
            K::rax => Register::RAX,
            K::st0 => Register::ST0,
            K::sti_opcode => Register::ST0 + random.below(8) as u32,
            _ => return self.other_operand(i, n, kind, rip, random),
        };
        i.set_op_register(n, register);
        Some(())
    }

    fn byte_register(&self, random: &mut Random) -> Register {
        if self.bits != 64 {
            return Register::AL + random.below(8) as u32;
        }
        // AH to BH cannot be had beside SPL to R15L; as often as not the low four.
        match random.below(3) {
            0 => Register::AL + random.below(4) as u32,
            1 => Register::AL + random.below(8) as u32,
            _ => Register::SPL + random.below(12) as u32,
        }
    }

    /// Immediates, strings, branches.
    fn other_operand(
        &self,
        i: &mut Instruction,
        n: u32,
        kind: OpCodeOperandKind,
        rip: u64,
        random: &mut Random,
    ) -> Option<()> {
        use OpCodeOperandKind as K;
        let value = random.integer();
        let address = if random.one_in(4) { self.other_address_size() } else { self.bits };
        let by_address = |kinds: [OpKind; 3]| kinds[(address.ilog2() - 4) as usize];
        let op_kind = match kind {
            K::imm4_m2z | K::imm8 => {
                // ENTER and EXTRQ have a second one.
                if n > 0 && (0..n).any(|k| matches!(i.op_kind(k), OpKind::Immediate16)) {
                    i.set_op_kind(n, OpKind::Immediate8_2nd);
                    i.set_immediate8_2nd(value as u8);
                    return Some(());
                }
                let value = if kind == K::imm8 { value as u8 } else { value as u8 & 0xf };
                i.set_op_kind(n, OpKind::Immediate8);
                i.set_immediate8(value);
                return Some(());
            }
            K::imm8_const_1 => {
                i.set_op_kind(n, OpKind::Immediate8);
                i.set_immediate8(1);
                return Some(());
            }
            K::imm8sex16 => OpKind::Immediate8to16,
            K::imm8sex32 => OpKind::Immediate8to32,
            K::imm8sex64 => OpKind::Immediate8to64,
            K::imm16 => OpKind::Immediate16,
            K::imm32 => OpKind::Immediate32,
            K::imm32sex64 => OpKind::Immediate32to64,
            K::imm64 => OpKind::Immediate64,
            K::seg_rSI => by_address([OpKind::MemorySegSI, OpKind::MemorySegESI, OpKind::MemorySegRSI]),
            K::seg_rDI => by_address([OpKind::MemorySegDI, OpKind::MemorySegEDI, OpKind::MemorySegRDI]),
            K::es_rDI => {
                // Both operands of a string instruction have one address size.
                match (0..n).map(|k| i.op_kind(k)).find(|k| is_source(*k)) {
                    Some(OpKind::MemorySegSI) => OpKind::MemoryESDI,
                    Some(OpKind::MemorySegESI) => OpKind::MemoryESEDI,
                    Some(_) => OpKind::MemoryESRDI,
                    None => by_address([OpKind::MemoryESDI, OpKind::MemoryESEDI, OpKind::MemoryESRDI]),
                }
            }
            K::seg_rBX_al => {
                i.set_op_kind(n, OpKind::Memory);
                i.set_memory_base(match address {
                    16 => Register::BX,
                    32 => Register::EBX,
                    _ => Register::RBX,
                });
                i.set_memory_index(Register::AL);
                return Some(());
            }
            K::br16_1 | K::br32_1 | K::br64_1 => {
                let target = rip.wrapping_add(value as u8 as i8 as u64);
                return branch(i, n, kind, target);
            }
            K::br16_2 | K::br32_4 | K::br64_4 => {
                let target = rip.wrapping_add(value as u32 as i32 as u64);
                return branch(i, n, kind, target);
            }
            K::farbr2_2 => {
                i.set_op_kind(n, OpKind::FarBranch16);
                i.set_far_branch16(value as u16);
                i.set_far_branch_selector(super::selectors::refused(random));
                return Some(());
            }
            K::farbr4_2 => {
                i.set_op_kind(n, OpKind::FarBranch32);
                i.set_far_branch32(value as u32);
                i.set_far_branch_selector(super::selectors::refused(random));
                return Some(());
            }
            _ => return None,
        };
        i.set_op_kind(n, op_kind);
        match op_kind {
            OpKind::Immediate8to16 | OpKind::Immediate8to32 | OpKind::Immediate8to64 => {
                i.set_immediate8to64(value as u8 as i8 as i64);
            }
            OpKind::Immediate16 => i.set_immediate16(value as u16),
            OpKind::Immediate32 => i.set_immediate32(value as u32),
            OpKind::Immediate32to64 => i.set_immediate32to64(value as u32 as i32 as i64),
            OpKind::Immediate64 => i.set_immediate64(value),
            _ => {}
        }
        Some(())
    }

    fn other_address_size(&self) -> u32 {
        if self.bits == 32 { 16 } else { 32 }
    }

    /// Any way to address memory that the code size has.
    fn address(&self, i: &mut Instruction, vsib: Option<Register>, target: u64, random: &mut Random) {
        let size = if random.one_in(6) { self.other_address_size() } else { self.bits };
        // A vector index needs a SIB byte, which 16-bit addresses do not have.
        let size = if vsib.is_some() { size.max(32) } else { size };
        if size == 16 {
            return address_16(i, target, random);
        }
        let banks = if self.bits == 64 { 16 } else { 8 };
        let first = if size == 64 { Register::RAX } else { Register::EAX };
        let width = size / 8;
        let scale = random.of(&[1u32, 2, 4, 8]);
        let (mut base, mut index) = (Register::None, Register::None);
        match random.below(8) {
            0 if vsib.is_none() && self.bits == 64 => {
                i.set_memory_base(if size == 64 { Register::RIP } else { Register::EIP });
                i.set_memory_displ_size(width);
                i.set_memory_displacement64(target);
                return;
            }
            0 | 1 => {}
            2 => index = first + random.below(banks) as u32,
            3 | 4 => {
                base = first + random.below(banks) as u32;
                index = first + random.below(banks) as u32;
            }
            _ => base = first + random.below(banks) as u32,
        }
        // RSP cannot be an index.
        if index == first + 4u32 {
            index = Register::None;
        }
        index = vsib.unwrap_or(index);
        i.set_memory_base(base);
        i.set_memory_index(index);
        if index != Register::None {
            i.set_memory_index_scale(scale);
        }
        let (displacement, displ_size) = if base == Register::None {
            // What an index multiplies has to reach the target exactly.
            let near = target.wrapping_sub(random.below(16).wrapping_mul(8 * u64::from(scale)));
            (near, width)
        } else {
            match random.below(4) {
                0 => (0, 0),
                1 | 2 => (random.bits() as i8 as u64, 1),
                _ => (random.bits() as i32 as u64 >> (random.below(2) * 12), width),
            }
        };
        let displacement = if size == 32 { displacement & 0xffff_ffff } else { displacement };
        i.set_memory_displ_size(displ_size);
        i.set_memory_displacement64(displacement);
    }
}

/// A mask, zeroing, broadcast, rounding: what EVEX has beside operands.
fn masked(i: &mut Instruction, code: Code, random: &mut Random) {
    let form = code.op_code();
    let in_memory = (0..i.op_count()).any(|n| i.op_kind(n) == OpKind::Memory);
    let needs_mask = form.require_op_mask_register();
    if form.can_use_op_mask_register() && (needs_mask || !random.one_in(3)) {
        i.set_op_mask(Register::K1 + random.below(7) as u32);
        let stores = i.op0_kind() == OpKind::Memory;
        i.set_zeroing_masking(form.can_use_zeroing_masking() && !stores && random.one_in(2));
    }
    if in_memory {
        i.set_is_broadcast(form.can_broadcast() && random.one_in(2));
    } else if form.can_use_rounding_control() && random.one_in(2) {
        i.set_rounding_control(random.of(&[
            RoundingControl::RoundToNearest,
            RoundingControl::RoundDown,
            RoundingControl::RoundUp,
            RoundingControl::RoundTowardZero,
        ]));
    } else if form.can_suppress_all_exceptions() && random.one_in(2) {
        i.set_suppress_all_exceptions(true);
    }
}

fn address_16(i: &mut Instruction, target: u64, random: &mut Random) {
    use Register::{BP, BX, DI, None, SI};
    let (base, index) = random.of(&[
        (BX, SI),
        (BX, DI),
        (BP, SI),
        (BP, DI),
        (SI, None),
        (DI, None),
        (BP, None),
        (BX, None),
        (None, None),
    ]);
    i.set_memory_base(base);
    i.set_memory_index(index);
    let (displacement, size) = if base == None {
        (target & 0xffff, 2)
    } else {
        match random.below(3) {
            0 => (0, 0),
            1 => (random.bits() as i8 as u64 & 0xffff, 1),
            _ => (random.bits() & 0xffff, 2),
        }
    };
    i.set_memory_displ_size(size);
    i.set_memory_displacement64(displacement);
}

fn branch(i: &mut Instruction, n: u32, kind: OpCodeOperandKind, target: u64) -> Option<()> {
    use OpCodeOperandKind as K;
    match kind {
        K::br16_1 | K::br16_2 => {
            i.set_op_kind(n, OpKind::NearBranch16);
            i.set_near_branch16(target as u16);
        }
        K::br32_1 | K::br32_4 => {
            i.set_op_kind(n, OpKind::NearBranch32);
            i.set_near_branch32(target as u32);
        }
        _ => {
            i.set_op_kind(n, OpKind::NearBranch64);
            i.set_near_branch64(target);
        }
    }
    Some(())
}

fn is_source(kind: OpKind) -> bool {
    matches!(kind, OpKind::MemorySegSI | OpKind::MemorySegESI | OpKind::MemorySegRSI)
}

fn kind_is_memory(kind: OpCodeOperandKind) -> bool {
    use OpCodeOperandKind as K;
    matches!(kind, K::mem | K::mem_offs) || vsib(kind).is_some()
}

fn kind_has_memory(kind: OpCodeOperandKind) -> bool {
    use OpCodeOperandKind as K;
    matches!(
        kind,
        K::r8_or_mem
            | K::r16_or_mem
            | K::r32_or_mem
            | K::r64_or_mem
            | K::mm_or_mem
            | K::xmm_or_mem
            | K::ymm_or_mem
            | K::zmm_or_mem
            | K::k_or_mem
    )
}

/// The first register of a vector index.
fn vsib(kind: OpCodeOperandKind) -> Option<Register> {
    use OpCodeOperandKind as K;
    match kind {
        K::mem_vsib32x | K::mem_vsib64x => Some(Register::XMM0),
        K::mem_vsib32y | K::mem_vsib64y => Some(Register::YMM0),
        K::mem_vsib32z | K::mem_vsib64z => Some(Register::ZMM0),
        _ => None,
    }
}
