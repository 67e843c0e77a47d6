//! A decoded instruction in the form that handlers want: operands picked apart once, when the block is made.
//!
//! Not responsible for: decoding (`lower`), executing (`isa`).

use crate::cpu::Cpu;
use crate::fault::R;
use gemel_machine::CpuIo;

/// Executes one instruction. Register and flag changes happen only after everything that can fault.
pub type Handler = fn(&mut Cpu, &Op, &mut dyn CpuIo) -> R;

/// Index into [`Cpu::regs`] that always reads zero: an address without a base or an index.
pub const NO_REG: u8 = 16;
/// Index into [`Cpu::regs`] that holds the RIP of the running block's first instruction: RIP-relative addresses.
pub const BLOCK_RIP: u8 = 17;
/// Index into [`Cpu::seg_base`] that is always zero: segments whose base and limit do not count in 64-bit mode.
pub const NO_SEG: u8 = 6;

/// A memory access needs the segment's limit and type checked (legacy modes, segment not flat).
pub const CHECK_SEGMENT: u8 = 1 << 0;
/// A memory operand is there.
pub const HAS_MEMORY: u8 = 1 << 1;
/// REP or REPE.
pub const REP: u8 = 1 << 2;
/// REPNE.
pub const REPNE: u8 = 1 << 3;
/// LOCK.
pub const LOCK: u8 = 1 << 4;

/// One instruction of a block.
///
/// `r[n]` is operand n's register when it is one: 0 to 15 for general registers of 16 bits and more; the byte's
/// place in [`Cpu::regs`] for 8-bit ones (see [`crate::cpu::Width`]); the plain number for XMM, MMX, ST, segment, control and
/// debug registers.
#[derive(Clone, Copy, Debug)]
pub struct Op {
    /// The handler.
    pub run: Handler,
    /// The immediate operand, sign-extended; a far pointer is selector << 32 | offset; near branches hold their target relative to
    /// the block's first instruction.
    pub imm: u64,
    /// Displacement of the memory operand, sign-extended; relative to the block's RIP with base [`BLOCK_RIP`].
    pub disp: u64,
    /// Mask of the address size: 0xffff, 0xffff_ffff or all ones.
    pub address_mask: u64,
    /// Base register, or [`NO_REG`], or [`BLOCK_RIP`].
    pub base: u8,
    /// Index register, or [`NO_REG`].
    pub index: u8,
    /// Shift of the index: 0 to 3.
    pub scale: u8,
    /// Segment of the memory operand: an index into [`Cpu::seg_base`].
    pub seg: u8,
    /// Registers by operand.
    pub r: [u8; 4],
    /// Offset of the instruction from the block's first.
    pub offset: u16,
    /// Index of the host code that executes this instruction, for handlers that use it.
    pub thunk: u32,
    /// What else the binder of a form with many properties tells its handler.
    pub detail: u32,
    /// iced's `Code`, for handlers that serve many opcodes (host execution, messages).
    pub code: u16,
    /// Length in bytes.
    pub len: u8,
    /// [`CHECK_SEGMENT`], [`HAS_MEMORY`], [`REP`], [`REPNE`], [`LOCK`].
    pub bits: u8,
}

impl Op {
    /// Whether a bit of [`Op::bits`] is set.
    #[inline(always)]
    pub fn has(&self, bit: u8) -> bool {
        self.bits & bit != 0
    }
}
