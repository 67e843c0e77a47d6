//! The code at CS:RIP, and memory by linear address as a list of bytes.
//!
//! Not responsible for: translation ([`Paging`]).

use gemel_machine::{GuestRam, Paging};
use gemel_x86::CpuState;
use gemel_x86::control::EFER_LMA;
use gemel_x86::segment::{CS, attr};

/// Up to `n` bytes from a linear address on; fewer where mapped RAM ends.
pub(crate) fn read(ram: &GuestRam, s: &CpuState, linear: u64, n: usize) -> Vec<u8> {
    let mut out = vec![0; n];
    let there = Paging::of(s).read(ram, linear, &mut out);
    out.truncate(there);
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

/// The bytes of the instruction at CS:RIP and what follows it; `None` where nothing can be fetched.
pub(crate) fn instruction(ram: &GuestRam, s: &CpuState) -> Option<Vec<u8>> {
    let bytes = read(ram, s, s.linear_rip(), 15);
    (!bytes.is_empty()).then_some(bytes)
}
