#![allow(unsafe_code)] // executes guest arithmetic on the host's AVX unit
//! Thunks of VEX instructions, which the build script assembles, and the calls that run them.
//!
//! Not responsible for: which instruction takes what (`isa::vex`).
//!
//! Fixed registers: operand n is XMM or YMM n+1; general registers are EAX as the first operand and ECX as another; EDX and XMM0
//! where an instruction implies them. No thunk reads memory or changes anything else, so every thunk can be called through every
//! function of this file. Upper halves travel apart, as the guest's state has them, and are zero when other code runs.

use super::HOST_MXCSR;
use super::simd::{integer, runnable, vector};
use iced_x86::Code;
use std::arch::asm;
use std::arch::x86_64::__m128i;

std::arch::global_asm!(
    ".pushsection .text.gemel_vex_thunks,\"ax\",@progbits",
    ".balign 64",
    ".globl gemel_vex_thunks",
    ".hidden gemel_vex_thunks",
    "gemel_vex_thunks:",
    concat!(".incbin \"", env!("OUT_DIR"), "/vex_thunks.bin\""),
    ".popsection",
);

unsafe extern "C" {
    static gemel_vex_thunks: u8;
}

const COUNT: u32 = include_bytes!(concat!(env!("OUT_DIR"), "/vex_thunks.bin")).len() as u32 / 8;

/// A VEX instruction on fixed registers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct VexThunk(u32);

impl VexThunk {
    /// The thunk of an instruction; `None` where an operand is always memory.
    pub(crate) fn find(code: Code, immediate: u8) -> Option<Self> {
        Self::find_masked(code, immediate, false)
    }

    /// The thunk of an instruction that, where its mask is clear, leaves the destination or makes it zero.
    pub(crate) fn find_masked(code: Code, immediate: u8, zeroing: bool) -> Option<Self> {
        let (first, has_immediate, zeroing_from) = include!(concat!(env!("OUT_DIR"), "/vex_rows.rs"));
        let immediate = if has_immediate { u32::from(immediate) } else { 0 };
        Some(Self(first + immediate + if zeroing { zeroing_from } else { 0 }))
    }

    /// The number, to be kept in [`crate::op::Op::thunk`].
    pub(crate) fn number(self) -> u32 {
        self.0
    }

    /// The thunk of a number; a number that is none gives the last.
    #[inline(always)]
    pub(crate) fn at(number: u32) -> Self {
        Self(number.min(COUNT - 1))
    }

    #[inline(always)]
    pub(super) fn address(self) -> usize {
        &raw const gemel_vex_thunks as usize + self.0 as usize * 8
    }
}

/// A YMM register in its halves.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct Ymm {
    /// The XMM register.
    pub low: u128,
    /// Bits 128 to 255.
    pub high: u128,
}

/// Calls a thunk: the instructions before, the call, the instructions after; then operands.
macro_rules! call {
    ([$($before:literal),*], [$($after:literal),*], $thunk:ident, $($operands:tt)*) => {
        // SAFETY: every thunk of the table returns, reads no memory, and changes no more than the clobbers named here. The interpreter
        // offers them only on a host that has the instruction. LDMXCSR gets no reserved bit, and the host's MXCSR is back before any
        // other code runs.
        unsafe {
            asm!(
                $($before,)*
                "call {thunk}",
                $($after,)*
                thunk = in(reg) $thunk.address(),
                $($operands)*
            )
        }
    };
}

/// Runs a thunk on 128 bits: what the destination was, and two sources; the new destination, whose upper half is zero.
#[inline(always)]
pub(crate) fn vex128(thunk: VexThunk, [d, a, b]: [u128; 3]) -> u128 {
    let result: __m128i;
    call!([], [], thunk,
        inout("xmm1") vector(d) => result,
        in("xmm2") vector(a),
        in("xmm3") vector(b),
        out("xmm0") _, out("rax") _, out("rcx") _,
    );
    integer(result)
}

/// The same under the guest's MXCSR, all exceptions masked; also MXCSR afterwards.
#[inline(always)]
pub(crate) fn vex128_float(thunk: VexThunk, [d, a, b]: [u128; 3], mxcsr: u32) -> (u128, u32) {
    let result: __m128i;
    let mut control = runnable(mxcsr);
    call!(["ldmxcsr [{control}]"], ["stmxcsr [{control}]", "ldmxcsr [{host}]"], thunk,
        control = in(reg) &raw mut control,
        host = in(reg) &raw const HOST_MXCSR,
        inout("xmm1") vector(d) => result,
        in("xmm2") vector(a),
        in("xmm3") vector(b),
        out("xmm0") _, out("rax") _, out("rcx") _,
    );
    (integer(result), control)
}

/// Runs a thunk on 256 bits.
#[inline(always)]
pub(crate) fn vex256(thunk: VexThunk, [d, a, b]: [Ymm; 3]) -> Ymm {
    let (low, high): (__m128i, __m128i);
    call!(
        [
            "vinsertf128 ymm1, ymm1, xmm5, 1",
            "vinsertf128 ymm2, ymm2, xmm6, 1",
            "vinsertf128 ymm3, ymm3, xmm7, 1"
        ],
        ["vextractf128 xmm5, ymm1, 1", "vzeroupper"],
        thunk,
        inout("xmm1") vector(d.low) => low,
        in("xmm2") vector(a.low),
        in("xmm3") vector(b.low),
        inout("xmm5") vector(d.high) => high,
        in("xmm6") vector(a.high),
        in("xmm7") vector(b.high),
        out("xmm0") _, out("rax") _, out("rcx") _,
    );
    Ymm { low: integer(low), high: integer(high) }
}

/// The same under the guest's MXCSR, all exceptions masked; also MXCSR afterwards.
#[inline(always)]
pub(crate) fn vex256_float(thunk: VexThunk, [d, a, b]: [Ymm; 3], mxcsr: u32) -> (Ymm, u32) {
    let (low, high): (__m128i, __m128i);
    let mut control = runnable(mxcsr);
    call!(
        [
            "vinsertf128 ymm1, ymm1, xmm5, 1",
            "vinsertf128 ymm2, ymm2, xmm6, 1",
            "vinsertf128 ymm3, ymm3, xmm7, 1",
            "ldmxcsr [{control}]"
        ],
        ["stmxcsr [{control}]", "ldmxcsr [{host}]", "vextractf128 xmm5, ymm1, 1", "vzeroupper"],
        thunk,
        control = in(reg) &raw mut control,
        host = in(reg) &raw const HOST_MXCSR,
        inout("xmm1") vector(d.low) => low,
        in("xmm2") vector(a.low),
        in("xmm3") vector(b.low),
        inout("xmm5") vector(d.high) => high,
        in("xmm6") vector(a.high),
        in("xmm7") vector(b.high),
        out("xmm0") _, out("rax") _, out("rcx") _,
    );
    (Ymm { low: integer(low), high: integer(high) }, control)
}

/// Runs a thunk whose mask is a fourth register: sources and mask.
#[inline(always)]
pub(crate) fn vex_select(thunk: VexThunk, [a, b, mask]: [Ymm; 3]) -> Ymm {
    let (low, high): (__m128i, __m128i);
    call!(
        [
            "vinsertf128 ymm2, ymm2, xmm6, 1",
            "vinsertf128 ymm3, ymm3, xmm7, 1",
            "vinsertf128 ymm4, ymm4, xmm5, 1"
        ],
        ["vextractf128 xmm5, ymm1, 1", "vzeroupper"],
        thunk,
        out("xmm1") low,
        in("xmm2") vector(a.low),
        in("xmm3") vector(b.low),
        in("xmm4") vector(mask.low),
        inout("xmm5") vector(mask.high) => high,
        in("xmm6") vector(a.high),
        in("xmm7") vector(b.high),
        out("xmm0") _, out("rax") _, out("rcx") _,
    );
    Ymm { low: integer(low), high: integer(high) }
}

/// The registers around a thunk that also uses general ones or flags.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct VexRegs {
    /// XMM0, a result only.
    pub xmm0: u128,
    /// The first operand; of the result its low half.
    pub first: Ymm,
    /// The second operand.
    pub second: Ymm,
    /// RAX.
    pub rax: u64,
    /// RCX.
    pub rcx: u64,
    /// RDX.
    pub rdx: u64,
    /// RFLAGS; a result only.
    pub flags: u64,
}

macro_rules! general_call {
    ($regs:ident, $thunk:ident, [$($before:literal),*], [$($after:literal),*], $($operands:tt)*) => {{
        let (xmm0, xmm1): (__m128i, __m128i);
        let (rax, rcx, flags): (u64, u64, u64);
        call!(
            ["vinsertf128 ymm1, ymm1, xmm5, 1", "vinsertf128 ymm2, ymm2, xmm6, 1" $(, $before)*],
            ["pushfq", "pop {flags}" $(, $after)*, "vzeroupper"],
            $thunk,
            flags = out(reg) flags,
            $($operands)*
            out("xmm0") xmm0,
            inout("xmm1") vector($regs.first.low) => xmm1,
            in("xmm2") vector($regs.second.low),
            in("xmm5") vector($regs.first.high),
            in("xmm6") vector($regs.second.high),
            inout("rax") $regs.rax => rax,
            inout("rcx") $regs.rcx => rcx,
            in("rdx") $regs.rdx,
        );
        let first = Ymm { low: integer(xmm1), high: 0 };
        VexRegs { xmm0: integer(xmm0), first, rax, rcx, flags, ..$regs }
    }};
}

/// Runs a thunk with all registers that any instruction uses.
#[inline(always)]
pub(crate) fn vex_general(thunk: VexThunk, regs: VexRegs) -> VexRegs {
    general_call!(regs, thunk, [], [],)
}

/// The same under the guest's MXCSR, all exceptions masked; also MXCSR afterwards.
#[inline(always)]
pub(crate) fn vex_general_float(thunk: VexThunk, regs: VexRegs, mxcsr: u32) -> (VexRegs, u32) {
    let mut control = runnable(mxcsr);
    let after = general_call!(regs, thunk, ["ldmxcsr [{control}]"], ["stmxcsr [{control}]", "ldmxcsr [{host}]"],
        control = in(reg) &raw mut control,
        host = in(reg) &raw const HOST_MXCSR,
    );
    (after, control)
}
