//! Cacheability control and ordering (SDM 1 5.5.4, 5.6.4): non-temporal and masked stores, prefetches, flushes, fences.
//!
//! Not responsible for: caches. There are none to see: one vCPU, and memory that is always coherent.

use super::mmx::{enter, mm, mmx_ready};
use super::simd::ready;
use super::simd_transfer::{load_16_aligned, store_16_aligned};
use crate::cpu::{Cpu, SEGS, Width};
use crate::fault::R;
use crate::lower::Form;
use crate::mmu::access::Mem;
use crate::op::{CHECK_SEGMENT, Handler, Op};
use gemel_machine::CpuIo;
use iced_x86::Code;

/// MOVNTPS, MOVNTPD, MOVNTDQ.
pub fn store_non_temporal(_f: &Form<'_>) -> Option<Handler> {
    Some(store_16_aligned)
}

/// MOVNTDQA.
pub fn load_non_temporal(_f: &Form<'_>) -> Option<Handler> {
    Some(load_16_aligned)
}

/// MOVNTI: an integer store, whatever CR0 and CR4 say.
pub fn movnti(f: &Form<'_>) -> Option<Handler> {
    Some(if f.code == Code::Movnti_m64_r64 { store_general::<u64> } else { store_general::<u32> })
}

/// MASKMOVDQU and MASKMOVQ.
pub fn maskmov(f: &Form<'_>) -> Option<Handler> {
    Some(if f.code == Code::Maskmovdqu_rDI_xmm_xmm { maskmovdqu } else { maskmovq })
}

/// PREFETCHh, PREFETCHW, LFENCE, SFENCE, MFENCE: nothing is reordered, nothing is cached.
pub fn hint(_f: &Form<'_>) -> Option<Handler> {
    Some(nothing)
}

/// CLFLUSH.
pub fn clflush(_f: &Form<'_>) -> Option<Handler> {
    Some(touch)
}

fn nothing(_c: &mut Cpu, _op: &Op, _io: &mut dyn CpuIo) -> R {
    Ok(())
}

/// Faults as a load of one byte would (SDM 2A CLFLUSH).
fn touch(c: &mut Cpu, op: &Op, io: &mut dyn CpuIo) -> R {
    c.load::<u8>(op, io).map(|_| ())
}

fn store_general<W: Width + Mem>(c: &mut Cpu, op: &Op, io: &mut dyn CpuIo) -> R {
    let value = W::get(&c.regs, op.r[1]);
    c.store(op, value, io)
}

fn maskmovdqu(c: &mut Cpu, op: &Op, io: &mut dyn CpuIo) -> R {
    ready(c)?;
    let value = c.s.xmm[op.r[1] as usize & 15].to_le_bytes();
    let mask = c.s.xmm[op.r[2] as usize & 15].to_le_bytes();
    store_selected(c, op, &value, &mask, io)
}

fn maskmovq(c: &mut Cpu, op: &Op, io: &mut dyn CpuIo) -> R {
    mmx_ready(c)?;
    let (value, mask) = (mm(c, op.r[1]).to_le_bytes(), mm(c, op.r[2]).to_le_bytes());
    // Also a store that faults has made the x87 registers MMX registers.
    enter(c);
    store_selected(c, op, &value, &mask, io)
}

/// Stores the bytes whose mask byte has its top bit set, to where RDI points. Whatever the mask, all of the operand must be
/// writable (SDM 2B MASKMOVDQU leaves it open; Zen 4 does it so).
pub(super) fn store_selected(c: &mut Cpu, op: &Op, value: &[u8], mask: &[u8], io: &mut dyn CpuIo) -> R {
    // Eight bytes at a time, as faults show.
    let mut halves = [0; 2];
    for (half, start) in halves.iter_mut().zip((0..value.len()).step_by(8)) {
        let offset = c.regs[7].wrapping_add(start as u64) & op.address_mask;
        *half = if op.has(CHECK_SEGMENT) {
            c.checked_linear(op.seg, offset, 8, true)?
        } else {
            offset.wrapping_add(c.seg_base[op.seg as usize % SEGS])
        };
        c.check_write(*half, 8, op.seg, io)?;
    }
    for i in (0..value.len()).filter(|i| mask[*i] & 0x80 != 0) {
        c.write(halves[i / 8].wrapping_add(i as u64 % 8), op.seg, value[i], io)?;
    }
    Ok(())
}
