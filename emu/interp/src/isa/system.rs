//! System instructions that fit no other family: HLT, INVLPG, INVD, CPUID, RDTSC, RDMSR, XGETBV, STAC and more
//! (SDM 1 5.20).
//!
//! Not responsible for: the registers behind RDMSR (`msr`), CPUID's values (the CPU model).

use crate::cpu::Cpu;
use crate::fault::R;
use crate::lower::Form;
use crate::op::{Handler, Op};
use gemel_machine::CpuIo;
use gemel_x86::control::{CR4_OSXSAVE, CR4_PCE, CR4_TSD, XCR0_AVX, XCR0_AVX512, XCR0_SSE, XCR0_X87};
use gemel_x86::flags::AC;
use gemel_x86::{Feature, msr};

/// HLT.
pub fn hlt(_: &Form) -> Option<Handler> {
    Some(|cpu, _, _| {
        cpu.require_ring0()?;
        cpu.leave_guest();
        cpu.halted = true;
        cpu.limit = 0;
        Ok(())
    })
}

/// INVLPG, INVD, WBINVD: nothing that caches is visible here, so only the privilege check is left.
pub fn invalidate(_: &Form) -> Option<Handler> {
    Some(|cpu, _, _| cpu.require_ring0())
}

/// CPUID.
pub fn cpuid(_: &Form) -> Option<Handler> {
    Some(|cpu, op, io| {
        const APIC_ENABLED: u64 = 1 << 11;
        let (base, attention) = io.msr_read(cpu.at(op), msr::APIC_BASE);
        cpu.attend(attention);
        let enabled = base.is_some_and(|b| b & APIC_ENABLED != 0);
        let [a, b, c, d] = cpu.model.cpuid(cpu.regs[0] as u32, cpu.regs[1] as u32, &cpu.s, enabled);
        for (n, value) in [(0, a), (3, b), (1, c), (2, d)] {
            cpu.regs[n] = value.into();
        }
        Ok(())
    })
}

/// RDTSC.
pub fn rdtsc(_: &Form) -> Option<Handler> {
    Some(read_tsc)
}

/// RDTSCP.
pub fn rdtscp(_: &Form) -> Option<Handler> {
    Some(|cpu, op, io| {
        if !cpu.model.has(Feature::RDTSCP) {
            return cpu.undefined();
        }
        read_tsc(cpu, op, io)?;
        cpu.regs[1] = cpu.s.tsc_aux & 0xffff_ffff;
        Ok(())
    })
}

/// RDPMC: four counters that count nothing, as their MSRs do (APM 3 RDPMC).
pub fn rdpmc(_: &Form) -> Option<Handler> {
    Some(|cpu, _, _| {
        let allowed = cpu.s.cpl == 0 || cpu.s.cr4 & CR4_PCE != 0;
        if !allowed || cpu.regs[1] as u32 > 3 {
            return cpu.general_protection(0);
        }
        cpu.put_pair(0);
        Ok(())
    })
}

/// RDMSR.
pub fn rdmsr(_: &Form) -> Option<Handler> {
    Some(|cpu, op, io| {
        cpu.require_ring0()?;
        let value = cpu.read_msr(cpu.at(op), cpu.regs[1] as u32, io)?;
        cpu.put_pair(value);
        Ok(())
    })
}

/// WRMSR.
pub fn wrmsr(_: &Form) -> Option<Handler> {
    Some(|cpu, op, io| {
        cpu.require_ring0()?;
        cpu.write_msr(cpu.at(op), cpu.regs[1] as u32, cpu.pair(), io)
    })
}

/// XGETBV.
pub fn xgetbv(_: &Form) -> Option<Handler> {
    Some(|cpu, _, _| {
        if cpu.s.cr4 & CR4_OSXSAVE == 0 {
            return cpu.undefined();
        }
        if cpu.regs[1] as u32 != 0 {
            return cpu.general_protection(0);
        }
        cpu.put_pair(cpu.s.xcr0);
        Ok(())
    })
}

/// XSETBV: x87 must stay; SSE may come and go.
pub fn xsetbv(_: &Form) -> Option<Handler> {
    Some(|cpu, _, _| {
        if cpu.s.cr4 & CR4_OSXSAVE == 0 {
            return cpu.undefined();
        }
        cpu.require_ring0()?;
        let value = cpu.pair();
        // SDM 2D XSETBV: the x87 component always, AVX not without SSE, AVX-512 whole and not without AVX.
        let unpaired = value & (XCR0_SSE | XCR0_AVX) == XCR0_AVX
            || value & XCR0_AVX512 != 0 && value & (XCR0_AVX | XCR0_AVX512) != XCR0_AVX | XCR0_AVX512;
        let refused = value & XCR0_X87 == 0 || value & !cpu.model.xcr0_mask() != 0 || unpaired;
        if cpu.regs[1] as u32 != 0 || refused {
            return cpu.general_protection(0);
        }
        cpu.s.xcr0 = value;
        Ok(())
    })
}

/// STAC.
pub fn stac(_: &Form) -> Option<Handler> {
    Some(|cpu, _, _| set_access_control(cpu, AC))
}

/// CLAC.
pub fn clac(_: &Form) -> Option<Handler> {
    Some(|cpu, _, _| set_access_control(cpu, 0))
}

/// UD0, UD1, UD2, and what the model does not offer: MONITOR, MWAIT, RSM.
pub fn ud(_: &Form) -> Option<Handler> {
    Some(|cpu, _, _| cpu.undefined())
}

/// INVPCID, which comes with PCID.
pub fn invpcid(_: &Form) -> Option<Handler> {
    Some(|cpu, op, io| {
        if !cpu.model.has(Feature::PCID) {
            return cpu.undefined();
        }
        cpu.require_ring0()?;
        let kind = crate::cpu::Width::zext(cpu.regs[op.r[0] as usize & 15]);
        let descriptor = cpu.load::<u128>(op, io)?;
        let (pcid, address) = (descriptor as u64, (descriptor >> 64) as u64);
        // SDM 2A INVPCID: reserved bits, unknown types, an address that is none, a PCID without PCIDE.
        let pcids_on = cpu.s.cr4 & gemel_x86::control::CR4_PCIDE != 0;
        let bad = kind > 3
            || pcid >> 12 != 0
            || (kind == 0 && !crate::mmu::access::canonical(address))
            || (kind < 2 && !pcids_on && pcid != 0);
        if bad { cpu.general_protection(0) } else { Ok(()) }
    })
}

fn set_access_control(cpu: &mut Cpu, value: u64) -> R {
    if !cpu.model.has(Feature::SMAP) || cpu.s.cpl != 0 || cpu.v86() {
        return cpu.undefined();
    }
    cpu.system_flags = cpu.system_flags & !AC | value;
    cpu.mmu_mode_changed();
    Ok(())
}

fn read_tsc(cpu: &mut Cpu, op: &Op, io: &mut dyn CpuIo) -> R {
    if cpu.s.cr4 & CR4_TSD != 0 && cpu.s.cpl != 0 {
        return cpu.general_protection(0);
    }
    let tsc = cpu.machine_tsc(cpu.at(op), io).wrapping_add(cpu.s.tsc_offset);
    cpu.put_pair(tsc);
    Ok(())
}

impl Cpu {
    /// EDX:EAX.
    fn pair(&self) -> u64 {
        self.regs[2] << 32 | self.regs[0] & 0xffff_ffff
    }

    /// Sets RDX and RAX to the halves of a value.
    fn put_pair(&mut self, value: u64) {
        self.regs[0] = value & 0xffff_ffff;
        self.regs[2] = value >> 32;
    }
}
