//! `gemel verify-outputs`: from the ledgers of all sides of a pair, offline, that nothing left too early and nothing was lost.
//!
//! Not responsible for: the proof (`gemel-pair`'s ledger).

use crate::exit::Ending;
use crate::options::ReportOptions;
use anyhow::{Context, Result, anyhow};
use gemel_pair::ledger::{Line, Lines, Told, Verdict, prove};
use serde_json::json;
use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Options of `gemel verify-outputs`.
#[derive(clap::Args)]
pub struct Args {
    /// The ledgers of all sides of a run (--ledger of primary, secondary, standby)
    #[arg(value_name = "LEDGER", required = true)]
    ledgers: Vec<PathBuf>,
    #[command(flatten)]
    report: ReportOptions,
}

fn read(path: &Path) -> Result<Told> {
    let file = File::open(path).with_context(|| format!("cannot read the ledger {}", path.display()))?;
    let lines: Result<Vec<Line>, _> = Lines::new(BufReader::new(file)).collect();
    let lines = lines.map_err(|damage| anyhow!("{}: {damage}", path.display()))?;
    Ok(Told { name: path.display().to_string(), lines })
}

fn ending(verdict: &Verdict) -> Ending {
    match verdict.violations.first() {
        Some(first) => Ending::Refuted(format!("{}, line {}: {}", first.ledger, first.line, first.what)),
        None if verdict.is_proved() => Ending::Proved,
        None => Ending::Unproved,
    }
}

fn tell(verdict: &Verdict, ending: &Ending) {
    for violation in &verdict.violations {
        eprintln!("gemel: {}, line {}: {}", violation.ledger, violation.line, violation.what);
    }
    let Verdict { outputs, frames, epochs, matched, unproved, tail, skipped, missing, cut, violations } =
        verdict;
    eprintln!(
        "gemel: {} violations, {outputs} console bytes and {frames} frames left, in epochs {epochs:?}",
        violations.len()
    );
    eprintln!("gemel: {matched} of them compared with what was made by other lines");
    for (count, what) in [
        (unproved, "left by the word of their leader alone: give the ledgers of all members"),
        (
            tail,
            "left by the word of the client alone: the side that let them leave died before it had written that down",
        ),
        (skipped, "were not fetched by anybody in time"),
        (missing, "lines were not written"),
    ] {
        if *count > 0 {
            eprintln!("gemel: {count} {what}");
        }
    }
    for ledger in cut {
        eprintln!("gemel: {ledger} has no end: its side died");
    }
    eprintln!("gemel: {ending}");
}

/// Proves what the ledgers prove.
///
/// # Errors
/// A ledger that cannot be read, or is not as it was written.
pub fn run(args: Args) -> Result<ExitCode> {
    let ledgers = args.ledgers.iter().map(|path| read(path)).collect::<Result<Vec<_>>>()?;
    let verdict = prove(&ledgers);
    let ending = ending(&verdict);
    if args.report.json.is_none() {
        tell(&verdict, &ending);
    }
    let violations: Vec<_> = verdict
        .violations
        .iter()
        .map(|v| json!({ "ledger": v.ledger, "line": v.line, "what": v.what }))
        .collect();
    let figures = json!({
        "command": "verify-outputs",
        "outputs": verdict.outputs,
        "frames": verdict.frames,
        "epochs": verdict.epochs,
        "matched": verdict.matched,
        "unproved": verdict.unproved,
        "tail": verdict.tail,
        "skipped": verdict.skipped,
        "missing": verdict.missing,
        "cut": verdict.cut,
        "violations": violations,
        "exit": ending.name(),
        "exit_code": ending.code(),
        "message": ending.to_string(),
    });
    args.report.write(&figures, false)?;
    Ok(ExitCode::from(ending.code()))
}
