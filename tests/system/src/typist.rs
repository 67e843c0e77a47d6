//! What somebody types into the guests that wait for it, and what they must answer to each line and key.
//!
//! Not responsible for the machine: it is given the guest's serial port, and a way to press keys.

use crate::terminal::Terminal;
use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// For the guest to boot, or to answer a line on a loaded host.
const LIMIT: Duration = Duration::from_secs(300);

/// Drives a guest from power-on until it powers itself off. The paths are the machine's control sockets: one, or one for each
/// side of a pair.
pub type Typist = fn(&mut Terminal, &[PathBuf]) -> Result<()>;

/// Who types into the guest with this name, if it wants anybody
#[must_use]
pub fn for_guest(name: &str) -> Option<Typist> {
    match name {
        "interact" => Some(interact),
        "lines" => Some(lines),
        "shell" => Some(shell),
        _ => None,
    }
}

/// 200 lines on the serial port, then 100 keys on the keyboard, each answered before the next
fn interact(port: &mut Terminal, controls: &[PathBuf]) -> Result<()> {
    port.wait_for("@READY serial", LIMIT)?;
    for number in 0..200 {
        port.type_text(&format!("line-{number}\n"))?;
        port.wait_for(&format!("GOT line-{number}\r\n"), LIMIT)?;
    }
    port.type_text("next\n")?;
    port.wait_for("@READY keyboard", LIMIT)?;
    let mut keyboard = Keyboard::at_live_side(controls)?;
    for key in ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j"].iter().cycle().take(100) {
        keyboard.press(key)?;
        port.wait_for(&format!("KEY {key}\r\n"), LIMIT)?;
    }
    keyboard.press("q")
}

/// A hundred lines, answered among the numbered lines that the guest prints by itself
fn lines(port: &mut Terminal, _: &[PathBuf]) -> Result<()> {
    port.wait_for("@READY lines", LIMIT)?;
    for number in 0..100 {
        port.type_text(&format!("typed {number}\n"))?;
        port.wait_for(&format!("GOT typed {number}\r\n"), LIMIT)?;
    }
    port.type_text("quit\n")
}

/// A few commands at the prompt; the shell's own arithmetic is its result
fn shell(port: &mut Terminal, _: &[PathBuf]) -> Result<()> {
    for command in ["echo @OUT shell $((6 * 7))", "echo @END shell $?", "poweroff -f"] {
        port.wait_for("gemel# ", LIMIT)?;
        port.type_text(&format!("{command}\n"))?;
    }
    Ok(())
}

/// The keyboard behind a control socket (`docs/control-socket.md`)
struct Keyboard {
    socket: BufReader<UnixStream>,
}

impl Keyboard {
    /// The keyboard of whichever side has the guest. Keys for another would wait there until it has.
    fn at_live_side(controls: &[PathBuf]) -> Result<Self> {
        let started = Instant::now();
        while started.elapsed() < LIMIT {
            for control in controls {
                let mut keyboard = Self::connect(control)?;
                if keyboard.is_live()? {
                    return Ok(keyboard);
                }
            }
            sleep(Duration::from_millis(5));
        }
        bail!("no side has the guest: {controls:?}")
    }

    fn connect(control: &Path) -> Result<Self> {
        let socket = UnixStream::connect(control)
            .with_context(|| format!("no control socket at {}", control.display()))?;
        socket.set_read_timeout(Some(LIMIT))?;
        Ok(Self { socket: BufReader::new(socket) })
    }

    /// Whether the guest runs here and takes input: a machine alone, or the side of a pair that leads.
    fn is_live(&mut self) -> Result<bool> {
        let status = self.execute(&json!({ "execute": "status" }))?;
        let phase = &status["pair"]["phase"];
        Ok(status["pair"].is_null() && ["run", "record"].iter().any(|role| status["role"] == *role)
            || ["Primary", "Live"].iter().any(|live| phase == live))
    }

    fn press(&mut self, key: &str) -> Result<()> {
        self.execute(&json!({ "execute": "key", "keys": key })).with_context(|| format!("the key {key}"))?;
        Ok(())
    }

    /// Gives a command and returns what the machine answers.
    fn execute(&mut self, command: &Value) -> Result<Value> {
        writeln!(self.socket.get_mut(), "{command}")?;
        let mut line = String::new();
        self.socket.read_line(&mut line)?;
        let mut answer: Value =
            serde_json::from_str(&line).with_context(|| format!("the control socket said {line:?}"))?;
        let returned = answer["return"].take();
        ensure!(returned.is_object(), "{command} was refused: {answer}");
        Ok(returned)
    }
}
