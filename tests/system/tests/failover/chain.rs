//! One guest that survives the death of one leader after another: each survivor is copied to a fresh standby before it dies itself.

use crate::console::Console;
use crate::judge;
use crate::trial::Outcome;
use crate::trial::{BOOT, Dice, SOON, in_folder, replay_of, type_for};
use anyhow::{Context, Result, ensure};
use gemel_system_tests::child::Bounded;
use gemel_system_tests::engine::Engine;
use gemel_system_tests::gemel::gemel_with;
use gemel_system_tests::guest::Guest;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// For each process; the last generations wait for the whole chain before them.
const LIMIT: Duration = Duration::from_secs(3600);
/// A copy of a machine on a busy host.
const COPY: Duration = Duration::from_secs(120);

/// A chain of failovers.
pub struct Chain<'a> {
    pub guest: &'a Guest,
    /// How many leaders die.
    pub deaths: u32,
    pub seed: u64,
}

/// Two places for a process: where the other one's leader finds it, and its console.
fn place(folder: &Path, what: &str, place: usize) -> String {
    format!("unix:{}", folder.join(format!("{what}{place}")).display())
}

fn log(folder: &Path, generation: u32) -> PathBuf {
    folder.join(format!("{generation}.log"))
}

/// One process of the chain. The first leads from power-on, the others wait.
fn process(folder: &Path, guest: &Guest, generation: u32) -> Result<Bounded> {
    let here = generation as usize % 2;
    let role = if generation == 0 { "primary" } else { "standby" };
    let mut command: Command = gemel_with(role, guest)?;
    command.args(["--vm", "chain", "--silence", "1000", "--drop", "2000"]);
    command.arg("--arbiter").arg(folder.join("arbiter")).arg("--log").arg(log(folder, generation));
    command.args([
        "--console",
        &place(folder, "console", here),
        "--standby",
        &place(folder, "link", 1 - here),
    ]);
    if generation > 0 {
        command.args(["--listen", &place(folder, "link", here)]);
    }
    Bounded::start(&mut command, LIMIT)
}

/// Waits until a leader has said that its guest is protected.
fn wait_protected(process: &mut Bounded) -> Result<()> {
    let deadline = Instant::now() + COPY;
    while !process.printed().1.contains("the guest is protected") {
        ensure!(Instant::now() < deadline, "no standby got the guest:\n{}", process.printed().1);
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

impl Chain<'_> {
    pub fn run(&self) -> Result<Outcome> {
        judge::prove();
        in_folder(|folder| self.play(folder))
    }

    fn play(&self, folder: &Path) -> Result<Outcome> {
        let mut dice = Dice(self.seed);
        let mut leader = process(folder, self.guest, 0)?;
        let places = [0, 1].map(|here| place(folder, "console", here));
        let mut console = Console::start(folder, places.each_ref().map(String::as_str))?;
        console.wait_for("@READY lines", BOOT)?;
        let mut typed = Vec::new();
        for generation in 1..=self.deaths {
            let standby = process(folder, self.guest, generation)?;
            type_for(&mut console, &mut typed, &mut dice, (100, 400))?;
            wait_protected(&mut leader).with_context(|| format!("generation {generation}"))?;
            type_for(&mut console, &mut typed, &mut dice, (100, 400))?;
            leader.kill()?;
            leader = standby;
            let last = typed.last().context("nothing typed")?.clone();
            console.wait_for(&format!("GOT {last}\r\n"), SOON).with_context(|| {
                format!("after death {generation}; the survivor says:\n{}", leader.printed().1)
            })?;
        }
        type_for(&mut console, &mut typed, &mut dice, (100, 400))?;
        console.wait_for(&format!("GOT {}\r\n", typed.last().context("nothing typed")?), SOON)?;
        console.type_line("quit")?;
        let shown = console.finish(SOON)?;
        judge::check(&shown, &typed)?;
        leader.succeed()?;
        // The last survivor's log begins where its machine was cut, and so does what it prints.
        let rest = replay_of(folder, &log(folder, self.deaths), Engine::Interp)?;
        ensure!(
            !rest.is_empty() && shown.ends_with(&rest),
            "the replay of the last survivor's log printed {} bytes, which are not the last that the console showed",
            rest.len()
        );
        Ok(Outcome::default())
    }
}
