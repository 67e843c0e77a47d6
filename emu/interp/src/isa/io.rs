//! I/O (SDM 1 5.1.9): IN, OUT, INS, OUTS.
//!
//! Not responsible for: who may (the permission check is in `system`), what answers (the bus).

use super::string::{advance, repeat};
use crate::cpu::{Cpu, Width};
use crate::fault::R;
use crate::lower::{Form, Kind};
use crate::mmu::access::Mem;
use crate::op::{Handler, Op};
use gemel_machine::CpuIo;
use gemel_x86::segment::ES;

fn port(c: &Cpu, op: &Op, immediate: bool) -> u16 {
    if immediate { op.imm as u16 & 0xff } else { u16::get(&c.regs, 2) }
}

fn in_any<W: Width, const IMMEDIATE: bool>(c: &mut Cpu, op: &Op, io: &mut dyn CpuIo) -> R {
    let port = port(c, op, IMMEDIATE);
    c.io_permission(port, W::BYTES as u8, io)?;
    c.leave_guest();
    let (value, attention) = io.port_read(c.at(op), port, W::BYTES as u8);
    W::cut(u64::from(value)).put(&mut c.regs, 0);
    c.attend(attention);
    Ok(())
}

fn out_any<W: Width, const IMMEDIATE: bool>(c: &mut Cpu, op: &Op, io: &mut dyn CpuIo) -> R {
    let port = port(c, op, IMMEDIATE);
    c.io_permission(port, W::BYTES as u8, io)?;
    let value = W::get(&c.regs, 0).zext() as u32;
    c.leave_guest();
    let attention = io.port_write(c.at(op), port, W::BYTES as u8, value);
    c.attend(attention);
    Ok(())
}

/// IN. The accumulator is the first operand.
pub fn in_(f: &Form<'_>) -> Option<Handler> {
    Some(match (f.kind(1), f.instruction.op0_register().size()) {
        (Kind::Imm, 1) => in_any::<u8, true>,
        (Kind::Imm, 2) => in_any::<u16, true>,
        (Kind::Imm, _) => in_any::<u32, true>,
        (_, 1) => in_any::<u8, false>,
        (_, 2) => in_any::<u16, false>,
        _ => in_any::<u32, false>,
    })
}

/// OUT. The accumulator is the second operand.
pub fn out(f: &Form<'_>) -> Option<Handler> {
    Some(match (f.kind(0), f.instruction.op1_register().size()) {
        (Kind::Imm, 1) => out_any::<u8, true>,
        (Kind::Imm, 2) => out_any::<u16, true>,
        (Kind::Imm, _) => out_any::<u32, true>,
        (_, 1) => out_any::<u8, false>,
        (_, 2) => out_any::<u16, false>,
        _ => out_any::<u32, false>,
    })
}

/// The destination is checked before the port is read: a read has effects.
fn ins_any<W: Width + Mem>(c: &mut Cpu, op: &Op, io: &mut dyn CpuIo) -> R {
    let port = u16::get(&c.regs, 2);
    c.io_permission(port, W::BYTES as u8, io)?;
    repeat(c, op, io, |c, io| {
        let lin = c.checked_linear(ES as u8, c.regs[7] & op.address_mask, W::BYTES as u64, true)?;
        c.check_write(lin, W::BYTES, ES as u8, io)?;
        c.leave_guest();
        let (value, attention) = io.port_read(c.at(op), port, W::BYTES as u8);
        c.write(lin, ES as u8, W::cut(u64::from(value)), io)?;
        c.attend(attention);
        advance::<W>(c, op, false, true);
        Ok(true)
    })
}

fn outs_any<W: Width + Mem>(c: &mut Cpu, op: &Op, io: &mut dyn CpuIo) -> R {
    let port = u16::get(&c.regs, 2);
    c.io_permission(port, W::BYTES as u8, io)?;
    repeat(c, op, io, |c, io| {
        let value = c.load::<W>(op, io)?.zext() as u32;
        c.leave_guest();
        let attention = io.port_write(c.at(op), port, W::BYTES as u8, value);
        c.attend(attention);
        advance::<W>(c, op, true, false);
        Ok(true)
    })
}

/// INSB, INSW, INSD.
pub fn ins(f: &Form<'_>) -> Option<Handler> {
    Some(match f.instruction.memory_size().size() {
        1 => ins_any::<u8>,
        2 => ins_any::<u16>,
        _ => ins_any::<u32>,
    })
}

/// OUTSB, OUTSW, OUTSD.
pub fn outs(f: &Form<'_>) -> Option<Handler> {
    Some(match f.instruction.memory_size().size() {
        1 => outs_any::<u8>,
        2 => outs_any::<u16>,
        _ => outs_any::<u32>,
    })
}
