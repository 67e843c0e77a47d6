//! EVEX stores, moves of a part of a register, and what reads memory in a way of its own (SDM 1 15.2).
//!
//! Not responsible for: gathers and scatters (`gather`).
//!
//! A store computes its register form; of the result those elements go to memory whose mask bit is set. All of them can be stored, or
//! none is.

use super::{
    Detail, Reads, bind_reading, first, from_bytes, load, operands, reading, ready, set_zmm, to_bytes, under,
    zmm,
};
use crate::cpu::{Cpu, SEGS};
use crate::fault::R;
use crate::lower::{Form, Kind};
use crate::op::{CHECK_SEGMENT, Handler, Op};
use crate::thunk::{VexThunk, Zmm, evex};
use gemel_machine::CpuIo;
use iced_x86::{Code, Mnemonic};

const LOW: u128 = u64::MAX as u128;

/// Moves of whole registers, and what narrows on the way: memory may be either operand.
pub fn movement(f: &Form<'_>) -> Option<Handler> {
    if f.kind(0) != Kind::Mem {
        return reading(f, Reads::Elements, false);
    }
    bind_reading(f, Reads::Elements)?;
    Some(store::<false, false>)
}

/// VEXTRACTF32X4 and its kin. A store of them faults whatever the mask says (SDM 2A 2.8.8: type E6NF).
pub fn extract(f: &Form<'_>) -> Option<Handler> {
    if f.kind(0) != Kind::Mem {
        return reading(f, Reads::Elements, false);
    }
    bind_reading(f, Reads::Whole)?;
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
    f.detail.set(Detail::of(f, Reads::Tuple).0);
    Some(load_tuple)
}

/// The linear address of the byte at `from` in the memory operand, segment-checked for `bytes` bytes. The operand's first byte has its
/// offset wrapped to the address size, the others lie behind it, beyond the segment's end if need be.
fn linear(c: &mut Cpu, op: &Op, from: u64, bytes: usize, write: bool) -> R<u64> {
    let offset = c.ea(op).wrapping_add(from);
    if op.has(CHECK_SEGMENT) {
        // Beyond 4 GiB is beyond every segment, as are two bytes from the last one on.
        let beyond = !c.is_64() && offset > u32::MAX.into();
        let (offset, bytes) = if beyond { (u32::MAX.into(), 2) } else { (offset, bytes as u64) };
        c.checked_linear(op.seg, offset, bytes, write)
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

/// Reads those elements of a tuple that go to an element of the register whose mask bit is set.
pub(super) fn read_tuple(c: &mut Cpu, op: &Op, detail: Detail, out: &mut [u8; 64], io: &mut dyn CpuIo) -> R {
    let (size, element) = (detail.size(), detail.element());
    if !detail.is_masked() {
        return read(c, op, 0, &mut out[..size], io);
    }
    let (mask, elements) = (detail.mask(c), detail.vector() / element);
    for n in 0..size / element {
        if (n..elements).step_by(size / element).any(|to| mask >> to & 1 != 0) {
            let at = n * element;
            read(c, op, at as u64, &mut out[at..at + element], io)?;
        }
    }
    Ok(())
}

fn write(c: &mut Cpu, op: &Op, from: u64, bytes: &[u8], io: &mut dyn CpuIo) -> R {
    if bytes.is_empty() {
        return Ok(());
    }
    if bytes.len() == 64 {
        // Zen 4 looks at the lower half before it knows where the upper one ends.
        c.probe(op, from, 32, true)?;
    }
    let lin = linear(c, op, from, bytes.len(), true)?;
    c.write_bytes(lin, op.seg, bytes, io)
}

/// #GP unless the whole operand is aligned to its size. If the mask chooses nothing of it, it need not be.
fn require_aligned(c: &mut Cpu, op: &Op, detail: Detail) -> R {
    let size = detail.size();
    if detail.is_masked() && detail.mask(c) & first(size / detail.element()) == 0 {
        return Ok(());
    }
    let lin = c.ea(op).wrapping_add(c.seg_base[op.seg as usize % SEGS]);
    if lin & (size as u64 - 1) != 0 {
        return c.general_protection(0);
    }
    Ok(())
}

/// Elements of the operand that go to memory: which of the register they are, in the order of memory.
fn chosen(c: &Cpu, detail: Detail) -> impl Iterator<Item = usize> + use<> {
    let mask = detail.mask(c);
    (0..detail.size() / detail.element()).filter(move |n| mask >> n & 1 != 0)
}

/// Where the element `n` of the register, the `place`th of those chosen, begins in memory.
fn place_of(detail: Detail, place: usize, n: usize) -> u64 {
    let number = if detail.reads() == Reads::Packed { place } else { n };
    (number * detail.element()) as u64
}

/// Faults now if an element that the mask chooses can't be written.
fn check_chosen(c: &mut Cpu, op: &Op, detail: Detail, io: &mut dyn CpuIo) -> R {
    if detail.reads() == Reads::Whole || detail.stores_all() {
        return c.probe(op, 0, detail.size(), true);
    }
    for (place, n) in chosen(c, detail).enumerate() {
        let lin = linear(c, op, place_of(detail, place, n), detail.element(), true)?;
        c.check_write(lin, detail.element(), op.seg, io)?;
    }
    Ok(())
}

/// Writes the elements that the mask chooses.
fn write_chosen(c: &mut Cpu, op: &Op, detail: Detail, value: Zmm, io: &mut dyn CpuIo) -> R {
    let bytes = to_bytes(value);
    if detail.stores_all() {
        return write(c, op, 0, &bytes[..detail.size()], io);
    }
    check_chosen(c, op, detail, io)?;
    for (place, n) in chosen(c, detail).enumerate() {
        // What a compression stores is already packed.
        let to = place_of(detail, place, n);
        let from = if detail.reads() == Reads::Packed { to as usize } else { n * detail.element() };
        write(c, op, to, &bytes[from..from + detail.element()], io)?;
    }
    Ok(())
}

fn store<const FLOAT: bool, const ALIGNED: bool>(c: &mut Cpu, op: &Op, io: &mut dyn CpuIo) -> R {
    ready(c)?;
    let detail = Detail::at(op);
    if ALIGNED {
        require_aligned(c, op, detail)?;
    }
    let mut regs = operands(c, op, detail);
    regs.vectors[0] = Zmm::default();
    if FLOAT {
        // A fault of the store precedes those of the conversion, and MXCSR's flags.
        check_chosen(c, op, detail, io)?;
        regs = under(c, op, detail, regs)?;
    } else {
        evex(VexThunk::at(op.thunk), &mut regs);
    }
    write_chosen(c, op, detail, regs.vectors[0], io)
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
    require_aligned(c, op, Detail::at(op))?;
    super::run::<{ super::VECTOR }, false>(c, op, io)
}

fn load_register(c: &mut Cpu, op: &Op, io: &mut dyn CpuIo) -> R {
    ready(c)?;
    let detail = Detail::at(op);
    require_aligned(c, op, detail)?;
    let value = load(c, op, detail, io)?;
    set_zmm(c, op.r[0], from_bytes(&value));
    Ok(())
}

fn store_register(c: &mut Cpu, op: &Op, io: &mut dyn CpuIo) -> R {
    ready(c)?;
    let detail = Detail::at(op);
    require_aligned(c, op, detail)?;
    let bytes = to_bytes(zmm(c, op.r[1]));
    write(c, op, 0, &bytes[..detail.size()], io)
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
    read_tuple(c, op, detail, &mut bytes, io)?;
    for at in (detail.size()..64).step_by(detail.size()) {
        bytes.copy_within(..detail.size(), at);
    }
    regs.vectors[1] = from_bytes(&bytes);
    evex(VexThunk::at(op.thunk), &mut regs);
    set_zmm(c, op.r[0], regs.vectors[0]);
    Ok(())
}
