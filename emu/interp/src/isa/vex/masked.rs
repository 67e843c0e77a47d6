//! VEX memory access under a mask: conditional loads and stores, gathers, VMASKMOVDQU (SDM 1 14.1.6, 14.7.4; SDM 2C).
//!
//! Not responsible for: blends, which touch no memory that they do not want (`super`).
//!
//! An element whose mask is clear is not accessed: it cannot fault, and its page is not marked.

use super::{ready, set, xmm, ymm};
use crate::cpu::{Cpu, SEGS};
use crate::fault::R;
use crate::isa::cacheability::store_selected;
use crate::isa::string::come_back;
use crate::lower::{Form, Kind};
use crate::mmu::walk::Want;
use crate::op::{CHECK_SEGMENT, Handler, Op};
use crate::thunk::Ymm;
use gemel_machine::CpuIo;
use iced_x86::Mnemonic;

/// VMASKMOVPS, VMASKMOVPD, VPMASKMOVD, VPMASKMOVQ.
pub fn conditional(f: &Form<'_>) -> Option<Handler> {
    let double = matches!(f.mnemonic, Mnemonic::Vmaskmovpd | Mnemonic::Vpmaskmovq);
    let wide = f.kind(1) == Kind::Ymm;
    Some(match (f.kind(0) == Kind::Mem, double, wide) {
        (false, false, false) => load_chosen::<4, 4>,
        (false, false, true) => load_chosen::<4, 8>,
        (false, true, false) => load_chosen::<8, 2>,
        (false, true, true) => load_chosen::<8, 4>,
        (true, false, false) => store_chosen::<4, 4>,
        (true, false, true) => store_chosen::<4, 8>,
        (true, true, false) => store_chosen::<8, 2>,
        (true, true, true) => store_chosen::<8, 4>,
    })
}

/// VMASKMOVDQU.
pub fn maskmovdqu(_f: &Form<'_>) -> Option<Handler> {
    Some(store_bytes)
}

/// Gathers: bytes of an element, bytes of an index, elements. There are as many as fit both the destination and the indices.
pub fn gather(f: &Form<'_>) -> Option<Handler> {
    use Mnemonic::*;
    let wide = f.kind(0) == Kind::Ymm;
    let wide_indices = f.instruction.memory_index().is_ymm();
    Some(match (f.mnemonic, wide, wide_indices) {
        (Vgatherdps | Vpgatherdd, false, _) => gather_elements::<4, 4, 4>,
        (Vgatherdps | Vpgatherdd, true, _) => gather_elements::<4, 4, 8>,
        (Vgatherqps | Vpgatherqd, _, false) => gather_elements::<4, 8, 2>,
        (Vgatherqps | Vpgatherqd, _, true) => gather_elements::<4, 8, 4>,
        (Vgatherdpd | Vpgatherdq, false, _) => gather_elements::<8, 4, 2>,
        (Vgatherdpd | Vpgatherdq, true, _) => gather_elements::<8, 4, 4>,
        (_, false, _) => gather_elements::<8, 8, 2>,
        (_, true, _) => gather_elements::<8, 8, 4>,
    })
}

/// A register as its elements of four or eight bytes.
#[derive(Clone, Copy)]
struct Elements([u64; 4]);

impl From<Ymm> for Elements {
    fn from(value: Ymm) -> Self {
        Self([value.low as u64, (value.low >> 64) as u64, value.high as u64, (value.high >> 64) as u64])
    }
}

impl From<Elements> for Ymm {
    fn from(Elements([a, b, c, d]): Elements) -> Self {
        let pair = |low, high| u128::from(low) | u128::from(high) << 64;
        Self { low: pair(a, b), high: pair(c, d) }
    }
}

impl Elements {
    const ZERO: Self = Self([0; 4]);

    fn get<const BYTES: usize>(&self, n: usize) -> u64 {
        if BYTES == 8 { self.0[n & 3] } else { self.0[(n / 2) & 3] >> (n % 2 * 32) & 0xffff_ffff }
    }

    fn put<const BYTES: usize>(&mut self, n: usize, value: u64) {
        if BYTES == 8 {
            self.0[n & 3] = value;
        } else {
            let (slot, shift) = (&mut self.0[(n / 2) & 3], n % 2 * 32);
            *slot = *slot & !(0xffff_ffff << shift) | (value & 0xffff_ffff) << shift;
        }
    }

    /// Whether the sign bit of element `n` is set.
    fn chosen<const BYTES: usize>(&self, n: usize) -> bool {
        self.get::<BYTES>(n) >> (BYTES * 8 - 1) & 1 != 0
    }
}

/// The linear address at an offset, segment-checked for `bytes` bytes.
fn linear(c: &mut Cpu, op: &Op, offset: u64, bytes: usize, write: bool) -> R<u64> {
    if op.has(CHECK_SEGMENT) {
        c.checked_linear(op.seg, offset, bytes as u64, write)
    } else {
        Ok(offset.wrapping_add(c.seg_base[op.seg as usize % SEGS]))
    }
}

fn read_element<const BYTES: usize>(c: &mut Cpu, op: &Op, offset: u64, io: &mut dyn CpuIo) -> R<u64> {
    let lin = linear(c, op, offset, BYTES, false)?;
    if c.checks_alignment() {
        return read_bytewise::<BYTES>(c, op, lin, io);
    }
    if BYTES == 8 { c.read::<u64>(lin, op.seg, io) } else { c.read::<u32>(lin, op.seg, io).map(u64::from) }
}

/// Elements need not be aligned, whatever AC says: Zen 4 raises no #AC for them.
#[cold]
fn read_bytewise<const BYTES: usize>(c: &mut Cpu, op: &Op, lin: u64, io: &mut dyn CpuIo) -> R<u64> {
    c.check_range(lin, BYTES, op.seg)?;
    let mut value = 0;
    for n in 0..BYTES as u64 {
        value |= u64::from(c.read::<u8>(lin.wrapping_add(n), op.seg, io)?) << (8 * n);
    }
    Ok(value)
}

/// Offset of element `n` of the memory operand.
fn offset_of(c: &Cpu, op: &Op, n: usize, bytes: usize) -> u64 {
    c.ea(op).wrapping_add((n * bytes) as u64) & op.address_mask
}

fn load_chosen<const BYTES: usize, const COUNT: usize>(c: &mut Cpu, op: &Op, io: &mut dyn CpuIo) -> R {
    ready(c)?;
    let mask = Elements::from(ymm(c, op, 1));
    let mut value = Elements::ZERO;
    for n in (0..COUNT).filter(|n| mask.chosen::<BYTES>(*n)) {
        let offset = offset_of(c, op, n, BYTES);
        value.put::<BYTES>(n, read_element::<BYTES>(c, op, offset, io)?);
    }
    set(c, op, value.into());
    Ok(())
}

/// Nothing is stored unless all that is chosen can be.
fn store_chosen<const BYTES: usize, const COUNT: usize>(c: &mut Cpu, op: &Op, io: &mut dyn CpuIo) -> R {
    ready(c)?;
    let (mask, value) = (Elements::from(ymm(c, op, 1)), Elements::from(ymm(c, op, 2)));
    let chosen = |n: &usize| mask.chosen::<BYTES>(*n);
    for n in (0..COUNT).filter(chosen) {
        let offset = offset_of(c, op, n, BYTES);
        let lin = linear(c, op, offset, BYTES, true)?;
        c.check_range(lin, BYTES, op.seg)?;
        c.check_place(lin, BYTES, Want::Write)?;
    }
    for n in (0..COUNT).filter(chosen) {
        let offset = offset_of(c, op, n, BYTES);
        let lin = linear(c, op, offset, BYTES, true)?;
        let element = value.get::<BYTES>(n);
        if c.checks_alignment() {
            for (at, byte) in (0..).zip(&element.to_le_bytes()[..BYTES]) {
                c.write(lin.wrapping_add(at), op.seg, *byte, io)?;
            }
        } else if BYTES == 8 {
            c.write(lin, op.seg, element, io)?;
        } else {
            c.write(lin, op.seg, element as u32, io)?;
        }
    }
    Ok(())
}

fn store_bytes(c: &mut Cpu, op: &Op, io: &mut dyn CpuIo) -> R {
    ready(c)?;
    let (value, mask) = (xmm(c, op, 1).to_le_bytes(), xmm(c, op, 2).to_le_bytes());
    store_selected(c, op, &value, &mask, io)
}

/// One element after the other: its mask is cleared when it is there, so that a gather that faults goes on where it was
/// (SDM 2C VPGATHERDD). The register of indices is that of operand 1.
///
/// A single step's trap takes the place of the fault of a later element: the gather has made progress then, and comes back.
fn gather_elements<const BYTES: usize, const INDEX: usize, const COUNT: usize>(
    c: &mut Cpu,
    op: &Op,
    io: &mut dyn CpuIo,
) -> R {
    ready(c)?;
    let indices = Elements::from(ymm(c, op, 1));
    let mask_register = op.r[2] as usize & 15;
    let (mut value, mut mask) = (Elements::from(ymm(c, op, 0)), Elements::from(ymm(c, op, 2)));
    let keep = |c: &mut Cpu, value: Elements, mask: Elements| {
        set(c, op, value.into());
        let mask = Ymm::from(mask);
        (c.s.xmm[mask_register], c.s.ymm_upper[mask_register]) = (mask.low, mask.high);
        c.s.zmm_upper[mask_register] = [0; 2];
    };
    let mut progress = false;
    for n in 0..COUNT {
        if !mask.chosen::<BYTES>(n) {
            mask.put::<BYTES>(n, 0);
            continue;
        }
        let index = indices.get::<INDEX>(n);
        let index = if INDEX == 4 { index as i32 as u64 } else { index };
        let offset = c.ea(op).wrapping_add(index << op.scale) & op.address_mask;
        match read_element::<BYTES>(c, op, offset, io) {
            Ok(element) => value.put::<BYTES>(n, element),
            Err(fault) => {
                // Before the last element is there, what lies beyond YMM stays.
                let beyond = [op.r[0] as usize & 15, mask_register].map(|n| (n, c.s.zmm_upper[n]));
                keep(c, value, mask);
                beyond.into_iter().for_each(|(n, upper)| c.s.zmm_upper[n] = upper);
                if progress && c.single_steps() {
                    come_back(c, op);
                    return Ok(());
                }
                return Err(fault);
            }
        }
        progress = true;
        mask.put::<BYTES>(n, 0);
    }
    // What lies beyond the elements becomes zero in both registers.
    (COUNT * BYTES / 4..8).for_each(|n| value.put::<4>(n, 0));
    keep(c, value, Elements::ZERO);
    Ok(())
}
