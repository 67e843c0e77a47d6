//! The instruction that left the guest.
//!
//! Not responsible for: what it does to devices (`exits`).
//!
//! At some exits KVM's registers are those before the instruction, at others it has already gone on: after every store that its emulator
//! made (Linux, `x86_emulate_instruction`: registers are written back unless a read waits). Positions name the instruction, so it is
//! looked for backwards: its length is one at which the bytes decode to exactly it, with the port or address, size and value that left.
//! Where more than one length fits, bytes in front could be prefixes without effect; no compiler makes those, and the shortest is taken
//! of each instruction.

use crate::left::{MmioAccess, PortAccess};
use gemel_machine::{GuestRam, Paging};
use gemel_x86::control::EFER_LMA;
use gemel_x86::flags::{DF, VM};
use iced_x86::{
    Decoder, DecoderOptions, FlowControl, Instruction, InstructionInfoFactory, Mnemonic, OpAccess, OpKind,
    Register, RflagsBits,
};
use kvm_bindings::{kvm_regs, kvm_segment, kvm_sregs};

/// The longest instruction.
const LONGEST: u64 = 15;

/// Registers and memory in which an instruction is looked for.
#[derive(Clone, Copy)]
pub(crate) struct View<'a> {
    pub ram: &'a GuestRam,
    pub regs: &'a kvm_regs,
    pub sregs: &'a kvm_sregs,
}

/// The state before an instruction that KVM has gone past.
pub(crate) struct Before {
    pub regs: kvm_regs,
    /// It makes this one access and changes no register but RIP: nothing is to be undone.
    pub plain: bool,
}

impl View<'_> {
    fn long(&self) -> bool {
        self.sregs.efer & EFER_LMA != 0 && self.sregs.cs.l != 0
    }

    fn bits(&self) -> u32 {
        match () {
            () if self.long() => 64,
            () if self.sregs.cs.db != 0 && self.regs.rflags & VM == 0 => 32,
            () => 16,
        }
    }

    fn linear(&self, segment: &kvm_segment, offset: u64) -> u64 {
        if self.long() { offset } else { segment.base.wrapping_add(offset) & 0xffff_ffff }
    }

    fn paging(&self) -> Paging {
        let s = self.sregs;
        // The guest has just used these addresses, so what it loaded is still what memory says.
        Paging { cr0: s.cr0, cr3: s.cr3, cr4: s.cr4, efer: s.efer, pdpte: None }
    }

    /// Where a linear address lies, or `None` where nothing is mapped.
    pub(crate) fn physical(&self, linear: u64) -> Option<u64> {
        self.paging().physical(self.ram, linear)
    }

    /// Copies bytes at a linear address out, as far as they are mapped to RAM. Returns how many.
    pub(crate) fn read(&self, linear: u64, out: &mut [u8]) -> usize {
        self.paging().read(self.ram, linear, out)
    }

    /// The instruction at an address, if its bytes are there and decode.
    pub(crate) fn decode(&self, rip: u64) -> Option<Instruction> {
        let mut bytes = [0; LONGEST as usize];
        let n = self.read(self.linear(&self.sregs.cs, rip), &mut bytes);
        let mut decoder = Decoder::with_ip(self.bits(), &bytes[..n], rip, DecoderOptions::NONE);
        let instruction = decoder.decode();
        (!instruction.is_invalid()).then_some(instruction)
    }

    /// The instruction at RIP.
    pub(crate) fn next(&self) -> Option<Instruction> {
        self.decode(self.regs.rip)
    }

    /// Every instruction that ends at RIP, the shortest first.
    fn ending_here(&self) -> impl Iterator<Item = Instruction> {
        (1..=LONGEST).filter_map(|length| {
            let instruction = self.decode(self.regs.rip.wrapping_sub(length))?;
            (instruction.len() as u64 == length).then_some(instruction)
        })
    }

    /// A register's value; a segment register's is its base.
    fn register(&self, register: Register, regs: &kvm_regs) -> Option<u64> {
        if register.is_segment_register() {
            let s = self.sregs;
            let segment = [&s.es, &s.cs, &s.ss, &s.ds, &s.fs, &s.gs][register.number() % 6];
            let based = !self.long() || matches!(register, Register::FS | Register::GS);
            return Some(if based { segment.base } else { 0 });
        }
        if !register.is_gpr() {
            return None;
        }
        let value = gpr(regs, register.full_register().number());
        Some(match register.size() {
            2 => value & 0xffff,
            4 => value & 0xffff_ffff,
            8 => value,
            _ => return None,
        })
    }

    /// Where an instruction's memory operand lies in the guest's physical memory, with these registers.
    fn operand(&self, instruction: &Instruction, operand: u32, regs: &kvm_regs) -> Option<u64> {
        let address = instruction.virtual_address(operand, 0, |r, _, _| self.register(r, regs))?;
        let linear = if self.long() { address } else { address & 0xffff_ffff };
        self.physical(linear)
    }

    /// The registers before one iteration of a string instruction that KVM has made, and the boundary at which it then is.
    fn before_iteration(&self, instruction: &Instruction) -> kvm_regs {
        let mut regs = *self.regs;
        let size = instruction.memory_size().size() as u64;
        let step = if regs.rflags & DF == 0 { size.wrapping_neg() } else { size };
        let width = address_bits(instruction);
        let (mut source, mut destination) = (false, false);
        for operand in 0..instruction.op_count() {
            match instruction.op_kind(operand) {
                OpKind::MemorySegSI | OpKind::MemorySegESI | OpKind::MemorySegRSI => source = true,
                OpKind::MemoryESDI | OpKind::MemoryESEDI | OpKind::MemoryESRDI => destination = true,
                _ => {}
            }
        }
        if source {
            regs.rsi = advanced(regs.rsi, step, width);
        }
        if destination {
            regs.rdi = advanced(regs.rdi, step, width);
        }
        if repeats(instruction) {
            regs.rcx = advanced(regs.rcx, 1, width);
        }
        regs.rip = instruction.ip();
        regs
    }

    /// The OUT or OUTS that KVM has gone past.
    pub(crate) fn before_port_write(&self, access: &PortAccess) -> Option<Before> {
        let kept = if access.size >= 4 { u64::from(u32::MAX) } else { (1 << (8 * access.size)) - 1 };
        let out = self.ending_here().find(|i| {
            let (port, wide) = match i.op0_kind() {
                OpKind::Immediate8 => (u16::from(i.immediate8()), i.op1_register().size()),
                _ => (self.regs.rdx as u16, i.op1_register().size()),
            };
            i.mnemonic() == Mnemonic::Out
                && port == access.port
                && wide == usize::from(access.size)
                && self.regs.rax & kept == u64::from(access.value)
        });
        if let Some(out) = out {
            return Some(Before { regs: kvm_regs { rip: out.ip(), ..*self.regs }, plain: true });
        }
        // OUTS: with REP, RIP stays until there is nothing left.
        let outs = |i: &Instruction| {
            matches!(i.mnemonic(), Mnemonic::Outsb | Mnemonic::Outsw | Mnemonic::Outsd)
                && self.regs.rdx as u16 == access.port
                && i.memory_size().size() == usize::from(access.size)
        };
        let stays = self.next().filter(|i| outs(i) && repeats(i));
        let string = stays.or_else(|| self.ending_here().find(outs))?;
        Some(Before { regs: self.before_iteration(&string), plain: false })
    }

    /// The store that KVM has gone past.
    pub(crate) fn before_store(&self, access: &MmioAccess) -> Option<Before> {
        // A prefix can be a part of the opcode (F3 makes MOVDQU of MMX's MOVQ): what decodes to another instruction with it has it.
        let store = self
            .ending_here()
            .filter_map(|i| Some((i, self.store(&i, access)?)))
            .reduce(|best, next| if next.0.code() == best.0.code() { best } else { next });
        if let Some((store, plain)) = store {
            return Some(Before { regs: kvm_regs { rip: store.ip(), ..*self.regs }, plain });
        }
        let string = |i: &Instruction| {
            let stores =
                matches!(i.mnemonic(), Mnemonic::Stosb | Mnemonic::Stosw | Mnemonic::Stosd | Mnemonic::Stosq)
                    || (is_string(i)
                        && matches!(
                            i.op0_kind(),
                            OpKind::MemoryESDI | OpKind::MemoryESEDI | OpKind::MemoryESRDI
                        ));
            stores && self.operand(i, 0, &self.before_iteration(i)) == Some(access.address)
        };
        let stays = self.next().filter(|i| repeats(i) && string(i));
        if let Some(string) = stays.or_else(|| self.ending_here().find(string)) {
            return Some(Before { regs: self.before_iteration(&string), plain: false });
        }
        self.ending_here().find_map(|i| self.before_push(&i, access))
    }

    /// Whether an instruction is a store to memory, and this access its first: `Some(true)` when it is all of it.
    fn store(&self, i: &Instruction, access: &MmioAccess) -> Option<bool> {
        if is_string(i) || i.is_stack_instruction() || i.flow_control() != FlowControl::Next {
            return None;
        }
        let mut factory = InstructionInfoFactory::new();
        let used = factory.info(i);
        let [memory] = used.used_memory() else { return None };
        let operand = (0..i.op_count()).find(|n| i.op_kind(*n) == OpKind::Memory)?;
        let size = i.memory_size().size() as u64;
        let here = self.operand(i, operand, self.regs)?;
        // A wide store leaves in pieces of eight bytes, one across pages in two.
        let piece = u64::from(access.len) == size.min(8).min(0x1000 - (here & 0xfff));
        let writes_only = memory.access() == OpAccess::Write
            && used.used_registers().iter().all(|r| r.access() == OpAccess::Read)
            && i.rflags_modified() == RflagsBits::NONE;
        (writes_only && here == access.address && piece)
            .then_some(size == u64::from(access.len) && aligned(access))
    }

    /// A PUSH whose stack is no RAM.
    fn before_push(&self, i: &Instruction, access: &MmioAccess) -> Option<Before> {
        if i.mnemonic() != Mnemonic::Push || self.bits() != 64 {
            return None;
        }
        let regs =
            kvm_regs { rip: i.ip(), rsp: self.regs.rsp.wrapping_add(u64::from(access.len)), ..*self.regs };
        let here = self.physical(self.regs.rsp)?;
        (here == access.address).then_some(Before { regs, plain: false })
    }
}

/// Whether an instruction makes this one load and nothing else that could leave the guest or would have to be undone.
pub(crate) fn is_plain_load(instruction: &Instruction, access: &MmioAccess) -> bool {
    if is_string(instruction)
        || instruction.is_stack_instruction()
        || instruction.flow_control() != FlowControl::Next
    {
        return false;
    }
    let mut factory = InstructionInfoFactory::new();
    let [memory] = factory.info(instruction).used_memory() else { return false };
    let into_segment = (0..instruction.op_count()).any(|n| {
        instruction.op_kind(n) == OpKind::Register && instruction.op_register(n).is_segment_register()
    });
    memory.access() == OpAccess::Read
        && instruction.memory_size().size() == usize::from(access.len)
        && aligned(access)
        && !into_segment
}

/// Whether KVM is not to step over an instruction. Some make TF or a debug trap visible, or take it away; of a repetition an emulator
/// makes many iterations in a step. One that faults shows TF too, on the handler's stack: that cannot be told beforehand.
pub(crate) fn is_no_step(instruction: &Instruction) -> bool {
    use Mnemonic as M;
    let into_ss = instruction.op_count() > 0
        && instruction.op0_kind() == OpKind::Register
        && instruction.op0_register() == Register::SS;
    into_ss
        || repeats(instruction)
        || instruction.flow_control() == FlowControl::Interrupt
        || matches!(
            instruction.mnemonic(),
            M::Pushf
                | M::Pushfd
                | M::Pushfq
                | M::Popf
                | M::Popfd
                | M::Popfq
                | M::Iret
                | M::Iretd
                | M::Iretq
                | M::Syscall
                | M::Sysret
                | M::Sysenter
                | M::Sysexit
                | M::Sti
                | M::Hlt
        )
}

/// Whether an instruction is INS.
pub(crate) fn is_string(instruction: &Instruction) -> bool {
    instruction.is_string_instruction()
}

/// Whether an instruction is a string instruction with REP.
pub(crate) fn repeats(instruction: &Instruction) -> bool {
    is_string(instruction)
        && (instruction.has_rep_prefix() || instruction.has_repe_prefix() || instruction.has_repne_prefix())
}

/// Whether the count of a repetition is used up, so that the instruction only goes on to the next.
pub(crate) fn is_over(instruction: &Instruction, rcx: u64) -> bool {
    repeats(instruction) && rcx & mask(address_bits(instruction)) == 0
}

/// Pieces that a bus makes of an access are naturally aligned.
fn aligned(access: &MmioAccess) -> bool {
    access.len.is_power_of_two() && access.address.is_multiple_of(access.len.into())
}

fn address_bits(instruction: &Instruction) -> u32 {
    for operand in 0..instruction.op_count() {
        match instruction.op_kind(operand) {
            OpKind::MemorySegSI | OpKind::MemoryESDI | OpKind::MemorySegDI => return 16,
            OpKind::MemorySegESI | OpKind::MemoryESEDI | OpKind::MemorySegEDI => return 32,
            _ => {}
        }
    }
    64
}

const fn mask(bits: u32) -> u64 {
    if bits == 64 { u64::MAX } else { (1 << bits) - 1 }
}

/// A register that counts in its low bits: those of 16 keep the rest, those of 32 clear it.
fn advanced(register: u64, step: u64, bits: u32) -> u64 {
    let low = register.wrapping_add(step) & mask(bits);
    if bits == 16 { register & !mask(16) | low } else { low }
}

fn gpr(regs: &kvm_regs, number: usize) -> u64 {
    let r = regs;
    [
        r.rax, r.rcx, r.rdx, r.rbx, r.rsp, r.rbp, r.rsi, r.rdi, r.r8, r.r9, r.r10, r.r11, r.r12, r.r13,
        r.r14, r.r15,
    ][number & 15]
}
