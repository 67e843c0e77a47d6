#![allow(unsafe_code)] // executes guest arithmetic on the host's MMX unit
//! Thunks that touch MMX registers, and the call that runs them.
//!
//! Not responsible for: what an MMX instruction does to the guest's x87 state (`isa::mmx`).
//!
//! Fixed registers: MM1 and XMM1 destinations, MM2 and XMM2 sources, EAX.

use super::HOST_MXCSR;
use super::simd::{integer, runnable, vector};
use std::arch::asm;
use std::arch::x86_64::__m128i;

super::table::thunk_table! {
    /// An instruction on MMX registers.
    MmxThunk at gemel_mmx_thunks;

    plain Integer ("mm1, mm2") {
        Punpcklbw_mm_mmm32 = "punpcklbw", Punpcklwd_mm_mmm32 = "punpcklwd", Punpckldq_mm_mmm32 = "punpckldq",
        Punpckhbw_mm_mmm64 = "punpckhbw", Punpckhwd_mm_mmm64 = "punpckhwd", Punpckhdq_mm_mmm64 = "punpckhdq",
        Packsswb_mm_mmm64 = "packsswb", Packssdw_mm_mmm64 = "packssdw", Packuswb_mm_mmm64 = "packuswb",
        Pcmpgtb_mm_mmm64 = "pcmpgtb", Pcmpgtw_mm_mmm64 = "pcmpgtw", Pcmpgtd_mm_mmm64 = "pcmpgtd",
        Pcmpeqb_mm_mmm64 = "pcmpeqb", Pcmpeqw_mm_mmm64 = "pcmpeqw", Pcmpeqd_mm_mmm64 = "pcmpeqd",
        Psrlw_mm_mmm64 = "psrlw", Psrld_mm_mmm64 = "psrld", Psrlq_mm_mmm64 = "psrlq",
        Psraw_mm_mmm64 = "psraw", Psrad_mm_mmm64 = "psrad",
        Psllw_mm_mmm64 = "psllw", Pslld_mm_mmm64 = "pslld", Psllq_mm_mmm64 = "psllq",
        Paddb_mm_mmm64 = "paddb", Paddw_mm_mmm64 = "paddw", Paddd_mm_mmm64 = "paddd", Paddq_mm_mmm64 = "paddq",
        Psubb_mm_mmm64 = "psubb", Psubw_mm_mmm64 = "psubw", Psubd_mm_mmm64 = "psubd", Psubq_mm_mmm64 = "psubq",
        Paddsb_mm_mmm64 = "paddsb", Paddsw_mm_mmm64 = "paddsw",
        Paddusb_mm_mmm64 = "paddusb", Paddusw_mm_mmm64 = "paddusw",
        Psubsb_mm_mmm64 = "psubsb", Psubsw_mm_mmm64 = "psubsw",
        Psubusb_mm_mmm64 = "psubusb", Psubusw_mm_mmm64 = "psubusw",
        Pand_mm_mmm64 = "pand", Pandn_mm_mmm64 = "pandn", Por_mm_mmm64 = "por", Pxor_mm_mmm64 = "pxor",
        Pmullw_mm_mmm64 = "pmullw", Pmulhw_mm_mmm64 = "pmulhw", Pmulhuw_mm_mmm64 = "pmulhuw",
        Pmuludq_mm_mmm64 = "pmuludq", Pmaddwd_mm_mmm64 = "pmaddwd",
        Pminub_mm_mmm64 = "pminub", Pmaxub_mm_mmm64 = "pmaxub",
        Pminsw_mm_mmm64 = "pminsw", Pmaxsw_mm_mmm64 = "pmaxsw",
        Pavgb_mm_mmm64 = "pavgb", Pavgw_mm_mmm64 = "pavgw", Psadbw_mm_mmm64 = "psadbw",
        Pshufb_mm_mmm64 = "pshufb", Phaddw_mm_mmm64 = "phaddw", Phaddd_mm_mmm64 = "phaddd",
        Phaddsw_mm_mmm64 = "phaddsw", Pmaddubsw_mm_mmm64 = "pmaddubsw",
        Phsubw_mm_mmm64 = "phsubw", Phsubd_mm_mmm64 = "phsubd", Phsubsw_mm_mmm64 = "phsubsw",
        Psignb_mm_mmm64 = "psignb", Psignw_mm_mmm64 = "psignw", Psignd_mm_mmm64 = "psignd",
        Pmulhrsw_mm_mmm64 = "pmulhrsw", Pabsb_mm_mmm64 = "pabsb", Pabsw_mm_mmm64 = "pabsw", Pabsd_mm_mmm64 = "pabsd",
    }
    plain ToGeneral ("eax, mm2") {
        Pmovmskb_r32_mm = "pmovmskb", Pmovmskb_r64_mm = "pmovmskb",
    }
    plain FloatToMmx ("mm1, xmm2") {
        Cvtps2pi_mm_xmmm64 = "cvtps2pi", Cvttps2pi_mm_xmmm64 = "cvttps2pi",
        Cvtpd2pi_mm_xmmm128 = "cvtpd2pi", Cvttpd2pi_mm_xmmm128 = "cvttpd2pi",
    }
    plain MmxToFloat ("xmm1, mm2") {
        Cvtpi2ps_xmm_mmm64 = "cvtpi2ps", Cvtpi2pd_xmm_mmm64 = "cvtpi2pd",
    }
    immediate Integer ("mm1, mm2") {
        Pshufw_mm_mmm64_imm8 = "pshufw", Palignr_mm_mmm64_imm8 = "palignr",
    }
}

/// Runs a thunk on MMX destination and source; the new destination and EAX.
#[inline(always)]
pub(crate) fn mmx(thunk: MmxThunk, destination: u64, source: u64) -> (u64, u64) {
    let (result, general): (u64, u64);
    // SAFETY: every thunk of the table returns, reads no memory, and changes no more than the clobbers named here. EMMS leaves the
    // x87 unit empty, as the calling convention wants it.
    unsafe {
        asm!(
            "movq mm1, {value}",
            "movq mm2, {source}",
            "call {thunk}",
            "movq {value}, mm1",
            "emms",
            thunk = in(reg) thunk.address(),
            value = inout(reg) destination => result,
            source = in(reg) source,
            out("rax") general,
            out("xmm1") _,
            out("mm1") _, out("mm2") _,
            out("st(0)") _, out("st(1)") _, out("st(2)") _, out("st(3)") _,
            out("st(4)") _, out("st(5)") _, out("st(6)") _, out("st(7)") _,
        );
    }
    (result, general)
}

/// Runs a thunk between MMX and XMM registers under the guest's MXCSR, all exceptions masked: the new MMX and XMM
/// destinations and MXCSR afterwards.
#[inline(always)]
pub(crate) fn mmx_float(
    thunk: MmxThunk,
    source: u64,
    xmm_destination: u128,
    xmm_source: u128,
    mxcsr: u32,
) -> (u64, u128, u32) {
    let (mm, xmm): (u64, __m128i);
    let mut control = runnable(mxcsr);
    // SAFETY: as in `mmx`; LDMXCSR gets no reserved bit, and the host's MXCSR is back before any other code runs.
    unsafe {
        asm!(
            "movq mm2, {source}",
            "ldmxcsr [{control}]",
            "call {thunk}",
            "stmxcsr [{control}]",
            "ldmxcsr [{host}]",
            "movq {source}, mm1",
            "emms",
            thunk = in(reg) thunk.address(),
            control = in(reg) &raw mut control,
            host = in(reg) &raw const HOST_MXCSR,
            source = inout(reg) source => mm,
            out("rax") _,
            inout("xmm1") vector(xmm_destination) => xmm,
            in("xmm2") vector(xmm_source),
            out("mm1") _, out("mm2") _,
            out("st(0)") _, out("st(1)") _, out("st(2)") _, out("st(3)") _,
            out("st(4)") _, out("st(5)") _, out("st(6)") _, out("st(7)") _,
        );
    }
    (mm, integer(xmm), control)
}
