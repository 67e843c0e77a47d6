//! One guest, and the runs of it that its tests share.
//!
//! Not responsible for which of them are due (`main`).

use crate::{Role, pair};
use anyhow::{Context, Result, anyhow, ensure};
use gemel_system_tests::child::{self, Bounded, Finished};
use gemel_system_tests::gemel::{gemel, gemel_with};
use gemel_system_tests::guest::Guest;
use gemel_system_tests::results;
use gemel_system_tests::terminal::Terminal;
use gemel_system_tests::typist::{self, Typist};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;
use tempfile::TempDir;

/// For one run of one guest. The longest has about 10 G instructions.
pub const LIMIT: Duration = Duration::from_secs(1200);

/// A guest with its runs, each made by whoever needs it first
pub struct Subject {
    name: &'static str,
    /// Whether the plain run is made at all, so that others may be compared with it
    plain_is_due: bool,
    plain: Run,
    recorded: Run,
    replayed: Run,
    paired: Run,
}

type Run = OnceLock<Result<Outcome, String>>;

/// A run that ended as it should, with the files that it left
pub struct Outcome {
    /// What the guest printed
    pub serial: Vec<u8>,
    /// What `--json` printed
    pub report: Value,
    /// What `--digests` wrote: a line for each epoch and one for the end. Empty for a pair, which compares epochs by itself
    pub digests: String,
    /// Lives as long as this
    pub folder: TempDir,
}

impl Subject {
    /// A guest of which nothing has run yet.
    pub fn new(name: &'static str, plain_is_due: bool) -> Self {
        let not_yet = Run::new;
        let (plain, recorded, replayed, paired) = (not_yet(), not_yet(), not_yet(), not_yet());
        Self { name, plain_is_due, plain, recorded, replayed, paired }
    }

    /// Runs the guest as `role`, if it has not yet, and compares the run with those that it must be like.
    pub fn test(&self, role: Role) -> Result<&Outcome> {
        match role {
            Role::Plain => self.plain(),
            Role::Recorded => self.recorded_like_plain(),
            Role::Replayed => self.replayed_like_recorded(),
            Role::Paired => self.paired_like_plain(),
        }
    }

    fn plain(&self) -> Result<&Outcome> {
        once(&self.plain, || {
            let guest = Guest::obtain(self.name)?;
            run(&guest, tempfile::tempdir()?, &mut gemel_with("run", &guest)?)
        })
    }

    fn recorded(&self) -> Result<&Outcome> {
        once(&self.recorded, || {
            let guest = Guest::obtain(self.name)?;
            let folder = tempfile::tempdir()?;
            let mut command = gemel_with("record", &guest)?;
            command.arg("-o").arg(log(folder.path()));
            run(&guest, folder, &mut command)
        })
    }

    /// A plain run, if one is due and nobody types: under the free clock no role changes anything that the guest can see, but what
    /// is typed comes when it comes.
    fn plain_to_compare_with(&self) -> Result<Option<&Outcome>> {
        let comparable = self.plain_is_due && typist::for_guest(self.name).is_none();
        comparable.then(|| self.plain()).transpose().context("there is no plain run to compare with")
    }

    fn recorded_like_plain(&self) -> Result<&Outcome> {
        let recorded = self.recorded()?;
        if let Some(plain) = self.plain_to_compare_with()? {
            same_run(plain, recorded).context("plain against recorded")?;
        }
        Ok(recorded)
    }

    fn replayed_like_recorded(&self) -> Result<&Outcome> {
        let recorded = self.recorded().context("there is nothing to replay")?;
        let replayed =
            once(&self.replayed, || replay(&Guest::obtain(self.name)?, &log(recorded.folder.path())))?;
        same_run(recorded, replayed).context("recorded against replayed")?;
        ensure!(recorded.serial == replayed.serial, "the replay printed something else on the serial port");
        Ok(replayed)
    }

    fn paired_like_plain(&self) -> Result<&Outcome> {
        let paired = once(&self.paired, || pair::run(&Guest::obtain(self.name)?))?;
        if let Some(plain) = self.plain_to_compare_with()? {
            same_end(&plain.report, &paired.report).context("plain against paired")?;
            ensure!(plain.serial == paired.serial, "the pair's console showed something else");
        }
        Ok(paired)
    }
}

/// The result of the first caller's work, for all.
fn once(run: &Run, work: impl FnOnce() -> Result<Outcome>) -> Result<&Outcome> {
    let result = run.get_or_init(|| work().map_err(|error| format!("{error:#}")));
    result.as_ref().map_err(|error| anyhow!("{error}"))
}

fn log(folder: &Path) -> PathBuf {
    folder.join("run.gml")
}

/// Runs a command line to its end and checks the guest's results. Where the guest wants somebody to type, the clock is paced and
/// somebody does.
fn run(guest: &Guest, folder: TempDir, command: &mut Command) -> Result<Outcome> {
    let (finished, serial) = match typist::for_guest(&guest.name) {
        None => unattended(folder.path(), command.args(["--clock", "free"]))?,
        Some(typist) => attended(folder.path(), command, typist)?,
    };
    outcome(guest, folder, &finished, serial)
}

/// Replays a log; nobody types, whoever did when it was recorded.
pub fn replay(guest: &Guest, log: &Path) -> Result<Outcome> {
    let folder = tempfile::tempdir()?;
    let (finished, serial) = unattended(folder.path(), gemel("replay")?.arg(log))?;
    outcome(guest, folder, &finished, serial)
}

fn unattended(folder: &Path, command: &mut Command) -> Result<(Finished, Vec<u8>)> {
    let serial = folder.join("serial");
    command.arg("--serial").arg(format!("file:{}", serial.display()));
    let finished = child::run(told(folder, command), LIMIT)?;
    Ok((finished, fs::read(serial).context("the run left no serial output")?))
}

fn attended(folder: &Path, command: &mut Command, typist: Typist) -> Result<(Finished, Vec<u8>)> {
    let (serial, control) = (folder.join("serial"), folder.join("control"));
    command.arg("--serial").arg(format!("unix:{},server", serial.display())).arg("--control").arg(&control);
    let running = Bounded::start(told(folder, command), LIMIT)?;
    let mut port = Terminal::connect(&serial, LIMIT).with_context(|| running.printed().1)?;
    typist(&mut port, &[control]).with_context(|| running.printed().1)?;
    let printed = port.finish(LIMIT)?;
    Ok((running.succeed()?, printed))
}

/// Has the run's figures told as JSON and its digests written to `digests` in the folder.
fn told<'a>(folder: &Path, command: &'a mut Command) -> &'a mut Command {
    command.arg("--json").arg("--digests").arg(folder.join("digests"))
}

/// What a run told with `--json`.
pub fn report(finished: &Finished) -> Result<Value> {
    serde_json::from_str(&finished.stdout).context("the output with --json is not JSON")
}

fn outcome(guest: &Guest, folder: TempDir, finished: &Finished, serial: Vec<u8>) -> Result<Outcome> {
    results::check(&guest.expected, &serial)?;
    let report = report(finished)?;
    let digests = fs::read_to_string(folder.path().join("digests")).context("the run left no digests")?;
    Ok(Outcome { serial, report, digests, folder })
}

/// Both runs had the same digests of CPU, devices and RAM at every epoch, and ended at the same instruction.
fn same_run(one: &Outcome, other: &Outcome) -> Result<()> {
    for (number, (one, other)) in one.digests.lines().zip(other.digests.lines()).enumerate() {
        ensure!(one == other, "epoch {} differs (count, ns, digest):\n{one}\n{other}", number + 1);
    }
    same_end(&one.report, &other.report)?;
    let epochs = |outcome: &Outcome| outcome.digests.lines().count();
    ensure!(epochs(one) == epochs(other) && epochs(one) > 1, "epochs: {} and {}", epochs(one), epochs(other));
    Ok(())
}

/// Both runs ended at the same instruction with the same digests.
pub fn same_end(one: &Value, other: &Value) -> Result<()> {
    for what in ["instructions", "rip", "guest_time_s", "digest"] {
        let (one, other) = (&one[what], &other[what]);
        ensure!(!one.is_null() && one == other, "{what} differs at the end: {one} and {other}");
    }
    Ok(())
}
