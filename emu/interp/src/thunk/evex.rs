#![allow(unsafe_code)] // executes guest arithmetic on the host's AVX-512 unit
//! The call that runs a thunk of an EVEX instruction or of one on mask registers, with every register that any of them uses.
//!
//! Not responsible for: which instruction takes what (`isa::evex`), where the thunks are (`vex`).

use super::simd::runnable;
use super::{HOST_MXCSR, VexThunk};
use std::arch::asm;
use std::mem::offset_of;

/// A ZMM register in 128-bit parts, lowest first.
pub(crate) type Zmm = [u128; 4];

/// What a thunk finds in registers and leaves there.
#[derive(Clone, Copy, Default, Debug)]
#[repr(C, align(64))]
pub(crate) struct EvexRegs {
    /// Vector operands by their place: ZMM1 to ZMM3. Of the results only the first.
    pub vectors: [Zmm; 3],
    /// The mask, then mask operands by their place: K1 to K4. Of the results only the first operand.
    pub masks: [u64; 4],
    /// RAX; a result only.
    pub rax: u64,
    /// RCX.
    pub rcx: u64,
    /// RFLAGS; a result only.
    pub flags: u64,
    /// MXCSR, before and after; all exceptions are masked meanwhile.
    pub mxcsr: u32,
}

/// Runs a thunk.
pub(crate) fn evex(thunk: VexThunk, regs: &mut EvexRegs) {
    regs.mxcsr = runnable(regs.mxcsr);
    // SAFETY: every thunk of the table returns, reads no memory, and changes no more than the clobbers named here and mask registers,
    // which hold nothing across an `asm!` block of code that is compiled without AVX-512. The interpreter offers them only on a host
    // that has the instruction. LDMXCSR gets no reserved bit, and the host's MXCSR is back before any other code runs. The registers
    // are aligned to 64 bytes.
    unsafe {
        asm!(
            "vmovdqa64 zmm1, [{regs}]",
            "vmovdqa64 zmm2, [{regs} + 64]",
            "vmovdqa64 zmm3, [{regs} + 128]",
            "kmovq k1, [{regs} + {masks}]",
            "kmovq k2, [{regs} + {masks} + 8]",
            "kmovq k3, [{regs} + {masks} + 16]",
            "kmovq k4, [{regs} + {masks} + 24]",
            "mov rcx, [{regs} + {rcx}]",
            "ldmxcsr [{regs} + {mxcsr}]",
            "call {thunk}",
            "pushfq",
            "pop [{regs} + {flags}]",
            "stmxcsr [{regs} + {mxcsr}]",
            "ldmxcsr [{host}]",
            "mov [{regs} + {rax}], rax",
            "kmovq [{regs} + {masks} + 8], k2",
            "vmovdqa64 [{regs}], zmm1",
            "vzeroupper",
            regs = in(reg) regs,
            thunk = in(reg) thunk.address(),
            host = in(reg) &raw const HOST_MXCSR,
            masks = const offset_of!(EvexRegs, masks),
            rax = const offset_of!(EvexRegs, rax),
            rcx = const offset_of!(EvexRegs, rcx),
            flags = const offset_of!(EvexRegs, flags),
            mxcsr = const offset_of!(EvexRegs, mxcsr),
            out("xmm0") _, out("xmm1") _, out("xmm2") _, out("xmm3") _, out("xmm4") _,
            out("rax") _, out("rcx") _,
        );
    }
}
