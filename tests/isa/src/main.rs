//! `gemel-isa`: measures the interpreter against the CPU that it runs on.

use anyhow::{Context, Result, bail};
use clap::{Parser, Subcommand};
use gemel_isa_tests::case::Mode;
use gemel_isa_tests::run::{self, Plan, Report, Runner};
use gemel_isa_tests::{compare, vector};
use gemel_x86::CpuModel;
use iced_x86::Code;
use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// The interpreter against silicon, instruction by instruction.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs random cases on both sides and tells what differs.
    Run(RunArguments),
}

#[derive(clap::Args)]
struct RunArguments {
    /// How many cases.
    #[arg(long, default_value_t = 1_000_000)]
    cases: u64,
    /// Where random numbers start.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Only this mnemonic, as iced names it.
    #[arg(long)]
    mnemonic: Option<String>,
    /// Only this mode: 64, 32 or 16.
    #[arg(long)]
    mode: Option<u32>,
    /// End after so many seconds.
    #[arg(long)]
    seconds: Option<u64>,
    /// Processes at once.
    #[arg(long, default_value_t = 1)]
    jobs: u64,
    /// Reproducers of each kind of difference.
    #[arg(long, default_value_t = 1)]
    examples: usize,
    /// Leave reproducers as they came up.
    #[arg(long)]
    whole: bool,
    /// Tell the number of cases of every mnemonic.
    #[arg(long)]
    counts: bool,
    /// Run this one line instead, and tell what both sides left.
    #[arg(long)]
    vector: Option<String>,
}

fn main() -> Result<ExitCode> {
    match Arguments::parse().command {
        Command::Run(arguments) => run(&arguments),
    }
}

fn plan(arguments: &RunArguments) -> Result<Plan> {
    let mnemonic = arguments
        .mnemonic
        .as_deref()
        .map(|name| run::mnemonic(name).with_context(|| format!("there is no mnemonic '{name}'")));
    let modes: Vec<_> =
        Mode::ALL.into_iter().filter(|m| arguments.mode.is_none_or(|bits| bits == m.bits())).collect();
    if modes.is_empty() {
        bail!("modes are 64, 32 and 16");
    }
    Ok(Plan {
        cases: arguments.cases,
        time: arguments.seconds.map_or(Duration::MAX, Duration::from_secs),
        seed: arguments.seed,
        mnemonic: mnemonic.transpose()?,
        modes,
        examples: arguments.examples,
    })
}

fn run(arguments: &RunArguments) -> Result<ExitCode> {
    let plan = plan(arguments)?;
    if let Some(text) = &arguments.vector {
        return one(text, &plan);
    }
    let start = Instant::now();
    let report = all_jobs(&plan, arguments)?;
    let took = start.elapsed();
    print(&report, arguments);
    println!(
        "{} cases in {:.1} s: {:.0} a second; {} tries dropped; {} kinds of difference, {} cases lost",
        report.cases,
        took.as_secs_f64(),
        report.cases as f64 / took.as_secs_f64(),
        report.dropped,
        report.kinds.len(),
        report.lost.len()
    );
    Ok(if report.agreed() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Splits the plan among threads, each with a child process and a guest of its own.
fn all_jobs(plan: &Plan, arguments: &RunArguments) -> Result<Report> {
    let jobs = arguments.jobs.max(1);
    let part = |job: u64| Plan {
        cases: plan.cases / jobs + u64::from(job < plan.cases % jobs),
        seed: plan.seed.wrapping_mul(0x1_0001).wrapping_add(job),
        ..plan.clone()
    };
    let run_part = |job: u64| -> Result<Report> {
        let plan = part(job);
        let mut runner = Runner::new(&plan, &CpuModel::x86_64_v3())?;
        let mut report = runner.run(&plan)?;
        if !arguments.whole {
            runner.shrink(&mut report)?;
        }
        Ok(report)
    };
    let mut report = Report::default();
    std::thread::scope(|scope| -> Result<()> {
        let run_part = &run_part;
        let threads: Vec<_> = (0..jobs).map(|job| scope.spawn(move || run_part(job))).collect();
        for thread in threads {
            let Ok(part) = thread.join() else { bail!("a job panicked") };
            report.merge(part?, plan.examples);
        }
        Ok(())
    })?;
    Ok(report)
}

fn print(report: &Report, arguments: &RunArguments) {
    if arguments.counts {
        let mut counts: BTreeMap<String, u64> = BTreeMap::new();
        for (form, cases) in &report.forms {
            let code = Code::try_from(usize::from(*form)).unwrap_or(Code::INVALID);
            *counts.entry(format!("{:?}", code.mnemonic())).or_default() += cases;
        }
        counts.iter().for_each(|(mnemonic, cases)| println!("{mnemonic}: {cases}"));
    }
    for ((mnemonic, elements), kind) in &report.kinds {
        let vendor = if kind.vendor { " (the vendor's)" } else { "" };
        println!("{mnemonic}: {} cases differ in {elements}{vendor}", kind.cases);
        for (text, differences) in &kind.examples {
            if let Ok((case, _)) = vector::parse(text) {
                println!("    {}", run::instruction(&case));
            }
            differences.iter().for_each(|d| println!("    {d}"));
            println!("    {text}");
        }
    }
    for (why, text) in report.lost.iter().take(20) {
        println!("lost: {why}: {text}");
    }
    if !compare::host_is_amd() {
        println!(
            "this CPU is of another vendor than the model: what the manuals leave to the vendor is told apart"
        );
    }
}

fn one(text: &str, plan: &Plan) -> Result<ExitCode> {
    let (case, expected) = vector::parse(text)?;
    let mut runner = Runner::new(plan, &CpuModel::x86_64_v3())?;
    let (answer, ours, differences) = runner.one(&case)?;
    println!("{}", run::instruction(&case));
    match answer {
        Ok(native) => {
            println!("silicon:     {}", vector::to_text(&case, Some(&native)));
            if expected.is_some_and(|e| e != native) {
                println!("which is not what the line says");
            }
        }
        Err(lost) => println!("silicon:     {lost}"),
    }
    println!("interpreter: {}", vector::to_text(&case, Some(&ours)));
    differences.iter().for_each(|d| println!("  {d}"));
    Ok(if differences.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
