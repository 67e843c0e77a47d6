//! `gemel-bench`: measures Gemel from outside, in turn with Bochs, and prints medians. `run.sh` sets up and starts it.
//!
//! Not responsible for judging: it says what it measured beside what is aimed at, and fails only when a guest's results are wrong.

mod bochs;
mod cost;
mod echo;
mod ring3;

use anyhow::{Context, Result, ensure};
use clap::{Parser, ValueEnum};
use gemel_system_tests::child::Bounded;
use gemel_system_tests::engine::Engine;
use gemel_system_tests::gemel::{gemel, gemel_with};
use gemel_system_tests::guest::Guest;
use gemel_system_tests::results;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

/// For one run of Gemel. The longest guest here has 10 G instructions.
const LIMIT: Duration = Duration::from_secs(900);
/// For the serial output of the idle guest to show that it has come to a point.
const POLL: Duration = Duration::from_millis(20);

/// What is measured, in the order of the table: key, unit, what is aimed at
const FIGURES: &[(&str, &str, &str)] = &[
    ("boot-cloud, gemel run", "M instructions / CPU s", "about 250"),
    ("boot-cloud, bochs", "M instructions / CPU s", ""),
    ("boot-cloud, gemel / bochs", "ratio", "at least 2"),
    ("cpu-int, gemel run", "M instructions / CPU s", "about 250"),
    ("cpu-int, bochs", "M instructions / CPU s", ""),
    ("cpu-int, gemel / bochs", "ratio", "at least 2"),
    ("boot-cloud, record / run", "ratio of CPU time", "at most 1.03"),
    ("boot-cloud, replay / record", "ratio of CPU time", "at most 1"),
    ("cpu-int, record / run", "ratio of CPU time", "at most 1.03"),
    ("cpu-int, replay / record", "ratio of CPU time", "at most 1"),
    ("idle, 10 s of guest time", "CPU s", "under 0.3"),
    ("idle, log of boot and 10 s", "bytes", "under 100000"),
    ("shell, echo of a typed byte", "ms", "under 2"),
    ("shell, echo at a pair's console", "ms", "under 1 more"),
    ("compute, ring 3 natively", "CPU s", ""),
    ("compute, ring 3 recorded on KVM", "CPU s", ""),
    ("compute, KVM / natively", "ratio of CPU time", "at most 1.05"),
];

/// Measures Gemel against Debian's Bochs
#[derive(Parser)]
struct Arguments {
    /// Rounds; each measures everything once, in turn
    #[arg(long, default_value_t = 3)]
    runs: u32,
    /// Prints one JSON object instead of the table
    #[arg(long)]
    json: bool,
    /// Leaves Bochs out
    #[arg(long)]
    no_bochs: bool,
    /// Measures only these
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Part>,
}

/// What can be measured alone
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq)]
enum Part {
    /// Running, recording and replaying guests, and Bochs
    Speed,
    /// A guest that sleeps
    Idle,
    /// The way of a typed byte
    Echo,
    /// Ring 3 recorded on KVM against the host
    Ring3,
}

/// All values measured for each figure
type Samples = BTreeMap<&'static str, Vec<f64>>;

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let wanted = |part| arguments.only.is_empty() || arguments.only.contains(&part);
    let mut samples = Samples::new();
    for round in 1..=arguments.runs {
        let tell = |what: &str| eprintln!("round {round} of {}: {what}", arguments.runs);
        if wanted(Part::Speed) {
            for name in ["boot-cloud", "cpu-int"] {
                tell(name);
                let guest = Guest::obtain(name)?;
                speed(name, &guest, !arguments.no_bochs, &mut samples).with_context(|| name.to_string())?;
            }
        }
        if wanted(Part::Idle) {
            tell("idle");
            idleness(&Guest::obtain("idle")?, &mut samples).context("idle")?;
        }
        if wanted(Part::Echo) {
            tell("shell");
            let shell = Guest::obtain("shell")?;
            add(&mut samples, "shell, echo of a typed byte", echo::alone(&shell)?)?;
            add(&mut samples, "shell, echo at a pair's console", echo::on_a_pair(&shell)?)?;
        }
        if wanted(Part::Ring3) {
            tell("compute");
            computing(&mut samples).context("compute")?;
        }
    }
    if arguments.json {
        print_json(&samples)
    } else {
        print_table(&samples, arguments.runs)
    }
    Ok(())
}

/// The figure with this name, so that a misspelt one cannot go missing from the table.
fn figure(name: &str) -> Result<&'static str> {
    let found = FIGURES.iter().find(|(figure, ..)| *figure == name);
    Ok(found.with_context(|| format!("no figure {name}"))?.0)
}

/// Notes one value of a figure.
fn add(samples: &mut Samples, name: &str, value: f64) -> Result<()> {
    samples.entry(figure(name)?).or_default().push(value);
    Ok(())
}

/// Ring 3 recorded on KVM, where there is one, against the host.
fn computing(samples: &mut Samples) -> Result<()> {
    if let Some(why) = Engine::Kvm.missing() {
        eprintln!("ring 3 is not measured: {why}");
        return Ok(());
    }
    let measured = ring3::measure()?;
    add(samples, "compute, ring 3 natively", measured.native)?;
    add(samples, "compute, ring 3 recorded on KVM", measured.recorded)?;
    add(samples, "compute, KVM / natively", measured.recorded / measured.native)
}

/// Runs, records and replays one guest as fast as possible, and runs it on Bochs.
fn speed(name: &str, guest: &Guest, with_bochs: bool, samples: &mut Samples) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let log = folder.path().join("log.gml");
    let mut add = |what: &str, value: f64| add(samples, &format!("{name}, {what}"), value);
    let (run, ran) = timed(guest, folder.path(), gemel_with("run", guest)?.args(["--clock", "free"]))?;
    let instructions = ran["instructions"].as_f64().context("gemel run --json names no instructions")?;
    let speed = instructions / run / 1e6;
    add("gemel run", speed)?;
    let mut recording = gemel_with("record", guest)?;
    recording.args(["--clock", "free", "-o"]).arg(&log);
    let (record, _) = timed(guest, folder.path(), &mut recording)?;
    add("record / run", record / run)?;
    let (replay, _) = timed(guest, folder.path(), gemel("replay")?.arg(&log))?;
    add("replay / record", replay / record)?;
    if with_bochs {
        let bochs = bochs::run(guest)?;
        let bochs_speed = bochs.ticks as f64 / bochs.cpu / 1e6;
        add("bochs", bochs_speed)?;
        add("gemel / bochs", speed / bochs_speed)?;
    }
    Ok(())
}

/// CPU seconds and JSON report of a run whose guest must have printed the right results.
fn timed(guest: &Guest, folder: &Path, command: &mut Command) -> Result<(f64, Value)> {
    let serial = folder.join("serial");
    command.arg("--serial").arg(format!("file:{}", serial.display())).arg("--json");
    let (cpu, finished) = cost::cpu_of(command, LIMIT)?;
    ensure!(finished.status.success(), "{}: {}", finished.status, finished.stderr);
    results::check(&guest.expected, &fs::read(&serial)?)?;
    Ok((cpu, serde_json::from_str(&finished.stdout).context("the output with --json is not JSON")?))
}

/// Records the idle guest with its time paced by the host's clock, and watches what its ten seconds cost.
fn idleness(guest: &Guest, samples: &mut Samples) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (log, serial) = (folder.path().join("log.gml"), folder.path().join("serial"));
    let mut recording = gemel_with("record", guest)?;
    recording.arg("--serial").arg(format!("file:{}", serial.display())).arg("-o").arg(&log);
    let recording = Bounded::start(&mut recording, LIMIT)?;
    let begin = cpu_when("@BEGIN", &serial, &recording)?;
    let end = cpu_when("@STEP idle sleep", &serial, &recording)?;
    recording.succeed()?;
    results::check(&guest.expected, &fs::read(&serial)?)?;
    add(samples, "idle, 10 s of guest time", end - begin)?;
    add(samples, "idle, log of boot and 10 s", fs::metadata(&log)?.len() as f64)
}

/// CPU seconds that `running` had used when `text` stood in its guest's serial output.
fn cpu_when(text: &str, serial: &Path, running: &Bounded) -> Result<f64> {
    let started = Instant::now();
    loop {
        let cpu = cost::cpu_so_far(running.id())?;
        if String::from_utf8_lossy(&fs::read(serial).unwrap_or_default()).contains(text) {
            return Ok(cpu);
        }
        ensure!(started.elapsed() < LIMIT, "the guest never printed {text}\n{}", running.printed().1);
        thread::sleep(POLL);
    }
}

/// Median, smallest and largest of at least one value
fn summary(values: &[f64]) -> (f64, f64, f64) {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let (low, high) = (sorted[(sorted.len() - 1) / 2], sorted[sorted.len() / 2]);
    (f64::midpoint(low, high), sorted[0], sorted[sorted.len() - 1])
}

fn print_table(samples: &Samples, runs: u32) {
    println!("| figure | median of {runs} | min - max | unit | aim |\n|---|---|---|---|---|");
    for (name, unit, aim) in FIGURES {
        let Some(values) = samples.get(name) else { continue };
        let (median, least, most) = summary(values);
        let digits = if median < 100.0 { 3 } else { 0 };
        println!("| {name} | {median:.digits$} | {least:.digits$} - {most:.digits$} | {unit} | {aim} |");
    }
}

fn print_json(samples: &Samples) {
    let figures: Vec<Value> = FIGURES
        .iter()
        .filter_map(|(name, unit, aim)| {
            let values = samples.get(name)?;
            Some(json!({ "figure": name, "unit": unit, "aim": aim, "median": summary(values).0, "values": values }))
        })
        .collect();
    println!("{}", json!({ "figures": figures }));
}
