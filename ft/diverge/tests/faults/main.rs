//! Faults put into runs, one a run, and the checker must name the exact instruction or log entry of every one; and clean runs, of
//! which it must say nothing.
//!
//!     cargo test -p gemel-diverge --test faults -- --faults 1000 --clean 100
//!
//! prints the whole campaign's figures; without arguments a tenth of it runs. What counts is in docs/verify.md. `--seed` gives the
//! same faults again, and `--only N` one of them, with its report.

#![allow(clippy::unwrap_used)] // a harness that cannot do its work has failed

mod campaign;
mod draw;
#[path = "../parting/faulty.rs"]
mod faulty;
mod guest;
mod inject;
mod outside;

use campaign::{Campaign, clean};
use clap::Parser;
use std::process::ExitCode;

#[derive(Parser)]
struct Args {
    /// Faults, as many of each kind
    #[arg(long, default_value_t = 100)]
    faults: u64,
    /// Clean runs
    #[arg(long, default_value_t = 10)]
    clean: u64,
    /// Where the faults come from
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// This fault alone, with its report
    #[arg(long)]
    only: Option<u64>,
    /// Arguments of cargo's own harness mean nothing here
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, hide = true)]
    _ignored: Vec<String>,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let mut campaign = Campaign::new(args.seed);
    if let Some(number) = args.only {
        campaign.run(number, true);
        return if campaign.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    (0..args.faults).for_each(|number| campaign.run(number, false));
    campaign.table();
    let wrong = (0..args.clean).filter(|n| !clean(args.seed.wrapping_add(*n))).count();
    println!("clean runs: {}, of which {wrong} were reported", args.clean);
    if campaign.failed == 0 && wrong == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
