//! VEX data transfer (SDM 1 14.1, 14.7): moves between YMM registers, general registers and memory, halves and elements in and out, MXCSR.
//!
//! Not responsible for: moves under a mask (`masked`), elements that an immediate selects (`general`).

use super::{by_thunk, load, placed, ready, set, xmm, ymm};
use crate::cpu::{Cpu, Width};
use crate::fault::R;
use crate::isa::state_management;
use crate::lower::{Form, Kind};
use crate::op::{Handler, Op};
use crate::thunk::Ymm;
use gemel_machine::CpuIo;
use iced_x86::Mnemonic;

const LOW: u128 = u64::MAX as u128;

/// VMOVAPS, VMOVAPD, VMOVDQA, and the non-temporal moves.
pub fn aligned(f: &Form<'_>) -> Option<Handler> {
    Some(match (f.kind(0), f.kind(1)) {
        (Kind::Xmm, Kind::Xmm) => copy::<false>,
        (Kind::Ymm, Kind::Ymm) => copy::<true>,
        (Kind::Xmm, Kind::Mem) => load_aligned::<16>,
        (Kind::Ymm, Kind::Mem) => load_aligned::<32>,
        (Kind::Mem, Kind::Xmm) => store_aligned::<16>,
        (Kind::Mem, Kind::Ymm) => store_aligned::<32>,
        _ => return None,
    })
}

/// VMOVUPS, VMOVUPD, VMOVDQU, VLDDQU.
pub fn unaligned(f: &Form<'_>) -> Option<Handler> {
    Some(match (f.kind(0), f.kind(1)) {
        (Kind::Xmm, Kind::Xmm) => copy::<false>,
        (Kind::Ymm, Kind::Ymm) => copy::<true>,
        (Kind::Xmm, Kind::Mem) => load_all::<16>,
        (Kind::Ymm, Kind::Mem) => load_all::<32>,
        (Kind::Mem, Kind::Xmm) => store_low::<16>,
        (Kind::Mem, Kind::Ymm) => store_whole,
        _ => return None,
    })
}

/// VMOVSS, VMOVSD: with three registers the upper part comes from the second.
pub fn scalar(f: &Form<'_>) -> Option<Handler> {
    let single = f.mnemonic == Mnemonic::Vmovss;
    Some(match (f.kind(0), f.kind(1)) {
        (Kind::Xmm, Kind::Mem) if single => load_all::<4>,
        (Kind::Xmm, Kind::Mem) => load_all::<8>,
        (Kind::Mem, Kind::Xmm) if single => store_low::<4>,
        (Kind::Mem, Kind::Xmm) => store_low::<8>,
        _ if single => merge::<0xffff_ffff>,
        _ => merge::<LOW>,
    })
}

/// VMOVLPS, VMOVLPD, VMOVHPS, VMOVHPD.
pub fn half(f: &Form<'_>) -> Option<Handler> {
    let low = matches!(f.mnemonic, Mnemonic::Vmovlps | Mnemonic::Vmovlpd);
    Some(match (f.kind(0), low) {
        (Kind::Mem, true) => store_low::<8>,
        (Kind::Mem, false) => store_high,
        (_, true) => load_half::<true>,
        (_, false) => load_half::<false>,
    })
}

/// VMOVHLPS.
pub fn movhlps(_f: &Form<'_>) -> Option<Handler> {
    Some(high_to_low)
}

/// VMOVLHPS.
pub fn movlhps(_f: &Form<'_>) -> Option<Handler> {
    Some(low_to_high)
}

/// VMOVD, VMOVQ.
pub fn movd(f: &Form<'_>) -> Option<Handler> {
    let quad = f.mnemonic == Mnemonic::Vmovq;
    Some(match (f.kind(0), f.kind(1)) {
        (Kind::Xmm, Kind::Xmm) => copy_low,
        (Kind::Xmm, Kind::Reg) if quad => from_general::<u64>,
        (Kind::Xmm, Kind::Reg) => from_general::<u32>,
        (Kind::Reg, Kind::Xmm) if quad => to_general::<u64>,
        (Kind::Reg, Kind::Xmm) => to_general::<u32>,
        (Kind::Xmm, Kind::Mem) if quad => load_all::<8>,
        (Kind::Xmm, Kind::Mem) => load_all::<4>,
        (Kind::Mem, Kind::Xmm) if quad => store_low::<8>,
        (Kind::Mem, Kind::Xmm) => store_low::<4>,
        _ => return None,
    })
}

/// VBROADCASTSS, VBROADCASTSD, VBROADCASTF128, VBROADCASTI128.
pub fn broadcast(f: &Form<'_>) -> Option<Handler> {
    if f.kind(1) != Kind::Mem {
        by_thunk(f)?;
        return if f.kind(0) == Kind::Ymm { placed::<true, false>(f) } else { placed::<false, false>(f) };
    }
    Some(match (f.instruction.memory_size().size(), f.kind(0)) {
        (4, Kind::Ymm) => load_repeated::<4, true>,
        (4, _) => load_repeated::<4, false>,
        (8, _) => load_repeated::<8, true>,
        _ => load_repeated::<16, true>,
    })
}

/// VINSERTF128, VINSERTI128.
pub fn insert_half(f: &Form<'_>) -> Option<Handler> {
    Some(if f.kind(2) == Kind::Mem { put_half::<16> } else { put_half::<0> })
}

/// VEXTRACTF128, VEXTRACTI128.
pub fn extract_half(f: &Form<'_>) -> Option<Handler> {
    Some(if f.kind(0) == Kind::Mem { half_to_memory } else { half_to_register })
}

/// VZEROUPPER, VZEROALL.
pub fn zero(f: &Form<'_>) -> Option<Handler> {
    Some(if f.mnemonic == Mnemonic::Vzeroall { zero_registers::<true> } else { zero_registers::<false> })
}

/// VLDMXCSR, VSTMXCSR.
pub fn mxcsr(f: &Form<'_>) -> Option<Handler> {
    Some(if f.mnemonic == Mnemonic::Vldmxcsr { load_mxcsr } else { store_mxcsr })
}

fn copy<const WIDE: bool>(c: &mut Cpu, op: &Op, _io: &mut dyn CpuIo) -> R {
    ready(c)?;
    let value = if WIDE { ymm(c, op, 1) } else { Ymm { low: xmm(c, op, 1), high: 0 } };
    set(c, op, value);
    Ok(())
}

fn copy_low(c: &mut Cpu, op: &Op, _io: &mut dyn CpuIo) -> R {
    ready(c)?;
    let low = xmm(c, op, 1) & LOW;
    set(c, op, Ymm { low, high: 0 });
    Ok(())
}

/// Takes the bits of `MASK` from the third operand, the others from the second.
fn merge<const MASK: u128>(c: &mut Cpu, op: &Op, _io: &mut dyn CpuIo) -> R {
    ready(c)?;
    let low = xmm(c, op, 1) & !MASK | xmm(c, op, 2) & MASK;
    set(c, op, Ymm { low, high: 0 });
    Ok(())
}

fn high_to_low(c: &mut Cpu, op: &Op, _io: &mut dyn CpuIo) -> R {
    ready(c)?;
    let low = xmm(c, op, 1) & !LOW | xmm(c, op, 2) >> 64;
    set(c, op, Ymm { low, high: 0 });
    Ok(())
}

fn low_to_high(c: &mut Cpu, op: &Op, _io: &mut dyn CpuIo) -> R {
    ready(c)?;
    let low = xmm(c, op, 1) & LOW | xmm(c, op, 2) << 64;
    set(c, op, Ymm { low, high: 0 });
    Ok(())
}

/// Loads; the rest of the register becomes zero.
fn load_all<const SOURCE: u8>(c: &mut Cpu, op: &Op, io: &mut dyn CpuIo) -> R {
    ready(c)?;
    let value = load::<SOURCE>(c, op, io)?;
    set(c, op, value);
    Ok(())
}

fn load_aligned<const BYTES: u8>(c: &mut Cpu, op: &Op, io: &mut dyn CpuIo) -> R {
    ready(c)?;
    let lin = c.linear_aligned(op, BYTES.into(), false)?;
    let value = if BYTES == 32 {
        let [low, high] = c.read::<[u128; 2]>(lin, op.seg, io)?;
        Ymm { low, high }
    } else {
        Ymm { low: c.read::<u128>(lin, op.seg, io)?, high: 0 }
    };
    set(c, op, value);
    Ok(())
}

fn store_aligned<const BYTES: u8>(c: &mut Cpu, op: &Op, io: &mut dyn CpuIo) -> R {
    ready(c)?;
    let lin = c.linear_aligned(op, BYTES.into(), true)?;
    let Ymm { low, high } = ymm(c, op, 1);
    if BYTES == 32 { c.write(lin, op.seg, [low, high], io) } else { c.write(lin, op.seg, low, io) }
}

/// Stores the register's first bytes.
fn store_low<const BYTES: u8>(c: &mut Cpu, op: &Op, io: &mut dyn CpuIo) -> R {
    ready(c)?;
    let value = xmm(c, op, 1);
    match BYTES {
        4 => c.store(op, value as u32, io),
        8 => c.store(op, value as u64, io),
        _ => c.store(op, value, io),
    }
}

fn store_whole(c: &mut Cpu, op: &Op, io: &mut dyn CpuIo) -> R {
    ready(c)?;
    let Ymm { low, high } = ymm(c, op, 1);
    c.store(op, [low, high], io)
}

fn store_high(c: &mut Cpu, op: &Op, io: &mut dyn CpuIo) -> R {
    ready(c)?;
    let value = (xmm(c, op, 1) >> 64) as u64;
    c.store(op, value, io)
}

/// Memory to one quarter, the other quarter of the low half from the second operand.
fn load_half<const TO_LOW: bool>(c: &mut Cpu, op: &Op, io: &mut dyn CpuIo) -> R {
    ready(c)?;
    let value = u128::from(c.load::<u64>(op, io)?);
    let other = xmm(c, op, 1);
    let low = if TO_LOW { other & !LOW | value } else { other & LOW | value << 64 };
    set(c, op, Ymm { low, high: 0 });
    Ok(())
}

fn from_general<W: Width + Into<u128>>(c: &mut Cpu, op: &Op, _io: &mut dyn CpuIo) -> R {
    ready(c)?;
    let low = W::get(&c.regs, op.r[1]).into();
    set(c, op, Ymm { low, high: 0 });
    Ok(())
}

fn to_general<W: Width>(c: &mut Cpu, op: &Op, _io: &mut dyn CpuIo) -> R {
    ready(c)?;
    W::cut(xmm(c, op, 1) as u64).put(&mut c.regs, op.r[0]);
    Ok(())
}

fn load_repeated<const SOURCE: u8, const WIDE: bool>(c: &mut Cpu, op: &Op, io: &mut dyn CpuIo) -> R {
    ready(c)?;
    let one = load::<SOURCE>(c, op, io)?.low;
    let low = match SOURCE {
        4 => one * 0x1_0000_0001_0000_0001_0000_0001,
        8 => one | one << 64,
        _ => one,
    };
    set(c, op, Ymm { low, high: if WIDE { low } else { 0 } });
    Ok(())
}

fn put_half<const SOURCE: u8>(c: &mut Cpu, op: &Op, io: &mut dyn CpuIo) -> R {
    ready(c)?;
    let half = if SOURCE == 0 { xmm(c, op, 2) } else { load::<SOURCE>(c, op, io)?.low };
    let Ymm { low, high } = ymm(c, op, 1);
    set(c, op, if op.imm & 1 == 0 { Ymm { low: half, high } } else { Ymm { low, high: half } });
    Ok(())
}

/// The half that the immediate names.
fn named_half(c: &Cpu, op: &Op) -> u128 {
    let Ymm { low, high } = ymm(c, op, 1);
    if op.imm & 1 == 0 { low } else { high }
}

fn half_to_register(c: &mut Cpu, op: &Op, _io: &mut dyn CpuIo) -> R {
    ready(c)?;
    let low = named_half(c, op);
    set(c, op, Ymm { low, high: 0 });
    Ok(())
}

fn half_to_memory(c: &mut Cpu, op: &Op, io: &mut dyn CpuIo) -> R {
    ready(c)?;
    let value = named_half(c, op);
    c.store(op, value, io)
}

/// Outside 64-bit mode the eight registers beyond its reach stay (SDM 2C VZEROALL).
fn zero_registers<const WHOLE: bool>(c: &mut Cpu, _op: &Op, _io: &mut dyn CpuIo) -> R {
    ready(c)?;
    let n = if c.is_64() { 16 } else { 8 };
    c.s.ymm_upper[..n].fill(0);
    c.s.zmm_upper[..n].fill([0; 2]);
    if WHOLE {
        c.s.xmm[..n].fill(0);
    }
    Ok(())
}

fn load_mxcsr(c: &mut Cpu, op: &Op, io: &mut dyn CpuIo) -> R {
    ready(c)?;
    state_management::load_mxcsr(c, op, io)
}

fn store_mxcsr(c: &mut Cpu, op: &Op, io: &mut dyn CpuIo) -> R {
    ready(c)?;
    c.store(op, c.s.mxcsr, io)
}
