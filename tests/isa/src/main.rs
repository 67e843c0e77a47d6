//! `gemel-isa`: measures the interpreter against the CPU that it runs on.

use anyhow::{Context, Result, bail};
use clap::{Parser, Subcommand};
use gemel_isa_tests::case::Mode;
use gemel_isa_tests::list::{self, About};
use gemel_isa_tests::run::{self, Plan, Report, Runner};
use gemel_isa_tests::undefined::{self, Measured};
use gemel_isa_tests::{claim, compare, corpus, vector};
use gemel_x86::CpuModel;
use iced_x86::Code;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
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
    /// Runs every opcode of every map, cut off behind each byte; takes --mode and --examples.
    Sweep(RunArguments),
    /// Runs random cases and writes the list of instructions with the number of cases of each.
    List {
        #[command(flatten)]
        run: RunArguments,
        /// Where it goes.
        #[arg(long, default_value = "docs/instructions.md")]
        to: PathBuf,
    },
    /// The corpus of vectors: measures a new one, or checks the interpreter against the one that is there.
    Vectors {
        /// What to do.
        #[arg(value_enum)]
        what: Vectors,
        /// The file.
        #[arg(long, default_value = "tests/isa/vectors/x86-64-v3.corpus")]
        file: PathBuf,
        /// Cases of each mnemonic in a new one.
        #[arg(long, default_value_t = 50)]
        each: usize,
        /// Where random numbers start for a new one.
        #[arg(long, default_value_t = 1)]
        seed: u64,
    },
    /// Says who is right of those whose outcomes a file of vectors tells (vector.txt in the evidence of a comparison).
    Try {
        /// The file.
        file: PathBuf,
    },
    /// Measures the table of undefined results on this CPU and tells where it is another one.
    Undefined {
        /// Cases for each entry and instruction.
        #[arg(long, default_value_t = 5000)]
        cases: usize,
        /// Where random numbers start.
        #[arg(long, default_value_t = 1)]
        seed: u64,
    },
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Vectors {
    Make,
    Check,
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
    /// The CPU model that cases are made for and the interpreter is.
    #[arg(long, default_value = "x86-64-v3", value_parser = CpuModel::parse)]
    cpu: CpuModel,
    /// Run this one line instead, and tell what both sides left.
    #[arg(long)]
    vector: Option<String>,
}

fn main() -> Result<ExitCode> {
    match Arguments::parse().command {
        Command::Run(arguments) => run(&arguments),
        Command::Sweep(arguments) => sweep(&arguments),
        Command::List { run, to } => list(&run, &to),
        Command::Vectors { what: Vectors::Make, file, each, seed } => make_vectors(&file, each, seed),
        Command::Vectors { what: Vectors::Check, file, .. } => check_vectors(&file),
        Command::Try { file } => try_claims(&file),
        Command::Undefined { cases, seed } => measure_undefined(cases, seed),
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
        return one(text, &plan, &arguments.cpu);
    }
    Ok(outcome(&run_and_print(&plan, arguments)?.0))
}

fn outcome(report: &Report) -> ExitCode {
    if report.agreed() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The report, and how many cases a second it took.
fn run_and_print(plan: &Plan, arguments: &RunArguments) -> Result<(Report, f64)> {
    let start = Instant::now();
    let report = all_jobs(plan, arguments)?;
    let took = start.elapsed();
    print(&report, arguments);
    let rate = report.cases as f64 / took.as_secs_f64();
    println!(
        "{} cases in {:.1} s: {:.0} a second; {} tries dropped; {} kinds of difference, {} cases lost",
        report.cases,
        took.as_secs_f64(),
        rate,
        report.dropped,
        report.kinds.len(),
        report.lost.len()
    );
    Ok((report, rate))
}

fn sweep(arguments: &RunArguments) -> Result<ExitCode> {
    let plan = plan(arguments)?;
    let report = Runner::new(&plan, &arguments.cpu)?.sweep(&plan)?;
    print(&report, arguments);
    println!("{} cases; {} kinds of difference", report.cases, report.kinds.len());
    Ok(outcome(&report))
}

fn list(arguments: &RunArguments, to: &Path) -> Result<ExitCode> {
    let plan = plan(arguments)?;
    let (report, rate) = run_and_print(&plan, arguments)?;
    let about = About { cpu: corpus::cpu(), date: corpus::today(), seed: plan.seed, rate };
    let text = list::markdown(&report, &arguments.cpu, &about);
    std::fs::write(to, text).with_context(|| format!("the list cannot be written to {}", to.display()))?;
    Ok(outcome(&report))
}

fn make_vectors(file: &Path, each: usize, seed: u64) -> Result<ExitCode> {
    let corpus = corpus::make(&CpuModel::x86_64_v3(), each, seed)?;
    let bytes = corpus::write(&corpus);
    println!("{} vectors, {} bytes, measured on {}", corpus.vectors.len(), bytes.len(), corpus.cpu);
    std::fs::write(file, bytes).with_context(|| format!("{} cannot be written", file.display()))?;
    check_vectors(file)
}

fn check_vectors(file: &Path) -> Result<ExitCode> {
    let bytes = std::fs::read(file).with_context(|| format!("there is no corpus {}", file.display()))?;
    let corpus = corpus::read(&bytes)?;
    let checked = corpus::check(&corpus, &CpuModel::x86_64_v3())?;
    for (text, differences) in checked.wrong.iter().take(20) {
        println!("{text}");
        differences.iter().for_each(|d| println!("    {d}"));
    }
    let fewest = checked.cases.iter().min_by_key(|(_, n)| **n);
    println!(
        "{} vectors of {} mnemonics measured on {} on {}: {} differ, {} left out (another vendor's unit); fewest of {fewest:?}",
        corpus.vectors.len(),
        checked.cases.len(),
        corpus.cpu,
        corpus.date,
        checked.wrong.len(),
        checked.left_out,
    );
    Ok(if checked.wrong.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn try_claims(file: &Path) -> Result<ExitCode> {
    let text = std::fs::read_to_string(file).with_context(|| format!("{} cannot be read", file.display()))?;
    let claims = claim::read(&text).with_context(|| format!("{} holds no vectors", file.display()))?;
    let plan =
        Plan { cases: 0, time: Duration::ZERO, seed: 0, mnemonic: None, modes: Vec::new(), examples: 0 };
    let mut runner = Runner::new(&plan, &CpuModel::x86_64_v3())?;
    let mut right = true;
    for claim in &claims {
        let verdict = claim::judge(&mut runner, claim)?;
        println!("{}", run::instruction(&claim.case));
        let reference = match &verdict.interpreter {
            Ok(differences) => {
                tell("interpreter", "silicon", Some(differences));
                "silicon"
            }
            Err(why) => {
                println!("    silicon has no answer: {why}");
                "interpreter"
            }
        };
        tell(&claim.who, reference, verdict.claim.as_ref());
        right &= verdict.claim.is_none_or(|differences| differences.is_empty());
    }
    Ok(if right { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn tell(who: &str, reference: &str, differences: Option<&Vec<compare::Difference>>) {
    match differences {
        None => println!("    {who}: left nothing that a vector tells"),
        Some(differences) if differences.is_empty() => println!("    {who}: right"),
        Some(differences) => {
            println!("    {who}: wrong");
            for d in differences {
                println!("        {}: {reference} {}, {who} {}", d.element, d.native, d.ours);
            }
        }
    }
}

fn measure_undefined(cases: usize, seed: u64) -> Result<ExitCode> {
    println!("on {}", corpus::cpu());
    let mut same = true;
    for found in undefined::measure(&CpuModel::x86_64_v3(), cases, seed)? {
        let Measured { entry, mnemonic, cases, others, example } = found;
        let silicon = entry.measured;
        println!(
            "{mnemonic:?}: {:?} {} ({:?}), {} of {}: {others} of {cases} cases are others here",
            entry.element, entry.when, entry.rule, silicon.name, silicon.date
        );
        if let Some((text, predicted, left)) = example {
            println!("    {predicted:#x} in the table, {left:#x} here: {text}");
            same = false;
        }
        same &= cases != 0;
    }
    Ok(if same { ExitCode::SUCCESS } else { ExitCode::FAILURE })
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
        let mut runner = Runner::new(&plan, &arguments.cpu)?;
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

fn one(text: &str, plan: &Plan, model: &CpuModel) -> Result<ExitCode> {
    let (case, expected) = vector::parse(text)?;
    let mut runner = Runner::new(plan, model)?;
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
