//! Task switches through a TSS: JMP, CALL, task gates, IRET with NT (SDM 3A 7.3, 7.6).
//!
//! Not responsible for: finding the TSS behind a gate's checks (`interrupt`, `isa/far_transfer`), the I/O permission map
//! (`isa/io_permission`).

use crate::cpu::Cpu;
use crate::fault::R;
use crate::op::Op;
use crate::segmentation::{Descriptor, is_null, null_segment, system_type};
use crate::stack::Slot;
use gemel_machine::CpuIo;
use gemel_x86::control::{CR0_PG, CR0_TS, CR4_PAE, DR6_BT};
use gemel_x86::flags::{DEFINED, NT, VM};
use gemel_x86::segment::{CS, DS, ES, FS, GS, SS, attr};
use gemel_x86::{Segment, Vector};

/// What caused a task switch: it decides about busy bits, the back link and NT (SDM 3A table 7-2).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Transfer {
    Jump,
    Call,
    /// An interrupt or exception: the flags to save (RF set for faults), and the error code for the new stack.
    Gate {
        image: u64,
        error: Option<u32>,
    },
    Return,
}

/// What a TSS holds of a task, whatever its width.
struct TaskImage {
    wide: bool,
    cr3: u32,
    eip: u32,
    eflags: u32,
    /// EAX, ECX, EDX, EBX, ESP, EBP, ESI, EDI.
    gpr: [u32; 8],
    /// In the order of [`CpuState::seg`](gemel_x86::CpuState::seg).
    selectors: [u16; 6],
    ldt: u16,
    trap: bool,
}

/// Offsets of the 32-bit TSS (SDM 3A figure 7-2).
mod tss32 {
    pub(super) const CR3: u64 = 0x1c;
    pub(super) const EIP: u64 = 0x20;
    pub(super) const GPR: u64 = 0x28;
    pub(super) const SEGMENTS: u64 = 0x48;
    pub(super) const LDT: u64 = 0x60;
    pub(super) const TRAP: u64 = 0x64;
    pub(super) const LAST: u32 = 0x67;
}

/// Upper halves of the general registers after a switch to a 16-bit TSS: "modified and not maintained" (SDM 3A 7.6). Ones
/// here; no silicon was measured, since user mode cannot. Those of EIP and EFLAGS are zero, FS and GS null.
const UPPER_OF_16: u32 = 0xffff_0000;

/// Offsets of the 16-bit TSS (SDM 3A figure 7-10).
mod tss16 {
    pub(super) const IP: u64 = 0x0e;
    pub(super) const GPR: u64 = 0x12;
    pub(super) const SEGMENTS: u64 = 0x22;
    pub(super) const LDT: u64 = 0x2a;
    pub(super) const LAST: u32 = 0x2b;
}

impl Cpu {
    /// Switches to the task whose TSS `selector` names. The outer error left everything as it was; the inner one comes
    /// after the switch: the new task is current, and the fault is its first act (SDM 3A 7.3 steps 1 to 11, 12).
    pub(crate) fn enter_task(
        &mut self,
        selector: u16,
        transfer: Transfer,
        return_rip: u64,
        io: &mut dyn CpuIo,
    ) -> R<R> {
        let returns = transfer == Transfer::Return;
        let bad = if returns { Vector::InvalidTss } else { Vector::GeneralProtection };
        if is_null(selector) || selector & 4 != 0 {
            return self.selector_fault(bad, selector);
        }
        let d = self.descriptor(selector, bad, io)?;
        let wide = match d.system_type() {
            Some(system_type::TSS) if !returns => true,
            Some(system_type::TSS_16) if !returns => false,
            Some(system_type::TSS_BUSY) if returns => true,
            Some(system_type::TSS_16_BUSY) if returns => false,
            _ => return self.selector_fault(bad, selector),
        };
        if !d.present() {
            return self.selector_fault(Vector::NotPresent, selector);
        }
        if d.segment.limit < if wide { tss32::LAST } else { tss16::LAST } {
            return self.selector_fault(Vector::InvalidTss, selector);
        }
        let image = self.read_task(d.segment.base, wide, io)?;
        let old = self.s.tr;
        let old_descriptor = self.look_up(old.selector, io)?;
        self.save_task(transfer, return_rip, io)?;

        if let (Transfer::Jump | Transfer::Return, Some(old)) = (transfer, old_descriptor) {
            self.write_system_type(&old, old.segment.attr & 0xf & !system_type::BUSY, io)?;
        }
        let nests = matches!(transfer, Transfer::Call | Transfer::Gate { .. });
        if nests {
            self.write_system(self.system_linear(d.segment.base, 0), old.selector, io)?;
        }
        let kind = d.segment.attr & 0xf | system_type::BUSY;
        if !returns {
            self.write_system_type(&d, kind, io)?;
        }

        self.s.tr = Segment { attr: d.segment.attr | system_type::BUSY, ..d.segment };
        self.s.cr0 |= CR0_TS;
        // Local breakpoints belong to the old task (SDM 3B 17.2.4).
        self.s.dr7 &= !0x155;
        for (register, value) in self.regs.iter_mut().zip(image.gpr) {
            *register = value.into();
        }
        self.rip = image.eip.into();
        let flags = u64::from(image.eflags) & DEFINED | if nests { NT } else { 0 };
        self.set_rflags(flags);
        for (segment, selector) in self.s.seg.iter_mut().zip(image.selectors) {
            *segment = null_segment(selector);
        }
        self.s.ldtr = null_segment(image.ldt);
        self.s.cpl = if flags & VM != 0 { 3 } else { (image.selectors[CS] & 3) as u8 };
        self.mode_changed();
        if image.trap {
            self.debug_traps |= DR6_BT;
        }
        let error = if let Transfer::Gate { error, .. } = transfer { error } else { None };
        Ok(self.load_task(&image, error, io))
    }

    /// Delivers the fault that a task switch ended in, in the new task.
    pub(crate) fn finish_task_switch(&mut self, late: R, io: &mut dyn CpuIo) {
        if late.is_err() {
            self.deliver_fault(io);
        }
    }

    /// [`Cpu::enter_task`] for an instruction.
    pub(crate) fn switch_task(
        &mut self,
        op: &Op,
        selector: u16,
        transfer: Transfer,
        io: &mut dyn CpuIo,
    ) -> R {
        let late = self.enter_task(selector, transfer, self.next_rip(op), io)?;
        self.finish_task_switch(late, io);
        Ok(())
    }

    fn read_task(&mut self, base: u64, wide: bool, io: &mut dyn CpuIo) -> R<TaskImage> {
        let mut image = TaskImage {
            wide,
            cr3: 0,
            eip: 0,
            eflags: 0,
            gpr: [0; 8],
            selectors: [0; 6],
            ldt: 0,
            trap: false,
        };
        if wide {
            let mut dword = |offset| self.read_system::<u32>(self.system_linear(base, offset), io);
            image.cr3 = dword(tss32::CR3)?;
            image.eip = dword(tss32::EIP)?;
            image.eflags = dword(tss32::EIP + 4)?;
            for (i, register) in image.gpr.iter_mut().enumerate() {
                *register = dword(tss32::GPR + 4 * i as u64)?;
            }
            for (i, selector) in image.selectors.iter_mut().enumerate() {
                *selector = dword(tss32::SEGMENTS + 4 * i as u64)? as u16;
            }
            image.ldt = dword(tss32::LDT)? as u16;
            image.trap = dword(tss32::TRAP)? & 1 != 0;
        } else {
            let mut word = |offset| self.read_system::<u16>(self.system_linear(base, offset), io);
            image.eip = word(tss16::IP)?.into();
            image.eflags = word(tss16::IP + 2)?.into();
            for (i, register) in image.gpr.iter_mut().enumerate() {
                *register = u32::from(word(tss16::GPR + 2 * i as u64)?) | UPPER_OF_16;
            }
            for (i, selector) in image.selectors.iter_mut().take(4).enumerate() {
                *selector = word(tss16::SEGMENTS + 2 * i as u64)?;
            }
            image.ldt = word(tss16::LDT)?;
        }
        Ok(image)
    }

    /// Writes the old task's registers to its TSS.
    fn save_task(&mut self, transfer: Transfer, return_rip: u64, io: &mut dyn CpuIo) -> R {
        let Segment { base, attr, .. } = self.s.tr;
        let flags = match transfer {
            Transfer::Gate { image, .. } => image,
            Transfer::Return => self.rflags() & !NT,
            Transfer::Jump | Transfer::Call => self.rflags(),
        };
        let wide = attr & system_type::WIDE != 0;
        let (step, ip, gpr, segments) = if wide {
            (4, tss32::EIP, tss32::GPR, tss32::SEGMENTS)
        } else {
            (2, tss16::IP, tss16::GPR, tss16::SEGMENTS)
        };
        let mut fields = vec![(ip, return_rip), (ip + step, flags)];
        fields.extend((0..8).map(|i| (gpr + step * i, self.regs[i as usize])));
        let count = if wide { 6 } else { 4 };
        fields.extend((0..count).map(|i| (segments + step * i, self.s.seg[i as usize].selector.into())));
        for (offset, value) in fields {
            let lin = self.system_linear(base, offset);
            // Upper halves of selector fields stay as they are (SDM 3A 7.2.1: reserved).
            if wide && offset < segments {
                self.write_system(lin, value as u32, io)?;
            } else {
                self.write_system(lin, value as u16, io)?;
            }
        }
        Ok(())
    }

    /// What can fault in the new task's name: CR3, LDTR, segments, and the error code on its stack.
    fn load_task(&mut self, image: &TaskImage, error: Option<u32>, io: &mut dyn CpuIo) -> R {
        if image.wide && self.s.cr0 & CR0_PG != 0 {
            let cr3 = u64::from(image.cr3);
            if self.s.cr4 & CR4_PAE != 0 {
                self.load_pdptes(cr3)?;
            }
            self.s.cr3 = cr3;
            self.address_space_changed();
        }
        if !is_null(image.ldt) {
            let d = self.task_descriptor(image.ldt, io)?;
            if image.ldt & 4 != 0 || d.system_type() != Some(system_type::LDT) || !d.present() {
                return self.selector_fault(Vector::InvalidTss, image.ldt);
            }
            self.s.ldtr = d.segment;
        }
        if self.v86() {
            for index in [ES, CS, SS, DS, FS, GS] {
                self.s.seg[index] = self.plain_segment(index, image.selectors[index]);
            }
        } else {
            self.load_task_segments(image, io)?;
        }
        self.mode_changed();
        if let Some(error) = error {
            let mut stack = self.stack();
            let slot = if image.wide { Slot::Dword } else { Slot::Word };
            stack.push(self, slot, error.into(), io)?;
            self.commit_stack(&stack);
        }
        let code = self.s.seg[CS];
        self.check_entry(&code, image.eip.into())
    }

    /// A descriptor that a TSS names: #TS where other loads say #GP.
    fn task_descriptor(&mut self, selector: u16, io: &mut dyn CpuIo) -> R<Descriptor> {
        self.descriptor(selector, Vector::InvalidTss, io)
    }

    fn load_task_segments(&mut self, image: &TaskImage, io: &mut dyn CpuIo) -> R {
        let cpl = self.s.cpl;
        let code = self.checked_task_segment(image.selectors[CS], Vector::NotPresent, io, |d| {
            d.is_code() && if d.is_conforming() { d.dpl() <= cpl } else { d.dpl() == cpl }
        })?;
        self.s.seg[CS] = code;
        let stack = self.checked_task_segment(image.selectors[SS], Vector::Stack, io, |d| {
            d.is_writable_data() && d.dpl() == cpl && d.rpl() == cpl
        })?;
        self.s.seg[SS] = stack;
        self.mode_changed();
        for index in [DS, ES, FS, GS] {
            let selector = image.selectors[index];
            if !is_null(selector) {
                let segment = self.checked_task_segment(selector, Vector::NotPresent, io, |d| {
                    d.is_readable() && (d.is_conforming() || d.dpl() >= cpl.max(d.rpl()))
                })?;
                self.s.seg[index] = segment;
            }
        }
        Ok(())
    }

    fn checked_task_segment(
        &mut self,
        selector: u16,
        absent: Vector,
        io: &mut dyn CpuIo,
        allowed: impl FnOnce(&Descriptor) -> bool,
    ) -> R<Segment> {
        let mut d = self.task_descriptor(selector, io)?;
        if !allowed(&d) {
            return self.selector_fault(Vector::InvalidTss, selector);
        }
        if !d.segment.has(attr::P) {
            return self.selector_fault(absent, selector);
        }
        self.mark_accessed(&mut d, io)?;
        Ok(d.segment)
    }
}
