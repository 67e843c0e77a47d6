//! `gemel verify`: a log judged instruction by instruction, as far as it takes to name the first wrong one.
//!
//! Not responsible for: comparing (`gemel-diverge`).

use crate::accel::{AccelOptions, tell_assertion};
use crate::exit::Ending;
use crate::logged::FileOptions;
use crate::options::ReportOptions;
use crate::replay;
use crate::report::Stopwatch;
use crate::subject::Followed;
use crate::watch::progress_bar;
use anyhow::{Context, Result};
use gemel_diverge::{Agreement, Error, Excuse, Found, Outcome, Plan, Step, Watcher, compare, write_bundle};
use gemel_host::{Inbox, signals};
use gemel_interp::isa::latitude::Latitude;
use gemel_interp::isa::undefined;
use gemel_log::Engine;
use gemel_machine::At;
use serde_json::{Value, json};
use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Options of `gemel verify`.
#[derive(clap::Args)]
pub struct Args {
    /// The log, or a directory with the evidence of an earlier comparison
    #[arg(value_name = "LOG")]
    log: PathBuf,
    #[command(flatten)]
    files: FileOptions,
    #[command(flatten)]
    accel: AccelOptions,
    #[command(flatten)]
    how: CompareOptions,
    /// Judges one interval in so many
    #[arg(long, value_name = "N", default_value_t = 1)]
    sample: u64,
    #[command(flatten)]
    report: ReportOptions,
}

/// How to compare two runs.
#[derive(clap::Args, Clone, Debug)]
pub struct CompareOptions {
    /// Instructions from one checkpoint to the next
    #[arg(long, value_name = "COUNT", default_value_t = Plan::default().interval,
          value_parser = clap::value_parser!(u64).range(1..))]
    interval: u64,
    #[command(flatten)]
    evidence: EvidenceOption,
    /// Stops at this instruction count
    #[arg(long, value_name = "COUNT")]
    stop_after: Option<u64>,
}

/// Where evidence goes.
#[derive(clap::Args, Clone, Debug)]
pub struct EvidenceOption {
    /// Where the evidence of a difference goes [default: LOG.diverged]
    #[arg(long, value_name = "DIRECTORY")]
    evidence: Option<PathBuf>,
}

impl EvidenceOption {
    /// The directory for a log's evidence.
    pub fn beside(&self, log: &Path) -> PathBuf {
        self.evidence.clone().unwrap_or_else(|| replay::evidence_beside(log))
    }
}

impl CompareOptions {
    /// The plan that these options make.
    pub fn plan(&self) -> Plan {
        Plan { interval: self.interval, end: self.stop_after.unwrap_or(u64::MAX), ..Plan::default() }
    }

    /// Where a difference's evidence goes.
    pub fn evidence(&self, log: &Path) -> PathBuf {
        self.evidence.beside(log)
    }
}

/// What a comparison came to.
pub struct Verdict {
    /// How it ended.
    ending: Ending,
    /// What it found, if anything differs.
    found: Option<Box<dyn Found>>,
    /// Where the evidence is.
    evidence: Option<PathBuf>,
    at: Option<At>,
    compared: u64,
}

/// Compares two subjects with a progress bar, and keeps the evidence of a difference.
///
/// # Errors
/// Host trouble, or files that are not the log's.
pub fn judge_with_bar(a: &Followed, b: &Followed, plan: Plan, evidence: &Path) -> Result<Verdict> {
    let inbox = Inbox::new();
    signals::install(&inbox)?;
    let bar = io::stderr().is_terminal().then(|| {
        let mut logs = vec![a.log(), b.log()];
        logs.dedup();
        progress_bar(logs.into_iter().map(replay::length).max().unwrap_or(0))
    });
    let mut watcher = |at: At| {
        bar.iter().for_each(|bar| bar.set_position(at.position.count));
        if inbox.quit_reason().is_some() { Err(Error::Quit) } else { Ok(()) }
    };
    let verdict = judge(a, b, plan, evidence, &inbox, &mut watcher);
    bar.iter().for_each(|bar| bar.finish_and_clear());
    verdict
}

/// Compares two subjects, and keeps the evidence of a difference. Whoever asks `inbox` for the end gets it.
///
/// # Errors
/// Host trouble, or files that are not the log's.
pub fn judge(
    a: &Followed,
    b: &Followed,
    plan: Plan,
    evidence: &Path,
    inbox: &Inbox,
    watcher: &mut dyn Watcher,
) -> Result<Verdict> {
    let verdict = |ending| Verdict { ending, found: None, evidence: None, at: None, compared: 0 };
    let (found, at): (Box<dyn Found>, At) = match compare(a, b, plan, watcher) {
        Ok(Outcome::Agree(Agreement { at, conclusion, compared })) => {
            let ending = conclusion.map_or(Ending::Limit, replay::ending);
            return Ok(Verdict { at: Some(at), compared, ..verdict(ending) });
        }
        Ok(Outcome::LogDiffers(contradiction)) => {
            let at = contradiction.diverged.at;
            (contradiction, at)
        }
        Ok(Outcome::Part(finding)) => {
            let at = finding.at;
            (finding, at)
        }
        Err(e) => match (inbox.quit_reason(), e) {
            (Some(reason), _) => return Ok(verdict(Ending::Quit(reason))),
            (None, Error::Quit) => return Ok(verdict(Ending::Limit)),
            (None, e) => return Err(e).context("the comparison could not be finished"),
        },
    };
    write_bundle(evidence, &*found, a, a.header())?;
    let ending = Ending::Diverged(found.headline());
    Ok(Verdict { at: Some(at), evidence: Some(evidence.to_owned()), found: Some(found), ..verdict(ending) })
}

impl Verdict {
    /// The JSON object.
    pub fn json(&self, command: &str, seconds: (f64, f64)) -> Value {
        json!({
            "command": command,
            "instructions": self.at.map(|at| at.position.count),
            "compared": self.compared,
            "host_seconds": seconds.0,
            "cpu_seconds": seconds.1,
            "difference": self.found.as_ref().and_then(|found| found.json().ok()),
            "evidence": self.evidence,
            "exit": self.ending.name(),
            "exit_code": self.ending.code(),
            "message": self.ending.to_string(),
        })
    }

    /// Whether something differs.
    pub fn differs(&self) -> bool {
        self.found.is_some()
    }

    /// Tells it, for people, unless `quiet` and nothing is wrong.
    pub fn tell(&self, quiet: bool) -> ExitCode {
        if let Some(found) = &self.found {
            eprint!("{}", found.report());
        }
        if let Some(evidence) = &self.evidence {
            eprintln!(
                "gemel: the evidence is in {0}; see it again with: gemel verify {0}",
                evidence.display()
            );
        }
        if !quiet || self.ending.code() != 0 {
            let at = self.at.map_or(String::new(), |at| format!(" at {} instructions", at.position.count));
            eprintln!("gemel: {}{at}; {} instructions compared", self.ending, self.compared);
        }
        ExitCode::from(self.ending.code())
    }
}

/// What the manuals leave undefined after a step.
fn excuse(step: &Step<'_>) -> Option<String> {
    let [a, b] = step.after;
    Latitude::at(step.before, &|linear, n| step.read(linear, n))
        .excuse(a, b, step.memory, &|linear| step.physical(linear))
}

/// Judges a log.
///
/// # Errors
/// A log that cannot be read, files that are not the log's.
pub fn run(args: Args) -> Result<ExitCode> {
    let subject = Followed::open(&args.log, &args.files)?;
    let engine_kind = args.accel.for_judged(subject.header())?;
    let (engine, judge_) = (subject.named("engine").on(engine_kind), subject.named("judge"));
    let evidence = args.how.evidence(&args.log);
    // The judge has its undefined results from a table; KVM's are those of the CPU under it.
    let unlike = engine_kind == Engine::Kvm && !undefined::ZEN_4.is_under_us();
    let plan = Plan { sample: args.sample, excuse: unlike.then_some(excuse as Excuse), ..args.how.plan() };
    let stopwatch = Stopwatch::start();
    let verdict = judge_with_bar(&engine, &judge_, plan, &evidence)?;
    let mut figures = verdict.json("verify", stopwatch.read());
    figures["stays_clear"] = json!(subject.header().stays_clear);
    if args.report.json.is_none() {
        tell_assertion(subject.header());
    }
    let code = verdict.tell(args.report.json.is_some());
    args.report.write(&figures, false)?;
    Ok(code)
}
