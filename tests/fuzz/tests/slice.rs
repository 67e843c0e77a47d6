//! A short seeded slice of every fuzzer, so that each change meets it. Long runs: `cargo run --profile test -p gemel-fuzz -- --help`.
#![allow(clippy::unwrap_used)] // tests

use gemel_fuzz::cpu::{CpuFuzzer, SnapshotFuzzer};
use gemel_fuzz::devices::DeviceFuzzer;
use gemel_fuzz::run::{Episode, Kind, Plan, run};
use std::time::Duration;

fn slice(fuzzer: &dyn Episode, episodes: u64) -> Kind {
    let plan = Plan {
        seed: 0x9e31,
        first: 0,
        episodes,
        time: Duration::MAX,
        patience: 10,
        report_every: Duration::ZERO,
    };
    let tally = run(fuzzer, plan).unwrap();
    println!("{tally}");
    tally.total()
}

#[test]
fn code_in_every_mode() {
    let total = slice(&CpuFuzzer::default(), 64);
    assert!(total.cases > 500, "cases end too early");
    assert!(total.steps / total.cases > 500, "programs die too early to reach anything");
}

#[test]
fn every_device() {
    let total = slice(&DeviceFuzzer, 48);
    assert!(total.cases > 500);
    assert!(total.complete > total.cases * 9 / 10, "most rings are never reached");
}

#[test]
fn damaged_snapshots() {
    let total = slice(&SnapshotFuzzer::default(), 32);
    assert!(total.complete > 0 && total.complete < total.cases, "some are refused, and some are not");
}
