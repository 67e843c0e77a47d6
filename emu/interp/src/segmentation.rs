//! Descriptors and segment registers: reading GDT and LDT, the checks of a load, what a load leaves behind.
//!
//! Not responsible for: control transfers through CS (`isa/far_transfer`), limit checks of accesses (`mmu`).

use crate::cpu::Cpu;
use crate::fault::R;
use gemel_machine::CpuIo;
use gemel_x86::segment::{CS, FS, SS, attr};
use gemel_x86::{Exception, Segment, Vector};

/// System descriptor types (SDM 3A table 3-2). In long mode 2, 9, 11 and 12 keep their number and take 16 bytes.
pub(crate) mod system_type {
    pub(crate) const TSS_16: u16 = 1;
    pub(crate) const LDT: u16 = 2;
    pub(crate) const TSS_16_BUSY: u16 = 3;
    pub(crate) const CALL_GATE_16: u16 = 4;
    pub(crate) const TASK_GATE: u16 = 5;
    pub(crate) const INTERRUPT_GATE_16: u16 = 6;
    pub(crate) const TRAP_GATE_16: u16 = 7;
    pub(crate) const TSS: u16 = 9;
    pub(crate) const TSS_BUSY: u16 = 11;
    pub(crate) const CALL_GATE: u16 = 12;
    pub(crate) const INTERRUPT_GATE: u16 = 14;
    pub(crate) const TRAP_GATE: u16 = 15;
    /// What tells a 32-bit (or long) gate or TSS from a 16-bit one.
    pub(crate) const WIDE: u16 = 8;
    /// What tells a busy TSS from an available one.
    pub(crate) const BUSY: u16 = 2;
}

/// A descriptor as it was read, and where from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Descriptor {
    /// Linear address of its first byte.
    pub address: u64,
    /// Its first eight bytes.
    pub raw: u64,
    /// The same, split; the selector is the one it was read by.
    pub segment: Segment,
}

/// Whether a selector names nothing.
pub(crate) const fn is_null(selector: u16) -> bool {
    selector & !3 == 0
}

/// What loading a null selector leaves: unusable.
pub(crate) const fn null_segment(selector: u16) -> Segment {
    Segment { selector, attr: 0, limit: 0, base: 0 }
}

impl Descriptor {
    /// Requested privilege level of the selector it was read by.
    pub(crate) const fn rpl(&self) -> u8 {
        (self.segment.selector & 3) as u8
    }

    pub(crate) const fn dpl(&self) -> u8 {
        self.segment.dpl()
    }

    pub(crate) const fn present(&self) -> bool {
        self.segment.has(attr::P)
    }

    /// Code or data, not a system descriptor.
    pub(crate) const fn is_memory(&self) -> bool {
        self.segment.has(attr::S)
    }

    pub(crate) const fn is_code(&self) -> bool {
        self.segment.has(attr::S | attr::CODE)
    }

    pub(crate) const fn is_conforming(&self) -> bool {
        self.segment.has(attr::S | attr::CODE | attr::DOWN_CONFORMING)
    }

    /// A data segment that can be written: what SS needs.
    pub(crate) const fn is_writable_data(&self) -> bool {
        self.segment.attr & (attr::S | attr::CODE | attr::READ_WRITE) == attr::S | attr::READ_WRITE
    }

    /// Data, or code that can be read: what DS, ES, FS, GS need.
    pub(crate) const fn is_readable(&self) -> bool {
        self.is_memory() && (!self.is_code() || self.segment.has(attr::READ_WRITE))
    }

    /// The type field of a system descriptor; `None` for code and data.
    pub(crate) const fn system_type(&self) -> Option<u16> {
        if self.is_memory() { None } else { Some(self.segment.attr & 0xf) }
    }
}

impl Cpu {
    /// An exception whose error code is a selector, RPL cut off.
    #[cold]
    pub(crate) fn selector_fault<T>(&mut self, vector: Vector, selector: u16) -> R<T> {
        self.fail(Exception::with_error(vector, u32::from(selector & !3)))
    }

    /// A linear address in a descriptor table or TSS: 32 bits unless long mode is active.
    pub(crate) fn system_linear(&self, base: u64, offset: u64) -> u64 {
        let lin = base.wrapping_add(offset);
        if self.long_mode() { lin } else { lin & 0xffff_ffff }
    }

    /// Where a selector's descriptor is, if all of its `bytes` bytes lie inside the table.
    fn descriptor_address(&self, selector: u16, bytes: u64) -> Option<u64> {
        let offset = u64::from(selector & !7);
        let (base, limit) = if selector & 4 == 0 {
            (self.s.gdtr.base, u64::from(self.s.gdtr.limit))
        } else if self.s.ldtr.has(attr::P) {
            (self.s.ldtr.base, u64::from(self.s.ldtr.limit))
        } else {
            return None;
        };
        (offset + bytes - 1 <= limit).then(|| self.system_linear(base, offset))
    }

    /// Reads a descriptor, or `None` when the selector is null or lies outside its table. Page faults are real.
    pub(crate) fn look_up(&mut self, selector: u16, io: &mut dyn CpuIo) -> R<Option<Descriptor>> {
        if is_null(selector) {
            return Ok(None);
        }
        let Some(address) = self.descriptor_address(selector, 8) else { return Ok(None) };
        let raw = self.read_system::<u64>(address, io)?;
        Ok(Some(Descriptor { address, raw, segment: Segment::from_descriptor(selector, raw) }))
    }

    /// Reads a descriptor; outside its table is `vector`(selector). The caller has seen to null selectors.
    pub(crate) fn descriptor(&mut self, selector: u16, vector: Vector, io: &mut dyn CpuIo) -> R<Descriptor> {
        match self.look_up(selector, io)? {
            Some(descriptor) => Ok(descriptor),
            None => self.selector_fault(vector, selector),
        }
    }

    /// The second half of a 16-byte system descriptor (long mode). Its type field must be zero (SDM 3A 5.8.3.1, 8.2.3).
    pub(crate) fn upper_half(&mut self, low: &Descriptor, vector: Vector, io: &mut dyn CpuIo) -> R<u64> {
        let selector = low.segment.selector;
        let Some(address) = self.descriptor_address(selector, 16) else {
            return self.selector_fault(vector, selector);
        };
        let upper = self.read_system::<u64>(self.system_linear(address, 8), io)?;
        if upper >> 40 & 0x1f != 0 {
            return self.selector_fault(vector, selector);
        }
        Ok(upper)
    }

    /// Sets the accessed bit of a code or data descriptor in memory and in the copy.
    pub(crate) fn mark_accessed(&mut self, d: &mut Descriptor, io: &mut dyn CpuIo) -> R {
        if !d.segment.has(attr::ACCESSED) {
            d.segment.attr |= attr::ACCESSED;
            let access = (d.raw >> 40) as u8 | attr::ACCESSED as u8;
            self.write_system::<u8>(self.system_linear(d.address, 5), access, io)?;
        }
        Ok(())
    }

    /// Writes a system descriptor's type (TSS busy or not) back to its table.
    pub(crate) fn write_system_type(&mut self, d: &Descriptor, kind: u16, io: &mut dyn CpuIo) -> R {
        let access = (d.raw >> 40) as u8 & 0xf0 | kind as u8;
        self.write_system::<u8>(self.system_linear(d.address, 5), access, io)
    }

    /// What a real-mode or virtual-8086 load leaves in a register. In real mode the limit and the size bits of earlier
    /// loads stay ("unreal" mode); virtual-8086 segments are always 64 KiB at ring 3 (SDM 3B 21.2).
    pub(crate) fn plain_segment(&self, index: usize, selector: u16) -> Segment {
        if self.v86() {
            return Segment { attr: 0xf3, ..Segment::real(selector) };
        }
        let old = &self.s.seg[index];
        let limit = if old.has(attr::P) { old.limit } else { 0xffff };
        Segment { attr: 0x93 | old.attr & (attr::DB | attr::G), limit, ..Segment::real(selector) }
    }

    /// The checks of a load into ES, SS, DS, FS or GS, and the segment that it gives (SDM 2B MOV; 3A 5.6, 5.7).
    pub(crate) fn checked_segment(&mut self, index: usize, selector: u16, io: &mut dyn CpuIo) -> R<Segment> {
        if !self.protected() {
            return Ok(self.plain_segment(index, selector));
        }
        let (cpl, rpl) = (self.s.cpl, (selector & 3) as u8);
        if is_null(selector) {
            let allowed = index != SS || self.is_64() && cpl != 3 && rpl == cpl;
            return if allowed { Ok(null_segment(selector)) } else { self.general_protection(0) };
        }
        let mut d = self.descriptor(selector, Vector::GeneralProtection, io)?;
        let (allowed, absent) = if index == SS {
            (d.is_writable_data() && rpl == cpl && d.dpl() == cpl, Vector::Stack)
        } else {
            let reachable = d.is_conforming() || d.dpl() >= rpl.max(cpl);
            (d.is_readable() && reachable, Vector::NotPresent)
        };
        if !allowed {
            return self.selector_fault(Vector::GeneralProtection, selector);
        }
        if !d.present() {
            return self.selector_fault(absent, selector);
        }
        self.mark_accessed(&mut d, io)?;
        Ok(d.segment)
    }

    /// Loads ES, SS, DS, FS or GS.
    pub fn load_segment(&mut self, index: usize, selector: u16, io: &mut dyn CpuIo) -> R {
        let segment = self.checked_segment(index, selector, io)?;
        self.set_segment(index, segment);
        Ok(())
    }

    /// Puts a checked segment into its register. FS and GS take no part in the mode.
    pub(crate) fn set_segment(&mut self, index: usize, segment: Segment) {
        self.s.seg[index] = segment;
        if index >= FS {
            self.seg_base[index] = segment.base;
        } else {
            self.mode_changed();
        }
    }

    /// #GP(0) unless an instruction pointer lies inside the code segment, or is canonical in a 64-bit one.
    pub(crate) fn check_entry(&mut self, code: &Segment, rip: u64) -> R {
        let ok = if self.long_mode() && code.has(attr::L) {
            crate::mmu::access::canonical(rip)
        } else {
            rip <= u64::from(code.limit)
        };
        if ok { Ok(()) } else { self.general_protection(0) }
    }

    /// Makes a code segment, a privilege level and an instruction pointer current. In protected mode the RPL of CS is the CPL
    /// always. RFLAGS.VM must already be the target's.
    pub(crate) fn set_code(&mut self, segment: Segment, cpl: u8, rip: u64) {
        self.s.seg[CS] = segment;
        if self.protected() {
            self.s.seg[CS].selector = segment.selector & !3 | u16::from(cpl);
        }
        self.s.cpl = cpl;
        self.rip = rip;
        self.mode_changed();
    }

    /// After a return to an outer level: data segments that it may not use become null (SDM 3A 5.8.6).
    pub(crate) fn drop_inner_segments(&mut self) {
        use gemel_x86::segment::{DS, ES, GS};
        for index in [ES, DS, FS, GS] {
            let s = self.s.seg[index];
            let conforming = s.has(attr::CODE | attr::DOWN_CONFORMING);
            // FS and GS keep their bases, those of null selectors and these: kernels that find their own data through GS return
            // to user mode with a kernel's selector in it.
            if s.has(attr::P) && s.dpl() < self.s.cpl && !conforming {
                self.s.seg[index] = Segment { base: s.base, ..null_segment(0) };
            }
        }
        self.mode_changed();
    }

    /// The checks that SS gets when a more privileged level is entered, and the segment (SDM 3A 6.13 #TS).
    pub(crate) fn inner_stack_segment(&mut self, selector: u16, level: u8, io: &mut dyn CpuIo) -> R<Segment> {
        if is_null(selector) {
            return self.selector_fault(Vector::InvalidTss, 0);
        }
        let mut d = self.descriptor(selector, Vector::InvalidTss, io)?;
        if d.rpl() != level || d.dpl() != level || !d.is_writable_data() {
            return self.selector_fault(Vector::InvalidTss, selector);
        }
        if !d.present() {
            return self.selector_fault(Vector::Stack, selector);
        }
        self.mark_accessed(&mut d, io)?;
        Ok(d.segment)
    }

    /// SS and ESP of an inner level, from a legacy TSS of either width (SDM 3A figures 7-2, 7-10).
    pub(crate) fn tss_stack(&mut self, level: u8, io: &mut dyn CpuIo) -> R<(u16, u32)> {
        let tr = self.s.tr;
        let wide = tr.attr & system_type::WIDE != 0;
        let (offset, size) = if wide { (u64::from(level) * 8 + 4, 4) } else { (u64::from(level) * 4 + 2, 2) };
        if offset + size + 1 > u64::from(tr.limit) {
            return self.selector_fault(Vector::InvalidTss, tr.selector);
        }
        let sp = self.system_linear(tr.base, offset);
        let esp =
            if wide { self.read_system::<u32>(sp, io)? } else { self.read_system::<u16>(sp, io)?.into() };
        let ss = self.read_system::<u16>(self.system_linear(tr.base, offset + size), io)?;
        Ok((ss, esp))
    }

    /// A stack pointer of the 64-bit TSS: RSP0 to RSP2 by level, or IST1 to IST7 (SDM 3A figure 7-11).
    pub(crate) fn tss_rsp(&mut self, level: u8, ist: u8, io: &mut dyn CpuIo) -> R<u64> {
        let tr = self.s.tr;
        let offset = if ist == 0 { 4 + u64::from(level) * 8 } else { 0x24 + (u64::from(ist) - 1) * 8 };
        if offset + 7 > u64::from(tr.limit) {
            return self.selector_fault(Vector::InvalidTss, tr.selector);
        }
        self.read_system::<u64>(self.system_linear(tr.base, offset), io)
    }

    /// LLDT: GP for what is no LDT, NP for an absent one; null leaves no LDT.
    pub(crate) fn load_ldtr(&mut self, selector: u16, io: &mut dyn CpuIo) -> R {
        if is_null(selector) {
            self.s.ldtr = null_segment(selector);
            return Ok(());
        }
        if selector & 4 != 0 {
            return self.selector_fault(Vector::GeneralProtection, selector);
        }
        let d = self.descriptor(selector, Vector::GeneralProtection, io)?;
        if d.system_type() != Some(system_type::LDT) {
            return self.selector_fault(Vector::GeneralProtection, selector);
        }
        if !d.present() {
            return self.selector_fault(Vector::NotPresent, selector);
        }
        self.s.ldtr = self.whole_system_segment(&d, io)?;
        Ok(())
    }

    /// LTR: the TSS must be available, and gets busy.
    pub(crate) fn load_tr(&mut self, selector: u16, io: &mut dyn CpuIo) -> R {
        if is_null(selector) {
            return self.general_protection(0);
        }
        if selector & 4 != 0 {
            return self.selector_fault(Vector::GeneralProtection, selector);
        }
        let d = self.descriptor(selector, Vector::GeneralProtection, io)?;
        let kind = match d.system_type() {
            Some(system_type::TSS) => system_type::TSS_BUSY,
            Some(system_type::TSS_16) if !self.long_mode() => system_type::TSS_16_BUSY,
            _ => return self.selector_fault(Vector::GeneralProtection, selector),
        };
        if !d.present() {
            return self.selector_fault(Vector::NotPresent, selector);
        }
        let mut segment = self.whole_system_segment(&d, io)?;
        self.write_system_type(&d, kind, io)?;
        segment.attr |= system_type::BUSY;
        self.s.tr = segment;
        Ok(())
    }

    /// An LDT's or TSS's segment, with the upper half of its base in long mode.
    fn whole_system_segment(&mut self, d: &Descriptor, io: &mut dyn CpuIo) -> R<Segment> {
        if !self.long_mode() {
            return Ok(d.segment);
        }
        let upper = self.upper_half(d, Vector::GeneralProtection, io)?;
        let segment = d.segment.with_upper(upper);
        if !crate::mmu::access::canonical(segment.base) {
            return self.selector_fault(Vector::GeneralProtection, d.segment.selector);
        }
        Ok(segment)
    }
}
