//! What somebody types into the guests that wait for it, and what they must answer to each line and key.
//!
//! Not responsible for the machine: it is given the guest's serial port, and a way to press keys.

use crate::terminal::Terminal;
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// For the guest to boot, or to answer a line on a loaded host.
const LIMIT: Duration = Duration::from_secs(300);

/// Drives a guest from power-on until it powers itself off. The path is the machine's control socket.
pub type Typist = fn(&mut Terminal, &Path) -> Result<()>;

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
fn interact(port: &mut Terminal, control: &Path) -> Result<()> {
    port.wait_for("@READY serial", LIMIT)?;
    for number in 0..200 {
        port.type_text(&format!("line-{number}\n"))?;
        port.wait_for(&format!("GOT line-{number}\r\n"), LIMIT)?;
    }
    port.type_text("next\n")?;
    port.wait_for("@READY keyboard", LIMIT)?;
    let mut keyboard = Keyboard::connect(control)?;
    for key in ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j"].iter().cycle().take(100) {
        keyboard.press(key)?;
        port.wait_for(&format!("KEY {key}\r\n"), LIMIT)?;
    }
    keyboard.press("q")
}

/// A hundred lines, answered among the numbered lines that the guest prints by itself
fn lines(port: &mut Terminal, _: &Path) -> Result<()> {
    port.wait_for("@READY lines", LIMIT)?;
    for number in 0..100 {
        port.type_text(&format!("typed {number}\n"))?;
        port.wait_for(&format!("GOT typed {number}\r\n"), LIMIT)?;
    }
    port.type_text("quit\n")
}

/// A few commands at the prompt; the shell's own arithmetic is its result
fn shell(port: &mut Terminal, _: &Path) -> Result<()> {
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
    fn connect(control: &Path) -> Result<Self> {
        let socket = UnixStream::connect(control)
            .with_context(|| format!("no control socket at {}", control.display()))?;
        socket.set_read_timeout(Some(LIMIT))?;
        Ok(Self { socket: BufReader::new(socket) })
    }

    fn press(&mut self, key: &str) -> Result<()> {
        writeln!(self.socket.get_mut(), "{}", json!({ "execute": "key", "keys": key }))?;
        let mut line = String::new();
        self.socket.read_line(&mut line)?;
        let answer: Value =
            serde_json::from_str(&line).with_context(|| format!("the control socket said {line:?}"))?;
        ensure!(answer["return"].is_object(), "the key {key} was refused: {answer}");
        Ok(())
    }
}
