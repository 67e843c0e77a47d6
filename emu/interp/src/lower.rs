//! From bytes to blocks: iced decodes, this picks operands apart and binds handlers.
//!
//! Not responsible for: which handler a mnemonic has (`isa`, the index), keeping blocks (`blocks`).

use crate::cpu::{Cpu, Mode};
use crate::extent::extent;
use crate::fault::R;
use crate::isa;
use crate::op::{BLOCK_RIP, CHECK_SEGMENT, HAS_MEMORY, Handler, LOCK, NO_REG, NO_SEG, Op, REP, REPNE};
use gemel_machine::ram::PAGE_SIZE;
use gemel_x86::segment::{CS, FS, GS, SS};
use gemel_x86::{CpuModel, Feature};
use iced_x86::{
    Code, CpuidFeature, Decoder, DecoderError, DecoderOptions, FlowControl, Instruction, Mnemonic, OpKind,
    Register,
};
use std::cell::Cell;

/// Most instructions in one block.
const MOST: usize = 48;
/// Longest instruction.
const LONGEST: usize = 15;

/// What kind of thing an operand is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// No such operand.
    None,
    /// A general register.
    Reg,
    /// Memory.
    Mem,
    /// An immediate.
    Imm,
    /// A segment register.
    Seg,
    /// A control register.
    Cr,
    /// A debug register.
    Dr,
    /// An XMM register.
    Xmm,
    /// A YMM register.
    Ymm,
    /// A ZMM register.
    Zmm,
    /// A mask register.
    Mask,
    /// An MMX register.
    Mmx,
    /// An x87 register.
    St,
    /// A far pointer.
    Far,
    /// A near branch target.
    Near,
}

/// A decoded instruction, as binders see it.
pub struct Form<'a> {
    /// What iced says.
    pub instruction: &'a Instruction,
    /// The mnemonic.
    pub mnemonic: Mnemonic,
    /// The exact form.
    pub code: Code,
    /// Size of the integer operation in bits: 8, 16, 32 or 64 (of the first operand, or of memory).
    pub width: u32,
    /// How the code is decoded.
    pub mode: Mode,
    /// The CPU model.
    pub model: &'a CpuModel,
    /// The instruction's bytes, prefixes included.
    pub bytes: &'a [u8],
    /// A binder can leave the number of its host code here; it becomes [`Op::thunk`].
    pub thunk: Cell<u32>,
    /// What else a binder tells its handler; it becomes [`Op::detail`].
    pub detail: Cell<u32>,
}

impl Form<'_> {
    /// The kind of operand `n`.
    pub fn kind(&self, n: u32) -> Kind {
        if n >= self.instruction.op_count() {
            return Kind::None;
        }
        match self.instruction.op_kind(n) {
            OpKind::Register => {
                let r = self.instruction.op_register(n);
                if r.is_gpr() {
                    Kind::Reg
                } else if r.is_segment_register() {
                    Kind::Seg
                } else if r.is_cr() {
                    Kind::Cr
                } else if r.is_dr() {
                    Kind::Dr
                } else if r.is_xmm() {
                    Kind::Xmm
                } else if r.is_ymm() {
                    Kind::Ymm
                } else if r.is_zmm() {
                    Kind::Zmm
                } else if r.is_k() {
                    Kind::Mask
                } else if r.is_mm() {
                    Kind::Mmx
                } else if r.is_st() {
                    Kind::St
                } else {
                    Kind::None
                }
            }
            OpKind::NearBranch16 | OpKind::NearBranch32 | OpKind::NearBranch64 => Kind::Near,
            OpKind::FarBranch16 | OpKind::FarBranch32 => Kind::Far,
            OpKind::Immediate8
            | OpKind::Immediate8_2nd
            | OpKind::Immediate16
            | OpKind::Immediate32
            | OpKind::Immediate64
            | OpKind::Immediate8to16
            | OpKind::Immediate8to32
            | OpKind::Immediate8to64
            | OpKind::Immediate32to64 => Kind::Imm,
            _ => Kind::Mem,
        }
    }
}

/// A block, decoded but not yet kept.
pub(crate) struct Decoded {
    pub ops: Box<[Op]>,
    pub bytes: u16,
    pub second_page: Option<u32>,
}

/// Decodes a block at a linear address in a page of RAM. Its first instruction may raise: the fetch of its second page,
/// or the length limit.
pub(crate) fn decode(cpu: &mut Cpu, rip: u64, lin: u64, page: u32) -> R<Decoded> {
    let offset = (lin & 0xfff) as usize;
    let mut bytes = [0; PAGE_SIZE + LONGEST];
    let mut len = PAGE_SIZE - offset;
    copy_page(cpu, page, offset, &mut bytes[..len]);
    // CS's limit ends the code like a page's end does, but what lies beyond raises #GP.
    let mut limited = false;
    if !cpu.mode.flat {
        let inside = u64::from(cpu.s.seg[CS].limit) - rip + 1;
        if inside < len as u64 {
            (len, limited) = (inside as usize, true);
        }
    }

    let mut ops = Vec::with_capacity(8);
    let mut at = 0;
    while ops.len() < MOST && at < len {
        let (instruction, seen) = decode_one(cpu, rip.wrapping_add(at as u64), &bytes[at..len]);
        if seen == Seen::CutOff {
            if !ops.is_empty() {
                break;
            }
            if limited || len >= LONGEST {
                return cpu.general_protection(0);
            }
            return decode_across(cpu, rip, lin, &mut bytes, len);
        }
        let bound = lower(cpu, &instruction, seen, rip, at as u16, &bytes[at..]);
        at += bound.len as usize;
        let ends = ends_block(&instruction) || seen != Seen::Instruction;
        ops.push(bound);
        if ends {
            break;
        }
    }
    Ok(Decoded { ops: ops.into(), bytes: at as u16, second_page: None })
}

/// The instruction at `lin` reaches into the next page: a block of its own.
fn decode_across(cpu: &mut Cpu, rip: u64, lin: u64, bytes: &mut [u8], len: usize) -> R<Decoded> {
    let Some(second) = cpu.fetch_page(cpu.next_page(lin))? else {
        return cpu.undefined();
    };
    let mut more = LONGEST;
    if !cpu.mode.flat {
        let inside = u64::from(cpu.s.seg[CS].limit) - rip + 1;
        more = more.min((inside as usize).saturating_sub(len));
    }
    copy_page(cpu, second, 0, &mut bytes[len..len + more]);
    let (instruction, seen) = decode_one(cpu, rip, &bytes[..len + more]);
    if seen == Seen::CutOff {
        return cpu.general_protection(0);
    }
    let op = lower(cpu, &instruction, seen, rip, 0, bytes);
    let bytes = u16::from(op.len);
    Ok(Decoded { ops: [op].into(), bytes, second_page: Some(second) })
}

fn copy_page(cpu: &Cpu, page: u32, offset: usize, out: &mut [u8]) {
    // The page exists: it came from a translation. A page under the video hole cannot be translated to.
    let _ = cpu.ram.read(cpu.ram.address_of(page) + offset as u64, out);
}

/// What bytes turned out to be.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Seen {
    Instruction,
    /// All bytes of what is no instruction.
    Undefined,
    /// Part of what goes on behind them, be it an instruction or none.
    CutOff,
}

fn decode_one(cpu: &Cpu, rip: u64, bytes: &[u8]) -> (Instruction, Seen) {
    // Near branches with an operand-size prefix: AMD's rule (APM 3 1.2.2), as the models' vendor is. Without BMI1 and
    // LZCNT their encodings are BSF and BSR with a prefix that means nothing.
    let mut options = DecoderOptions::AMD;
    if !cpu.model.has(Feature::BMI1) {
        options |= DecoderOptions::NO_MPFX_0FBC;
    }
    if !cpu.model.has(Feature::LZCNT) {
        options |= DecoderOptions::NO_MPFX_0FBD;
    }
    let bytes = &bytes[..bytes.len().min(LONGEST)];
    let bits = u32::from(cpu.mode.code_bits);
    let mut decoder = Decoder::with_ip(bits, bytes, rip, options);
    let instruction = decoder.decode();
    if decoder.last_error() != DecoderError::None {
        if let Some(instruction) = permutation_without_w(bytes, bits, rip, options) {
            return (instruction, Seen::Instruction);
        }
        let seen = if extent(bytes, bits).is_some() { Seen::Undefined } else { Seen::CutOff };
        return (instruction, seen);
    }
    if instruction.code() == Code::Pause && bits == 64 && bytes[..instruction.len()].iter().any(is_rex_b) {
        return (exchange_in_disguise(bytes, rip, options), Seen::Instruction);
    }
    (instruction, Seen::Instruction)
}

fn is_rex_b(byte: &u8) -> bool {
    byte & 0xf1 == 0x41
}

/// VPERMQ and VPERMPD with W clear, which the manual calls #UD (SDM 2C VPERMQ): Zen 4 does not look at W.
fn permutation_without_w(bytes: &[u8], bits: u32, rip: u64, options: u32) -> Option<Instruction> {
    let prefix = |b: &u8| matches!(b, 0x26 | 0x2e | 0x36 | 0x3e | 0x64 | 0x65 | 0x67);
    let at = bytes.iter().position(|b| !prefix(b))?;
    let &[0xc4, map, last, 0 | 1, ..] = &bytes[at..] else { return None };
    // Map 0F3A; W clear, 256 bits, 66.
    if map & 0x1f != 3 || last & 0x87 != 5 {
        return None;
    }
    let mut with_w = [0; LONGEST];
    with_w[..bytes.len()].copy_from_slice(bytes);
    with_w[at + 2] |= 0x80;
    let mut decoder = Decoder::with_ip(bits, &with_w[..bytes.len()], rip, options);
    let instruction = decoder.decode();
    (decoder.last_error() == DecoderError::None).then_some(instruction)
}

/// F3 90 with REX.B, which iced takes for PAUSE, is an exchange with R8. Without F3, in whose place a prefix that means
/// nothing keeps the length, iced knows it. A REX that is not the last prefix does nothing here either.
fn exchange_in_disguise(bytes: &[u8], rip: u64, options: u32) -> Instruction {
    let mut plain = [0; LONGEST];
    for (to, from) in plain.iter_mut().zip(bytes) {
        *to = if *from == 0xf3 { 0x3e } else { *from };
    }
    Decoder::with_ip(64, &plain[..bytes.len()], rip, options).decode()
}

/// Whether nothing may follow in the block: control transfers, and what repeats by itself: string instructions, gathers.
fn ends_block(i: &Instruction) -> bool {
    i.flow_control() != FlowControl::Next
        || i.is_vsib()
        || (i.has_rep_prefix() || i.has_repne_prefix()) && i.is_string_instruction()
}

fn lower(cpu: &Cpu, i: &Instruction, seen: Seen, rip: u64, offset: u16, bytes: &[u8]) -> Op {
    let mode = cpu.mode;
    let form = Form {
        instruction: i,
        mnemonic: i.mnemonic(),
        code: i.code(),
        width: width(i),
        mode,
        model: &cpu.model,
        bytes: &bytes[..i.len().min(bytes.len())],
        thunk: Cell::new(0),
        detail: Cell::new(0),
    };
    let valid = seen == Seen::Instruction && !i.is_invalid() && offered(&cpu.model, i.code());
    let run: Handler = if valid { isa::bind(&form).unwrap_or(isa::undefined) } else { isa::undefined };
    let mut op = Op {
        run,
        imm: immediate(i, rip),
        disp: 0,
        address_mask: u64::MAX,
        base: NO_REG,
        index: NO_REG,
        scale: 0,
        seg: NO_SEG,
        r: [0; 4],
        offset,
        thunk: form.thunk.get(),
        detail: form.detail.get(),
        code: i.code() as u16,
        len: i.len().max(1) as u8,
        bits: 0,
    };
    for n in 0..i.op_count().min(4) {
        if i.op_kind(n) == OpKind::Register {
            op.r[n as usize] = register(i.op_register(n));
        }
    }
    if (0..i.op_count()).any(|n| is_memory(i.op_kind(n))) {
        memory(&mut op, i, mode, rip);
    } else {
        match i.op0_kind() {
            OpKind::NearBranch16 => op.address_mask = 0xffff,
            OpKind::NearBranch32 => op.address_mask = 0xffff_ffff,
            _ => {}
        }
    }
    op.bits |= if i.has_rep_prefix() { REP } else { 0 }
        | if i.has_repne_prefix() { REPNE } else { 0 }
        | if i.has_lock_prefix() { LOCK } else { 0 };
    op
}

/// A register operand's place, see [`Op::r`].
fn register(r: Register) -> u8 {
    if r.is_gpr8() {
        match r {
            Register::AH | Register::CH | Register::DH | Register::BH => (r.number() as u8 & 3) * 8 + 1,
            _ => r.full_register().number() as u8 * 8,
        }
    } else {
        r.number() as u8
    }
}

fn is_memory(kind: OpKind) -> bool {
    use OpKind::*;
    matches!(
        kind,
        Memory
            | MemorySegSI
            | MemorySegESI
            | MemorySegRSI
            | MemorySegDI
            | MemorySegEDI
            | MemorySegRDI
            | MemoryESDI
            | MemoryESEDI
            | MemoryESRDI
    )
}

fn memory(op: &mut Op, i: &Instruction, mode: Mode, rip: u64) {
    op.bits |= HAS_MEMORY;
    let explicit = (0..i.op_count()).any(|n| i.op_kind(n) == OpKind::Memory);
    let seg = i.memory_segment();
    let number = seg.number() as u8;
    if explicit {
        let (base, index) = (i.memory_base(), i.memory_index());
        op.disp = i.memory_displacement64();
        if base == Register::RIP || base == Register::EIP {
            op.base = BLOCK_RIP;
            // iced gives the target; what the block needs is its distance.
            op.disp = op.disp.wrapping_sub(rip);
        } else if base != Register::None {
            op.base = base.number() as u8;
        }
        if index.is_vector_register() {
            // A gather's: the handler adds its elements. The memory operand leaves its place among the registers free.
            let place = (0..i.op_count()).find(|n| i.op_kind(*n) == OpKind::Memory).unwrap_or(0);
            op.r[place as usize & 3] = index.number() as u8;
            op.scale = i.memory_index_scale().trailing_zeros() as u8;
        } else if index != Register::None {
            op.index = index.number() as u8;
            op.scale = i.memory_index_scale().trailing_zeros() as u8;
        }
        op.address_mask = address_mask(i, mode);
    } else {
        op.address_mask = string_mask(i);
        // String instructions: SI with its segment; DI is always ES and is the handler's business.
        op.base = 6;
    }
    let plain = usize::from(number) != FS && usize::from(number) != GS;
    if mode.code_bits == 64 {
        // Overrides by other segments than FS and GS mean nothing, not even for which of #SS and #GP is raised.
        let by_stack = explicit
            && matches!(i.memory_base(), Register::RSP | Register::ESP | Register::RBP | Register::EBP);
        op.seg = match (plain, by_stack) {
            (true, true) => SS as u8,
            (true, false) => NO_SEG,
            (false, _) => number,
        };
    } else {
        op.seg = number;
        if !mode.flat || !plain || usize::from(number) == CS {
            op.bits |= CHECK_SEGMENT;
        }
    }
}

fn address_mask(i: &Instruction, mode: Mode) -> u64 {
    let size = match (i.memory_base(), i.memory_index()) {
        (Register::None, Register::None) => i.memory_displ_size() as usize * 8,
        (Register::None, index) if index.is_vector_register() => i.memory_displ_size() as usize * 8,
        (Register::None, index) => index.size() * 8,
        (base, _) => base.size() * 8,
    };
    match (size, mode.code_bits) {
        (16, _) => 0xffff,
        (32, _) => 0xffff_ffff,
        // A displacement alone takes the size from the mode, unless it is itself of a full address size.
        (64, _) | (_, 64) => u64::MAX,
        (_, 16) => 0xffff,
        _ => 0xffff_ffff,
    }
}

fn string_mask(i: &Instruction) -> u64 {
    use OpKind::*;
    for n in 0..i.op_count() {
        match i.op_kind(n) {
            MemorySegSI | MemorySegDI | MemoryESDI => return 0xffff,
            MemorySegESI | MemorySegEDI | MemoryESEDI => return 0xffff_ffff,
            _ => {}
        }
    }
    u64::MAX
}

/// The immediate, see [`Op::imm`].
fn immediate(i: &Instruction, rip: u64) -> u64 {
    for n in 0..i.op_count() {
        match i.op_kind(n) {
            OpKind::NearBranch16 | OpKind::NearBranch32 | OpKind::NearBranch64 => {
                return i.near_branch_target().wrapping_sub(rip);
            }
            OpKind::FarBranch16 => {
                return u64::from(i.far_branch_selector()) << 32 | u64::from(i.far_branch16());
            }
            OpKind::FarBranch32 => {
                return u64::from(i.far_branch_selector()) << 32 | u64::from(i.far_branch32());
            }
            OpKind::Register | OpKind::Immediate8_2nd => {}
            kind if is_memory(kind) => {}
            _ => {
                let first = i.immediate(n);
                // ENTER and EXTRQ have a second one.
                let second = n + 1 < i.op_count() && i.op_kind(n + 1) == OpKind::Immediate8_2nd;
                return if second { first & 0xffff | u64::from(i.immediate8_2nd()) << 16 } else { first };
            }
        }
    }
    0
}

/// Size of the integer operation.
fn width(i: &Instruction) -> u32 {
    let memory = i.memory_size().size() as u32 * 8;
    for n in 0..i.op_count() {
        match i.op_kind(n) {
            OpKind::Register => {
                let r = i.op_register(n);
                if r.is_gpr() {
                    return r.size() as u32 * 8;
                }
            }
            kind if is_memory(kind) && memory != 0 => return memory,
            _ => {}
        }
    }
    memory
}

/// Whether the model offers what a form needs.
pub fn offered(model: &CpuModel, code: Code) -> bool {
    use CpuidFeature as C;
    code.cpuid_features().iter().all(|f| match f {
        C::INTEL8086
        | C::INTEL186
        | C::INTEL286
        | C::INTEL386
        | C::INTEL486
        | C::INTEL8086_ONLY
        | C::FPU
        | C::FPU287
        | C::FPU387
        | C::CPUID
        | C::CX8
        | C::CMOV
        | C::CLFSH
        | C::FXSR
        | C::MMX
        | C::MSR
        | C::MULTIBYTENOP
        | C::PAUSE
        | C::SSE
        | C::SSE2
        | C::SEP
        | C::PREFETCHW
        | C::RDPMC
        | C::UDBG
        | C::CET_IBT
        | C::CET_SS => true,
        C::SYSCALL | C::X64 => model.has(Feature::LONG_MODE),
        C::SSE3 => model.has(Feature::SSE3),
        C::SSSE3 => model.has(Feature::SSSE3),
        C::SSE4_1 => model.has(Feature::SSE4_1),
        C::SSE4_2 => model.has(Feature::SSE4_2),
        C::POPCNT => model.has(Feature::POPCNT),
        C::CMPXCHG16B => model.has(Feature::CX16),
        C::FSGSBASE => model.has(Feature::FSGSBASE),
        C::TSC => model.has(Feature::TSC),
        C::RDTSCP => model.has(Feature::RDTSCP),
        C::SMAP => model.has(Feature::SMAP),
        C::XSAVE => model.has(Feature::XSAVE),
        C::BMI1 => model.has(Feature::BMI1),
        C::BMI2 => model.has(Feature::BMI2),
        C::LZCNT => model.has(Feature::LZCNT),
        C::MOVBE => model.has(Feature::MOVBE),
        C::AES => model.has(Feature::AES),
        C::PCLMULQDQ => model.has(Feature::PCLMULQDQ),
        C::SHA => model.has(Feature::SHA),
        C::RDRAND => model.has(Feature::RDRAND),
        C::RDSEED => model.has(Feature::RDSEED),
        C::AVX => model.has(Feature::AVX),
        C::AVX2 => model.has(Feature::AVX2),
        C::FMA => model.has(Feature::FMA),
        C::F16C => model.has(Feature::F16C),
        C::AVX512F => model.has(Feature::AVX512F),
        C::AVX512CD => model.has(Feature::AVX512CD),
        C::AVX512BW => model.has(Feature::AVX512BW),
        C::AVX512DQ => model.has(Feature::AVX512DQ),
        C::AVX512VL => model.has(Feature::AVX512VL),
        C::VAES => model.has(Feature::VAES),
        C::VPCLMULQDQ => model.has(Feature::VPCLMULQDQ),
        C::INVPCID => false,
        _ => false,
    })
}
