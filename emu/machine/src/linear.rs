//! Reading guest memory by linear address without disturbing the machine: no accessed bit is set, nothing faults.
//!
//! Not responsible for: the translations that the guest runs with, and what they permit (each engine has its own).

use crate::ram::{GuestRam, PAGE_SIZE};
use gemel_x86::CpuState;
use gemel_x86::control::{CR0_PG, CR4_PAE, CR4_PSE, EFER_LMA};

const PRESENT: u64 = 1;
const LARGE: u64 = 1 << 7;
/// The address bits of an entry of eight bytes.
const FRAME: u64 = 0x000f_ffff_ffff_f000;

/// What of a CPU's state says how linear addresses are translated.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Paging {
    /// CR0.
    pub cr0: u64,
    /// CR3.
    pub cr3: u64,
    /// CR4.
    pub cr4: u64,
    /// EFER.
    pub efer: u64,
    /// The directory pointers that PAE paging loaded with CR3; `None` takes them from memory.
    pub pdpte: Option<[u64; 4]>,
}

impl Paging {
    /// Of a CPU's whole state.
    pub fn of(s: &CpuState) -> Self {
        Self { cr0: s.cr0, cr3: s.cr3, cr4: s.cr4, efer: s.efer, pdpte: Some(s.pdpte) }
    }

    /// The guest physical address of a linear one; `None` where nothing is mapped (SDM 3A 4.3 to 4.5).
    pub fn physical(&self, ram: &GuestRam, linear: u64) -> Option<u64> {
        if self.cr0 & CR0_PG == 0 {
            return Some(linear & 0xffff_ffff);
        }
        let long = self.efer & EFER_LMA != 0;
        if !long && self.cr4 & CR4_PAE == 0 {
            return self.narrow(ram, linear);
        }
        let linear = if long { linear } else { linear & 0xffff_ffff };
        let (mut table, top) = match self.pdpte {
            _ if long => (self.cr3 & FRAME, 3),
            None => (self.cr3 & 0xffff_ffe0, 2),
            Some(loaded) => {
                let pointer = loaded[(linear >> 30) as usize & 3];
                (if pointer & PRESENT == 0 { return None } else { pointer & FRAME }, 1)
            }
        };
        for level in (0..=top).rev() {
            let shift = 12 + 9 * level;
            let index = linear >> shift & 0x1ff;
            let entry = u64::from_le_bytes(ram.read_array(table + 8 * index).ok()?);
            if entry & PRESENT == 0 {
                return None;
            }
            let inside = (1 << shift) - 1;
            if level == 0 || (entry & LARGE != 0 && level < 3 && (long || level < 2)) {
                return Some(entry & FRAME & !inside | linear & inside);
            }
            table = entry & FRAME;
        }
        None
    }

    /// 32-bit paging (SDM 3A 4.3).
    fn narrow(&self, ram: &GuestRam, linear: u64) -> Option<u64> {
        let entry = |table: u64, index: u64| {
            let entry = ram.read_array(table + 4 * index).ok().map(u32::from_le_bytes).map(u64::from)?;
            (entry & PRESENT != 0).then_some(entry)
        };
        let directory = entry(self.cr3 & 0xffff_f000, linear >> 22 & 0x3ff)?;
        if directory & LARGE != 0 && self.cr4 & CR4_PSE != 0 {
            // Bits 39:32 of a 4 MiB page's address are in bits 20:13 (SDM 3A table 4-4).
            return Some(directory & 0xffc0_0000 | (directory >> 13 & 0xff) << 32 | linear & 0x3f_ffff);
        }
        let page = entry(directory & 0xffff_f000, linear >> 12 & 0x3ff)?;
        Some(page & 0xffff_f000 | linear & 0xfff)
    }

    /// Copies bytes at a linear address out, as far as they are mapped to RAM. Returns how many.
    pub fn read(&self, ram: &GuestRam, linear: u64, out: &mut [u8]) -> usize {
        let mut done = 0;
        while done < out.len() {
            let at = linear.wrapping_add(done as u64);
            let n = (PAGE_SIZE - at as usize % PAGE_SIZE).min(out.len() - done);
            let physical = self.physical(ram, at);
            if physical.is_none_or(|address| ram.read(address, &mut out[done..done + n]).is_err()) {
                break;
            }
            done += n;
        }
        done
    }
}
