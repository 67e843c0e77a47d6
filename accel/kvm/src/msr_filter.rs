//! Which MSRs the hardware holds: those that code switches often, and that do the same in every engine. All others leave the guest.
//!
//! Not responsible for: what the others do (the assistant and the board).

use crate::error::{Asked, KvmError};
use gemel_x86::msr;
use kvm_bindings::{KVM_CAP_X86_USER_SPACE_MSR, kvm_enable_cap};
use kvm_ioctls::{MsrExitReason, MsrFilterDefaultAction, MsrFilterRange, MsrFilterRangeFlags, VmFd};

/// The first register of a range and a bit for each that the hardware holds.
const HELD: [(u32, u8); 3] = [
    // SYSENTER_CS, SYSENTER_ESP, SYSENTER_EIP.
    (msr::SYSENTER_CS, 0b111),
    // STAR, LSTAR, CSTAR, SFMASK.
    (msr::STAR, 0b1111),
    // FS_BASE, GS_BASE, KERNEL_GS_BASE.
    (msr::FS_BASE, 0b111),
];

/// Sends every access to other registers to user space.
pub(crate) fn install(vm: &VmFd) -> Result<(), KvmError> {
    let reasons = MsrExitReason::Inval | MsrExitReason::Unknown | MsrExitReason::Filter;
    let request = kvm_enable_cap {
        cap: KVM_CAP_X86_USER_SPACE_MSR,
        args: [reasons.bits().into(), 0, 0, 0],
        ..Default::default()
    };
    vm.enable_cap(&request).asked("KVM_CAP_X86_USER_SPACE_MSR")?;
    let ranges = HELD.each_ref().map(|(base, bits)| MsrFilterRange {
        flags: MsrFilterRangeFlags::READ | MsrFilterRangeFlags::WRITE,
        base: *base,
        msr_count: 8 - bits.leading_zeros(),
        bitmap: std::slice::from_ref(bits),
    });
    vm.set_msr_filter(MsrFilterDefaultAction::DENY, &ranges).asked("KVM_X86_SET_MSR_FILTER")
}
