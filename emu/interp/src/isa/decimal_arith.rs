//! Decimal arithmetic (SDM 1 5.1.3): DAA, DAS, AAA, AAS, AAM, AAD. Not in 64-bit mode (the decoder refuses them).
//!
//! Not responsible for: binary arithmetic.

use crate::cpu::{Cpu, Width};
use crate::fault::R;
use crate::lower::Form;
use crate::op::{Handler, Op};
use gemel_machine::CpuIo;
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
    Ok(())
}

fn adjust_ascii<const SUBTRACT: bool>(c: &mut Cpu, _op: &Op, _io: &mut dyn CpuIo) -> R {
    let ax = u16::get(&c.regs, 0);
    let carry = ax & 15 > 9 || c.flags.af();
    let ax = match (carry, SUBTRACT) {
        (false, _) => ax,
        (true, false) => ax.wrapping_add(0x106),
        (true, true) => ax.wrapping_sub(6).wrapping_sub(0x100),
    };
    let ax = ax & 0xff0f;
    ax.put(&mut c.regs, 0);
    c.flags.set(ax as u8, carry, false, carry);
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
    Ok(())
}

fn aad_any(c: &mut Cpu, op: &Op, _io: &mut dyn CpuIo) -> R {
    let (al, ah) = (u8::get(&c.regs, AL), u8::get(&c.regs, AH));
    let r = al.wrapping_add(ah.wrapping_mul(op.imm as u8));
    u16::from(r).put(&mut c.regs, 0);
    c.flags.set(r, false, false, false);
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
