//! The processes: a gateway, a pair with a guest behind it, a guest alone.

use anyhow::{Context, Result};
use gemel_system_tests::child::Bounded;
use gemel_system_tests::gemel::{gemel, gemel_with};
use gemel_system_tests::guest::Guest;
use gemel_system_tests::pair::Pair;
use std::path::Path;
use std::time::Duration;

/// For each process.
const LIMIT: Duration = Duration::from_secs(600);

/// A gateway whose host port leads to the guest's echo.
pub struct Network {
    pub gateway: Bounded,
    pub port: u16,
}

fn socket(folder: &Path) -> String {
    format!("unix:{}", folder.join("gateway").display())
}

/// The port in "127.0.0.1:PORT leads to".
fn port(running: &mut Bounded) -> Result<u16> {
    running.wait_for_message("leads to")?;
    let said = running.printed().1;
    let port = said.split("127.0.0.1:").nth(1).and_then(|rest| rest.split(' ').next());
    port.and_then(|port| port.parse().ok()).context("no port in what it said")
}

impl Network {
    /// Port 0: any.
    pub fn start(folder: &Path, wanted: u16) -> Result<Self> {
        let mut command = gemel("net")?;
        command.args(["--listen", &socket(folder), "--hostfwd", &format!("tcp:127.0.0.1:{wanted}-:7")]);
        let mut gateway = Bounded::start(&mut command, LIMIT)?;
        gateway.wait_for_message("the gateway listens on")?;
        let port = port(&mut gateway)?;
        Ok(Self { gateway, port })
    }
}

/// A pair behind the gateway, once its guest listens.
pub fn paired(guest: &Guest, folder: &Path) -> Result<Pair> {
    let machine = |role: &str| {
        let mut command = gemel_with(role, guest)?;
        command.args(["--clock", "paced", "--net", "gateway", "--gateway", &socket(folder)]);
        Ok(command)
    };
    let mut pair = Pair::start(machine, folder, LIMIT)?;
    pair.terminal.wait_for("@READY net-echo", LIMIT)?;
    Ok(pair)
}

/// The guest alone, and the host's port that leads to its echo.
pub fn alone(guest: &Guest) -> Result<(Bounded, u16)> {
    let mut command = gemel_with("run", guest)?;
    command.args(["--clock", "paced", "--serial", "null", "--net", "user,hostfwd=tcp:127.0.0.1:0-:7"]);
    let mut running = Bounded::start(&mut command, LIMIT)?;
    let port = port(&mut running)?;
    Ok((running, port))
}
