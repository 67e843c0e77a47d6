//! The control socket: JSON lines, one command each (docs/control-socket.md).
//!
//! Not responsible for: what a status contains (the caller's closure says), when a key reaches the guest (`inputs`).

use crate::error::HostError;
use crate::inbox::{Inbox, QuitReason};
use crate::keys::scan_codes;
use crate::signals::spawn;
use crate::sockets::listen_unix;
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// What `status` returns.
pub type StatusFn = Arc<dyn Fn() -> Value + Send + Sync>;

/// A command is at most this long.
const LINE: u64 = 64 << 10;
/// Clients at once; each has a thread.
const CLIENTS: usize = 16;

/// The open socket; its path goes away with it.
pub struct Control(PathBuf);

impl Drop for Control {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

impl Control {
    /// Listens on a path, for this user only (mode 0600).
    ///
    /// # Errors
    /// [`HostError::Address`] when the path is in use or cannot be made.
    pub fn open(path: &Path, inbox: &Arc<Inbox>, status: StatusFn) -> Result<Self, HostError> {
        let listener = listen_unix(path)?;
        let source = inbox.source();
        let inbox = Arc::clone(inbox);
        let clients = Arc::new(AtomicUsize::new(0));
        spawn("control socket", move || {
            let _source = source;
            for client in listener.incoming().map_while(Result::ok) {
                if clients.fetch_add(1, Ordering::Relaxed) >= CLIENTS {
                    clients.fetch_sub(1, Ordering::Relaxed);
                    continue;
                }
                let (inbox, status, count) = (Arc::clone(&inbox), Arc::clone(&status), Arc::clone(&clients));
                let started = spawn("control client", move || {
                    serve(client, &inbox, &status);
                    count.fetch_sub(1, Ordering::Relaxed);
                });
                if started.is_err() {
                    clients.fetch_sub(1, Ordering::Relaxed);
                }
            }
        })?;
        Ok(Self(path.to_owned()))
    }
}

fn serve(client: UnixStream, inbox: &Inbox, status: &StatusFn) {
    let mut reader = BufReader::new(&client);
    let mut line = Vec::new();
    loop {
        line.clear();
        match reader.by_ref().take(LINE).read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => return,
            Ok(_) if line.len() as u64 == LINE => return,
            Ok(_) => {}
        }
        let answer = match execute(&line, inbox, status) {
            Ok(value) => json!({ "return": value }),
            Err(why) => json!({ "error": { "desc": why } }),
        };
        if writeln!(&client, "{answer}").is_err() {
            return;
        }
    }
}

fn execute(line: &[u8], inbox: &Inbox, status: &StatusFn) -> Result<Value, String> {
    let command: Value = serde_json::from_slice(line).map_err(|e| format!("not a line of JSON: {e}"))?;
    match command["execute"].as_str() {
        Some("status") => return Ok(status()),
        Some("key") => {
            let keys = command["keys"].as_str().ok_or("\"keys\" is missing, as in \"ctrl-alt-delete\"")?;
            if !inbox.key(scan_codes(keys)?) {
                return Err("the guest has not taken earlier keys yet; send fewer".into());
            }
        }
        Some("powerdown") => inbox.power_button(),
        Some("quit") => inbox.quit(QuitReason::Control),
        _ => return Err("\"execute\" must be status, key, powerdown or quit".into()),
    }
    Ok(json!({}))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inputs::Inputs;
    use gemel_machine::{Input, Stop, VirtTime};

    #[test]
    fn commands_have_answers_and_effects() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("control");
        let inbox = Inbox::new();
        let control = Control::open(&path, &inbox, Arc::new(|| json!({ "instructions": 7 }))).unwrap();
        let client = UnixStream::connect(&path).unwrap();
        let mut answers = BufReader::new(client.try_clone().unwrap()).lines();
        let mut ask = |line: &str| -> Value {
            writeln!(&client, "{line}").unwrap();
            serde_json::from_str(&answers.next().unwrap().unwrap()).unwrap()
        };
        assert_eq!(ask(r#"{"execute":"status"}"#), json!({ "return": { "instructions": 7 } }));
        assert_eq!(ask(r#"{"execute":"key","keys":"ret"}"#), json!({ "return": {} }));
        assert_eq!(ask(r#"{"execute":"powerdown"}"#), json!({ "return": {} }));
        for bad in [
            "",
            "[",
            "7",
            r#"{"execute":"fly"}"#,
            r#"{"execute":"key","keys":"hyper"}"#,
            r#"{"execute":"key"}"#,
        ] {
            assert!(ask(bad)["error"]["desc"].is_string(), "{bad}");
        }
        let mut inputs = Inputs::new(Arc::clone(&inbox));
        assert_eq!(inputs.take(VirtTime(0)).unwrap(), Some(Input::PowerButton));
        assert_eq!(inputs.take(VirtTime(0)).unwrap(), Some(Input::Key(vec![0x5a, 0xf0, 0x5a])));
        ask(r#"{"execute":"quit"}"#);
        assert!(matches!(inputs.take(VirtTime(0)), Err(Stop::Quit)));
        drop(control);
        assert!(!path.exists());
    }
}
