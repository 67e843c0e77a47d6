//! MOV to and from control and debug registers, LMSW, SMSW, CLTS (SDM 2A MOV; 3A 2.5; APM 2 3.1).
//!
//! Not responsible for: paging itself (`mmu`), what debug registers do (`debug`).

use crate::cpu::{Cpu, Width};
use crate::fault::R;
use crate::lower::{Form, Kind};
use crate::op::{HAS_MEMORY, Handler, Op};
use gemel_machine::CpuIo;
use gemel_x86::Exception;
use gemel_x86::control::{
    CR0_AM, CR0_CD, CR0_EM, CR0_ET, CR0_MP, CR0_NE, CR0_NW, CR0_PE, CR0_PG, CR0_TS, CR0_WP, CR4_DE, CR4_PAE,
    CR4_PCIDE, CR4_PGE, CR4_PSE, CR4_SMEP, CR4_UMIP, DR6_BD, DR7_GD, EFER_LMA, EFER_LME,
};
use gemel_x86::segment::{CS, attr};

/// Physical address bits that CPUID offers.
const PHYSICAL: u64 = (1 << 40) - 1;
/// CR3: keep the translations (a hint), under PCIDE.
const CR3_NO_FLUSH: u64 = 1 << 63;

/// MOV CRn and MOV DRn, both ways.
pub fn mov(f: &Form) -> Option<Handler> {
    Some(match (f.kind(0), f.kind(1)) {
        (Kind::Reg, Kind::Cr) => from_control,
        (Kind::Cr, _) => to_control,
        (Kind::Reg, Kind::Dr) => from_debug,
        (Kind::Dr, _) => to_debug,
        _ => return None,
    })
}

/// SMSW.
pub fn smsw(f: &Form) -> Option<Handler> {
    Some(match f.width {
        16 => store_status_word::<u16>,
        32 => store_status_word::<u32>,
        _ => store_status_word::<u64>,
    })
}

/// LMSW.
pub fn lmsw(_: &Form) -> Option<Handler> {
    Some(|cpu, op, io| {
        cpu.require_ring0()?;
        let value = if op.has(HAS_MEMORY) { cpu.load(op, io)? } else { u16::get(&cpu.regs, op.r[0]) };
        // PE can be set, not cleared.
        let word = CR0_PE | CR0_MP | CR0_EM | CR0_TS;
        let kept = cpu.s.cr0 & (!word | CR0_PE);
        cpu.write_cr0(kept | u64::from(value) & word)
    })
}

/// CLTS.
pub fn clts(_: &Form) -> Option<Handler> {
    Some(|cpu, _, _| {
        cpu.require_ring0()?;
        cpu.s.cr0 &= !CR0_TS;
        cpu.limit = 0;
        Ok(())
    })
}

fn store_status_word<W: Width>(cpu: &mut Cpu, op: &Op, io: &mut dyn CpuIo) -> R {
    cpu.require_no_umip()?;
    if op.has(HAS_MEMORY) {
        return cpu.store(op, cpu.s.cr0 as u16, io);
    }
    W::cut(cpu.s.cr0).put(&mut cpu.regs, op.r[0]);
    Ok(())
}

/// Reads a general register as wide as MOV CRn and DRn see it: 64 bits in 64-bit mode, else 32.
fn operand(cpu: &Cpu, r: u8) -> u64 {
    if cpu.is_64() { u64::get(&cpu.regs, r) } else { u32::get(&cpu.regs, r).into() }
}

fn set_operand(cpu: &mut Cpu, r: u8, value: u64) {
    let value = if cpu.is_64() { value } else { value & 0xffff_ffff };
    value.put(&mut cpu.regs, r);
}

fn from_control(cpu: &mut Cpu, op: &Op, io: &mut dyn CpuIo) -> R {
    let value = match op.r[1] {
        0 | 2 | 3 | 4 | 8 => {
            cpu.require_ring0()?;
            match op.r[1] {
                0 => cpu.s.cr0,
                2 => cpu.s.cr2,
                3 => cpu.s.cr3,
                4 => cpu.s.cr4,
                _ => io.cr8_read(cpu.at(op)).into(),
            }
        }
        _ => return cpu.undefined(),
    };
    set_operand(cpu, op.r[0], value);
    Ok(())
}

fn to_control(cpu: &mut Cpu, op: &Op, io: &mut dyn CpuIo) -> R {
    if !matches!(op.r[0], 0 | 2 | 3 | 4 | 8) {
        return cpu.undefined();
    }
    cpu.require_ring0()?;
    let value = operand(cpu, op.r[1]);
    match op.r[0] {
        0 => cpu.write_cr0(value),
        2 => {
            cpu.s.cr2 = value;
            Ok(())
        }
        3 => cpu.write_cr3(value),
        4 => cpu.write_cr4(value),
        _ => {
            if value > 15 {
                return cpu.general_protection(0);
            }
            let attention = io.cr8_write(cpu.at(op), value as u8);
            cpu.attend(attention);
            Ok(())
        }
    }
}

/// DR4 and DR5 are DR6 and DR7 under another name, unless CR4.DE says that they are nothing.
fn debug_number(cpu: &mut Cpu, n: u8) -> R<u8> {
    match n {
        0..=3 | 6 | 7 => Ok(n),
        4 | 5 if cpu.s.cr4 & CR4_DE == 0 => Ok(n + 2),
        _ => cpu.undefined(),
    }
}

/// Not while general detect guards the registers (SDM 3B 17.2.4).
fn require_debug_access(cpu: &mut Cpu) -> R {
    if cpu.s.dr7 & DR7_GD != 0 { cpu.fail(Exception::debug(DR6_BD)) } else { Ok(()) }
}

fn from_debug(cpu: &mut Cpu, op: &Op, _: &mut dyn CpuIo) -> R {
    cpu.require_ring0()?;
    let n = debug_number(cpu, op.r[1])?;
    require_debug_access(cpu)?;
    let value = match n {
        6 => cpu.s.dr6,
        7 => cpu.s.dr7,
        _ => cpu.s.dr[n as usize & 3],
    };
    set_operand(cpu, op.r[0], value);
    Ok(())
}

fn to_debug(cpu: &mut Cpu, op: &Op, _: &mut dyn CpuIo) -> R {
    cpu.require_ring0()?;
    let n = debug_number(cpu, op.r[0])?;
    require_debug_access(cpu)?;
    let value = operand(cpu, op.r[1]);
    cpu.write_debug(n, value)
}

impl Cpu {
    /// UMIP keeps SGDT, SIDT, SLDT, STR and SMSW to ring 0.
    pub(crate) fn require_no_umip(&mut self) -> R {
        if self.s.cpl != 0 && self.s.cr4 & CR4_UMIP != 0 { self.general_protection(0) } else { Ok(()) }
    }

    /// MOV to CR0 and LMSW.
    fn write_cr0(&mut self, value: u64) -> R {
        const KNOWN: u64 =
            CR0_PE | CR0_MP | CR0_EM | CR0_TS | CR0_NE | CR0_WP | CR0_AM | CR0_NW | CR0_CD | CR0_PG;
        if value >> 32 != 0 {
            return self.general_protection(0);
        }
        let new = value & KNOWN | CR0_ET;
        let old = self.s.cr0;
        let has = |bits| new & bits == bits;
        let impossible = has(CR0_PG) && !has(CR0_PE) || has(CR0_NW) && !has(CR0_CD);
        let (turns_on, turns_off) = (has(CR0_PG) && old & CR0_PG == 0, !has(CR0_PG) && old & CR0_PG != 0);
        let long_enable = self.s.efer & EFER_LME != 0;
        let cs_long = self.s.seg[CS].has(attr::L);
        let refused = turns_on && long_enable && (self.s.cr4 & CR4_PAE == 0 || cs_long)
            || turns_off && (self.is_64() || self.s.cr4 & CR4_PCIDE != 0);
        if impossible || refused {
            return self.general_protection(0);
        }
        let legacy_pae = has(CR0_PG) && self.s.cr4 & CR4_PAE != 0 && !long_enable;
        if legacy_pae && (old ^ new) & (CR0_PG | CR0_CD | CR0_NW) != 0 {
            self.load_pdptes(self.s.cr3)?;
        }
        self.s.cr0 = new;
        self.s.efer &= !EFER_LMA;
        if has(CR0_PG) && long_enable {
            self.s.efer |= EFER_LMA;
        }
        if (old ^ new) & (CR0_PG | CR0_WP) != 0 {
            self.paging_changed();
        }
        self.mode_changed();
        Ok(())
    }

    fn write_cr3(&mut self, value: u64) -> R {
        let pcide = self.s.cr4 & CR4_PCIDE != 0;
        let value = if pcide { value & !CR3_NO_FLUSH } else { value };
        if value & !PHYSICAL != 0 {
            return self.general_protection(0);
        }
        if self.s.cr0 & CR0_PG != 0 && self.s.cr4 & CR4_PAE != 0 && !self.long_mode() {
            self.load_pdptes(value)?;
        }
        self.s.cr3 = value;
        self.address_space_changed();
        Ok(())
    }

    fn write_cr4(&mut self, new: u64) -> R {
        let old = self.s.cr4;
        let pcid_refused = new & !old & CR4_PCIDE != 0 && (!self.long_mode() || self.s.cr3 & 0xfff != 0);
        if new & !self.model.cr4_mask() != 0 || (self.long_mode() && new & CR4_PAE == 0) || pcid_refused {
            return self.general_protection(0);
        }
        let changed = old ^ new;
        let legacy_pae = self.s.cr0 & CR0_PG != 0 && new & CR4_PAE != 0 && !self.long_mode();
        if legacy_pae && changed & (CR4_PAE | CR4_PGE | CR4_PSE | CR4_SMEP) != 0 {
            self.load_pdptes(self.s.cr3)?;
        }
        self.s.cr4 = new;
        // PGE and PCIDE say what a flush spares, and there is no flush.
        if changed & (CR4_PAE | CR4_PSE | CR4_SMEP) != 0 {
            self.paging_changed();
        }
        self.mode_changed();
        Ok(())
    }

    /// Loads the four page-directory-pointer registers of PAE paging, all or none (SDM 3A 4.4.1).
    pub(crate) fn load_pdptes(&mut self, cr3: u64) -> R {
        const PRESENT: u64 = 1;
        const RESERVED: u64 = !PHYSICAL | 0x1e6;
        let mut pdptes = [0; 4];
        for (i, pdpte) in pdptes.iter_mut().enumerate() {
            let address = (cr3 & 0xffff_ffe0) + 8 * i as u64;
            // What is no RAM reads as ones, whose reserved bits are set.
            *pdpte = self.ram.read_array(address).map_or(u64::MAX, u64::from_le_bytes);
            if *pdpte & PRESENT != 0 && *pdpte & RESERVED != 0 {
                return self.general_protection(0);
            }
        }
        self.s.pdpte = pdptes;
        Ok(())
    }
}
