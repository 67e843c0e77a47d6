//! Far JMP, CALL and RET: code segments, call gates, task gates, TSSs (SDM 2A CALL, JMP, RET; 3A 5.8).
//!
//! Not responsible for: near transfers (`control_transfer`), interrupts (`interrupt`), SYSCALL and its kin (`fast_call`).

use crate::cpu::{Cpu, Width};
use crate::fault::R;
use crate::gate::Gate;
use crate::lower::Form;
use crate::mmu::access::{Mem, canonical};
use crate::op::{Handler, Op};
use crate::segmentation::{Descriptor, is_null, null_segment, system_type};
use crate::stack::{Slot, Stack};
use crate::task::Transfer;
use gemel_machine::CpuIo;
use gemel_x86::segment::{CS, SS, attr};
use gemel_x86::{Exception, Segment, Vector};
use iced_x86::Code;

/// JMP ptr16:16, ptr16:32, m16:16, m16:32, m16:64.
pub fn jmp_far(f: &Form) -> Option<Handler> {
    Some(match f.code {
        Code::Jmp_ptr1616 | Code::Jmp_ptr1632 => jump_pointer,
        Code::Jmp_m1616 => jump_memory::<u16>,
        Code::Jmp_m1632 => jump_memory::<u32>,
        Code::Jmp_m1664 => jump_memory::<u64>,
        _ => return None,
    })
}

/// CALL ptr16:16, ptr16:32, m16:16, m16:32, m16:64.
pub fn call_far(f: &Form) -> Option<Handler> {
    Some(match f.code {
        Code::Call_ptr1616 => call_pointer::<u16>,
        Code::Call_ptr1632 => call_pointer::<u32>,
        Code::Call_m1616 => call_memory::<u16>,
        Code::Call_m1632 => call_memory::<u32>,
        Code::Call_m1664 => call_memory::<u64>,
        _ => return None,
    })
}

/// RETF, RETF imm16.
pub fn retf(f: &Form) -> Option<Handler> {
    Some(match f.code {
        Code::Retfw | Code::Retfw_imm16 => ret::<u16>,
        Code::Retfd | Code::Retfd_imm16 => ret::<u32>,
        Code::Retfq | Code::Retfq_imm16 => ret::<u64>,
        _ => return None,
    })
}

fn jump_pointer(cpu: &mut Cpu, op: &Op, io: &mut dyn CpuIo) -> R {
    cpu.jump_far(op, (op.imm >> 32) as u16, op.imm & 0xffff_ffff, io)
}

fn jump_memory<W: Width + Mem>(cpu: &mut Cpu, op: &Op, io: &mut dyn CpuIo) -> R {
    let (selector, offset) = cpu.far_pointer::<W>(op, io)?;
    cpu.jump_far(op, selector, offset.zext(), io)
}

fn call_pointer<W: Width>(cpu: &mut Cpu, op: &Op, io: &mut dyn CpuIo) -> R {
    cpu.call_far(op, (op.imm >> 32) as u16, op.imm & 0xffff_ffff, Slot::of::<W>(), io)
}

fn call_memory<W: Width + Mem>(cpu: &mut Cpu, op: &Op, io: &mut dyn CpuIo) -> R {
    let (selector, offset) = cpu.far_pointer::<W>(op, io)?;
    cpu.call_far(op, selector, offset.zext(), Slot::of::<W>(), io)
}

fn ret<W: Width>(cpu: &mut Cpu, op: &Op, io: &mut dyn CpuIo) -> R {
    cpu.return_far(Slot::of::<W>(), op.imm & 0xffff, io)
}

/// What a call gate leads to.
struct Behind {
    offset: u64,
    slot: Slot,
    parameters: u8,
    code: Descriptor,
}

impl Cpu {
    /// A far pointer in memory: the offset, and behind it the selector, whose address is wrapped to the address size.
    pub(crate) fn far_pointer<W: Width + Mem>(&mut self, op: &Op, io: &mut dyn CpuIo) -> R<(u16, W)> {
        let behind = Op { disp: op.disp.wrapping_add(W::BYTES as u64), ..*op };
        let offset = self.load::<W>(op, io)?;
        Ok((self.load::<u16>(&behind, io)?, offset))
    }

    /// A far JMP or CALL outside protected mode: the segment and the check of the offset.
    fn plain_target(&mut self, selector: u16, offset: u64) -> R<Segment> {
        let code = self.plain_segment(CS, selector);
        self.check_entry(&code, offset)?;
        Ok(code)
    }

    /// The descriptor that a far JMP or CALL names.
    fn far_target(&mut self, selector: u16, io: &mut dyn CpuIo) -> R<Descriptor> {
        if is_null(selector) {
            return self.general_protection(0);
        }
        self.descriptor(selector, Vector::GeneralProtection, io)
    }

    /// The checks of a direct transfer to a code segment: no change of level (SDM 3A 5.8.1).
    fn check_direct(&mut self, d: &mut Descriptor, io: &mut dyn CpuIo) -> R {
        let cpl = self.s.cpl;
        let allowed = if d.is_conforming() { d.dpl() <= cpl } else { d.rpl() <= cpl && d.dpl() == cpl };
        self.check_code(d, allowed, io)
    }

    /// The checks that every new code segment gets.
    pub(crate) fn check_code(&mut self, d: &mut Descriptor, allowed: bool, io: &mut dyn CpuIo) -> R {
        let selector = d.segment.selector;
        let impossible = self.long_mode() && d.segment.has(attr::L | attr::DB);
        if !d.is_code() || !allowed || impossible {
            return self.selector_fault(Vector::GeneralProtection, selector);
        }
        if !d.present() {
            return self.selector_fault(Vector::NotPresent, selector);
        }
        self.mark_accessed(d, io)
    }

    fn jump_far(&mut self, op: &Op, selector: u16, offset: u64, io: &mut dyn CpuIo) -> R {
        let cpl = self.s.cpl;
        if !self.protected() {
            let code = self.plain_target(selector, offset)?;
            self.set_code(code, cpl, offset);
            return Ok(());
        }
        let mut d = self.far_target(selector, io)?;
        let Some(kind) = d.system_type() else {
            self.check_direct(&mut d, io)?;
            self.check_entry(&d.segment, offset)?;
            self.set_code(d.segment, cpl, offset);
            return Ok(());
        };
        match kind {
            system_type::CALL_GATE | system_type::CALL_GATE_16 if self.offers_system_type(kind) => {
                let to = self.through_call_gate(&d, io)?;
                if !to.code.is_conforming() && to.code.dpl() != cpl {
                    return self.selector_fault(Vector::GeneralProtection, to.code.segment.selector);
                }
                self.check_entry(&to.code.segment, to.offset)?;
                self.set_code(to.code.segment, cpl, to.offset);
                Ok(())
            }
            _ => self.far_task(op, &d, Transfer::Jump, io),
        }
    }

    /// Long mode keeps only the 64-bit call gate (SDM 3A 5.8.3.1).
    fn offers_system_type(&self, kind: u16) -> bool {
        !self.long_mode() || kind == system_type::CALL_GATE
    }

    /// A far JMP or CALL to a TSS or task gate; anything else is #GP (SDM 3A 7.2.2, 7.2.5).
    fn far_task(&mut self, op: &Op, d: &Descriptor, transfer: Transfer, io: &mut dyn CpuIo) -> R {
        let selector = d.segment.selector;
        let kind = d.system_type();
        let gate = kind == Some(system_type::TASK_GATE);
        let tss = matches!(kind, Some(system_type::TSS | system_type::TSS_16));
        if self.long_mode() || !(gate || tss) || d.dpl() < self.s.cpl.max(d.rpl()) {
            return self.selector_fault(Vector::GeneralProtection, selector);
        }
        if !d.present() {
            return self.selector_fault(Vector::NotPresent, selector);
        }
        let tss = if gate { Gate::from_raw(d.raw).selector } else { selector };
        self.switch_task(op, tss, transfer, io)
    }

    /// The checks of a call gate and of the code segment behind it (SDM 3A 5.8.4).
    fn through_call_gate(&mut self, d: &Descriptor, io: &mut dyn CpuIo) -> R<Behind> {
        let selector = d.segment.selector;
        let mut gate = Gate::from_raw(d.raw);
        if gate.dpl < self.s.cpl.max(d.rpl()) {
            return self.selector_fault(Vector::GeneralProtection, selector);
        }
        if !gate.present {
            return self.selector_fault(Vector::NotPresent, selector);
        }
        let long = self.long_mode();
        if long {
            gate = gate.with_upper(self.upper_half(d, Vector::GeneralProtection, io)?);
        }
        let mut code = self.far_target(gate.selector, io)?;
        let right_size = !long || code.segment.has(attr::L);
        let allowed = code.dpl() <= self.s.cpl && right_size;
        self.check_code(&mut code, allowed, io)?;
        let slot = match (long, gate.is_wide()) {
            (true, _) => Slot::Qword,
            (false, true) => Slot::Dword,
            (false, false) => Slot::Word,
        };
        Ok(Behind { offset: gate.offset, slot, parameters: if long { 0 } else { gate.parameters }, code })
    }

    fn call_far(&mut self, op: &Op, selector: u16, offset: u64, slot: Slot, io: &mut dyn CpuIo) -> R {
        let cpl = self.s.cpl;
        if !self.protected() {
            let mut stack = self.stack();
            self.push_caller(&mut stack, op, slot, io)?;
            let code = self.plain_target(selector, offset)?;
            self.commit_stack(&stack);
            self.set_code(code, cpl, offset);
            return Ok(());
        }
        let mut d = self.far_target(selector, io)?;
        let Some(kind) = d.system_type() else {
            self.check_direct(&mut d, io)?;
            return self.call_same_level(op, &d.segment, offset, slot, io);
        };
        match kind {
            system_type::CALL_GATE | system_type::CALL_GATE_16 if self.offers_system_type(kind) => {
                let to = self.through_call_gate(&d, io)?;
                if to.code.is_conforming() || to.code.dpl() == cpl {
                    self.call_same_level(op, &to.code.segment, to.offset, to.slot, io)
                } else {
                    self.call_inner_level(op, &to, io)
                }
            }
            _ => self.far_task(op, &d, Transfer::Call, io),
        }
    }

    fn push_caller(&mut self, stack: &mut Stack, op: &Op, slot: Slot, io: &mut dyn CpuIo) -> R {
        let (cs, rip) = (self.s.seg[CS].selector, self.next_rip(op));
        stack.push(self, slot, cs.into(), io)?;
        stack.push(self, slot, rip, io)
    }

    fn call_same_level(&mut self, op: &Op, code: &Segment, offset: u64, slot: Slot, io: &mut dyn CpuIo) -> R {
        let mut stack = self.stack();
        self.push_caller(&mut stack, op, slot, io)?;
        self.check_entry(code, offset)?;
        self.commit_stack(&stack);
        self.set_code(*code, self.s.cpl, offset);
        Ok(())
    }

    /// Through a call gate to a more privileged level: the caller's stack pointer and parameters go to the new stack
    /// (SDM 3A 5.8.5; in long mode no parameters, and SS becomes null).
    fn call_inner_level(&mut self, op: &Op, to: &Behind, io: &mut dyn CpuIo) -> R {
        let level = to.code.dpl();
        let long = self.long_mode();
        let (segment, pointer) = if long {
            let rsp = self.tss_rsp(level, 0, io)?;
            if !canonical(rsp) {
                return self.fail(Exception::with_error(Vector::Stack, 0));
            }
            (null_segment(level.into()), rsp)
        } else {
            let (ss, esp) = self.tss_stack(level, io)?;
            (self.inner_stack_segment(ss, level, io)?, esp.into())
        };
        let mut stack = Stack::inner(segment, pointer, long, level, segment.selector);
        stack.push(self, to.slot, self.s.seg[SS].selector.into(), io)?;
        stack.push(self, to.slot, self.regs[4], io)?;
        let mut parameters = Vec::with_capacity(to.parameters.into());
        let mut caller = self.stack();
        for _ in 0..to.parameters {
            parameters.push(caller.pop(self, to.slot, io)?);
        }
        for value in parameters.into_iter().rev() {
            stack.push(self, to.slot, value, io)?;
        }
        self.push_caller(&mut stack, op, to.slot, io)?;
        self.check_entry(&to.code.segment, to.offset)?;
        self.s.seg[SS] = segment;
        self.commit_stack(&stack);
        self.set_code(to.code.segment, level, to.offset);
        Ok(())
    }

    /// The code segment that a far return or IRET goes back to (SDM 2B RET, 2A IRET).
    pub(crate) fn return_code(&mut self, selector: u16, io: &mut dyn CpuIo) -> R<Descriptor> {
        let mut d = self.far_target(selector, io)?;
        let rpl = d.rpl();
        let level_ok = if d.is_conforming() { d.dpl() <= rpl } else { d.dpl() == rpl };
        let allowed = rpl >= self.s.cpl && level_ok;
        self.check_code(&mut d, allowed, io)?;
        Ok(d)
    }

    /// The stack segment that a return to `code` goes back to. 64-bit code at rings 0 to 2 may have a null one.
    pub(crate) fn return_stack(
        &mut self,
        selector: u16,
        code: &Descriptor,
        io: &mut dyn CpuIo,
    ) -> R<Segment> {
        let level = code.rpl();
        if is_null(selector) {
            let allowed = self.long_mode() && code.segment.has(attr::L) && level != 3;
            return if allowed { Ok(null_segment(selector)) } else { self.general_protection(0) };
        }
        let mut d = self.descriptor(selector, Vector::GeneralProtection, io)?;
        if d.rpl() != level || d.dpl() != level || !d.is_writable_data() {
            return self.selector_fault(Vector::GeneralProtection, selector);
        }
        if !d.present() {
            return self.selector_fault(Vector::Stack, selector);
        }
        self.mark_accessed(&mut d, io)?;
        Ok(d.segment)
    }

    fn return_far(&mut self, slot: Slot, release: u64, io: &mut dyn CpuIo) -> R {
        let mut stack = self.stack();
        let selector = stack.peek(self, slot, 1, io)? as u16;
        let rip = stack.peek(self, slot, 0, io)?;
        stack.skip(2 * slot.bytes());
        if !self.protected() {
            let code = self.plain_target(selector, rip)?;
            stack.skip(release);
            self.commit_stack(&stack);
            self.set_code(code, self.s.cpl, rip);
            return Ok(());
        }
        stack.skip(release);
        if selector & 3 == u16::from(self.s.cpl) {
            let code = self.return_code(selector, io)?;
            self.check_entry(&code.segment, rip)?;
            self.commit_stack(&stack);
            self.set_code(code.segment, self.s.cpl, rip);
            return Ok(());
        }
        let (ss, pointer) = stack.peek_outer(self, slot, io)?;
        let code = self.return_code(selector, io)?;
        let segment = self.return_stack(ss, &code, io)?;
        self.check_entry(&code.segment, rip)?;
        let to_64 = self.long_mode() && code.segment.has(attr::L);
        let mut outer = Stack::inner(segment, pointer, to_64, code.rpl(), 0);
        outer.skip(release);
        self.s.seg[SS] = segment;
        self.commit_stack(&outer);
        self.set_code(code.segment, code.rpl(), rip);
        self.drop_inner_segments();
        Ok(())
    }
}
