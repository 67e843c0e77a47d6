//! The model's CPUID table in KVM's form. None of KVM's own leaves: no paravirtual clock, no steal time.
//!
//! Not responsible for: what a model offers (`gemel_x86::cpuid`); the bits that follow the state (OSXSAVE, APIC), which KVM keeps itself.

use crate::error::{Asked, KvmError};
use gemel_x86::{CpuModel, CpuState};
use kvm_bindings::{CpuId, KVM_CPUID_FLAG_SIGNIFCANT_INDEX, kvm_cpuid_entry2};
use kvm_ioctls::VcpuFd;

/// Leaves whose answer depends on ECX, and up to which index.
const INDEXED: [(u32, u32); 2] = [(7, 0), (0xd, 7)];

fn entries(model: &CpuModel) -> Vec<kvm_cpuid_entry2> {
    let state = CpuState::default();
    let mut out = Vec::new();
    let mut add = |function, index, flags| {
        let [eax, ebx, ecx, edx] = model.cpuid(function, index, &state, true);
        out.push(kvm_cpuid_entry2 { function, index, flags, eax, ebx, ecx, edx, ..Default::default() });
    };
    for range in [0, 0x8000_0000] {
        let last = model.cpuid(range, 0, &state, true)[0];
        for leaf in range..=last {
            match INDEXED.iter().find(|(indexed, _)| *indexed == leaf) {
                Some((_, last)) => {
                    (0..=*last).for_each(|index| add(leaf, index, KVM_CPUID_FLAG_SIGNIFCANT_INDEX))
                }
                None => add(leaf, 0, 0),
            }
        }
    }
    out
}

/// Makes a vCPU this model.
pub(crate) fn set(vcpu: &VcpuFd, model: &CpuModel) -> Result<(), KvmError> {
    let table = CpuId::from_entries(&entries(model))
        .map_err(|_| KvmError::State("a CPU model with more CPUID leaves than KVM takes".into()))?;
    vcpu.set_cpuid2(&table).asked("KVM_SET_CPUID2")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_says_what_the_model_says() {
        for model in [CpuModel::x86_64_v2(), CpuModel::x86_64_v3(), CpuModel::x86_64_v4()] {
            for entry in entries(&model) {
                let words = model.cpuid(entry.function, entry.index, &CpuState::default(), true);
                assert_eq!([entry.eax, entry.ebx, entry.ecx, entry.edx], words, "{entry:?}");
                assert!(!(0x4000_0000..0x4000_0100).contains(&entry.function));
            }
        }
    }
}
