//! A serial line on the terminal, or on whatever standard input and output are.
//!
//! Not responsible for: raw mode itself (`terminal`).
//!
//! On a terminal Ctrl-A is the way to this program: x leaves, h helps, a second Ctrl-A sends one. Input from a pipe or
//! a file has no such key and is passed on as it is.

use crate::error::HostError;
use crate::inbox::{Inbox, QuitReason};
use crate::outputs::ByteSink;
use crate::signals::spawn;
use crate::terminal::{self, RawMode};
use std::io::{self, Read, Write};
use std::sync::Arc;

const CTRL_A: u8 = 1;
/// What the keys of [`Escape`] do.
pub const HELP: &str = "\n\
    Ctrl-A x       leave\n\
    Ctrl-A h       this help\n\
    Ctrl-A Ctrl-A  send Ctrl-A to the guest\n";

/// Standard output alone.
pub(super) struct Stdout;

impl ByteSink for Stdout {
    fn name(&self) -> String {
        "standard output".into()
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        io::stdout().write_all(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stdout().flush()
    }
}

/// Standard output, and the terminal in raw mode while it is in use.
struct Console {
    stdout: Stdout,
    _raw: Option<RawMode>,
}

impl ByteSink for Console {
    fn name(&self) -> String {
        self.stdout.name()
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stdout.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stdout.flush()
    }
}

pub(super) fn open(port: usize, inbox: &Arc<Inbox>) -> Result<Box<dyn ByteSink>, HostError> {
    let raw = terminal::is_terminal().then(terminal::raw).transpose()?;
    let mut escape = raw.is_some().then(Escape::default);
    let source = inbox.source();
    let inbox = Arc::clone(inbox);
    spawn("stdin", move || {
        let _source = source;
        let mut buffer = [0; 256];
        loop {
            let count = match io::stdin().read(&mut buffer) {
                Ok(0) => return,
                Ok(count) => count,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(_) => return,
            };
            let mut bytes = buffer[..count].to_vec();
            if let Some(escape) = &mut escape {
                match escape.filter(&mut bytes) {
                    Some(Command::Leave) => return inbox.quit(QuitReason::Terminal),
                    Some(Command::Help) => eprint!("{HELP}"),
                    None => {}
                }
            }
            if !inbox.serial(port, &bytes) {
                return;
            }
        }
    })?;
    Ok(Box::new(Console { stdout: Stdout, _raw: raw }))
}

/// What somebody wants of this program, not of the guest.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Command {
    /// Ctrl-A x.
    Leave,
    /// Ctrl-A h.
    Help,
}

/// Takes Ctrl-A and what follows it out of what was typed.
#[derive(Default)]
pub struct Escape {
    pending: bool,
}

impl Escape {
    /// Leaves in `bytes` what is for the guest. Returns the last command found.
    pub fn filter(&mut self, bytes: &mut Vec<u8>) -> Option<Command> {
        let mut command = None;
        bytes.retain(|byte| {
            if !std::mem::take(&mut self.pending) {
                self.pending = *byte == CTRL_A;
                return !self.pending;
            }
            match byte {
                b'x' | b'X' => command = Some(Command::Leave),
                b'h' | b'H' | b'?' if command.is_none() => command = Some(Command::Help),
                _ => {}
            }
            *byte == CTRL_A
        });
        command
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ctrl_a_is_the_way_to_this_program() {
        let mut escape = Escape::default();
        let mut check = |typed: &[u8], left: &[u8], command| {
            let mut bytes = typed.to_vec();
            assert_eq!(escape.filter(&mut bytes), command, "{typed:?}");
            assert_eq!(bytes, left, "{typed:?}");
        };
        check(b"ls\r", b"ls\r", None);
        check(b"a\x01\x01b", b"a\x01b", None);
        check(b"\x01", b"", None);
        check(b"hq", b"q", Some(Command::Help));
        check(b"\x01zz", b"z", None);
        check(b"bye\x01x", b"bye", Some(Command::Leave));
    }
}
