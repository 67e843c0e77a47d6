//! Reading guest memory by linear address without disturbing the machine: no accessed bit is set, nothing faults.
//!
//! Not responsible for: the translations that the guest runs with (each engine has its own).

use gemel_machine::{GuestRam, PAGE_SIZE};
use gemel_x86::CpuState;
use gemel_x86::control::{CR0_PG, CR4_PAE, CR4_PSE, EFER_LMA};
use gemel_x86::segment::{CS, attr};

const PRESENT: u64 = 1;
const LARGE: u64 = 1 << 7;
const FRAME: u64 = 0x000f_ffff_ffff_f000;

/// The guest physical address of a linear one; `None` where nothing is mapped (SDM 3A 4.3 to 4.5).
pub(crate) fn physical(ram: &GuestRam, s: &CpuState, linear: u64) -> Option<u64> {
    if s.cr0 & CR0_PG == 0 {
        return Some(linear & 0xffff_ffff);
    }
    let entry = |table: u64, index: u64| ram.read_array(table + index * 8).ok().map(u64::from_le_bytes);
    let (mut table, levels) = match (s.efer & EFER_LMA != 0, s.cr4 & CR4_PAE != 0) {
        (false, false) => return narrow(ram, s, linear),
        (true, _) => (s.cr3 & FRAME, [39, 30, 21, 12].as_slice()),
        (false, true) => (s.pdpte[(linear >> 30 & 3) as usize], [21, 12].as_slice()),
    };
    if levels.len() == 2 && table & PRESENT == 0 {
        return None;
    }
    for shift in levels {
        let value = entry(table & FRAME, linear >> shift & 0x1ff)?;
        if value & PRESENT == 0 {
            return None;
        }
        if *shift == 12 || value & LARGE != 0 {
            let inside = (1u64 << shift) - 1;
            return Some(value & FRAME & !inside | linear & inside);
        }
        table = value;
    }
    None
}

/// 32-bit paging (SDM 3A 4.3).
fn narrow(ram: &GuestRam, s: &CpuState, linear: u64) -> Option<u64> {
    let entry = |table: u64, index: u64| {
        let value = ram.read_array(table + index * 4).ok().map(u32::from_le_bytes).map(u64::from)?;
        (value & PRESENT != 0).then_some(value)
    };
    let directory = entry(s.cr3 & 0xffff_f000, linear >> 22 & 0x3ff)?;
    if directory & LARGE != 0 && s.cr4 & CR4_PSE != 0 {
        return Some(directory & 0xffc0_0000 | (directory >> 13 & 0xff) << 32 | linear & 0x3f_ffff);
    }
    let page = entry(directory & 0xffff_f000, linear >> 12 & 0x3ff)?;
    Some(page & 0xffff_f000 | linear & 0xfff)
}

/// Up to `n` bytes from a linear address on; fewer where mapped RAM ends.
pub(crate) fn read(ram: &GuestRam, s: &CpuState, linear: u64, n: usize) -> Vec<u8> {
    let mut out = Vec::new();
    while out.len() < n {
        let at = linear.wrapping_add(out.len() as u64);
        let Some(physical) = physical(ram, s, at) else { break };
        let room = PAGE_SIZE - (at as usize % PAGE_SIZE);
        let mut piece = vec![0; room.min(n - out.len())];
        if ram.read(physical, &mut piece).is_err() {
            break;
        }
        out.extend(piece);
    }
    out
}

/// The width of the code at CS:RIP.
pub(crate) fn width(s: &CpuState) -> u32 {
    let cs = &s.seg[CS];
    if s.efer & EFER_LMA != 0 && cs.has(attr::L) {
        64
    } else if cs.has(attr::DB) {
        32
    } else {
        16
    }
}

/// The linear address of CS:RIP.
pub(crate) fn code_address(s: &CpuState) -> u64 {
    if width(s) == 64 { s.rip } else { s.seg[CS].base.wrapping_add(s.rip) & 0xffff_ffff }
}

/// The bytes of the instruction at CS:RIP and what follows it; `None` where nothing can be fetched.
pub(crate) fn instruction(ram: &GuestRam, s: &CpuState) -> Option<Vec<u8>> {
    let bytes = read(ram, s, code_address(s), 15);
    (!bytes.is_empty()).then_some(bytes)
}
