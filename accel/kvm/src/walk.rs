//! Where a linear address lies: a walk of the guest's page tables that changes nothing.
//!
//! Not responsible for: permissions, accessed and dirty bits. It is for addresses that the guest has just used.

use gemel_machine::GuestRam;
use gemel_x86::control::{CR0_PG, CR4_PAE, CR4_PSE, EFER_LMA};
use kvm_bindings::kvm_sregs;

const PRESENT: u64 = 1;
const LARGE: u64 = 1 << 7;
/// The address bits of an entry of eight bytes.
const FRAME: u64 = 0x000f_ffff_ffff_f000;

/// The guest physical address behind a linear one, or `None` where nothing is mapped.
pub(crate) fn physical(ram: &GuestRam, sregs: &kvm_sregs, linear: u64) -> Option<u64> {
    if sregs.cr0 & CR0_PG == 0 {
        return Some(linear & 0xffff_ffff);
    }
    if sregs.cr4 & CR4_PAE == 0 {
        return two_levels(ram, sregs, linear as u32);
    }
    let long = sregs.efer & EFER_LMA != 0;
    let (mut table, top) = if long { (sregs.cr3 & FRAME, 3) } else { (sregs.cr3 & 0xffff_ffe0, 2) };
    let linear = if long { linear } else { linear & 0xffff_ffff };
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

fn two_levels(ram: &GuestRam, sregs: &kvm_sregs, linear: u32) -> Option<u64> {
    let entry = |table: u64, index: u32| -> Option<u64> {
        let entry = u32::from_le_bytes(ram.read_array(table + 4 * u64::from(index)).ok()?);
        (u64::from(entry) & PRESENT != 0).then_some(entry.into())
    };
    let directory = entry(sregs.cr3 & 0xffff_f000, linear >> 22)?;
    if directory & LARGE != 0 && sregs.cr4 & CR4_PSE != 0 {
        // Bits 39:32 of a 4 MiB page's address are in bits 20:13 (SDM 3A table 4-4).
        return Some(
            directory & 0xffc0_0000 | (directory >> 13 & 0xff) << 32 | u64::from(linear) & 0x3f_ffff,
        );
    }
    let page = entry(directory & 0xffff_f000, linear >> 12 & 0x3ff)?;
    Some(page & 0xffff_f000 | u64::from(linear) & 0xfff)
}

/// Copies bytes at a linear address out, as far as they are mapped to RAM. Returns how many.
pub(crate) fn read(ram: &GuestRam, sregs: &kvm_sregs, linear: u64, out: &mut [u8]) -> usize {
    let mut done = 0;
    while done < out.len() {
        let at = linear.wrapping_add(done as u64);
        let n = (0x1000 - (at as usize & 0xfff)).min(out.len() - done);
        let copied = physical(ram, sregs, at).is_some_and(|a| ram.read(a, &mut out[done..done + n]).is_ok());
        if !copied {
            break;
        }
        done += n;
    }
    done
}
