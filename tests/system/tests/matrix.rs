//! The matrix: every guest of `tests/guests` plain, recorded and replayed, one test each, so that a failure has a name.
//!
//! A part that represents the whole runs by default; `GEMEL_MATRIX=all` runs the rest as well, which otherwise counts as
//! ignored, with this reason. Runs are shared: the test of a replay replays what the test of its recording recorded.

use anyhow::{Context, Result, anyhow, ensure};
use gemel_system_tests::child::{self, Bounded, Finished};
use gemel_system_tests::gemel::{gemel, gemel_with};
use gemel_system_tests::guest::Guest;
use gemel_system_tests::results;
use gemel_system_tests::terminal::Terminal;
use gemel_system_tests::typist::{self, Typist};
use libtest_mimic::{Arguments, Completion, Failed, Trial};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tempfile::TempDir;

/// For one run of one guest. The longest has about 10 G instructions.
const LIMIT: Duration = Duration::from_secs(1200);

#[derive(Clone, Copy, Debug, PartialEq)]
enum Role {
    Plain,
    Recorded,
    Replayed,
}
use Role::{Plain, Recorded, Replayed};
const ROLES: [Role; 3] = [Plain, Recorded, Replayed];

/// Each guest, and the roles in which it runs by default
const GUESTS: &[(&str, &[Role])] = &[
    ("boot-cloud", &ROLES),
    ("boot-amd64", &[]),
    ("boot-686", &[]),
    ("boot-686-pae", &[]),
    ("cpu-int", &[Plain]),
    ("cpu-fp", &[]),
    ("syscall", &[]),
    ("forkexec", &[]),
    ("pagefault", &[]),
    ("disk-virtio", &[Recorded, Replayed]),
    ("idle", &[Plain]),
    ("interact", &[Recorded, Replayed]),
    ("lines", &[Recorded, Replayed]),
    ("shell", &[Plain]),
    ("apps-run", &[]),
    ("apps-systemd", &[]),
];

fn main() -> ExitCode {
    let everything = std::env::var("GEMEL_MATRIX").is_ok_and(|value| value == "all");
    let mut trials = Vec::new();
    for &(guest, by_default) in GUESTS {
        let due = |role| everything || by_default.contains(&role);
        let subject = Arc::new(Subject::new(guest, due(Plain)));
        for role in ROLES {
            let subject = Arc::clone(&subject);
            let name = format!("{role:?}_{guest}").to_lowercase().replace('-', "_");
            let runs = due(role);
            trials.push(Trial::ignorable_test(name, move || {
                if !runs {
                    return Ok(Completion::ignored_with(
                        "not in the default part of the matrix: GEMEL_MATRIX=all",
                    ));
                }
                let outcome = match role {
                    Plain => subject.plain().map(drop),
                    Recorded => subject.recorded_like_plain(),
                    Replayed => subject.replayed_like_recorded(),
                };
                outcome.map(|()| Completion::Completed).map_err(|error| Failed::from(format!("{error:#}")))
            }));
        }
    }
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

/// A guest with the runs of it that tests share
struct Subject {
    name: &'static str,
    /// Whether the plain run is made at all, so that others may be compared with it
    plain_is_due: bool,
    plain: OnceLock<Result<Outcome, String>>,
    recorded: OnceLock<Result<Outcome, String>>,
}

/// A run that ended as it should, with the files that it left
struct Outcome {
    serial: Vec<u8>,
    report: Value,
    folder: TempDir,
}

impl Subject {
    fn new(name: &'static str, plain_is_due: bool) -> Self {
        Self { name, plain_is_due, plain: OnceLock::new(), recorded: OnceLock::new() }
    }

    fn plain(&self) -> Result<&Outcome> {
        shared(&self.plain, || {
            let guest = Guest::obtain(self.name)?;
            run(&guest, tempfile::tempdir()?, &mut gemel_with("run", &guest)?)
        })
    }

    fn recorded(&self) -> Result<&Outcome> {
        shared(&self.recorded, || {
            let guest = Guest::obtain(self.name)?;
            let folder = tempfile::tempdir()?;
            let mut command = gemel_with("record", &guest)?;
            command.arg("-o").arg(log(folder.path()));
            run(&guest, folder, &mut command)
        })
    }

    /// Under the free clock, recording changes nothing that the guest can see. What is typed comes when it comes: there is
    /// nothing to compare then.
    fn recorded_like_plain(&self) -> Result<()> {
        let recorded = self.recorded()?;
        if self.plain_is_due && typist::for_guest(self.name).is_none() {
            let plain = self.plain().context("there is no plain run to compare with")?;
            same_end(&plain.report, &recorded.report).context("plain against recorded")?;
        }
        Ok(())
    }

    fn replayed_like_recorded(&self) -> Result<()> {
        let recorded = self.recorded().context("there is nothing to replay")?;
        let replayed = replay(&Guest::obtain(self.name)?, &log(recorded.folder.path()))?;
        same_end(&recorded.report, &replayed.report).context("recorded against replayed")?;
        ensure!(recorded.serial == replayed.serial, "the replay printed something else on the serial port");
        Ok(())
    }
}

/// The result of the first caller's work, for all.
fn shared(
    cell: &OnceLock<Result<Outcome, String>>,
    work: impl FnOnce() -> Result<Outcome>,
) -> Result<&Outcome> {
    cell.get_or_init(|| work().map_err(|error| format!("{error:#}")))
        .as_ref()
        .map_err(|error| anyhow!("{error}"))
}

fn log(folder: &Path) -> PathBuf {
    folder.join("run.gml")
}

/// Runs a command line to its end and checks the guest's results. Where the guest wants somebody to type, the clock is paced and
/// somebody does.
fn run(guest: &Guest, folder: TempDir, command: &mut Command) -> Result<Outcome> {
    command.arg("--json");
    let (finished, serial) = match typist::for_guest(&guest.name) {
        None => unattended(folder.path(), command.args(["--clock", "free"]))?,
        Some(typist) => attended(folder.path(), command, typist)?,
    };
    outcome(guest, folder, &finished, serial)
}

/// Replays a log; nobody types, whoever did when it was recorded.
fn replay(guest: &Guest, log: &Path) -> Result<Outcome> {
    let folder = tempfile::tempdir()?;
    let (finished, serial) = unattended(folder.path(), gemel("replay")?.arg(log).arg("--json"))?;
    outcome(guest, folder, &finished, serial)
}

fn unattended(folder: &Path, command: &mut Command) -> Result<(Finished, Vec<u8>)> {
    let serial = folder.join("serial");
    let finished = child::run(command.arg("--serial").arg(format!("file:{}", serial.display())), LIMIT)?;
    Ok((finished, fs::read(serial).context("the run left no serial output")?))
}

fn attended(folder: &Path, command: &mut Command, typist: Typist) -> Result<(Finished, Vec<u8>)> {
    let (serial, control) = (folder.join("serial"), folder.join("control"));
    command.arg("--serial").arg(format!("unix:{},server", serial.display())).arg("--control").arg(&control);
    let running = Bounded::start(command, LIMIT)?;
    let mut port = Terminal::connect(&serial, LIMIT).with_context(|| running.printed().1)?;
    typist(&mut port, &control).with_context(|| running.printed().1)?;
    let printed = port.finish(LIMIT)?;
    Ok((running.succeed()?, printed))
}

fn outcome(guest: &Guest, folder: TempDir, finished: &Finished, serial: Vec<u8>) -> Result<Outcome> {
    results::check(&guest.expected, &serial)?;
    let report = serde_json::from_str(&finished.stdout).context("the output with --json is not JSON")?;
    Ok(Outcome { serial, report, folder })
}

/// Both runs ended at the same position with the same CPU, devices and RAM.
fn same_end(one: &Value, other: &Value) -> Result<()> {
    for what in ["position", "digest"] {
        ensure!(!one[what].is_null(), "the report has no {what}: {one}");
        ensure!(one[what] == other[what], "{what} differs: {} and {}", one[what], other[what]);
    }
    Ok(())
}
