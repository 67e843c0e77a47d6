//! SIMD instructions that run by thunk: packed and scalar arithmetic, comparison, shuffle, conversion, of SSE to SSE4.2
//! (SDM 1 5.5 to 5.12).
//!
//! Not responsible for: what each of them computes (the host CPU knows), moves (`simd_transfer`), MMX registers (`mmx`).
//!
//! A handler is chosen by what an instruction takes and gives ([`Shape`]) and by its source: `SOURCE` is [`REGISTER`], the
//! bytes of a memory operand, or [`UNALIGNED`]. A memory operand is loaded first, with exactly its size, and becomes a register.

use super::simd_unmasked::{Review, UE};
use crate::cpu::{Cpu, Width};
use crate::fault::R;
use crate::lower::{Form, Kind};
use crate::mmu::access::Mem;
use crate::op::{HAS_MEMORY, Handler, Op};
use crate::thunk::{self, Regs, Shape, SimdThunk};
use gemel_machine::CpuIo;
use gemel_x86::control::{CR0_EM, CR0_TS, CR4_OSFXSR, CR4_OSXMMEXCPT};
use gemel_x86::flags::{CF, PF, STATUS, ZF};
use gemel_x86::{Exception, Vector};
use iced_x86::Code;

/// `SOURCE` of a register operand.
const REGISTER: u8 = 0;
/// `SOURCE` of 16 bytes that may lie anywhere; `16` are 16 that must be aligned (SDM 1 11.4.1).
const UNALIGNED: u8 = 17;

/// Flush to zero.
const FTZ: u32 = 1 << 15;

/// Makes `handler::<SOURCE>` for a form.
macro_rules! by_source {
    ($f:expr, $handler:ident) => {
        match source_of($f) {
            REGISTER => $handler::<REGISTER> as Handler,
            2 => $handler::<2>,
            4 => $handler::<4>,
            8 => $handler::<8>,
            16 => $handler::<16>,
            _ => $handler::<UNALIGNED>,
        }
    };
}

/// Every instruction that has a thunk on XMM registers.
pub fn thunked(f: &Form<'_>) -> Option<Handler> {
    let immediate = f.instruction.immediate8();
    let (code, wide_lengths) = match f.code {
        Code::Pcmpestri64_xmm_xmmm128_imm8 => (Code::Pcmpestri_xmm_xmmm128_imm8, true),
        Code::Pcmpestrm64_xmm_xmmm128_imm8 => (Code::Pcmpestrm_xmm_xmmm128_imm8, true),
        // A memory source of INSERTPS has no element to select (SDM 2A INSERTPS).
        code => (code, false),
    };
    let immediate = if code == Code::Insertps_xmm_xmmm32_imm8 && f.kind(1) == Kind::Mem {
        immediate & 0x3f
    } else {
        immediate
    };
    let (shape, thunk) = SimdThunk::find(code, immediate)?;
    f.thunk.set(thunk.number());
    Some(match shape {
        Shape::Integer => by_source!(f, integer),
        Shape::Float => by_source!(f, float),
        Shape::Select => by_source!(f, select),
        Shape::ToGeneral => to_general,
        Shape::FloatToGeneral => by_source!(f, float_to_general),
        Shape::GeneralToFloat => by_source!(f, general_to_float),
        Shape::Compare => by_source!(f, compare),
        Shape::Test => by_source!(f, test),
        Shape::StringIndex => match (f.kind(1), wide_lengths) {
            (Kind::Mem, false) => string_index::<UNALIGNED, false>,
            (Kind::Mem, true) => string_index::<UNALIGNED, true>,
            (_, false) => string_index::<REGISTER, false>,
            (_, true) => string_index::<REGISTER, true>,
        },
        Shape::StringMask => match (f.kind(1), wide_lengths) {
            (Kind::Mem, false) => string_mask::<UNALIGNED, false>,
            (Kind::Mem, true) => string_mask::<UNALIGNED, true>,
            (_, false) => string_mask::<REGISTER, false>,
            (_, true) => string_mask::<REGISTER, true>,
        },
        Shape::Checksum => match f.code {
            Code::Crc32_r32_rm8 | Code::Crc32_r64_rm8 => checksum::<u8>,
            Code::Crc32_r32_rm16 => checksum::<u16>,
            Code::Crc32_r32_rm32 => checksum::<u32>,
            _ => checksum::<u64>,
        },
        Shape::FloatToMmx | Shape::MmxToFloat => return None,
    })
}

/// Shifts of an XMM register by an immediate: the count becomes a source.
pub fn shift(f: &Form<'_>) -> Option<Handler> {
    if f.kind(1) != Kind::Imm {
        return thunked(f);
    }
    let by_register = match f.code {
        Code::Psrlw_xmm_imm8 => Code::Psrlw_xmm_xmmm128,
        Code::Psrld_xmm_imm8 => Code::Psrld_xmm_xmmm128,
        Code::Psrlq_xmm_imm8 => Code::Psrlq_xmm_xmmm128,
        Code::Psraw_xmm_imm8 => Code::Psraw_xmm_xmmm128,
        Code::Psrad_xmm_imm8 => Code::Psrad_xmm_xmmm128,
        Code::Psllw_xmm_imm8 => Code::Psllw_xmm_xmmm128,
        Code::Pslld_xmm_imm8 => Code::Pslld_xmm_xmmm128,
        Code::Psllq_xmm_imm8 => Code::Psllq_xmm_xmmm128,
        _ => return None,
    };
    let (_, thunk) = SimdThunk::find(by_register, 0)?;
    f.thunk.set(thunk.number());
    Some(shift_immediate)
}

/// PSRLDQ and PSLLDQ.
pub fn shift_bytes(f: &Form<'_>) -> Option<Handler> {
    Some(match f.code {
        Code::Psrldq_xmm_imm8 => psrldq,
        Code::Pslldq_xmm_imm8 => pslldq,
        _ => return None,
    })
}

fn source_of(f: &Form<'_>) -> u8 {
    use iced_x86::Mnemonic::*;
    // The manual wants these aligned (SDM 2B SHA1MSG1, exception type 4); Zen 4 does not.
    let anywhere =
        [Sha1msg1, Sha1msg2, Sha1nexte, Sha1rnds4, Sha256msg1, Sha256msg2, Sha256rnds2].contains(&f.mnemonic);
    match f.kind(1) {
        Kind::Mem if anywhere => UNALIGNED,
        Kind::Mem => f.instruction.memory_size().size() as u8,
        _ => REGISTER,
    }
}

/// Raises what stands before any SSE instruction: #UD, #NM (SDM 2A 2.4, table 2-18).
#[inline(always)]
pub fn ready(c: &mut Cpu) -> R {
    if c.s.cr0 & (CR0_EM | CR0_TS) | !c.s.cr4 & CR4_OSFXSR == 0 { Ok(()) } else { not_ready(c) }
}

#[cold]
fn not_ready(c: &mut Cpu) -> R {
    if c.s.cr0 & CR0_EM != 0 || c.s.cr4 & CR4_OSFXSR == 0 {
        c.undefined()
    } else {
        c.fail(Exception::new(Vector::DeviceNotAvailable))
    }
}

/// XMM register of operand `n`.
#[inline(always)]
pub fn xmm<'c>(c: &'c mut Cpu, op: &Op, n: usize) -> &'c mut u128 {
    &mut c.s.xmm[op.r[n] as usize & 15]
}

/// Loads the 16-byte memory operand, which must be aligned.
#[inline(always)]
pub fn load_aligned(c: &mut Cpu, op: &Op, io: &mut dyn CpuIo) -> R<u128> {
    let lin = c.linear_aligned(op, 16, false)?;
    c.read(lin, op.seg, io)
}

/// The second operand, zero-extended.
#[inline(always)]
fn source<const SOURCE: u8>(c: &mut Cpu, op: &Op, io: &mut dyn CpuIo) -> R<u128> {
    Ok(match SOURCE {
        REGISTER => *xmm(c, op, 1),
        2 => c.load::<u16>(op, io)?.into(),
        4 => c.load::<u32>(op, io)?.into(),
        8 => c.load::<u64>(op, io)?.into(),
        16 => load_aligned(c, op, io)?,
        _ => c.load::<u128>(op, io)?,
    })
}

/// Runs something under the guest's MXCSR and settles what it raised. `run` takes MXCSR and returns its result and MXCSR
/// afterwards, all exceptions masked. `review` tells what it raises where that is something else.
#[inline(always)]
pub fn under_mxcsr<T>(
    c: &mut Cpu,
    run: impl Fn(u32) -> (T, u32),
    review: impl Fn(Review) -> Option<u32>,
) -> R<T> {
    let mxcsr = c.s.mxcsr;
    if mxcsr & thunk::MXCSR_MASKS == thunk::MXCSR_MASKS {
        let (result, after) = run(mxcsr);
        c.s.mxcsr = after;
        return Ok(result);
    }
    under_unmasked(c, run, review)
}

/// The same with some exception unmasked (SDM 1 11.5.2, 11.5.3). It runs masked, and its flags tell what would have been
/// raised. Unmasked underflow knows no flush to zero.
#[cold]
fn under_unmasked<T>(
    c: &mut Cpu,
    run: impl Fn(u32) -> (T, u32),
    review: impl Fn(Review) -> Option<u32>,
) -> R<T> {
    let mxcsr = c.s.mxcsr;
    let enabled = !(mxcsr >> 7) & thunk::MXCSR_FLAGS;
    let mut control = mxcsr & !thunk::MXCSR_FLAGS;
    if enabled & UE != 0 {
        control &= !FTZ;
    }
    let (result, after) = run(control);
    let reviewed = Review { control, enabled };
    let raised = review(reviewed).unwrap_or(reviewed.in_order(after & thunk::MXCSR_FLAGS));
    c.s.mxcsr |= raised;
    if raised & enabled == 0 {
        return Ok(result);
    }
    if c.s.cr4 & CR4_OSXMMEXCPT == 0 {
        return c.undefined();
    }
    c.fail(Exception::new(Vector::Simd))
}

fn integer<const SOURCE: u8>(c: &mut Cpu, op: &Op, io: &mut dyn CpuIo) -> R {
    ready(c)?;
    let b = source::<SOURCE>(c, op, io)?;
    let d = xmm(c, op, 0);
    *d = thunk::packed(SimdThunk::at(op.thunk), *d, b);
    Ok(())
}

fn float<const SOURCE: u8>(c: &mut Cpu, op: &Op, io: &mut dyn CpuIo) -> R {
    ready(c)?;
    let b = source::<SOURCE>(c, op, io)?;
    let a = *xmm(c, op, 0);
    let thunk = SimdThunk::at(op.thunk);
    let run = |mxcsr| thunk::packed_float(thunk, a, b, mxcsr);
    *xmm(c, op, 0) = under_mxcsr(c, run, |r| r.flags(op.code, a, b, op.imm as u8))?;
    Ok(())
}

fn select<const SOURCE: u8>(c: &mut Cpu, op: &Op, io: &mut dyn CpuIo) -> R {
    ready(c)?;
    let xmm2 = source::<SOURCE>(c, op, io)?;
    let regs = Regs { xmm0: c.s.xmm[0], xmm1: *xmm(c, op, 0), xmm2, ..Regs::default() };
    *xmm(c, op, 0) = thunk::general(SimdThunk::at(op.thunk), regs).xmm1;
    Ok(())
}

fn to_general(c: &mut Cpu, op: &Op, _io: &mut dyn CpuIo) -> R {
    ready(c)?;
    let regs = Regs { xmm2: *xmm(c, op, 1), ..Regs::default() };
    thunk::general(SimdThunk::at(op.thunk), regs).rax.put(&mut c.regs, op.r[0]);
    Ok(())
}

fn float_to_general<const SOURCE: u8>(c: &mut Cpu, op: &Op, io: &mut dyn CpuIo) -> R {
    ready(c)?;
    let xmm2 = source::<SOURCE>(c, op, io)?;
    let thunk = SimdThunk::at(op.thunk);
    let run = |mxcsr| thunk::general_float(thunk, Regs { xmm2, ..Regs::default() }, mxcsr);
    // The 32-bit forms leave the upper half of the host's register zero, as the guest's must be.
    under_mxcsr(c, run, |_| None)?.rax.put(&mut c.regs, op.r[0]);
    Ok(())
}

fn general_to_float<const SOURCE: u8>(c: &mut Cpu, op: &Op, io: &mut dyn CpuIo) -> R {
    ready(c)?;
    let rax = match SOURCE {
        REGISTER => u64::get(&c.regs, op.r[1]),
        4 => c.load::<u32>(op, io)?.into(),
        _ => c.load::<u64>(op, io)?,
    };
    let xmm1 = *xmm(c, op, 0);
    let thunk = SimdThunk::at(op.thunk);
    let run = |mxcsr| thunk::general_float(thunk, Regs { rax, xmm1, ..Regs::default() }, mxcsr);
    *xmm(c, op, 0) = under_mxcsr(c, run, |_| None)?.xmm1;
    Ok(())
}

fn compare<const SOURCE: u8>(c: &mut Cpu, op: &Op, io: &mut dyn CpuIo) -> R {
    ready(c)?;
    let xmm2 = source::<SOURCE>(c, op, io)?;
    let xmm1 = *xmm(c, op, 0);
    let thunk = SimdThunk::at(op.thunk);
    let run = |mxcsr| thunk::general_float(thunk, Regs { xmm1, xmm2, ..Regs::default() }, mxcsr);
    let flags = under_mxcsr(c, run, |_| None)?.flags;
    c.flags.update(STATUS, flags & (ZF | PF | CF));
    Ok(())
}

fn test<const SOURCE: u8>(c: &mut Cpu, op: &Op, io: &mut dyn CpuIo) -> R {
    ready(c)?;
    let xmm2 = source::<SOURCE>(c, op, io)?;
    let regs = Regs { xmm1: *xmm(c, op, 0), xmm2, ..Regs::default() };
    let flags = thunk::general(SimdThunk::at(op.thunk), regs).flags;
    c.flags.update(STATUS, flags & (ZF | CF));
    Ok(())
}

/// Runs a string comparison. `WIDE` lengths are 64-bit: beyond 16 they count as 16 either way (SDM 2B PCMPESTRI), which
/// leaves them in 32 bits.
#[inline(always)]
fn compare_strings<const SOURCE: u8, const WIDE: bool>(c: &mut Cpu, op: &Op, io: &mut dyn CpuIo) -> R<Regs> {
    ready(c)?;
    let xmm2 = source::<SOURCE>(c, op, io)?;
    let length = |r: u64| if WIDE { (r as i64).clamp(-16, 16) as u64 } else { r };
    let regs = Regs {
        xmm1: *xmm(c, op, 0),
        xmm2,
        rax: length(c.regs[0]),
        rdx: length(c.regs[2]),
        ..Regs::default()
    };
    let after = thunk::general(SimdThunk::at(op.thunk), regs);
    c.flags.update(STATUS, after.flags);
    Ok(after)
}

fn string_index<const SOURCE: u8, const WIDE: bool>(c: &mut Cpu, op: &Op, io: &mut dyn CpuIo) -> R {
    c.regs[1] = compare_strings::<SOURCE, WIDE>(c, op, io)?.rcx;
    Ok(())
}

fn string_mask<const SOURCE: u8, const WIDE: bool>(c: &mut Cpu, op: &Op, io: &mut dyn CpuIo) -> R {
    c.s.xmm[0] = compare_strings::<SOURCE, WIDE>(c, op, io)?.xmm0;
    Ok(())
}

/// CRC32; an integer instruction as far as CR0 and CR4 go.
fn checksum<W: Width + Mem>(c: &mut Cpu, op: &Op, io: &mut dyn CpuIo) -> R {
    let rcx = if op.has(HAS_MEMORY) { c.load::<W>(op, io)? } else { W::get(&c.regs, op.r[1]) }.zext();
    let regs = Regs { rax: u64::get(&c.regs, op.r[0]), rcx, ..Regs::default() };
    thunk::general(SimdThunk::at(op.thunk), regs).rax.put(&mut c.regs, op.r[0]);
    Ok(())
}

fn shift_immediate(c: &mut Cpu, op: &Op, _io: &mut dyn CpuIo) -> R {
    ready(c)?;
    let d = xmm(c, op, 0);
    *d = thunk::packed(SimdThunk::at(op.thunk), *d, u128::from(op.imm as u8));
    Ok(())
}

fn psrldq(c: &mut Cpu, op: &Op, _io: &mut dyn CpuIo) -> R {
    ready(c)?;
    let d = xmm(c, op, 0);
    *d = d.checked_shr(u32::from(op.imm as u8) * 8).unwrap_or(0);
    Ok(())
}

fn pslldq(c: &mut Cpu, op: &Op, _io: &mut dyn CpuIo) -> R {
    ready(c)?;
    let d = xmm(c, op, 0);
    *d = d.checked_shl(u32::from(op.imm as u8) * 8).unwrap_or(0);
    Ok(())
}
