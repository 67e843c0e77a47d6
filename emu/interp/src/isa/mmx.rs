//! MMX instructions (SDM 1 5.4, 5.5.2, 5.6.3, 5.8): by thunk, but for moves.
//!
//! Not responsible for: what each of them computes (the host CPU knows).
//!
//! MMX registers are the low 64 bits of the x87 registers by physical number. Every instruction but EMMS leaves TOP zero and
//! all registers valid; what it writes gets an exponent of ones (SDM 3A 13.2).

use super::simd::{self, load_aligned, under_mxcsr};
use crate::cpu::{Cpu, Width};
use crate::fault::R;
use crate::lower::{Form, Kind};
use crate::mmu::access::Mem;
use crate::op::{HAS_MEMORY, Handler, Op};
use crate::thunk::{self, MmxThunk, Shape};
use gemel_machine::CpuIo;
use gemel_x86::control::{CR0_EM, CR0_TS, CR4_OSFXSR};
use gemel_x86::{Exception, Vector};
use iced_x86::{Code, Mnemonic};

/// TOP in the x87 status word.
const TOP: u16 = 7 << 11;

/// Every instruction that has a thunk on MMX registers.
pub fn thunked(f: &Form<'_>) -> Option<Handler> {
    let (shape, thunk) = MmxThunk::find(f.code, f.instruction.immediate8())?;
    f.thunk.set(thunk.number());
    let memory = f.kind(1) == Kind::Mem;
    Some(match shape {
        Shape::Integer if !memory => integer::<0>,
        Shape::Integer if f.instruction.memory_size().size() == 4 => integer::<4>,
        Shape::Integer => integer::<8>,
        Shape::ToGeneral => to_general,
        Shape::FloatToMmx if !memory => float_to_mmx::<0>,
        Shape::FloatToMmx if f.instruction.memory_size().size() == 8 => float_to_mmx::<8>,
        Shape::FloatToMmx => float_to_mmx::<16>,
        Shape::MmxToFloat => mmx_to_float,
        _ => return None,
    })
}

/// Instructions that exist on both register files under one name.
pub fn either(f: &Form<'_>) -> Option<Handler> {
    if f.kind(0) == Kind::Mmx || f.kind(1) == Kind::Mmx { thunked(f) } else { simd::thunked(f) }
}

/// Shifts, by register, memory or immediate, on either register file.
pub fn shift(f: &Form<'_>) -> Option<Handler> {
    if f.kind(0) != Kind::Mmx {
        return simd::shift(f);
    }
    if f.kind(1) != Kind::Imm {
        return thunked(f);
    }
    let by_register = match f.code {
        Code::Psrlw_mm_imm8 => Code::Psrlw_mm_mmm64,
        Code::Psrld_mm_imm8 => Code::Psrld_mm_mmm64,
        Code::Psrlq_mm_imm8 => Code::Psrlq_mm_mmm64,
        Code::Psraw_mm_imm8 => Code::Psraw_mm_mmm64,
        Code::Psrad_mm_imm8 => Code::Psrad_mm_mmm64,
        Code::Psllw_mm_imm8 => Code::Psllw_mm_mmm64,
        Code::Pslld_mm_imm8 => Code::Pslld_mm_mmm64,
        Code::Psllq_mm_imm8 => Code::Psllq_mm_mmm64,
        _ => return None,
    };
    let (_, thunk) = MmxThunk::find(by_register, 0)?;
    f.thunk.set(thunk.number());
    Some(shift_immediate)
}

/// MOVD and MOVQ with an MMX register.
pub fn movd(f: &Form<'_>) -> Option<Handler> {
    let quad = f.mnemonic == Mnemonic::Movq;
    Some(match (f.kind(0), f.kind(1)) {
        (Kind::Mmx, Kind::Mmx) => copy,
        (Kind::Mmx, _) if quad => load::<u64>,
        (Kind::Mmx, _) => load::<u32>,
        (_, Kind::Mmx) if quad => store::<u64>,
        (_, Kind::Mmx) => store::<u32>,
        _ => return None,
    })
}

/// MOVNTQ.
pub fn movntq(_f: &Form<'_>) -> Option<Handler> {
    Some(store::<u64>)
}

/// MOVQ2DQ.
pub fn movq2dq(_f: &Form<'_>) -> Option<Handler> {
    Some(to_xmm)
}

/// MOVDQ2Q.
pub fn movdq2q(_f: &Form<'_>) -> Option<Handler> {
    Some(from_xmm)
}

/// PEXTRW from an MMX register.
pub fn pextrw(_f: &Form<'_>) -> Option<Handler> {
    Some(extract_word)
}

/// PINSRW into an MMX register.
pub fn pinsrw(_f: &Form<'_>) -> Option<Handler> {
    Some(insert_word)
}

/// EMMS.
pub fn emms(_f: &Form<'_>) -> Option<Handler> {
    Some(empty)
}

/// Raises what stands before any MMX instruction: #UD, #NM, #MF (SDM 3A 13.1 to 13.3).
#[inline(always)]
pub fn mmx_ready(c: &mut Cpu) -> R {
    if c.s.cr0 & (CR0_EM | CR0_TS) != 0 {
        return no_mmx(c);
    }
    super::x87::no_pending_error(c)
}

/// The same for instructions that also touch XMM registers.
#[inline(always)]
fn both_ready(c: &mut Cpu) -> R {
    if c.s.cr4 & CR4_OSFXSR == 0 {
        return c.undefined();
    }
    mmx_ready(c)
}

#[cold]
fn no_mmx(c: &mut Cpu) -> R {
    if c.s.cr0 & CR0_EM != 0 {
        return c.undefined();
    }
    c.fail(Exception::new(Vector::DeviceNotAvailable))
}

/// An MMX register.
#[inline(always)]
pub fn mm(c: &Cpu, r: u8) -> u64 {
    c.s.st[r as usize & 7] as u64
}

/// From x87 to MMX: TOP zero, all registers valid.
#[inline(always)]
pub fn enter(c: &mut Cpu) {
    c.s.fsw &= !TOP;
    c.s.ftw = 0xff;
}

#[inline(always)]
fn set_mm(c: &mut Cpu, r: u8, value: u64) {
    enter(c);
    c.s.st[r as usize & 7] = 0xffff << 64 | u128::from(value);
}

/// The second operand: a register or `BYTES` of memory.
#[inline(always)]
fn source<const BYTES: u8>(c: &mut Cpu, op: &Op, io: &mut dyn CpuIo) -> R<u64> {
    Ok(match BYTES {
        0 => mm(c, op.r[1]),
        4 => c.load::<u32>(op, io)?.into(),
        _ => c.load::<u64>(op, io)?,
    })
}

fn integer<const BYTES: u8>(c: &mut Cpu, op: &Op, io: &mut dyn CpuIo) -> R {
    mmx_ready(c)?;
    let b = source::<BYTES>(c, op, io)?;
    let (value, _) = thunk::mmx(MmxThunk::at(op.thunk), mm(c, op.r[0]), b);
    set_mm(c, op.r[0], value);
    Ok(())
}

fn shift_immediate(c: &mut Cpu, op: &Op, _io: &mut dyn CpuIo) -> R {
    mmx_ready(c)?;
    let (value, _) = thunk::mmx(MmxThunk::at(op.thunk), mm(c, op.r[0]), u64::from(op.imm as u8));
    set_mm(c, op.r[0], value);
    Ok(())
}

fn to_general(c: &mut Cpu, op: &Op, _io: &mut dyn CpuIo) -> R {
    mmx_ready(c)?;
    let (_, value) = thunk::mmx(MmxThunk::at(op.thunk), 0, mm(c, op.r[1]));
    enter(c);
    value.put(&mut c.regs, op.r[0]);
    Ok(())
}

fn float_to_mmx<const BYTES: u8>(c: &mut Cpu, op: &Op, io: &mut dyn CpuIo) -> R {
    both_ready(c)?;
    let b = match BYTES {
        0 => *simd::xmm(c, op, 1),
        8 => c.load::<u64>(op, io)?.into(),
        _ => load_aligned(c, op, io)?,
    };
    let thunk = MmxThunk::at(op.thunk);
    let run = |mxcsr| {
        let (mm, _, after) = thunk::mmx_float(thunk, 0, 0, b, mxcsr);
        (mm, after)
    };
    // Also when it raises #XM (measured on Zen 4, November 2026).
    enter(c);
    let value = under_mxcsr(c, run, |_| None)?;
    set_mm(c, op.r[0], value);
    Ok(())
}

/// CVTPI2PS, CVTPI2PD. From memory they do not touch x87 state: the SDM says so of CVTPI2PD alone, Zen 4 does it
/// for both (measured November 2026).
fn mmx_to_float(c: &mut Cpu, op: &Op, io: &mut dyn CpuIo) -> R {
    let memory = op.has(HAS_MEMORY);
    if memory {
        simd::ready(c)?
    } else {
        both_ready(c)?
    }
    let b = if memory { c.load::<u64>(op, io)? } else { mm(c, op.r[1]) };
    let a = *simd::xmm(c, op, 0);
    let thunk = MmxThunk::at(op.thunk);
    let run = |mxcsr| {
        let (_, xmm, after) = thunk::mmx_float(thunk, b, a, 0, mxcsr);
        (xmm, after)
    };
    if !memory {
        enter(c);
    }
    *simd::xmm(c, op, 0) = under_mxcsr(c, run, |_| None)?;
    Ok(())
}

fn copy(c: &mut Cpu, op: &Op, _io: &mut dyn CpuIo) -> R {
    mmx_ready(c)?;
    let value = mm(c, op.r[1]);
    set_mm(c, op.r[0], value);
    Ok(())
}

fn load<W: Width + Mem>(c: &mut Cpu, op: &Op, io: &mut dyn CpuIo) -> R {
    mmx_ready(c)?;
    let value = if op.has(HAS_MEMORY) { c.load::<W>(op, io)? } else { W::get(&c.regs, op.r[1]) };
    set_mm(c, op.r[0], value.zext());
    Ok(())
}

fn store<W: Width + Mem>(c: &mut Cpu, op: &Op, io: &mut dyn CpuIo) -> R {
    mmx_ready(c)?;
    let value = W::cut(mm(c, op.r[1]));
    if op.has(HAS_MEMORY) {
        c.store(op, value, io)?;
    } else {
        value.put(&mut c.regs, op.r[0]);
    }
    enter(c);
    Ok(())
}

fn to_xmm(c: &mut Cpu, op: &Op, _io: &mut dyn CpuIo) -> R {
    both_ready(c)?;
    *simd::xmm(c, op, 0) = mm(c, op.r[1]).into();
    enter(c);
    Ok(())
}

fn from_xmm(c: &mut Cpu, op: &Op, _io: &mut dyn CpuIo) -> R {
    both_ready(c)?;
    let value = *simd::xmm(c, op, 1) as u64;
    set_mm(c, op.r[0], value);
    Ok(())
}

/// Bits from the register's low end to the word that the immediate names; the index wraps.
fn word_shift(op: &Op) -> u32 {
    (op.imm as u32 & 3) * 16
}

fn extract_word(c: &mut Cpu, op: &Op, _io: &mut dyn CpuIo) -> R {
    mmx_ready(c)?;
    let value = mm(c, op.r[1]) >> word_shift(op) & 0xffff;
    enter(c);
    value.put(&mut c.regs, op.r[0]);
    Ok(())
}

fn insert_word(c: &mut Cpu, op: &Op, io: &mut dyn CpuIo) -> R {
    mmx_ready(c)?;
    let value =
        if op.has(HAS_MEMORY) { c.load::<u16>(op, io)?.into() } else { u64::get(&c.regs, op.r[1]) & 0xffff };
    let shift = word_shift(op);
    let old = mm(c, op.r[0]);
    set_mm(c, op.r[0], old & !(0xffff << shift) | value << shift);
    Ok(())
}

fn empty(c: &mut Cpu, _op: &Op, _io: &mut dyn CpuIo) -> R {
    mmx_ready(c)?;
    c.s.fsw &= !TOP;
    c.s.ftw = 0;
    Ok(())
}
