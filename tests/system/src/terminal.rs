//! The far end of a guest's serial port, when the port is a UNIX socket: types, and waits for what the guest prints.
//!
//! Not responsible for starting the machine that owns the socket.

use anyhow::{Context, Result, bail};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

/// A connected serial port with all that came out of it
#[derive(Debug)]
pub struct Terminal {
    stream: UnixStream,
    printed: Vec<u8>,
    /// `wait_for` has looked at `printed` up to here
    looked_at: usize,
}

impl Terminal {
    /// Connects to the socket at `path` as soon as there is one, for at most `limit`.
    pub fn connect(path: &Path, limit: Duration) -> Result<Self> {
        let started = Instant::now();
        loop {
            match UnixStream::connect(path) {
                Ok(stream) => return Ok(Self::on(stream)),
                Err(error) if started.elapsed() > limit => {
                    return Err(error).with_context(|| format!("no serial port at {}", path.display()));
                }
                Err(_) => thread::sleep(Duration::from_millis(20)),
            }
        }
    }

    /// What is at the other end of `stream`.
    #[must_use]
    pub fn on(stream: UnixStream) -> Self {
        Self { stream, printed: Vec::new(), looked_at: 0 }
    }

    /// Sends text as typed.
    pub fn type_text(&mut self, text: &str) -> Result<()> {
        self.stream.write_all(text.as_bytes()).context("typing on the serial port")
    }

    /// Reads until `text` comes, after everything that earlier calls waited for.
    pub fn wait_for(&mut self, text: &str, limit: Duration) -> Result<()> {
        let started = Instant::now();
        loop {
            let new = &self.printed[self.looked_at..];
            if let Some(at) = new.windows(text.len()).position(|window| window == text.as_bytes()) {
                self.looked_at += at + text.len();
                return Ok(());
            }
            let left = limit.saturating_sub(started.elapsed());
            if left.is_zero() || !self.read_some(left)? {
                let printed = String::from_utf8_lossy(&self.printed);
                bail!("the guest did not print {text:?} within {limit:?}:\n{}", crate::child::tail(&printed));
            }
        }
    }

    /// Reads to the end of the connection and returns everything that was ever printed.
    pub fn finish(mut self, limit: Duration) -> Result<Vec<u8>> {
        let started = Instant::now();
        while self.read_some(limit.saturating_sub(started.elapsed()).max(Duration::from_millis(1)))? {
            if started.elapsed() > limit {
                bail!("the serial port is still open after {limit:?}");
            }
        }
        Ok(self.printed)
    }

    /// False at the end of the connection, or when nothing came within `limit`.
    fn read_some(&mut self, limit: Duration) -> Result<bool> {
        let mut bytes = [0; 4096];
        self.stream.set_read_timeout(Some(limit))?;
        match self.stream.read(&mut bytes) {
            Ok(count) => {
                self.printed.extend_from_slice(&bytes[..count]);
                Ok(count > 0)
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => Ok(false),
            // How the kernel reports a peer that left unread bytes behind.
            Err(error) if error.kind() == ErrorKind::ConnectionReset => Ok(false),
            Err(error) => Err(error).context("reading the serial port"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    const LIMIT: Duration = Duration::from_secs(20);

    #[test]
    fn each_wait_goes_on_where_the_last_one_ended() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("serial");
        let listener = UnixListener::bind(&path).unwrap();
        let port = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream.write_all(b"one two one ").unwrap();
            let mut typed = [0; 3];
            stream.read_exact(&mut typed).unwrap();
            stream.write_all(&typed).unwrap();
        });
        let mut terminal = Terminal::connect(&path, LIMIT).unwrap();
        terminal.wait_for("one", LIMIT).unwrap();
        terminal.wait_for("one", LIMIT).unwrap();
        let error = terminal.wait_for("one", Duration::from_millis(50)).unwrap_err().to_string();
        assert!(error.contains("one two one"), "{error}");
        terminal.type_text("abc").unwrap();
        assert_eq!(terminal.finish(LIMIT).unwrap(), b"one two one abc");
        port.join().unwrap();
    }
}
