//! A kernel on a pair of engines, like ones and unlike ones, neither side of which dies.
//!
//! Not responsible for what happens when one does (`failover`).

use anyhow::{Context, Result, ensure};
use gemel_system_tests::child::Bounded;
use gemel_system_tests::engine::Engine;
use gemel_system_tests::gemel::gemel;
use gemel_system_tests::kernel::{GUEST_IS_CONTENT, Kernel};
use gemel_system_tests::pair::{self, Pair};
use gemel_system_tests::{child, results};
use libtest_mimic::Completion;
use serde_json::Value;
use std::fs;
use std::time::Duration;

/// For one side, which takes a second or two where nothing is wrong.
const LIMIT: Duration = Duration::from_secs(120);

/// Every choice of engines with KVM on a side.
pub fn with_kvm(name: &str) -> Result<Completion> {
    if let Some(reason) = Engine::Kvm.missing() {
        return Ok(Completion::ignored_with(reason));
    }
    if name == "leaks" {
        return Ok(Completion::ignored_with("it meets what KVM does not hide"));
    }
    let kernel = Kernel::obtain(name)?;
    for engines @ [leader, follower] in Engine::PAIRS {
        if engines != [Engine::Interp; 2] {
            run(&kernel, engines).with_context(|| format!("{leader} leads, {follower} follows"))?;
        }
    }
    Ok(Completion::Completed)
}

/// Both sides come to the same end, and so does a replay of the secondary's log on either engine.
fn run(kernel: &Kernel, [leader, follower]: [Engine; 2]) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let machine = |role: &str| {
        // A disk of its own for each, which both begin with nothing on it.
        let place = folder.path().join(format!("machine-{role}"));
        fs::create_dir(&place)?;
        let mut command = gemel(role)?;
        kernel.arguments(&mut command, &place)?;
        command.args(if role == "primary" { leader.leads() } else { follower.follows() });
        Ok(command)
    };
    let Pair { primary, secondary, console, terminal, .. } = Pair::start(machine, folder.path(), LIMIT)?;
    let serial = terminal.finish(LIMIT)?;
    console.succeed()?;
    results::check(&kernel.expected, &serial)?;
    let (primary, secondary) = (end(primary)?, end(secondary)?);
    ensure!(primary == secondary, "the primary ended at {primary:?}, the secondary at {secondary:?}");
    for engine in Engine::here() {
        let mut command = gemel("replay")?;
        command.arg(pair::log(folder.path(), "secondary")).args(["--json", "--accel", engine.name()]);
        let file = folder.path().join("replayed");
        command.arg("--serial").arg(format!("file:{}", file.display()));
        let replayed = place(&child::run(&mut command, LIMIT)?.stdout)?;
        ensure!(replayed == secondary, "replayed on {engine}: {replayed:?}, not {secondary:?}");
        ensure!(fs::read(file)? == serial, "replayed on {engine}, it printed something else");
    }
    Ok(())
}

/// Where a side ended: at the kernel's own end.
fn end(side: Bounded) -> Result<[Value; 2]> {
    let finished = side.finish()?;
    let (status, said) = (finished.status, &finished.stderr);
    ensure!(status.code() == Some(GUEST_IS_CONTENT), "a side ended with {status}: {said}");
    place(&finished.stdout)
}

/// Count and digest of a report.
fn place(report: &str) -> Result<[Value; 2]> {
    let report: Value = serde_json::from_str(report).context("the output with --json is not JSON")?;
    let place = ["exits", "digest"].map(|what| report[what].clone());
    ensure!(!place.contains(&Value::Null), "no count or digest in {report}");
    Ok(place)
}
