//! Flag control (SDM 1 5.1.10) without what is privileged: CLC, STC, CMC, CLD, STD, LAHF, SAHF, SALC.
//!
//! Not responsible for: CLI, STI, PUSHF, POPF (`system`).

use crate::cpu::{Cpu, Width};
use crate::fault::R;
use crate::lower::Form;
use crate::op::{Handler, Op};
use gemel_machine::CpuIo;
use gemel_x86::flags::{AF, CF, DF, FIXED, PF, SF, ZF};

fn set_carry<const ON: bool>(c: &mut Cpu, _op: &Op, _io: &mut dyn CpuIo) -> R {
    c.flags.set_cf(ON);
    Ok(())
}

fn complement_carry(c: &mut Cpu, _op: &Op, _io: &mut dyn CpuIo) -> R {
    let cf = c.flags.cf();
    c.flags.set_cf(!cf);
    Ok(())
}

fn set_direction<const DOWN: bool>(c: &mut Cpu, _op: &Op, _io: &mut dyn CpuIo) -> R {
    c.system_flags = c.system_flags & !DF | if DOWN { DF } else { 0 };
    Ok(())
}

fn lahf_any(c: &mut Cpu, _op: &Op, _io: &mut dyn CpuIo) -> R {
    ((c.flags.bits() | FIXED) as u8).put(&mut c.regs, 1);
    Ok(())
}

fn sahf_any(c: &mut Cpu, _op: &Op, _io: &mut dyn CpuIo) -> R {
    let ah = u64::from(u8::get(&c.regs, 1));
    c.flags.update(SF | ZF | AF | PF | CF, ah);
    Ok(())
}

fn salc_any(c: &mut Cpu, _op: &Op, _io: &mut dyn CpuIo) -> R {
    let al = if c.flags.cf() { 0xffu8 } else { 0 };
    al.put(&mut c.regs, 0);
    Ok(())
}

/// CLC.
pub fn clc(_f: &Form<'_>) -> Option<Handler> {
    Some(set_carry::<false>)
}

/// STC.
pub fn stc(_f: &Form<'_>) -> Option<Handler> {
    Some(set_carry::<true>)
}

/// CMC.
pub fn cmc(_f: &Form<'_>) -> Option<Handler> {
    Some(complement_carry)
}

/// CLD.
pub fn cld(_f: &Form<'_>) -> Option<Handler> {
    Some(set_direction::<false>)
}

/// STD.
pub fn std(_f: &Form<'_>) -> Option<Handler> {
    Some(set_direction::<true>)
}

/// LAHF.
pub fn lahf(_f: &Form<'_>) -> Option<Handler> {
    Some(lahf_any)
}

/// SAHF.
pub fn sahf(_f: &Form<'_>) -> Option<Handler> {
    Some(sahf_any)
}

/// SALC (D6, undocumented by Intel, in every CPU).
pub fn salc(_f: &Form<'_>) -> Option<Handler> {
    Some(salc_any)
}
