//! The interpreter's CPU: the architectural state with its hot part in a form that handlers want.
//!
//! Not responsible for: the loop that drives it (`exec`), memory (`mmu`), instructions (`isa`).

use crate::blocks::Blocks;
use crate::bounds::Bounds;
use crate::flags::LazyFlags;
use crate::mmu::Mmu;
use crate::op::{BLOCK_RIP, NO_REG, NO_SEG, Op};
use gemel_machine::{Attention, CpuIo, GuestRam, Position};
use gemel_x86::control::{CR0_AM, CR0_PE, EFER_LMA};
use gemel_x86::flags::{AC, FIXED, IF, STATUS, TF, VM};
use gemel_x86::segment::{CS, FS, GS, SS, attr};
use gemel_x86::{CpuModel, CpuState, Exception, Segment, Vector};
use std::sync::Arc;

/// Places in [`Cpu::regs`]: 18 are used; a power of two makes every index cheap to bound.
pub const REGS: usize = 32;
/// Places in [`Cpu::seg_base`]: 7 are used.
pub const SEGS: usize = 8;

/// How the current code is decoded: the part of the state that a block depends on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Mode {
    /// 16, 32 or 64.
    pub code_bits: u8,
    /// Stack operations use 16, 32 or 64 bits of RSP.
    pub stack_bits: u8,
    /// DS, ES, SS, CS are whole: accesses need no segment check. Always so in 64-bit mode.
    pub flat: bool,
}

impl Mode {
    /// The mode as four bits, for cache keys.
    pub fn key(self) -> u8 {
        let size = |bits| match bits {
            16 => 0,
            32 => 1,
            _ => 2,
        };
        // 64-bit code always has a 64-bit stack, so two bits of code and one of stack tell all.
        size(self.code_bits) | (u8::from(self.stack_bits != 16)) << 2 | u8::from(self.flat) << 3
    }
}

/// The CPU. Fields of the architectural state that change with every instruction live here directly; the rest is
/// [`Cpu::s`]. In `s`, `gpr`, `rip`, `rflags`, `count`, `halted` and `shadow` are stale while running: use the fields here.
pub struct Cpu {
    /// RAX to R15, then [`NO_REG`] (zero) and [`BLOCK_RIP`].
    pub regs: [u64; REGS],
    /// RIP. Inside a handler: the address after the block's last instruction, which control transfers change.
    /// Use [`Cpu::rip_of`] and [`Cpu::next_rip`].
    pub rip: u64,
    /// Status flags.
    pub flags: LazyFlags,
    /// RFLAGS without the status flags.
    pub system_flags: u64,
    /// Base of each segment as addresses use it: in 64-bit mode only FS and GS are not zero; last is [`NO_SEG`].
    pub seg_base: [u64; SEGS],
    /// Counted instructions before the running block (plus REP iterations done).
    pub count: u64,
    /// How many instructions of the running block may still start: zeroed by whatever needs the boundary.
    pub limit: u16,
    /// Number of the running instruction in its block.
    pub nth: u16,
    /// The pending exception, when a handler returned [`crate::fault::Fault`].
    pub fault: Exception,
    /// What the machine wants; `stop` is in terms of [`Cpu::count`].
    pub attention: Attention,
    /// Where this run ends.
    pub(crate) bounds: Bounds,
    /// HLT waits.
    pub halted: bool,
    /// A triple fault happened.
    pub shutdown: bool,
    /// Interrupt shadow, see [`CpuState::shadow`].
    pub shadow: u8,
    /// The instruction entered a handler with TF clear, so that no single-step trap follows it (SDM 3B 17.3.1.4).
    pub step_ends: bool,
    /// RF was set when the running instruction started.
    pub resumed: bool,
    /// Debug traps (DR6 bits) to deliver at the next boundary.
    pub debug_traps: u64,
    /// The running instruction is to run in spite of a waiting x87 error (IGNNE#).
    pub float_errors_ignored: bool,
    /// How code is decoded now.
    pub mode: Mode,
    /// Everything else.
    pub s: CpuState,
    /// The CPU model.
    pub model: CpuModel,
    /// Translations.
    pub mmu: Mmu,
    /// Decoded code.
    pub blocks: Blocks,
    /// Guest memory.
    pub ram: Arc<GuestRam>,
}

/// An operand size: `u8`, `u16`, `u32` or `u64`, with the way it lies in registers.
pub trait Width: Copy + Eq + Sized + 'static {
    /// Bits.
    const BITS: u32;
    /// Bytes.
    const BYTES: usize;
    /// Zero-extends.
    fn zext(self) -> u64;
    /// Sign-extends.
    fn sext(self) -> u64;
    /// Truncates.
    fn cut(value: u64) -> Self;
    /// Reads a register operand.
    fn get(regs: &[u64; REGS], r: u8) -> Self;
    /// Writes a register operand: 32 bits clear the upper half, 8 and 16 keep the rest (SDM 1 3.4.1.1).
    fn put(self, regs: &mut [u64; REGS], r: u8);
}

macro_rules! width {
    ($t:ty, $s:ty, |$regs:ident, $r:ident| $get:expr, |$v:ident, $old:ident| $put:expr) => {
        impl Width for $t {
            const BITS: u32 = <$t>::BITS;
            const BYTES: usize = size_of::<$t>();
            #[inline(always)]
            fn zext(self) -> u64 {
                self as u64
            }
            #[inline(always)]
            fn sext(self) -> u64 {
                self as $s as i64 as u64
            }
            #[inline(always)]
            fn cut(value: u64) -> Self {
                value as $t
            }
            #[inline(always)]
            fn get($regs: &[u64; REGS], $r: u8) -> Self {
                $get
            }
            #[inline(always)]
            fn put(self, regs: &mut [u64; REGS], r: u8) {
                let $v = self;
                let $old = &mut regs[(r & 15) as usize];
                *$old = $put;
            }
        }
    };
}
width!(u16, i16, |regs, r| regs[(r & 15) as usize] as u16, |v, old| *old & !0xffff | u64::from(v));
width!(u32, i32, |regs, r| regs[(r & 15) as usize] as u32, |v, _old| u64::from(v));
width!(u64, i64, |regs, r| regs[(r & 15) as usize], |v, _old| v);

/// 8-bit registers are named by their byte in the register file: 8 times the register, plus one for AH, CH, DH, BH.
impl Width for u8 {
    const BITS: u32 = 8;
    const BYTES: usize = 1;
    #[inline(always)]
    fn zext(self) -> u64 {
        u64::from(self)
    }
    #[inline(always)]
    fn sext(self) -> u64 {
        self as i8 as i64 as u64
    }
    #[inline(always)]
    fn cut(value: u64) -> Self {
        value as u8
    }
    #[inline(always)]
    fn get(regs: &[u64; REGS], r: u8) -> Self {
        (regs[(r >> 3 & 15) as usize] >> ((r & 7) * 8)) as u8
    }
    #[inline(always)]
    fn put(self, regs: &mut [u64; REGS], r: u8) {
        let shift = (r & 7) * 8;
        let old = &mut regs[(r >> 3 & 15) as usize];
        *old = *old & !(0xff << shift) | u64::from(self) << shift;
    }
}

impl Cpu {
    /// A CPU in its reset state.
    pub fn new(model: CpuModel, ram: Arc<GuestRam>) -> Self {
        let mut cpu = Self {
            regs: [0; REGS],
            rip: 0,
            flags: LazyFlags::from_bits(0),
            system_flags: 0,
            seg_base: [0; SEGS],
            count: 0,
            limit: 0,
            nth: 0,
            fault: Exception::new(Vector::InvalidOpcode),
            attention: Attention { stop: 0, interrupt: false, nmi: false },
            bounds: Bounds::new(),
            halted: false,
            shutdown: false,
            shadow: 0,
            step_ends: false,
            resumed: false,
            debug_traps: 0,
            float_errors_ignored: false,
            mode: Mode { code_bits: 16, stack_bits: 16, flat: false },
            s: CpuState::default(),
            model,
            mmu: Mmu::new(ram.pages()),
            blocks: Blocks::new(ram.pages()),
            ram,
        };
        cpu.set_state(&CpuState::default());
        cpu
    }

    /// Takes a state on and drops all that was cached.
    pub fn set_state(&mut self, state: &CpuState) {
        self.set_registers(state);
        self.flush_caches();
        self.mode_changed();
    }

    /// Takes a state on. Translations and decoded blocks stay: they follow memory, not registers.
    pub fn set_registers(&mut self, state: &CpuState) {
        self.s.clone_from(state);
        self.regs[..16].copy_from_slice(&state.gpr);
        self.rip = state.rip;
        self.set_rflags(state.rflags);
        self.count = self.bounds.restart(state.count, self.count);
        self.halted = state.halted;
        self.shadow = state.shadow;
        self.debug_traps = state.pending_debug;
        self.shutdown = false;
        self.blocks.set_running(None);
        self.address_space_changed();
        self.mode_changed();
    }

    /// The state at a boundary.
    pub fn state(&self) -> CpuState {
        let mut s = self.s.clone();
        s.gpr.copy_from_slice(&self.regs[..16]);
        s.rip = self.rip;
        s.rflags = self.rflags();
        s.count = self.bounds.counted(self.count);
        s.halted = self.halted;
        s.shadow = self.shadow;
        s.pending_debug = self.debug_traps;
        s
    }

    /// RFLAGS, all of it.
    pub fn rflags(&self) -> u64 {
        self.system_flags | self.flags.bits()
    }

    /// Sets RFLAGS, all of it. Reserved bits are the caller's business; bit 1 is forced.
    pub fn set_rflags(&mut self, value: u64) {
        self.flags = LazyFlags::from_bits(value & STATUS);
        self.system_flags = value & !STATUS | FIXED;
        self.limit = 0;
        self.mmu_mode_changed();
    }

    /// Whether long mode is active (64-bit or compatibility).
    #[inline]
    pub fn long_mode(&self) -> bool {
        self.s.efer & EFER_LMA != 0
    }

    /// Whether the code is 64-bit.
    #[inline]
    pub fn is_64(&self) -> bool {
        self.mode.code_bits == 64
    }

    /// Protected mode, virtual-8086 not counted.
    #[inline]
    pub fn protected(&self) -> bool {
        self.s.cr0 & CR0_PE != 0 && !self.v86()
    }

    /// Virtual-8086 mode.
    #[inline]
    pub fn v86(&self) -> bool {
        self.system_flags & VM != 0
    }

    /// Real mode.
    #[inline]
    pub fn real(&self) -> bool {
        self.s.cr0 & CR0_PE == 0
    }

    /// I/O privilege level.
    #[inline]
    pub fn iopl(&self) -> u8 {
        (self.system_flags >> gemel_x86::flags::IOPL_SHIFT) as u8 & 3
    }

    /// Address of the running instruction.
    #[inline]
    pub fn rip_of(&self, op: &Op) -> u64 {
        self.wrap_ip(self.regs[BLOCK_RIP as usize].wrapping_add(u64::from(op.offset)))
    }

    /// Address after the running instruction.
    #[inline]
    pub fn next_rip(&self, op: &Op) -> u64 {
        self.wrap_ip(self.regs[BLOCK_RIP as usize].wrapping_add(u64::from(op.offset) + u64::from(op.len)))
    }

    /// EIP has 32 bits outside 64-bit mode.
    #[inline(always)]
    pub fn wrap_ip(&self, rip: u64) -> u64 {
        if self.mode.code_bits == 64 { rip } else { rip & 0xffff_ffff }
    }

    /// The page after a linear address; the last one is followed by the first.
    pub fn next_page(&self, lin: u64) -> u64 {
        let next = (lin | 0xfff).wrapping_add(1);
        if self.is_64() { next } else { next & 0xffff_ffff }
    }

    /// Where the running instruction is, for [`CpuIo`].
    pub fn at(&self, op: &Op) -> Position {
        let count = self.bounds.counted_before(self.count + u64::from(self.nth));
        Position { count, rip: self.rip_of(op), rcx: self.regs[1] }
    }

    /// Where the CPU is between two instructions.
    pub fn position(&self) -> Position {
        Position { count: self.bounds.counted(self.count), rip: self.rip, rcx: self.regs[1] }
    }

    /// The running instruction leaves the guest: to be called before the access.
    #[inline]
    pub fn leave_guest(&mut self) {
        self.bounds.note_exit(self.count + u64::from(self.nth));
    }

    /// Takes on what the machine wants, at a boundary.
    pub(crate) fn heed(&mut self, attention: Attention) {
        self.attention = Attention { stop: self.bounds.heed(attention.stop), ..attention };
    }

    /// Obeys what an access returned: the block ends after this instruction.
    #[inline]
    pub fn attend(&mut self, attention: Attention) {
        self.heed(attention);
        self.limit = 0;
        if self.ram.any_touched() {
            self.follow_ram();
        }
    }

    /// To be called after any change of CS, SS, DS, ES (hidden parts), CR0.PE, EFER.LMA, RFLAGS.VM, or CPL: recomputes
    /// what derives from them. The block ends after this instruction.
    pub fn mode_changed(&mut self) {
        let long = self.long_mode() && self.s.seg[CS].has(attr::L) && !self.v86();
        let size = |s: &Segment| if s.has(attr::DB) { 32 } else { 16 };
        self.mode = if long {
            Mode { code_bits: 64, stack_bits: 64, flat: true }
        } else {
            let cs = &self.s.seg[CS];
            let code_flat = cs.base == 0 && cs.limit == u32::MAX && cs.has(attr::READ_WRITE);
            let flat = code_flat
                && self.s.seg[SS].is_flat()
                && self.s.seg[gemel_x86::segment::DS].is_flat()
                && self.s.seg[gemel_x86::segment::ES].is_flat();
            Mode { code_bits: size(cs), stack_bits: size(&self.s.seg[SS]), flat }
        };
        for (i, base) in self.seg_base.iter_mut().take(6).enumerate() {
            *base = if long && i != FS && i != GS { 0 } else { self.s.seg[i].base };
        }
        self.limit = 0;
        self.mmu_mode_changed();
    }

    /// Whether CPL-3 accesses must be aligned.
    pub fn checks_alignment(&self) -> bool {
        self.s.cpl == 3 && self.s.cr0 & CR0_AM != 0 && self.system_flags & AC != 0
    }

    /// Maskable interrupts are on.
    #[inline]
    pub fn interrupts_on(&self) -> bool {
        self.system_flags & IF != 0
    }

    /// Single step is on.
    #[inline]
    pub fn single_steps(&self) -> bool {
        self.system_flags & TF != 0
    }

    /// Drops translations and decoded blocks.
    pub fn flush_caches(&mut self) {
        self.mmu.flush_all(&self.ram);
        self.blocks.clear(&self.ram);
        self.limit = 0;
        self.mmu_mode_changed();
    }

    /// The memory operand's offset in its segment, cut to the address size.
    #[inline(always)]
    pub fn ea(&self, op: &Op) -> u64 {
        let base = self.regs[op.base as usize % REGS];
        let index = self.regs[op.index as usize % REGS];
        base.wrapping_add(index << op.scale).wrapping_add(op.disp) & op.address_mask
    }

    /// Whether instruction or data breakpoints are armed (DR7 enables).
    pub fn breakpoints_armed(&self) -> bool {
        self.s.dr7 & 0xff != 0
    }
}

const _: () = assert!(NO_REG == 16 && BLOCK_RIP == 17 && NO_SEG == 6);

/// What handlers get beside the CPU and the operation.
pub type Io<'a> = dyn CpuIo + 'a;
