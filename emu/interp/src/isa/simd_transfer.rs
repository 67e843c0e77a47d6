//! SIMD data transfer (SDM 1 5.5.1.1, 5.6.1.1, 5.7, 5.10.2): moves between XMM registers, general registers and memory, and single
//! elements in and out.
//!
//! Not responsible for: moves that compute (`simd`), MMX registers (`mmx`), non-temporal hints (`cacheability`).

use super::simd::{load_aligned, ready, xmm};
use crate::cpu::{Cpu, Width};
use crate::fault::R;
use crate::lower::{Form, Kind};
use crate::mmu::access::Mem;
use crate::op::{HAS_MEMORY, Handler, Op};
use gemel_machine::CpuIo;

const LOW: u128 = u64::MAX as u128;

/// MOVAPS, MOVAPD, MOVDQA.
pub fn aligned(f: &Form<'_>) -> Option<Handler> {
    Some(match (f.kind(0), f.kind(1)) {
        (Kind::Xmm, Kind::Xmm) => copy,
        (Kind::Xmm, Kind::Mem) => load_16_aligned,
        (Kind::Mem, Kind::Xmm) => store_16_aligned,
        _ => return None,
    })
}

/// MOVUPS, MOVUPD, MOVDQU, LDDQU.
pub fn unaligned(f: &Form<'_>) -> Option<Handler> {
    Some(match (f.kind(0), f.kind(1)) {
        (Kind::Xmm, Kind::Xmm) => copy,
        (Kind::Xmm, Kind::Mem) => load::<u128>,
        (Kind::Mem, Kind::Xmm) => store::<u128>,
        _ => return None,
    })
}

/// MOVSS.
pub fn movss(f: &Form<'_>) -> Option<Handler> {
    Some(match (f.kind(0), f.kind(1)) {
        (Kind::Xmm, Kind::Xmm) => merge::<0xffff_ffff>,
        (Kind::Xmm, Kind::Mem) => load::<u32>,
        (Kind::Mem, Kind::Xmm) => store::<u32>,
        _ => return None,
    })
}

/// MOVSD, the scalar move.
pub fn movsd(f: &Form<'_>) -> Option<Handler> {
    Some(match (f.kind(0), f.kind(1)) {
        (Kind::Xmm, Kind::Xmm) => merge::<LOW>,
        (Kind::Xmm, Kind::Mem) => load::<u64>,
        (Kind::Mem, Kind::Xmm) => store::<u64>,
        _ => return None,
    })
}

/// MOVLPS, MOVLPD.
pub fn low_half(f: &Form<'_>) -> Option<Handler> {
    Some(match (f.kind(0), f.kind(1)) {
        (Kind::Xmm, Kind::Mem) => load_low,
        (Kind::Mem, Kind::Xmm) => store::<u64>,
        _ => return None,
    })
}

/// MOVHPS, MOVHPD.
pub fn high_half(f: &Form<'_>) -> Option<Handler> {
    Some(match (f.kind(0), f.kind(1)) {
        (Kind::Xmm, Kind::Mem) => load_high,
        (Kind::Mem, Kind::Xmm) => store_high,
        _ => return None,
    })
}

/// MOVHLPS.
pub fn movhlps(_f: &Form<'_>) -> Option<Handler> {
    Some(high_to_low)
}

/// MOVLHPS.
pub fn movlhps(_f: &Form<'_>) -> Option<Handler> {
    Some(low_to_high)
}

/// MOVD, MOVQ: with an MMX register they belong to `mmx`.
pub fn movd(f: &Form<'_>) -> Option<Handler> {
    let quad = f.mnemonic == iced_x86::Mnemonic::Movq;
    Some(match (f.kind(0), f.kind(1)) {
        (Kind::Mmx, _) | (_, Kind::Mmx) => return super::mmx::movd(f),
        (Kind::Xmm, Kind::Xmm) => copy_low,
        (Kind::Xmm, Kind::Reg) if quad => from_general::<u64>,
        (Kind::Xmm, Kind::Reg) => from_general::<u32>,
        (Kind::Reg, Kind::Xmm) if quad => to_general::<u64>,
        (Kind::Reg, Kind::Xmm) => to_general::<u32>,
        (Kind::Xmm, Kind::Mem) if quad => load::<u64>,
        (Kind::Xmm, Kind::Mem) => load::<u32>,
        (Kind::Mem, Kind::Xmm) if quad => store::<u64>,
        (Kind::Mem, Kind::Xmm) => store::<u32>,
        _ => return None,
    })
}

/// PEXTRB, PEXTRW, PEXTRD, PEXTRQ, EXTRACTPS.
pub fn extract(f: &Form<'_>) -> Option<Handler> {
    use iced_x86::Mnemonic::*;
    Some(match f.mnemonic {
        Pextrw if f.kind(1) == Kind::Mmx => return super::mmx::pextrw(f),
        Pextrb => extract_element::<u8>,
        Pextrw => extract_element::<u16>,
        Pextrd | Extractps => extract_element::<u32>,
        Pextrq => extract_element::<u64>,
        _ => return None,
    })
}

/// PINSRB, PINSRW, PINSRD, PINSRQ.
pub fn insert(f: &Form<'_>) -> Option<Handler> {
    use iced_x86::Mnemonic::*;
    Some(match f.mnemonic {
        Pinsrw if f.kind(0) == Kind::Mmx => return super::mmx::pinsrw(f),
        Pinsrb => insert_element::<u8>,
        Pinsrw => insert_element::<u16>,
        Pinsrd => insert_element::<u32>,
        Pinsrq => insert_element::<u64>,
        _ => return None,
    })
}

fn copy(c: &mut Cpu, op: &Op, _io: &mut dyn CpuIo) -> R {
    ready(c)?;
    *xmm(c, op, 0) = *xmm(c, op, 1);
    Ok(())
}

fn copy_low(c: &mut Cpu, op: &Op, _io: &mut dyn CpuIo) -> R {
    ready(c)?;
    *xmm(c, op, 0) = *xmm(c, op, 1) & LOW;
    Ok(())
}

/// Takes the bits of `MASK` from the source, the others stay.
fn merge<const MASK: u128>(c: &mut Cpu, op: &Op, _io: &mut dyn CpuIo) -> R {
    ready(c)?;
    let s = *xmm(c, op, 1);
    let d = xmm(c, op, 0);
    *d = *d & !MASK | s & MASK;
    Ok(())
}

fn high_to_low(c: &mut Cpu, op: &Op, _io: &mut dyn CpuIo) -> R {
    ready(c)?;
    let s = *xmm(c, op, 1);
    let d = xmm(c, op, 0);
    *d = *d & !LOW | s >> 64;
    Ok(())
}

fn low_to_high(c: &mut Cpu, op: &Op, _io: &mut dyn CpuIo) -> R {
    ready(c)?;
    let s = *xmm(c, op, 1);
    let d = xmm(c, op, 0);
    *d = *d & LOW | s << 64;
    Ok(())
}

/// Loads an element; the rest of the register becomes zero.
fn load<T: Mem + Into<u128>>(c: &mut Cpu, op: &Op, io: &mut dyn CpuIo) -> R {
    ready(c)?;
    *xmm(c, op, 0) = c.load::<T>(op, io)?.into();
    Ok(())
}

/// MOVAPS and its kin, and MOVNTDQA: 16 aligned bytes.
pub fn load_16_aligned(c: &mut Cpu, op: &Op, io: &mut dyn CpuIo) -> R {
    ready(c)?;
    *xmm(c, op, 0) = load_aligned(c, op, io)?;
    Ok(())
}

/// MOVAPS and its kin, and non-temporal stores: 16 aligned bytes.
pub fn store_16_aligned(c: &mut Cpu, op: &Op, io: &mut dyn CpuIo) -> R {
    ready(c)?;
    let lin = c.linear_aligned(op, 16, true)?;
    let value = *xmm(c, op, 1);
    c.write(lin, op.seg, value, io)
}

/// An element as it is cut from the low end of a register.
trait Element: Mem + Into<u128> {
    fn low(register: u128) -> Self;
}
macro_rules! element {
    ($($t:ty),*) => {$(
        impl Element for $t {
            #[inline(always)]
            fn low(register: u128) -> Self {
                register as $t
            }
        }
    )*};
}
element!(u8, u16, u32, u64, u128);

fn store<T: Element>(c: &mut Cpu, op: &Op, io: &mut dyn CpuIo) -> R {
    ready(c)?;
    let value = T::low(*xmm(c, op, 1));
    c.store(op, value, io)
}

fn load_low(c: &mut Cpu, op: &Op, io: &mut dyn CpuIo) -> R {
    ready(c)?;
    let v: u128 = c.load::<u64>(op, io)?.into();
    let d = xmm(c, op, 0);
    *d = *d & !LOW | v;
    Ok(())
}

fn load_high(c: &mut Cpu, op: &Op, io: &mut dyn CpuIo) -> R {
    ready(c)?;
    let v: u128 = c.load::<u64>(op, io)?.into();
    let d = xmm(c, op, 0);
    *d = *d & LOW | v << 64;
    Ok(())
}

fn store_high(c: &mut Cpu, op: &Op, io: &mut dyn CpuIo) -> R {
    ready(c)?;
    let value = (*xmm(c, op, 1) >> 64) as u64;
    c.store(op, value, io)
}

fn from_general<W: Width + Into<u128>>(c: &mut Cpu, op: &Op, _io: &mut dyn CpuIo) -> R {
    ready(c)?;
    *xmm(c, op, 0) = W::get(&c.regs, op.r[1]).into();
    Ok(())
}

fn to_general<W: Width>(c: &mut Cpu, op: &Op, _io: &mut dyn CpuIo) -> R {
    ready(c)?;
    W::cut(*xmm(c, op, 1) as u64).put(&mut c.regs, op.r[0]);
    Ok(())
}

/// Bits from the register's low end to the element that the immediate names; the index wraps.
#[inline(always)]
fn element_shift<W: Width>(op: &Op) -> u32 {
    (op.imm as u32 * W::BITS) & 127
}

/// Memory takes the element alone, a general register takes it zero-extended.
fn extract_element<W: Width + Mem>(c: &mut Cpu, op: &Op, io: &mut dyn CpuIo) -> R {
    ready(c)?;
    let value = W::cut((*xmm(c, op, 1) >> element_shift::<W>(op)) as u64);
    if op.has(HAS_MEMORY) {
        return c.store(op, value, io);
    }
    value.zext().put(&mut c.regs, op.r[0]);
    Ok(())
}

fn insert_element<W: Width + Mem>(c: &mut Cpu, op: &Op, io: &mut dyn CpuIo) -> R {
    ready(c)?;
    // The register form of PINSRB names a 32-bit register, whose low byte it takes.
    let value = if op.has(HAS_MEMORY) { c.load::<W>(op, io)?.zext() } else { u64::get(&c.regs, op.r[1]) };
    let (shift, mask) = (element_shift::<W>(op), u128::from(W::cut(u64::MAX).zext()));
    let d = xmm(c, op, 0);
    *d = *d & !(mask << shift) | (u128::from(value) & mask) << shift;
    Ok(())
}
