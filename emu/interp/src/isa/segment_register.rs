//! Segment register instructions: MOV, PUSH, POP with a segment register, LDS to LGS, RDFSBASE and its kin
//! (SDM 1 5.1.12; 2A, 2B).
//!
//! Not responsible for: the checks of a load (`segmentation`).

use crate::cpu::{Cpu, Width};
use crate::fault::R;
use crate::lower::{Form, Kind};
use crate::mmu::access::{Mem, canonical};
use crate::op::{HAS_MEMORY, Handler, Op};
use crate::stack::Slot;
use gemel_machine::CpuIo;
use gemel_x86::control::CR4_FSGSBASE;
use gemel_x86::segment::{CS, DS, ES, FS, GS, SS};
use iced_x86::Code;

/// MOV r/m16, Sreg and MOV Sreg, r/m16.
pub fn mov(f: &Form) -> Option<Handler> {
    Some(match f.code {
        Code::Mov_rm16_Sreg => from_segment::<u16>,
        Code::Mov_r32m16_Sreg => from_segment::<u32>,
        Code::Mov_r64m16_Sreg => from_segment::<u64>,
        Code::Mov_Sreg_rm16 | Code::Mov_Sreg_r32m16 | Code::Mov_Sreg_r64m16 => to_segment,
        _ => return None,
    })
}

/// PUSH ES, CS, SS, DS, FS, GS.
pub fn push(f: &Form) -> Option<Handler> {
    use Code::*;
    Some(match f.code {
        Pushw_ES | Pushw_CS | Pushw_SS | Pushw_DS | Pushw_FS | Pushw_GS => push_segment::<u16>,
        Pushd_ES | Pushd_CS | Pushd_SS | Pushd_DS | Pushd_FS | Pushd_GS => push_segment::<u32>,
        Pushq_FS | Pushq_GS => push_segment::<u64>,
        _ => return None,
    })
}

/// POP ES, SS, DS, FS, GS.
pub fn pop(f: &Form) -> Option<Handler> {
    use Code::*;
    Some(match f.code {
        Popw_ES | Popw_SS | Popw_DS | Popw_FS | Popw_GS => pop_segment::<u16>,
        Popd_ES | Popd_SS | Popd_DS | Popd_FS | Popd_GS => pop_segment::<u32>,
        Popq_FS | Popq_GS => pop_segment::<u64>,
        _ => return None,
    })
}

/// LDS.
pub fn lds(f: &Form) -> Option<Handler> {
    load_pointer::<DS>(f)
}

/// LES.
pub fn les(f: &Form) -> Option<Handler> {
    load_pointer::<ES>(f)
}

/// LSS.
pub fn lss(f: &Form) -> Option<Handler> {
    load_pointer::<SS>(f)
}

/// LFS.
pub fn lfs(f: &Form) -> Option<Handler> {
    load_pointer::<FS>(f)
}

/// LGS.
pub fn lgs(f: &Form) -> Option<Handler> {
    load_pointer::<GS>(f)
}

/// RDFSBASE.
pub fn rdfsbase(f: &Form) -> Option<Handler> {
    Some(if f.width == 64 { read_base::<u64, FS> } else { read_base::<u32, FS> })
}

/// RDGSBASE.
pub fn rdgsbase(f: &Form) -> Option<Handler> {
    Some(if f.width == 64 { read_base::<u64, GS> } else { read_base::<u32, GS> })
}

/// WRFSBASE.
pub fn wrfsbase(f: &Form) -> Option<Handler> {
    Some(if f.width == 64 { write_base::<u64, FS> } else { write_base::<u32, FS> })
}

/// WRGSBASE.
pub fn wrgsbase(f: &Form) -> Option<Handler> {
    Some(if f.width == 64 { write_base::<u64, GS> } else { write_base::<u32, GS> })
}

fn from_segment<W: Width>(cpu: &mut Cpu, op: &Op, io: &mut dyn CpuIo) -> R {
    let selector = cpu.s.seg[op.r[1] as usize % 6].selector;
    if op.has(HAS_MEMORY) {
        return cpu.store(op, selector, io);
    }
    W::cut(selector.into()).put(&mut cpu.regs, op.r[0]);
    Ok(())
}

/// A load of SS holds off interrupts and #DB until the next instruction is done (SDM 3A 6.8.3).
fn finish_load(cpu: &mut Cpu, index: usize) {
    if index == SS {
        cpu.shadow = 3;
        cpu.limit = 0;
    }
}

fn to_segment(cpu: &mut Cpu, op: &Op, io: &mut dyn CpuIo) -> R {
    let index = op.r[0] as usize;
    if index == CS || index > GS {
        return cpu.undefined();
    }
    let selector = if op.has(HAS_MEMORY) { cpu.load(op, io)? } else { u16::get(&cpu.regs, op.r[1]) };
    cpu.load_segment(index, selector, io)?;
    finish_load(cpu, index);
    Ok(())
}

fn push_segment<W: Width + Mem>(cpu: &mut Cpu, op: &Op, io: &mut dyn CpuIo) -> R {
    let selector = cpu.s.seg[op.r[0] as usize % 6].selector;
    cpu.push(W::cut(selector.into()), io)
}

fn pop_segment<W: Width>(cpu: &mut Cpu, op: &Op, io: &mut dyn CpuIo) -> R {
    let index = op.r[0] as usize % 6;
    let mut stack = cpu.stack();
    let selector = stack.pop(cpu, Slot::of::<W>(), io)? as u16;
    let segment = cpu.checked_segment(index, selector, io)?;
    // POP SS moves the pointer of the stack that it popped from.
    cpu.commit_stack(&stack);
    cpu.set_segment(index, segment);
    finish_load(cpu, index);
    Ok(())
}

fn load_pointer<const INDEX: usize>(f: &Form) -> Option<Handler> {
    if f.kind(1) != Kind::Mem {
        return None;
    }
    Some(match f.width {
        16 => pointer::<u16, INDEX>,
        32 => pointer::<u32, INDEX>,
        _ => pointer::<u64, INDEX>,
    })
}

fn pointer<W: Width + Mem, const INDEX: usize>(cpu: &mut Cpu, op: &Op, io: &mut dyn CpuIo) -> R {
    let (selector, offset) = cpu.far_pointer::<W>(op, io)?;
    cpu.load_segment(INDEX, selector, io)?;
    offset.put(&mut cpu.regs, op.r[0]);
    finish_load(cpu, INDEX);
    Ok(())
}

fn require_base_access(cpu: &mut Cpu) -> R {
    if cpu.is_64() && cpu.s.cr4 & CR4_FSGSBASE != 0 { Ok(()) } else { cpu.undefined() }
}

fn read_base<W: Width, const INDEX: usize>(cpu: &mut Cpu, op: &Op, _: &mut dyn CpuIo) -> R {
    require_base_access(cpu)?;
    W::cut(cpu.s.seg[INDEX].base).put(&mut cpu.regs, op.r[0]);
    Ok(())
}

fn write_base<W: Width, const INDEX: usize>(cpu: &mut Cpu, op: &Op, _: &mut dyn CpuIo) -> R {
    require_base_access(cpu)?;
    let base = W::get(&cpu.regs, op.r[0]).zext();
    if !canonical(base) {
        return cpu.general_protection(0);
    }
    cpu.set_segment_base(INDEX, base);
    Ok(())
}

impl Cpu {
    /// Sets the base of FS or GS without a descriptor.
    pub(crate) fn set_segment_base(&mut self, index: usize, base: u64) {
        self.s.seg[index].base = base;
        self.seg_base[index] = base;
    }
}
