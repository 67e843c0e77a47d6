//! A guest on a pair, neither side of which dies.
//!
//! Not responsible for what happens when one does.

use crate::subject::{self, LIMIT, Outcome, report, same_end};
use anyhow::{Context, Result, ensure};
use gemel_system_tests::gemel::gemel_with;
use gemel_system_tests::guest::Guest;
use gemel_system_tests::pair::{self, Pair};
use gemel_system_tests::{results, typist};

/// Runs `guest` on a pair. What the console showed is the guest's serial output, and a replay of the primary's log must show the
/// same and end where both sides ended.
pub fn run(guest: &Guest) -> Result<Outcome> {
    let folder = tempfile::tempdir()?;
    let typist = typist::for_guest(&guest.name);
    let clock = if typist.is_some() { "paced" } else { "free" };
    let machine = |role: &str| {
        let mut command = gemel_with(role, guest)?;
        command.args(["--clock", clock]);
        Ok(command)
    };
    let Pair { primary, secondary, console, mut terminal, controls } =
        Pair::start(machine, folder.path(), LIMIT)?;
    let messages = || {
        format!("the primary said: {}\nthe secondary said: {}", primary.printed().1, secondary.printed().1)
    };
    if let Some(typist) = typist {
        typist(&mut terminal, &controls).with_context(messages)?;
    }
    let serial = terminal.finish(LIMIT).with_context(messages)?;
    console.succeed()?;
    let (primary, secondary) = (report(&primary.succeed()?)?, report(&secondary.succeed()?)?);
    results::check(&guest.expected, &serial)?;
    same_end(&primary, &secondary).context("primary against secondary")?;
    let replayed = subject::replay(guest, &pair::log(folder.path(), "primary"))?;
    same_end(&primary, &replayed.report).context("primary against the replay of its log")?;
    ensure!(
        serial == replayed.serial,
        "the replay of the primary's log printed something else than the console showed"
    );
    Ok(Outcome { serial, report: primary, digests: String::new(), folder })
}
