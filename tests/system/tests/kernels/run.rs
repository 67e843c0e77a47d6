//! Recording a kernel, replaying it, and comparing the two.

use anyhow::{Context, Result, ensure};
use gemel_system_tests::child::Bounded;
use gemel_system_tests::engine::{Engine, WITHOUT_TSC};
use gemel_system_tests::gemel::gemel;
use gemel_system_tests::kernel::{GUEST_IS_CONTENT, Kernel};
use gemel_system_tests::results;
use libtest_mimic::Completion;
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// For one run, which takes a second where nothing is wrong.
const LIMIT: Duration = Duration::from_secs(120);

/// Exits between two digests.
const EPOCH: &str = "500";
/// How `gemel` says that it cannot do what it was asked to.
const REFUSED: i32 = 2;

/// What a run left
struct Outcome {
    /// What the kernel printed
    serial: Vec<u8>,
    /// What `--json` printed
    report: Value,
    /// What `--digests` wrote
    digests: String,
}

/// Runs a command line of `gemel` to the end that a kernel makes, with outputs in `folder` under `name`.
fn finish(command: &mut Command, exit: i32, folder: &Path, name: &str) -> Result<Outcome> {
    let file = |what: &str| folder.join(format!("{name}.{what}"));
    command.arg("--json").arg("--digests").arg(file("digests"));
    command.arg("--serial").arg(format!("file:{}", file("serial").display()));
    let finished = Bounded::start(command, LIMIT)?.finish()?;
    ensure!(
        finished.status.code() == Some(exit),
        "{name}: {}: {command:?}\n{}\n{}",
        finished.status,
        finished.stdout,
        finished.stderr
    );
    Ok(Outcome {
        serial: fs::read(file("serial"))?,
        report: serde_json::from_str(&finished.stdout).context("the output with --json is not JSON")?,
        digests: fs::read_to_string(file("digests"))?,
    })
}

/// Records a kernel with further options, and judges what it printed.
fn record(kernel: &Kernel, options: &[&str], folder: &Path) -> Result<Outcome> {
    let mut command = gemel("record")?;
    kernel.arguments(&mut command, folder)?;
    command.args(options).arg("-o").arg(folder.join("run.gml"));
    let recorded = finish(&mut command, GUEST_IS_CONTENT, folder, "record")?;
    results::check(&kernel.expected, &recorded.serial)?;
    Ok(recorded)
}

/// Replays what was recorded, which must be the same run.
fn replay(recorded: &Outcome, options: &[&str], folder: &Path) -> Result<Outcome> {
    let replayed = finish(gemel("replay")?.arg(folder.join("run.gml")).args(options), 0, folder, "replay")
        .with_context(|| format!("replay {options:?}"))?;
    ensure!(replayed.serial == recorded.serial, "replay {options:?} printed something else");
    ensure!(replayed.digests == recorded.digests, "replay {options:?} has other digests");
    for what in ["rip", "digest"] {
        let (one, other) = (&recorded.report[what], &replayed.report[what]);
        ensure!(!one.is_null() && one == other, "{what} differs at the end: {one} and {other}");
    }
    Ok(replayed)
}

/// On the interpreter, counting instructions.
pub fn interpreted(name: &str) -> Result<Completion> {
    let (kernel, folder) = (Kernel::obtain(name)?, tempfile::tempdir()?);
    let recorded = record(&kernel, &["--clock", "free"], folder.path())?;
    replay(&recorded, &[], folder.path())?;
    Ok(Completion::Completed)
}

/// On the interpreter, counting exits as a hypervisor does: with time that repeats, and with the host's. Replayed by it, and by KVM
/// where there is one that can.
pub fn counted_by_exits(name: &str) -> Result<Completion> {
    // The one that reads the TSC says what the default model offers.
    let model = if name == "leaks" { "x86-64-v2" } else { WITHOUT_TSC };
    let not_on_kvm =
        Engine::Kvm.missing().or_else(|| (name == "leaks").then(|| "it meets what KVM does not hide".into()));
    for clock in ["free", "paced"] {
        let (kernel, folder) = (Kernel::obtain(name)?, tempfile::tempdir()?);
        let options = ["--accel", "interp", "--reckoning", "exits", "--clock", clock];
        let options = [&options[..], &["--epoch", EPOCH, "--cpu", model]].concat();
        let recorded = record(&kernel, &options, folder.path())?;
        replay(&recorded, &["--accel", "interp"], folder.path())?;
        match &not_on_kvm {
            None => tell(name, "replayed", &replay(&recorded, &["--accel", "kvm"], folder.path())?),
            Some(reason) => println!("{name} is not replayed on KVM: {reason}"),
        }
    }
    Ok(Completion::Completed)
}

/// On KVM, with what it does not hide asserted to stay unused; replayed by it and by the interpreter.
pub fn on_kvm(name: &str) -> Result<Completion> {
    if let Some(reason) = Engine::Kvm.missing() {
        return Ok(Completion::ignored_with(reason));
    }
    let (kernel, folder) = (Kernel::obtain(name)?, tempfile::tempdir()?);
    if name == "leaks" {
        return refused(&kernel, folder.path()).map(|()| Completion::Completed);
    }
    let options = [&Engine::Kvm.leads()[..], &["--epoch", EPOCH]].concat();
    let recorded = record(&kernel, &options, folder.path())?;
    tell(name, "recorded", &recorded);
    tell(name, "replayed", &replay(&recorded, &["--accel", "kvm"], folder.path())?);
    replay(&recorded, &["--accel", "interp"], folder.path())?;
    Ok(Completion::Completed)
}

/// A kernel that meets what KVM does not hide is not recorded there, and no log is begun.
fn refused(kernel: &Kernel, folder: &Path) -> Result<()> {
    let mut command = gemel("record")?;
    kernel.arguments(&mut command, folder)?;
    let log = folder.join("run.gml");
    command.args(["--accel", "kvm", "-o"]).arg(&log);
    let finished = Bounded::start(&mut command, LIMIT)?.finish()?;
    ensure!(
        finished.status.code() == Some(REFUSED) && finished.stderr.contains("does not hide") && !log.exists(),
        "not refused: {}\n{}",
        finished.status,
        finished.stderr
    );
    println!("leaks is refused: {}", finished.stderr.trim_end());
    Ok(())
}

/// Says how much of a run KVM left to the assistant.
fn tell(name: &str, what: &str, outcome: &Outcome) {
    println!("{name} {what} on KVM: {}", outcome.report["kvm"]);
}
