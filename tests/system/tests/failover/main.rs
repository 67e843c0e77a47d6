//! A guest on two processes, and one of them dies, or is thought to have died, at a random moment.
//!
//!     cargo test -p gemel-system-tests --test failover -- --kills 50 --stops 20 --secondary-kills 20 --disk-kills 20 --engine-kills 10
//!
//! prints the whole matrix's figures; without arguments a few of each kind run. Every trial checks that no line of the guest and
//! no typed line was lost, repeated or changed, or under disk load that the survivor's image has every block, and that a replay
//! of the survivor's log prints byte for byte what the console showed, on every engine that is here, and that the sides' ledgers prove
//! every output. `--seed` gives the same moments again, as far as the host's scheduling allows.

#![allow(clippy::unwrap_used)] // a harness that cannot do its work has failed

mod chain;
mod console;
mod disk;
mod judge;
mod trial;

use anyhow::Result;
use chain::Chain;
use clap::Parser;
use disk::DiskTrial;
use gemel_system_tests::engine::Engine;
use gemel_system_tests::gemel::{gemel, gemel_with};
use gemel_system_tests::guest::Guest;
use gemel_system_tests::kernel::{GUEST_IS_CONTENT, Kernel};
use std::process::ExitCode;
use trial::{Fault, Outcome, Subject, Trial};

#[derive(Parser)]
struct Args {
    /// Primaries that get a SIGKILL
    #[arg(long, default_value_t = 3)]
    kills: u32,
    /// Primaries that get a SIGSTOP and are resumed after the failover
    #[arg(long, default_value_t = 2)]
    stops: u32,
    /// Secondaries that get a SIGKILL
    #[arg(long, default_value_t = 2)]
    secondary_kills: u32,
    /// Primaries that get a SIGKILL while their guest writes to its disk
    #[arg(long, default_value_t = 2)]
    disk_kills: u32,
    /// Primaries that get a SIGKILL for each choice of engines, where the guest is a kernel that both can run
    #[arg(long, default_value_t = 3)]
    engine_kills: u32,
    /// Leaders in a row that get a SIGKILL, each when its guest has been copied to a fresh standby
    #[arg(long, default_value_t = 3)]
    chain: u32,
    /// Where the random moments come from
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Arguments of cargo's own harness mean nothing here
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, hide = true)]
    _ignored: Vec<String>,
}

/// The value below which `percent` of the sorted values lie.
fn percentile(sorted: &[f64], percent: usize) -> f64 {
    sorted[(sorted.len() * percent).div_ceil(100).clamp(1, sorted.len()) - 1]
}

fn table(what: &str, outcomes: &[Outcome]) {
    let figures = |name: &str, of: fn(&Outcome) -> Option<f64>| {
        let mut values: Vec<f64> = outcomes.iter().filter_map(of).collect();
        values.sort_by(f64::total_cmp);
        if !values.is_empty() {
            println!(
                "  {name:<28} median {:>8.2}  p95 {:>8.2}  max {:>8.2} ms",
                percentile(&values, 50),
                percentile(&values, 95),
                values[values.len() - 1]
            );
        }
    };
    let early = outcomes.iter().filter(|o| o.early).count();
    println!("{what}: {} trials", outcomes.len() - early);
    if early > 0 {
        println!(
            "  and {early} in which a busy host had one side suspect the other before the fault: all of it checked too"
        );
    }
    figures("to first output", |o| o.first_output);
    figures("to detection", |o| o.detection);
    figures("to going live", |o| o.live);
    figures("execution lag at the claim", |o| o.lag);
}

/// Makes `count` trials with seeds of their own and prints their figures. Returns how many failed.
fn series(what: &str, count: u32, first_seed: u64, trial: impl Fn(u64) -> Result<Outcome>) -> u32 {
    let (mut outcomes, mut failed) = (Vec::new(), 0);
    // A trial that a busy host spoils is checked like any other, and another one takes its place, within bounds.
    let mut left = count;
    for seed in (first_seed..).take(2 * count as usize) {
        if left == 0 {
            break;
        }
        match trial(seed) {
            Ok(outcome) => {
                left -= u32::from(!outcome.early);
                outcomes.push(outcome);
            }
            Err(error) => {
                left -= 1;
                failed += 1;
                println!("FAILED: {what}, seed {seed}: {error:#}");
            }
        }
    }
    if !outcomes.is_empty() {
        table(what, &outcomes);
    }
    if left > 0 {
        failed += left;
        println!("FAILED: {what}: the host is too busy, {left} trials could not be made");
    }
    failed
}

fn run(args: &Args) -> Result<u32> {
    let (lines, blocks) = (Guest::obtain("lines")?, Guest::obtain("blocks")?);
    let command = |role: &str| gemel_with(role, &lines);
    let subject = Subject { command: &command, exit: 0, judges: &[Engine::Interp] };
    let seed = args.seed.wrapping_mul(1_000_003);
    let mut failed = 0;
    for (kind, (what, fault, count)) in (0..).zip([
        ("primary killed", Fault::KillPrimary, args.kills),
        ("primary stopped and resumed", Fault::StopPrimary, args.stops),
        ("secondary killed", Fault::KillSecondary, args.secondary_kills),
    ]) {
        let trial = |seed| Trial { subject, fault, seed }.run();
        failed += series(what, count, seed.wrapping_add(kind << 16), trial);
    }
    let trial = |seed| DiskTrial { guest: &blocks, seed }.run();
    let chain = |seed| Chain { guest: &lines, deaths: args.chain, seed }.run();
    failed += series(
        "one leader after another killed",
        u32::from(args.chain > 0),
        seed.wrapping_add(4 << 16),
        chain,
    );
    failed +=
        series("primary killed while its guest writes", args.disk_kills, seed.wrapping_add(3 << 16), trial);
    Ok(failed + engines(args.engine_kills, seed.wrapping_add(4 << 16))?)
}

/// A kernel of `roms/` on each choice of engines: the primary is killed, and every engine that is here replays the survivor's log.
fn engines(kills: u32, seed: u64) -> Result<u32> {
    let (kernel, folder) = (Kernel::obtain("lines")?, tempfile::tempdir()?);
    let judges: Vec<Engine> = Engine::here().collect();
    let mut failed = 0;
    for (pair, [leader, follower]) in (0..).zip(Engine::PAIRS) {
        let what = format!("primary on {leader} killed, secondary on {follower}");
        if let Some(why) = leader.missing().or_else(|| follower.missing()) {
            println!("{what}: SKIPPED: {why}");
            continue;
        }
        let command = |role: &str| {
            let mut command = gemel(role)?;
            kernel.arguments(&mut command, folder.path())?;
            command.args(if role == "primary" { leader.leads() } else { follower.follows() });
            Ok(command)
        };
        let subject = Subject { command: &command, exit: GUEST_IS_CONTENT, judges: &judges };
        let trial = |seed| Trial { subject, fault: Fault::KillPrimary, seed }.run();
        failed += series(&what, kills, seed.wrapping_add(pair << 8), trial);
    }
    Ok(failed)
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(0) => ExitCode::SUCCESS,
        Ok(failed) => {
            println!("{failed} trials failed");
            ExitCode::FAILURE
        }
        Err(error) => {
            println!("failover: {error:#}");
            ExitCode::FAILURE
        }
    }
}
