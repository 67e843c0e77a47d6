//! Near control transfer (SDM 1 5.1.7): JMP, Jcc, CALL, RET, LOOP, JCXZ, ENTER, LEAVE, BOUND.
//!
//! Not responsible for: far transfers, INT, IRET, SYSCALL (`far_transfer`).

use super::by_wide_width;
use crate::cpu::{Cpu, Width};
use crate::fault::R;
use crate::lower::{Form, Kind};
use crate::mmu::access::Mem;
use crate::op::{BLOCK_RIP, Handler, Op};
use gemel_machine::CpuIo;
use gemel_x86::segment::SS;
use gemel_x86::{Exception, Vector};
use iced_x86::Code;

/// The target of a near relative branch.
#[inline(always)]
fn target(c: &Cpu, op: &Op) -> u64 {
    c.regs[BLOCK_RIP as usize].wrapping_add(op.imm) & op.address_mask
}

fn jmp_relative(c: &mut Cpu, op: &Op, _io: &mut dyn CpuIo) -> R {
    c.jump(target(c, op))
}

fn jmp_reg<W: Width>(c: &mut Cpu, op: &Op, _io: &mut dyn CpuIo) -> R {
    c.jump(W::get(&c.regs, op.r[0]).zext())
}

fn jmp_mem<W: Width + Mem>(c: &mut Cpu, op: &Op, io: &mut dyn CpuIo) -> R {
    let to = c.load::<W>(op, io)?;
    c.jump(to.zext())
}

/// JMP near; far forms go to `far_transfer`.
pub fn jmp(f: &Form<'_>) -> Option<Handler> {
    Some(match f.kind(0) {
        Kind::Near => jmp_relative,
        Kind::Reg => by_wide_width!(f, jmp_reg),
        Kind::Mem if is_near(f) => by_wide_width!(f, jmp_mem),
        _ => return super::far_transfer::jmp_far(f),
    })
}

fn is_near(f: &Form<'_>) -> bool {
    f.instruction.is_jmp_near_indirect() || f.instruction.is_call_near_indirect()
}

fn jcc_any<const CC: u8>(c: &mut Cpu, op: &Op, _io: &mut dyn CpuIo) -> R {
    if c.flags.condition::<CC>() { c.jump(target(c, op)) } else { Ok(()) }
}

/// Jcc.
pub fn jcc<const CC: u8>(_f: &Form<'_>) -> Option<Handler> {
    Some(jcc_any::<CC>)
}

/// Pushes the return address and goes; a fault on either leaves both undone.
#[inline(always)]
fn call_to<W: Width + Mem>(c: &mut Cpu, op: &Op, to: u64, io: &mut dyn CpuIo) -> R {
    let back = c.next_rip(op);
    let fall_through = c.rip;
    if c.jump(to).is_err() {
        // The fault of a push that could not be made is the one to raise.
        let sp = c.regs[4].wrapping_sub(W::BYTES as u64) & c.stack_mask();
        let lin = c.stack_linear(sp, W::BYTES as u64, true)?;
        c.check_write(lin, W::BYTES, SS as u8, io)?;
        return c.general_protection(0);
    }
    c.push::<W>(W::cut(back), io).inspect_err(|_| c.rip = fall_through)
}

fn call_relative<W: Width + Mem>(c: &mut Cpu, op: &Op, io: &mut dyn CpuIo) -> R {
    let to = target(c, op);
    call_to::<W>(c, op, to, io)
}

fn call_reg<W: Width + Mem>(c: &mut Cpu, op: &Op, io: &mut dyn CpuIo) -> R {
    let to = W::get(&c.regs, op.r[0]).zext();
    call_to::<W>(c, op, to, io)
}

fn call_mem<W: Width + Mem>(c: &mut Cpu, op: &Op, io: &mut dyn CpuIo) -> R {
    let to = c.load::<W>(op, io)?.zext();
    call_to::<W>(c, op, to, io)
}

/// CALL near; far forms go to `far_transfer`.
pub fn call(f: &Form<'_>) -> Option<Handler> {
    Some(match f.kind(0) {
        Kind::Near => match f.instruction.stack_pointer_increment() {
            -2 => call_relative::<u16>,
            -4 => call_relative::<u32>,
            _ => call_relative::<u64>,
        },
        Kind::Reg => by_wide_width!(f, call_reg),
        Kind::Mem if is_near(f) => by_wide_width!(f, call_mem),
        _ => return super::far_transfer::call_far(f),
    })
}

fn ret_any<W: Width + Mem>(c: &mut Cpu, op: &Op, io: &mut dyn CpuIo) -> R {
    let sp = c.regs[4];
    let to = c.pop::<W>(io)?.zext();
    if let Err(fault) = c.jump(to) {
        c.regs[4] = sp;
        return Err(fault);
    }
    if op.imm != 0 {
        let sp = c.regs[4].wrapping_add(op.imm);
        c.set_stack_pointer(sp);
    }
    Ok(())
}

/// RET near.
pub fn ret(f: &Form<'_>) -> Option<Handler> {
    use iced_x86::Code::*;
    Some(match f.code {
        Retnw | Retnw_imm16 => ret_any::<u16>,
        Retnd | Retnd_imm16 => ret_any::<u32>,
        _ => ret_any::<u64>,
    })
}

/// The mask of a counter register, by the address size that the form's code names.
pub(crate) fn counter_mask(code: Code) -> u64 {
    let name = format!("{code:?}");
    match name.rsplit('_').next() {
        Some("CX") => 0xffff,
        Some("ECX") => 0xffff_ffff,
        Some("RCX") => u64::MAX,
        _ => match code.mnemonic() {
            iced_x86::Mnemonic::Jcxz => 0xffff,
            iced_x86::Mnemonic::Jecxz => 0xffff_ffff,
            _ => u64::MAX,
        },
    }
}

fn loop_with<const MASK: u64, const CONDITION: u8>(c: &mut Cpu, op: &Op, _io: &mut dyn CpuIo) -> R {
    let left = c.regs[1].wrapping_sub(1) & MASK;
    let again = left != 0
        && match CONDITION {
            0 => true,
            1 => c.flags.zf(),
            _ => !c.flags.zf(),
        };
    if again {
        c.jump(target(c, op))?;
    }
    put_counter::<MASK>(c, left);
    Ok(())
}

/// Writes CX, ECX (clearing the upper half) or RCX.
fn put_counter<const MASK: u64>(c: &mut Cpu, value: u64) {
    match MASK {
        0xffff => (value as u16).put(&mut c.regs, 1),
        _ => c.regs[1] = value,
    }
}

fn loop_any<const CONDITION: u8>(f: &Form<'_>) -> Option<Handler> {
    Some(match counter_mask(f.code) {
        0xffff => loop_with::<0xffff, CONDITION>,
        0xffff_ffff => loop_with::<0xffff_ffff, CONDITION>,
        _ => loop_with::<{ u64::MAX }, CONDITION>,
    })
}

/// LOOP.
pub fn loop_(f: &Form<'_>) -> Option<Handler> {
    loop_any::<0>(f)
}

/// LOOPE and LOOPNE. A repeat prefix takes the place of the opcode's condition: F3 means equal, F2 not equal. No manual says
/// so; Zen 4 does it.
pub fn loop_on_condition(f: &Form<'_>) -> Option<Handler> {
    let equal = match (f.instruction.has_rep_prefix(), f.instruction.has_repne_prefix()) {
        (true, _) => true,
        (_, true) => false,
        _ => f.mnemonic == iced_x86::Mnemonic::Loope,
    };
    if equal { loop_any::<1>(f) } else { loop_any::<2>(f) }
}

fn jump_if_zero<const MASK: u64>(c: &mut Cpu, op: &Op, _io: &mut dyn CpuIo) -> R {
    if c.regs[1] & MASK == 0 { c.jump(target(c, op)) } else { Ok(()) }
}

/// JCXZ, JECXZ, JRCXZ.
pub fn jcxz(f: &Form<'_>) -> Option<Handler> {
    Some(match counter_mask(f.code) {
        0xffff => jump_if_zero::<0xffff>,
        0xffff_ffff => jump_if_zero::<0xffff_ffff>,
        _ => jump_if_zero::<{ u64::MAX }>,
    })
}

/// ENTER: a frame of `imm & 0xffff` bytes at nesting level `imm >> 16` (SDM 2A ENTER).
fn enter_any<W: Width + Mem>(c: &mut Cpu, op: &Op, io: &mut dyn CpuIo) -> R {
    let (size, level) = (op.imm & 0xffff, op.imm >> 16 & 31);
    let (old_sp, mask, bytes) = (c.regs[4], c.stack_mask(), W::BYTES as u64);
    let result = (|| {
        c.push::<W>(W::get(&c.regs, 5), io)?;
        let frame = c.regs[4] & mask;
        for n in 1..level {
            let at = c.regs[5].wrapping_sub(n * bytes) & mask;
            let lin = c.stack_linear(at, bytes, false)?;
            let display = c.read::<W>(lin, SS as u8, io)?;
            c.push(display, io)?;
        }
        if level > 0 {
            c.push(W::cut(frame), io)?;
        }
        let sp = c.regs[4].wrapping_sub(size) & mask;
        // The new top must be writable, or the fault comes now (SDM 2A ENTER, "#PF").
        let lin = c.stack_linear(sp, bytes, true)?;
        c.check_write(lin, W::BYTES, SS as u8, io)?;
        W::cut(frame).put(&mut c.regs, 5);
        c.set_stack_pointer(sp);
        Ok(())
    })();
    if result.is_err() {
        c.regs[4] = old_sp;
    }
    result
}

/// ENTER.
pub fn enter(f: &Form<'_>) -> Option<Handler> {
    use iced_x86::Code::*;
    Some(match f.code {
        Enterw_imm16_imm8 => enter_any::<u16>,
        Enterd_imm16_imm8 => enter_any::<u32>,
        _ => enter_any::<u64>,
    })
}

fn leave_any<W: Width + Mem>(c: &mut Cpu, _op: &Op, io: &mut dyn CpuIo) -> R {
    let at = c.regs[5] & c.stack_mask();
    let lin = c.stack_linear(at, W::BYTES as u64, false)?;
    let frame = c.read::<W>(lin, SS as u8, io)?;
    c.set_stack_pointer(at.wrapping_add(W::BYTES as u64));
    frame.put(&mut c.regs, 5);
    Ok(())
}

/// LEAVE.
pub fn leave(f: &Form<'_>) -> Option<Handler> {
    use iced_x86::Code::*;
    Some(match f.code {
        Leavew => leave_any::<u16>,
        Leaved => leave_any::<u32>,
        _ => leave_any::<u64>,
    })
}

fn bound_any<W: Width + Mem>(c: &mut Cpu, op: &Op, io: &mut dyn CpuIo) -> R {
    let value = W::get(&c.regs, op.r[0]).sext() as i64;
    let lower = c.load::<W>(op, io)?.sext() as i64;
    let mut second = *op;
    second.disp = op.disp.wrapping_add(W::BYTES as u64);
    let upper = c.load::<W>(&second, io)?.sext() as i64;
    if value < lower || value > upper {
        return c.fail(Exception::new(Vector::Bound));
    }
    Ok(())
}

/// BOUND.
pub fn bound(f: &Form<'_>) -> Option<Handler> {
    Some(if f.width == 16 { bound_any::<u16> } else { bound_any::<u32> })
}
