//! SYSCALL, SYSRET, SYSENTER, SYSEXIT, SWAPGS as AuthenticAMD has them (APM 3 SYSCALL, SYSRET, SYSENTER, SYSEXIT).
//!
//! Not responsible for: the registers behind them (`msr`).

use crate::cpu::Cpu;
use crate::fault::R;
use crate::lower::Form;
use crate::op::{Handler, Op};
use gemel_machine::CpuIo;
use gemel_x86::Segment;
use gemel_x86::control::{DR6_BS, EFER_SCE};
use gemel_x86::flags::{DEFINED, IF, RF, VM};
use gemel_x86::segment::{GS, SS, attr};
use iced_x86::Code;

/// SYSCALL.
pub fn syscall(_: &Form) -> Option<Handler> {
    Some(enter)
}

/// SYSRET, SYSRETQ.
pub fn sysret(f: &Form) -> Option<Handler> {
    Some(if f.code == Code::Sysretq { leave::<true> } else { leave::<false> })
}

/// SYSENTER.
pub fn sysenter(_: &Form) -> Option<Handler> {
    Some(enter_legacy)
}

/// SYSEXIT.
pub fn sysexit(_: &Form) -> Option<Handler> {
    Some(leave_legacy)
}

/// SWAPGS.
pub fn swapgs(_: &Form) -> Option<Handler> {
    Some(|cpu, _, _| {
        if !cpu.is_64() {
            return cpu.undefined();
        }
        cpu.require_ring0()?;
        std::mem::swap(&mut cpu.s.seg[GS].base, &mut cpu.s.kernel_gs_base);
        cpu.seg_base[GS] = cpu.s.seg[GS].base;
        Ok(())
    })
}

/// A flat code segment as these instructions make it up, without any descriptor.
fn code_segment(selector: u16, dpl: u8, size: u16) -> Segment {
    let attr = 0x9b | u16::from(dpl) << attr::DPL_SHIFT | attr::G | size;
    Segment { selector: selector & !3 | u16::from(dpl), attr, limit: u32::MAX, base: 0 }
}

fn stack_segment(selector: u16, dpl: u8) -> Segment {
    let attr = 0x93 | u16::from(dpl) << attr::DPL_SHIFT | attr::G | attr::DB;
    Segment { selector: selector & !3 | u16::from(dpl), attr, limit: u32::MAX, base: 0 }
}

fn enter(cpu: &mut Cpu, op: &Op, _: &mut dyn CpuIo) -> R {
    if cpu.s.efer & EFER_SCE == 0 || !cpu.protected() {
        return cpu.undefined();
    }
    let next = cpu.next_rip(op);
    let selector = (cpu.s.star >> 32) as u16;
    cpu.regs[1] = next;
    let (size, target) = if cpu.long_mode() {
        cpu.regs[11] = cpu.rflags() & !RF;
        let target = if cpu.is_64() { cpu.s.lstar } else { cpu.s.cstar };
        cpu.set_rflags(cpu.rflags() & !cpu.s.sfmask & !RF);
        cpu.step_ends = !cpu.single_steps();
        (attr::L, target)
    } else {
        cpu.set_rflags(cpu.rflags() & !(IF | VM | RF));
        (attr::DB, cpu.s.star & 0xffff_ffff)
    };
    cpu.s.seg[SS] = stack_segment(selector.wrapping_add(8), 0);
    cpu.set_code(code_segment(selector, 0, size), 0, target);
    Ok(())
}

/// A return address that is not canonical faults at the fetch, at ring 3. SS gets its selector; its hidden part stays as
/// SYSCALL or an interrupt left it.
fn leave<const WIDE: bool>(cpu: &mut Cpu, _: &Op, _: &mut dyn CpuIo) -> R {
    if cpu.s.efer & EFER_SCE == 0 {
        return cpu.undefined();
    }
    if !cpu.protected() || cpu.s.cpl != 0 {
        return cpu.general_protection(0);
    }
    let base = (cpu.s.star >> 48) as u16;
    let (code, rip) = if WIDE {
        (code_segment(base.wrapping_add(16), 3, attr::L), cpu.regs[1])
    } else {
        (code_segment(base, 3, attr::DB), cpu.regs[1] & 0xffff_ffff)
    };
    if cpu.is_64() {
        cpu.set_rflags(cpu.regs[11] & DEFINED & !(RF | VM));
    } else {
        cpu.set_rflags(cpu.rflags() | IF);
    }
    // Unlike POPF and IRET, the TF that counts is the one at the end: a step trap comes at once, or not at all.
    cpu.step_ends = true;
    if cpu.single_steps() {
        cpu.debug_traps |= DR6_BS;
    }
    cpu.s.seg[SS].selector = base.wrapping_add(8) | 3;
    cpu.set_code(code, 3, rip);
    Ok(())
}

/// The selectors of SYSENTER and SYSEXIT; legacy mode only on AMD.
fn legacy_selector(cpu: &mut Cpu) -> R<u16> {
    if cpu.long_mode() {
        return cpu.undefined();
    }
    let selector = cpu.s.sysenter_cs as u16;
    if cpu.real() || selector & !3 == 0 {
        return cpu.general_protection(0);
    }
    Ok(selector & !3)
}

fn enter_legacy(cpu: &mut Cpu, _: &Op, _: &mut dyn CpuIo) -> R {
    let selector = legacy_selector(cpu)?;
    cpu.set_rflags(cpu.rflags() & !(IF | VM | RF));
    cpu.s.seg[SS] = stack_segment(selector.wrapping_add(8), 0);
    cpu.regs[4] = cpu.s.sysenter_esp & 0xffff_ffff;
    let target = cpu.s.sysenter_eip & 0xffff_ffff;
    cpu.set_code(code_segment(selector, 0, attr::DB), 0, target);
    Ok(())
}

fn leave_legacy(cpu: &mut Cpu, _: &Op, _: &mut dyn CpuIo) -> R {
    if cpu.protected() {
        cpu.require_ring0()?;
    }
    let selector = legacy_selector(cpu)?;
    cpu.s.seg[SS] = stack_segment(selector.wrapping_add(24), 3);
    cpu.regs[4] = cpu.regs[1] & 0xffff_ffff;
    let target = cpu.regs[2] & 0xffff_ffff;
    cpu.set_code(code_segment(selector.wrapping_add(16), 3, attr::DB), 3, target);
    Ok(())
}
