//! `gemel-fuzz WHAT --minutes N --seed S`: runs a fuzzer, and says what it ran or how to see its failure again.

use clap::{Parser, ValueEnum};
use gemel_fuzz::cpu::{CpuFuzzer, SnapshotFuzzer};
use gemel_fuzz::devices::DeviceFuzzer;
use gemel_fuzz::run::{self, Episode, Plan};
use std::time::{Duration, Instant};

#[derive(Clone, Copy, ValueEnum)]
enum What {
    /// Random code in every mode of the CPU
    Cpu,
    /// Snapshots whose checksums are right and whose contents are not
    Snapshots,
    /// Random accesses to each device alone, to its rings, and to the whole board
    Devices,
}

#[derive(Parser)]
#[command(about = "Runs a fuzzer; the seed and an episode's number reproduce what it finds")]
struct Options {
    what: What,
    /// Stop after so many minutes
    #[arg(long, default_value_t = 1.0)]
    minutes: f64,
    /// All that is random follows from it
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The first episode to run
    #[arg(long, default_value_t = 0)]
    first: u64,
    /// Let a case take so many times longer: for builds with a sanitizer
    #[arg(long, default_value_t = 1)]
    patience: u32,
    /// Stop after so many episodes
    #[arg(long, default_value_t = u64::MAX)]
    episodes: u64,
}

fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    let fuzzer: Box<dyn Episode> = match options.what {
        What::Cpu => Box::new(CpuFuzzer::default()),
        What::Snapshots => Box::new(SnapshotFuzzer::default()),
        What::Devices => Box::new(DeviceFuzzer),
    };
    let plan = Plan {
        seed: options.seed,
        first: options.first,
        episodes: options.episodes,
        time: Duration::from_secs_f64(options.minutes * 60.0),
        patience: options.patience,
        report_every: Duration::from_secs(30),
    };
    let began = Instant::now();
    let tally = run::run(fuzzer.as_ref(), plan)?;
    println!("seed {}, {} s, no failure\n{tally}", options.seed, began.elapsed().as_secs());
    Ok(())
}
