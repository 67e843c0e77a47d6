//! Single instructions that the host CPU executes on the guest's behalf: SIMD and x87 arithmetic, bit-exact because
//! it is the same silicon.
//!
//! Not responsible for: operands, faults, guest state (`isa`).
//!
//! Every instruction stands here once, with fixed registers, followed by RET: a *thunk*. The assembler makes them when the crate
//! is built, one every eight bytes, so a thunk is found by its number and no memory is ever both writable and executable. An
//! immediate byte is part of an instruction: such rows have 256 thunks each. To offer a further instruction is to add
//! its row (`simd`, `mmx`); x87 needs none, all its encodings are there, and the rows of VEX come from iced's list by the build script.

#[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
compile_error!(
    "gemel-interp runs the guest's SIMD and x87 arithmetic on the host's own units: it needs an x86-64 Linux host"
);

mod evex;
mod host;
mod mmx;
mod simd;
mod table;
mod vex;
mod x87;
mod x87_plan;

pub(crate) use evex::{EvexRegs, Zmm, evex};
pub use host::missing_on_host;
pub(crate) use mmx::{MmxThunk, mmx, mmx_float};
pub(crate) use simd::{Regs, SimdThunk, general, general_float, packed, packed_float};
pub(crate) use table::Shape;
pub(crate) use vex::{
    VexRegs, VexThunk, Ymm, vex_general, vex_general_float, vex_select, vex128, vex128_float, vex256,
    vex256_float,
};
pub(crate) use x87::{Operand, State, brief, whole};
pub(crate) use x87_plan::Plan;

/// MXCSR of Rust code: all exceptions masked, round to nearest.
static HOST_MXCSR: u32 = 0x1f80;
/// The bits of MXCSR that exist; loading others faults.
pub(crate) const MXCSR_BITS: u32 = 0xffff;
/// The exception masks of MXCSR.
pub(crate) const MXCSR_MASKS: u32 = 0x1f80;
/// The exception flags of MXCSR.
pub(crate) const MXCSR_FLAGS: u32 = 0x3f;
