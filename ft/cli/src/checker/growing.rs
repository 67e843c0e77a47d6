//! A log that somebody still writes: its end is waited for as long as the writer holds it.
//!
//! Not responsible for: entries (`gemel-log`).

use gemel_host::Inbox;
use rustix::fs::{FlockOperation, flock};
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// Between two looks at a log that has not grown.
const PAUSE: Duration = Duration::from_millis(5);

/// Marks a log as being written, until the file is closed or this process dies. A file system without locks cannot say so: who
/// follows the log then takes what is there for all of it.
pub fn hold(log: &File) {
    let _ = flock(log, FlockOperation::NonBlockingLockExclusive);
}

/// Whether somebody writes a log.
pub fn is_held(log: &File) -> bool {
    let free = flock(log, FlockOperation::NonBlockingLockShared).is_ok();
    if free {
        let _ = flock(log, FlockOperation::Unlock);
    }
    !free
}

/// The bytes of a log, as they come.
pub struct Growing {
    file: File,
    inbox: Arc<Inbox>,
}

impl Growing {
    /// Opens a log that is there.
    ///
    /// # Errors
    /// The host's.
    pub fn open(path: &Path, inbox: &Arc<Inbox>) -> io::Result<Self> {
        Ok(Self { file: File::open(path)?, inbox: Arc::clone(inbox) })
    }
}

impl Read for Growing {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        loop {
            // Asked before reading: what was written before the writer let go is then still read.
            let more_may_come = is_held(&self.file);
            let read = self.file.read(out)?;
            if read > 0 || out.is_empty() || !more_may_come {
                return Ok(read);
            }
            if self.inbox.quit_reason().is_some() {
                return Err(io::Error::other("ended while waiting for the log to go on"));
            }
            std::thread::sleep(PAUSE);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn a_log_ends_where_its_writer_lets_go() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let mut writer = File::create(&path).unwrap();
        hold(&writer);
        writer.write_all(b"one").unwrap();
        let mut growing = Growing::open(&path, &Inbox::new()).unwrap();
        let reading = std::thread::spawn(move || {
            let mut all = Vec::new();
            growing.read_to_end(&mut all).map(|_| all)
        });
        std::thread::sleep(4 * PAUSE);
        assert!(!reading.is_finished(), "the writer still holds it");
        writer.write_all(b" and two").unwrap();
        drop(writer);
        assert_eq!(reading.join().unwrap().unwrap(), b"one and two");
    }
}
