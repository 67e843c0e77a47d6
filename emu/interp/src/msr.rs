//! The CPU's own model-specific registers (SDM 4; APM 2 appendix A).
//!
//! Not responsible for: the local APIC's (they go over the bus), the privilege check (`isa/system`).

use crate::cpu::Cpu;
use crate::fault::R;
use crate::mmu::access::canonical;
use gemel_machine::machine::is_bus_msr;
use gemel_machine::{CpuIo, Position, Query};
use gemel_x86::Feature;
use gemel_x86::control::{CR0_PG, EFER_LMA, EFER_LME, EFER_NXE, EFER_SCE};
use gemel_x86::msr::*;
use gemel_x86::segment::{FS, GS};

/// Registers that read as zero and swallow writes, and who asks for them.
const SILENT: &[(u32, &str)] = &[
    (BIOS_SIGN_ID, "microcode revision: every kernel prints it"),
    (SYSCFG, "Linux's MTRR code looks for the memory types of AMD's DRAM"),
    (HWCR, "Linux sets the TLB flush filter bit of family 15"),
    (0xc001_0055, "interrupt pending message: Linux looks for the C1E erratum of family 15"),
    (0xc001_1029, "decode configuration: Linux asks for a serialising LFENCE"),
    (0xc001_1022, "data cache configuration: erratum work-arounds"),
    (0xc001_1020, "load-store configuration: speculation work-arounds"),
    (0xc001_100d, "CPUID override of family 15, which Linux reads before it trusts LAHF"),
    (0xc001_001a, "top of memory below 4 GiB"),
    (0xc001_001d, "top of memory above 4 GiB"),
];

/// Event selects and counters that every AMD64 processor has (APM 2 13.2.1). Nothing counts here: they read as zero, which tells a
/// kernel that looks for them that they are of no use.
const PERFORMANCE: std::ops::RangeInclusive<u32> = 0xc001_0000..=0xc001_0007;

/// Eight variable ranges, fixed ranges, write combining.
const MTRR_CAPABILITIES: u64 = 8 | 1 << 8 | 1 << 10;
/// Bits of MTRR_DEF_TYPE: type, fixed enable, enable.
const MTRR_DEFAULT_BITS: u64 = 0xcff;
/// Physical address bits.
const PHYSICAL: u64 = (1 << 40) - 1;
/// DEBUGCTL as AMD has it: last branches, branch single step, pins.
const DEBUG_CTL_BITS: u64 = 0x3f;

/// A memory type that an MTRR can have: UC, WC, WT, WP, WB.
const fn is_memory_type(byte: u8) -> bool {
    matches!(byte, 0 | 1 | 4 | 5 | 6)
}

impl Cpu {
    /// RDMSR.
    pub(crate) fn read_msr(&mut self, at: Position, number: u32, io: &mut dyn CpuIo) -> R<u64> {
        if is_bus_msr(number) {
            self.leave_guest();
            let (value, attention) = io.msr_read(at, number);
            self.attend(attention);
            return match value {
                Some(value) if number == TSC_DEADLINE => Ok(self.guest_deadline(value)),
                Some(value) => Ok(value),
                None => self.general_protection(0),
            };
        }
        let value = match number {
            TSC if self.model.has(Feature::TSC) => self.machine_tsc(at, io).wrapping_add(self.s.tsc_offset),
            _ => match self.own_msr(number) {
                Some(value) => value,
                None => return self.general_protection(0),
            },
        };
        Ok(value)
    }

    fn own_msr(&mut self, number: u32) -> Option<u64> {
        let s = &self.s;
        Some(match number {
            TSC_ADJUST if self.model.has(Feature::TSC_ADJUST) => s.tsc_offset,
            TSC_AUX if self.model.has(Feature::RDTSCP) => s.tsc_aux,
            MTRR_CAP => MTRR_CAPABILITIES,
            // No machine check banks.
            MCG_CAP => 0,
            DEBUG_CTL => s.debug_ctl,
            SYSENTER_CS => s.sysenter_cs,
            SYSENTER_ESP => s.sysenter_esp,
            SYSENTER_EIP => s.sysenter_eip,
            MCG_STATUS => s.mcg_status,
            PAT => s.pat,
            MTRR_DEF_TYPE => s.mtrr_def_type,
            EFER => s.efer,
            STAR => s.star,
            LSTAR => s.lstar,
            CSTAR => s.cstar,
            SFMASK => s.sfmask,
            FS_BASE => s.seg[FS].base,
            GS_BASE => s.seg[GS].base,
            KERNEL_GS_BASE => s.kernel_gs_base,
            _ => return self.mtrr(number).map(|r| *r).or_else(|| is_silent(number).then_some(0)),
        })
    }

    /// The storage of a fixed or variable MTRR.
    fn mtrr(&mut self, number: u32) -> Option<&mut u64> {
        let s = &mut self.s;
        match number {
            MTRR_PHYS_BASE0..0x210 => s.mtrr_variable.get_mut((number - MTRR_PHYS_BASE0) as usize),
            MTRR_FIX_64K => s.mtrr_fixed.get_mut(0),
            MTRR_FIX_16K..=0x259 => s.mtrr_fixed.get_mut((number - MTRR_FIX_16K) as usize + 1),
            MTRR_FIX_4K..=0x26f => s.mtrr_fixed.get_mut((number - MTRR_FIX_4K) as usize + 3),
            _ => None,
        }
    }

    /// WRMSR.
    pub(crate) fn write_msr(&mut self, at: Position, number: u32, value: u64, io: &mut dyn CpuIo) -> R {
        if is_bus_msr(number) {
            let value = if number == TSC_DEADLINE { self.machine_deadline(value) } else { value };
            self.leave_guest();
            let (done, attention) = io.msr_write(at, number, value);
            self.attend(attention);
            return if done.is_some() { Ok(()) } else { self.general_protection(0) };
        }
        let accepted = match number {
            TSC if self.model.has(Feature::TSC) => {
                let now = self.machine_tsc(at, io);
                self.set_tsc_offset(at, value.wrapping_sub(now), io);
                true
            }
            TSC_ADJUST if self.model.has(Feature::TSC_ADJUST) => {
                self.set_tsc_offset(at, value, io);
                true
            }
            EFER => return self.write_efer(value),
            _ => self.set_own_msr(number, value).is_some(),
        };
        if accepted { Ok(()) } else { self.general_protection(0) }
    }

    /// `None` where the register is none or refuses the value.
    fn set_own_msr(&mut self, number: u32, value: u64) -> Option<()> {
        let low_half = value >> 32 == 0;
        let address = canonical(value);
        let s = &mut self.s;
        let (register, valid) = match number {
            TSC_AUX if self.model.has(Feature::RDTSCP) => (&mut s.tsc_aux, low_half),
            DEBUG_CTL => (&mut s.debug_ctl, value & !DEBUG_CTL_BITS == 0),
            SYSENTER_CS => (&mut s.sysenter_cs, low_half),
            SYSENTER_ESP => (&mut s.sysenter_esp, address),
            SYSENTER_EIP => (&mut s.sysenter_eip, address),
            MCG_STATUS => (&mut s.mcg_status, value & !7 == 0),
            // UC- is a type that only the PAT knows.
            PAT => (&mut s.pat, value.to_le_bytes().iter().all(|b| is_memory_type(*b) || *b == 7)),
            MTRR_DEF_TYPE => {
                (&mut s.mtrr_def_type, value & !MTRR_DEFAULT_BITS == 0 && is_memory_type(value as u8))
            }
            STAR => (&mut s.star, true),
            LSTAR => (&mut s.lstar, address),
            CSTAR => (&mut s.cstar, address),
            SFMASK => (&mut s.sfmask, low_half),
            KERNEL_GS_BASE => (&mut s.kernel_gs_base, address),
            FS_BASE | GS_BASE => {
                if address {
                    self.set_segment_base(if number == FS_BASE { FS } else { GS }, value);
                }
                return address.then_some(());
            }
            MTRR_PHYS_BASE0..0x210 => {
                let valid = if number & 1 == 0 {
                    value & !PHYSICAL == 0 && value & 0xf00 == 0 && is_memory_type(value as u8)
                } else {
                    value & !PHYSICAL == 0 && value & 0x7ff == 0
                };
                (self.mtrr(number)?, valid)
            }
            _ if is_silent(number) => return Some(()),
            _ => {
                let valid = value.to_le_bytes().into_iter().all(is_memory_type);
                (self.mtrr(number)?, valid)
            }
        };
        valid.then(|| *register = value)
    }

    /// LMA follows CR0.PG and is not written; LME cannot change under paging (APM 2 3.1.7).
    fn write_efer(&mut self, value: u64) -> R {
        let offered = if self.model.has(Feature::LONG_MODE) { EFER_SCE | EFER_LME | EFER_NXE } else { 0 };
        let changed = self.s.efer ^ value;
        let paging = self.s.cr0 & CR0_PG != 0;
        if value & !(offered | EFER_LMA) != 0 || (paging && changed & EFER_LME != 0) {
            return self.general_protection(0);
        }
        self.s.efer = value & offered | self.s.efer & EFER_LMA;
        if changed & EFER_NXE != 0 {
            self.paging_changed();
        }
        self.limit = 0;
        Ok(())
    }

    /// The machine's TSC. Where time is sampled a timer can be due by what was read.
    pub(crate) fn machine_tsc(&mut self, at: Position, io: &mut dyn CpuIo) -> u64 {
        let tsc = io.query(at, Query::Tsc);
        if self.bounds.counts_exits() {
            let attention = io.attention(at);
            self.attend(attention);
        }
        tsc
    }

    /// Moves the guest's TSC against the machine's. A deadline that is armed stays the same value of the guest's.
    fn set_tsc_offset(&mut self, at: Position, offset: u64, io: &mut dyn CpuIo) {
        self.leave_guest();
        let (armed, _) = io.msr_read(at, TSC_DEADLINE);
        let deadline = armed.map_or(0, |value| self.guest_deadline(value));
        self.s.tsc_offset = offset;
        if deadline != 0 {
            self.leave_guest();
            let (_, attention) = io.msr_write(at, TSC_DEADLINE, self.machine_deadline(deadline));
            self.attend(attention);
        }
        self.limit = 0;
    }

    /// A deadline of the machine's TSC in the guest's; zero is "none".
    fn guest_deadline(&self, machine: u64) -> u64 {
        if machine == 0 { 0 } else { machine.wrapping_add(self.s.tsc_offset) }
    }

    /// A deadline of the guest's TSC in the machine's. One that lies before the machine's beginning is long past.
    fn machine_deadline(&self, guest: u64) -> u64 {
        if guest == 0 {
            return 0;
        }
        let machine = i128::from(guest) - i128::from(self.s.tsc_offset as i64);
        machine.clamp(1, u64::MAX.into()) as u64
    }
}

fn is_silent(number: u32) -> bool {
    PERFORMANCE.contains(&number) || SILENT.iter().any(|(n, _)| *n == number)
}
