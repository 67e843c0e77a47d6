//! EVEX gathers and scatters (SDM 2D VGATHERDPS, VSCATTERDPS): one element after the other, whose mask bit is cleared when it is done, so
//! that one that faults goes on where it was. As in AVX2's gathers, a single step's trap takes the place of the fault of a later element,
//! and elements need not be aligned whatever AC says.
//!
//! Not responsible for: gathers of AVX2 (`vex::masked`).

use super::{from_bytes, ready, set_zmm, to_bytes, zmm};
use crate::cpu::{Cpu, SEGS};
use crate::fault::{Fault, R};
use crate::isa::string::come_back;
use crate::lower::{Form, Kind};
use crate::mmu::walk::Want;
use crate::op::{CHECK_SEGMENT, Handler, Op};
use gemel_machine::CpuIo;
use iced_x86::Mnemonic;

/// Gathers.
pub fn gather(f: &Form<'_>) -> Option<Handler> {
    f.detail.set(Shape::of(f, 0).number());
    Some(gather_elements)
}

/// Scatters.
pub fn scatter(f: &Form<'_>) -> Option<Handler> {
    f.detail.set(Shape::of(f, 1).number());
    Some(scatter_elements)
}

/// Bytes of an element and of an index, how many there are, and the mask register.
#[derive(Clone, Copy)]
struct Shape {
    element: u32,
    index: u32,
    count: u32,
    mask: u32,
}

impl Shape {
    fn of(f: &Form<'_>, vector: u32) -> Self {
        use Mnemonic::*;
        let wide_element = matches!(
            f.mnemonic,
            Vgatherdpd
                | Vgatherqpd
                | Vpgatherdq
                | Vpgatherqq
                | Vscatterdpd
                | Vscatterqpd
                | Vpscatterdq
                | Vpscatterqq
        );
        let wide_index = matches!(
            f.mnemonic,
            Vgatherqps
                | Vgatherqpd
                | Vpgatherqd
                | Vpgatherqq
                | Vscatterqps
                | Vscatterqpd
                | Vpscatterqd
                | Vpscatterqq
        );
        let (element, index) = (if wide_element { 8 } else { 4 }, if wide_index { 8 } else { 4 });
        let bytes = match f.kind(vector) {
            Kind::Zmm => 64,
            Kind::Ymm => 32,
            _ => 16,
        };
        let indices = f.instruction.memory_index();
        let index_bytes = if indices.is_zmm() {
            64
        } else if indices.is_ymm() {
            32
        } else {
            16
        };
        let count = (bytes / element).min(index_bytes / index);
        Self { element, index, count, mask: f.instruction.op_mask().number() as u32 }
    }

    fn number(self) -> u32 {
        self.element | self.index << 8 | self.count << 16 | self.mask << 24
    }

    fn at(op: &Op) -> Self {
        let byte = |n: u32| op.detail >> (8 * n) & 0xff;
        Self { element: byte(0), index: byte(1), count: byte(2), mask: byte(3) & 7 }
    }
}

/// The linear address of an element.
fn linear(c: &mut Cpu, op: &Op, shape: Shape, indices: &[u8; 64], n: usize, write: bool) -> R<u64> {
    let at = n * shape.index as usize;
    let mut index = [0; 8];
    index[..shape.index as usize].copy_from_slice(&indices[at..at + shape.index as usize]);
    let index = if shape.index == 4 {
        i64::from(i32::from_le_bytes([index[0], index[1], index[2], index[3]])) as u64
    } else {
        u64::from_le_bytes(index)
    };
    let offset = c.ea(op).wrapping_add(index << op.scale) & op.address_mask;
    if op.has(CHECK_SEGMENT) {
        c.checked_linear(op.seg, offset, shape.element.into(), write)
    } else {
        Ok(offset.wrapping_add(c.seg_base[op.seg as usize % SEGS]))
    }
}

/// Ends at an element that faults: by the fault, or by the trap of a single step if there was progress.
fn suspend(c: &mut Cpu, op: &Op, progress: bool, fault: Fault) -> R {
    if progress && c.single_steps() {
        come_back(c, op);
        return Ok(());
    }
    Err(fault)
}

fn gather_one(
    c: &mut Cpu,
    op: &Op,
    shape: Shape,
    indices: &[u8; 64],
    n: usize,
    element: &mut [u8],
    io: &mut dyn CpuIo,
) -> R {
    let lin = linear(c, op, shape, indices, n, false)?;
    if !c.checks_alignment() {
        return c.read_bytes(lin, op.seg, element, io);
    }
    c.check_range(lin, element.len(), op.seg)?;
    for (at, byte) in (0..).zip(element) {
        *byte = c.read(lin.wrapping_add(at), op.seg, io)?;
    }
    Ok(())
}

fn scatter_one(
    c: &mut Cpu,
    op: &Op,
    shape: Shape,
    indices: &[u8; 64],
    n: usize,
    element: &[u8],
    io: &mut dyn CpuIo,
) -> R {
    let lin = linear(c, op, shape, indices, n, true)?;
    if !c.checks_alignment() {
        return c.write_bytes(lin, op.seg, element, io);
    }
    c.check_range(lin, element.len(), op.seg)?;
    c.check_place(lin, element.len(), Want::Write)?;
    for (at, byte) in (0..).zip(element) {
        c.write(lin.wrapping_add(at), op.seg, *byte, io)?;
    }
    Ok(())
}

fn gather_elements(c: &mut Cpu, op: &Op, io: &mut dyn CpuIo) -> R {
    ready(c)?;
    let shape = Shape::at(op);
    let (size, count) = (shape.element as usize, shape.count as usize);
    let indices = to_bytes(zmm(c, op.r[1]));
    let mut progress = false;
    for n in 0..count {
        if c.s.opmask[shape.mask as usize] >> n & 1 == 0 {
            continue;
        }
        let mut element = [0; 8];
        if let Err(fault) = gather_one(c, op, shape, &indices, n, &mut element[..size], io) {
            return suspend(c, op, progress, fault);
        }
        progress = true;
        let mut value = to_bytes(zmm(c, op.r[0]));
        value[n * size..(n + 1) * size].copy_from_slice(&element[..size]);
        // With the first element what lies beyond the longer of both vectors becomes zero, with the last one all beyond the elements.
        value[count * size.max(shape.index as usize)..].fill(0);
        set_zmm(c, op.r[0], from_bytes(&value));
        c.s.opmask[shape.mask as usize] &= !(1 << n);
    }
    let mut value = to_bytes(zmm(c, op.r[0]));
    value[count * size..].fill(0);
    set_zmm(c, op.r[0], from_bytes(&value));
    c.s.opmask[shape.mask as usize] = 0;
    Ok(())
}

fn scatter_elements(c: &mut Cpu, op: &Op, io: &mut dyn CpuIo) -> R {
    ready(c)?;
    let shape = Shape::at(op);
    let size = shape.element as usize;
    let (indices, value) = (to_bytes(zmm(c, op.r[0])), to_bytes(zmm(c, op.r[1])));
    let mut progress = false;
    for n in 0..shape.count as usize {
        if c.s.opmask[shape.mask as usize] >> n & 1 == 0 {
            continue;
        }
        if let Err(fault) = scatter_one(c, op, shape, &indices, n, &value[n * size..(n + 1) * size], io) {
            return suspend(c, op, progress, fault);
        }
        progress = true;
        c.s.opmask[shape.mask as usize] &= !(1 << n);
    }
    c.s.opmask[shape.mask as usize] = 0;
    Ok(())
}
