//! One pair, one fault.

use crate::console::Console;
use crate::judge;
use anyhow::{Context, Result, bail, ensure};
use gemel_system_tests::child::{self, Bounded};
use gemel_system_tests::engine::Engine;
use gemel_system_tests::gemel::gemel;
use rustix::process::{Pid, Signal, kill_process};
use rustix::time::{ClockId, clock_gettime};
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// A whole trial on a busy host; booting alone takes seconds.
const LIMIT: Duration = Duration::from_secs(240);
pub const BOOT: Duration = Duration::from_secs(120);
/// For what should take milliseconds.
pub const SOON: Duration = Duration::from_secs(30);
/// The epoch of the survivor: the primary has one before it has a secondary, and one with it.
pub const FAILED_OVER: u64 = 3;
/// The exit code of a side that lost the epoch.
const LOST: i32 = 7;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    KillPrimary,
    StopPrimary,
    KillSecondary,
}

/// A guest that prints numbered lines and answers typed ones, and what its sides are started with.
#[derive(Clone, Copy)]
pub struct Subject<'a> {
    /// `gemel primary` or `gemel secondary` with all that makes the machine.
    pub command: &'a dyn Fn(&str) -> Result<Command>,
    /// Exit code of a side on which the guest comes to its end.
    pub exit: i32,
    /// What replays the survivor's log.
    pub judges: &'a [Engine],
}

pub struct Trial<'a> {
    pub subject: Subject<'a>,
    pub fault: Fault,
    pub seed: u64,
}

/// Milliseconds from the fault, where they could be measured.
#[derive(Default)]
pub struct Outcome {
    /// One side suspected the other before the fault, which then did not happen.
    pub early: bool,
    pub first_output: Option<f64>,
    pub detection: Option<f64>,
    pub live: Option<f64>,
    pub lag: Option<f64>,
}

/// splitmix64.
pub struct Dice(pub u64);

impl Dice {
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        low + (z ^ (z >> 31)) % (high - low)
    }
}

/// The host's monotonic clock, as the product tells it.
pub fn now() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

fn signal(process: &Bounded, signal: Signal) -> Result<()> {
    let pid = Pid::from_raw(process.id() as i32).context("no process id")?;
    Ok(kill_process(pid, signal)?)
}

/// Plays something in a folder of its own, which stays where it fails: whoever looks for the reason needs the logs.
pub fn in_folder(play: impl FnOnce(&Path) -> Result<Outcome>) -> Result<Outcome> {
    let folder = tempfile::tempdir()?;
    exchange_keys(folder.path())?;
    let result = play(folder.path());
    if result.is_err() {
        let kept = folder.keep();
        return result.with_context(|| format!("logs are in {}", kept.display()));
    }
    result
}

/// Keys for both sides, each with the other's certificate: what crosses the link is under TLS.
fn exchange_keys(folder: &Path) -> Result<()> {
    let keys = ["primary", "secondary"].map(|role| folder.join(role).with_extension("keys"));
    for own in &keys {
        child::run(gemel("keys")?.arg("make").arg(own), SOON)?;
    }
    for (own, other) in [(&keys[0], &keys[1]), (&keys[1], &keys[0])] {
        child::run(gemel("keys")?.arg("pin").arg(own).arg(other.join("own.pem")), SOON)?;
    }
    Ok(())
}

/// Adds to one side's command line what a side of a trial has, but for the address of the link.
pub fn side(folder: &Path, role: &str, mut command: Command, fault: Fault) -> Command {
    command.args(["--vm", "trial", "--arbiter"]).arg(folder.join("arbiter"));
    command.arg("--console").arg(format!("unix:{}", folder.join(role).display()));
    command.arg("--log").arg(folder.join(format!("{role}.log")));
    command.arg("--keys").arg(folder.join(role).with_extension("keys"));
    // Only a stopped side is told by its silence; a busy host must not silence one that is to be killed.
    if fault != Fault::StopPrimary {
        command.args(["--silence", "1000", "--drop", "2000"]);
    }
    command.arg("--ledger").arg(folder.join(format!("{role}.ledger")));
    command.arg(format!("--json={}", folder.join(format!("{role}.json")).display()));
    command
}

/// Starts a primary and waits until it says where it listens.
pub fn primary(command: &mut Command) -> Result<(Bounded, String)> {
    let primary = Bounded::start(command.args(["--listen", "127.0.0.1:0"]), LIMIT)?;
    let deadline = Instant::now() + SOON;
    loop {
        if let Some((_, rest)) = primary.printed().1.split_once("waiting for a secondary on ") {
            return Ok((primary, rest.trim().to_owned()));
        }
        ensure!(Instant::now() < deadline, "the primary does not start: {}", primary.printed().1);
        sleep(Duration::from_millis(5));
    }
}

/// Starts a secondary.
pub fn secondary(command: &mut Command, address: &str) -> Result<Bounded> {
    Bounded::start(command.args(["--connect", address]), LIMIT)
}

/// Where the console finds the sides.
pub fn places(folder: &Path) -> [String; 2] {
    ["primary", "secondary"].map(|role| format!("unix:{}", folder.join(role).display()))
}

impl Trial<'_> {
    pub fn run(&self) -> Result<Outcome> {
        judge::prove();
        in_folder(|folder| self.play(folder))
    }

    fn play(&self, folder: &Path) -> Result<Outcome> {
        let mut dice = Dice(self.seed);
        let side = |role: &str| anyhow::Ok(side(folder, role, (self.subject.command)(role)?, self.fault));
        let (mut primary, address) = primary(&mut side("primary")?)?;
        let mut secondary = secondary(&mut side("secondary")?, &address)?;
        let mut console = Console::start(folder, places(folder).each_ref().map(String::as_str))?;
        console.wait_for("@READY lines", BOOT)?;

        let mut typed = Vec::new();
        type_for(&mut console, &mut typed, &mut dice, (300, 1200))?;
        let fault = now();
        let early = console.side_live_in(FAILED_OVER)?;
        match self.fault {
            _ if early.is_some() => {}
            Fault::KillPrimary => primary.kill()?,
            Fault::KillSecondary => secondary.kill()?,
            Fault::StopPrimary => signal(&primary, Signal::STOP)?,
        }
        type_for(&mut console, &mut typed, &mut dice, (300, 700))?;
        if self.fault == Fault::StopPrimary && early.is_none() {
            console.wait_for_epoch(FAILED_OVER, SOON)?;
            signal(&primary, Signal::CONT)?;
            type_for(&mut console, &mut typed, &mut dice, (100, 300))?;
        }
        let last = format!("GOT {}\r\n", typed.last().context("nothing typed")?);
        console.wait_for(&last, SOON)?;
        // However slowly a busy host lets it print.
        console.wait_for(&format!("LINE {}\r\n", judge::ENOUGH), SOON)?;
        console.type_line("quit")?;
        let shown = console.finish(SOON)?;
        judge::check(&shown, &typed)?;

        // Where the fault hit first, the other side may have been about to suspect.
        let survivor = console.side_live_in(FAILED_OVER)?.context("nobody claimed the epoch")?;
        let (mut sides, role) = ([Some(primary), Some(secondary)], ["primary", "secondary"][survivor]);
        let finished = sides[survivor].take().context("no such side")?.finish()?;
        let (status, said) = (finished.status, finished.stderr);
        ensure!(status.code() == Some(self.subject.exit), "the survivor ended with {status}: {said}");
        let other = sides[1 - survivor].take().context("no such side")?;
        let killed = early.is_none() && self.fault != Fault::StopPrimary;
        let status = other.finish()?.status;
        ensure!(killed || status.code() == Some(LOST), "the side that lost the epoch ended with {status}");
        for engine in self.subject.judges {
            replay(folder, role, *engine, &shown)?;
        }
        ledgers(folder, &shown, self.fault)?;
        if early.is_some() {
            return Ok(Outcome { early: true, ..Outcome::default() });
        }
        let expected = if self.fault == Fault::KillSecondary { "primary" } else { "secondary" };
        ensure!(role == expected, "the {role} survived");
        outcome(folder, role, fault, &console.events()?)
    }
}

/// Types numbered lines at random intervals, for a random while (ms).
pub fn type_for(
    console: &mut Console,
    typed: &mut Vec<String>,
    dice: &mut Dice,
    (least, most): (u64, u64),
) -> Result<()> {
    let until = Instant::now() + Duration::from_millis(dice.between(least, most));
    while Instant::now() < until {
        let line = format!("typed-{}-{:04x}", typed.len(), dice.between(0, 1 << 16));
        console.type_line(&line)?;
        typed.push(line);
        sleep(Duration::from_millis(dice.between(3, 40)));
    }
    Ok(())
}

/// The sides' ledgers: nothing left before its acknowledgement, and the survivor went on where the other ended. What a secondary
/// acknowledged in its last moment dies with its ledger's last lines.
pub fn ledgers(folder: &Path, shown: &[u8], fault: Fault) -> Result<()> {
    let mut command = gemel("verify-outputs")?;
    command.args(["primary", "secondary"].map(|role| folder.join(format!("{role}.ledger"))));
    let figures = folder.join("ledgers.json");
    command.arg(format!("--json={}", figures.display()));
    let status = Bounded::start(&mut command, LIMIT)?.finish()?.status;
    let figures: Value = serde_json::from_slice(&fs::read(&figures)?)?;
    let proved = status.success() || fault == Fault::KillSecondary && figures["exit"] == "unproved";
    ensure!(proved, "the ledgers: {figures}");
    let figure = |name: &str| figures[name].as_u64().unwrap_or_default();
    let told = figure("outputs") + figure("tail");
    ensure!(told >= shown.len() as u64, "{} bytes were shown: {figures}", shown.len());
    ensure!(figure("matched") * 10 > figure("outputs") * 9, "hardly anything is compared: {figures}");
    Ok(())
}

/// The oracle: the survivor's own log, replayed, prints what the console showed.
pub fn replay(folder: &Path, survivor: &str, engine: Engine, shown: &[u8]) -> Result<()> {
    let replayed = replay_of(folder, &folder.join(format!("{survivor}.log")), engine)?;
    if replayed != shown {
        let same = replayed.iter().zip(shown).take_while(|(a, b)| a == b).count();
        bail!(
            "the console showed {} bytes, the replay of the survivor's log on {engine} {}; they differ from byte {same} on",
            shown.len(),
            replayed.len()
        );
    }
    Ok(())
}

/// What a replay of a log prints.
pub fn replay_of(folder: &Path, log: &Path, engine: Engine) -> Result<Vec<u8>> {
    let serial = folder.join("replayed");
    let mut command = gemel("replay")?;
    command.arg(log);
    command.args(["--accel", engine.name(), "--serial"]).arg(format!("file:{}", serial.display()));
    child::run(&mut command, LIMIT).with_context(|| format!("the survivor's log on {engine}"))?;
    Ok(fs::read(serial)?)
}

pub fn outcome(folder: &Path, survivor: &str, fault: u64, events: &[Value]) -> Result<Outcome> {
    let report: Value = serde_json::from_slice(&fs::read(folder.join(format!("{survivor}.json")))?)?;
    let since = |at: Option<u64>| at.filter(|at| *at >= fault).map(|at| (at - fault) as f64 / 1e6);
    let failover = &report["failover"];
    let first = events.iter().find(|e| e["event"] == "output" && e["epoch"] == FAILED_OVER);
    ensure!(first.is_some(), "the survivor printed nothing: {events:?}");
    Ok(Outcome {
        early: false,
        first_output: since(first.and_then(|e| e["at"].as_u64())),
        detection: since(failover["suspected"].as_u64()),
        live: since(failover["live"].as_u64()),
        lag: failover["lag"].as_u64().map(|ns| ns as f64 / 1e6),
    })
}
