//! The host's passport: what KVM on this host does with a guest, measured with guests of a few instructions each.
//!
//! Not responsible for: running a machine (the engine does), what is done about a finding (whoever chooses an engine).
//!
//! Every program runs for a bounded time, and the whole check ends within a few seconds. Where something cannot be measured, the
//! passport says why.

mod answers;
mod compare;
mod costs;
mod counter;
mod facts;
mod guests;
mod host;
mod instructions;
mod modes;
mod probes;
mod rules;
mod sandbox;
mod stage;
mod tsc;
mod walks;
mod watchdog;

pub(crate) use answers::ask;
pub use answers::{Answers, Stop};
pub use compare::{Comparison, Engine, Fit, compare};
pub use facts::{
    Access, CounterFindings, Cpu, DirtyLog, Execution, Findings, Measured, ModeFindings, NATIVE, Passport,
    Stopped, TableFindings, Treatment, TscFindings, VERSION, Virtualization,
};
pub use host::DEVICE;
pub use rules::{Leak, Met, refusal};
pub use stage::Mode;

use probes::Bench;
use std::path::Path;

/// The first reason found why KVM cannot take the interpreter's place here, in some milliseconds where a mode is emulated; only where none is, all
/// is measured.
pub fn first_shortcoming(device: &Path) -> Option<String> {
    let bench = match host::open(device) {
        Ok((kvm, _)) => Bench::new(kvm),
        Err(Access::Absent { why } | Access::Denied { why } | Access::Broken { why }) => Err(why),
        Err(Access::Usable { .. }) => return None,
    };
    let rates = bench.and_then(|bench| {
        // Kernels live in ring 0 of long mode: nothing disqualifies a KVM sooner.
        for mode in [Mode::LongRing0, Mode::LongRing3, Mode::Paged, Mode::Protected, Mode::Real] {
            match modes::rate(&bench, mode) {
                Ok(rate) if rate < NATIVE => {
                    return Err(format!("{mode}: instructions are emulated, {rate} million a second"));
                }
                Ok(_) => {}
                Err(why) => return Err(format!("{mode}: {why}")),
            }
        }
        Ok(())
    });
    match rates {
        Err(why) => Some(why),
        Ok(()) => Passport::measure(device).shortcomings().into_iter().next(),
    }
}

impl Passport {
    /// Whether KVM can be opened.
    ///
    /// # Errors
    /// What stands in the way, and what to do about it.
    pub fn access(device: &Path) -> Result<(), String> {
        match host::open(device) {
            Ok(_) | Err(Access::Usable { .. }) => Ok(()),
            Err(Access::Absent { why } | Access::Denied { why } | Access::Broken { why }) => Err(why),
        }
    }

    /// Measures this host in a few seconds. The calling thread gets signals meanwhile, which it ignores.
    pub fn measure(device: &Path) -> Self {
        let (kvm, findings) = match host::open(device) {
            Err(access) => (access, None),
            Ok((kvm, access)) => {
                match Bench::new(kvm).and_then(|bench| bench.sandbox().map(|_| ()).map(|()| bench)) {
                    Ok(bench) => {
                        let findings = findings(&bench, &access);
                        (access, Some(findings))
                    }
                    Err(why) => (Access::Broken { why }, None),
                }
            }
        };
        Self { version: VERSION, cpu: host::cpu(), kernel: host::kernel(), kvm, findings }
    }
}

fn findings(bench: &Bench, access: &Access) -> Findings {
    let modules = match access {
        Access::Usable { modules, .. } => modules.as_slice(),
        _ => &[],
    };
    Findings {
        modes: Mode::ALL.map(|mode| (mode, mode_findings(bench, mode))).into(),
        syscall: instructions::syscall(bench).into(),
        int_n: instructions::int_n(bench).into(),
        tsc: tsc::measure(bench),
        tables: walks::measure(bench, modules),
        dirty_log: walks::dirty_log(bench).into(),
        counter: counter::measure(bench).into(),
        exits: costs::measure(bench),
    }
}

fn mode_findings(bench: &Bench, mode: Mode) -> ModeFindings {
    let treat =
        |case: instructions::Case| (case.0.to_owned(), instructions::treatment(bench, mode, case).into());
    ModeFindings {
        rate: modes::rate(bench, mode).into(),
        single_step: modes::single_step(bench, mode).into(),
        breakpoint: modes::breakpoint(bench, mode).into(),
        window: modes::window(bench, mode).into(),
        instructions: instructions::CASES.map(treat).into(),
        arithmetic: [
            ("sse".to_owned(), instructions::sse(bench, mode).into()),
            ("x87".to_owned(), instructions::x87(bench, mode).into()),
        ]
        .into(),
    }
}
