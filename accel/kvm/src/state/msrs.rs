//! The MSRs that the hardware holds.
//!
//! Not responsible for: those that leave the guest, which are in the engine's own state or on the board.

use crate::error::{Asked, KvmError};
use gemel_x86::{CpuState, msr};
use kvm_bindings::{Msrs, kvm_msr_entry};
use kvm_ioctls::VcpuFd;

type Place = fn(&mut CpuState) -> &mut u64;

/// Number and place of each.
const HELD: [(u32, Place); 9] = [
    (msr::STAR, |s| &mut s.star),
    (msr::LSTAR, |s| &mut s.lstar),
    (msr::CSTAR, |s| &mut s.cstar),
    (msr::SFMASK, |s| &mut s.sfmask),
    (msr::KERNEL_GS_BASE, |s| &mut s.kernel_gs_base),
    (msr::SYSENTER_CS, |s| &mut s.sysenter_cs),
    (msr::SYSENTER_ESP, |s| &mut s.sysenter_esp),
    (msr::SYSENTER_EIP, |s| &mut s.sysenter_eip),
    (msr::TSC_AUX, |s| &mut s.tsc_aux),
];

fn entries(state: &CpuState) -> Result<Msrs, KvmError> {
    let mut state = state.clone();
    let list =
        HELD.map(|(index, place)| kvm_msr_entry { index, data: *place(&mut state), ..Default::default() });
    Msrs::from_entries(&list).map_err(|_| KvmError::State("more MSRs than KVM takes at once".into()))
}

/// Whether two states hold the same.
pub(crate) fn same(a: &CpuState, b: &CpuState) -> bool {
    let of = |s: &CpuState| {
        (
            (s.star, s.lstar, s.cstar, s.sfmask, s.kernel_gs_base),
            (s.sysenter_cs, s.sysenter_esp, s.sysenter_eip, s.tsc_aux),
        )
    };
    of(a) == of(b)
}

/// Into KVM.
pub(crate) fn load(vcpu: &VcpuFd, state: &CpuState) -> Result<(), KvmError> {
    match vcpu.set_msrs(&entries(state)?).asked("KVM_SET_MSRS")? {
        n if n == HELD.len() => Ok(()),
        n => Err(KvmError::State(format!("MSR {:#x}", HELD[n].0))),
    }
}

/// Out of KVM.
pub(crate) fn save(vcpu: &VcpuFd, state: &mut CpuState) -> Result<(), KvmError> {
    let mut list = entries(state)?;
    match vcpu.get_msrs(&mut list).asked("KVM_GET_MSRS")? {
        n if n == HELD.len() => {}
        n => return Err(KvmError::State(format!("MSR {:#x}", HELD[n].0))),
    }
    for ((_, place), entry) in HELD.iter().zip(list.as_slice()) {
        *place(state) = entry.data;
    }
    Ok(())
}
