//! What the host says of itself: its CPU, its kernel, KVM's door.
//!
//! Not responsible for: what guests find (the probes).

use super::facts::{Access, Cpu, Virtualization};
use crate::placement::family_and_model;
use gemel_x86::Feature;
use kvm_ioctls::Kvm;
use std::arch::x86_64::{__cpuid, __cpuid_count};
use std::io;
use std::path::Path;

/// The device that KVM is reached by.
pub const DEVICE: &str = "/dev/kvm";
/// The one version of KVM's interface, since Linux 2.6.22.
const API: i32 = 12;

/// What CPUID tells.
pub fn cpu() -> Cpu {
    let [_, b, c, d] = leaf(0, 0);
    let [signature, _, features, _] = leaf(1, 0);
    let (family, model) = family_and_model(signature);
    let brand: Vec<_> = (0x8000_0002..=0x8000_0004).flat_map(|n| leaf(n, 0)).collect();
    let svm = leaf(0x8000_0001, 0)[2] & 1 << 2 != 0;
    let offered = Feature::all().iter_names().filter(|(_, feature)| is_there(*feature));
    Cpu {
        vendor: text(&[b, d, c]),
        name: text(&brand),
        signature: [family, model, signature & 0xf],
        features: offered.map(|(name, _)| name.to_ascii_lowercase()).collect(),
        virtualization: match features & 1 << 5 != 0 {
            true => Virtualization::VtX,
            false if svm => Virtualization::AmdV,
            false => Virtualization::None,
        },
        hypervisor: (features & 1 << 31 != 0).then(|| {
            let [_, b, c, d] = leaf(0x4000_0000, 0);
            text(&[b, c, d])
        }),
    }
}

fn leaf(leaf: u32, subleaf: u32) -> [u32; 4] {
    if leaf & 0x4000_0000 == 0 && __cpuid(leaf & 0x8000_0000).eax < leaf {
        return [0; 4];
    }
    let found = __cpuid_count(leaf, subleaf);
    [found.eax, found.ebx, found.ecx, found.edx]
}

fn text(words: &[u32]) -> String {
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).filter(|byte| *byte != 0).collect();
    String::from_utf8_lossy(&bytes).trim().to_owned()
}

/// Whether the CPU has what a model can offer (SDM 2A CPUID, APM 3 appendix E).
fn is_there(feature: Feature) -> bool {
    use Feature as F;
    let (number, register, bit) = match feature {
        F::SSE3 => (1, 2, 0),
        F::PCLMULQDQ => (1, 2, 1),
        F::SSSE3 => (1, 2, 9),
        F::FMA => (1, 2, 12),
        F::CX16 => (1, 2, 13),
        F::PCID => (1, 2, 17),
        F::SSE4_1 => (1, 2, 19),
        F::SSE4_2 => (1, 2, 20),
        F::X2APIC => (1, 2, 21),
        F::MOVBE => (1, 2, 22),
        F::POPCNT => (1, 2, 23),
        F::TSC_DEADLINE => (1, 2, 24),
        F::AES => (1, 2, 25),
        F::XSAVE => (1, 2, 26),
        F::AVX => (1, 2, 28),
        F::F16C => (1, 2, 29),
        F::RDRAND => (1, 2, 30),
        F::TSC => (1, 3, 4),
        F::FSGSBASE => (7, 1, 0),
        F::TSC_ADJUST => (7, 1, 1),
        F::BMI1 => (7, 1, 3),
        F::AVX2 => (7, 1, 5),
        F::SMEP => (7, 1, 7),
        F::BMI2 => (7, 1, 8),
        F::ERMS => (7, 1, 9),
        F::AVX512F => (7, 1, 16),
        F::AVX512DQ => (7, 1, 17),
        F::RDSEED => (7, 1, 18),
        F::SMAP => (7, 1, 20),
        F::AVX512CD => (7, 1, 28),
        F::SHA => (7, 1, 29),
        F::AVX512BW => (7, 1, 30),
        F::AVX512VL => (7, 1, 31),
        F::UMIP => (7, 2, 2),
        F::VAES => (7, 2, 9),
        F::VPCLMULQDQ => (7, 2, 10),
        F::LZCNT => (0x8000_0001, 2, 5),
        F::PAGE_1G => (0x8000_0001, 3, 26),
        F::RDTSCP => (0x8000_0001, 3, 27),
        F::LONG_MODE => (0x8000_0001, 3, 29),
        _ => return false,
    };
    leaf(number, 0)[register] & 1 << bit != 0
}

/// Release of the running kernel.
pub fn kernel() -> String {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    release.trim().to_owned()
}

/// The loaded modules that KVM consists of; none where it is built in.
fn modules() -> Vec<String> {
    let names = std::fs::read_dir("/sys/module").into_iter().flatten().flatten();
    let names = names.map(|entry| entry.file_name().to_string_lossy().into_owned());
    let mut modules: Vec<_> = names.filter(|name| name == "kvm" || name.starts_with("kvm_")).collect();
    modules.sort();
    modules
}

/// A switch of a module of KVM.
pub fn module_says_yes(module: &str, parameter: &str) -> bool {
    let path = format!("/sys/module/{module}/parameters/{parameter}");
    std::fs::read_to_string(path).is_ok_and(|value| matches!(value.trim(), "Y" | "1"))
}

/// Opens KVM, or says why not.
///
/// # Errors
/// What stands in the way, and what to do about it.
pub fn open(device: &Path) -> Result<(Kvm, Access), Access> {
    let shown = device.display();
    let path = std::ffi::CString::new(device.as_os_str().as_encoded_bytes()).unwrap_or_default();
    let kvm = Kvm::new_with_path(&path).map_err(|e| {
        let e = io::Error::from_raw_os_error(e.errno());
        match e.kind() {
            io::ErrorKind::PermissionDenied => Access::Denied {
                why: format!("{shown} cannot be opened: {e}; let this user into the group that owns it (often kvm)"),
            },
            _ => Access::Absent {
                why: format!(
                    "{shown} cannot be opened: {e}; turn virtualisation on in the firmware and load kvm_intel or kvm_amd"
                ),
            },
        }
    })?;
    match kvm.get_api_version() {
        API => Ok((kvm, Access::Usable { api: API, modules: modules() })),
        // What the system call gives for a device that knows no such request.
        ..0 => {
            Err(Access::Broken { why: format!("{shown} is no KVM: it does not say which version it speaks") })
        }
        other => Err(Access::Broken { why: format!("{shown} speaks version {other}, not {API}") }),
    }
}
