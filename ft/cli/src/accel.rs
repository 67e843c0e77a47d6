//! `--accel`: which engine executes the guest, and why.
//!
//! Not responsible for: what KVM does on this host (`gemel-kvm`'s passport), the engines.

use crate::options::{Clock, Counted, MachineOptions};
use anyhow::{Result, bail, ensure};
use clap::ValueEnum;
use gemel_kvm::passport::{DEVICE, Leak, Passport, first_shortcoming, refusal};
use gemel_log::{Engine, Header};
use gemel_machine::Reckoning;
use gemel_x86::CpuModel;
use std::io::{self, IsTerminal};
use std::path::Path;

/// `--accel`.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub enum Accel {
    /// KVM where it does exactly what the interpreter does (gemel check) and nothing else asks for counted instructions
    Auto,
    /// KVM, with the interpreter for what it cannot execute
    Kvm,
    /// The interpreter
    Interp,
}

/// What executes the guest.
#[derive(clap::Args, Clone, Debug, Default)]
pub struct AccelOptions {
    /// What executes the guest. Default: auto, which says on a terminal what it took and why
    #[arg(long, value_enum, value_name = "ENGINE")]
    accel: Option<Accel>,
}

/// What whoever records knows of the guest.
#[derive(clap::Args, Clone, Debug, Default)]
pub struct ClearOptions {
    /// Asserts that the guest does none of these: tsc, cpuid, rdrand, rdseed, rdpmc, tzcnt, lzcnt, syscall, int, accessed (docs/check.md).
    /// It stands in the log. Without it, recording on KVM is refused while the guest could see the host by them
    #[arg(long, value_name = "LEAK,...", value_delimiter = ',')]
    stays_clear: Vec<Leak>,
}

/// An engine, and what was found on the way to it.
#[derive(Clone, Debug)]
pub struct Chosen {
    /// The engine.
    pub engine: Engine,
    /// The host's passport, where KVM was taken for a recording.
    pub passport: Option<Passport>,
    /// What the guest is asserted to stay clear of.
    stays_clear: Vec<Leak>,
}

impl Chosen {
    const fn plain(engine: Engine) -> Self {
        Self { engine, passport: None, stays_clear: Vec::new() }
    }

    /// What positions of a new machine count.
    pub fn reckoning(&self, asked: Option<Counted>) -> Reckoning {
        match (asked, self.engine) {
            (Some(counted), _) => counted.into(),
            (None, Engine::Interp) => Counted::Instructions.into(),
            (None, Engine::Kvm) => Counted::Exits.into(),
        }
    }

    /// Writes down in a log's header what was chosen.
    ///
    /// # Errors
    /// None that a passport of this program could cause.
    pub fn note_in(&self, header: &mut Header) -> Result<()> {
        header.engine = self.engine;
        if let Some(passport) = &self.passport {
            header.passport = serde_json::to_string(passport)?;
        }
        header.stays_clear = self.stays_clear.iter().map(Leak::to_string).collect();
        Ok(())
    }
}

/// Why KVM cannot be used at all.
fn access() -> Result<()> {
    match Passport::access(Path::new(DEVICE)) {
        Ok(()) => Ok(()),
        Err(why) => bail!("{why}; or run with --accel interp"),
    }
}

impl AccelOptions {
    /// The engine for a new machine that runs unrecorded. `counts` says whether the options ask for counts of instructions.
    ///
    /// # Errors
    /// KVM is asked for and cannot be had, or options that contradict each other.
    pub fn for_run(&self, options: &MachineOptions, counts: bool) -> Result<Chosen> {
        match self.accel.unwrap_or(Accel::Auto) {
            Accel::Interp => Ok(Chosen::plain(Engine::Interp)),
            Accel::Kvm => {
                counts_exits(options)?;
                access()?;
                Ok(Chosen::plain(Engine::Kvm))
            }
            Accel::Auto => Ok(self.took(match wants_instructions(options, counts).or_else(shortcoming) {
                Some(why) => (Chosen::plain(Engine::Interp), why),
                None => (Chosen::plain(Engine::Kvm), NOTHING_AMISS.into()),
            })),
        }
    }

    /// The engine for a new machine that is recorded.
    ///
    /// # Errors
    /// As [`Self::for_run`], or the guest could see the host.
    pub fn for_record(&self, options: &MachineOptions, clear: &ClearOptions, counts: bool) -> Result<Chosen> {
        let ClearOptions { stays_clear } = clear.clone();
        let chosen = |engine, passport| Chosen { engine, passport, stays_clear: stays_clear.clone() };
        let interp = || chosen(Engine::Interp, None);
        let model = CpuModel::parse(&options.cpu).map_err(anyhow::Error::msg)?;
        let refused = |passport: &Passport| refusal(&passport.leaks(&model), &stays_clear, &model);
        match self.accel.unwrap_or(Accel::Auto) {
            Accel::Interp => Ok(interp()),
            Accel::Kvm => {
                counts_exits(options)?;
                access()?;
                let passport = Passport::measure(Path::new(DEVICE));
                ensure!(passport.findings.is_some(), "KVM runs no guest here: run with --accel interp");
                if let Some(line) = refused(&passport) {
                    bail!("{line}");
                }
                Ok(chosen(Engine::Kvm, Some(passport)))
            }
            Accel::Auto => {
                if let Some(why) = wants_instructions(options, counts).or_else(shortcoming) {
                    return Ok(self.took((interp(), why)));
                }
                let passport = Passport::measure(Path::new(DEVICE));
                Ok(self.took(match refused(&passport) {
                    Some(line) => (interp(), line),
                    None => (chosen(Engine::Kvm, Some(passport)), NOTHING_AMISS.into()),
                }))
            }
        }
    }

    /// The engine for a machine that exists: in a log, or at the other side of a pair.
    ///
    /// # Errors
    /// KVM is asked for and cannot be had, or cannot count what this machine counts.
    pub fn for_machine(&self, reckoning: Reckoning) -> Result<Engine> {
        let instructions = "positions of this machine count instructions, which KVM cannot";
        match (self.accel.unwrap_or(Accel::Auto), reckoning) {
            (Accel::Interp, _) => Ok(Engine::Interp),
            (Accel::Kvm, Reckoning::Instructions(_)) => bail!("{instructions}: use --accel interp"),
            (Accel::Kvm, Reckoning::Exits) => access().map(|()| Engine::Kvm),
            (Accel::Auto, Reckoning::Instructions(_)) => {
                Ok(self.took((Chosen::plain(Engine::Interp), instructions.into())).engine)
            }
            (Accel::Auto, Reckoning::Exits) => Ok(self
                .took(match shortcoming() {
                    Some(why) => (Chosen::plain(Engine::Interp), why),
                    None => (Chosen::plain(Engine::Kvm), NOTHING_AMISS.into()),
                })
                .engine),
        }
    }

    /// The engine that is judged: the one that made the log, where auto can have it.
    ///
    /// # Errors
    /// As [`Self::for_machine`].
    pub fn for_judged(&self, header: &Header) -> Result<Engine> {
        match self.accel {
            None | Some(Accel::Auto) if header.engine == Engine::Kvm => Ok(match access() {
                Ok(()) => self.took((Chosen::plain(Engine::Kvm), "it made the log".into())).engine,
                Err(e) => self.took((Chosen::plain(Engine::Interp), e.to_string())).engine,
            }),
            _ => self.for_machine(header.machine.reckoning),
        }
    }

    /// Says what auto took and why: where it was asked for by name, or where a person looks on.
    fn took(&self, (chosen, why): (Chosen, String)) -> Chosen {
        if self.accel.is_some() || io::stderr().is_terminal() {
            let name = match chosen.engine {
                Engine::Interp => "the interpreter",
                Engine::Kvm => "KVM",
            };
            eprintln!("gemel: --accel auto takes {name}: {why}");
        }
        chosen
    }
}

/// Why auto takes KVM.
const NOTHING_AMISS: &str = "gemel check finds nothing amiss with it";

/// Why auto does not take KVM on this host. What disqualifies most hosts is found in a few milliseconds.
fn shortcoming() -> Option<String> {
    first_shortcoming(Path::new(DEVICE)).map(|why| format!("KVM here: {why} (see gemel check)"))
}

/// What in the options only an engine that counts instructions can give.
fn wants_instructions(options: &MachineOptions, counts: bool) -> Option<String> {
    let why = match options.reckoning {
        Some(Counted::Exits) => return None,
        Some(Counted::Instructions) => "--reckoning instructions",
        None if options.clock == Clock::Free => "--clock free makes guest time of counted instructions",
        None if counts => "counts of instructions are asked for",
        None => return None,
    };
    Some(why.into())
}

fn counts_exits(options: &MachineOptions) -> Result<()> {
    ensure!(
        options.reckoning != Some(Counted::Instructions),
        "KVM cannot count instructions: leave out --reckoning, or use --accel interp"
    );
    Ok(())
}

/// Says of a log what its maker asserted, where anything was. Whoever trusts a replay should know.
pub fn tell_assertion(header: &Header) {
    if !header.stays_clear.is_empty() {
        eprintln!(
            "gemel: recorded with the assertion that the guest stays clear of {} (docs/check.md)",
            header.stays_clear.join(", ")
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        accel: AccelOptions,
        #[command(flatten)]
        clear: ClearOptions,
        #[command(flatten)]
        machine: MachineOptions,
    }

    fn line(arguments: &str) -> Line {
        Line::parse_from(["gemel", "--kernel", "k"].into_iter().chain(arguments.split_whitespace()))
    }

    #[test]
    fn auto_keeps_to_instructions_where_something_needs_them() {
        for (arguments, counts) in [("--clock free", false), ("--reckoning instructions", false), ("", true)]
        {
            let line = line(arguments);
            let why = wants_instructions(&line.machine, counts);
            assert!(why.is_some(), "{arguments}");
            let chosen = line.accel.for_run(&line.machine, counts).unwrap();
            assert_eq!(chosen.engine, Engine::Interp);
            assert_eq!(
                chosen.reckoning(line.machine.reckoning).count_kind(),
                gemel_machine::CountKind::Instructions
            );
        }
        assert_eq!(wants_instructions(&line("").machine, false), None);
        assert_eq!(wants_instructions(&line("--clock free --reckoning exits").machine, true), None);
    }

    #[test]
    fn kvm_is_not_asked_for_what_it_cannot_count() {
        let line = line("--accel kvm --reckoning instructions");
        assert!(line.accel.for_run(&line.machine, false).is_err());
        assert!(line.accel.for_record(&line.machine, &line.clear, false).is_err());
        assert!(line.accel.for_machine(Reckoning::default()).is_err());
    }

    #[test]
    fn the_engine_says_what_a_new_machine_counts() {
        let (interp, kvm) = (Chosen::plain(Engine::Interp), Chosen::plain(Engine::Kvm));
        assert_eq!(interp.reckoning(None), Reckoning::default());
        assert_eq!(interp.reckoning(Some(Counted::Exits)), Reckoning::Exits);
        assert_eq!(kvm.reckoning(None), Reckoning::Exits);
    }

    #[test]
    fn an_assertion_names_leaks() {
        let line = line("--stays-clear tsc,cpuid");
        assert_eq!(line.clear.stays_clear, [Leak::Tsc, Leak::Cpuid]);
        assert!(Line::try_parse_from(["gemel", "--kernel", "k", "--stays-clear", "everything"]).is_err());
    }
}
