//! EVEX stores, moves of a part of a register, and what reads memory in a way of its own (SDM 1 15.2).
//!
//! Not responsible for: gathers and scatters (`gather`).
//!
//! A store computes its register form; of the result those elements go to memory whose mask bit is set. All of them can be stored, or
//! none is.

use super::{
    Detail, Reads, bind_reading, from_bytes, load, operands, reading, ready, set_zmm, to_bytes, tuple_mask,
    under, zmm,
};
use crate::cpu::{Cpu, SEGS};
use crate::fault::R;
use crate::lower::{Form, Kind};
use crate::op::{CHECK_SEGMENT, Handler, Op};
use crate::thunk::{VexThunk, Zmm, evex};
use gemel_machine::CpuIo;
use iced_x86::{Code, Mnemonic};

const LOW: u128 = u64::MAX as u128;

/// Moves of whole registers, and what narrows or extracts on the way: memory may be either operand.
pub fn movement(f: &Form<'_>) -> Option<Handler> {
    if f.kind(0) != Kind::Mem {
        return reading(f, Reads::Elements, false);
    }
    bind_reading(f, Reads::Elements)?;
    Some(store::<false, false>)
}

/// VMOVAPS, VMOVAPD, VMOVDQA32, VMOVDQA64.
pub fn aligned(f: &Form<'_>) -> Option<Handler> {
    bind_reading(f, Reads::Elements)?;
    Some(match (f.kind(0), f.kind(1)) {
        (Kind::Mem, _) => store::<false, true>,
        (_, Kind::Mem) => load_aligned,
        _ => super::run::<{ super::VECTOR }, false>,
    })
}

/// VMOVNTPS, VMOVNTPD, VMOVNTDQ, VMOVNTDQA.
pub fn non_temporal(f: &Form<'_>) -> Option<Handler> {
    f.detail.set(Detail::of(f, Reads::Whole).0);
    Some(if f.kind(0) == Kind::Mem { store_register } else { load_register })
}

/// VCVTPS2PH.
pub fn to_half_precision(f: &Form<'_>) -> Option<Handler> {
    if f.kind(0) != Kind::Mem {
        return reading(f, Reads::Elements, true);
    }
    bind_reading(f, Reads::Elements)?;
    Some(store::<true, false>)
}

/// VCOMPRESSPS, VCOMPRESSPD, VPCOMPRESSD, VPCOMPRESSQ.
pub fn compress(f: &Form<'_>) -> Option<Handler> {
    if f.kind(0) != Kind::Mem {
        return reading(f, Reads::Elements, false);
    }
    bind_reading(f, Reads::Packed)?;
    Some(store::<false, false>)
}

/// VPEXTRB, VPEXTRW, VPEXTRD, VPEXTRQ, VEXTRACTPS, VMOVD, VMOVQ: where they store, memory takes what RAX would, or an element.
pub fn element(f: &Form<'_>) -> Option<Handler> {
    if f.kind(0) != Kind::Mem {
        return reading(f, Reads::Whole, false);
    }
    bind_reading(f, Reads::Whole)?;
    Some(if f.code == Code::EVEX_Vmovq_xmmm64_xmm { store::<false, false> } else { store_general })
}

/// VMOVSS, VMOVSD.
pub fn scalar(f: &Form<'_>) -> Option<Handler> {
    if f.kind(0) != Kind::Mem && f.kind(1) != Kind::Mem {
        return reading(f, Reads::Elements, false);
    }
    let zeroes = u32::from(f.instruction.zeroing_masking());
    f.detail.set(Detail::of(f, Reads::Elements).0);
    f.thunk.set(zeroes);
    Some(if f.kind(0) == Kind::Mem { store_scalar } else { load_scalar })
}

/// VMOVLPS, VMOVLPD, VMOVHPS, VMOVHPD.
pub fn half(f: &Form<'_>) -> Option<Handler> {
    let low = matches!(f.mnemonic, Mnemonic::Vmovlps | Mnemonic::Vmovlpd);
    Some(match (f.kind(0), low) {
        (Kind::Mem, true) => store_half::<true>,
        (Kind::Mem, false) => store_half::<false>,
        (_, true) => load_half::<true>,
        (_, false) => load_half::<false>,
    })
}

/// KMOV.
pub fn kmov(f: &Form<'_>) -> Option<Handler> {
    if f.kind(0) != Kind::Mem {
        return reading(f, Reads::Whole, false);
    }
    f.detail.set(Detail::of(f, Reads::Whole).0);
    Some(store_mask)
}

/// VBROADCASTF32X4 and its kin: a tuple from memory, then a move under the mask.
pub fn broadcast_tuple(f: &Form<'_>) -> Option<Handler> {
    use Mnemonic::*;
    let quads = matches!(f.mnemonic, Vbroadcastf64x2 | Vbroadcasti64x2 | Vbroadcastf64x4 | Vbroadcasti64x4);
    let code = match (quads, f.kind(0)) {
        (false, Kind::Ymm) => Code::EVEX_Vmovdqu32_ymm_k1z_ymmm256,
        (false, _) => Code::EVEX_Vmovdqu32_zmm_k1z_zmmm512,
        (true, Kind::Ymm) => Code::EVEX_Vmovdqu64_ymm_k1z_ymmm256,
        (true, _) => Code::EVEX_Vmovdqu64_zmm_k1z_zmmm512,
    };
    f.thunk.set(VexThunk::find_masked(code, 0, f.instruction.zeroing_masking())?.number());
    f.detail.set(Detail::of(f, Reads::Any).0);
    Some(load_tuple)
}

/// The linear address of the byte at `from` in the memory operand, segment-checked for `bytes` bytes.
fn linear(c: &mut Cpu, op: &Op, from: u64, bytes: usize, write: bool) -> R<u64> {
    let offset = c.ea(op).wrapping_add(from) & op.address_mask;
    if op.has(CHECK_SEGMENT) {
        c.checked_linear(op.seg, offset, bytes as u64, write)
    } else {
        Ok(offset.wrapping_add(c.seg_base[op.seg as usize % SEGS]))
    }
}

/// Reads bytes of the memory operand, from the one at `from` on.
pub(super) fn read(c: &mut Cpu, op: &Op, from: u64, out: &mut [u8], io: &mut dyn CpuIo) -> R {
    if out.is_empty() {
        return Ok(());
    }
    let lin = linear(c, op, from, out.len(), false)?;
    c.read_bytes(lin, op.seg, out, io)
}

fn write(c: &mut Cpu, op: &Op, from: u64, bytes: &[u8], io: &mut dyn CpuIo) -> R {
    if bytes.is_empty() {
        return Ok(());
    }
    let lin = linear(c, op, from, bytes.len(), true)?;
    c.write_bytes(lin, op.seg, bytes, io)
}

/// #GP unless the whole operand is aligned to its size.
fn require_aligned(c: &mut Cpu, op: &Op, size: usize) -> R {
    let lin = c.ea(op).wrapping_add(c.seg_base[op.seg as usize % SEGS]);
    if lin & (size as u64 - 1) != 0 {
        return c.general_protection(0);
    }
    Ok(())
}

/// Writes the elements that the mask chooses.
fn write_chosen(c: &mut Cpu, op: &Op, detail: Detail, value: Zmm, io: &mut dyn CpuIo) -> R {
    let bytes = to_bytes(value);
    let (size, element, mask) = (detail.size(), detail.element(), detail.mask(c));
    if detail.reads() == Reads::Packed {
        let elements = size / element;
        let chosen = if elements >= 64 { mask } else { mask & ((1 << elements) - 1) };
        return write(c, op, 0, &bytes[..chosen.count_ones() as usize * element], io);
    }
    if !detail.is_masked() {
        return write(c, op, 0, &bytes[..size], io);
    }
    let chosen = |n: &usize| mask >> n & 1 != 0;
    for n in (0..size / element).filter(chosen) {
        let lin = linear(c, op, (n * element) as u64, element, true)?;
        c.check_write(lin, element, op.seg, io)?;
    }
    for n in (0..size / element).filter(chosen) {
        let at = n * element;
        write(c, op, at as u64, &bytes[at..at + element], io)?;
    }
    Ok(())
}

fn store<const FLOAT: bool, const ALIGNED: bool>(c: &mut Cpu, op: &Op, io: &mut dyn CpuIo) -> R {
    ready(c)?;
    let detail = Detail::at(op);
    if ALIGNED {
        require_aligned(c, op, detail.size())?;
    }
    let mut regs = operands(c, op, detail);
    regs.vectors[0] = Zmm::default();
    let before = c.s.mxcsr;
    if FLOAT {
        regs = under(c, op, detail, regs)?;
    } else {
        evex(VexThunk::at(op.thunk), &mut regs);
    }
    // Nothing changes, MXCSR's flags neither, when the store faults.
    write_chosen(c, op, detail, regs.vectors[0], io).inspect_err(|_| c.s.mxcsr = before)
}

fn store_general(c: &mut Cpu, op: &Op, io: &mut dyn CpuIo) -> R {
    ready(c)?;
    let detail = Detail::at(op);
    let mut regs = operands(c, op, detail);
    evex(VexThunk::at(op.thunk), &mut regs);
    write(c, op, 0, &regs.rax.to_le_bytes()[..detail.size().min(8)], io)
}

fn store_mask(c: &mut Cpu, op: &Op, io: &mut dyn CpuIo) -> R {
    ready(c)?;
    let value = c.s.opmask[usize::from(op.r[1] & 7)].to_le_bytes();
    write(c, op, 0, &value[..Detail::at(op).size().min(8)], io)
}

fn load_aligned(c: &mut Cpu, op: &Op, io: &mut dyn CpuIo) -> R {
    ready(c)?;
    require_aligned(c, op, Detail::at(op).size())?;
    super::run::<{ super::VECTOR }, false>(c, op, io)
}

fn load_register(c: &mut Cpu, op: &Op, io: &mut dyn CpuIo) -> R {
    ready(c)?;
    let detail = Detail::at(op);
    require_aligned(c, op, detail.size())?;
    let value = load(c, op, detail, io)?;
    set_zmm(c, op.r[0], from_bytes(&value));
    Ok(())
}

fn store_register(c: &mut Cpu, op: &Op, io: &mut dyn CpuIo) -> R {
    ready(c)?;
    let size = Detail::at(op).size();
    require_aligned(c, op, size)?;
    let bytes = to_bytes(zmm(c, op.r[1]));
    write(c, op, 0, &bytes[..size], io)
}

fn load_scalar(c: &mut Cpu, op: &Op, io: &mut dyn CpuIo) -> R {
    ready(c)?;
    let detail = Detail::at(op);
    let value = from_bytes(&load(c, op, detail, io)?)[0];
    let zeroes = op.thunk != 0;
    let all = if detail.size() == 4 { 0xffff_ffff } else { LOW };
    let low = match (detail.mask(c) & 1 != 0, zeroes) {
        (true, _) => value & all,
        (false, true) => 0,
        (false, false) => zmm(c, op.r[0])[0] & all,
    };
    set_zmm(c, op.r[0], [low, 0, 0, 0]);
    Ok(())
}

fn store_scalar(c: &mut Cpu, op: &Op, io: &mut dyn CpuIo) -> R {
    ready(c)?;
    let detail = Detail::at(op);
    let value = zmm(c, op.r[1]);
    write_chosen(c, op, detail, value, io)
}

fn load_half<const TO_LOW: bool>(c: &mut Cpu, op: &Op, io: &mut dyn CpuIo) -> R {
    ready(c)?;
    let value = u128::from(c.load::<u64>(op, io)?);
    let other = zmm(c, op.r[1])[0];
    let low = if TO_LOW { other & !LOW | value } else { other & LOW | value << 64 };
    set_zmm(c, op.r[0], [low, 0, 0, 0]);
    Ok(())
}

fn store_half<const LOWER: bool>(c: &mut Cpu, op: &Op, io: &mut dyn CpuIo) -> R {
    ready(c)?;
    let value = zmm(c, op.r[1])[0];
    c.store(op, if LOWER { value as u64 } else { (value >> 64) as u64 }, io)
}

fn load_tuple(c: &mut Cpu, op: &Op, io: &mut dyn CpuIo) -> R {
    ready(c)?;
    let detail = Detail::at(op);
    let mut regs = operands(c, op, detail);
    let mut bytes = [0; 64];
    if regs.masks[0] & tuple_mask(detail) != 0 {
        read(c, op, 0, &mut bytes[..detail.size()], io)?;
    }
    for at in (detail.size()..64).step_by(detail.size()) {
        bytes.copy_within(..detail.size(), at);
    }
    regs.vectors[1] = from_bytes(&bytes);
    evex(VexThunk::at(op.thunk), &mut regs);
    set_zmm(c, op.r[0], regs.vectors[0]);
    Ok(())
}
