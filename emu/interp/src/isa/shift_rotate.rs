//! Shifts and rotates (SDM 1 5.1.5).
//!
//! Not responsible for: bit tests (`bit_byte`).
//!
use super::undefined::{self, Case};
use super::{by_wide_width, by_width};
use crate::cpu::{Cpu, Width};
use crate::fault::R;
use crate::flags::LazyFlags;
use crate::lower::{Form, Kind};
use crate::mmu::access::Mem;
use crate::op::{Handler, Op};
use gemel_machine::CpuIo;
use gemel_x86::flags::CF;

/// A shift or rotate by a masked, non-zero count.
trait Shift: 'static {
    fn run<W: Width>(flags: &mut LazyFlags, a: W, count: u32) -> W;
}

fn bit<W: Width>(v: W, n: u32) -> bool {
    n < 64 && v.zext() >> n & 1 != 0
}

fn top<W: Width>(v: W) -> bool {
    bit(v, W::BITS - 1)
}

/// AF of a shift, which the manuals leave undefined.
const SHIFT_AF: bool = undefined::SHIFT_AF.constant();

struct Shl;
struct Shr;
struct Sar;
struct Rol;
struct Ror;
struct Rcl;
struct Rcr;

impl Shift for Shl {
    #[inline(always)]
    fn run<W: Width>(flags: &mut LazyFlags, a: W, count: u32) -> W {
        const { undefined::SHL_CF.as_elsewhere() };
        const { undefined::SHL_OF.as_elsewhere() };
        let wide = u128::from(a.zext()) << count;
        let r = W::cut(wide as u64);
        let cf = wide >> W::BITS & 1 != 0;
        flags.set(r, cf, cf != top(r), SHIFT_AF);
        r
    }
}

impl Shift for Shr {
    #[inline(always)]
    fn run<W: Width>(flags: &mut LazyFlags, a: W, count: u32) -> W {
        const { undefined::SHR_CF.as_elsewhere() };
        let r = W::cut(a.zext() >> count);
        let of = if count == 1 { top(a) } else { const { undefined::SHR_OF.constant() } };
        flags.set(r, bit(a, count - 1), of, SHIFT_AF);
        r
    }
}

impl Shift for Sar {
    #[inline(always)]
    fn run<W: Width>(flags: &mut LazyFlags, a: W, count: u32) -> W {
        let signed = a.sext() as i64;
        let r = W::cut((signed >> count) as u64);
        let of = count != 1 && const { undefined::SAR_OF.constant() };
        flags.set(r, (signed >> (count - 1)) & 1 != 0, of, SHIFT_AF);
        r
    }
}

/// CF and OF of a rotate to the left.
#[inline(always)]
fn left_rotated<W: Width>(flags: &mut LazyFlags, r: W, cf: bool) {
    const { undefined::ROTATE_LEFT_OF.as_elsewhere() };
    flags.set_cf_of(cf, cf != top(r));
}

/// The same, to the right.
#[inline(always)]
fn right_rotated<W: Width>(flags: &mut LazyFlags, r: W, cf: bool) {
    const { undefined::ROTATE_RIGHT_OF.as_elsewhere() };
    flags.set_cf_of(cf, top(r) != bit(r, W::BITS - 2));
}

fn rotate_left<W: Width>(a: W, count: u32) -> W {
    let n = count % W::BITS;
    if n == 0 { a } else { W::cut(a.zext() << n | a.zext() >> (W::BITS - n)) }
}

impl Shift for Rol {
    #[inline(always)]
    fn run<W: Width>(flags: &mut LazyFlags, a: W, count: u32) -> W {
        let r = rotate_left(a, count);
        left_rotated(flags, r, bit(r, 0));
        r
    }
}

impl Shift for Ror {
    #[inline(always)]
    fn run<W: Width>(flags: &mut LazyFlags, a: W, count: u32) -> W {
        let r = rotate_left(a, W::BITS - count % W::BITS);
        right_rotated(flags, r, top(r));
        r
    }
}

/// Rotates `BITS + 1` bits, CF on top, left by `n` (less than `BITS + 1`).
fn rotate_through<W: Width>(cf: bool, a: W, n: u32) -> (bool, W) {
    let all = u128::from(cf) << W::BITS | u128::from(a.zext());
    let width = W::BITS + 1;
    let r = if n == 0 { all } else { all << n | all >> (width - n) };
    (r >> W::BITS & 1 != 0, W::cut(r as u64))
}

impl Shift for Rcl {
    #[inline(always)]
    fn run<W: Width>(flags: &mut LazyFlags, a: W, count: u32) -> W {
        let n = count % (W::BITS + 1);
        let (cf, r) = rotate_through(flags.cf(), a, n);
        left_rotated(flags, r, cf);
        r
    }
}

impl Shift for Rcr {
    #[inline(always)]
    fn run<W: Width>(flags: &mut LazyFlags, a: W, count: u32) -> W {
        let n = count % (W::BITS + 1);
        let (cf, r) = rotate_through(flags.cf(), a, (W::BITS + 1 - n) % (W::BITS + 1));
        right_rotated(flags, r, cf);
        r
    }
}

/// The count of an instruction: the immediate, or CL; five bits, six for 64-bit operands.
#[inline(always)]
fn count<W: Width, const CL: bool>(c: &Cpu, op: &Op) -> u32 {
    let raw = if CL { c.regs[1] } else { op.imm };
    raw as u32 & if W::BITS == 64 { 63 } else { 31 }
}

fn shift_reg<S: Shift, W: Width, const CL: bool>(c: &mut Cpu, op: &Op, _io: &mut dyn CpuIo) -> R {
    let n = count::<W, CL>(c, op);
    let a = W::get(&c.regs, op.r[0]);
    let r = if n == 0 { a } else { S::run(&mut c.flags, a, n) };
    r.put(&mut c.regs, op.r[0]);
    Ok(())
}

fn shift_mem<S: Shift, W: Width + Mem, const CL: bool>(c: &mut Cpu, op: &Op, io: &mut dyn CpuIo) -> R {
    let n = count::<W, CL>(c, op);
    c.rmw::<W>(op, io, |c, a| if n == 0 { a } else { S::run(&mut c.flags, a, n) }).map(drop)
}

fn reg_imm<S: Shift, W: Width>(c: &mut Cpu, op: &Op, io: &mut dyn CpuIo) -> R {
    shift_reg::<S, W, false>(c, op, io)
}

fn reg_cl<S: Shift, W: Width>(c: &mut Cpu, op: &Op, io: &mut dyn CpuIo) -> R {
    shift_reg::<S, W, true>(c, op, io)
}

fn mem_imm<S: Shift, W: Width + Mem>(c: &mut Cpu, op: &Op, io: &mut dyn CpuIo) -> R {
    shift_mem::<S, W, false>(c, op, io)
}

fn mem_cl<S: Shift, W: Width + Mem>(c: &mut Cpu, op: &Op, io: &mut dyn CpuIo) -> R {
    shift_mem::<S, W, true>(c, op, io)
}

/// Binds by the first operand's width; the count in CL has 8 bits of its own.
fn shift<S: Shift>(f: &Form<'_>) -> Option<Handler> {
    Some(match (f.kind(0), f.kind(1)) {
        (Kind::Reg, Kind::Imm) => by_width!(f, reg_imm::<S>),
        (Kind::Reg, Kind::Reg) => by_width!(f, reg_cl::<S>),
        (Kind::Mem, Kind::Imm) => by_width!(f, mem_imm::<S>),
        (Kind::Mem, Kind::Reg) => by_width!(f, mem_cl::<S>),
        _ => return None,
    })
}

/// SHL, SAL.
pub fn shl(f: &Form<'_>) -> Option<Handler> {
    shift::<Shl>(f)
}

/// SHR.
pub fn shr(f: &Form<'_>) -> Option<Handler> {
    shift::<Shr>(f)
}

/// SAR.
pub fn sar(f: &Form<'_>) -> Option<Handler> {
    shift::<Sar>(f)
}

/// ROL.
pub fn rol(f: &Form<'_>) -> Option<Handler> {
    shift::<Rol>(f)
}

/// ROR.
pub fn ror(f: &Form<'_>) -> Option<Handler> {
    shift::<Ror>(f)
}

/// RCL.
pub fn rcl(f: &Form<'_>) -> Option<Handler> {
    shift::<Rcl>(f)
}

/// RCR.
pub fn rcr(f: &Form<'_>) -> Option<Handler> {
    shift::<Rcr>(f)
}

/// A double shift: `a` moves by `n`, bits of `b` come in.
fn double<W: Width, const LEFT: bool>(flags: &mut LazyFlags, a: W, b: W, n: u32) -> W {
    const AF: bool = undefined::DOUBLE_AF.constant();
    const { undefined::SHLD_OF.as_elsewhere() };
    const { undefined::SHRD_OF.as_elsewhere() };
    let bits = W::BITS;
    if bits == 16 && n > bits {
        return double_beyond::<W, LEFT>(flags, a, b, n);
    }
    let (v, more) = (u128::from(a.zext()), u128::from(b.zext()));
    let (r, cf) = if LEFT {
        (W::cut((v << n | more >> (bits - n)) as u64), bit(a, bits - n))
    } else {
        (W::cut(((more << bits | v) >> n) as u64), bit(a, n - 1))
    };
    // A change of sign.
    let of = if !LEFT {
        top(r) != bit(r, bits - 2)
    } else if bits == 16 && n == bits {
        let after = if cf { CF } else { 0 };
        undefined::SHLD_OF_WHOLE.predict(&Case { after, ..Case::of(r) }) != 0
    } else {
        top(r) != cf
    };
    flags.set(r, cf, of, AF);
    r
}

#[cold]
fn double_beyond<W: Width, const LEFT: bool>(flags: &mut LazyFlags, a: W, b: W, n: u32) -> W {
    let (result, status) = if LEFT {
        (undefined::SHLD_BEYOND, undefined::SHLD_BEYOND_FLAGS)
    } else {
        (undefined::SHRD_BEYOND, undefined::SHRD_BEYOND_FLAGS)
    };
    let before = Case { a: a.zext(), b: b.zext(), count: n, before: flags.bits(), ..Case::of(a) };
    let r = result.predict(&before);
    status.settle(flags, || Case { result: r, ..before });
    W::cut(r)
}

fn double_reg<W: Width, const LEFT: bool, const CL: bool>(c: &mut Cpu, op: &Op, _io: &mut dyn CpuIo) -> R {
    let n = count::<W, CL>(c, op);
    let a = W::get(&c.regs, op.r[0]);
    let b = W::get(&c.regs, op.r[1]);
    let r = if n == 0 { a } else { double::<W, LEFT>(&mut c.flags, a, b, n) };
    r.put(&mut c.regs, op.r[0]);
    Ok(())
}

fn double_mem<W: Width + Mem, const LEFT: bool, const CL: bool>(
    c: &mut Cpu,
    op: &Op,
    io: &mut dyn CpuIo,
) -> R {
    let n = count::<W, CL>(c, op);
    let b = W::get(&c.regs, op.r[1]);
    c.rmw::<W>(op, io, |c, a| if n == 0 { a } else { double::<W, LEFT>(&mut c.flags, a, b, n) }).map(drop)
}

macro_rules! double_forms {
    ($f:expr, $left:literal) => {{
        fn reg_imm<W: Width>(c: &mut Cpu, op: &Op, io: &mut dyn CpuIo) -> R {
            double_reg::<W, $left, false>(c, op, io)
        }
        fn reg_cl<W: Width>(c: &mut Cpu, op: &Op, io: &mut dyn CpuIo) -> R {
            double_reg::<W, $left, true>(c, op, io)
        }
        fn mem_imm<W: Width + Mem>(c: &mut Cpu, op: &Op, io: &mut dyn CpuIo) -> R {
            double_mem::<W, $left, false>(c, op, io)
        }
        fn mem_cl<W: Width + Mem>(c: &mut Cpu, op: &Op, io: &mut dyn CpuIo) -> R {
            double_mem::<W, $left, true>(c, op, io)
        }
        Some(match ($f.kind(0), $f.kind(2)) {
            (Kind::Reg, Kind::Imm) => by_wide_width!($f, reg_imm),
            (Kind::Reg, Kind::Reg) => by_wide_width!($f, reg_cl),
            (Kind::Mem, Kind::Imm) => by_wide_width!($f, mem_imm),
            (Kind::Mem, Kind::Reg) => by_wide_width!($f, mem_cl),
            _ => return None,
        })
    }};
}

/// SHLD.
pub fn shld(f: &Form<'_>) -> Option<Handler> {
    double_forms!(f, true)
}

/// SHRD.
pub fn shrd(f: &Form<'_>) -> Option<Handler> {
    double_forms!(f, false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sixteen_bit_shld_beyond_sixteen_is_as_on_zen_4() {
        let mut f = LazyFlags::from_bits(0);
        assert_eq!(double::<u16, true>(&mut f, 0x1234, 0xabcd, 19), 0x5e6d);
    }
}
