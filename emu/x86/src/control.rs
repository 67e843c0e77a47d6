//! Bits of the control registers and of EFER (SDM 3A 2.5; APM 2 3.1).
//!
//! Not responsible for: which of them a model offers (`cpuid`), what they do (`emu/interp`).

/// CR0: protected mode.
pub const CR0_PE: u64 = 1 << 0;
/// CR0: WAIT obeys TS.
pub const CR0_MP: u64 = 1 << 1;
/// CR0: no FPU.
pub const CR0_EM: u64 = 1 << 2;
/// CR0: the FPU state belongs to another task.
pub const CR0_TS: u64 = 1 << 3;
/// CR0: fixed one.
pub const CR0_ET: u64 = 1 << 4;
/// CR0: x87 errors raise #MF, not FERR#.
pub const CR0_NE: u64 = 1 << 5;
/// CR0: supervisor writes obey page protection.
pub const CR0_WP: u64 = 1 << 16;
/// CR0: alignment check allowed.
pub const CR0_AM: u64 = 1 << 18;
/// CR0: not write-through.
pub const CR0_NW: u64 = 1 << 29;
/// CR0: cache disable.
pub const CR0_CD: u64 = 1 << 30;
/// CR0: paging.
pub const CR0_PG: u64 = 1 << 31;

/// CR4: virtual-8086 extensions.
pub const CR4_VME: u64 = 1 << 0;
/// CR4: protected-mode virtual interrupts.
pub const CR4_PVI: u64 = 1 << 1;
/// CR4: RDTSC is for ring 0.
pub const CR4_TSD: u64 = 1 << 2;
/// CR4: debug extensions, #UD on DR4 and DR5.
pub const CR4_DE: u64 = 1 << 3;
/// CR4: 4 MiB pages in 32-bit paging.
pub const CR4_PSE: u64 = 1 << 4;
/// CR4: 64-bit entries.
pub const CR4_PAE: u64 = 1 << 5;
/// CR4: machine checks.
pub const CR4_MCE: u64 = 1 << 6;
/// CR4: global pages.
pub const CR4_PGE: u64 = 1 << 7;
/// CR4: RDPMC for everybody.
pub const CR4_PCE: u64 = 1 << 8;
/// CR4: FXSAVE, SSE.
pub const CR4_OSFXSR: u64 = 1 << 9;
/// CR4: SIMD errors raise #XM.
pub const CR4_OSXMMEXCPT: u64 = 1 << 10;
/// CR4: SGDT, SIDT, SLDT, SMSW, STR are for ring 0.
pub const CR4_UMIP: u64 = 1 << 11;
/// CR4: RDFSBASE and its kin.
pub const CR4_FSGSBASE: u64 = 1 << 16;
/// CR4: process-context identifiers.
pub const CR4_PCIDE: u64 = 1 << 17;
/// CR4: XSAVE.
pub const CR4_OSXSAVE: u64 = 1 << 18;
/// CR4: no supervisor fetch from user pages.
pub const CR4_SMEP: u64 = 1 << 20;
/// CR4: no supervisor data access to user pages unless AC.
pub const CR4_SMAP: u64 = 1 << 21;

/// XCR0: the x87 state, always one.
pub const XCR0_X87: u64 = 1 << 0;
/// XCR0: XMM registers and MXCSR.
pub const XCR0_SSE: u64 = 1 << 1;
/// XCR0: upper halves of the YMM registers.
pub const XCR0_AVX: u64 = 1 << 2;
/// XCR0: mask registers, upper halves of ZMM0 to ZMM15, ZMM16 to ZMM31: all or none.
pub const XCR0_AVX512: u64 = 0b111 << 5;

/// EFER: SYSCALL.
pub const EFER_SCE: u64 = 1 << 0;
/// EFER: long mode enable.
pub const EFER_LME: u64 = 1 << 8;
/// EFER: long mode active.
pub const EFER_LMA: u64 = 1 << 10;
/// EFER: no-execute pages.
pub const EFER_NXE: u64 = 1 << 11;

/// DR6 as it reads after reset: reserved ones.
pub const DR6_FIXED: u64 = 0xffff_0ff0;
/// DR6: a debug register was touched under GD.
pub const DR6_BD: u64 = 1 << 13;
/// DR6: single step.
pub const DR6_BS: u64 = 1 << 14;
/// DR6: task switch.
pub const DR6_BT: u64 = 1 << 15;
/// DR7: reserved one.
pub const DR7_FIXED: u64 = 1 << 10;
/// DR7: general detect.
pub const DR7_GD: u64 = 1 << 13;
