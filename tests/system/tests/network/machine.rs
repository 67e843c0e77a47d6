//! A recorded machine on a network, with somebody at its shell.
//!
//! Not responsible for what is asked of it.

use crate::forwarded;
use anyhow::{Context, Result, ensure};
use gemel_system_tests::child::{self, Bounded};
use gemel_system_tests::gemel::{gemel, gemel_with};
use gemel_system_tests::guest::Guest;
use gemel_system_tests::terminal::Terminal;
use serde_json::Value;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use tempfile::TempDir;

/// For a guest to boot or to answer on a loaded host, and for a whole run.
pub const LIMIT: Duration = Duration::from_secs(600);

/// A machine under way.
pub struct Machine {
    process: Option<Bounded>,
    shell: Option<Terminal>,
    expected: Vec<String>,
    folder: TempDir,
}

impl Machine {
    /// Starts `gemel record` for the guest, in a network namespace where one is named.
    pub fn record(guest: &Guest, net: &str, namespace: Option<&str>) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let serial = folder.path().join("serial");
        let mut command = gemel_with("record", guest)?;
        command.arg("--net").arg(net).arg("-o").arg(folder.path().join("run.gml"));
        command.arg("--serial").arg(format!("unix:{},server", serial.display()));
        if let Some(namespace) = namespace {
            let mut within = Command::new("ip");
            within.args(["netns", "exec", namespace]).arg(command.get_program()).args(command.get_args());
            command = within;
        }
        let process = Bounded::start(told(folder.path(), "recorded", &mut command), LIMIT)?;
        let shell = Terminal::connect(&serial, LIMIT).with_context(|| process.printed().1)?;
        Ok(Self { process: Some(process), shell: Some(shell), expected: guest.expected.clone(), folder })
    }

    /// Waits until the guest serves and has its shell.
    pub fn boot(&mut self) -> Result<()> {
        let shell = self.shell.as_mut().context("it is off")?;
        for line in &self.expected {
            shell.wait_for(line, LIMIT)?;
        }
        shell.wait_for("gemel# ", LIMIT)
    }

    /// Types a command and waits for its answer, which the command itself must not contain.
    pub fn ask(&mut self, command: &str, answer: &str) -> Result<()> {
        let shell = self.shell.as_mut().context("it is off")?;
        shell.type_text(&format!("{command}\n"))?;
        shell.wait_for(answer, LIMIT).with_context(|| command.to_owned())
    }

    /// Where the host listens for a port of the guest.
    pub fn forwarded(&self, port: u16) -> Result<SocketAddr> {
        let messages = self.process.as_ref().map(|process| process.printed().1).unwrap_or_default();
        forwarded(&messages, port).with_context(|| format!("no forward to port {port}: {messages}"))
    }

    /// Ends the run, and replays it: every epoch must have the same digest.
    pub fn power_off_and_replay(&mut self) -> Result<()> {
        let mut shell = self.shell.take().context("it is off")?;
        shell.type_text("poweroff -f\n")?;
        let printed = shell.finish(LIMIT)?;
        self.process.take().context("it is off")?.succeed()?;
        let log = self.folder.path().join("run.gml");
        let serial = self.folder.path().join("replayed.serial");
        let mut replay = gemel("replay")?;
        replay.arg(&log).arg("--serial").arg(format!("file:{}", serial.display()));
        child::run(told(self.folder.path(), "replayed", &mut replay), LIMIT)?;
        let [recorded, replayed] = ["recorded", "replayed"].map(|run| self.figures(run));
        let (recorded, replayed) = (recorded?, replayed?);
        ensure!(recorded.0 == replayed.0, "the replay's epochs differ:\n{}\n{}", recorded.0, replayed.0);
        ensure!(recorded.1["digest"] == replayed.1["digest"], "the replay's end differs");
        ensure!(fs::read(serial)? == printed, "the replay printed something else");
        let net = recorded.1["log_bytes_by_class"]["net"].as_u64().unwrap_or_default();
        ensure!(net > 1000, "the log has {net} bytes of frames");
        Ok(())
    }

    /// The digests of a run's epochs, and what it told at its end.
    fn figures(&self, run: &str) -> Result<(String, Value)> {
        let read = |path: PathBuf| fs::read_to_string(&path).with_context(|| path.display().to_string());
        let digests = read(self.folder.path().join(format!("{run}.digests")))?;
        Ok((digests, serde_json::from_str(&read(self.folder.path().join(format!("{run}.json")))?)?))
    }
}

/// Has a run's figures and digests written to files named after it.
fn told<'a>(folder: &Path, run: &str, command: &'a mut Command) -> &'a mut Command {
    command.arg("--digests").arg(folder.join(format!("{run}.digests")));
    command.arg(format!("--json={}", folder.join(format!("{run}.json")).display()))
}
