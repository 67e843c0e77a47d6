//! Interrupts and exceptions on their way through IVT or IDT: frames, stack switches, double and triple faults.
//!
//! Not responsible for: when something is delivered (`exec`), the return (`isa/interrupt_return`), task switches (`task`).
//!
//! A delivery checks everything and writes the frame before it changes a register, so that a fault on the way finds
//! the state as it was.

use crate::cpu::Cpu;
use crate::fault::R;
use crate::gate::Gate;
use crate::mmu::access::canonical;
use crate::op::Op;
use crate::segmentation::{Descriptor, is_null, null_segment, system_type};
use crate::stack::{Slot, Stack};
use crate::task::Transfer;
use gemel_machine::CpuIo;
use gemel_x86::control::{CR4_VME, DR6_FIXED, DR7_GD};
use gemel_x86::flags::{AC, IF, IOPL, NT, RF, TF, VIF, VM};
use gemel_x86::segment::{CS, DS, ES, FS, GS, SS, attr};
use gemel_x86::{Exception, Vector};

/// Error code bit: the selector index is an IDT vector (SDM 3A 6.13).
const IDT: u32 = 1 << 1;
/// Error code bit: the fault came up while something that the program did not ask for was delivered.
const EXTERNAL: u32 = 1 << 0;

/// Something to deliver.
#[derive(Clone, Copy, Debug)]
struct Event {
    vector: u8,
    /// The error code to push.
    error: Option<u32>,
    /// INT n, INT3 or INTO: the gate's DPL counts, and faults on the way are not external.
    software: bool,
    /// Push RF set, so that an instruction breakpoint at the return address does not hit again.
    resume: bool,
    /// How it combines with a fault on the way.
    class: Class,
}

/// Columns of the double fault table (SDM 3A table 6-5).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Class {
    Benign,
    Contributory,
    Page,
    Double,
}

impl Class {
    fn of(vector: Vector) -> Self {
        match vector {
            Vector::PageFault => Self::Page,
            Vector::DoubleFault => Self::Double,
            v if v.is_contributory() => Self::Contributory,
            _ => Self::Benign,
        }
    }

    /// What a second fault makes of the first: the exception to deliver, or `None` for shutdown.
    fn combine(self, second: Exception) -> Option<Exception> {
        match (self, Self::of(second.vector)) {
            (Self::Contributory, Self::Contributory) | (Self::Page, Self::Contributory | Self::Page) => {
                Some(Exception::with_error(Vector::DoubleFault, 0))
            }
            (Self::Double, Self::Contributory | Self::Page) => None,
            _ => Some(second),
        }
    }
}

impl Event {
    fn of(exception: Exception) -> Self {
        let Exception { vector, error, address: _ } = exception;
        // Faults push RF set; traps and aborts leave it. So does every #DB, general detect included, as Linux KVM found on
        // both vendors, whatever the manuals say of it (SDM 3B 17.3.1.1; APM 2 13.1.2).
        let resume =
            !matches!(vector, Vector::Debug | Vector::DoubleFault | Vector::MachineCheck | Vector::Nmi);
        Self {
            vector: vector as u8,
            error: vector.has_error_code().then_some(error),
            software: false,
            resume,
            class: Class::of(vector),
        }
    }

    fn external(vector: u8) -> Self {
        Self { vector, error: None, software: false, resume: false, class: Class::Benign }
    }
}

/// Faults on the way to one handler, after which the CPU gives up. An #AC whose own frame is misaligned raises #AC for ever: real CPUs
/// hang there, deaf even to NMI (CVE-2015-5307), which no PC survives without a reset. Every chain that ends is shorter.
const MOST_ATTEMPTS: u32 = 16;

impl Cpu {
    /// Delivers [`Cpu::fault`], raised by the instruction at RIP.
    pub fn deliver_fault(&mut self, io: &mut dyn CpuIo) {
        // Traps of an instruction that did not finish come again with it.
        self.debug_traps = 0;
        let exception = self.fault;
        self.note_exception(exception);
        self.deliver(Event::of(exception), io);
    }

    /// Delivers an interrupt from the interrupt controller.
    pub fn deliver_external(&mut self, vector: u8, io: &mut dyn CpuIo) {
        self.deliver(Event::external(vector), io);
    }

    /// Delivers an NMI; further ones wait for IRET.
    pub fn deliver_nmi(&mut self, io: &mut dyn CpuIo) {
        self.s.nmi_blocked = true;
        self.deliver(Event::external(Vector::Nmi as u8), io);
    }

    /// Delivers #DB for the traps that the last instruction left in [`Cpu::debug_traps`].
    pub fn deliver_debug_trap(&mut self, io: &mut dyn CpuIo) {
        let traps = std::mem::take(&mut self.debug_traps);
        self.note_exception(Exception::debug(traps));
        self.deliver(Event::of(Exception::debug(traps)), io);
    }

    /// What an exception leaves in CR2, DR6 and DR7 before its handler runs.
    fn note_exception(&mut self, exception: Exception) {
        match exception.vector {
            Vector::PageFault => self.s.cr2 = exception.address,
            Vector::Debug => {
                // Bits 0 to 3 belong to this exception alone; the rest is for software to clear (SDM 3B 17.2.3).
                self.s.dr6 = self.s.dr6 & !0xf | exception.address | DR6_FIXED;
                self.s.dr7 &= !DR7_GD;
                self.branch_debugging_off();
            }
            _ => {}
        }
    }

    /// Enters a handler, whatever comes up on the way. Counts one.
    fn deliver(&mut self, mut event: Event, io: &mut dyn CpuIo) {
        self.count += 1;
        self.shadow = 0;
        self.halted = false;
        self.limit = 0;
        let mut attempts = 0;
        while self.enter(&event, self.rip, io).flatten().is_err() {
            attempts += 1;
            if attempts == MOST_ATTEMPTS {
                self.shutdown = true;
                return;
            }
            if !event.software && has_selector_error(self.fault.vector) {
                self.fault.error |= EXTERNAL;
            }
            self.note_exception(self.fault);
            match event.class.combine(self.fault) {
                Some(next) => event = Event::of(next),
                None => {
                    self.shutdown = true;
                    return;
                }
            }
        }
    }

    /// Goes through the gate. The outer error left everything as it was; the inner one comes from a task switch that
    /// is done, and belongs to the new task.
    fn enter(&mut self, event: &Event, return_rip: u64, io: &mut dyn CpuIo) -> R<R> {
        if self.real() {
            self.enter_real(event.vector, return_rip, io).map(Ok)
        } else if self.long_mode() {
            self.enter_long(event, return_rip, io).map(Ok)
        } else {
            self.enter_protected(event, return_rip, io)
        }
    }

    /// Through the interrupt vector table (SDM 3B 20.1.4). Also virtual-8086 mode when it handles an INT n itself.
    fn enter_real(&mut self, vector: u8, return_rip: u64, io: &mut dyn CpuIo) -> R {
        let entry = u64::from(vector) * 4;
        if !self.v86() && entry + 3 > u64::from(self.s.idtr.limit) {
            return self.general_protection(u32::from(vector) << 3 | IDT);
        }
        let base = if self.v86() { 0 } else { self.s.idtr.base };
        let target = self.read_system::<u32>(self.system_linear(base, entry), io)?;
        let mut image = self.rflags();
        if self.v86() && self.iopl() < 3 {
            image = image & !IF | IOPL | if image & VIF != 0 { IF } else { 0 };
        }
        let mut stack = self.stack();
        stack.push(self, Slot::Word, image, io)?;
        stack.push(self, Slot::Word, self.s.seg[CS].selector.into(), io)?;
        stack.push(self, Slot::Word, return_rip, io)?;
        self.commit_stack(&stack);
        let off = if self.v86() && self.iopl() < 3 { VIF | TF | NT } else { IF | TF | AC | RF };
        let code = self.plain_segment(CS, (target >> 16) as u16);
        self.set_rflags(self.rflags() & !off);
        let cpl = self.s.cpl;
        self.set_code(code, cpl, u64::from(target & 0xffff));
        Ok(())
    }

    /// The checks of a gate that do not depend on its width.
    fn check_gate(&mut self, event: &Event, gate: &Gate) -> R {
        let error = u32::from(event.vector) << 3 | IDT;
        let long_types = [system_type::INTERRUPT_GATE, system_type::TRAP_GATE];
        let legacy_types =
            [system_type::TASK_GATE, system_type::INTERRUPT_GATE_16, system_type::TRAP_GATE_16];
        let known =
            long_types.contains(&gate.kind) || (!self.long_mode() && legacy_types.contains(&gate.kind));
        if !known || (event.software && gate.dpl < self.s.cpl) {
            return self.general_protection(error);
        }
        if !gate.present {
            return self.fail(Exception::with_error(Vector::NotPresent, error));
        }
        Ok(())
    }

    /// The handler's code segment (SDM 2A INT n, PROTECTED-MODE and IA-32e-MODE).
    fn handler_segment(&mut self, selector: u16, io: &mut dyn CpuIo) -> R<Descriptor> {
        if is_null(selector) {
            return self.general_protection(0);
        }
        let mut d = self.descriptor(selector, Vector::GeneralProtection, io)?;
        let wrong_size = self.long_mode() && (!d.segment.has(attr::L) || d.segment.has(attr::DB));
        let from_v86 = self.v86() && (d.is_conforming() || d.dpl() != 0);
        if !d.is_code() || d.dpl() > self.s.cpl || from_v86 {
            return self.selector_fault(Vector::GeneralProtection, selector);
        }
        if !d.present() {
            return self.selector_fault(Vector::NotPresent, selector);
        }
        if wrong_size {
            return self.selector_fault(Vector::GeneralProtection, selector);
        }
        self.mark_accessed(&mut d, io)?;
        Ok(d)
    }

    /// The flags that a frame holds.
    fn flags_image(&self, event: &Event) -> u64 {
        self.rflags() | if event.resume { RF } else { 0 }
    }

    fn flags_in_handler(&self, gate: &Gate) -> u64 {
        let interrupt = gate.kind & 1 == 0;
        self.rflags() & !(TF | NT | RF | VM | if interrupt { IF } else { 0 })
    }

    /// Long mode: 16-byte gates, 64-bit handlers, five or six quadwords on a stack aligned to 16 (SDM 3A 6.14).
    fn enter_long(&mut self, event: &Event, return_rip: u64, io: &mut dyn CpuIo) -> R {
        let entry = u64::from(event.vector) * 16;
        let error = u32::from(event.vector) << 3 | IDT;
        if entry + 15 > u64::from(self.s.idtr.limit) {
            return self.general_protection(error);
        }
        let low = self.read_system::<u64>(self.s.idtr.base.wrapping_add(entry), io)?;
        let high = self.read_system::<u64>(self.s.idtr.base.wrapping_add(entry + 8), io)?;
        let gate = Gate::from_raw(low).with_upper(high);
        self.check_gate(event, &gate)?;
        let code = self.handler_segment(gate.selector, io)?;
        let inner = !code.is_conforming() && code.dpl() < self.s.cpl;
        let level = if inner { code.dpl() } else { self.s.cpl };
        let top = if gate.ist != 0 || inner { self.tss_rsp(level, gate.ist, io)? } else { self.regs[4] };
        if !canonical(top) {
            return self.fail(Exception::with_error(Vector::Stack, 0));
        }
        let mut stack = Stack::inner(self.s.seg[SS], top & !0xf, true, level, 0);
        let image = self.flags_image(event);
        let (ss, rsp, cs) = (self.s.seg[SS].selector, self.regs[4], self.s.seg[CS].selector);
        for value in [u64::from(ss), rsp, image, u64::from(cs), return_rip] {
            stack.push(self, Slot::Qword, value, io)?;
        }
        if let Some(error) = event.error {
            stack.push(self, Slot::Qword, error.into(), io)?;
        }
        self.check_entry(&code.segment, gate.offset)?;
        if inner {
            self.s.seg[SS] = null_segment(level.into());
        }
        self.commit_stack(&stack);
        let flags = self.flags_in_handler(&gate);
        self.set_rflags(flags);
        self.set_code(code.segment, level, gate.offset);
        Ok(())
    }

    /// Legacy protected mode: 8-byte gates of all kinds (SDM 3A 6.12).
    fn enter_protected(&mut self, event: &Event, return_rip: u64, io: &mut dyn CpuIo) -> R<R> {
        let entry = u64::from(event.vector) * 8;
        if entry + 7 > u64::from(self.s.idtr.limit) {
            return self.general_protection(u32::from(event.vector) << 3 | IDT);
        }
        let raw = self.read_system::<u64>(self.system_linear(self.s.idtr.base, entry), io)?;
        let gate = Gate::from_raw(raw);
        self.check_gate(event, &gate)?;
        if gate.kind == system_type::TASK_GATE {
            let image = self.flags_image(event);
            return self.enter_task(
                gate.selector,
                Transfer::Gate { image, error: event.error },
                return_rip,
                io,
            );
        }
        let code = self.handler_segment(gate.selector, io)?;
        if !code.is_conforming() && code.dpl() < self.s.cpl {
            self.enter_inner(event, &gate, &code, return_rip, io)?;
        } else {
            let mut stack = self.stack();
            self.push_return(&mut stack, event, &gate, return_rip, io)?;
            self.check_entry(&code.segment, gate.offset)?;
            self.commit_stack(&stack);
            let flags = self.flags_in_handler(&gate);
            self.set_rflags(flags);
            self.set_code(code.segment, self.s.cpl, gate.offset);
        }
        Ok(Ok(()))
    }

    /// EFLAGS, CS, EIP and the error code: what every protected-mode frame ends with.
    fn push_return(
        &mut self,
        stack: &mut Stack,
        event: &Event,
        gate: &Gate,
        return_rip: u64,
        io: &mut dyn CpuIo,
    ) -> R {
        let slot = if gate.is_wide() { Slot::Dword } else { Slot::Word };
        let image = self.flags_image(event);
        stack.push(self, slot, image, io)?;
        stack.push(self, slot, self.s.seg[CS].selector.into(), io)?;
        stack.push(self, slot, return_rip, io)?;
        if let Some(error) = event.error {
            stack.push(self, slot, error.into(), io)?;
        }
        Ok(())
    }

    /// To a more privileged level: the stack comes from the TSS; from virtual-8086 mode the data segments are saved too.
    fn enter_inner(
        &mut self,
        event: &Event,
        gate: &Gate,
        code: &Descriptor,
        return_rip: u64,
        io: &mut dyn CpuIo,
    ) -> R {
        let level = code.dpl();
        let (ss, esp) = self.tss_stack(level, io)?;
        let segment = self.inner_stack_segment(ss, level, io)?;
        let slot = if gate.is_wide() { Slot::Dword } else { Slot::Word };
        let mut stack = Stack::inner(segment, esp.into(), false, level, ss);
        let from_v86 = self.v86();
        if from_v86 {
            for index in [GS, FS, DS, ES] {
                stack.push(self, slot, self.s.seg[index].selector.into(), io)?;
            }
        }
        stack.push(self, slot, self.s.seg[SS].selector.into(), io)?;
        stack.push(self, slot, self.regs[4], io)?;
        self.push_return(&mut stack, event, gate, return_rip, io)?;
        self.check_entry(&code.segment, gate.offset)?;
        if from_v86 {
            for index in [GS, FS, DS, ES] {
                self.s.seg[index] = null_segment(0);
            }
        }
        self.s.seg[SS] = segment;
        self.commit_stack(&stack);
        let flags = self.flags_in_handler(gate);
        self.set_rflags(flags);
        self.set_code(code.segment, level, gate.offset);
        Ok(())
    }

    /// INT n, INT3, INTO and INT1: the next instruction's address is pushed. INT1 is not subject to the gate's DPL
    /// (SDM 2A INT n).
    pub fn software_interrupt(
        &mut self,
        op: &Op,
        vector: u8,
        how: SoftwareInterrupt,
        io: &mut dyn CpuIo,
    ) -> R {
        let return_rip = self.next_rip(op);
        self.step_ends = true;
        if self.v86() && how == SoftwareInterrupt::IntN {
            let redirected = self.s.cr4 & CR4_VME != 0 && self.interrupt_redirected(vector, io)?;
            if redirected {
                return self.enter_real(vector, return_rip, io);
            }
            if self.iopl() < 3 {
                return self.general_protection(0);
            }
        }
        let software = how != SoftwareInterrupt::Int1;
        let event = Event { software, ..Event::external(vector) };
        let done = self.enter(&event, return_rip, io);
        if done.is_err() && !software && has_selector_error(self.fault.vector) {
            self.fault.error |= EXTERNAL;
        }
        self.finish_task_switch(done?, io);
        if how == SoftwareInterrupt::Int1 {
            // A #DB itself: data breakpoints that MOV SS held back come with it, and not again after it.
            let held = std::mem::take(&mut self.debug_traps);
            self.s.dr6 |= held;
        }
        Ok(())
    }

    /// Whether VME sends an INT n of virtual-8086 mode through its own vector table: a clear bit in the 32 bytes
    /// below the I/O permission map (SDM 3B 20.3.2).
    fn interrupt_redirected(&mut self, vector: u8, io: &mut dyn CpuIo) -> R<bool> {
        let tr = self.s.tr;
        let map = self.read_system::<u16>(self.system_linear(tr.base, 0x66), io)?;
        // A map that begins within its first 32 bytes has no room below it.
        let Some(at) = (u64::from(map) + u64::from(vector / 8)).checked_sub(32) else {
            return self.general_protection(0);
        };
        if at > u64::from(tr.limit) {
            return self.general_protection(0);
        }
        let byte = self.read_system::<u8>(self.system_linear(tr.base, at), io)?;
        Ok(byte >> (vector % 8) & 1 == 0)
    }
}

/// Which instruction asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SoftwareInterrupt {
    /// INT n, which virtual-8086 mode treats apart.
    IntN,
    /// INT3 or INTO.
    Trap,
    /// INT1, which counts as a hardware exception.
    Int1,
}

/// Whether an exception's error code is a selector, with room for the EXT bit.
fn has_selector_error(vector: Vector) -> bool {
    matches!(vector, Vector::InvalidTss | Vector::NotPresent | Vector::Stack | Vector::GeneralProtection)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// SDM 3A table 6-5, row by row.
    #[test]
    fn double_fault_table() {
        let df = Some(Vector::DoubleFault);
        let second = |v| Exception::new(v);
        let cases = [
            (Class::Benign, Vector::GeneralProtection, Some(Vector::GeneralProtection)),
            (Class::Benign, Vector::PageFault, Some(Vector::PageFault)),
            (Class::Contributory, Vector::Debug, Some(Vector::Debug)),
            (Class::Contributory, Vector::InvalidTss, df),
            (Class::Contributory, Vector::PageFault, Some(Vector::PageFault)),
            (Class::Page, Vector::InvalidOpcode, Some(Vector::InvalidOpcode)),
            (Class::Page, Vector::NotPresent, df),
            (Class::Page, Vector::PageFault, df),
            (Class::Double, Vector::Stack, None),
            (Class::Double, Vector::PageFault, None),
        ];
        for (first, then, wanted) in cases {
            assert_eq!(first.combine(second(then)).map(|e| e.vector), wanted, "{first:?} then {then:?}");
        }
    }
}
