//! Data transfer (SDM 1 5.1.1): MOV, extensions, exchanges, the stack; with LEA, XLAT, NOP, MOVBE of 5.1.13.
//!
//! Not responsible for: segment, control and debug registers (`segment`, `system`), strings.

use super::{by_wide_width, by_width, undefined};
use crate::cpu::{Cpu, Width};
use crate::fault::R;
use crate::lower::{Form, Kind};
use crate::mmu::access::Mem;
use crate::op::{Handler, Op};
use gemel_machine::CpuIo;
use gemel_x86::flags::ZF;

fn mov_reg_reg<W: Width>(c: &mut Cpu, op: &Op, _io: &mut dyn CpuIo) -> R {
    W::get(&c.regs, op.r[1]).put(&mut c.regs, op.r[0]);
    Ok(())
}

fn mov_reg_imm<W: Width>(c: &mut Cpu, op: &Op, _io: &mut dyn CpuIo) -> R {
    W::cut(op.imm).put(&mut c.regs, op.r[0]);
    Ok(())
}

fn mov_reg_mem<W: Width + Mem>(c: &mut Cpu, op: &Op, io: &mut dyn CpuIo) -> R {
    c.load_then::<W>(op, io, |c, op, value| value.put(&mut c.regs, op.r[0]))
}

fn mov_mem_reg<W: Width + Mem>(c: &mut Cpu, op: &Op, io: &mut dyn CpuIo) -> R {
    c.store_from::<W>(op, io, |c, op| W::get(&c.regs, op.r[1]))
}

fn mov_mem_imm<W: Width + Mem>(c: &mut Cpu, op: &Op, io: &mut dyn CpuIo) -> R {
    c.store_from::<W>(op, io, |_, op| W::cut(op.imm))
}

/// MOV between general registers, memory and immediates; other registers have families of their own.
pub fn mov(f: &Form<'_>) -> Option<Handler> {
    Some(match (f.kind(0), f.kind(1)) {
        (Kind::Reg, Kind::Reg) => by_width!(f, mov_reg_reg),
        (Kind::Reg, Kind::Imm) => by_width!(f, mov_reg_imm),
        (Kind::Reg, Kind::Mem) => by_width!(f, mov_reg_mem),
        (Kind::Mem, Kind::Reg) => by_width!(f, mov_mem_reg),
        (Kind::Mem, Kind::Imm) => by_width!(f, mov_mem_imm),
        _ => return super::segment_register::mov(f).or_else(|| super::control_register::mov(f)),
    })
}

#[inline(always)]
fn put_extended<D: Width, S: Width, const SIGNED: bool>(c: &mut Cpu, op: &Op, v: S) {
    D::cut(if SIGNED { v.sext() } else { v.zext() }).put(&mut c.regs, op.r[0]);
}

fn extend_reg<D: Width, S: Width, const SIGNED: bool>(c: &mut Cpu, op: &Op, _io: &mut dyn CpuIo) -> R {
    put_extended::<D, S, SIGNED>(c, op, S::get(&c.regs, op.r[1]));
    Ok(())
}

fn extend_mem<D: Width, S: Width + Mem, const SIGNED: bool>(c: &mut Cpu, op: &Op, io: &mut dyn CpuIo) -> R {
    c.load_then::<S>(op, io, put_extended::<D, S, SIGNED>)
}

fn extending<const SIGNED: bool>(f: &Form<'_>) -> Option<Handler> {
    let memory = f.kind(1) == Kind::Mem;
    let source = match memory {
        // Only two of them are used, but Zen 4 reads four, as its page faults show.
        true if f.code == iced_x86::Code::Movsxd_r16_rm16 => 4,
        true => f.instruction.memory_size().size(),
        false => f.instruction.op1_register().size(),
    };
    macro_rules! pick {
        ($($width:literal, $size:literal => $d:ty, $s:ty;)*) => {
            match (f.width, source, memory) {
                $(($width, $size, false) => extend_reg::<$d, $s, SIGNED> as Handler,
                ($width, $size, true) => extend_mem::<$d, $s, SIGNED>,)*
                _ => return None,
            }
        };
    }
    Some(pick! {
        16, 1 => u16, u8;
        32, 1 => u32, u8;
        64, 1 => u64, u8;
        16, 2 => u16, u16;
        32, 2 => u32, u16;
        64, 2 => u64, u16;
        16, 4 => u16, u32;
        32, 4 => u32, u32;
        64, 4 => u64, u32;
    })
}

/// MOVZX.
pub fn movzx(f: &Form<'_>) -> Option<Handler> {
    extending::<false>(f)
}

/// MOVSX, MOVSXD.
pub fn movsx(f: &Form<'_>) -> Option<Handler> {
    extending::<true>(f)
}

fn xchg_reg<W: Width>(c: &mut Cpu, op: &Op, _io: &mut dyn CpuIo) -> R {
    let (a, b) = (W::get(&c.regs, op.r[0]), W::get(&c.regs, op.r[1]));
    b.put(&mut c.regs, op.r[0]);
    a.put(&mut c.regs, op.r[1]);
    Ok(())
}

fn xchg_mem<W: Width + Mem>(c: &mut Cpu, op: &Op, io: &mut dyn CpuIo) -> R {
    let r = op.r[1];
    let new = W::get(&c.regs, r);
    c.rmw::<W>(op, io, |_, _| new)?.put(&mut c.regs, r);
    Ok(())
}

fn xchg_mem_second<W: Width + Mem>(c: &mut Cpu, op: &Op, io: &mut dyn CpuIo) -> R {
    let r = op.r[0];
    let new = W::get(&c.regs, r);
    c.rmw::<W>(op, io, |_, _| new)?.put(&mut c.regs, r);
    Ok(())
}

/// XCHG.
pub fn xchg(f: &Form<'_>) -> Option<Handler> {
    Some(match (f.kind(0), f.kind(1)) {
        (Kind::Reg, Kind::Reg) => by_width!(f, xchg_reg),
        (Kind::Mem, _) => by_width!(f, xchg_mem),
        _ => by_width!(f, xchg_mem_second),
    })
}

fn bswap16(c: &mut Cpu, op: &Op, _io: &mut dyn CpuIo) -> R {
    let r = undefined::BSWAP_16.predict(&undefined::Case::of(u16::get(&c.regs, op.r[0])));
    u16::cut(r).put(&mut c.regs, op.r[0]);
    Ok(())
}

fn bswap32(c: &mut Cpu, op: &Op, _io: &mut dyn CpuIo) -> R {
    u32::get(&c.regs, op.r[0]).swap_bytes().put(&mut c.regs, op.r[0]);
    Ok(())
}

fn bswap64(c: &mut Cpu, op: &Op, _io: &mut dyn CpuIo) -> R {
    u64::get(&c.regs, op.r[0]).swap_bytes().put(&mut c.regs, op.r[0]);
    Ok(())
}

/// BSWAP.
pub fn bswap(f: &Form<'_>) -> Option<Handler> {
    Some(match f.width {
        16 => bswap16,
        32 => bswap32,
        _ => bswap64,
    })
}

/// The bytes of a value in the other order.
fn swapped<W: Width>(value: W) -> W {
    W::cut(value.zext().swap_bytes() >> (64 - W::BITS))
}

fn movbe_load<W: Width + Mem>(c: &mut Cpu, op: &Op, io: &mut dyn CpuIo) -> R {
    c.load_then::<W>(op, io, |c, op, value| swapped(value).put(&mut c.regs, op.r[0]))
}

fn movbe_store<W: Width + Mem>(c: &mut Cpu, op: &Op, io: &mut dyn CpuIo) -> R {
    c.store_from::<W>(op, io, |c, op| swapped(W::get(&c.regs, op.r[1])))
}

/// MOVBE.
pub fn movbe(f: &Form<'_>) -> Option<Handler> {
    Some(match (f.kind(0), f.kind(1)) {
        (Kind::Reg, Kind::Mem) => by_wide_width!(f, movbe_load),
        (Kind::Mem, Kind::Reg) => by_wide_width!(f, movbe_store),
        _ => return None,
    })
}

fn xadd_reg<W: Width>(c: &mut Cpu, op: &Op, _io: &mut dyn CpuIo) -> R {
    let (a, b) = (W::get(&c.regs, op.r[0]), W::get(&c.regs, op.r[1]));
    let r = W::cut(a.zext().wrapping_add(b.zext()));
    c.flags.add(a, b, r);
    a.put(&mut c.regs, op.r[1]);
    r.put(&mut c.regs, op.r[0]);
    Ok(())
}

fn xadd_mem<W: Width + Mem>(c: &mut Cpu, op: &Op, io: &mut dyn CpuIo) -> R {
    let b = W::get(&c.regs, op.r[1]);
    let old = c.rmw::<W>(op, io, |c, a| {
        let r = W::cut(a.zext().wrapping_add(b.zext()));
        c.flags.add(a, b, r);
        r
    })?;
    old.put(&mut c.regs, op.r[1]);
    Ok(())
}

/// XADD.
pub fn xadd(f: &Form<'_>) -> Option<Handler> {
    Some(if f.kind(0) == Kind::Mem { by_width!(f, xadd_mem) } else { by_width!(f, xadd_reg) })
}

#[inline(always)]
fn compare<W: Width>(c: &mut Cpu, accumulator: W, old: W) -> bool {
    let r = W::cut(accumulator.zext().wrapping_sub(old.zext()));
    c.flags.sub(accumulator, old, r);
    r.zext() == 0
}

fn cmpxchg_reg<W: Width>(c: &mut Cpu, op: &Op, _io: &mut dyn CpuIo) -> R {
    let (acc, old, new) = (W::get(&c.regs, 0), W::get(&c.regs, op.r[0]), W::get(&c.regs, op.r[1]));
    if compare(c, acc, old) {
        new.put(&mut c.regs, op.r[0]);
    } else {
        old.put(&mut c.regs, 0);
    }
    Ok(())
}

/// The store happens either way, with the old value when they differ (SDM 2A CMPXCHG).
fn cmpxchg_mem<W: Width + Mem>(c: &mut Cpu, op: &Op, io: &mut dyn CpuIo) -> R {
    let (acc, new) = (W::get(&c.regs, 0), W::get(&c.regs, op.r[1]));
    let old = c.rmw::<W>(op, io, |c, old| if compare(c, acc, old) { new } else { old })?;
    if !c.flags.zf() {
        old.put(&mut c.regs, 0);
    }
    Ok(())
}

/// CMPXCHG.
pub fn cmpxchg(f: &Form<'_>) -> Option<Handler> {
    Some(if f.kind(0) == Kind::Mem { by_width!(f, cmpxchg_mem) } else { by_width!(f, cmpxchg_reg) })
}

fn cmpxchg8b_any(c: &mut Cpu, op: &Op, io: &mut dyn CpuIo) -> R {
    let pair =
        |c: &Cpu, high, low| u64::from(u32::get(&c.regs, high)) << 32 | u64::from(u32::get(&c.regs, low));
    let (expected, new) = (pair(c, 2, 0), pair(c, 1, 3));
    let old = c.rmw::<u64>(op, io, |_, old| if old == expected { new } else { old })?;
    if old == expected {
        c.flags.update(ZF, ZF);
    } else {
        c.flags.update(ZF, 0);
        (old as u32).put(&mut c.regs, 0);
        ((old >> 32) as u32).put(&mut c.regs, 2);
    }
    Ok(())
}

/// CMPXCHG8B.
pub fn cmpxchg8b(_f: &Form<'_>) -> Option<Handler> {
    Some(cmpxchg8b_any)
}

fn cmpxchg16b_any(c: &mut Cpu, op: &Op, io: &mut dyn CpuIo) -> R {
    let lin = c.linear(op, 16, true)?;
    if lin & 15 != 0 {
        return c.general_protection(0);
    }
    let expected = u128::from(c.regs[2]) << 64 | u128::from(c.regs[0]);
    let new = u128::from(c.regs[1]) << 64 | u128::from(c.regs[3]);
    let old = c.rmw::<u128>(op, io, |_, old| if old == expected { new } else { old })?;
    if old == expected {
        c.flags.update(ZF, ZF);
    } else {
        c.flags.update(ZF, 0);
        c.regs[0] = old as u64;
        c.regs[2] = (old >> 64) as u64;
    }
    Ok(())
}

/// CMPXCHG16B.
pub fn cmpxchg16b(_f: &Form<'_>) -> Option<Handler> {
    Some(cmpxchg16b_any)
}

fn push_reg<W: Width + Mem>(c: &mut Cpu, op: &Op, io: &mut dyn CpuIo) -> R {
    let value = W::get(&c.regs, op.r[0]);
    c.push(value, io)
}

fn push_imm<W: Width + Mem>(c: &mut Cpu, op: &Op, io: &mut dyn CpuIo) -> R {
    c.push(W::cut(op.imm), io)
}

fn push_mem<W: Width + Mem>(c: &mut Cpu, op: &Op, io: &mut dyn CpuIo) -> R {
    let value = c.load::<W>(op, io)?;
    c.push(value, io)
}

/// Picks by how far the instruction moves the stack pointer.
macro_rules! by_stack_step {
    ($f:expr, $handler:ident) => {
        match $f.instruction.stack_pointer_increment().abs() {
            2 => $handler::<u16> as Handler,
            4 => $handler::<u32>,
            _ => $handler::<u64>,
        }
    };
}

/// PUSH of general registers, immediates, memory; segment registers go to `segment`.
pub fn push(f: &Form<'_>) -> Option<Handler> {
    Some(match f.kind(0) {
        Kind::Reg => by_stack_step!(f, push_reg),
        Kind::Imm => by_stack_step!(f, push_imm),
        Kind::Mem => by_stack_step!(f, push_mem),
        _ => return super::segment_register::push(f),
    })
}

fn pop_reg<W: Width + Mem>(c: &mut Cpu, op: &Op, io: &mut dyn CpuIo) -> R {
    c.pop::<W>(io)?.put(&mut c.regs, op.r[0]);
    Ok(())
}

/// An address based on RSP uses its value after the pop (SDM 2B POP).
fn pop_mem<W: Width + Mem>(c: &mut Cpu, op: &Op, io: &mut dyn CpuIo) -> R {
    let sp = c.regs[4];
    let value = c.pop::<W>(io)?;
    c.store(op, value, io).inspect_err(|_| c.regs[4] = sp)
}

/// POP of general registers and memory; segment registers go to `segment`.
pub fn pop(f: &Form<'_>) -> Option<Handler> {
    Some(match f.kind(0) {
        Kind::Reg => by_stack_step!(f, pop_reg),
        Kind::Mem => by_stack_step!(f, pop_mem),
        _ => return super::segment_register::pop(f),
    })
}

fn pusha_any<W: Width + Mem>(c: &mut Cpu, _op: &Op, io: &mut dyn CpuIo) -> R {
    let (sp, original) = (c.regs[4], W::get(&c.regs, 4));
    for r in 0..8 {
        let value = if r == 4 { original } else { W::get(&c.regs, r) };
        c.push(value, io).inspect_err(|_| c.regs[4] = sp)?;
    }
    Ok(())
}

/// PUSHA, PUSHAD.
pub fn pusha(f: &Form<'_>) -> Option<Handler> {
    Some(if f.mnemonic == iced_x86::Mnemonic::Pusha { pusha_any::<u16> } else { pusha_any::<u32> })
}

fn popa_any<W: Width + Mem>(c: &mut Cpu, _op: &Op, io: &mut dyn CpuIo) -> R {
    let sp = c.regs[4];
    for r in (0..8).rev() {
        // A fault leaves what was popped before it in its registers, as silicon does, but for the pointer.
        let value = c.pop::<W>(io).inspect_err(|_| c.regs[4] = sp)?;
        if r != 4 {
            value.put(&mut c.regs, r);
        }
    }
    Ok(())
}

/// POPA, POPAD.
pub fn popa(f: &Form<'_>) -> Option<Handler> {
    Some(if f.mnemonic == iced_x86::Mnemonic::Popa { popa_any::<u16> } else { popa_any::<u32> })
}

fn cbw_any<D: Width, S: Width>(c: &mut Cpu, _op: &Op, _io: &mut dyn CpuIo) -> R {
    D::cut(S::get(&c.regs, 0).sext()).put(&mut c.regs, 0);
    Ok(())
}

/// CBW, CWDE, CDQE.
pub fn cbw(f: &Form<'_>) -> Option<Handler> {
    use iced_x86::Mnemonic::*;
    Some(match f.mnemonic {
        Cbw => cbw_any::<u16, u8>,
        Cwde => cbw_any::<u32, u16>,
        _ => cbw_any::<u64, u32>,
    })
}

fn cwd_any<W: Width>(c: &mut Cpu, _op: &Op, _io: &mut dyn CpuIo) -> R {
    let sign = (W::get(&c.regs, 0).sext() as i64 >> 63) as u64;
    W::cut(sign).put(&mut c.regs, 2);
    Ok(())
}

/// CWD, CDQ, CQO.
pub fn cwd(f: &Form<'_>) -> Option<Handler> {
    use iced_x86::Mnemonic::*;
    Some(match f.mnemonic {
        Cwd => cwd_any::<u16>,
        Cdq => cwd_any::<u32>,
        _ => cwd_any::<u64>,
    })
}

/// A false 32-bit CMOV still clears the upper half.
fn cmov_reg<const CC: u8, W: Width>(c: &mut Cpu, op: &Op, _io: &mut dyn CpuIo) -> R {
    let from = if c.flags.condition::<CC>() { op.r[1] } else { op.r[0] };
    W::get(&c.regs, from).put(&mut c.regs, op.r[0]);
    Ok(())
}

/// The load happens, and can fault, whatever the condition says.
fn cmov_mem<const CC: u8, W: Width + Mem>(c: &mut Cpu, op: &Op, io: &mut dyn CpuIo) -> R {
    let loaded = c.load::<W>(op, io)?;
    let value = if c.flags.condition::<CC>() { loaded } else { W::get(&c.regs, op.r[0]) };
    value.put(&mut c.regs, op.r[0]);
    Ok(())
}

/// CMOVcc.
pub fn cmov<const CC: u8>(f: &Form<'_>) -> Option<Handler> {
    Some(match (f.kind(1), f.width) {
        (Kind::Mem, 16) => cmov_mem::<CC, u16>,
        (Kind::Mem, 32) => cmov_mem::<CC, u32>,
        (Kind::Mem, _) => cmov_mem::<CC, u64>,
        (_, 16) => cmov_reg::<CC, u16>,
        (_, 32) => cmov_reg::<CC, u32>,
        _ => cmov_reg::<CC, u64>,
    })
}

fn lea_any<W: Width>(c: &mut Cpu, op: &Op, _io: &mut dyn CpuIo) -> R {
    W::cut(c.ea(op)).put(&mut c.regs, op.r[0]);
    Ok(())
}

/// LEA.
pub fn lea(f: &Form<'_>) -> Option<Handler> {
    Some(by_wide_width!(f, lea_any))
}

/// The decoder gives base RBX and index AL; the index is a byte.
fn xlat_any(c: &mut Cpu, op: &Op, io: &mut dyn CpuIo) -> R {
    let mut at = *op;
    at.index = crate::op::NO_REG;
    at.disp = u64::from(u8::get(&c.regs, 0));
    c.load::<u8>(&at, io)?.put(&mut c.regs, 0);
    Ok(())
}

/// XLAT.
pub fn xlat(_f: &Form<'_>) -> Option<Handler> {
    Some(xlat_any)
}

fn nop_any(_c: &mut Cpu, _op: &Op, _io: &mut dyn CpuIo) -> R {
    Ok(())
}

/// NOP and the hints that do nothing here. AMD's 0F 0D is a prefetch, of memory only.
pub fn nop(f: &Form<'_>) -> Option<Handler> {
    use iced_x86::Code::*;
    let prefetch =
        matches!(f.code, Reservednop_rm16_r16_0F0D | Reservednop_rm32_r32_0F0D | Reservednop_rm64_r64_0F0D);
    (!prefetch || f.kind(0) == Kind::Mem).then_some(nop_any)
}
