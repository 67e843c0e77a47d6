//! Binary arithmetic (SDM 1 5.1.2): ADD, ADC, SUB, SBB, CMP, NEG, INC, DEC, MUL, IMUL, DIV, IDIV.
//!
//! Not responsible for: logical operations (`logical`, which shares the operand forms).

use super::{by_wide_width, by_width, undefined};
use crate::cpu::{Cpu, Width};
use crate::fault::R;
use crate::flags::LazyFlags;
use crate::lower::{Form, Kind};
use crate::mmu::access::Mem;
use crate::op::{Handler, Op};
use gemel_machine::CpuIo;
use gemel_x86::{Exception, Vector};

/// An operation of two operands.
pub(super) trait Alu: 'static {
    /// Whether the result goes to the first operand (CMP and TEST only set flags).
    const WRITES: bool = true;
    /// The result, and the flags.
    fn run<W: Width>(flags: &mut LazyFlags, a: W, b: W) -> W;
}

struct Add;
struct Adc;
struct Sub;
struct Sbb;
struct Cmp;

impl Alu for Add {
    #[inline(always)]
    fn run<W: Width>(flags: &mut LazyFlags, a: W, b: W) -> W {
        let r = W::cut(a.zext().wrapping_add(b.zext()));
        flags.add(a, b, r);
        r
    }
}

impl Alu for Adc {
    #[inline(always)]
    fn run<W: Width>(flags: &mut LazyFlags, a: W, b: W) -> W {
        let r = W::cut(a.zext().wrapping_add(b.zext()).wrapping_add(u64::from(flags.cf())));
        flags.add(a, b, r);
        r
    }
}

impl Alu for Sub {
    #[inline(always)]
    fn run<W: Width>(flags: &mut LazyFlags, a: W, b: W) -> W {
        let r = W::cut(a.zext().wrapping_sub(b.zext()));
        flags.sub(a, b, r);
        r
    }
}

impl Alu for Sbb {
    #[inline(always)]
    fn run<W: Width>(flags: &mut LazyFlags, a: W, b: W) -> W {
        let r = W::cut(a.zext().wrapping_sub(b.zext()).wrapping_sub(u64::from(flags.cf())));
        flags.sub(a, b, r);
        r
    }
}

impl Alu for Cmp {
    const WRITES: bool = false;
    #[inline(always)]
    fn run<W: Width>(flags: &mut LazyFlags, a: W, b: W) -> W {
        Sub::run(flags, a, b)
    }
}

fn reg_reg<A: Alu, W: Width>(c: &mut Cpu, op: &Op, _io: &mut dyn CpuIo) -> R {
    let (a, b) = (W::get(&c.regs, op.r[0]), W::get(&c.regs, op.r[1]));
    let r = A::run(&mut c.flags, a, b);
    if A::WRITES {
        r.put(&mut c.regs, op.r[0]);
    }
    Ok(())
}

fn reg_imm<A: Alu, W: Width>(c: &mut Cpu, op: &Op, _io: &mut dyn CpuIo) -> R {
    let r = A::run(&mut c.flags, W::get(&c.regs, op.r[0]), W::cut(op.imm));
    if A::WRITES {
        r.put(&mut c.regs, op.r[0]);
    }
    Ok(())
}

fn reg_mem<A: Alu, W: Width + Mem>(c: &mut Cpu, op: &Op, io: &mut dyn CpuIo) -> R {
    c.load_then::<W>(op, io, |c, op, b| {
        let r = A::run(&mut c.flags, W::get(&c.regs, op.r[0]), b);
        if A::WRITES {
            r.put(&mut c.regs, op.r[0]);
        }
    })
}

/// Changes memory by a second operand, or only compares with it.
#[inline(always)]
fn mem_with<A: Alu, W: Width + Mem>(
    c: &mut Cpu,
    op: &Op,
    io: &mut dyn CpuIo,
    second: impl Fn(&Cpu, &Op) -> W,
) -> R {
    let run = |c: &mut Cpu, op: &Op, a: W| {
        let b = second(c, op);
        A::run(&mut c.flags, a, b)
    };
    if A::WRITES {
        c.change::<W>(op, io, run)
    } else {
        c.load_then::<W>(op, io, |c, op, a| {
            run(c, op, a);
        })
    }
}

fn mem_reg<A: Alu, W: Width + Mem>(c: &mut Cpu, op: &Op, io: &mut dyn CpuIo) -> R {
    mem_with::<A, W>(c, op, io, |c, op| W::get(&c.regs, op.r[1]))
}

fn mem_imm<A: Alu, W: Width + Mem>(c: &mut Cpu, op: &Op, io: &mut dyn CpuIo) -> R {
    mem_with::<A, W>(c, op, io, |_, op| W::cut(op.imm))
}

/// Binds an operation of two operands in all its forms.
pub(super) fn two_operands<A: Alu>(f: &Form<'_>) -> Option<Handler> {
    Some(match (f.kind(0), f.kind(1)) {
        (Kind::Reg, Kind::Reg) => by_width!(f, reg_reg::<A>),
        (Kind::Reg, Kind::Imm) => by_width!(f, reg_imm::<A>),
        (Kind::Reg, Kind::Mem) => by_width!(f, reg_mem::<A>),
        (Kind::Mem, Kind::Reg) => by_width!(f, mem_reg::<A>),
        (Kind::Mem, Kind::Imm) => by_width!(f, mem_imm::<A>),
        _ => return None,
    })
}

/// ADD.
pub fn add(f: &Form<'_>) -> Option<Handler> {
    two_operands::<Add>(f)
}

/// ADC.
pub fn adc(f: &Form<'_>) -> Option<Handler> {
    two_operands::<Adc>(f)
}

/// SUB.
pub fn sub(f: &Form<'_>) -> Option<Handler> {
    two_operands::<Sub>(f)
}

/// SBB.
pub fn sbb(f: &Form<'_>) -> Option<Handler> {
    two_operands::<Sbb>(f)
}

/// CMP.
pub fn cmp(f: &Form<'_>) -> Option<Handler> {
    two_operands::<Cmp>(f)
}

/// An operation of one operand.
pub(super) trait Unary: 'static {
    /// The result, and the flags.
    fn run<W: Width>(flags: &mut LazyFlags, a: W) -> W;
}

struct Inc;
struct Dec;
struct Neg;

impl Unary for Inc {
    #[inline(always)]
    fn run<W: Width>(flags: &mut LazyFlags, a: W) -> W {
        let before = *flags;
        let r = Add::run(flags, a, W::cut(1));
        flags.keep_cf(before);
        r
    }
}

impl Unary for Dec {
    #[inline(always)]
    fn run<W: Width>(flags: &mut LazyFlags, a: W) -> W {
        let before = *flags;
        let r = Sub::run(flags, a, W::cut(1));
        flags.keep_cf(before);
        r
    }
}

impl Unary for Neg {
    #[inline(always)]
    fn run<W: Width>(flags: &mut LazyFlags, a: W) -> W {
        Sub::run(flags, W::cut(0), a)
    }
}

fn unary_reg<A: Unary, W: Width>(c: &mut Cpu, op: &Op, _io: &mut dyn CpuIo) -> R {
    A::run(&mut c.flags, W::get(&c.regs, op.r[0])).put(&mut c.regs, op.r[0]);
    Ok(())
}

fn unary_mem<A: Unary, W: Width + Mem>(c: &mut Cpu, op: &Op, io: &mut dyn CpuIo) -> R {
    c.change::<W>(op, io, |c, _, a| A::run(&mut c.flags, a))
}

/// Binds an operation of one operand.
pub(super) fn one_operand<A: Unary>(f: &Form<'_>) -> Option<Handler> {
    Some(match f.kind(0) {
        Kind::Reg => by_width!(f, unary_reg::<A>),
        Kind::Mem => by_width!(f, unary_mem::<A>),
        _ => return None,
    })
}

/// INC.
pub fn inc(f: &Form<'_>) -> Option<Handler> {
    one_operand::<Inc>(f)
}

/// DEC.
pub fn dec(f: &Form<'_>) -> Option<Handler> {
    one_operand::<Dec>(f)
}

/// NEG.
pub fn neg(f: &Form<'_>) -> Option<Handler> {
    one_operand::<Neg>(f)
}

/// The register or memory operand 0.
#[inline(always)]
fn operand0<W: Width + Mem, const MEM: bool>(c: &mut Cpu, op: &Op, io: &mut dyn CpuIo) -> R<W> {
    if MEM { c.load::<W>(op, io) } else { Ok(W::get(&c.regs, op.r[0])) }
}

/// Writes a double-width result to AX, or DX:AX and wider.
#[inline(always)]
fn put_double<W: Width>(c: &mut Cpu, wide: u128) {
    if W::BITS == 8 {
        (wide as u16).put(&mut c.regs, 0);
    } else {
        W::cut(wide as u64).put(&mut c.regs, 0);
        W::cut((wide >> W::BITS) as u64).put(&mut c.regs, 2);
    }
}

#[inline(always)]
fn get_double<W: Width>(c: &Cpu) -> u128 {
    if W::BITS == 8 {
        u128::from(u16::get(&c.regs, 0))
    } else {
        u128::from(W::get(&c.regs, 2).zext()) << W::BITS | u128::from(W::get(&c.regs, 0).zext())
    }
}

/// CF and OF tell whether the upper half counts; the others are undefined.
#[inline(always)]
fn product_flags<W: Width>(c: &mut Cpu, low: W, significant: bool) {
    c.flags.set_cf_of(significant, significant);
    undefined::PRODUCT.settle(&mut c.flags, || undefined::Case::of(low));
}

fn mul_any<W: Width + Mem, const MEM: bool>(c: &mut Cpu, op: &Op, io: &mut dyn CpuIo) -> R {
    let b = operand0::<W, MEM>(c, op, io)?;
    let wide = u128::from(W::get(&c.regs, 0).zext()) * u128::from(b.zext());
    put_double::<W>(c, wide);
    product_flags(c, W::cut(wide as u64), wide >> W::BITS != 0);
    Ok(())
}

#[inline(always)]
fn signed<W: Width>(v: W) -> i128 {
    i128::from(v.sext() as i64)
}

fn imul_one<W: Width + Mem, const MEM: bool>(c: &mut Cpu, op: &Op, io: &mut dyn CpuIo) -> R {
    let b = operand0::<W, MEM>(c, op, io)?;
    let wide = signed(W::get(&c.regs, 0)) * signed(b);
    put_double::<W>(c, wide as u128);
    let low = W::cut(wide as u64);
    product_flags(c, low, signed(low) != wide);
    Ok(())
}

fn imul_more<W: Width + Mem, const MEM: bool, const THREE: bool>(
    c: &mut Cpu,
    op: &Op,
    io: &mut dyn CpuIo,
) -> R {
    let b = if MEM { c.load::<W>(op, io)? } else { W::get(&c.regs, op.r[1]) };
    let a = if THREE { W::cut(op.imm) } else { W::get(&c.regs, op.r[0]) };
    let wide = signed(a) * signed(b);
    let r = W::cut(wide as u64);
    r.put(&mut c.regs, op.r[0]);
    product_flags(c, r, signed(r) != wide);
    Ok(())
}

fn divide_error<T>(c: &mut Cpu) -> R<T> {
    c.fail(Exception::new(Vector::Divide))
}

fn div_any<W: Width + Mem, const MEM: bool>(c: &mut Cpu, op: &Op, io: &mut dyn CpuIo) -> R {
    let divisor = u128::from(operand0::<W, MEM>(c, op, io)?.zext());
    let dividend = get_double::<W>(c);
    if divisor == 0 || (dividend / divisor) >> W::BITS != 0 {
        return divide_error(c);
    }
    put_quotient::<W>(c, (dividend / divisor) as u64, (dividend % divisor) as u64);
    Ok(())
}

fn idiv_any<W: Width + Mem, const MEM: bool>(c: &mut Cpu, op: &Op, io: &mut dyn CpuIo) -> R {
    let divisor = signed(operand0::<W, MEM>(c, op, io)?);
    let unused = 128 - 2 * W::BITS;
    let dividend = ((get_double::<W>(c) << unused) as i128) >> unused;
    let Some(quotient) = dividend.checked_div(divisor) else {
        return divide_error(c);
    };
    if signed(W::cut(quotient as u64)) != quotient {
        return divide_error(c);
    }
    put_quotient::<W>(c, quotient as u64, (dividend % divisor) as u64);
    Ok(())
}

fn put_quotient<W: Width>(c: &mut Cpu, quotient: u64, remainder: u64) {
    const { undefined::QUOTIENT_OC.keeps() };
    let case = undefined::Case::of(W::cut(quotient));
    c.flags.update(
        undefined::QUOTIENT_AF.flags() | undefined::QUOTIENT_SZP.flags(),
        undefined::QUOTIENT_AF.predict(&case) | undefined::QUOTIENT_SZP.predict(&case),
    );
    if W::BITS == 8 {
        ((quotient & 0xff | remainder << 8) as u16).put(&mut c.regs, 0);
    } else {
        W::cut(quotient).put(&mut c.regs, 0);
        W::cut(remainder).put(&mut c.regs, 2);
    }
}

macro_rules! one_operand_of_double {
    ($(#[$doc:meta])* $name:ident, $handler:ident) => {
        $(#[$doc])*
        pub fn $name(f: &Form<'_>) -> Option<Handler> {
            Some(match (f.kind(0), f.width) {
                (Kind::Reg, 8) => $handler::<u8, false>,
                (Kind::Reg, 16) => $handler::<u16, false>,
                (Kind::Reg, 32) => $handler::<u32, false>,
                (Kind::Reg, 64) => $handler::<u64, false>,
                (Kind::Mem, 8) => $handler::<u8, true>,
                (Kind::Mem, 16) => $handler::<u16, true>,
                (Kind::Mem, 32) => $handler::<u32, true>,
                (Kind::Mem, 64) => $handler::<u64, true>,
                _ => return None,
            })
        }
    };
}
one_operand_of_double!(
    /// MUL.
    mul,
    mul_any
);
one_operand_of_double!(
    /// IMUL with one operand.
    imul_single,
    imul_one
);
one_operand_of_double!(
    /// DIV.
    div,
    div_any
);
one_operand_of_double!(
    /// IDIV.
    idiv,
    idiv_any
);

fn imul_two_reg<W: Width + Mem>(c: &mut Cpu, op: &Op, io: &mut dyn CpuIo) -> R {
    imul_more::<W, false, false>(c, op, io)
}

fn imul_two_mem<W: Width + Mem>(c: &mut Cpu, op: &Op, io: &mut dyn CpuIo) -> R {
    imul_more::<W, true, false>(c, op, io)
}

fn imul_three_reg<W: Width + Mem>(c: &mut Cpu, op: &Op, io: &mut dyn CpuIo) -> R {
    imul_more::<W, false, true>(c, op, io)
}

fn imul_three_mem<W: Width + Mem>(c: &mut Cpu, op: &Op, io: &mut dyn CpuIo) -> R {
    imul_more::<W, true, true>(c, op, io)
}

/// IMUL, with one, two or three operands.
pub fn imul(f: &Form<'_>) -> Option<Handler> {
    Some(match (f.kind(1), f.kind(2)) {
        (Kind::None, _) => return imul_single(f),
        (Kind::Reg, Kind::None) => by_wide_width!(f, imul_two_reg),
        (Kind::Mem, Kind::None) => by_wide_width!(f, imul_two_mem),
        (Kind::Reg, _) => by_wide_width!(f, imul_three_reg),
        _ => by_wide_width!(f, imul_three_mem),
    })
}
