//! The control socket: JSON lines, one command each (docs/control-socket.md).
//!
//! Not responsible for: what a status contains and what else this run can do (its [`Attendant`] says), when an input reaches the
//! guest (`inputs`).

use crate::error::HostError;
use crate::inbox::{Inbox, QuitReason};
use crate::keys::scan_codes;
use crate::signals::spawn;
use crate::sockets::listen_unix;
use gemel_machine::Input;
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// What a run does about the commands that are not inputs. A closure that returns the status is one.
pub trait Attendant: Send + Sync {
    /// What `status` returns.
    fn status(&self) -> Value;

    /// Whether this run's guest takes inputs from here.
    ///
    /// # Errors
    /// Why not, and who does.
    fn takes_inputs(&self) -> Result<(), String> {
        Ok(())
    }

    /// A word that not every run knows; `None` if this one does not either.
    fn execute(&self, _word: &str, _command: &Value) -> Option<Result<Value, String>> {
        None
    }
}

impl<F: Fn() -> Value + Send + Sync> Attendant for F {
    fn status(&self) -> Value {
        self()
    }
}

/// A command is at most this long.
const LINE: u64 = 64 << 10;
/// Clients at once; each has a thread.
const CLIENTS: usize = 16;

/// How long an answer on its way may keep the end of a run waiting.
const LAST_ANSWER: Duration = Duration::from_secs(1);

/// The open socket; its path goes away with it.
pub struct Control {
    path: PathBuf,
    /// Commands that were taken and have no answer yet.
    unanswered: Arc<AtomicUsize>,
}

impl Drop for Control {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
        // A power off can end the process before whoever asked for it hears that it was taken.
        let deadline = Instant::now() + LAST_ANSWER;
        while self.unanswered.load(Ordering::Acquire) > 0 && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Control {
    /// Listens on a path, for this user only (mode 0600).
    ///
    /// # Errors
    /// [`HostError::Address`] when the path is in use or cannot be made.
    pub fn open(path: &Path, inbox: &Arc<Inbox>, attendant: Arc<dyn Attendant>) -> Result<Self, HostError> {
        let listener = listen_unix(path)?;
        let source = inbox.source();
        let inbox = Arc::clone(inbox);
        let clients = Arc::new(AtomicUsize::new(0));
        let unanswered = Arc::new(AtomicUsize::new(0));
        let taken = Arc::clone(&unanswered);
        spawn("control socket", move || {
            let _source = source;
            for client in listener.incoming().map_while(Result::ok) {
                if clients.fetch_add(1, Ordering::Relaxed) >= CLIENTS {
                    clients.fetch_sub(1, Ordering::Relaxed);
                    continue;
                }
                let (inbox, attendant) = (Arc::clone(&inbox), Arc::clone(&attendant));
                let (count, taken) = (Arc::clone(&clients), Arc::clone(&taken));
                let started = spawn("control client", move || {
                    serve(client, &inbox, &*attendant, &taken);
                    count.fetch_sub(1, Ordering::Relaxed);
                });
                if started.is_err() {
                    clients.fetch_sub(1, Ordering::Relaxed);
                }
            }
        })?;
        Ok(Self { path: path.to_owned(), unanswered })
    }
}

fn serve(client: UnixStream, inbox: &Inbox, attendant: &dyn Attendant, unanswered: &AtomicUsize) {
    let mut reader = BufReader::new(&client);
    let mut line = Vec::new();
    loop {
        line.clear();
        match reader.by_ref().take(LINE).read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => return,
            Ok(_) if line.len() as u64 == LINE => return,
            Ok(_) => {}
        }
        unanswered.fetch_add(1, Ordering::AcqRel);
        let answer = match execute(&line, inbox, attendant) {
            Ok(value) => json!({ "return": value }),
            Err(why) => json!({ "error": { "desc": why } }),
        };
        let told = writeln!(&client, "{answer}");
        unanswered.fetch_sub(1, Ordering::AcqRel);
        if told.is_err() {
            return;
        }
    }
}

fn execute(line: &[u8], inbox: &Inbox, attendant: &dyn Attendant) -> Result<Value, String> {
    let command: Value = serde_json::from_slice(line).map_err(|e| format!("not a line of JSON: {e}"))?;
    let word = command["execute"].as_str().unwrap_or_default();
    let too_many = || "the guest has not taken earlier ones yet; send fewer".to_owned();
    let press = |input| inbox.board(input).then_some(()).ok_or_else(too_many);
    match word {
        "status" => return Ok(attendant.status()),
        "key" => {
            let keys = command["keys"].as_str().ok_or("\"keys\" is missing, as in \"ctrl-alt-delete\"")?;
            inbox.key(scan_codes(keys)?).then_some(()).ok_or_else(too_many)?;
        }
        "powerdown" => press(Input::PowerButton)?,
        // Meant for the guest as it is now, not for whoever has it at some later time.
        "poweroff" => attendant.takes_inputs().and_then(|()| press(Input::PowerOff))?,
        "reset" => attendant.takes_inputs().and_then(|()| press(Input::Reset))?,
        "quit" => inbox.quit(QuitReason::Control),
        other => {
            return attendant.execute(other, &command).unwrap_or_else(|| {
                Err("\"execute\" must be status, key, powerdown, poweroff, reset or quit".into())
            });
        }
    }
    Ok(json!({}))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inputs::Inputs;
    use gemel_machine::{Stop, VirtTime};
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn commands_have_answers_and_effects() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("control");
        let inbox = Inbox::new();
        let control = Control::open(&path, &inbox, Arc::new(|| json!({ "instructions": 7 }))).unwrap();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "for this user only");
        let client = UnixStream::connect(&path).unwrap();
        let mut answers = BufReader::new(client.try_clone().unwrap()).lines();
        let mut ask = |line: &str| -> Value {
            writeln!(&client, "{line}").unwrap();
            serde_json::from_str(&answers.next().unwrap().unwrap()).unwrap()
        };
        assert_eq!(ask(r#"{"execute":"status"}"#), json!({ "return": { "instructions": 7 } }));
        assert_eq!(ask(r#"{"execute":"key","keys":"ret"}"#), json!({ "return": {} }));
        for word in ["powerdown", "reset", "poweroff"] {
            assert_eq!(ask(&format!(r#"{{"execute":"{word}"}}"#)), json!({ "return": {} }));
        }
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
        for input in [Input::PowerButton, Input::Reset, Input::PowerOff] {
            assert_eq!(inputs.take(VirtTime(0)).unwrap(), Some(input));
        }
        assert_eq!(inputs.take(VirtTime(0)).unwrap(), Some(Input::Key(vec![0x5a, 0xf0, 0x5a])));
        ask(r#"{"execute":"quit"}"#);
        assert!(matches!(inputs.take(VirtTime(0)), Err(Stop::Quit)));
        drop(control);
        assert!(!path.exists());
    }

    /// A run that cannot.
    struct Follower;

    impl Attendant for Follower {
        fn status(&self) -> Value {
            Value::Null
        }

        fn takes_inputs(&self) -> Result<(), String> {
            Err("ask the other side".into())
        }

        fn execute(&self, word: &str, command: &Value) -> Option<Result<Value, String>> {
            (word == "jump").then(|| Ok(command["high"].clone()))
        }
    }

    #[test]
    fn a_run_has_words_of_its_own_and_can_refuse_what_would_come_too_late() {
        let inbox = Inbox::new();
        let ask = |line: &str| execute(line.as_bytes(), &inbox, &Follower);
        assert_eq!(ask(r#"{"execute":"poweroff"}"#), Err("ask the other side".into()));
        assert_eq!(ask(r#"{"execute":"reset"}"#), Err("ask the other side".into()));
        assert_eq!(Inputs::new(Arc::clone(&inbox)).take(VirtTime(0)).unwrap(), None);
        assert_eq!(ask(r#"{"execute":"jump","high":3}"#), Ok(3.into()));
        assert!(ask(r#"{"execute":"fly"}"#).is_err());
        while ask(r#"{"execute":"powerdown"}"#).is_ok() {}
    }
}
