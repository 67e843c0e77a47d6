//! Which PMU event counts retired conditional branches, CPU by CPU, and how late its interrupt can be.
//!
//! Not responsible for: opening it (`perf`).
//!
//! Events and margins are those that rr found by years of use (rr, `src/PerfCounters.cc`); only models that it lists are taken, because
//! an event that is nearly exact is of no use. Loops in the guest are measured again by `gemel check`.

use std::arch::x86_64::{__cpuid, __cpuid_count};

/// A PMU event that counts retired conditional branches and nothing else.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BranchEvent {
    /// The value for `perf_event_attr::config`, type raw: umask and event number. The byte above them (USR, INT, EN) is how the
    /// manuals print it; the kernel puts its own there.
    pub config: u64,
    /// How many counts early to ask for the interrupt.
    pub margin: u64,
    /// AMD Zen: the interrupt is rarely later than the margin, but nothing bounds it (rr calls it `PMU_SKID_UNBOUNDED`; rr issue 2720
    /// has some beyond 50,000 branches), and locked instructions can be counted twice, see [`crate::placement::PerfCounter::overcounts`].
    pub zen: bool,
}

/// Why the CPU's branches cannot be counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Unsuitable {
    /// Performance cores and efficient cores count different events, and a thread may be moved from one to the other.
    #[error("this CPU has cores of two kinds, which count different events")]
    Hybrid,
    /// Not in the list.
    #[error(
        "no exact count of conditional branches is known for CPU {vendor} family {family:#x} model {model:#x}"
    )]
    Unknown {
        /// `GenuineIntel`, `AuthenticAMD`, or what else CPUID says.
        vendor: Vendor,
        /// Family, the extended part added.
        family: u32,
        /// Model, the extended part in front.
        model: u32,
    },
}

/// CPUID's name of the vendor.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Vendor(pub [u8; 12]);

impl std::fmt::Display for Vendor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.escape_ascii().fmt(f)
    }
}

impl std::fmt::Debug for Vendor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{self}")
    }
}

impl BranchEvent {
    /// The event of the CPU under us.
    ///
    /// # Errors
    /// Why there is none.
    pub fn of_this_cpu() -> Result<Self, Unsuitable> {
        let leaf0 = __cpuid(0);
        let mut vendor = [0; 12];
        for (part, register) in vendor.chunks_exact_mut(4).zip([leaf0.ebx, leaf0.edx, leaf0.ecx]) {
            part.copy_from_slice(&register.to_le_bytes());
        }
        // SDM 2A CPUID, leaf 7 EDX bit 15.
        if leaf0.eax >= 7 && __cpuid_count(7, 0).edx & 1 << 15 != 0 {
            return Err(Unsuitable::Hybrid);
        }
        let (family, model) = family_and_model(__cpuid(1).eax);
        Self::of(Vendor(vendor), family, model)
    }

    /// The event of a CPU by name.
    ///
    /// # Errors
    /// [`Unsuitable::Unknown`].
    pub fn of(vendor: Vendor, family: u32, model: u32) -> Result<Self, Unsuitable> {
        match (&vendor.0, family, model) {
            // BR_INST_RETIRED.CONDITIONAL: Nehalem and Westmere, Sandy and Ivy Bridge, Haswell, Broadwell, Skylake, Kaby Lake, Comet Lake.
            (
                b"GenuineIntel",
                6,
                0x1a | 0x1e | 0x2e | 0x25 | 0x2c | 0x2a | 0x2d | 0x3a | 0x3e | 0x3c | 0x3f | 0x45 | 0x46
                | 0x3d | 0x47 | 0x4f | 0x56 | 0x4e | 0x55 | 0x5e | 0x8e | 0x9e | 0xa5 | 0xa6,
            ) => Ok(Self { config: 0x5101c4, margin: 100, zen: false }),
            // BR_INST_RETIRED.COND has another umask from Ice Lake on: Ice Lake, Tiger Lake, Rocket Lake.
            (b"GenuineIntel", 6, 0x6a | 0x7e | 0x8c | 0x8d | 0xa7) => {
                Ok(Self { config: 0x5111c4, margin: 100, zen: false })
            }
            // Sapphire Rapids, Emerald Rapids.
            (b"GenuineIntel", 6, 0x8f | 0xcf) => Ok(Self { config: 0x5111c4, margin: 125, zen: false }),
            // PMCx0D1 ExRetCond, Zen to Zen 5.
            (b"AuthenticAMD", 0x17 | 0x19 | 0x1a, _) => {
                Ok(Self { config: 0x5100d1, margin: 10_000, zen: true })
            }
            _ => Err(Unsuitable::Unknown { vendor, family, model }),
        }
    }
}

/// SDM 2A CPUID, "Version Information": leaf 1 EAX.
pub(crate) fn family_and_model(eax: u32) -> (u32, u32) {
    let base = eax >> 8 & 15;
    let family = if base == 15 { base + (eax >> 20 & 0xff) } else { base };
    let model = eax >> 4 & 15 | if matches!(base, 6 | 15) { eax >> 12 & 0xf0 } else { 0 };
    (family, model)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signatures_from_the_vendors_lists_get_their_event() {
        for (signature, vendor, config) in [
            (0x0005_0654, b"GenuineIntel", 0x5101c4), // Skylake server
            (0x000a_0655, b"GenuineIntel", 0x5101c4), // Comet Lake
            (0x0006_06a6, b"GenuineIntel", 0x5111c4), // Ice Lake server
            (0x0008_06f8, b"GenuineIntel", 0x5111c4), // Sapphire Rapids
            (0x0080_0f12, b"AuthenticAMD", 0x5100d1), // Zen
            (0x0083_0f10, b"AuthenticAMD", 0x5100d1), // Zen 2, Rome
            (0x00a1_0f11, b"AuthenticAMD", 0x5100d1), // Zen 4, Genoa
        ] {
            let (family, model) = family_and_model(signature);
            assert_eq!(
                BranchEvent::of(Vendor(*vendor), family, model).map(|e| e.config),
                Ok(config),
                "{signature:#x}"
            );
        }
    }

    #[test]
    fn what_is_not_known_to_be_exact_is_refused() {
        // Family 15h has no event for conditional branches alone; Atom counts others.
        for (signature, vendor) in [(0x0063_0f01, b"AuthenticAMD"), (0x0003_0673, b"GenuineIntel")] {
            let (family, model) = family_and_model(signature);
            let refused = BranchEvent::of(Vendor(*vendor), family, model);
            assert_eq!(refused, Err(Unsuitable::Unknown { vendor: Vendor(*vendor), family, model }));
        }
    }
}
