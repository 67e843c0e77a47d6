//! A guest on two processes that both live to its end, with somebody at the pair's console.
//!
//! Not responsible for what happens when one of them dies.

use crate::subject::{self, LIMIT, Outcome, report, same_end};
use anyhow::{Context, Result, ensure};
use gemel_system_tests::child::Bounded;
use gemel_system_tests::gemel::{gemel, gemel_with};
use gemel_system_tests::guest::Guest;
use gemel_system_tests::{results, typist};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Runs `guest` on a pair. What the console showed is the guest's serial output, and a replay of the primary's log must show the
/// same and end where both sides ended.
pub fn run(guest: &Guest) -> Result<Outcome> {
    let folder = tempfile::tempdir()?;
    let at = |name: &str| format!("unix:{}", folder.path().join(name).display());
    let clock = if typist::for_guest(&guest.name).is_some() { "paced" } else { "free" };

    let mut command = side("primary", guest, folder.path(), clock)?;
    let mut primary = Bounded::start(command.args(["--listen", &at("link")]), LIMIT)?;
    primary.wait_for_message("waiting for a secondary")?;
    let mut command = side("secondary", guest, folder.path(), clock)?;
    let secondary = Bounded::start(command.args(["--connect", &at("link")]), LIMIT)?;
    let mut command = gemel("console")?;
    command.args([at("primary"), at("secondary")]);
    let (console, mut terminal) = Bounded::start_attached(&mut command, LIMIT)?;

    let messages = || {
        format!("the primary said: {}\nthe secondary said: {}", primary.printed().1, secondary.printed().1)
    };
    if let Some(typist) = typist::for_guest(&guest.name) {
        let controls = ["primary", "secondary"].map(|role| control(folder.path(), role));
        typist(&mut terminal, &controls).with_context(messages)?;
    }
    let serial = terminal.finish(LIMIT).with_context(messages)?;
    console.succeed()?;
    let (primary, secondary) = (report(&primary.succeed()?)?, report(&secondary.succeed()?)?);
    results::check(&guest.expected, &serial)?;
    same_end(&primary, &secondary).context("primary against secondary")?;
    let replayed = subject::replay(guest, &log(folder.path(), "primary"))?;
    same_end(&primary, &replayed.report).context("primary against the replay of its log")?;
    ensure!(
        serial == replayed.serial,
        "the replay of the primary's log printed something else than the console showed"
    );
    Ok(Outcome { serial, report: primary, digests: String::new(), folder })
}

fn log(folder: &Path, role: &str) -> PathBuf {
    folder.join(role).with_extension("gml")
}

fn control(folder: &Path, role: &str) -> PathBuf {
    folder.join(role).with_extension("control")
}

/// One side's command line, but for the address of the link.
fn side(role: &str, guest: &Guest, folder: &Path, clock: &str) -> Result<Command> {
    let arbiter = folder.join("arbiter");
    fs::create_dir_all(&arbiter)?;
    let mut command = gemel_with(role, guest)?;
    command.args(["--json", "--clock", clock, "--console", &format!("unix:{}", folder.join(role).display())]);
    command.arg("--arbiter").arg(arbiter).arg("--log").arg(log(folder, role));
    command.arg("--control").arg(control(folder, role));
    // A host that is busy with other tests must not look like a dead side.
    command.args(["--silence", "20000", "--drop", "60000"]);
    Ok(command)
}
