//! What a passport says, as data: serialised as JSON, compared, shown.
//!
//! Not responsible for: finding any of it out (the probes), judging it (`rules`, `compare`).

use super::stage::Mode;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Version of the passport: rises with any change after which an older reader would read something else.
pub const VERSION: u32 = 1;

/// What one host can do for a guest.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Passport {
    /// [`VERSION`].
    pub version: u32,
    /// The CPU.
    pub cpu: Cpu,
    /// Release of the host's kernel.
    pub kernel: String,
    /// KVM.
    pub kvm: Access,
    /// What guests of the probes saw; nothing where KVM cannot be used.
    pub findings: Option<Findings>,
}

/// The host's CPU as its CPUID tells it.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Cpu {
    /// Twelve letters of leaf 0.
    pub vendor: String,
    /// Brand string.
    pub name: String,
    /// Family, model, stepping.
    pub signature: [u32; 3],
    /// Features that a CPU model can offer and this CPU has, as `--cpu` names them.
    pub features: Vec<String>,
    /// What it has for hypervisors.
    pub virtualization: Virtualization,
    /// Name in the hypervisor's leaf, where the host is a guest itself. Then KVM here is nested, or software.
    pub hypervisor: Option<String>,
}

/// A CPU's support for hypervisors.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Virtualization {
    /// Intel VT-x.
    #[serde(rename = "VT-x")]
    VtX,
    /// AMD-V.
    #[serde(rename = "AMD-V")]
    AmdV,
    /// None: a KVM here runs guests in software, at least their kernels.
    #[serde(rename = "none")]
    None,
}

/// Whether KVM is there, and for us.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum Access {
    /// It is.
    Usable {
        /// KVM_GET_API_VERSION.
        api: i32,
        /// Modules of the kernel that it consists of.
        modules: Vec<String>,
    },
    /// There is no /dev/kvm.
    Absent {
        /// What the host said, and what to do.
        why: String,
    },
    /// It is there, and this user may not open it.
    Denied {
        /// What the host said, and what to do.
        why: String,
    },
    /// It opens, but no VM comes of it.
    Broken {
        /// What the host said.
        why: String,
    },
}

/// One finding, or why there is none.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Measured<T> {
    /// The finding.
    Found(T),
    /// Why there is none.
    Unknown(String),
}

impl<T> Measured<T> {
    /// The finding, where there is one.
    pub fn found(&self) -> Option<&T> {
        match self {
            Self::Found(found) => Some(found),
            Self::Unknown(_) => None,
        }
    }
}

impl<T> From<Result<T, String>> for Measured<T> {
    fn from(result: Result<T, String>) -> Self {
        result.map_or_else(Self::Unknown, Self::Found)
    }
}

/// What the probes' guests saw.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Findings {
    /// By mode: how instructions run, and where the guest can be stopped.
    pub modes: BTreeMap<Mode, ModeFindings>,
    /// SYSCALL from ring 3.
    pub syscall: Measured<Execution>,
    /// INT n from ring 3.
    pub int_n: Measured<Execution>,
    /// The time-stamp counter.
    pub tsc: TscFindings,
    /// Page tables of guest and host.
    pub tables: TableFindings,
    /// Whether the dirty log names the written pages and no others.
    pub dirty_log: Measured<DirtyLog>,
    /// The counter of conditional branches in guest mode, for events between two exits.
    pub counter: Measured<CounterFindings>,
    /// Nanoseconds for each kind of exit to user space and back, by mode.
    pub exits: BTreeMap<Mode, BTreeMap<String, Measured<u64>>>,
}

/// One mode.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct ModeFindings {
    /// Millions of instructions a second in a loop of two.
    pub rate: Measured<f64>,
    /// KVM_GUESTDBG_SINGLESTEP.
    pub single_step: Measured<Stopped>,
    /// A hardware breakpoint on an instruction.
    pub breakpoint: Measured<Stopped>,
    /// The exit when an interrupt can be taken.
    pub window: Measured<Stopped>,
    /// By instruction: those whose result is not the guest's state alone.
    pub instructions: BTreeMap<String, Measured<Treatment>>,
    /// By unit, arithmetic: `sse`, `x87`.
    pub arithmetic: BTreeMap<String, Measured<Execution>>,
}

/// Slower than this, in millions of instructions a second, is no CPU but a program: emulators make a few, CPUs make thousands.
pub const NATIVE: f64 = 100.0;

impl ModeFindings {
    /// Whether the CPU itself executes; `false` also where nothing could be measured.
    pub fn is_native(&self) -> bool {
        self.rate.found().is_some_and(|rate| *rate >= NATIVE)
    }
}

/// Where a stop that was asked for came.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stopped {
    /// At the instruction where it should.
    Exactly,
    /// Later, but it came.
    Late,
    /// Not before the program's end.
    Never,
}

/// What happens to an instruction whose result is not the guest's state alone.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Treatment {
    /// User space gets it and says what it gives.
    Intercepted,
    /// It gives what user space set beforehand, or always the same.
    Masked,
    /// It raises this exception.
    Faults(u8),
    /// It gives what the host has.
    Leaks,
}

/// Whether an instruction does what the manuals say.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Execution {
    /// It does.
    Right,
    /// It does something else.
    Wrong,
    /// KVM cannot execute it and hands it to user space.
    HandedOut,
    /// It raises this exception, and should not.
    Faults(u8),
}

/// What rules the time-stamp counter here.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct TscFindings {
    /// Whether a value set by user space is where the guest's counter goes on, at ring 0.
    pub offset: Measured<bool>,
    /// Whether CR4.TSD makes RDTSC fault at ring 3.
    pub user_disable: Measured<bool>,
    /// Whether RDTSC faults at ring 0 where CPUID does not offer it.
    pub absent_faults: Measured<bool>,
    /// The slowest rate that the counter was seen to run at when asked for it, in kHz.
    pub slowest_khz: Measured<u32>,
}

/// Who keeps the guest's page tables, and what shows of it.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct TableFindings {
    /// `ept`, `npt`, or `shadow`; `software` where the CPU has none of it.
    pub kind: String,
    /// Accessed and dirty bits after one load: whether exactly those that the interpreter sets; by mode.
    pub bits_exact: BTreeMap<Mode, Measured<bool>>,
    /// Whether a load that a mispredicted branch skips leaves an accessed bit.
    pub speculation_shows: Measured<bool>,
    /// Whether the dirty log names page tables that were only read by a walk.
    pub walks_dirty: Measured<bool>,
    /// Whether a walk finds what user space wrote into the tables, by mode; older passports do not say.
    #[serde(default)]
    pub outside_writes: BTreeMap<Mode, Measured<bool>>,
}

/// How exact the dirty log is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DirtyLog {
    /// It names the written pages.
    Exact,
    /// It names more.
    More,
    /// A written page is missing.
    Less,
}

/// A counter of conditional branches that counts in guest mode only.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct CounterFindings {
    /// The event, as perf's raw configuration.
    pub event: u64,
    /// Branches that the guest made, and branches that were counted.
    pub counted: [u64; 2],
    /// Branches between an overflow and the stop, and how many stops were that far off; sorted.
    pub skid: Vec<(i64, u32)>,
}
