//! `gemel check`: the host's passport, for people and for another host's `gemel check --against`.
//!
//! Not responsible for: measuring and judging (`gemel-kvm`'s passport).

mod table;

use crate::exit::Ending;
use crate::options::ReportOptions;
use anyhow::{Context, Result, ensure};
use gemel_kvm::passport::{DEVICE, Passport, VERSION, compare};
use gemel_x86::CpuModel;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Options of `gemel check`.
#[derive(clap::Args)]
pub struct Args {
    /// Another host's passport (what `gemel check --json` wrote there): says whether the two can be a pair, or one replay what the
    /// other recorded, and why not. Exit code 10 if they can on no engine
    #[arg(long, value_name = "FILE")]
    against: Option<PathBuf>,
    /// The CPU model of the guest that leaks are looked for
    #[arg(long, value_name = "MODEL", default_value = "x86-64-v2")]
    cpu: String,
    #[command(flatten)]
    report: ReportOptions,
}

/// Reads what `gemel check --json` wrote.
fn read(path: &Path) -> Result<Passport> {
    let shown = path.display();
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read the passport {shown}"))?;
    let not = || format!("{shown} is not a passport: make one with gemel check --json={shown}");
    let mut object: Value = serde_json::from_str(&text).with_context(not)?;
    let version = object["passport"]["version"].as_u64();
    ensure!(
        version.is_none_or(|version| version == u64::from(VERSION)),
        "{shown} is a passport of version {}, and this program reads {VERSION}: make it again with this version's gemel check",
        version.unwrap_or_default()
    );
    serde_json::from_value(object["passport"].take()).with_context(not)
}

/// Measures this host and tells it.
///
/// # Errors
/// An unknown CPU model, or another host's passport that cannot be read.
pub fn run(args: Args) -> Result<ExitCode> {
    let model = CpuModel::parse(&args.cpu).map_err(anyhow::Error::msg)?;
    let other = args.against.as_deref().map(read).transpose()?;
    let passport = Passport::measure(Path::new(DEVICE));
    let comparison = other.as_ref().map(|other| compare(&passport, other));
    let (leaks, shortcomings) = (passport.leaks(&model), passport.shortcomings());
    if args.report.json.is_none() {
        print!("{}", table::passport(&passport, &model));
        if let (Some(other), Some(comparison)) = (&other, &comparison) {
            print!("{}", table::comparison(other, comparison));
        }
    }
    let ending = match &comparison {
        Some(comparison) if !comparison.fits.iter().any(|fit| fit.fits) => Ending::Unlike,
        _ => Ending::Checked,
    };
    let figures = json!({
        "command": "check",
        "passport": passport,
        "model": model.text(),
        "leaks": leaks,
        "shortcomings": shortcomings,
        "auto": if shortcomings.is_empty() { "kvm" } else { "interp" },
        "comparison": comparison,
        "exit": ending.name(),
        "exit_code": ending.code(),
        "message": ending.to_string(),
    });
    args.report.write(&figures, false)?;
    Ok(ExitCode::from(ending.code()))
}
