//! VEX instructions that run by thunk: AVX, AVX2, FMA, F16C and the VEX forms of AES and PCLMULQDQ (SDM 1 chapter 14).
//!
//! Not responsible for: what each of them computes (the host CPU knows), moves (`transfer`), instructions that touch general registers or
//! flags (`general`), conditional memory access (`masked`).
//!
//! A handler is chosen by a few properties of the form: whether a register is 256 bits wide, whether MXCSR takes part, and which operand
//! is in memory, of how many bytes (`SOURCE`; 0 when none is). A memory operand is loaded first, with exactly its size wherever it lies
//! (SDM 2A 2.4: only the moves that say so must be aligned), and becomes a register. 128-bit results clear the upper half.

pub mod general;
pub mod index;
pub mod masked;
pub mod transfer;
mod unmasked;

use super::simd::under_mxcsr;
use crate::cpu::Cpu;
use crate::fault::R;
use crate::lower::{Form, Kind};
use crate::op::{Handler, Op};
use crate::thunk::{VexThunk, Ymm, vex_select, vex128, vex128_float, vex256, vex256_float};
use gemel_machine::CpuIo;
use gemel_x86::control::{CR0_PE, CR0_TS, CR4_OSXSAVE, XCR0_AVX, XCR0_SSE};
use gemel_x86::flags::VM;
use gemel_x86::{Exception, Vector};
use iced_x86::Mnemonic;

/// Instructions on integers or bits.
pub fn integer(f: &Form<'_>) -> Option<Handler> {
    by_thunk(f)?;
    Some(if is_wide(f) { placed::<true, false>(f)? } else { placed::<false, false>(f)? })
}

/// Instructions that MXCSR takes part in.
pub fn float(f: &Form<'_>) -> Option<Handler> {
    by_thunk(f)?;
    Some(if is_wide(f) { placed::<true, true>(f)? } else { placed::<false, true>(f)? })
}

/// VCVTPS2PH: the destination may be memory.
pub fn to_half_precision(f: &Form<'_>) -> Option<Handler> {
    if f.kind(0) != Kind::Mem {
        return float(f);
    }
    by_thunk(f)?;
    Some(if is_wide(f) { store_half_precision::<true> } else { store_half_precision::<false> })
}

/// VBLENDVPS, VBLENDVPD, VPBLENDVB: the mask is a fourth register.
pub fn blend(f: &Form<'_>) -> Option<Handler> {
    by_thunk(f)?;
    Some(match (is_wide(f), f.kind(2)) {
        (false, Kind::Mem) => select::<false, 16>,
        (false, _) => select::<false, 0>,
        (true, Kind::Mem) => select::<true, 32>,
        (true, _) => select::<true, 0>,
    })
}

/// Leaves the form's thunk in it.
fn by_thunk(f: &Form<'_>) -> Option<()> {
    let mut immediate = f.instruction.immediate8();
    // A memory source has no element to select (SDM 2A INSERTPS).
    if f.mnemonic == Mnemonic::Vinsertps && f.kind(2) == Kind::Mem {
        immediate &= 0x3f;
    }
    f.thunk.set(VexThunk::find(f.code, immediate)?.number());
    Some(())
}

/// Whether an operand has 256 bits.
fn is_wide(f: &Form<'_>) -> bool {
    (0..f.instruction.op_count()).any(|n| f.kind(n) == Kind::Ymm) || f.instruction.memory_size().size() == 32
}

fn placed<const WIDE: bool, const FLOAT: bool>(f: &Form<'_>) -> Option<Handler> {
    let place = (1..3).find(|n| f.kind(*n) == Kind::Mem);
    let size = f.instruction.memory_size().size();
    Some(match (place, size) {
        (None, _) => run::<WIDE, FLOAT, 1, 0>,
        (Some(1), 1) => run::<WIDE, FLOAT, 1, 1>,
        (Some(1), 2) => run::<WIDE, FLOAT, 1, 2>,
        (Some(1), 4) => run::<WIDE, FLOAT, 1, 4>,
        (Some(1), 8) => run::<WIDE, FLOAT, 1, 8>,
        (Some(1), 16) => run::<WIDE, FLOAT, 1, 16>,
        (Some(1), 32) => run::<WIDE, FLOAT, 1, 32>,
        (Some(_), 4) => run::<WIDE, FLOAT, 2, 4>,
        (Some(_), 8) => run::<WIDE, FLOAT, 2, 8>,
        (Some(_), 16) => run::<WIDE, FLOAT, 2, 16>,
        (Some(_), 32) => run::<WIDE, FLOAT, 2, 32>,
        _ => return None,
    })
}

/// Raises what stands before any VEX instruction: #UD without the system's consent or outside protected mode, #NM (SDM 2A 2.4,
/// exception types 1 to 8 and 11 to 14).
#[inline(always)]
pub(crate) fn ready(c: &mut Cpu) -> R {
    const COMPONENTS: u64 = XCR0_SSE | XCR0_AVX;
    let s = &c.s;
    let held = (s.cr0 & (CR0_PE | CR0_TS)) ^ CR0_PE;
    let missing = !s.cr4 & CR4_OSXSAVE | !s.xcr0 & COMPONENTS | c.system_flags & VM;
    if held | missing == 0 { Ok(()) } else { not_ready(c, missing) }
}

#[cold]
fn not_ready(c: &mut Cpu, missing: u64) -> R {
    if missing != 0 || c.s.cr0 & CR0_PE == 0 {
        return c.undefined();
    }
    c.fail(Exception::new(Vector::DeviceNotAvailable))
}

/// The register of operand `n`.
#[inline(always)]
fn ymm(c: &Cpu, op: &Op, n: usize) -> Ymm {
    let r = op.r[n] as usize & 15;
    Ymm { low: c.s.xmm[r], high: c.s.ymm_upper[r] }
}

/// The low half of the register of operand `n`.
#[inline(always)]
fn xmm(c: &Cpu, op: &Op, n: usize) -> u128 {
    c.s.xmm[op.r[n] as usize & 15]
}

/// Sets the register of operand 0 and clears what it has beyond 256 bits.
#[inline(always)]
fn set(c: &mut Cpu, op: &Op, value: Ymm) {
    let r = op.r[0] as usize & 15;
    (c.s.xmm[r], c.s.ymm_upper[r], c.s.zmm_upper[r]) = (value.low, value.high, [0; 2]);
}

/// Loads `SOURCE` bytes, zero-extended.
#[inline(always)]
fn load<const SOURCE: u8>(c: &mut Cpu, op: &Op, io: &mut dyn CpuIo) -> R<Ymm> {
    let low = match SOURCE {
        1 => c.load::<u8>(op, io)?.into(),
        2 => c.load::<u16>(op, io)?.into(),
        4 => c.load::<u32>(op, io)?.into(),
        8 => c.load::<u64>(op, io)?.into(),
        16 => c.load::<u128>(op, io)?,
        _ => {
            let [low, high] = c.load::<[u128; 2]>(op, io)?;
            return Ok(Ymm { low, high });
        }
    };
    Ok(Ymm { low, high: 0 })
}

fn run<const WIDE: bool, const FLOAT: bool, const PLACE: usize, const SOURCE: u8>(
    c: &mut Cpu,
    op: &Op,
    io: &mut dyn CpuIo,
) -> R {
    ready(c)?;
    let memory = if SOURCE == 0 { Ymm::default() } else { load::<SOURCE>(c, op, io)? };
    let mut operands = [ymm(c, op, 0), ymm(c, op, 1), ymm(c, op, 2)];
    if SOURCE != 0 {
        operands[PLACE] = memory;
    }
    let thunk = VexThunk::at(op.thunk);
    let lows = operands.map(|o| o.low);
    let result = match (WIDE, FLOAT) {
        (false, false) => Ymm { low: vex128(thunk, lows), high: 0 },
        (true, false) => vex256(thunk, operands),
        (false, true) => {
            let run = |mxcsr| vex128_float(thunk, lows, mxcsr);
            let low = under_mxcsr(c, run, |r| r.vex_flags(op.code, &[lows], op.imm as u8))?;
            Ymm { low, high: 0 }
        }
        (true, true) => {
            let run = |mxcsr| vex256_float(thunk, operands, mxcsr);
            let lanes = [lows, operands.map(|o| o.high)];
            under_mxcsr(c, run, |r| r.vex_flags(op.code, &lanes, op.imm as u8))?
        }
    };
    set(c, op, result);
    Ok(())
}

/// That nothing can be stored comes before what the conversion raises.
fn store_half_precision<const WIDE: bool>(c: &mut Cpu, op: &Op, io: &mut dyn CpuIo) -> R {
    ready(c)?;
    let operands = [Ymm::default(), ymm(c, op, 1), Ymm::default()];
    let thunk = VexThunk::at(op.thunk);
    let bytes = if WIDE { 16 } else { 8 };
    let lin = c.linear(op, bytes, true)?;
    c.check_write(lin, bytes as usize, op.seg, io)?;
    let lows = operands.map(|o| o.low);
    if WIDE {
        let run = |mxcsr| vex256_float(thunk, operands, mxcsr);
        let lanes = [lows, operands.map(|o| o.high)];
        let half = under_mxcsr(c, run, |r| r.vex_flags(op.code, &lanes, op.imm as u8))?.low;
        c.write(lin, op.seg, half, io)
    } else {
        let run = |mxcsr| vex128_float(thunk, lows, mxcsr);
        let half = under_mxcsr(c, run, |r| r.vex_flags(op.code, &[lows], op.imm as u8))?;
        c.write(lin, op.seg, half as u64, io)
    }
}

fn select<const WIDE: bool, const SOURCE: u8>(c: &mut Cpu, op: &Op, io: &mut dyn CpuIo) -> R {
    ready(c)?;
    let b = if SOURCE == 0 { ymm(c, op, 2) } else { load::<SOURCE>(c, op, io)? };
    let mut result = vex_select(VexThunk::at(op.thunk), [ymm(c, op, 1), b, ymm(c, op, 3)]);
    if !WIDE {
        result.high = 0;
    }
    set(c, op, result);
    Ok(())
}
