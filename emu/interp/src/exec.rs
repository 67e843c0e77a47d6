#![allow(unsafe_code)] // runs blocks by pointer, so that an instruction can change the block cache under itself
//! The loop: finds blocks, runs them, stops where the machine wants, delivers what is pending.
//!
//! Not responsible for: what an instruction does (`isa`), how an interrupt is delivered (`interrupt`).
//!
//! Boundaries are what counts here. Whatever needs one sets [`Cpu::limit`] to zero, and the block ends after the
//! running instruction; where blocks begin and end can therefore never be told from a run.

use crate::blocks::Block;
use crate::cpu::Cpu;
use crate::fault::R;
use crate::lower;
use crate::op::{REP, REPNE};
use gemel_machine::ram::TABLE;
use gemel_machine::{CpuIo, Exit, Position};
use gemel_x86::control::DR6_BS;
use gemel_x86::flags::RF;
use gemel_x86::segment::CS;
use std::ptr::NonNull;

impl Cpu {
    /// Runs until the machine's stop, a halt, or a triple fault.
    pub(crate) fn run(&mut self, io: &mut dyn CpuIo) -> Exit {
        self.follow_ram();
        self.bounds.begin(self.count);
        self.heed(io.attention(self.position()));
        let exit = match self.bounds.address() {
            None => self.run_on::<false>(io),
            Some(_) => self.run_on::<true>(io),
        };
        self.bounds.end();
        exit
    }

    /// `SEEK`: an address ends the run, so that each block is looked into before it runs.
    fn run_on<const SEEK: bool>(&mut self, io: &mut dyn CpuIo) -> Exit {
        loop {
            if self.shutdown {
                return Exit::Shutdown;
            }
            if SEEK || self.count >= self.attention.stop {
                if self.bounds.reached(self.count) {
                    return Exit::Stop;
                }
                let clear = if SEEK { self.clear_of_aim() } else { u64::MAX };
                match self.bounds.next_look(self.count, self.rip, self.regs[1], clear) {
                    Some(stop) => self.attention.stop = stop,
                    None => return Exit::Yield,
                }
            }
            if self.needs_care() {
                if let Some(exit) = self.boundary(io) {
                    return exit;
                }
                continue;
            }
            self.run_block(u64::from(u16::MAX), io);
        }
    }

    /// Instructions that can run from here before a boundary at the aim's address, if what is cached tells; 1 if not.
    fn clear_of_aim(&self) -> u64 {
        let lin = self.rip.wrapping_add(self.seg_base[CS]);
        let block = self.blocks.successor(lin).or_else(|| self.blocks.at_linear(lin));
        let (Some(aim), Some(block), true) = (self.bounds.address(), block, self.mode.flat) else { return 1 };
        // SAFETY: as in `run_block`; nothing runs meanwhile.
        let ops = &unsafe { block.as_ref() }.ops;
        let offset = aim.wrapping_sub(self.rip);
        // A repetition at its own address is the first of its block.
        if offset == 0 || ops.first().is_some_and(|op| op.has(REP | REPNE)) {
            return 1;
        }
        ops.iter().position(|op| u64::from(op.offset) == offset).unwrap_or(ops.len()) as u64
    }

    /// Whether a boundary has more to do than to find the next block.
    #[inline(always)]
    fn needs_care(&self) -> bool {
        self.attention.interrupt
            | self.attention.nmi
            | self.halted
            | (self.shadow != 0)
            | (self.debug_traps != 0)
            | (self.mmu.mode == crate::mmu::CHECKED)
            | self.single_steps()
            | (self.system_flags & RF != 0)
    }

    /// A boundary with something pending: one delivery, or one instruction (SDM 3A table 6-2 has the order).
    fn boundary(&mut self, io: &mut dyn CpuIo) -> Option<Exit> {
        let shadow = self.shadow;
        if self.debug_traps != 0 && shadow & 2 == 0 {
            self.deliver_debug_trap(io);
            return None;
        }
        if self.attention.nmi && shadow == 0 && !self.s.nmi_blocked {
            self.halted = false;
            let attention = io.acknowledge_nmi(self.position());
            self.heed(attention);
            self.deliver_nmi(io);
            return None;
        }
        if self.attention.interrupt && shadow == 0 && self.interrupts_on() {
            self.halted = false;
            let (vector, attention) = io.acknowledge_irq(self.position());
            self.heed(attention);
            self.deliver_external(vector, io);
            return None;
        }
        if self.halted {
            return Some(if self.interrupts_on() { Exit::Halted } else { Exit::HaltedForGood });
        }
        self.shadow = 0;
        if self.breakpoints_armed() && self.system_flags & RF == 0 && self.code_breakpoint() {
            self.deliver_fault(io);
            return None;
        }
        let stepped = self.single_steps();
        let traps = stepped && (!self.steps_on_branches() || self.branches_next(io));
        self.resumed = self.system_flags & RF != 0;
        let one = shadow != 0 || stepped || self.resumed || self.mmu.mode == crate::mmu::CHECKED;
        // RF is for this instruction; what it pushes or faults with does not depend on it, and IRET may set it anew.
        self.system_flags &= !RF;
        self.step_ends = false;
        let retired = self.run_block(if one { 1 } else { u64::from(u16::MAX) }, io);
        self.resumed = false;
        // MOV SS and POP SS are not stepped (SDM 3A 6.8.3): the next instruction's step is the first.
        if retired && traps && !self.step_ends && self.shadow & 2 == 0 {
            self.debug_traps |= DR6_BS;
        }
        None
    }

    /// Runs at most `most` instructions of the block at RIP. False when it ended in a fault (now delivered).
    #[inline(always)]
    pub(crate) fn run_block(&mut self, most: u64, io: &mut dyn CpuIo) -> bool {
        let start = self.rip;
        let lin = start.wrapping_add(self.seg_base[CS]);
        let found = match self.blocks.successor(lin) {
            Some(block) if self.mode.flat => Ok(block),
            _ => self.next_block(start, lin, io),
        };
        let Ok(pointer) = found else {
            return self.fault_at_boundary(io);
        };
        // SAFETY: blocks are freed only by `bury`, which runs in `find_block` before a block is handed out. An instruction may drop
        // the block from the cache, but not its memory.
        let block: &Block = unsafe { pointer.as_ref() };
        let ops = block.ops.as_ptr();
        let room = (self.attention.stop - self.count).min(most);
        self.blocks.set_running(Some(pointer));
        self.limit = (block.ops.len() as u64).min(room) as u16;
        self.regs[crate::op::BLOCK_RIP as usize] = start;
        self.rip = self.wrap_ip(start.wrapping_add(u64::from(block.bytes)));
        let mut i = 0u16;
        while i < self.limit {
            self.nth = i;
            // SAFETY: `limit` starts at most at the number of instructions and is only ever lowered while the block runs.
            let op = unsafe { &*ops.add(i as usize) };
            if (op.run)(self, op, io).is_err() {
                self.count += u64::from(i);
                self.nth = 0;
                self.rip = self.rip_of(op);
                return self.fault_at_boundary(io);
            }
            i += 1;
        }
        self.count += u64::from(i);
        self.nth = 0;
        if let Some(next) = block.ops.get(i as usize) {
            self.rip = self.rip_of(next);
        }
        true
    }

    /// Whether the instruction at RIP is a branch that will be taken. What its fetch raises comes again when it runs.
    #[cold]
    fn branches_next(&mut self, io: &mut dyn CpuIo) -> bool {
        let start = self.rip;
        let Ok(block) = self.next_block(start, start.wrapping_add(self.seg_base[CS]), io) else {
            return false;
        };
        // SAFETY: as in `run_block`.
        let first = unsafe { block.as_ref() }.ops.first();
        first.is_some_and(|op| self.is_taken_branch(op.code))
    }

    /// The instruction at RIP raised something. Whether it retired in the end, which only one with an ignored x87 error does.
    #[cold]
    #[inline(never)]
    fn fault_at_boundary(&mut self, io: &mut dyn CpuIo) -> bool {
        self.blocks.set_running(None);
        if self.is_float_error_outside() {
            return self.report_float_error(io);
        }
        self.deliver_fault(io);
        false
    }

    /// The block at RIP when the last one does not know it as a successor; now it does.
    #[inline(never)]
    fn next_block(&mut self, rip: u64, lin: u64, io: &mut dyn CpuIo) -> R<NonNull<Block>> {
        let block = match self.blocks.at_linear(lin) {
            Some(block) if self.mode.flat => block,
            _ => self.find_block(rip, lin, io)?,
        };
        self.blocks.link(lin, block);
        Ok(block)
    }

    /// Finds or makes the block at RIP.
    #[cold]
    #[inline(never)]
    fn find_block(&mut self, rip: u64, lin: u64, _io: &mut dyn CpuIo) -> R<NonNull<Block>> {
        self.blocks.bury(&self.ram);
        let lin = if self.is_64() {
            if !crate::mmu::access::canonical(lin) {
                return self.general_protection(0);
            }
            lin
        } else {
            lin & 0xffff_ffff
        };
        if !self.mode.flat && rip > u64::from(self.s.seg[CS].limit) {
            return self.general_protection(0);
        }
        let Some(page) = self.fetch_page(lin)? else {
            // Fetches from where no RAM is read all ones: FF FF is no instruction.
            return self.undefined();
        };
        let offset = (lin & 0xfff) as u16;
        let key = self.mode.key();
        if let Some((block, second)) = self.blocks.at_physical(page, offset, key) {
            let same = match second {
                None => true,
                Some(second) => self.fetch_page(self.next_page(lin))? == Some(second),
            };
            // SAFETY: just found in its page.
            let bytes = u64::from(unsafe { block.as_ref() }.bytes);
            if same && (self.mode.flat || rip + bytes - 1 <= u64::from(self.s.seg[CS].limit)) {
                self.blocks.remember(lin, block);
                return Ok(block);
            }
        }
        let decoded = lower::decode(self, rip, lin, page)?;
        // Stores into these pages have to be heard of from now on.
        self.mmu.slow_down(page);
        if let Some(second) = decoded.second_page {
            self.mmu.slow_down(second);
        }
        let block = self.blocks.insert((page, offset), key, decoded, &self.ram);
        self.blocks.remember(lin, block);
        Ok(block)
    }

    /// Catches up with what others did to RAM since the last run: DMA into marked pages, cleared DIRTY marks.
    pub(crate) fn follow_ram(&mut self) {
        self.mmu.follow_generation(&self.ram);
        if self.ram.any_touched() {
            for page in self.ram.take_touched() {
                self.blocks.page_written(page, &self.ram);
                if self.ram.marks(page) & TABLE != 0 {
                    self.mmu.flush_all(&self.ram);
                    self.blocks.forget_addresses();
                    self.code_key_changed();
                }
            }
            self.limit = 0;
        }
    }

    /// Recomputes what, beside the address, selects a block: address space, privilege, decoding mode.
    pub(crate) fn code_key_changed(&mut self) {
        let (spaces, wrapped) = self.mmu.code_keys();
        if wrapped {
            self.blocks.forget_addresses();
        }
        let mode = u16::from(self.s.cpl == 3) << 4 | u16::from(self.mode.key());
        self.blocks.set_keys(spaces.map(|space| space << 5 | mode));
    }

    /// Where the running instruction is, for accesses made without its `Op` at hand.
    pub(crate) fn io_position(&self) -> Position {
        let start = self.regs[crate::op::BLOCK_RIP as usize];
        let rip = self.wrap_ip(start.wrapping_add(self.blocks.running_offset(self.nth)));
        let count = self.bounds.counted_before(self.count + u64::from(self.nth));
        Position { count, rip, rcx: self.regs[1] }
    }
}
