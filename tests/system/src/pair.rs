//! A guest on two processes, with somebody at the pair's console.
//!
//! Not responsible for what the guest must show, nor for faults.

use crate::child::Bounded;
use crate::gemel::gemel;
use crate::terminal::Terminal;
use anyhow::Result;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// Both sides and the console, each a process
pub struct Pair {
    /// The side that leads
    pub primary: Bounded,
    /// The side that follows
    pub secondary: Bounded,
    /// The console's client
    pub console: Bounded,
    /// What is at the console's input and output
    pub terminal: Terminal,
    /// The sides' control sockets
    pub controls: [PathBuf; 2],
}

impl Pair {
    /// Starts a pair whose sockets, arbiter and logs are in `folder`. `machine` is `gemel primary` and `gemel secondary` with the
    /// machine's options, `limit` is for each process.
    pub fn start(machine: impl Fn(&str) -> Result<Command>, folder: &Path, limit: Duration) -> Result<Self> {
        let at = |name: &str| format!("unix:{}", folder.join(name).display());
        let mut command = side("primary", machine("primary")?, folder)?;
        let mut primary = Bounded::start(command.args(["--listen", &at("link")]), limit)?;
        primary.wait_for_message("waiting for a secondary")?;
        let mut command = side("secondary", machine("secondary")?, folder)?;
        let secondary = Bounded::start(command.args(["--connect", &at("link")]), limit)?;
        let mut command = gemel("console")?;
        command.args([at("primary"), at("secondary")]);
        let (console, terminal) = Bounded::start_attached(&mut command, limit)?;
        let controls = ["primary", "secondary"].map(|role| control(folder, role));
        Ok(Self { primary, secondary, console, terminal, controls })
    }
}

/// Where the log of the side with this role is.
#[must_use]
pub fn log(folder: &Path, role: &str) -> PathBuf {
    folder.join(role).with_extension("gml")
}

fn control(folder: &Path, role: &str) -> PathBuf {
    folder.join(role).with_extension("control")
}

/// One side's command line, but for the address of the link.
fn side(role: &str, mut command: Command, folder: &Path) -> Result<Command> {
    let arbiter = folder.join("arbiter");
    fs::create_dir_all(&arbiter)?;
    command.args(["--json", "--console", &format!("unix:{}", folder.join(role).display())]);
    command.arg("--arbiter").arg(arbiter).arg("--log").arg(log(folder, role));
    command.arg("--control").arg(control(folder, role));
    // A host that is busy with other tests must not look like a dead side.
    command.args(["--silence", "20000", "--drop", "60000"]);
    Ok(command)
}
