//! Ring 3 in KVM, and all ways into ring 0 closed: for a KVM that runs only ring 3 on the CPU and does not do the rest exactly.
//!
//! Not responsible for: what happens in ring 0 (the assistant executes it).
//!
//! The vCPU is given an interrupt table without entries and no system call. Whatever would enter ring 0 then ends in a triple fault, at
//! which KVM leaves the guest with the registers as they were before the instruction; the assistant, with the guest's own tables,
//! executes it again and goes where it leads. Interrupts are never KVM's to deliver here.

use crate::before::View;
use gemel_x86::CpuState;
use gemel_x86::control::{DR6_BS, EFER_SCE};
use gemel_x86::flags::TF;
use kvm_bindings::{kvm_regs, kvm_sregs};

/// Where SYSCALL goes in a KVM that does not heed EFER.SCE: no ring 3 can fetch there.
const NO_ENTRY: u64 = 0xffff_8000_6e6f_6e65;
const SYSCALL: [u8; 2] = [0x0f, 0x05];

/// Changes what KVM is given. The guest's own values stay with the engine.
pub(crate) fn close_ring_0(sregs: &mut kvm_sregs, msrs: &mut CpuState) {
    sregs.idt.limit = 0;
    sregs.efer &= !EFER_SCE;
    msrs.lstar = NO_ENTRY;
    msrs.cstar = NO_ENTRY;
}

/// The boundary from which the assistant goes on into ring 0.
pub(crate) struct Entrance {
    pub regs: kvm_regs,
    /// Debug traps (DR6 bits) of the last instruction.
    pub pending_debug: u64,
}

/// Where ring 3 was before it raised an exception that KVM could not deliver. Faults leave the registers as they were; what comes after an
/// instruction is taken back, or waits for the assistant.
pub(crate) fn exception(view: &View<'_>, vector: u8) -> Entrance {
    let regs = *view.regs;
    let (mut rip, mut rflags, mut pending_debug) = (regs.rip, regs.rflags, 0);
    match vector {
        // Other than by a step, #DB comes from ICEBP, which has not gone on.
        1 if rflags & TF != 0 => pending_debug = DR6_BS,
        3 => rip = rip.wrapping_sub(1),
        // A SYSCALL that KVM made in spite of EFER: the registers that it changed, it changes in the same way again.
        _ if is_past_syscall(view) => (rip, rflags) = (regs.rcx.wrapping_sub(SYSCALL.len() as u64), regs.r11),
        _ => {}
    }
    Entrance { regs: kvm_regs { rip, rflags, ..regs }, pending_debug }
}

/// Whether the guest is where a SYSCALL led that KVM made. A kick can find it there, before the fetch that faults.
pub(crate) fn is_past_syscall(view: &View<'_>) -> bool {
    if view.regs.rip != NO_ENTRY {
        return false;
    }
    let mut bytes = [0; SYSCALL.len()];
    let at = view.regs.rcx.wrapping_sub(SYSCALL.len() as u64);
    view.read(at, &mut bytes) == bytes.len() && bytes == SYSCALL
}
