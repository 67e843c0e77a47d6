//! LGDT, LIDT, SGDT, SIDT, LLDT, LTR, SLDT, STR, and the instructions that ask about selectors: LAR, LSL, VERR, VERW,
//! ARPL (SDM 1 5.20; 3A 5.10).
//!
//! Not responsible for: the checks of LLDT and LTR (`segmentation`).

use crate::cpu::{Cpu, Width};
use crate::fault::R;
use crate::lower::Form;
use crate::mmu::access::canonical;
use crate::op::{HAS_MEMORY, Handler, Op};
use crate::segmentation::{Descriptor, system_type};
use gemel_machine::CpuIo;
use gemel_x86::flags::ZF;
use gemel_x86::segment::{TableRegister, attr};
use iced_x86::Code;

/// LGDT.
pub fn lgdt(_: &Form) -> Option<Handler> {
    Some(|cpu, op, io| {
        cpu.s.gdtr = load_table(cpu, op, io)?;
        Ok(())
    })
}

/// LIDT.
pub fn lidt(_: &Form) -> Option<Handler> {
    Some(|cpu, op, io| {
        cpu.s.idtr = load_table(cpu, op, io)?;
        Ok(())
    })
}

/// SGDT.
pub fn sgdt(_: &Form) -> Option<Handler> {
    Some(|cpu, op, io| store_table(cpu, op, cpu.s.gdtr, io))
}

/// SIDT.
pub fn sidt(_: &Form) -> Option<Handler> {
    Some(|cpu, op, io| store_table(cpu, op, cpu.s.idtr, io))
}

/// LLDT.
pub fn lldt(_: &Form) -> Option<Handler> {
    Some(|cpu, op, io| {
        require_protected(cpu)?;
        cpu.require_ring0()?;
        let selector = selector_operand(cpu, op, 0, io)?;
        cpu.load_ldtr(selector, io)
    })
}

/// LTR.
pub fn ltr(_: &Form) -> Option<Handler> {
    Some(|cpu, op, io| {
        require_protected(cpu)?;
        cpu.require_ring0()?;
        let selector = selector_operand(cpu, op, 0, io)?;
        cpu.load_tr(selector, io)
    })
}

/// SLDT.
pub fn sldt(f: &Form) -> Option<Handler> {
    Some(match f.code {
        Code::Sldt_rm16 => |cpu, op, io| store_selector::<u16>(cpu, op, cpu.s.ldtr.selector, io),
        Code::Sldt_r32m16 => |cpu, op, io| store_selector::<u32>(cpu, op, cpu.s.ldtr.selector, io),
        _ => |cpu, op, io| store_selector::<u64>(cpu, op, cpu.s.ldtr.selector, io),
    })
}

/// STR.
pub fn str(f: &Form) -> Option<Handler> {
    Some(match f.code {
        Code::Str_rm16 => |cpu, op, io| store_selector::<u16>(cpu, op, cpu.s.tr.selector, io),
        Code::Str_r32m16 => |cpu, op, io| store_selector::<u32>(cpu, op, cpu.s.tr.selector, io),
        _ => |cpu, op, io| store_selector::<u64>(cpu, op, cpu.s.tr.selector, io),
    })
}

/// LAR.
pub fn lar(f: &Form) -> Option<Handler> {
    Some(match f.code {
        Code::Lar_r16_rm16 => load_rights::<u16>,
        Code::Lar_r32_r32m16 => load_rights::<u32>,
        _ => load_rights::<u64>,
    })
}

/// LSL.
pub fn lsl(f: &Form) -> Option<Handler> {
    Some(match f.code {
        Code::Lsl_r16_rm16 => load_limit::<u16>,
        Code::Lsl_r32_r32m16 => load_limit::<u32>,
        _ => load_limit::<u64>,
    })
}

/// VERR.
pub fn verr(_: &Form) -> Option<Handler> {
    Some(|cpu, op, io| verify(cpu, op, io, Descriptor::is_readable))
}

/// VERW.
pub fn verw(_: &Form) -> Option<Handler> {
    Some(|cpu, op, io| verify(cpu, op, io, Descriptor::is_writable_data))
}

/// ARPL.
pub fn arpl(_: &Form) -> Option<Handler> {
    Some(adjust_rpl)
}

/// These instructions are not recognised in real and virtual-8086 mode.
fn require_protected(cpu: &mut Cpu) -> R {
    if cpu.protected() { Ok(()) } else { cpu.undefined() }
}

/// A selector in a register or in 16 bits of memory.
fn selector_operand(cpu: &mut Cpu, op: &Op, n: usize, io: &mut dyn CpuIo) -> R<u16> {
    if op.has(HAS_MEMORY) { cpu.load(op, io) } else { Ok(u16::get(&cpu.regs, op.r[n])) }
}

fn store_selector<W: Width>(cpu: &mut Cpu, op: &Op, selector: u16, io: &mut dyn CpuIo) -> R {
    require_protected(cpu)?;
    cpu.require_no_umip()?;
    if op.has(HAS_MEMORY) {
        return cpu.store(op, selector, io);
    }
    W::cut(selector.into()).put(&mut cpu.regs, op.r[0]);
    Ok(())
}

/// Limit and base in memory: 16 and 64 bits in 64-bit mode, else 16 and 32, of which a 16-bit operand uses 24.
fn load_table(cpu: &mut Cpu, op: &Op, io: &mut dyn CpuIo) -> R<TableRegister> {
    cpu.require_ring0()?;
    let long = cpu.is_64();
    let lin = cpu.linear(op, if long { 10 } else { 6 }, false)?;
    let limit = cpu.read::<u16>(lin, op.seg, io)?;
    let at = cpu.system_linear(lin, 2);
    let base = if long { cpu.read::<u64>(at, op.seg, io)? } else { cpu.read::<u32>(at, op.seg, io)?.into() };
    let narrow = op.code == Code::Lgdt_m1632_16 as u16 || op.code == Code::Lidt_m1632_16 as u16;
    if !canonical(base) {
        return cpu.general_protection(0);
    }
    Ok(TableRegister { base: if narrow { base & 0xff_ffff } else { base }, limit })
}

/// All 32 (or 64) bits of the base are stored, whatever the operand size.
fn store_table(cpu: &mut Cpu, op: &Op, table: TableRegister, io: &mut dyn CpuIo) -> R {
    cpu.require_no_umip()?;
    let long = cpu.is_64();
    let bytes = if long { 10 } else { 6 };
    let lin = cpu.linear(op, bytes, true)?;
    cpu.check_write(lin, bytes as usize, op.seg, io)?;
    cpu.write(lin, op.seg, table.limit, io)?;
    let at = cpu.system_linear(lin, 2);
    if long { cpu.write(at, op.seg, table.base, io) } else { cpu.write(at, op.seg, table.base as u32, io) }
}

/// The descriptor that LAR, LSL, VERR and VERW ask about, when it is visible at CPL and RPL.
fn visible(cpu: &mut Cpu, op: &Op, n: usize, io: &mut dyn CpuIo) -> R<Option<Descriptor>> {
    require_protected(cpu)?;
    let selector = selector_operand(cpu, op, n, io)?;
    let cpl = cpu.s.cpl;
    Ok(cpu.look_up(selector, io)?.filter(|d| d.is_conforming() || d.dpl() >= cpl.max(d.rpl())))
}

fn set_zero_flag(cpu: &mut Cpu, on: bool) {
    cpu.flags.update(ZF, if on { ZF } else { 0 });
}

fn load_rights<W: Width>(cpu: &mut Cpu, op: &Op, io: &mut dyn CpuIo) -> R {
    use system_type::{CALL_GATE, CALL_GATE_16, LDT, TASK_GATE, TSS, TSS_16, TSS_16_BUSY, TSS_BUSY};
    let long = cpu.long_mode();
    let found = visible(cpu, op, 1, io)?.filter(|d| match d.system_type() {
        None | Some(LDT | TSS | TSS_BUSY | CALL_GATE) => true,
        Some(TSS_16 | TSS_16_BUSY | CALL_GATE_16 | TASK_GATE) => !long,
        _ => false,
    });
    if let Some(d) = found {
        W::cut(d.raw >> 32 & 0x00ff_ff00).put(&mut cpu.regs, op.r[0]);
    }
    set_zero_flag(cpu, found.is_some());
    Ok(())
}

fn load_limit<W: Width>(cpu: &mut Cpu, op: &Op, io: &mut dyn CpuIo) -> R {
    use system_type::{LDT, TSS, TSS_16, TSS_16_BUSY, TSS_BUSY};
    let long = cpu.long_mode();
    let found = visible(cpu, op, 1, io)?.filter(|d| match d.system_type() {
        None | Some(LDT | TSS | TSS_BUSY) => true,
        Some(TSS_16 | TSS_16_BUSY) => !long,
        _ => false,
    });
    if let Some(d) = found {
        W::cut(d.segment.limit.into()).put(&mut cpu.regs, op.r[0]);
    }
    set_zero_flag(cpu, found.is_some());
    Ok(())
}

fn verify(cpu: &mut Cpu, op: &Op, io: &mut dyn CpuIo, wanted: fn(&Descriptor) -> bool) -> R {
    let found = visible(cpu, op, 0, io)?.is_some_and(|d| d.segment.has(attr::S) && wanted(&d));
    set_zero_flag(cpu, found);
    Ok(())
}

/// Raises the RPL of the first selector to that of the second (SDM 2A ARPL).
fn adjust_rpl(cpu: &mut Cpu, op: &Op, io: &mut dyn CpuIo) -> R {
    require_protected(cpu)?;
    let floor = u16::get(&cpu.regs, op.r[1]) & 3;
    let old = selector_operand(cpu, op, 0, io)?;
    let raised = old & 3 < floor;
    if raised {
        let new = old & !3 | floor;
        // What is not raised is not written, and needs not be writable.
        if op.has(HAS_MEMORY) {
            cpu.store(op, new, io)?;
        } else {
            new.put(&mut cpu.regs, op.r[0]);
        }
    }
    set_zero_flag(cpu, raised);
    Ok(())
}
