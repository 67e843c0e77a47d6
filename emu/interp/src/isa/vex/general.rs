//! VEX instructions that take or give general registers or flags (SDM 1 chapter 14).
//!
//! Not responsible for: moves without an element to select (`transfer`).

use super::{by_thunk, is_wide, load, ready, set, xmm, ymm};
use crate::cpu::{Cpu, Width};
use crate::fault::R;
use crate::isa::simd::under_mxcsr;
use crate::lower::{Form, Kind};
use crate::mmu::access::Mem;
use crate::op::{HAS_MEMORY, Handler, Op};
use crate::thunk::{VexRegs, VexThunk, Ymm, vex_general, vex_general_float};
use gemel_machine::CpuIo;
use gemel_x86::flags::STATUS;
use iced_x86::Mnemonic;

/// VMOVMSKPS, VMOVMSKPD, VPMOVMSKB.
pub fn mask(f: &Form<'_>) -> Option<Handler> {
    by_thunk(f)?;
    Some(to_general)
}

/// VCVTSS2SI, VCVTSD2SI and the truncating ones.
pub fn convert_to(f: &Form<'_>) -> Option<Handler> {
    by_thunk(f)?;
    Some(match (f.kind(1), f.instruction.memory_size().size()) {
        (Kind::Mem, 4) => float_to_general::<4>,
        (Kind::Mem, _) => float_to_general::<8>,
        _ => float_to_general::<0>,
    })
}

/// VCVTSI2SS, VCVTSI2SD.
pub fn convert_from(f: &Form<'_>) -> Option<Handler> {
    by_thunk(f)?;
    Some(if f.width == 64 { general_to_float::<u64> } else { general_to_float::<u32> })
}

/// VPEXTRB, VPEXTRW, VPEXTRD, VPEXTRQ, VEXTRACTPS.
pub fn extract(f: &Form<'_>) -> Option<Handler> {
    if is_quadword_outside_64_bit_code(f) {
        return None;
    }
    by_thunk(f)?;
    Some(match f.mnemonic {
        Mnemonic::Vpextrb => extract_element::<u8>,
        Mnemonic::Vpextrw => extract_element::<u16>,
        Mnemonic::Vpextrq => extract_element::<u64>,
        _ => extract_element::<u32>,
    })
}

/// VPEXTRD and VPINSRD with VEX.W set are there in 64-bit code only, as the quadword's instructions that they are there. Zen 4
/// raises #UD elsewhere, where the manuals have W ignored.
fn is_quadword_outside_64_bit_code(f: &Form<'_>) -> bool {
    let doubleword = matches!(f.mnemonic, Mnemonic::Vpextrd | Mnemonic::Vpinsrd);
    let w = f.bytes.iter().position(|b| *b == 0xc4).and_then(|at| f.bytes.get(at + 2));
    doubleword && f.mode.code_bits != 64 && w.is_some_and(|w| w & 0x80 != 0)
}

/// VPINSRB, VPINSRW, VPINSRD, VPINSRQ.
pub fn insert(f: &Form<'_>) -> Option<Handler> {
    if is_quadword_outside_64_bit_code(f) {
        return None;
    }
    by_thunk(f)?;
    Some(match f.mnemonic {
        Mnemonic::Vpinsrb => insert_element::<u8>,
        Mnemonic::Vpinsrw => insert_element::<u16>,
        Mnemonic::Vpinsrq => insert_element::<u64>,
        _ => insert_element::<u32>,
    })
}

/// VCOMISS, VCOMISD, VUCOMISS, VUCOMISD.
pub fn compare(f: &Form<'_>) -> Option<Handler> {
    by_thunk(f)?;
    Some(match (f.kind(1), f.instruction.memory_size().size()) {
        (Kind::Mem, 4) => compare_scalars::<4>,
        (Kind::Mem, _) => compare_scalars::<8>,
        _ => compare_scalars::<0>,
    })
}

/// VPTEST, VTESTPS, VTESTPD.
pub fn test(f: &Form<'_>) -> Option<Handler> {
    by_thunk(f)?;
    Some(match (f.kind(1), is_wide(f)) {
        (Kind::Mem, false) => test_bits::<16>,
        (Kind::Mem, true) => test_bits::<32>,
        _ => test_bits::<0>,
    })
}

/// VPCMPESTRI, VPCMPISTRI.
pub fn string_index(f: &Form<'_>) -> Option<Handler> {
    by_thunk(f)?;
    Some(if f.kind(1) == Kind::Mem { find_index::<16> } else { find_index::<0> })
}

/// VPCMPESTRM, VPCMPISTRM.
pub fn string_mask(f: &Form<'_>) -> Option<Handler> {
    by_thunk(f)?;
    Some(if f.kind(1) == Kind::Mem { find_mask::<16> } else { find_mask::<0> })
}

fn to_general(c: &mut Cpu, op: &Op, _io: &mut dyn CpuIo) -> R {
    ready(c)?;
    let regs = VexRegs { second: ymm(c, op, 1), ..VexRegs::default() };
    vex_general(VexThunk::at(op.thunk), regs).rax.put(&mut c.regs, op.r[0]);
    Ok(())
}

fn float_to_general<const SOURCE: u8>(c: &mut Cpu, op: &Op, io: &mut dyn CpuIo) -> R {
    ready(c)?;
    let second = if SOURCE == 0 { ymm(c, op, 1) } else { load::<SOURCE>(c, op, io)? };
    let thunk = VexThunk::at(op.thunk);
    let run = |mxcsr| vex_general_float(thunk, VexRegs { second, ..VexRegs::default() }, mxcsr);
    under_mxcsr(c, run, |_| None)?.rax.put(&mut c.regs, op.r[0]);
    Ok(())
}

fn general_to_float<W: Width + Mem>(c: &mut Cpu, op: &Op, io: &mut dyn CpuIo) -> R {
    ready(c)?;
    let rcx = if op.has(HAS_MEMORY) { c.load::<W>(op, io)? } else { W::get(&c.regs, op.r[2]) }.zext();
    let second = ymm(c, op, 1);
    let thunk = VexThunk::at(op.thunk);
    let run = |mxcsr| vex_general_float(thunk, VexRegs { rcx, second, ..VexRegs::default() }, mxcsr);
    let result = under_mxcsr(c, run, |_| None)?.first;
    set(c, op, result);
    Ok(())
}

/// Memory takes the element alone, a general register takes it zero-extended.
fn extract_element<W: Width + Mem>(c: &mut Cpu, op: &Op, io: &mut dyn CpuIo) -> R {
    ready(c)?;
    let regs = VexRegs { second: ymm(c, op, 1), ..VexRegs::default() };
    let value = vex_general(VexThunk::at(op.thunk), regs).rax;
    if op.has(HAS_MEMORY) {
        return c.store(op, W::cut(value), io);
    }
    value.put(&mut c.regs, op.r[0]);
    Ok(())
}

fn insert_element<W: Width + Mem>(c: &mut Cpu, op: &Op, io: &mut dyn CpuIo) -> R {
    ready(c)?;
    // The register form of VPINSRB names a 32-bit register, whose low byte it takes.
    let rcx = if op.has(HAS_MEMORY) { c.load::<W>(op, io)?.zext() } else { u64::get(&c.regs, op.r[2]) };
    let regs = VexRegs { rcx, second: ymm(c, op, 1), ..VexRegs::default() };
    let result = vex_general(VexThunk::at(op.thunk), regs).first;
    set(c, op, result);
    Ok(())
}

fn compare_scalars<const SOURCE: u8>(c: &mut Cpu, op: &Op, io: &mut dyn CpuIo) -> R {
    ready(c)?;
    let second = if SOURCE == 0 { ymm(c, op, 1) } else { load::<SOURCE>(c, op, io)? };
    let regs = VexRegs { first: ymm(c, op, 0), second, ..VexRegs::default() };
    let thunk = VexThunk::at(op.thunk);
    let run = |mxcsr| vex_general_float(thunk, regs, mxcsr);
    let flags = under_mxcsr(c, run, |_| None)?.flags;
    c.flags.update(STATUS, flags);
    Ok(())
}

fn test_bits<const SOURCE: u8>(c: &mut Cpu, op: &Op, io: &mut dyn CpuIo) -> R {
    ready(c)?;
    let second = if SOURCE == 0 { ymm(c, op, 1) } else { load::<SOURCE>(c, op, io)? };
    let regs = VexRegs { first: ymm(c, op, 0), second, ..VexRegs::default() };
    let flags = vex_general(VexThunk::at(op.thunk), regs).flags;
    c.flags.update(STATUS, flags);
    Ok(())
}

/// Runs a string comparison; the thunk takes its lengths, where they are explicit, as wide as the form has them.
#[inline(always)]
fn compare_strings<const SOURCE: u8>(c: &mut Cpu, op: &Op, io: &mut dyn CpuIo) -> R<VexRegs> {
    ready(c)?;
    let second = if SOURCE == 0 { ymm(c, op, 1) } else { load::<SOURCE>(c, op, io)? };
    let first = Ymm { low: xmm(c, op, 0), high: 0 };
    let regs = VexRegs { first, second, rax: c.regs[0], rdx: c.regs[2], ..VexRegs::default() };
    let after = vex_general(VexThunk::at(op.thunk), regs);
    c.flags.update(STATUS, after.flags);
    Ok(after)
}

fn find_index<const SOURCE: u8>(c: &mut Cpu, op: &Op, io: &mut dyn CpuIo) -> R {
    c.regs[1] = compare_strings::<SOURCE>(c, op, io)?.rcx;
    Ok(())
}

fn find_mask<const SOURCE: u8>(c: &mut Cpu, op: &Op, io: &mut dyn CpuIo) -> R {
    let mask = compare_strings::<SOURCE>(c, op, io)?.xmm0;
    (c.s.xmm[0], c.s.ymm_upper[0], c.s.zmm_upper[0]) = (mask, 0, [0; 2]);
    Ok(())
}
