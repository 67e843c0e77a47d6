//! INT n, INT3, INTO, INT1 and IRET (SDM 2A INT n, IRET).
//!
//! Not responsible for: gates and frames (`interrupt`), returns of far calls (`far_transfer`).

use crate::cpu::{Cpu, Width};
use crate::fault::R;
use crate::interrupt::SoftwareInterrupt;
use crate::lower::Form;
use crate::op::{Handler, Op};
use crate::stack::{Slot, Stack};
use crate::task::Transfer;
use gemel_machine::CpuIo;
use gemel_x86::Vector;
use gemel_x86::control::CR4_VME;
use gemel_x86::flags::{DEFINED, IF, IOPL, NT, TF, VIF, VIP, VM};
use gemel_x86::segment::{CS, DS, ES, FS, GS, SS, attr};
use iced_x86::Code;

/// INT n.
pub fn int(_: &Form) -> Option<Handler> {
    Some(|cpu, op, io| cpu.software_interrupt(op, op.imm as u8, SoftwareInterrupt::IntN, io))
}

/// INT3, the one-byte breakpoint.
pub fn int3(_: &Form) -> Option<Handler> {
    Some(|cpu, op, io| cpu.software_interrupt(op, Vector::Breakpoint as u8, SoftwareInterrupt::Trap, io))
}

/// INTO: an interrupt when OF is set.
pub fn into(_: &Form) -> Option<Handler> {
    Some(|cpu, op, io| {
        if !cpu.flags.of() {
            return Ok(());
        }
        cpu.software_interrupt(op, Vector::Overflow as u8, SoftwareInterrupt::Trap, io)
    })
}

/// INT1: #DB that leaves DR6 alone.
pub fn int1(_: &Form) -> Option<Handler> {
    Some(|cpu, op, io| cpu.software_interrupt(op, Vector::Debug as u8, SoftwareInterrupt::Int1, io))
}

/// IRET, IRETD, IRETQ.
pub fn iret(f: &Form) -> Option<Handler> {
    Some(match f.code {
        Code::Iretw => interrupt_return::<u16>,
        Code::Iretd => interrupt_return::<u32>,
        Code::Iretq => interrupt_return::<u64>,
        _ => return None,
    })
}

fn interrupt_return<W: Width>(cpu: &mut Cpu, op: &Op, io: &mut dyn CpuIo) -> R {
    let slot = Slot::of::<W>();
    if cpu.v86() {
        cpu.return_within_v86(slot, io)?;
    } else if cpu.real() {
        cpu.return_in_real_mode(slot, io)?;
    } else if cpu.system_flags & NT != 0 {
        if cpu.long_mode() {
            return cpu.general_protection(0);
        }
        let link = cpu.read_system::<u16>(cpu.system_linear(cpu.s.tr.base, 0), io)?;
        cpu.switch_task(op, link, Transfer::Return, io)?;
    } else {
        cpu.return_in_protected_mode(slot, io)?;
    }
    cpu.s.nmi_blocked = false;
    Ok(())
}

/// What an IRET pops first.
struct Frame {
    rip: u64,
    cs: u16,
    flags: u64,
}

impl Cpu {
    /// Silicon reads the flags first, as faults show.
    fn pop_frame(&mut self, stack: &mut Stack, slot: Slot, io: &mut dyn CpuIo) -> R<Frame> {
        let flags = stack.peek(self, slot, 2, io)?;
        let cs = stack.peek(self, slot, 1, io)? as u16;
        let rip = stack.peek(self, slot, 0, io)?;
        stack.skip(3 * slot.bytes());
        Ok(Frame { rip, cs, flags })
    }

    /// Changes the flags in `mask`; an operand of 16 bits reaches only the lower half.
    fn set_popped_flags(&mut self, popped: u64, mask: u64, slot: Slot) {
        let mask = if slot == Slot::Word { mask & 0xffff } else { mask };
        self.set_rflags(self.rflags() & !mask | popped & mask & DEFINED);
    }

    fn return_in_real_mode(&mut self, slot: Slot, io: &mut dyn CpuIo) -> R {
        let mut stack = self.stack();
        let frame = self.pop_frame(&mut stack, slot, io)?;
        let code = self.plain_segment(CS, frame.cs);
        self.check_entry(&code, frame.rip)?;
        self.commit_stack(&stack);
        self.set_popped_flags(frame.flags, DEFINED & !(VM | VIF | VIP), slot);
        self.set_code(code, self.s.cpl, frame.rip);
        Ok(())
    }

    /// Virtual-8086 mode: IOPL stays; under VME a 16-bit IRET at IOPL below 3 works on VIF (SDM 3B 20.3, table 20-2).
    fn return_within_v86(&mut self, slot: Slot, io: &mut dyn CpuIo) -> R {
        let virtual_if = self.iopl() < 3;
        if virtual_if && (slot != Slot::Word || self.s.cr4 & CR4_VME == 0) {
            return self.general_protection(0);
        }
        let mut stack = self.stack();
        let frame = self.pop_frame(&mut stack, slot, io)?;
        let code = self.plain_segment(CS, frame.cs);
        self.check_entry(&code, frame.rip)?;
        if virtual_if {
            let pending = self.system_flags & VIP != 0 && frame.flags & IF != 0;
            if pending || frame.flags & TF != 0 {
                return self.general_protection(0);
            }
        }
        self.commit_stack(&stack);
        if virtual_if {
            let vif = if frame.flags & IF != 0 { VIF } else { 0 };
            let mask = DEFINED & 0xffff & !(IOPL | IF);
            self.set_rflags(self.rflags() & !(mask | VIF) | frame.flags & mask | vif);
        } else {
            self.set_popped_flags(frame.flags, DEFINED & !(VM | IOPL | VIF | VIP), slot);
        }
        self.set_code(code, self.s.cpl, frame.rip);
        Ok(())
    }

    /// The flags that IRET may change at a level.
    fn return_flags(&self) -> u64 {
        let mut mask = DEFINED & !(VM | IOPL | IF | VIF | VIP);
        if self.s.cpl <= self.iopl() {
            mask |= IF;
        }
        if self.s.cpl == 0 {
            mask |= IOPL | VIF | VIP;
        }
        mask
    }

    fn return_in_protected_mode(&mut self, slot: Slot, io: &mut dyn CpuIo) -> R {
        let mut stack = self.stack();
        let frame = self.pop_frame(&mut stack, slot, io)?;
        let to_v86 = frame.flags & VM != 0 && slot == Slot::Dword && self.s.cpl == 0;
        if to_v86 && !self.long_mode() {
            return self.return_to_v86(stack, &frame, io);
        }
        let mask = self.return_flags();
        let outer = frame.cs & 3 != u16::from(self.s.cpl);
        // 64-bit mode pops SS:RSP always (SDM 3A 6.14.3).
        if !outer && !self.is_64() {
            let code = self.return_code(frame.cs, io)?;
            self.check_entry(&code.segment, frame.rip)?;
            self.commit_stack(&stack);
            self.set_popped_flags(frame.flags, mask, slot);
            self.set_code(code.segment, self.s.cpl, frame.rip);
            return Ok(());
        }
        let (ss, pointer) = stack.peek_outer(self, slot, io)?;
        let code = self.return_code(frame.cs, io)?;
        let segment = self.return_stack(ss, &code, io)?;
        self.check_entry(&code.segment, frame.rip)?;
        let to_64 = self.long_mode() && code.segment.has(attr::L);
        self.s.seg[SS] = segment;
        self.commit_stack(&Stack::inner(segment, pointer, to_64, code.rpl(), 0));
        self.set_popped_flags(frame.flags, mask, slot);
        self.set_code(code.segment, code.rpl(), frame.rip);
        if outer {
            self.drop_inner_segments();
        }
        Ok(())
    }

    /// From ring 0 into virtual-8086 mode: the frame holds all segments (SDM 2A IRET, RETURN-TO-VIRTUAL-8086-MODE).
    fn return_to_v86(&mut self, mut stack: Stack, frame: &Frame, io: &mut dyn CpuIo) -> R {
        let esp = stack.pop(self, Slot::Dword, io)?;
        let mut selectors = [0; 6];
        for index in [SS, ES, DS, FS, GS] {
            selectors[index] = stack.pop(self, Slot::Dword, io)? as u16;
        }
        selectors[CS] = frame.cs;
        if frame.rip > 0xffff {
            return self.general_protection(0);
        }
        self.set_rflags(frame.flags & DEFINED);
        self.s.cpl = 3;
        for (index, selector) in selectors.into_iter().enumerate() {
            self.s.seg[index] = self.plain_segment(index, selector);
        }
        self.regs[4] = esp;
        let code = self.s.seg[CS];
        self.set_code(code, 3, frame.rip);
        Ok(())
    }
}
