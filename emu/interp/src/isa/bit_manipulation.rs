//! Bit manipulation (SDM 1 5.1.16): ANDN, BEXTR, BLSI, BLSMSK, BLSR, BZHI, MULX, PDEP, PEXT, RORX,
//! SARX, SHLX, SHRX, and TZCNT and LZCNT.
//!
//! Not responsible for: which CPU model offers them (`lower`). Where TZCNT and LZCNT are not offered their encodings are BSF
//! and BSR, which `bit_byte` has.

use super::{by_wide_width, undefined};
use crate::cpu::{Cpu, Width};
use crate::fault::R;
use crate::flags::LazyFlags;
use crate::lower::Form;
use crate::mmu::access::Mem;
use crate::op::{HAS_MEMORY, Handler, Op};
use gemel_machine::CpuIo;
use gemel_x86::flags::{CF, ZF};

/// Picks the handler of a width; VEX-encoded general instructions have 32 and 64 bits.
macro_rules! by_vex_width {
    ($f:expr, $handler:ident::<$operation:ty>) => {
        Some(match $f.width {
            32 => $handler::<$operation, u32> as Handler,
            64 => $handler::<$operation, u64>,
            _ => return None,
        })
    };
}

/// What an instruction makes of two sources.
trait Operation: 'static {
    /// The result, and the flags where it has any.
    fn run<W: Width>(flags: &mut LazyFlags, a: W, b: W) -> W;
}

/// VEX does not exist in real and virtual-8086 mode (SDM 2A 2.6.1.3).
#[inline(always)]
fn vex(c: &mut Cpu) -> R {
    if c.is_64() || c.protected() { Ok(()) } else { c.undefined() }
}

/// Operand `n`, a register or memory.
#[inline(always)]
fn source<W: Width + Mem>(c: &mut Cpu, op: &Op, n: usize, io: &mut dyn CpuIo) -> R<W> {
    if op.has(HAS_MEMORY) { c.load::<W>(op, io) } else { Ok(W::get(&c.regs, op.r[n])) }
}

/// Destination, register, register or memory.
fn source_second<O: Operation, W: Width + Mem>(c: &mut Cpu, op: &Op, io: &mut dyn CpuIo) -> R {
    vex(c)?;
    let b = source::<W>(c, op, 2, io)?;
    O::run(&mut c.flags, W::get(&c.regs, op.r[1]), b).put(&mut c.regs, op.r[0]);
    Ok(())
}

/// Destination, register or memory, control register.
fn source_first<O: Operation, W: Width + Mem>(c: &mut Cpu, op: &Op, io: &mut dyn CpuIo) -> R {
    vex(c)?;
    let a = source::<W>(c, op, 1, io)?;
    O::run(&mut c.flags, a, W::get(&c.regs, op.r[2])).put(&mut c.regs, op.r[0]);
    Ok(())
}

/// Destination, register or memory, immediate or nothing.
fn source_alone<O: Operation, W: Width + Mem>(c: &mut Cpu, op: &Op, io: &mut dyn CpuIo) -> R {
    vex(c)?;
    let a = source::<W>(c, op, 1, io)?;
    O::run(&mut c.flags, a, W::cut(op.imm)).put(&mut c.regs, op.r[0]);
    Ok(())
}

/// The flags of all that have any but BEXTR: SF and ZF by the result, OF clear.
#[inline(always)]
fn by_result<W: Width>(flags: &mut LazyFlags, r: W, cf: bool) {
    const { undefined::BIT_FIELD_PF.tells_of_result() };
    flags.set(r, cf, false, const { undefined::BIT_FIELD_AF.constant() });
}

/// The lowest `n` bits.
fn low_bits(n: u64) -> u64 {
    if n < 64 { (1 << n) - 1 } else { u64::MAX }
}

struct Andn;
struct Bextr;
struct Blsi;
struct Blsmsk;
struct Blsr;
struct Bzhi;
struct Pdep;
struct Pext;
struct Rorx;
struct Sarx;
struct Shlx;
struct Shrx;

impl Operation for Andn {
    fn run<W: Width>(flags: &mut LazyFlags, a: W, b: W) -> W {
        let r = W::cut(!a.zext() & b.zext());
        by_result(flags, r, false);
        r
    }
}

impl Operation for Bextr {
    fn run<W: Width>(flags: &mut LazyFlags, a: W, b: W) -> W {
        let (start, length) = (b.zext() as u8, (b.zext() >> 8) as u8);
        let shifted = a.zext().checked_shr(start.into()).unwrap_or(0);
        let r = W::cut(shifted & low_bits(length.into()));
        const { undefined::BEXTR_PF.tells_of_result() };
        flags.set(r, false, false, const { undefined::BEXTR_AF.constant() });
        undefined::BEXTR_SF.settle(flags, || undefined::Case::of(r));
        r
    }
}

impl Operation for Blsi {
    fn run<W: Width>(flags: &mut LazyFlags, a: W, _b: W) -> W {
        let r = W::cut(a.zext() & a.zext().wrapping_neg());
        by_result(flags, r, a.zext() != 0);
        r
    }
}

impl Operation for Blsmsk {
    fn run<W: Width>(flags: &mut LazyFlags, a: W, _b: W) -> W {
        let r = W::cut(a.zext() ^ a.zext().wrapping_sub(1));
        by_result(flags, r, a.zext() == 0);
        r
    }
}

impl Operation for Blsr {
    fn run<W: Width>(flags: &mut LazyFlags, a: W, _b: W) -> W {
        let r = W::cut(a.zext() & a.zext().wrapping_sub(1));
        by_result(flags, r, a.zext() == 0);
        r
    }
}

impl Operation for Bzhi {
    fn run<W: Width>(flags: &mut LazyFlags, a: W, b: W) -> W {
        let n = b.zext() & 0xff;
        let r = W::cut(a.zext() & low_bits(n));
        by_result(flags, r, n >= u64::from(W::BITS));
        r
    }
}

impl Operation for Pdep {
    fn run<W: Width>(_flags: &mut LazyFlags, a: W, b: W) -> W {
        let (mut bits, mut mask, mut r) = (a.zext(), b.zext(), 0);
        while mask != 0 {
            let lowest = mask & mask.wrapping_neg();
            if bits & 1 != 0 {
                r |= lowest;
            }
            bits >>= 1;
            mask ^= lowest;
        }
        W::cut(r)
    }
}

impl Operation for Pext {
    fn run<W: Width>(_flags: &mut LazyFlags, a: W, b: W) -> W {
        let (mut mask, mut r, mut place) = (b.zext(), 0, 1u64);
        while mask != 0 {
            let lowest = mask & mask.wrapping_neg();
            if a.zext() & lowest != 0 {
                r |= place;
            }
            place <<= 1;
            mask ^= lowest;
        }
        W::cut(r)
    }
}

/// A shift count of 5 bits, 6 for 64-bit operands.
fn count<W: Width>(b: W) -> u32 {
    b.zext() as u32 & (W::BITS - 1)
}

impl Operation for Rorx {
    fn run<W: Width>(_flags: &mut LazyFlags, a: W, b: W) -> W {
        let (a, n) = (a.zext(), count(b));
        W::cut(if n == 0 { a } else { a >> n | a << (W::BITS - n) })
    }
}

impl Operation for Sarx {
    fn run<W: Width>(_flags: &mut LazyFlags, a: W, b: W) -> W {
        W::cut((a.sext() as i64 >> count(b)) as u64)
    }
}

impl Operation for Shlx {
    fn run<W: Width>(_flags: &mut LazyFlags, a: W, b: W) -> W {
        W::cut(a.zext() << count(b))
    }
}

impl Operation for Shrx {
    fn run<W: Width>(_flags: &mut LazyFlags, a: W, b: W) -> W {
        W::cut(a.zext() >> count(b))
    }
}

/// ANDN.
pub fn andn(f: &Form<'_>) -> Option<Handler> {
    by_vex_width!(f, source_second::<Andn>)
}

/// BEXTR.
pub fn bextr(f: &Form<'_>) -> Option<Handler> {
    by_vex_width!(f, source_first::<Bextr>)
}

/// BLSI.
pub fn blsi(f: &Form<'_>) -> Option<Handler> {
    by_vex_width!(f, source_alone::<Blsi>)
}

/// BLSMSK.
pub fn blsmsk(f: &Form<'_>) -> Option<Handler> {
    by_vex_width!(f, source_alone::<Blsmsk>)
}

/// BLSR.
pub fn blsr(f: &Form<'_>) -> Option<Handler> {
    by_vex_width!(f, source_alone::<Blsr>)
}

/// BZHI.
pub fn bzhi(f: &Form<'_>) -> Option<Handler> {
    by_vex_width!(f, source_first::<Bzhi>)
}

/// PDEP.
pub fn pdep(f: &Form<'_>) -> Option<Handler> {
    by_vex_width!(f, source_second::<Pdep>)
}

/// PEXT.
pub fn pext(f: &Form<'_>) -> Option<Handler> {
    by_vex_width!(f, source_second::<Pext>)
}

/// RORX.
pub fn rorx(f: &Form<'_>) -> Option<Handler> {
    by_vex_width!(f, source_alone::<Rorx>)
}

/// SARX.
pub fn sarx(f: &Form<'_>) -> Option<Handler> {
    by_vex_width!(f, source_first::<Sarx>)
}

/// SHLX.
pub fn shlx(f: &Form<'_>) -> Option<Handler> {
    by_vex_width!(f, source_first::<Shlx>)
}

/// SHRX.
pub fn shrx(f: &Form<'_>) -> Option<Handler> {
    by_vex_width!(f, source_first::<Shrx>)
}

/// With one register for both halves the upper one stays (SDM 2B MULX).
fn mulx_any<W: Width + Mem>(c: &mut Cpu, op: &Op, io: &mut dyn CpuIo) -> R {
    vex(c)?;
    let b = source::<W>(c, op, 2, io)?;
    let wide = u128::from(W::get(&c.regs, 2).zext()) * u128::from(b.zext());
    W::cut(wide as u64).put(&mut c.regs, op.r[1]);
    W::cut((wide >> W::BITS) as u64).put(&mut c.regs, op.r[0]);
    Ok(())
}

/// MULX.
pub fn mulx(f: &Form<'_>) -> Option<Handler> {
    Some(match f.width {
        32 => mulx_any::<u32>,
        64 => mulx_any::<u64>,
        _ => return None,
    })
}

/// Writes a count of zeros: CF tells a source without a set bit.
#[inline(always)]
fn put_zeros<W: Width>(c: &mut Cpu, op: &Op, source: W, zeros: u32) {
    let r = W::cut(zeros.into());
    let defined = if source.zext() == 0 { CF } else { 0 } | if zeros == 0 { ZF } else { 0 };
    let undefined = undefined::ZERO_COUNT_SAP.predict(&undefined::Case::of(r));
    c.flags.update(CF | ZF | undefined::ZERO_COUNT_SAP.flags(), defined | undefined);
    undefined::ZERO_COUNT_OF.settle(&mut c.flags, || undefined::Case::of(r));
    r.put(&mut c.regs, op.r[0]);
}

fn tzcnt_any<W: Width + Mem>(c: &mut Cpu, op: &Op, io: &mut dyn CpuIo) -> R {
    let v = source::<W>(c, op, 1, io)?;
    put_zeros(c, op, v, v.zext().trailing_zeros().min(W::BITS));
    Ok(())
}

fn lzcnt_any<W: Width + Mem>(c: &mut Cpu, op: &Op, io: &mut dyn CpuIo) -> R {
    let v = source::<W>(c, op, 1, io)?;
    put_zeros(c, op, v, v.zext().leading_zeros() - (64 - W::BITS));
    Ok(())
}

/// TZCNT.
pub fn tzcnt(f: &Form<'_>) -> Option<Handler> {
    Some(by_wide_width!(f, tzcnt_any))
}

/// LZCNT.
pub fn lzcnt(f: &Form<'_>) -> Option<Handler> {
    Some(by_wide_width!(f, lzcnt_any))
}
