//! What the findings mean for a guest: whether KVM here does the interpreter's job, and which leaks a CPU model lets a guest meet.
//!
//! Not responsible for: finding them (the probes), refusing anything (whoever was asked to run the guest).

use super::facts::{Access, DirtyLog, Execution, Findings, Measured, Passport, Stopped, Treatment};
use super::stage::Mode;
use crate::quirks::Quirks;
use gemel_x86::{CpuModel, Feature};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// Something by which a guest under KVM learns what another host, or the interpreter, would not tell it. Named by what the guest
/// would have to do.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Leak {
    /// RDTSC and RDTSCP.
    Tsc,
    /// CPUID.
    Cpuid,
    /// RDRAND.
    Rdrand,
    /// RDSEED.
    Rdseed,
    /// RDPMC.
    Rdpmc,
    /// TZCNT where only BSF is offered, or the reverse.
    Tzcnt,
    /// LZCNT where only BSR is offered, or the reverse.
    Lzcnt,
    /// SYSCALL.
    Syscall,
    /// INT n at ring 3.
    Int,
    /// Page tables whose accessed bits are looked at, by the guest or by a digest of RAM.
    Accessed,
}

impl Leak {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::Tsc,
        Self::Cpuid,
        Self::Rdrand,
        Self::Rdseed,
        Self::Rdpmc,
        Self::Tzcnt,
        Self::Lzcnt,
        Self::Syscall,
        Self::Int,
        Self::Accessed,
    ];

    /// Its name on the command line, in JSON and in logs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tsc => "tsc",
            Self::Cpuid => "cpuid",
            Self::Rdrand => "rdrand",
            Self::Rdseed => "rdseed",
            Self::Rdpmc => "rdpmc",
            Self::Tzcnt => "tzcnt",
            Self::Lzcnt => "lzcnt",
            Self::Syscall => "syscall",
            Self::Int => "int",
            Self::Accessed => "accessed",
        }
    }

    /// What closes it, beside a guest that stays clear of it: a change of the CPU model, or of the host.
    const fn remedy(self) -> Option<&'static str> {
        match self {
            Self::Tsc => Some("--cpu MODEL,-tsc"),
            Self::Rdrand => Some("--cpu MODEL,-rdrand"),
            Self::Rdseed => Some("--cpu MODEL,-rdseed"),
            Self::Tzcnt => Some("--cpu MODEL,+bmi1"),
            Self::Lzcnt => Some("--cpu MODEL,+lzcnt"),
            Self::Accessed => Some("kvm_intel loaded with ept=0, kvm_amd with npt=0"),
            Self::Cpuid | Self::Rdpmc | Self::Syscall | Self::Int => None,
        }
    }
}

impl fmt::Display for Leak {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Leak {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|leak| leak.name() == name)
            .ok_or_else(|| format!("'{name}' is no leak: known are {}", Self::ALL.map(Self::name).join(", ")))
    }
}

/// A leak that a guest of some CPU model can meet on this host.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Met {
    /// Which.
    pub leak: Leak,
    /// What the guest would meet, in a few words.
    pub what: String,
    /// What would close it, where anything does.
    pub remedy: Option<&'static str>,
}

impl Passport {
    /// The leaks that a guest of this model meets if it executes all that the model offers. None where KVM cannot be used.
    pub fn leaks(&self, model: &CpuModel) -> Vec<Met> {
        let Some(findings) = &self.findings else { return Vec::new() };
        // Code of other modes is executed by the engine's assistant, which leaks nothing.
        let modes = Quirks::of(findings).native.modes();
        let met = |leak: Leak| {
            let what = findings.meets(leak, model, modes)?;
            Some(Met { leak, what, remedy: leak.remedy() })
        };
        Leak::ALL.into_iter().filter_map(met).collect()
    }

    /// Why KVM on this host cannot take the interpreter's place, in sentences. None: it can.
    pub fn shortcomings(&self) -> Vec<String> {
        let findings = match (&self.kvm, &self.findings) {
            (Access::Usable { .. }, Some(findings)) => findings,
            (Access::Absent { why } | Access::Denied { why } | Access::Broken { why }, _) => {
                return vec![why.clone()];
            }
            _ => return vec!["no guest could be run".into()],
        };
        let mut all = Vec::new();
        for (mode, found) in &findings.modes {
            let mut not = |what: String| all.push(format!("{mode}: {what}"));
            match &found.rate {
                Measured::Found(rate) if !found.is_native() => {
                    not(format!("instructions are emulated, {rate} million a second"));
                }
                Measured::Found(_) => {}
                Measured::Unknown(why) => {
                    not(why.clone());
                    continue;
                }
            }
            for (name, stop) in [
                ("single steps", &found.single_step),
                ("breakpoints", &found.breakpoint),
                ("interrupt windows", &found.window),
            ] {
                match stop {
                    Measured::Found(Stopped::Exactly) => {}
                    Measured::Found(Stopped::Late) => not(format!("{name} stop late")),
                    Measured::Found(Stopped::Never) => not(format!("{name} do not stop")),
                    Measured::Unknown(why) => not(format!("{name}: {why}")),
                }
            }
            for (unit, execution) in &found.arithmetic {
                if let Some(trouble) = trouble(execution) {
                    not(format!("{unit} arithmetic {trouble}"));
                }
            }
        }
        for (name, execution) in [("SYSCALL", &findings.syscall), ("INT n", &findings.int_n)] {
            if let Some(trouble) = trouble(execution) {
                all.push(format!("{name} from ring 3 {trouble}"));
            }
        }
        match &findings.dirty_log {
            Measured::Found(DirtyLog::Exact | DirtyLog::More) => {}
            Measured::Found(DirtyLog::Less) => all.push("the dirty log misses written pages".into()),
            Measured::Unknown(why) => all.push(format!("dirty log: {why}")),
        }
        all
    }
}

fn trouble(execution: &Measured<Execution>) -> Option<String> {
    match execution {
        Measured::Found(Execution::Right) => None,
        Measured::Found(Execution::Wrong) => Some("does something else than it should".into()),
        Measured::Found(Execution::HandedOut) => Some("is not executed by KVM".into()),
        Measured::Found(Execution::Faults(vector)) => Some(format!("raises exception {vector}")),
        Measured::Unknown(why) => Some(format!("is unknown: {why}")),
    }
}

impl Findings {
    /// What of a leak a guest of this model meets in these modes.
    fn meets(&self, leak: Leak, model: &CpuModel, modes: &[Mode]) -> Option<String> {
        let modes_where = |instruction: &str, treatment: Treatment| -> Vec<Mode> {
            let treated = |mode: &Mode| self.modes.get(mode)?.instructions.get(instruction)?.found();
            modes.iter().copied().filter(|mode| treated(mode) == Some(&treatment)).collect()
        };
        let leaks = |instruction: &str| modes_where(instruction, Treatment::Leaks);
        let told =
            |what: &str, modes: &[Mode]| (!modes.is_empty()).then(|| format!("{what} ({})", list(modes)));
        let offered = |feature, instruction: &str, what: &str| {
            model.has(feature).then(|| told(what, &leaks(instruction))).flatten()
        };
        // Without the feature these bytes are another instruction; a CPU that has it executes it all the same, and a hypervisor that
        // emulates may not have it.
        let either = |feature, instruction: &str, new: &str, old: &str| {
            let (has_new, has_old) = (leaks(instruction), modes_where(instruction, Treatment::Masked));
            match (model.has(feature), has_new.is_empty()) {
                (_, true) => None,
                (false, false) => told(&format!("{old} with F3 is executed as {new}"), &has_new),
                (true, false) => told(&format!("{new} is executed as {old}"), &has_old),
            }
        };
        // Where ring 0 is the assistant's, so is every way into it.
        let wrong = |name: &str, execution: &Measured<Execution>| match execution {
            _ if !modes.contains(&Mode::LongRing0) => None,
            Measured::Found(Execution::HandedOut) => None,
            other => trouble(other).map(|trouble| format!("{name} {trouble}")),
        };
        match leak {
            Leak::Tsc => offered(Feature::TSC, "rdtsc", "RDTSC gives the host's counter")
                .or_else(|| offered(Feature::RDTSCP, "rdtscp", "RDTSCP gives the host's counter")),
            Leak::Cpuid => told("CPUID gives the host's values", &leaks("cpuid")),
            Leak::Rdrand => offered(Feature::RDRAND, "rdrand", "RDRAND gives the host's numbers"),
            Leak::Rdseed => offered(Feature::RDSEED, "rdseed", "RDSEED gives the host's numbers"),
            Leak::Rdpmc => told("RDPMC gives the host's counters", &leaks("rdpmc")),
            Leak::Tzcnt => either(Feature::BMI1, "tzcnt", "TZCNT", "BSF"),
            Leak::Lzcnt => either(Feature::LZCNT, "lzcnt", "LZCNT", "BSR"),
            Leak::Syscall => {
                model.has(Feature::LONG_MODE).then(|| wrong("SYSCALL from ring 3", &self.syscall)).flatten()
            }
            Leak::Int => wrong("INT n from ring 3", &self.int_n),
            Leak::Accessed => (self.tables.speculation_shows == Measured::Found(true))
                .then(|| "loads that are not executed leave accessed bits in page tables".into()),
        }
    }
}

/// Names of modes in one line.
fn list(modes: &[Mode]) -> String {
    modes.iter().map(Mode::to_string).collect::<Vec<_>>().join(", ")
}

/// How a remedy begins that changes the CPU model.
const CHANGE: &str = "--cpu MODEL,";

/// Leaks that an assertion does not cover, in one line with what to do; `None` if it covers all.
pub fn refusal(met: &[Met], stays_clear: &[Leak], model: &CpuModel) -> Option<String> {
    let open: Vec<_> = met.iter().filter(|met| !stays_clear.contains(&met.leak)).collect();
    if open.is_empty() {
        return None;
    }
    let whats: Vec<_> = open.iter().map(|met| met.what.as_str()).collect();
    let names: Vec<_> = open.iter().map(|met| met.leak.name()).collect();
    // Changes of the model are one option.
    let (mut changes, mut remedies) = (String::new(), Vec::new());
    for remedy in open.iter().filter_map(|met| met.remedy) {
        match remedy.strip_prefix(CHANGE) {
            Some(change) => changes += &format!(",{change}"),
            None => remedies.push(remedy.to_owned()),
        }
    }
    if !changes.is_empty() {
        remedies.insert(0, format!("--cpu {}{changes}", model.text()));
    }
    let close = match remedies.as_slice() {
        [] => String::new(),
        remedies => format!("close what can be closed ({}), ", remedies.join("; ")),
    };
    Some(format!(
        "a guest of model {} can meet what KVM on this host does not hide: {}; take the interpreter (--accel interp), {close}or \
         assert that this guest stays clear of it: --stays-clear {}",
        model.text(),
        whats.join("; "),
        names.join(",")
    ))
}
