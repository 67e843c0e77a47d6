//! `gemel diff`: where two recorded runs part, by what their logs say and by what their machines are.
//!
//! Not responsible for: comparing (`gemel-diverge`).

use crate::exit::Ending;
use crate::logged::{self, FileOptions};
use crate::options::ReportOptions;
use crate::report::Stopwatch;
use crate::subject::Followed;
use crate::verify::{CompareOptions, judge_with_bar};
use anyhow::Result;
use gemel_diverge::{Plan, first_difference, header_differences};
use serde_json::json;
use std::path::PathBuf;
use std::process::ExitCode;

/// Options of `gemel diff`.
#[derive(clap::Args)]
pub struct Args {
    /// One log
    #[arg(value_name = "A")]
    a: PathBuf,
    /// The other
    #[arg(value_name = "B")]
    b: PathBuf,
    /// Compares the logs' entries only, and runs nothing
    #[arg(long)]
    entries_only: bool,
    #[command(flatten)]
    files: FileOptions,
    #[command(flatten)]
    how: CompareOptions,
    #[command(flatten)]
    report: ReportOptions,
}

/// Compares two logs.
///
/// # Errors
/// Logs that cannot be read, files that are not theirs.
pub fn run(args: Args) -> Result<ExitCode> {
    let stopwatch = Stopwatch::start();
    let (mut a, mut b) = (logged::open(&args.a)?, logged::open(&args.b)?);
    let headers = header_differences(a.header(), b.header());
    for (field, x, y) in &headers {
        eprintln!("header: {field} is {x} in {}, {y} in {}", args.a.display(), args.b.display());
    }
    let entries = first_difference(&mut a, &mut b)?;
    match &entries {
        None => eprintln!("entries: {} in both, all the same", a.entries()),
        Some(difference) => {
            eprintln!("entries: {} are the same; then", difference.number);
            eprintln!("    {}: {}", args.a.display(), difference.entries[0]);
            eprintln!("    {}: {}", args.b.display(), difference.entries[1]);
        }
    }
    let mut figures = json!({
        "headers": headers.iter().map(|(field, x, y)| json!({ "field": field, "values": [x, y] })).collect::<Vec<_>>(),
        "entries": entries,
    });
    let same = entries.is_none() && headers.is_empty();
    if args.entries_only {
        let ending = if same { Ending::LogEnd } else { Ending::Diverged("the logs differ".into()) };
        figures["command"] = "diff".into();
        figures["exit_code"] = ending.code().into();
        args.report.write(&figures, false)?;
        return Ok(ExitCode::from(ending.code()));
    }
    let (one, other) = (Followed::open(&args.a, &args.files)?, Followed::open(&args.b, &args.files)?);
    let plan = Plan { judge: false, ..args.how.plan() };
    let verdict = judge_with_bar(&one, &other, plan, &args.how.evidence(&args.a))?;
    if let Some(fields) = figures.as_object_mut()
        && let Some(verdict) = verdict.json("diff", stopwatch.read()).as_object()
    {
        fields.extend(verdict.clone());
    }
    let code = verdict.tell(args.report.json.is_some());
    args.report.write(&figures, false)?;
    Ok(code)
}
