#![allow(unsafe_code)] // requests to KVM that kvm-ioctls does not have
//! The few requests that kvm-ioctls lacks.
//!
//! Not responsible for: when they are made.

use crate::error::{Asked, KvmError};
use kvm_bindings::{KVMIO, kvm_interrupt, kvm_sregs2, kvm_xsave};
use kvm_ioctls::VcpuFd;
use vmm_sys_util::ioctl::{ioctl_with_mut_ref, ioctl_with_ref};
use vmm_sys_util::{ioctl_ior_nr, ioctl_iow_nr};

ioctl_iow_nr!(KVM_INTERRUPT, KVMIO, 0x86, kvm_interrupt);
ioctl_ior_nr!(KVM_GET_SREGS2, KVMIO, 0xcc, kvm_sregs2);

fn done(result: i32) -> Result<(), kvm_ioctls::Error> {
    if result == 0 { Ok(()) } else { Err(kvm_ioctls::Error::last()) }
}

/// Queues an external interrupt; the next entry delivers it.
pub(crate) fn interrupt(vcpu: &VcpuFd, vector: u8) -> Result<(), KvmError> {
    let request = kvm_interrupt { irq: vector.into() };
    // SAFETY: a vCPU's descriptor, and the request reads one `kvm_interrupt`.
    done(unsafe { ioctl_with_ref(vcpu, KVM_INTERRUPT(), &request) }).asked("KVM_INTERRUPT")
}

/// The page-directory-pointer registers of PAE paging.
pub(crate) fn pdptes(vcpu: &VcpuFd) -> Result<[u64; 4], KvmError> {
    let mut sregs = kvm_sregs2::default();
    // SAFETY: a vCPU's descriptor, and the request writes one `kvm_sregs2`.
    done(unsafe { ioctl_with_mut_ref(vcpu, KVM_GET_SREGS2(), &mut sregs) }).asked("KVM_GET_SREGS2")?;
    Ok(sregs.pdptrs)
}

/// Loads the x87, SSE and AVX state.
pub(crate) fn set_xsave(vcpu: &VcpuFd, area: &kvm_xsave) -> Result<(), KvmError> {
    // SAFETY: `kvm_xsave` has the 4096 bytes that the request reads: components beyond need a permission that is never asked for.
    unsafe { vcpu.set_xsave(area) }.asked("KVM_SET_XSAVE")
}
