//! Numbers of the model-specific registers that the machine has (SDM 4; APM 2 appendix A).
//!
//! Not responsible for: what an access does (`emu/interp` for the CPU's own, the local APIC for the rest).

/// Time-stamp counter.
pub const TSC: u32 = 0x10;
/// Local APIC base and enable.
pub const APIC_BASE: u32 = 0x1b;
/// Offset of the TSC from the machine's.
pub const TSC_ADJUST: u32 = 0x3b;
/// Microcode revision.
pub const BIOS_SIGN_ID: u32 = 0x8b;
/// MTRR capabilities.
pub const MTRR_CAP: u32 = 0xfe;
/// SYSENTER code selector.
pub const SYSENTER_CS: u32 = 0x174;
/// SYSENTER stack.
pub const SYSENTER_ESP: u32 = 0x175;
/// SYSENTER entry.
pub const SYSENTER_EIP: u32 = 0x176;
/// Machine check capabilities.
pub const MCG_CAP: u32 = 0x179;
/// Machine check status.
pub const MCG_STATUS: u32 = 0x17a;
/// Debug control.
pub const DEBUG_CTL: u32 = 0x1d9;
/// First variable-range MTRR; base and mask alternate.
pub const MTRR_PHYS_BASE0: u32 = 0x200;
/// Fixed-range MTRR, 64 KiB pieces.
pub const MTRR_FIX_64K: u32 = 0x250;
/// Fixed-range MTRRs, 16 KiB pieces (two).
pub const MTRR_FIX_16K: u32 = 0x258;
/// Fixed-range MTRRs, 4 KiB pieces (eight).
pub const MTRR_FIX_4K: u32 = 0x268;
/// Page attribute table.
pub const PAT: u32 = 0x277;
/// MTRR default type.
pub const MTRR_DEF_TYPE: u32 = 0x2ff;
/// Deadline of the APIC timer in TSC ticks.
pub const TSC_DEADLINE: u32 = 0x6e0;
/// First of the x2APIC registers.
pub const X2APIC_FIRST: u32 = 0x800;
/// Last of the x2APIC registers.
pub const X2APIC_LAST: u32 = 0x8ff;
/// Extended feature enables.
pub const EFER: u32 = 0xc000_0080;
/// SYSCALL selectors.
pub const STAR: u32 = 0xc000_0081;
/// SYSCALL entry, 64-bit.
pub const LSTAR: u32 = 0xc000_0082;
/// SYSCALL entry, compatibility mode.
pub const CSTAR: u32 = 0xc000_0083;
/// Flags that SYSCALL clears.
pub const SFMASK: u32 = 0xc000_0084;
/// FS base.
pub const FS_BASE: u32 = 0xc000_0100;
/// GS base.
pub const GS_BASE: u32 = 0xc000_0101;
/// The base that SWAPGS exchanges with GS.
pub const KERNEL_GS_BASE: u32 = 0xc000_0102;
/// What RDTSCP returns in ECX.
pub const TSC_AUX: u32 = 0xc000_0103;
/// AMD system configuration.
pub const SYSCFG: u32 = 0xc001_0010;
/// AMD hardware configuration.
pub const HWCR: u32 = 0xc001_0015;
