//! General registers, RIP and RFLAGS.
//!
//! Not responsible for: everything else.

use gemel_x86::CpuState;
use kvm_bindings::kvm_regs;

/// KVM's form.
pub(crate) fn of(state: &CpuState) -> kvm_regs {
    let [rax, rcx, rdx, rbx, rsp, rbp, rsi, rdi, r8, r9, r10, r11, r12, r13, r14, r15] = state.gpr;
    let (rip, rflags) = (state.rip, state.rflags);
    kvm_regs { rax, rbx, rcx, rdx, rsi, rdi, rsp, rbp, r8, r9, r10, r11, r12, r13, r14, r15, rip, rflags }
}

/// Ours.
pub(crate) fn save(regs: &kvm_regs, state: &mut CpuState) {
    let r = regs;
    state.gpr = [
        r.rax, r.rcx, r.rdx, r.rbx, r.rsp, r.rbp, r.rsi, r.rdi, r.r8, r.r9, r.r10, r.r11, r.r12, r.r13,
        r.r14, r.r15,
    ];
    (state.rip, state.rflags) = (r.rip, r.rflags);
}
