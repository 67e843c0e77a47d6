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
use gemel_diverge::{Agreement, Error, Finding, Outcome, Plan, compare, write_bundle};
use gemel_host::{Inbox, signals};
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
    /// Where the evidence of a difference goes [default: LOG.diverged]
    #[arg(long, value_name = "DIRECTORY")]
    evidence: Option<PathBuf>,
    /// Stops at this instruction count
    #[arg(long, value_name = "COUNT")]
    stop_after: Option<u64>,
}

impl CompareOptions {
    /// The plan that these options make.
    pub fn plan(&self) -> Plan {
        Plan { interval: self.interval, end: self.stop_after.unwrap_or(u64::MAX), ..Plan::default() }
    }

    /// Where a difference's evidence goes.
    pub fn evidence(&self, log: &Path) -> PathBuf {
        self.evidence.clone().unwrap_or_else(|| replay::evidence_beside(log))
    }
}

/// What a comparison came to.
pub struct Verdict {
    /// How it ended.
    pub ending: Ending,
    /// What it found, if the two part.
    pub finding: Option<Box<Finding>>,
    /// Where the evidence is.
    pub evidence: Option<PathBuf>,
    at: Option<At>,
    compared: u64,
}

/// Compares two subjects with a progress bar, and keeps the evidence of a difference.
///
/// # Errors
/// Host trouble, or files that are not the log's.
pub fn judge(a: &Followed, b: &Followed, plan: Plan, evidence: &Path) -> Result<Verdict> {
    let inbox = Inbox::new();
    signals::install(&inbox)?;
    let bar = io::stderr().is_terminal().then(|| {
        let mut logs = vec![a.log(), b.log()];
        logs.dedup();
        progress_bar(logs.into_iter().map(replay::length).max().unwrap_or(0))
    });
    let outcome = compare(a, b, plan, |at| {
        bar.iter().for_each(|bar| bar.set_position(at.position.count));
        if inbox.quit_reason().is_some() { Err(Error::Quit) } else { Ok(()) }
    });
    bar.iter().for_each(|bar| bar.finish_and_clear());
    let none = |ending| Verdict { ending, finding: None, evidence: None, at: None, compared: 0 };
    Ok(match outcome {
        Ok(Outcome::Agree(Agreement { at, conclusion, compared })) => {
            let ending = conclusion.map_or(Ending::Limit, replay::ending);
            Verdict { at: Some(at), compared, ..none(ending) }
        }
        Ok(Outcome::LogDiffers(diverged)) => {
            let at = Some(diverged.at);
            Verdict {
                at,
                ..none(Ending::Diverged(format!(
                    "both machines do the same, and not what the log says: {diverged}"
                )))
            }
        }
        Ok(Outcome::Part(finding)) => {
            write_bundle(evidence, &finding, a, a.header())?;
            Verdict {
                at: Some(finding.at),
                evidence: Some(evidence.to_owned()),
                ending: Ending::Diverged(finding.headline()),
                finding: Some(finding),
                compared: 0,
            }
        }
        Err(Error::Quit) => match inbox.quit_reason() {
            Some(reason) => none(Ending::Quit(reason)),
            None => none(Ending::Limit),
        },
        Err(e) => return Err(e).context("the comparison could not be finished"),
    })
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
            "difference": self.finding,
            "evidence": self.evidence,
            "exit": self.ending.name(),
            "exit_code": self.ending.code(),
            "message": self.ending.to_string(),
        })
    }

    /// Tells it: JSON where asked for, and the report for people otherwise, or when something differs.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn tell(&self, figures: &Value, options: &ReportOptions) -> Result<ExitCode> {
        if let Some(finding) = &self.finding {
            eprint!("{}", finding.report());
        }
        if let Some(evidence) = &self.evidence {
            eprintln!(
                "gemel: the evidence is in {0}; see it again with: gemel verify {0}",
                evidence.display()
            );
        }
        if options.json.is_none() || self.ending.code() != 0 {
            let at = self.at.map_or(String::new(), |at| format!(" at {} instructions", at.position.count));
            eprintln!("gemel: {}{at}; {} instructions compared", self.ending, self.compared);
        }
        options.write(figures, false)?;
        Ok(ExitCode::from(self.ending.code()))
    }
}

/// Judges a log.
///
/// # Errors
/// A log that cannot be read, files that are not the log's.
pub fn run(args: Args) -> Result<ExitCode> {
    let subject = Followed::open(&args.log, &args.files)?;
    let engine = args.accel.for_judged(subject.header())?;
    let (engine, judge_) = (subject.named("engine").on(engine), subject.named("judge"));
    let evidence = args.how.evidence(&args.log);
    let plan = Plan { sample: args.sample, ..args.how.plan() };
    let stopwatch = Stopwatch::start();
    let verdict = judge(&engine, &judge_, plan, &evidence)?;
    let mut figures = verdict.json("verify", stopwatch.read());
    figures["stays_clear"] = json!(subject.header().stays_clear);
    if args.report.json.is_none() {
        tell_assertion(subject.header());
    }
    verdict.tell(&figures, &args.report)
}
