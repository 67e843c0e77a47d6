//! Decimal arithmetic (SDM 1 5.1.3): DAA, DAS, AAA, AAS, AAM, AAD. Not in 64-bit mode (the decoder refuses them).
//!
//! Not responsible for: binary arithmetic.

use super::undefined;
use crate::cpu::{Cpu, Width};
use crate::fault::R;
use crate::lower::Form;
use crate::op::{Handler, Op};
use gemel_machine::CpuIo;
use gemel_x86::flags::{AF, CF};
use gemel_x86::{Exception, Vector};

const AL: u8 = 0;
const AH: u8 = 1;

fn adjust_packed<const SUBTRACT: bool>(c: &mut Cpu, _op: &Op, _io: &mut dyn CpuIo) -> R {
    let old = u8::get(&c.regs, AL);
    let (old_cf, old_af) = (c.flags.cf(), c.flags.af());
    let mut al = old;
    let mut cf = false;
    let step = |al: u8, n: u8| if SUBTRACT { al.wrapping_sub(n) } else { al.wrapping_add(n) };
    let af = old & 15 > 9 || old_af;
    if af {
        cf = old_cf || if SUBTRACT { old < 6 } else { old > 0xf9 };
        al = step(al, 6);
    }
    if old > 0x99 || old_cf {
        al = step(al, 0x60);
        cf = true;
    } else if !SUBTRACT {
        cf = false;
    }
    al.put(&mut c.regs, AL);
    c.flags.set(al, cf, false, af);
    let overflow = if SUBTRACT { undefined::DAS_OF } else { undefined::DAA_OF };
    let case = undefined::Case { a: old.into(), ..undefined::Case::of(al) };
    overflow.settle(&mut c.flags, || case);
    Ok(())
}

fn adjust_ascii<const SUBTRACT: bool>(c: &mut Cpu, _op: &Op, _io: &mut dyn CpuIo) -> R {
    let old = u16::get(&c.regs, 0);
    let carry = old & 15 > 9 || c.flags.af();
    let ax = match (carry, SUBTRACT) {
        (false, _) => old,
        (true, false) => old.wrapping_add(0x106),
        (true, true) => old.wrapping_sub(0x106),
    };
    let ax = ax & 0xff0f;
    ax.put(&mut c.regs, 0);
    c.flags.update(CF | AF, if carry { CF | AF } else { 0 });
    let others = if SUBTRACT { undefined::AAS_OSZP } else { undefined::AAA_OSZP };
    let case = undefined::Case { a: old.into(), after: c.flags.bits(), ..undefined::Case::of(ax) };
    others.settle(&mut c.flags, || case);
    Ok(())
}

fn aam_any(c: &mut Cpu, op: &Op, _io: &mut dyn CpuIo) -> R {
    let (al, base) = (u8::get(&c.regs, AL), op.imm as u8);
    if base == 0 {
        return c.fail(Exception::new(Vector::Divide));
    }
    (al / base).put(&mut c.regs, AH);
    (al % base).put(&mut c.regs, AL);
    c.flags.set(al % base, false, false, false);
    undefined::AAM_OAC.settle(&mut c.flags, || undefined::Case::of(al % base));
    Ok(())
}

fn aad_any(c: &mut Cpu, op: &Op, _io: &mut dyn CpuIo) -> R {
    let (al, ah) = (u8::get(&c.regs, AL), u8::get(&c.regs, AH));
    let r = al.wrapping_add(ah.wrapping_mul(op.imm as u8));
    u16::from(r).put(&mut c.regs, 0);
    c.flags.set(r, false, false, false);
    let case =
        undefined::Case { a: u16::from_le_bytes([al, ah]).into(), b: op.imm, ..undefined::Case::of(r) };
    undefined::AAD_OAC.settle(&mut c.flags, || case);
    Ok(())
}

/// DAA.
pub fn daa(_f: &Form<'_>) -> Option<Handler> {
    Some(adjust_packed::<false>)
}

/// DAS.
pub fn das(_f: &Form<'_>) -> Option<Handler> {
    Some(adjust_packed::<true>)
}

/// AAA.
pub fn aaa(_f: &Form<'_>) -> Option<Handler> {
    Some(adjust_ascii::<false>)
}

/// AAS.
pub fn aas(_f: &Form<'_>) -> Option<Handler> {
    Some(adjust_ascii::<true>)
}

/// AAM.
pub fn aam(_f: &Form<'_>) -> Option<Handler> {
    Some(aam_any)
}

/// AAD.
pub fn aad(_f: &Form<'_>) -> Option<Handler> {
    Some(aad_any)
}
