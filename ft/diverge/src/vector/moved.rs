//! An instruction moved from where the guest has it to the pages and segments that test vectors have (tests/isa/src/arena.rs): its
//! operands keep their places in a page, and what points to them points there.
//!
//! Not responsible for: values (`vector`).

use crate::linear;
use gemel_machine::{GuestRam, Paging};
use gemel_x86::CpuState;
use gemel_x86::segment::{CS, DS, ES, FS, GS, SS, attr};
use iced_x86::{
    CodeSize, CpuidFeature, Decoder, DecoderOptions, EncodingKind, FlowControl, Instruction,
    InstructionInfoFactory, Mnemonic, OpAccess, OpKind, Register, UsedMemory,
};

/// The arena: its span, its page of code, its two pages of data, its page of data apart; how far FS and GS lie above DS.
const BASE: u64 = 0x1234_0000;
pub(super) const CODE: u64 = BASE + 0x2000;
const DATA: u64 = BASE + 0x5000;
const STACK: u64 = BASE + 0x9000;
const FS_SHIFT: u64 = 0x10;
const GS_SHIFT: u64 = 0x20;
/// All of them, for whoever has the arena to compare.
pub const ARENA: [u64; 6] = [BASE, CODE, DATA, STACK, FS_SHIFT, GS_SHIFT];
const PAGE: u64 = 0x1000;
/// Patches that a case can have.
const MOST_LINES: usize = 4;

/// A register that points to memory.
struct Pointer {
    register: usize,
    delta: u64,
    /// The bits of it that are the address.
    mask: u64,
    /// It is loaded with something else by the instruction.
    loaded: bool,
}

/// The instruction, moved.
pub(crate) struct Moved {
    pub(crate) bits: u32,
    pub(crate) code: Vec<u8>,
    /// Memory that it sees, in lines of 64 bytes: address in the arena, physical address in the guest.
    pub(crate) lines: Vec<(u64, u64)>,
    /// General and vector registers that it uses, bit by bit.
    pub(crate) general: u32,
    pub(crate) vector: u32,
    /// It uses the x87 unit.
    pub(crate) float: bool,
    pointers: Vec<Pointer>,
    instruction: Instruction,
}

/// Mnemonics whose outcome user code elsewhere would not see alike, or that no vector tells in full.
fn is_left_out(mnemonic: Mnemonic) -> bool {
    use Mnemonic as M;
    matches!(
        mnemonic,
        M::Rdtsc
            | M::Rdtscp
            | M::Rdpmc
            | M::Rdpru
            | M::Cpuid
            | M::Xgetbv
            | M::Rdpid
            | M::Rdrand
            | M::Rdseed
            | M::Sgdt
            | M::Sidt
            | M::Sldt
            | M::Str
            | M::Smsw
            | M::Lar
            | M::Lsl
            | M::Verr
            | M::Verw
            | M::Pushf
            | M::Pushfd
            | M::Pushfq
            | M::Popf
            | M::Popfd
            | M::Popfq
            | M::Cli
            | M::Sti
            | M::In
            | M::Out
            | M::Insb
            | M::Insw
            | M::Insd
            | M::Outsb
            | M::Outsw
            | M::Outsd
            | M::Rdfsbase
            | M::Rdgsbase
            | M::Wrfsbase
            | M::Wrgsbase
            | M::Monitorx
            | M::Mwaitx
            | M::Monitor
            | M::Mwait
            | M::Enter
            | M::Leave
            | M::Pusha
            | M::Pushad
            | M::Popa
            | M::Popad
            | M::Xlatb
            | M::Maskmovq
            | M::Maskmovdqu
            | M::Fldenv
            | M::Fnstenv
            | M::Fsave
            | M::Fnsave
            | M::Frstor
            | M::Fxsave
            | M::Fxsave64
            | M::Fxrstor
            | M::Fxrstor64
    )
}

impl Moved {
    /// Moves the instruction whose bytes `code` begins with; otherwise says why it cannot be.
    pub(crate) fn of(ram: &GuestRam, state: &CpuState, code: &[u8]) -> Result<Self, &'static str> {
        let bits = linear::width(state);
        let mut decoder = Decoder::with_ip(bits, code, state.rip, DecoderOptions::NONE);
        let instruction = decoder.decode();
        if instruction.is_invalid() {
            return Err("there is no instruction there");
        }
        if instruction.is_privileged() || is_left_out(instruction.mnemonic()) {
            return Err("what the instruction does is not for user code alone to see");
        }
        if !matches!(instruction.encoding(), EncodingKind::Legacy | EncodingKind::VEX) {
            return Err("vectors have no registers of AVX-512");
        }
        let near = instruction.is_jcc_short_or_near()
            || instruction.is_jmp_short_or_near()
            || instruction.is_jcx_short()
            || instruction.is_loop()
            || instruction.is_loopcc();
        if instruction.flow_control() != FlowControl::Next && !near {
            return Err("the instruction goes where a vector cannot follow");
        }
        if bits != 64 && instruction.is_stack_instruction() && state.seg[SS].has(attr::DB) != (bits == 32) {
            return Err("the stack is not as wide as the code");
        }
        // The single iteration of a repetition is what is looked at.
        let mut single = instruction;
        if instruction.is_string_instruction() {
            single.set_has_rep_prefix(false);
            single.set_has_repne_prefix(false);
        }
        let mut moved = Self {
            bits,
            code: code[..instruction.len()].to_vec(),
            lines: Vec::new(),
            general: 0,
            vector: 0,
            float: false,
            pointers: Vec::new(),
            instruction,
        };
        moved.note_registers()?;
        let constants = decoder.get_constant_offsets(&instruction);
        let mut factory = InstructionInfoFactory::new();
        let used: Vec<UsedMemory> = factory.info(&single).used_memory().to_vec();
        let seen = used.iter().filter(|memory| memory.access() != OpAccess::NoMemAccess);
        for (n, memory) in seen.enumerate() {
            let page = *[DATA, STACK].get(n).ok_or("the instruction has more than two places in memory")?;
            let displacement = constants
                .has_displacement()
                .then(|| (constants.displacement_offset(), constants.displacement_size()));
            moved.place(ram, state, memory, page, displacement)?;
        }
        if moved.lines.len() > MOST_LINES {
            return Err("the instruction sees more memory than a vector holds");
        }
        Ok(moved)
    }

    fn note_registers(&mut self) -> Result<(), &'static str> {
        let mut factory = InstructionInfoFactory::new();
        for used in factory.info(&self.instruction).used_registers() {
            let (register, full) = (used.register(), used.register().full_register());
            let number = full.number();
            if full.is_gpr64() || full.is_gpr32() {
                self.general |= 1 << number;
            } else if full.is_zmm() && number < 16 && register.size() <= 32 {
                self.vector |= 1 << number;
            } else if full.is_mm() || full.is_st() {
                self.float = true;
            } else if full.is_segment_register() {
                let writes = !matches!(used.access(), OpAccess::Read | OpAccess::CondRead);
                if writes
                    || (0..self.instruction.op_count()).any(|n| self.instruction.op_register(n) == register)
                {
                    return Err("the instruction works on segment registers");
                }
            } else if !full.is_ip() {
                return Err("the instruction uses registers that vectors do not have");
            }
        }
        let unit = |feature: &CpuidFeature| {
            let name = format!("{feature:?}");
            name.starts_with("FPU") || name.starts_with("MMX")
        };
        self.float |= self.instruction.cpuid_features().iter().any(unit);
        Ok(())
    }

    /// Gives a place in memory its place in the arena.
    fn place(
        &mut self,
        ram: &GuestRam,
        state: &CpuState,
        memory: &UsedMemory,
        page: u64,
        displacement: Option<(usize, usize)>,
    ) -> Result<(), &'static str> {
        let size = memory.memory_size().size() as u64;
        if size == 0 || size > 64 || memory.base().is_xmm() || memory.index().is_vector_register() {
            return Err("how much memory the instruction sees is not known");
        }
        let mask = match memory.address_size() {
            CodeSize::Code16 => 0xffff,
            CodeSize::Code32 => 0xffff_ffff,
            _ => u64::MAX,
        };
        let value = |register: Register| match register {
            Register::None => 0,
            _ => state.gpr[register.full_register().number()],
        };
        let scaled = value(memory.index()).wrapping_mul(memory.scale() as u64);
        let offset = value(memory.base()).wrapping_add(scaled).wrapping_add(memory.displacement()) & mask;
        let segment = match memory.segment() {
            Register::ES => ES,
            Register::CS => CS,
            Register::SS => SS,
            Register::FS => FS,
            Register::GS => GS,
            _ => DS,
        };
        let has_base = self.bits != 64 || segment == FS || segment == GS;
        let base = if has_base { state.seg[segment].base } else { 0 };
        let linear_mask = if self.bits == 64 { u64::MAX } else { 0xffff_ffff };
        let linear = base.wrapping_add(offset) & linear_mask;
        let there = if self.bits == 16 { BASE } else { 0 }
            + match segment {
                FS => FS_SHIFT,
                GS => GS_SHIFT,
                _ => 0,
            };

        let explicit = (0..self.instruction.op_count())
            .any(|n| self.instruction.op_kind(n) == OpKind::Memory)
            && memory.memory_size() == self.instruction.memory_size()
            && memory.base() == base_of(&self.instruction)
            && memory.index() == self.instruction.memory_index();
        let carrier = match (memory.base(), memory.index()) {
            (Register::None, Register::None) => None,
            (Register::None, index) if memory.scale() == 1 => Some(index),
            (Register::None, _) => None,
            (base, _) => Some(base),
        };
        let target = page + linear % PAGE;
        let Some(carrier) = carrier else {
            self.point_directly(target.wrapping_sub(there), offset, displacement)?;
            return self.cover(ram, state, linear, target, size);
        };
        let register = carrier.full_register().number();
        let mask = mask & if carrier.size() == 4 { 0xffff_ffff } else { u64::MAX };
        if let Some(known) = self.pointers.iter().find(|pointer| pointer.register == register) {
            let target = (offset.wrapping_add(known.delta) & mask).wrapping_add(there);
            return self.cover(ram, state, linear, target, size);
        }
        let loaded = explicit && self.loads(carrier, memory)?;
        let delta = target.wrapping_sub(there).wrapping_sub(offset);
        self.pointers.push(Pointer { register, delta, mask, loaded });
        self.cover(ram, state, linear, target, size)
    }

    /// Whether the register that points to the explicit operand is loaded by the instruction. One that is data as well cannot point
    /// elsewhere.
    fn loads(&self, carrier: Register, memory: &UsedMemory) -> Result<bool, &'static str> {
        if memory.base().full_register() == memory.index().full_register() {
            return Err("one register points to memory in two ways");
        }
        let mut without = self.instruction;
        if memory.base() == carrier {
            without.set_memory_base(Register::None);
        } else {
            without.set_memory_index(Register::None);
        }
        let mut factory = InstructionInfoFactory::new();
        let info = factory.info(&without);
        let mut loaded = false;
        for used in
            info.used_registers().iter().filter(|u| u.register().full_register() == carrier.full_register())
        {
            match used.access() {
                OpAccess::Write if used.register().size() >= 4 => loaded = true,
                _ => return Err("the register that points to memory is data as well"),
            }
        }
        Ok(loaded)
    }

    /// Writes another displacement into the code.
    fn point_directly(
        &mut self,
        offset: u64,
        before: u64,
        displacement: Option<(usize, usize)>,
    ) -> Result<(), &'static str> {
        let Some((at, size)) = displacement.filter(|(_, size)| *size >= 2) else {
            return Err("nothing that points to memory can point elsewhere");
        };
        let instruction = &self.instruction;
        let value = if instruction.is_ip_rel_memory_operand() {
            offset.wrapping_sub(super::RIP + instruction.len() as u64)
        } else {
            // What an index adds stays.
            instruction.memory_displacement64().wrapping_add(offset.wrapping_sub(before))
        };
        self.code[at..at + size].copy_from_slice(&value.to_le_bytes()[..size]);
        Ok(())
    }

    /// Takes the lines in that an operand covers.
    fn cover(
        &mut self,
        ram: &GuestRam,
        state: &CpuState,
        linear: u64,
        target: u64,
        size: u64,
    ) -> Result<(), &'static str> {
        let end = target.wrapping_add(size);
        let inside = |from: u64, pages: u64| from <= target && end <= from + pages * PAGE;
        if !inside(DATA, 2) && !inside(STACK, 1) {
            return Err("the instruction's places in memory lie too far apart");
        }
        let (first, paging) = (target & !63, Paging::of(state));
        for line in (first..end).step_by(64) {
            let there = (linear & !63).wrapping_add(line - first);
            let physical = paging.physical(ram, there);
            let physical = physical.filter(|at| ram.page_at(*at).is_some()).ok_or("its memory is not RAM")?;
            if !self.lines.contains(&(line, physical)) {
                self.lines.push((line, physical));
            }
        }
        Ok(())
    }

    /// The bits of an instruction pointer.
    pub(crate) fn address_mask(&self) -> u64 {
        match self.bits {
            64 => u64::MAX,
            32 => 0xffff_ffff,
            _ => 0xffff,
        }
    }

    /// Whether this state is behind the instruction, and not in a handler.
    pub(crate) fn went_on(&self, before: &CpuState, after: &CpuState) -> bool {
        let i = &self.instruction;
        let repeats = i.is_string_instruction() && (i.has_rep_prefix() || i.has_repne_prefix());
        let to = i.flow_control() != FlowControl::Next && after.rip == i.near_branch_target();
        after.seg[CS] == before.seg[CS]
            && (after.rip == i.next_ip() || to || repeats && after.rip == before.rip)
    }

    /// A general register as the case has it.
    pub(crate) fn general(&self, n: usize, state: &CpuState, before: &CpuState) -> u64 {
        let width = if self.bits == 64 { u64::MAX } else { 0xffff_ffff };
        let stack = if n == 4 && self.bits == 16 { 0xffff } else { width };
        let pointer = self.pointers.iter().find(|pointer| pointer.register == n);
        let value = match pointer {
            Some(p) if !p.loaded || std::ptr::eq(state, before) => {
                state.gpr[n] & !p.mask | state.gpr[n].wrapping_add(p.delta) & p.mask
            }
            _ => state.gpr[n],
        };
        value & stack
    }
}

/// The base register of the explicit operand, as a used place in memory tells it: none for what is relative to RIP.
fn base_of(instruction: &Instruction) -> Register {
    match instruction.memory_base() {
        Register::RIP | Register::EIP => Register::None,
        base => base,
    }
}
