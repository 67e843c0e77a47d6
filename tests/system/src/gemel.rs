//! The `gemel` binary as a user starts it: builds it once, and puts its command lines together.
//!
//! Not responsible for what a run has to show.

use crate::guest::Guest;
use crate::{child, repository};
use anyhow::{Context, Result, anyhow};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

/// A release build from nothing on two slow cores.
const BUILD_LIMIT: Duration = Duration::from_secs(1500);

/// `$GEMEL_BIN`, else the release binary, built once for each test process so that no test meets an old one.
pub fn binary() -> Result<&'static Path> {
    static BINARY: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    BINARY
        .get_or_init(|| build().map_err(|error| format!("{error:#}")))
        .as_deref()
        .map_err(|error| anyhow!("{error}"))
}

fn build() -> Result<PathBuf> {
    if let Some(given) = std::env::var_os("GEMEL_BIN") {
        return Ok(given.into());
    }
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args([
        "build",
        "--release",
        "--locked",
        "-p",
        "gemel",
        "--message-format=json-render-diagnostics",
    ]);
    let built = child::run(command.current_dir(repository()), BUILD_LIMIT).context("cannot build gemel")?;
    // cargo alone knows where its target folder is.
    let executable = built.stdout.lines().rev().find_map(|line| {
        let message: Value = serde_json::from_str(line).ok()?;
        (message["target"]["name"] == "gemel")
            .then(|| message["executable"].as_str().map(PathBuf::from))
            .flatten()
    });
    executable.context("cargo build named no executable")
}

/// `gemel COMMAND` without further arguments.
pub fn gemel(command: &str) -> Result<Command> {
    let mut gemel = Command::new(binary()?);
    gemel.arg(command);
    Ok(gemel)
}

/// `gemel COMMAND` for `guest`. Writes to its disk go to a copy that lasts as long as the run.
pub fn gemel_with(command: &str, guest: &Guest) -> Result<Command> {
    let mut gemel = gemel(command)?;
    gemel.arg("-m").arg(guest.memory.to_string());
    // A guest that panics resets: that must end the run, except where rebooting is what the guest is for.
    if guest.name != "reboot" {
        gemel.arg("--no-reboot");
    }
    gemel
        .arg("--kernel")
        .arg(guest.kernel())
        .arg("--initrd")
        .arg(guest.initrd())
        .arg("--append")
        .arg(&guest.append);
    if let Some(cpu) = &guest.cpu {
        gemel.arg("--cpu").arg(cpu);
    }
    if let Some(disk) = &guest.disk {
        gemel.arg("--drive").arg(format!("file={},if=virtio,snapshot=on", disk.display()));
    }
    Ok(gemel)
}
