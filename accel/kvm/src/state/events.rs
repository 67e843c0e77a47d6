//! What waits at a boundary: shadows, NMI blocking, debug traps.
//!
//! Not responsible for: interrupts that KVM was given and has not delivered; the engine sees to it that there are none.

use gemel_x86::{CpuState, Vector};
use kvm_bindings::{
    KVM_VCPUEVENT_VALID_NMI_PENDING, KVM_VCPUEVENT_VALID_SHADOW, KVM_X86_SHADOW_INT_MOV_SS,
    KVM_X86_SHADOW_INT_STI, kvm_vcpu_events,
};

/// KVM's form.
pub(crate) fn of(state: &CpuState) -> kvm_vcpu_events {
    let mut events = kvm_vcpu_events {
        flags: KVM_VCPUEVENT_VALID_NMI_PENDING | KVM_VCPUEVENT_VALID_SHADOW,
        ..Default::default()
    };
    events.interrupt.shadow = match state.shadow {
        0 => 0,
        1 => KVM_X86_SHADOW_INT_STI as u8,
        _ => KVM_X86_SHADOW_INT_MOV_SS as u8,
    };
    events.nmi.masked = state.nmi_blocked.into();
    events
}

/// Ours. AMD-V has one shadow, of which KVM says that it is both; it is taken for the stronger.
pub(crate) fn save(events: &kvm_vcpu_events, state: &mut CpuState) {
    state.shadow = match u32::from(events.interrupt.shadow) {
        0 => 0,
        KVM_X86_SHADOW_INT_STI => 1,
        _ => 3,
    };
    state.nmi_blocked = events.nmi.masked != 0;
    state.pending_debug = 0;
    let exception = &events.exception;
    if exception.pending != 0 && exception.nr == Vector::Debug as u8 && events.exception_has_payload != 0 {
        state.pending_debug = events.exception_payload;
    }
}
