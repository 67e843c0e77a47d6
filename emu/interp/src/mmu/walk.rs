#![allow(unsafe_code)] // page table entries are read and marked in guest RAM, in place
//! Page walks: 32-bit, PAE and 4-level paging (SDM 3A chapter 4; APM 2 chapter 5).
//!
//! Not responsible for: caching (the parent module), segmentation.

use super::{SUPERVISOR_SMAP, USER};
use crate::cpu::Cpu;
use crate::fault::R;
use gemel_machine::ram::{CODE, DIRTY};
use gemel_x86::Exception;
use gemel_x86::control::{CR0_PG, CR0_WP, CR4_PAE, CR4_PSE, CR4_SMAP, CR4_SMEP, EFER_NXE};
use gemel_x86::flags::AC;

pub(super) const PRESENT: u64 = 1 << 0;
const WRITABLE: u64 = 1 << 1;
const USER_PAGE: u64 = 1 << 2;
pub(super) const ACCESSED: u64 = 1 << 5;
const DIRTY_BIT: u64 = 1 << 6;
pub(super) const LARGE: u64 = 1 << 7;
pub(super) const NO_EXECUTE: u64 = 1 << 63;

/// Physical address bits, as CPUID says.
const PHYSICAL_BITS: u32 = 40;
pub(super) const PHYSICAL: u64 = (1 << PHYSICAL_BITS) - 1;
/// The bits of a linear address that are translated.
pub(super) const LINEAR: u64 = (1 << 48) - 1;

/// What an access wants of a page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Want {
    Read,
    Write,
    Fetch,
}

/// A finished walk.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Walked {
    /// The guest physical address.
    pub physical: u64,
    /// Stores need no further walk: allowed, and the dirty bit is set.
    pub writable: bool,
}

/// One entry met on the way, to be marked accessed once the walk succeeds.
#[derive(Clone, Copy)]
struct Met {
    page: u32,
    offset: u16,
    value: u64,
}

impl Cpu {
    /// Recomputes the access mode for data; called when CPL, CR4.SMAP, AC, alignment checks or breakpoints change.
    pub fn mmu_mode_changed(&mut self) {
        let mode = if self.checks_alignment() || self.breakpoints_armed() {
            super::CHECKED
        } else {
            self.plain_access_mode()
        };
        self.mmu.select_mode(mode);
        self.code_key_changed();
    }

    /// The access mode as paging sees it.
    pub(crate) fn plain_access_mode(&self) -> usize {
        if self.s.cpl == 3 {
            USER
        } else if self.s.cr4 & CR4_SMAP != 0 && self.system_flags & AC == 0 {
            SUPERVISOR_SMAP
        } else {
            super::SUPERVISOR
        }
    }

    /// The mode of implicit supervisor accesses (descriptor tables, TSS): AC does not open user pages to them.
    pub(crate) fn system_access_mode(&self) -> usize {
        if self.s.cr4 & CR4_SMAP != 0 { SUPERVISOR_SMAP } else { super::SUPERVISOR }
    }

    /// To be called when CR3 was written (or PDPTEs were loaded).
    pub fn address_space_changed(&mut self) {
        let paging = self.s.cr0 & CR0_PG != 0;
        let root = if paging { self.s.cr3 & PHYSICAL & !0xfff } else { super::NO_PAGING };
        let long = self.long_mode();
        self.mmu.select_space(root, if long { Some(&self.ram) } else { None });
        if paging && self.s.cr4 & CR4_PAE != 0 && !long {
            self.mmu.clear_current_space();
        }
        self.limit = 0;
        self.code_key_changed();
    }

    /// To be called when CR0.PG, CR0.WP, CR4's paging bits or EFER.NXE, LMA changed: permissions mean something else.
    pub fn paging_changed(&mut self) {
        self.mmu.flush_all(&self.ram);
        self.blocks.forget_addresses();
        self.address_space_changed();
        self.mode_changed();
    }

    pub(super) fn entry_at(&self, page: u32, offset: u16, narrow: bool) -> u64 {
        let host = self.ram.host_page(page);
        // SAFETY: `offset` is a multiple of the entry's size inside the page, and `host_page` is valid for 4096 bytes.
        unsafe {
            if narrow {
                u64::from(host.add(offset as usize).cast::<u32>().read_unaligned())
            } else {
                host.add(offset as usize).cast::<u64>().read_unaligned()
            }
        }
    }

    /// Sets bits in the low byte of an entry.
    fn mark_entry(&mut self, met: &Met, bits: u64) {
        if met.value & bits == bits {
            return;
        }
        self.ram.mark(met.page, DIRTY);
        // A page of tables can hold code as well, and the bit be one of an instruction's.
        if self.ram.marks(met.page) & CODE != 0
            && self.blocks.written(met.page, met.offset.into(), 1, &self.ram)
        {
            self.limit = 0;
        }
        // SAFETY: as in `entry_at`; accessed and dirty bits lie in the first byte.
        unsafe {
            let byte = self.ram.host_page(met.page).add(met.offset as usize);
            byte.write(byte.read() | bits as u8);
        }
    }

    /// Walks the tables for an access in `mode`, sets accessed and dirty bits, or makes #PF pending.
    pub(crate) fn walk(&mut self, lin: u64, want: Want, mode: usize) -> R<Walked> {
        if self.s.cr0 & CR0_PG == 0 {
            return Ok(Walked { physical: lin & 0xffff_ffff, writable: true });
        }
        match self.walk_tables(lin, want, mode) {
            Ok(w) => Ok(w),
            Err(cause) => {
                let nx_counts = self.s.efer & EFER_NXE != 0 || self.s.cr4 & CR4_SMEP != 0;
                let code = cause
                    | u32::from(want == Want::Write) << 1
                    | u32::from(mode == USER) << 2
                    | u32::from(want == Want::Fetch && nx_counts) << 4;
                self.fail(Exception::page(lin, code))
            }
        }
    }

    /// The walk itself; the error is bits P and RSVD of the error code.
    fn walk_tables(&mut self, lin: u64, want: Want, mode: usize) -> Result<Walked, u32> {
        const PROTECTION: u32 = 1;
        const RESERVED: u32 = 1 | 1 << 3;
        const ABSENT: u32 = 0;

        let pae = self.s.cr4 & CR4_PAE != 0;
        let long = self.long_mode();
        let nx = self.s.efer & EFER_NXE != 0;
        let narrow = !pae;
        let (mut level, mut table) = match (long, pae) {
            (true, _) => (4u8, self.s.cr3 & PHYSICAL & !0xfff),
            (false, true) => {
                let pdpte = self.s.pdpte[(lin >> 30) as usize & 3];
                if pdpte & PRESENT == 0 {
                    return Err(ABSENT);
                }
                (2, pdpte & PHYSICAL & !0xfff)
            }
            (false, false) => (2, self.s.cr3 & 0xffff_f000),
        };
        let index_bits = if narrow { 10 } else { 9 };
        let mut met = [Met { page: 0, offset: 0, value: 0 }; 4];
        let mut depth = 0;
        let mut rights = WRITABLE | USER_PAGE;
        let mut no_execute = false;
        let leaf_shift = loop {
            let shift = 12 + index_bits * (u32::from(level) - 1);
            // A table outside RAM reads as ones, whose reserved bits are set.
            let page = self.ram.page_at(table).ok_or(RESERVED)?;
            let index = (lin >> shift) as u16 & ((1 << index_bits) - 1);
            let offset = index * if narrow { 4 } else { 8 };
            let va = lin & LINEAR & !((1u64 << (shift + index_bits)) - 1);
            self.mmu.note_table(page, va, level, narrow, &self.ram);
            let value = self.entry_at(page, offset, narrow);
            if value & PRESENT == 0 {
                return Err(ABSENT);
            }
            met[depth] = Met { page, offset, value };
            depth += 1;
            rights &= value;
            let large = level > 1 && value & LARGE != 0 && (!narrow || self.s.cr4 & CR4_PSE != 0);
            if !narrow {
                no_execute |= value & NO_EXECUTE != 0;
                let mut reserved = ((1u64 << 52) - 1) & !PHYSICAL;
                if !nx {
                    reserved |= NO_EXECUTE;
                }
                if !long {
                    reserved |= 0x7ff << 52;
                }
                if large {
                    if level == 4 {
                        return Err(RESERVED);
                    }
                    reserved |= ((1u64 << shift) - 1) & !0x1fff;
                } else if level == 4 {
                    reserved |= LARGE;
                }
                if value & reserved != 0 {
                    return Err(RESERVED);
                }
            } else if large && value & (1 << 21) != 0 {
                return Err(RESERVED);
            }
            if level == 1 || large {
                break shift;
            }
            table = if narrow { value & 0xffff_f000 } else { value & PHYSICAL & !0xfff };
            level -= 1;
        };
        let leaf = met[depth - 1];
        let user_page = rights & USER_PAGE != 0;
        let user = mode == USER;
        let write_protected = rights & WRITABLE == 0 && (user || self.s.cr0 & CR0_WP != 0);
        let refused = match want {
            Want::Fetch => {
                (no_execute && nx)
                    || (user && !user_page)
                    || (!user && user_page && self.s.cr4 & CR4_SMEP != 0)
            }
            _ => {
                (user && !user_page)
                    || (mode == SUPERVISOR_SMAP && user_page)
                    || (want == Want::Write && write_protected)
            }
        };
        if refused {
            return Err(PROTECTION);
        }
        for m in &met[..depth - 1] {
            self.mark_entry(m, ACCESSED);
        }
        let dirty = if want == Want::Write { DIRTY_BIT } else { 0 };
        self.mark_entry(&leaf, ACCESSED | dirty);
        let inside = lin & ((1u64 << leaf_shift) - 1);
        let frame = if narrow && leaf_shift > 12 {
            // PSE-36: bits 13 to 20 are address bits 32 to 39 (SDM 3A table 4-4).
            leaf.value & 0xffc0_0000 | (leaf.value >> 13 & 0xff) << 32
        } else if narrow {
            leaf.value & 0xffff_f000
        } else {
            leaf.value & PHYSICAL & !((1u64 << leaf_shift) - 1)
        };
        let writable = !write_protected && (want == Want::Write || leaf.value & DIRTY_BIT != 0);
        Ok(Walked { physical: frame | inside, writable })
    }

    /// The page for an instruction fetch at a linear address; `None` where the physical address is not RAM.
    pub(crate) fn fetch_page(&mut self, lin: u64) -> R<Option<u32>> {
        let user = self.s.cpl == 3;
        if let Some(page) = self.mmu.fetch_page(lin, user) {
            return Ok(Some(page));
        }
        let mode = if user { USER } else { super::SUPERVISOR };
        let walked = self.walk(lin, Want::Fetch, mode)?;
        let page = self.ram.page_at(walked.physical);
        if let Some(page) = page {
            self.mmu.fill_fetch(lin, user, page);
        }
        Ok(page)
    }
}
