//! Bit and byte instructions (SDM 1 5.1.6): BT and its kin, BSF, BSR, POPCNT, SETcc.
//!
//! Not responsible for: shifts.

use super::{by_wide_width, undefined};
use crate::cpu::{Cpu, Width};
use crate::fault::R;
use crate::lower::{Form, Kind};
use crate::mmu::access::Mem;
use crate::op::{Handler, Op};
use gemel_machine::CpuIo;
use gemel_x86::flags::{STATUS, ZF};

/// What happens to the tested bit.
trait Change: 'static {
    const WRITES: bool = true;
    fn apply(value: u64, bit: u64) -> u64;
}

struct Test;
struct Set;
struct Reset;
struct Complement;

impl Change for Test {
    const WRITES: bool = false;
    fn apply(value: u64, _bit: u64) -> u64 {
        value
    }
}

impl Change for Set {
    fn apply(value: u64, bit: u64) -> u64 {
        value | bit
    }
}

impl Change for Reset {
    fn apply(value: u64, bit: u64) -> u64 {
        value & !bit
    }
}

impl Change for Complement {
    fn apply(value: u64, bit: u64) -> u64 {
        value ^ bit
    }
}

/// CF is the bit, ZF stays; the others are undefined.
#[inline(always)]
fn test_and_change<W: Width, T: Change>(c: &mut Cpu, value: W, n: u64) -> W {
    let bit = 1u64 << (n % u64::from(W::BITS));
    let r = W::cut(T::apply(value.zext(), bit));
    c.flags.set_cf(value.zext() & bit != 0);
    undefined::BIT_TEST.settle(&mut c.flags, || undefined::Case::of(r));
    r
}

#[inline(always)]
fn index<W: Width>(c: &Cpu, op: &Op) -> u64 {
    W::get(&c.regs, op.r[1]).zext()
}

fn reg_with<W: Width, T: Change>(c: &mut Cpu, op: &Op, n: u64) -> R {
    let value = W::get(&c.regs, op.r[0]);
    let r = test_and_change::<W, T>(c, value, n);
    if T::WRITES {
        r.put(&mut c.regs, op.r[0]);
    }
    Ok(())
}

fn reg_reg<T: Change, W: Width>(c: &mut Cpu, op: &Op, _io: &mut dyn CpuIo) -> R {
    let n = index::<W>(c, op);
    reg_with::<W, T>(c, op, n)
}

fn reg_imm<T: Change, W: Width>(c: &mut Cpu, op: &Op, _io: &mut dyn CpuIo) -> R {
    reg_with::<W, T>(c, op, op.imm)
}

fn mem_with<W: Width + Mem, T: Change>(c: &mut Cpu, op: &Op, n: u64, io: &mut dyn CpuIo) -> R {
    if T::WRITES {
        c.rmw::<W>(op, io, |c, v| test_and_change::<W, T>(c, v, n))?;
    } else {
        let value = c.load::<W>(op, io)?;
        test_and_change::<W, T>(c, value, n);
    }
    Ok(())
}

/// The register is a signed bit offset from the operand's address, of any size (SDM 2A BT).
fn mem_reg<T: Change, W: Width + Mem>(c: &mut Cpu, op: &Op, io: &mut dyn CpuIo) -> R {
    let n = W::get(&c.regs, op.r[1]).sext() as i64;
    let mut moved = *op;
    let bytes = n.div_euclid(i64::from(W::BITS)) * W::BYTES as i64;
    moved.disp = op.disp.wrapping_add(bytes as u64);
    mem_with::<W, T>(c, &moved, n.rem_euclid(i64::from(W::BITS)) as u64, io)
}

fn mem_imm<T: Change, W: Width + Mem>(c: &mut Cpu, op: &Op, io: &mut dyn CpuIo) -> R {
    mem_with::<W, T>(c, op, op.imm, io)
}

fn bit_test<T: Change>(f: &Form<'_>) -> Option<Handler> {
    Some(match (f.kind(0), f.kind(1)) {
        (Kind::Reg, Kind::Reg) => by_wide_width!(f, reg_reg::<T>),
        (Kind::Reg, Kind::Imm) => by_wide_width!(f, reg_imm::<T>),
        (Kind::Mem, Kind::Reg) => by_wide_width!(f, mem_reg::<T>),
        (Kind::Mem, Kind::Imm) => by_wide_width!(f, mem_imm::<T>),
        _ => return None,
    })
}

/// BT.
pub fn bt(f: &Form<'_>) -> Option<Handler> {
    bit_test::<Test>(f)
}

/// BTS.
pub fn bts(f: &Form<'_>) -> Option<Handler> {
    bit_test::<Set>(f)
}

/// BTR.
pub fn btr(f: &Form<'_>) -> Option<Handler> {
    bit_test::<Reset>(f)
}

/// BTC.
pub fn btc(f: &Form<'_>) -> Option<Handler> {
    bit_test::<Complement>(f)
}

#[inline(always)]
fn source<W: Width + Mem>(c: &mut Cpu, op: &Op, io: &mut dyn CpuIo) -> R<W> {
    if op.has(crate::op::HAS_MEMORY) { c.load::<W>(op, io) } else { Ok(W::get(&c.regs, op.r[1])) }
}

/// Writes the result of a scan. ZF tells a source without a set bit; the other flags are undefined, and then the destination
/// too.
#[inline(always)]
fn scan<W: Width>(c: &mut Cpu, op: &Op, source: W, found: u32) {
    let case = undefined::Case { b: source.zext(), ..undefined::Case::of(W::cut(found.into())) };
    let empty = if source.zext() == 0 { ZF } else { 0 };
    let flags = undefined::SCAN_PF.predict(&case) | undefined::SCAN_OSAC.predict(&case);
    c.flags.update(STATUS, empty | flags);
    if empty == 0 {
        W::cut(found.into()).put(&mut c.regs, op.r[0]);
    } else {
        const { undefined::SCAN_EMPTY.keeps() };
    }
}

fn bsf_any<W: Width + Mem>(c: &mut Cpu, op: &Op, io: &mut dyn CpuIo) -> R {
    let v = source::<W>(c, op, io)?;
    scan(c, op, v, v.zext().trailing_zeros());
    Ok(())
}

fn bsr_any<W: Width + Mem>(c: &mut Cpu, op: &Op, io: &mut dyn CpuIo) -> R {
    let v = source::<W>(c, op, io)?;
    scan(c, op, v, 63 - (v.zext() | 1).leading_zeros());
    Ok(())
}

fn popcnt_any<W: Width + Mem>(c: &mut Cpu, op: &Op, io: &mut dyn CpuIo) -> R {
    let v = source::<W>(c, op, io)?;
    W::cut(u64::from(v.zext().count_ones())).put(&mut c.regs, op.r[0]);
    c.flags.update(STATUS, if v.zext() == 0 { ZF } else { 0 });
    Ok(())
}

/// BSF (and TZCNT's encoding where BMI1 is not offered).
pub fn bsf(f: &Form<'_>) -> Option<Handler> {
    Some(by_wide_width!(f, bsf_any))
}

/// BSR (and LZCNT's encoding where it is not offered).
pub fn bsr(f: &Form<'_>) -> Option<Handler> {
    Some(by_wide_width!(f, bsr_any))
}

/// POPCNT.
pub fn popcnt(f: &Form<'_>) -> Option<Handler> {
    Some(by_wide_width!(f, popcnt_any))
}

fn set_reg<const CC: u8>(c: &mut Cpu, op: &Op, _io: &mut dyn CpuIo) -> R {
    u8::from(c.flags.condition::<CC>()).put(&mut c.regs, op.r[0]);
    Ok(())
}

fn set_mem<const CC: u8>(c: &mut Cpu, op: &Op, io: &mut dyn CpuIo) -> R {
    let value = u8::from(c.flags.condition::<CC>());
    c.store(op, value, io)
}

/// SETcc.
pub fn set<const CC: u8>(f: &Form<'_>) -> Option<Handler> {
    Some(if f.kind(0) == Kind::Mem { set_mem::<CC> } else { set_reg::<CC> })
}
