//! A stack pointer in motion: frames are written and read through it, and only the commit moves RSP.
//!
//! Not responsible for: PUSH, POP, CALL and RET (`mmu`), which move RSP as they go.

use crate::cpu::{Cpu, Width};
use crate::fault::R;
use crate::mmu::access::canonical;
use gemel_machine::CpuIo;
use gemel_x86::segment::{SS, attr};
use gemel_x86::{Exception, Segment, Vector};

/// Bytes of one slot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Slot {
    Word,
    Dword,
    Qword,
}

impl Slot {
    /// The slot of an operand size.
    pub(crate) const fn of<W: Width>() -> Self {
        match W::BYTES {
            2 => Self::Word,
            4 => Self::Dword,
            _ => Self::Qword,
        }
    }

    pub(crate) const fn bytes(self) -> u64 {
        match self {
            Self::Word => 2,
            Self::Dword => 4,
            Self::Qword => 8,
        }
    }
}

/// A stack that a transfer uses before anything of it is committed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stack {
    /// The stack segment.
    pub segment: Segment,
    /// The pointer; only the bits of the stack's size count.
    pub pointer: u64,
    /// Which bits those are.
    mask: u64,
    /// Whether accesses are a supervisor's although CPL may still be 3.
    supervisor: bool,
    /// Error code of #SS when the segment has no room.
    error: u32,
}

impl Stack {
    /// A stack of a level being entered. `error` is what #SS reports.
    pub(crate) fn inner(segment: Segment, pointer: u64, long: bool, level: u8, error: u16) -> Self {
        let mask = match (long, segment.has(attr::DB)) {
            (true, _) => u64::MAX,
            (false, true) => 0xffff_ffff,
            (false, false) => 0xffff,
        };
        Self { segment, pointer, mask, supervisor: level < 3, error: u32::from(error & !3) }
    }

    /// The linear address of a slot; #SS where the segment has no room for it.
    fn linear(&self, cpu: &mut Cpu, offset: u64, slot: Slot) -> R<u64> {
        let last = offset.wrapping_add(slot.bytes() - 1);
        if self.mask == u64::MAX {
            if canonical(offset) && canonical(last) {
                return Ok(offset);
            }
        } else {
            let s = &self.segment;
            let inside = if s.attr & (attr::CODE | attr::DOWN_CONFORMING) == attr::DOWN_CONFORMING {
                let top = if s.has(attr::DB) { 0xffff_ffff } else { 0xffff };
                offset > u64::from(s.limit) && last <= top
            } else {
                last <= u64::from(s.limit)
            };
            if inside {
                return Ok(s.base.wrapping_add(offset) & 0xffff_ffff);
            }
        }
        cpu.fail(Exception::with_error(Vector::Stack, self.error))
    }

    /// Writes a value below the pointer and moves it.
    pub(crate) fn push(&mut self, cpu: &mut Cpu, slot: Slot, value: u64, io: &mut dyn CpuIo) -> R {
        let offset = self.pointer.wrapping_sub(slot.bytes()) & self.mask;
        let lin = self.linear(cpu, offset, slot)?;
        let seg = SS as u8;
        match (slot, self.supervisor) {
            (Slot::Word, false) => cpu.write(lin, seg, value as u16, io)?,
            (Slot::Dword, false) => cpu.write(lin, seg, value as u32, io)?,
            (Slot::Qword, false) => cpu.write(lin, seg, value, io)?,
            (Slot::Word, true) => cpu.write_system(lin, value as u16, io)?,
            (Slot::Dword, true) => cpu.write_system(lin, value as u32, io)?,
            (Slot::Qword, true) => cpu.write_system(lin, value, io)?,
        }
        self.pointer = offset;
        Ok(())
    }

    /// Reads the value at the pointer and moves it.
    pub(crate) fn pop(&mut self, cpu: &mut Cpu, slot: Slot, io: &mut dyn CpuIo) -> R<u64> {
        let value = self.peek(cpu, slot, 0, io)?;
        self.pointer = (self.pointer & self.mask).wrapping_add(slot.bytes());
        Ok(value)
    }

    /// Reads the value `n` slots above the pointer.
    pub(crate) fn peek(&self, cpu: &mut Cpu, slot: Slot, n: u64, io: &mut dyn CpuIo) -> R<u64> {
        let offset = self.pointer.wrapping_add(n * slot.bytes()) & self.mask;
        let lin = self.linear(cpu, offset, slot)?;
        let seg = SS as u8;
        Ok(match slot {
            Slot::Word => cpu.read::<u16>(lin, seg, io)?.into(),
            Slot::Dword => cpu.read::<u32>(lin, seg, io)?.into(),
            Slot::Qword => cpu.read::<u64>(lin, seg, io)?,
        })
    }

    /// The outer level's stack at the pointer: selector and pointer, in the order in which silicon reads them.
    pub(crate) fn peek_outer(&self, cpu: &mut Cpu, slot: Slot, io: &mut dyn CpuIo) -> R<(u16, u64)> {
        let selector = self.peek(cpu, slot, 1, io)? as u16;
        Ok((selector, self.peek(cpu, slot, 0, io)?))
    }

    /// Skips bytes without touching them.
    pub(crate) fn skip(&mut self, bytes: u64) {
        self.pointer = self.pointer.wrapping_add(bytes);
    }
}

impl Cpu {
    /// The current stack, as it stands.
    pub(crate) fn stack(&self) -> Stack {
        Stack {
            segment: self.s.seg[SS],
            pointer: self.regs[4],
            mask: self.stack_mask(),
            supervisor: false,
            error: 0,
        }
    }

    /// Moves RSP to where a stack got to. SS must already be the stack's.
    pub(crate) fn commit_stack(&mut self, stack: &Stack) {
        let rsp = &mut self.regs[4];
        *rsp = if stack.mask == 0xffff {
            *rsp & !0xffff | stack.pointer & 0xffff
        } else {
            stack.pointer & stack.mask
        };
    }
}
