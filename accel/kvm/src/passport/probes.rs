//! The bench that every probe works at: KVM, a time limit, sandboxes.
//!
//! Not responsible for: any one probe.

use super::guests::Program;
use super::sandbox::{Left, Probe, Sandbox, refused};
use super::stage::Mode;
use super::watchdog::Watchdog;
use kvm_bindings::{CpuId, KVM_MAX_CPUID_ENTRIES};
use kvm_ioctls::Kvm;
use std::time::{Duration, Instant};

/// The whole check ends within about this time: probes that did not begin by then are left out, and say so.
const BUDGET: Duration = Duration::from_secs(5);

/// What CPUID leaf 0x8000_0002 gives in a sandbox, and on no host: its brand string starts with it.
pub const MARK: u32 = u32::from_le_bytes(*b"GML0");
/// Leaf 1 ECX: RDRAND.
const RDRAND: u32 = 1 << 30;
/// Leaf 1 EDX: the time-stamp counter.
const TSC: u32 = 1 << 4;
/// Leaf 7 EBX: BMI1, RDSEED.
const BMI1_RDSEED: u32 = 1 << 3 | 1 << 18;
/// Leaf 0x8000_0001 ECX: LZCNT.
const LZCNT: u32 = 1 << 5;

/// Where probes are made.
pub struct Bench {
    /// KVM.
    pub kvm: Kvm,
    watchdog: Watchdog,
    cpuid: CpuId,
    started: Instant,
}

impl Bench {
    /// A bench in this thread.
    ///
    /// # Errors
    /// What the host refused.
    pub fn new(kvm: Kvm) -> Probe<Self> {
        let watchdog = Watchdog::start().map_err(|e| format!("no timer: {e}"))?;
        let mut cpuid = kvm.get_supported_cpuid(KVM_MAX_CPUID_ENTRIES).map_err(refused("no CPUID"))?;
        for entry in cpuid.as_mut_slice() {
            match entry.function {
                1 => entry.ecx &= !RDRAND,
                7 if entry.index == 0 => entry.ebx &= !BMI1_RDSEED,
                0x8000_0001 => entry.ecx &= !LZCNT,
                0x8000_0002 => entry.eax = MARK,
                _ => {}
            }
        }
        Ok(Self { kvm, watchdog, cpuid, started: Instant::now() })
    }

    /// Whether a probe may still begin.
    ///
    /// # Errors
    /// Why not.
    pub fn time_left(&self) -> Probe<()> {
        if self.started.elapsed() < BUDGET { Ok(()) } else { Err("no time was left".into()) }
    }

    /// A sandbox whose CPUID offers what KVM supports, but for RDRAND, RDSEED, BMI1 and LZCNT.
    ///
    /// # Errors
    /// What KVM refused, or that no time is left.
    pub fn sandbox(&self) -> Probe<Sandbox<'_>> {
        self.time_left()?;
        Sandbox::new(&self.kvm, &self.watchdog, &self.cpuid)
    }

    /// The same, without a time-stamp counter in CPUID.
    ///
    /// # Errors
    /// As [`Self::sandbox`].
    pub fn sandbox_without_tsc(&self) -> Probe<Sandbox<'_>> {
        self.time_left()?;
        let mut cpuid = self.cpuid.clone();
        cpuid
            .as_mut_slice()
            .iter_mut()
            .filter(|entry| entry.function == 1)
            .for_each(|entry| entry.edx &= !TSC);
        Sandbox::new(&self.kvm, &self.watchdog, &cpuid)
    }

    /// A sandbox after a program has run in it with these values in RAX and RCX, and how it left.
    ///
    /// # Errors
    /// As [`Self::sandbox`].
    pub fn after(&self, mode: Mode, program: Program, rax: u64, rcx: u64) -> Probe<(Sandbox<'_>, Left)> {
        let mut sandbox = self.sandbox()?;
        sandbox.load(mode, program, |regs, _| (regs.rax, regs.rcx) = (rax, rcx))?;
        let left = sandbox.run()?;
        Ok((sandbox, left))
    }
}

/// For a program that left in a way that tells nothing about what was asked.
pub fn unexpected<T>(left: Left) -> Probe<T> {
    Err(match left {
        Left::HandedOut => "KVM does not execute the program".into(),
        Left::Shutdown => "KVM shuts the guest down".into(),
        Left::TooLong => "it did not end in time".into(),
        Left::Trapped(vector) => format!("it ended in exception {vector}"),
        left => format!("it left by {left:?}"),
    })
}
