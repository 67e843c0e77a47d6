//! What this host's KVM does otherwise than the hardware it stands for, as far as the engine can work around it.
//!
//! Not responsible for: finding it out in full (the passport does), leaks that nothing here can close.

use std::fs;
use std::path::Path;

/// The kernel's module for a KVM in software.
pub(crate) const SOFTWARE_MODULE: &str = "kvm_pvm";

/// Which code KVM runs on the CPU itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Native {
    /// All of it.
    All,
    /// 64-bit code of ring 3 only. The rest goes through the kernel's instruction emulator, slowly and not completely.
    User64,
}

/// How a host's KVM is to be used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Quirks {
    /// What is run by KVM at all; the assistant executes the rest.
    pub native: Native,
    /// KVM leaves at the first boundary at which an interrupt can be taken, and not some time after it.
    pub exact_window: bool,
    /// Guest page tables are shadowed: what others write into them reaches the shadow only when that is thrown away.
    pub shadow_paging: bool,
    /// How many steps the assistant goes on for after the instruction that it was called for: a move of the whole state costs more than
    /// many interpreted instructions. The run is the same whatever this says.
    pub stretch: u64,
    /// The same where KVM is of no use for the time being.
    pub longest_stretch: u64,
}

impl Quirks {
    /// A KVM on VT-x or AMD-V with nested page tables.
    pub const HARDWARE: Self = Self {
        native: Native::All,
        exact_window: true,
        shadow_paging: false,
        stretch: 64,
        longest_stretch: 4096,
    };

    /// A software KVM (PVM): ring 3 runs on the CPU, everything else in an emulator that looks for interrupts now and then.
    pub const SOFTWARE: Self = Self {
        native: Native::User64,
        exact_window: false,
        shadow_paging: true,
        stretch: 256,
        longest_stretch: 4096,
    };

    /// What the loaded modules say of this host.
    pub fn of_host() -> Self {
        let loaded = |module: &str| Path::new("/sys/module").join(module).exists();
        if loaded(SOFTWARE_MODULE) {
            return Self::SOFTWARE;
        }
        let nested_paging = ["kvm_intel/parameters/ept", "kvm_amd/parameters/npt"].iter().any(|parameter| {
            let said = fs::read_to_string(Path::new("/sys/module").join(parameter)).unwrap_or_default();
            matches!(said.trim(), "Y" | "1")
        });
        Self { shadow_paging: !nested_paging, ..Self::HARDWARE }
    }
}
