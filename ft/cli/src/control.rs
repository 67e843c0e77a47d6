//! `gemel control`: one command for a running guest.
//!
//! Not responsible for: what the commands do (docs/control-socket.md).

use anyhow::{Context, Result, bail};
use serde_json::{Map, Value};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

/// An answer comes at once; a status is a few kilobytes.
const PATIENCE: Duration = Duration::from_secs(10);
const ANSWER: u64 = 1 << 20;

/// Options of `gemel control`.
#[derive(clap::Args)]
pub struct Args {
    /// The run's --control
    socket: PathBuf,
    /// status, key, powerdown, poweroff, reset or quit; protect, unprotect or failover for a pair's leader
    word: String,
    /// What the command needs: the keys of `key`, as in ctrl-alt-delete; NAME=VALUE for others
    #[arg(value_name = "VALUE")]
    values: Vec<String>,
}

/// Asks a run's control socket. Returns what it returned.
///
/// # Errors
/// Nobody listens there, or it refuses.
pub fn ask(socket: &Path, command: &Value) -> Result<Value> {
    let unreachable = || format!("cannot reach the control socket {}: is the run alive?", socket.display());
    let stream = UnixStream::connect(socket).with_context(unreachable)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    writeln!(&stream, "{command}").with_context(unreachable)?;
    let mut line = String::new();
    BufReader::new(stream).take(ANSWER).read_line(&mut line).with_context(unreachable)?;
    let mut answer: Value = serde_json::from_str(&line).context("what listens there is no control socket")?;
    match answer["error"]["desc"].as_str() {
        Some(why) => bail!("{why}"),
        None => Ok(answer["return"].take()),
    }
}

/// Sends the command and prints what comes back, if that says anything.
///
/// # Errors
/// See [`ask`].
pub fn run(args: Args) -> Result<ExitCode> {
    let mut command = Map::new();
    for value in args.values {
        let (name, value) = value.split_once('=').unwrap_or(("keys", &value));
        let number = value.parse::<u64>().map(Value::from);
        command.insert(name.into(), number.unwrap_or_else(|_| value.into()));
    }
    // Last: nothing takes its place.
    command.insert("execute".into(), args.word.into());
    let answer = ask(&args.socket, &Value::Object(command))?;
    if answer.as_object().is_none_or(|fields| !fields.is_empty()) {
        println!("{answer}");
    }
    Ok(ExitCode::SUCCESS)
}
