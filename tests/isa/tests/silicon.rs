#![allow(clippy::unwrap_used)] // a test that unwraps fails with the line
//! Seeded random cases of every form, run by the CPU under the test and by the interpreter: no difference.
//!
//! Not responsible for: long runs (`gemel-isa run`), hosts without the same CPU (`corpus`).

use gemel_isa_tests::case::Mode;
use gemel_isa_tests::compare;
use gemel_isa_tests::run::{Plan, Runner};
use gemel_x86::CpuModel;
use std::time::Duration;

/// About 28 for each of the 3,600 forms of the three modes, 13 where AVX-512 is among them.
const CASES: u64 = 100_000;

#[test]
fn silicon_and_the_interpreter_agree() {
    agree(CpuModel::x86_64_v3());
}

#[test]
fn silicon_and_the_interpreter_agree_about_avx_512() {
    agree(CpuModel::x86_64_v4());
}

fn agree(model: CpuModel) {
    if let Some(feature) = gemel_interp::missing_on_host(&model) {
        println!("skipped: this host's CPU lacks {feature}");
        return;
    }
    // The orders in which faults are found, and much else that the manuals leave open, are Zen 4's in the models.
    let zen_4_or_later = compare::host_is_amd() && is_x86_feature_detected!("avx512vl");
    if !zen_4_or_later {
        println!(
            "skipped: this CPU is no AMD Zen 4 or later, and may leave other results where manuals leave them open"
        );
        return;
    }
    let plan = Plan {
        cases: CASES,
        time: Duration::MAX,
        seed: 0x0067_656d_656c,
        mnemonic: None,
        modes: Mode::ALL.to_vec(),
        examples: 1,
    };
    let mut runner = match Runner::new(&plan, &model) {
        Ok(runner) => runner,
        Err(error) => {
            println!("skipped: {error:#}");
            return;
        }
    };
    let mut report = runner.run(&plan).unwrap();
    runner.shrink(&mut report).unwrap();
    for ((mnemonic, elements), kind) in &report.kinds {
        println!("{mnemonic}: {} cases differ in {elements}", kind.cases);
        for (text, differences) in &kind.examples {
            differences.iter().for_each(|d| println!("    {d}"));
            println!("    gemel-isa run --vector '{text}'");
        }
    }
    for (why, text) in &report.lost {
        println!("lost: {why}: {text}");
    }
    assert!(report.agreed(), "{} kinds of difference, {} cases lost", report.kinds.len(), report.lost.len());
    assert_eq!(report.cases, CASES);
}
