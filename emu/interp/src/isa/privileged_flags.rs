//! CLI, STI, PUSHF, POPF: the flag instructions that obey IOPL (SDM 1 5.1.11; 2A, 2B; 3B 20.3 and 20.4).
//!
//! Not responsible for: CLC, STC, CMC, CLD, STD, LAHF, SAHF.

use crate::cpu::{Cpu, Width};
use crate::fault::R;
use crate::lower::Form;
use crate::mmu::access::Mem;
use crate::op::{Handler, Op};
use gemel_machine::CpuIo;
use gemel_x86::control::{CR4_PVI, CR4_VME};
use gemel_x86::flags::{AC, DF, ID, IF, IOPL, NT, RF, STATUS, TF, VIF, VIP, VM};
use iced_x86::Code;

/// CLI.
pub fn cli(_: &Form) -> Option<Handler> {
    Some(|cpu, _, _| {
        let flag = cpu.interrupt_flag()?;
        cpu.system_flags &= !flag;
        Ok(())
    })
}

/// STI.
pub fn sti(_: &Form) -> Option<Handler> {
    Some(|cpu, _, _| {
        let flag = cpu.interrupt_flag()?;
        if flag == VIF && cpu.system_flags & VIP != 0 {
            return cpu.general_protection(0);
        }
        // Interrupts wait for one more instruction, but only where they were off (SDM 2B STI).
        if cpu.system_flags & IF == 0 && flag == IF {
            cpu.shadow |= 1;
        }
        cpu.system_flags |= flag;
        cpu.limit = 0;
        Ok(())
    })
}

/// PUSHF, PUSHFD, PUSHFQ.
pub fn pushf(f: &Form) -> Option<Handler> {
    Some(match f.code {
        Code::Pushfw => push_flags::<u16>,
        Code::Pushfd => push_flags::<u32>,
        Code::Pushfq => push_flags::<u64>,
        _ => return None,
    })
}

/// POPF, POPFD, POPFQ.
pub fn popf(f: &Form) -> Option<Handler> {
    Some(match f.code {
        Code::Popfw => pop_flags::<u16>,
        Code::Popfd => pop_flags::<u32>,
        Code::Popfq => pop_flags::<u64>,
        _ => return None,
    })
}

impl Cpu {
    /// Which flag CLI and STI work on here: IF, or VIF under VME and PVI; else #GP(0).
    fn interrupt_flag(&mut self) -> R<u64> {
        if self.real() || self.s.cpl <= self.iopl() {
            return Ok(IF);
        }
        let virtual_if =
            if self.v86() { self.s.cr4 & CR4_VME != 0 } else { self.s.cr4 & CR4_PVI != 0 && self.s.cpl == 3 };
        if virtual_if { Ok(VIF) } else { self.general_protection(0) }
    }

    /// Whether PUSHF and POPF work on VIF in place of IF: virtual-8086 mode at IOPL below 3, which needs VME and a
    /// 16-bit operand, or #GP(0).
    fn virtual_flags<W: Width>(&mut self) -> R<bool> {
        if !self.v86() || self.iopl() == 3 {
            return Ok(false);
        }
        if W::BYTES == 2 && self.s.cr4 & CR4_VME != 0 { Ok(true) } else { self.general_protection(0) }
    }
}

fn push_flags<W: Width + Mem>(cpu: &mut Cpu, _: &Op, io: &mut dyn CpuIo) -> R {
    let mut image = cpu.rflags() & !(VM | RF);
    if cpu.virtual_flags::<W>()? {
        let interrupt = if image & VIF != 0 { IF } else { 0 };
        image = image & !IF | IOPL | interrupt;
    }
    cpu.push(W::cut(image), io)
}

fn pop_flags<W: Width + Mem>(cpu: &mut Cpu, _: &Op, io: &mut dyn CpuIo) -> R {
    let virtual_if = cpu.virtual_flags::<W>()?;
    let rsp = cpu.regs[4];
    let value = cpu.pop::<W>(io)?.zext();
    let mut mask = STATUS | TF | DF | NT | AC | ID;
    let mut bits = value;
    if virtual_if {
        if value & TF != 0 || (value & IF != 0 && cpu.system_flags & VIP != 0) {
            cpu.regs[4] = rsp;
            return cpu.general_protection(0);
        }
        bits = value & 0xffff | if value & IF != 0 { VIF } else { 0 };
        mask = mask & 0xffff | VIF;
    } else {
        if cpu.real() || cpu.s.cpl <= cpu.iopl() {
            mask |= IF;
        }
        if cpu.s.cpl == 0 && !cpu.v86() {
            mask |= IOPL;
        }
        if W::BYTES == 2 {
            mask &= 0xffff;
        }
    }
    cpu.set_rflags(cpu.rflags() & !mask | bits & mask);
    Ok(())
}
