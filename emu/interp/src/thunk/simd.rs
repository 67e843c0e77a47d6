#![allow(unsafe_code)] // executes guest arithmetic on the host's SIMD unit
//! Thunks on XMM and general registers, and the calls that run them.
//!
//! Not responsible for: MMX registers (`mmx`).
//!
//! Fixed registers: XMM1 the destination, XMM2 the source, XMM0, EAX, ECX, EDX where the instruction implies them. No row reads memory or
//! changes anything else, so every thunk can be called through every function of this file.

use super::{HOST_MXCSR, MXCSR_BITS, MXCSR_MASKS};
use std::arch::asm;
use std::arch::x86_64::__m128i;

super::table::thunk_table! {
    /// An instruction on XMM registers.
    SimdThunk at gemel_simd_thunks;

    plain Float ("xmm1, xmm2") {
        Addps_xmm_xmmm128 = "addps", Addss_xmm_xmmm32 = "addss",
        Addpd_xmm_xmmm128 = "addpd", Addsd_xmm_xmmm64 = "addsd",
        Subps_xmm_xmmm128 = "subps", Subss_xmm_xmmm32 = "subss",
        Subpd_xmm_xmmm128 = "subpd", Subsd_xmm_xmmm64 = "subsd",
        Mulps_xmm_xmmm128 = "mulps", Mulss_xmm_xmmm32 = "mulss",
        Mulpd_xmm_xmmm128 = "mulpd", Mulsd_xmm_xmmm64 = "mulsd",
        Divps_xmm_xmmm128 = "divps", Divss_xmm_xmmm32 = "divss",
        Divpd_xmm_xmmm128 = "divpd", Divsd_xmm_xmmm64 = "divsd",
        Minps_xmm_xmmm128 = "minps", Minss_xmm_xmmm32 = "minss",
        Minpd_xmm_xmmm128 = "minpd", Minsd_xmm_xmmm64 = "minsd",
        Maxps_xmm_xmmm128 = "maxps", Maxss_xmm_xmmm32 = "maxss",
        Maxpd_xmm_xmmm128 = "maxpd", Maxsd_xmm_xmmm64 = "maxsd",
        Sqrtps_xmm_xmmm128 = "sqrtps", Sqrtss_xmm_xmmm32 = "sqrtss",
        Sqrtpd_xmm_xmmm128 = "sqrtpd", Sqrtsd_xmm_xmmm64 = "sqrtsd",
        // RCP and RSQRT raise nothing, but DAZ and FTZ reach them.
        Rcpps_xmm_xmmm128 = "rcpps", Rcpss_xmm_xmmm32 = "rcpss",
        Rsqrtps_xmm_xmmm128 = "rsqrtps", Rsqrtss_xmm_xmmm32 = "rsqrtss",
        Cvtps2pd_xmm_xmmm64 = "cvtps2pd", Cvtpd2ps_xmm_xmmm128 = "cvtpd2ps",
        Cvtss2sd_xmm_xmmm32 = "cvtss2sd", Cvtsd2ss_xmm_xmmm64 = "cvtsd2ss",
        Cvtdq2ps_xmm_xmmm128 = "cvtdq2ps", Cvtps2dq_xmm_xmmm128 = "cvtps2dq",
        Cvttps2dq_xmm_xmmm128 = "cvttps2dq", Cvttpd2dq_xmm_xmmm128 = "cvttpd2dq",
        Cvtdq2pd_xmm_xmmm64 = "cvtdq2pd", Cvtpd2dq_xmm_xmmm128 = "cvtpd2dq",
        Haddps_xmm_xmmm128 = "haddps", Haddpd_xmm_xmmm128 = "haddpd",
        Hsubps_xmm_xmmm128 = "hsubps", Hsubpd_xmm_xmmm128 = "hsubpd",
        Addsubps_xmm_xmmm128 = "addsubps", Addsubpd_xmm_xmmm128 = "addsubpd",
    }
    plain Integer ("xmm1, xmm2") {
        Andps_xmm_xmmm128 = "andps", Andnps_xmm_xmmm128 = "andnps",
        Orps_xmm_xmmm128 = "orps", Xorps_xmm_xmmm128 = "xorps",
        Andpd_xmm_xmmm128 = "andpd", Andnpd_xmm_xmmm128 = "andnpd",
        Orpd_xmm_xmmm128 = "orpd", Xorpd_xmm_xmmm128 = "xorpd",
        Unpcklps_xmm_xmmm128 = "unpcklps", Unpckhps_xmm_xmmm128 = "unpckhps",
        Unpcklpd_xmm_xmmm128 = "unpcklpd", Unpckhpd_xmm_xmmm128 = "unpckhpd",
        Pand_xmm_xmmm128 = "pand", Pandn_xmm_xmmm128 = "pandn", Por_xmm_xmmm128 = "por", Pxor_xmm_xmmm128 = "pxor",
        Punpcklbw_xmm_xmmm128 = "punpcklbw", Punpcklwd_xmm_xmmm128 = "punpcklwd",
        Punpckldq_xmm_xmmm128 = "punpckldq", Punpcklqdq_xmm_xmmm128 = "punpcklqdq",
        Punpckhbw_xmm_xmmm128 = "punpckhbw", Punpckhwd_xmm_xmmm128 = "punpckhwd",
        Punpckhdq_xmm_xmmm128 = "punpckhdq", Punpckhqdq_xmm_xmmm128 = "punpckhqdq",
        Packsswb_xmm_xmmm128 = "packsswb", Packssdw_xmm_xmmm128 = "packssdw",
        Packuswb_xmm_xmmm128 = "packuswb", Packusdw_xmm_xmmm128 = "packusdw",
        Pcmpeqb_xmm_xmmm128 = "pcmpeqb", Pcmpeqw_xmm_xmmm128 = "pcmpeqw",
        Pcmpeqd_xmm_xmmm128 = "pcmpeqd", Pcmpeqq_xmm_xmmm128 = "pcmpeqq",
        Pcmpgtb_xmm_xmmm128 = "pcmpgtb", Pcmpgtw_xmm_xmmm128 = "pcmpgtw",
        Pcmpgtd_xmm_xmmm128 = "pcmpgtd", Pcmpgtq_xmm_xmmm128 = "pcmpgtq",
        Psrlw_xmm_xmmm128 = "psrlw", Psrld_xmm_xmmm128 = "psrld", Psrlq_xmm_xmmm128 = "psrlq",
        Psraw_xmm_xmmm128 = "psraw", Psrad_xmm_xmmm128 = "psrad",
        Psllw_xmm_xmmm128 = "psllw", Pslld_xmm_xmmm128 = "pslld", Psllq_xmm_xmmm128 = "psllq",
        Paddb_xmm_xmmm128 = "paddb", Paddw_xmm_xmmm128 = "paddw",
        Paddd_xmm_xmmm128 = "paddd", Paddq_xmm_xmmm128 = "paddq",
        Psubb_xmm_xmmm128 = "psubb", Psubw_xmm_xmmm128 = "psubw",
        Psubd_xmm_xmmm128 = "psubd", Psubq_xmm_xmmm128 = "psubq",
        Paddsb_xmm_xmmm128 = "paddsb", Paddsw_xmm_xmmm128 = "paddsw",
        Paddusb_xmm_xmmm128 = "paddusb", Paddusw_xmm_xmmm128 = "paddusw",
        Psubsb_xmm_xmmm128 = "psubsb", Psubsw_xmm_xmmm128 = "psubsw",
        Psubusb_xmm_xmmm128 = "psubusb", Psubusw_xmm_xmmm128 = "psubusw",
        Pminub_xmm_xmmm128 = "pminub", Pminsw_xmm_xmmm128 = "pminsw", Pmaxub_xmm_xmmm128 = "pmaxub",
        Pmaxsw_xmm_xmmm128 = "pmaxsw", Pminsb_xmm_xmmm128 = "pminsb", Pminsd_xmm_xmmm128 = "pminsd",
        Pminuw_xmm_xmmm128 = "pminuw", Pminud_xmm_xmmm128 = "pminud", Pmaxsb_xmm_xmmm128 = "pmaxsb",
        Pmaxsd_xmm_xmmm128 = "pmaxsd", Pmaxuw_xmm_xmmm128 = "pmaxuw", Pmaxud_xmm_xmmm128 = "pmaxud",
        Pmullw_xmm_xmmm128 = "pmullw", Pmulld_xmm_xmmm128 = "pmulld", Pmulhw_xmm_xmmm128 = "pmulhw",
        Pmulhuw_xmm_xmmm128 = "pmulhuw", Pmuludq_xmm_xmmm128 = "pmuludq", Pmuldq_xmm_xmmm128 = "pmuldq",
        Pmulhrsw_xmm_xmmm128 = "pmulhrsw", Pmaddwd_xmm_xmmm128 = "pmaddwd", Pmaddubsw_xmm_xmmm128 = "pmaddubsw",
        Pavgb_xmm_xmmm128 = "pavgb", Pavgw_xmm_xmmm128 = "pavgw", Psadbw_xmm_xmmm128 = "psadbw",
        Movsldup_xmm_xmmm128 = "movsldup", Movshdup_xmm_xmmm128 = "movshdup", Movddup_xmm_xmmm64 = "movddup",
        Pshufb_xmm_xmmm128 = "pshufb", Phaddw_xmm_xmmm128 = "phaddw", Phaddd_xmm_xmmm128 = "phaddd",
        Phaddsw_xmm_xmmm128 = "phaddsw", Phsubw_xmm_xmmm128 = "phsubw", Phsubd_xmm_xmmm128 = "phsubd",
        Phsubsw_xmm_xmmm128 = "phsubsw", Psignb_xmm_xmmm128 = "psignb", Psignw_xmm_xmmm128 = "psignw",
        Psignd_xmm_xmmm128 = "psignd", Pabsb_xmm_xmmm128 = "pabsb", Pabsw_xmm_xmmm128 = "pabsw",
        Pabsd_xmm_xmmm128 = "pabsd", Phminposuw_xmm_xmmm128 = "phminposuw",
        Pmovsxbw_xmm_xmmm64 = "pmovsxbw", Pmovsxbd_xmm_xmmm32 = "pmovsxbd", Pmovsxbq_xmm_xmmm16 = "pmovsxbq",
        Pmovsxwd_xmm_xmmm64 = "pmovsxwd", Pmovsxwq_xmm_xmmm32 = "pmovsxwq", Pmovsxdq_xmm_xmmm64 = "pmovsxdq",
        Pmovzxbw_xmm_xmmm64 = "pmovzxbw", Pmovzxbd_xmm_xmmm32 = "pmovzxbd", Pmovzxbq_xmm_xmmm16 = "pmovzxbq",
        Aesenc_xmm_xmmm128 = "aesenc", Aesenclast_xmm_xmmm128 = "aesenclast", Aesdec_xmm_xmmm128 = "aesdec",
        Aesdeclast_xmm_xmmm128 = "aesdeclast", Aesimc_xmm_xmmm128 = "aesimc",
        Sha1nexte_xmm_xmmm128 = "sha1nexte", Sha1msg1_xmm_xmmm128 = "sha1msg1", Sha1msg2_xmm_xmmm128 = "sha1msg2",
        Sha256msg1_xmm_xmmm128 = "sha256msg1", Sha256msg2_xmm_xmmm128 = "sha256msg2",
        Pmovzxwd_xmm_xmmm64 = "pmovzxwd", Pmovzxwq_xmm_xmmm32 = "pmovzxwq", Pmovzxdq_xmm_xmmm64 = "pmovzxdq",
    }
    plain Select ("xmm1, xmm2, xmm0") {
        Pblendvb_xmm_xmmm128 = "pblendvb", Blendvps_xmm_xmmm128 = "blendvps", Blendvpd_xmm_xmmm128 = "blendvpd",
        Sha256rnds2_xmm_xmmm128 = "sha256rnds2",
    }
    plain ToGeneral ("eax, xmm2") {
        Movmskps_r32_xmm = "movmskps", Movmskps_r64_xmm = "movmskps",
        Movmskpd_r32_xmm = "movmskpd", Movmskpd_r64_xmm = "movmskpd",
        Pmovmskb_r32_xmm = "pmovmskb", Pmovmskb_r64_xmm = "pmovmskb",
    }
    plain FloatToGeneral ("eax, xmm2") {
        Cvtss2si_r32_xmmm32 = "cvtss2si", Cvttss2si_r32_xmmm32 = "cvttss2si",
        Cvtsd2si_r32_xmmm64 = "cvtsd2si", Cvttsd2si_r32_xmmm64 = "cvttsd2si",
    }
    plain FloatToGeneral ("rax, xmm2") {
        Cvtss2si_r64_xmmm32 = "cvtss2si", Cvttss2si_r64_xmmm32 = "cvttss2si",
        Cvtsd2si_r64_xmmm64 = "cvtsd2si", Cvttsd2si_r64_xmmm64 = "cvttsd2si",
    }
    plain GeneralToFloat ("xmm1, eax") {
        Cvtsi2ss_xmm_rm32 = "cvtsi2ss", Cvtsi2sd_xmm_rm32 = "cvtsi2sd",
    }
    plain GeneralToFloat ("xmm1, rax") {
        Cvtsi2ss_xmm_rm64 = "cvtsi2ss", Cvtsi2sd_xmm_rm64 = "cvtsi2sd",
    }
    plain Compare ("xmm1, xmm2") {
        Comiss_xmm_xmmm32 = "comiss", Ucomiss_xmm_xmmm32 = "ucomiss",
        Comisd_xmm_xmmm64 = "comisd", Ucomisd_xmm_xmmm64 = "ucomisd",
    }
    plain Test ("xmm1, xmm2") {
        Ptest_xmm_xmmm128 = "ptest",
    }
    plain Checksum ("eax, cl") {
        Crc32_r32_rm8 = "crc32", Crc32_r64_rm8 = "crc32",
    }
    plain Checksum ("eax, cx") {
        Crc32_r32_rm16 = "crc32",
    }
    plain Checksum ("eax, ecx") {
        Crc32_r32_rm32 = "crc32",
    }
    plain Checksum ("rax, rcx") {
        Crc32_r64_rm64 = "crc32",
    }
    immediate Float ("xmm1, xmm2") {
        Cmpps_xmm_xmmm128_imm8 = "cmpps", Cmpss_xmm_xmmm32_imm8 = "cmpss",
        Cmppd_xmm_xmmm128_imm8 = "cmppd", Cmpsd_xmm_xmmm64_imm8 = "cmpsd",
        Roundps_xmm_xmmm128_imm8 = "roundps", Roundpd_xmm_xmmm128_imm8 = "roundpd",
        Roundss_xmm_xmmm32_imm8 = "roundss", Roundsd_xmm_xmmm64_imm8 = "roundsd",
        Dpps_xmm_xmmm128_imm8 = "dpps", Dppd_xmm_xmmm128_imm8 = "dppd",
    }
    immediate Integer ("xmm1, xmm2") {
        Shufps_xmm_xmmm128_imm8 = "shufps", Shufpd_xmm_xmmm128_imm8 = "shufpd",
        Pshufd_xmm_xmmm128_imm8 = "pshufd", Pshufhw_xmm_xmmm128_imm8 = "pshufhw",
        Pshuflw_xmm_xmmm128_imm8 = "pshuflw", Palignr_xmm_xmmm128_imm8 = "palignr",
        Blendps_xmm_xmmm128_imm8 = "blendps", Blendpd_xmm_xmmm128_imm8 = "blendpd",
        Pblendw_xmm_xmmm128_imm8 = "pblendw", Insertps_xmm_xmmm32_imm8 = "insertps",
        Mpsadbw_xmm_xmmm128_imm8 = "mpsadbw",
        Aeskeygenassist_xmm_xmmm128_imm8 = "aeskeygenassist", Pclmulqdq_xmm_xmmm128_imm8 = "pclmulqdq",
        Sha1rnds4_xmm_xmmm128_imm8 = "sha1rnds4",
    }
    immediate StringIndex ("xmm1, xmm2") {
        Pcmpestri_xmm_xmmm128_imm8 = "pcmpestri", Pcmpistri_xmm_xmmm128_imm8 = "pcmpistri",
    }
    immediate StringMask ("xmm1, xmm2") {
        Pcmpestrm_xmm_xmmm128_imm8 = "pcmpestrm", Pcmpistrm_xmm_xmmm128_imm8 = "pcmpistrm",
    }
}

/// The registers around a thunk.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Regs {
    /// XMM0.
    pub xmm0: u128,
    /// XMM1, the destination.
    pub xmm1: u128,
    /// XMM2, the source.
    pub xmm2: u128,
    /// RAX.
    pub rax: u64,
    /// RCX.
    pub rcx: u64,
    /// RDX.
    pub rdx: u64,
    /// RFLAGS; a result only.
    pub flags: u64,
}

#[inline(always)]
pub(super) fn vector(value: u128) -> __m128i {
    // SAFETY: both types are 16 bytes of which every pattern is valid.
    unsafe { std::mem::transmute(value) }
}

#[inline(always)]
pub(super) fn integer(value: __m128i) -> u128 {
    // SAFETY: both types are 16 bytes of which every pattern is valid.
    unsafe { std::mem::transmute(value) }
}

/// Guest MXCSR in the form that a thunk runs under: what exists of it, all exceptions masked.
#[inline(always)]
pub(super) fn runnable(mxcsr: u32) -> u32 {
    mxcsr & MXCSR_BITS | MXCSR_MASKS
}

/// Runs a thunk on destination and source; the new destination.
#[inline(always)]
pub(crate) fn packed(thunk: SimdThunk, destination: u128, source: u128) -> u128 {
    let result: __m128i;
    // SAFETY: every thunk of the table returns, reads no memory, and changes no more than the clobbers named here.
    unsafe {
        asm!(
            "call {thunk}",
            thunk = in(reg) thunk.address(),
            inout("xmm1") vector(destination) => result,
            in("xmm2") vector(source),
            out("xmm0") _, out("rax") _, out("rcx") _,
        );
    }
    integer(result)
}

/// The same under the guest's MXCSR, all exceptions masked; also MXCSR afterwards.
#[inline(always)]
pub(crate) fn packed_float(thunk: SimdThunk, destination: u128, source: u128, mxcsr: u32) -> (u128, u32) {
    let result: __m128i;
    let mut control = runnable(mxcsr);
    // SAFETY: as in `packed`; LDMXCSR gets no reserved bit, and the host's MXCSR is back before any other code runs.
    unsafe {
        asm!(
            "ldmxcsr [{control}]",
            "call {thunk}",
            "stmxcsr [{control}]",
            "ldmxcsr [{host}]",
            thunk = in(reg) thunk.address(),
            control = in(reg) &raw mut control,
            host = in(reg) &raw const HOST_MXCSR,
            inout("xmm1") vector(destination) => result,
            in("xmm2") vector(source),
            out("xmm0") _, out("rax") _, out("rcx") _,
        );
    }
    (integer(result), control)
}

/// Runs a thunk with all registers that any row uses.
#[inline(always)]
pub(crate) fn general(thunk: SimdThunk, regs: Regs) -> Regs {
    let (xmm0, xmm1): (__m128i, __m128i);
    let (rax, rcx, flags): (u64, u64, u64);
    // SAFETY: as in `packed`.
    unsafe {
        asm!(
            "call {thunk}",
            "pushfq",
            "pop {thunk}",
            thunk = inout(reg) thunk.address() as u64 => flags,
            inout("xmm0") vector(regs.xmm0) => xmm0,
            inout("xmm1") vector(regs.xmm1) => xmm1,
            in("xmm2") vector(regs.xmm2),
            inout("rax") regs.rax => rax,
            inout("rcx") regs.rcx => rcx,
            in("rdx") regs.rdx,
        );
    }
    Regs { xmm0: integer(xmm0), xmm1: integer(xmm1), rax, rcx, flags, ..regs }
}

/// The same under the guest's MXCSR, all exceptions masked; also MXCSR afterwards.
#[inline(always)]
pub(crate) fn general_float(thunk: SimdThunk, regs: Regs, mxcsr: u32) -> (Regs, u32) {
    let (xmm0, xmm1): (__m128i, __m128i);
    let (rax, rcx, flags): (u64, u64, u64);
    let mut control = runnable(mxcsr);
    // SAFETY: as in `packed_float`. STMXCSR and LDMXCSR leave RFLAGS as the thunk left it.
    unsafe {
        asm!(
            "ldmxcsr [{control}]",
            "call {thunk}",
            "stmxcsr [{control}]",
            "ldmxcsr [{host}]",
            "pushfq",
            "pop {thunk}",
            thunk = inout(reg) thunk.address() as u64 => flags,
            control = in(reg) &raw mut control,
            host = in(reg) &raw const HOST_MXCSR,
            inout("xmm0") vector(regs.xmm0) => xmm0,
            inout("xmm1") vector(regs.xmm1) => xmm1,
            in("xmm2") vector(regs.xmm2),
            inout("rax") regs.rax => rax,
            inout("rcx") regs.rcx => rcx,
            in("rdx") regs.rdx,
        );
    }
    (Regs { xmm0: integer(xmm0), xmm1: integer(xmm1), rax, rcx, flags, ..regs }, control)
}
