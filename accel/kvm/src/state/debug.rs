//! Debug registers.
//!
//! Not responsible for: the engine's own breakpoints, which KVM keeps apart.

use gemel_x86::CpuState;
use kvm_bindings::kvm_debugregs;

/// KVM's form.
pub(crate) fn of(state: &CpuState) -> kvm_debugregs {
    kvm_debugregs { db: state.dr, dr6: state.dr6, dr7: state.dr7, ..Default::default() }
}

/// Ours.
pub(crate) fn save(regs: &kvm_debugregs, state: &mut CpuState) {
    (state.dr, state.dr6, state.dr7) = (regs.db, regs.dr6, regs.dr7);
}
