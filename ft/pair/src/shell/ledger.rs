//! A side's ledger as a file.
//!
//! Not responsible for: what stands in it (`ledger`).

use super::connection::spawn;
use super::error::PairError;
use crate::ledger::{Line, Writer};
use parking_lot::{Condvar, Mutex, MutexGuard};
use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;

/// Lines that may wait for the file. Beyond, they are counted and not written.
const BOUND: usize = 1 << 16;

#[derive(Default)]
struct Queue {
    lines: Vec<Line>,
    /// Lines that found no room.
    missing: u64,
    closing: bool,
    /// The file has everything, or takes nothing more.
    done: bool,
}

/// A ledger that a thread writes.
pub struct LedgerFile {
    queue: Arc<(Mutex<Queue>, Condvar)>,
}

impl LedgerFile {
    /// Makes the file, and starts its thread. An earlier ledger of that name, as of a standby that takes part again, is kept under
    /// the next free name: with `.1`, `.2` ... behind it.
    ///
    /// # Errors
    /// [`PairError::Ledger`], or no thread.
    pub fn create(path: &Path) -> Result<Self, PairError> {
        let made = keep_earlier(path).and_then(|()| File::create(path));
        let file = made.map_err(|e| PairError::Ledger(path.into(), e))?;
        let queue: Arc<(Mutex<Queue>, Condvar)> = Arc::default();
        let (writing, path) = (Arc::clone(&queue), path.to_owned());
        spawn("ledger", move || {
            if let Err(e) = write_all(file, &writing) {
                tell(&path, &e);
            }
            writing.0.lock().done = true;
            writing.1.notify_all();
        })?;
        Ok(Self { queue })
    }

    /// Takes lines, without waiting.
    pub fn write(&self, lines: Vec<Line>) {
        let (queue, changed) = &*self.queue;
        let mut queue = queue.lock();
        if queue.missing > 0 || queue.lines.len() + lines.len() > BOUND {
            queue.missing += lines.len() as u64;
        } else {
            queue.lines.extend(lines);
        }
        changed.notify_all();
    }

    /// Whether so many lines wait that a live guest has to: none of its outputs' lines is to be missing.
    pub fn is_behind(&self) -> bool {
        let queue = self.queue.0.lock();
        !queue.done && queue.lines.len() > BOUND / 2
    }

    /// Waits until the file has everything, on the disk.
    pub fn finish(&self) {
        let (queue, changed) = &*self.queue;
        let mut queue = queue.lock();
        queue.closing = true;
        changed.notify_all();
        while !queue.done {
            changed.wait(&mut queue);
        }
    }
}

fn keep_earlier(path: &Path) -> io::Result<()> {
    if std::fs::metadata(path).is_ok_and(|known| known.is_file() && known.len() > 0) {
        let mut names = (1u32..).map(|number| {
            let mut name = path.as_os_str().to_owned();
            name.push(format!(".{number}"));
            name
        });
        if let Some(free) = names.find(|name| !Path::new(name).exists()) {
            std::fs::rename(path, free)?;
        }
    }
    Ok(())
}

fn tell(path: &Path, error: &io::Error) {
    eprintln!(
        "gemel: warning: the ledger {} ends here, it cannot be written: {error}; make room and start the pair anew",
        path.display()
    );
}

fn write_all(mut file: File, (queue, changed): &(Mutex<Queue>, Condvar)) -> io::Result<()> {
    let (mut writer, mut text) = (Writer::default(), Vec::new());
    let mut state = queue.lock();
    loop {
        if !state.lines.is_empty() || state.missing > 0 {
            let (lines, missing) = (std::mem::take(&mut state.lines), std::mem::take(&mut state.missing));
            MutexGuard::unlocked(&mut state, || {
                lines.iter().for_each(|line| writer.line(line, &mut text));
                if missing > 0 {
                    writer.line(&Line::Missing { lines: missing }, &mut text);
                }
                file.write_all(&text)
            })?;
            text.clear();
        } else if state.closing {
            return MutexGuard::unlocked(&mut state, || file.sync_all());
        } else {
            changed.wait(&mut state);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::{Hex, Lines, Stream};

    fn made(first: u64) -> Line {
        Line::Made { stream: Stream::Console, first, next: first + 1, digest: Hex(1) }
    }

    #[test]
    fn what_is_handed_in_is_in_the_file_at_the_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ledger");
        let ledger = LedgerFile::create(&path).unwrap();
        let opened = Line::Opened { version: 1, vm: "x".into(), member: Hex(1), machine: Hex(2) };
        let mut lines = vec![opened];
        lines.extend((0..1000).map(made));
        lines.push(Line::Ended);
        lines.chunks(7).for_each(|some| ledger.write(some.to_vec()));
        ledger.finish();
        let read: Vec<Line> = Lines::new(&*std::fs::read(&path).unwrap()).collect::<Result<_, _>>().unwrap();
        assert_eq!(read, lines);
    }

    #[test]
    fn an_earlier_ledger_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ledger");
        for number in 0..3 {
            let ledger = LedgerFile::create(&path).unwrap();
            ledger.write(vec![made(number)]);
            ledger.finish();
        }
        let text = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap();
        assert!(text("ledger.1").contains("\"first\":0") && text("ledger.2").contains("\"first\":1"));
        assert!(text("ledger").contains("\"first\":2"));
    }

    #[test]
    fn what_finds_no_room_is_counted() {
        let queue = Arc::new((Mutex::new(Queue::default()), Condvar::new()));
        let ledger = LedgerFile { queue: Arc::clone(&queue) };
        assert!(!ledger.is_behind());
        ledger.write((0..BOUND as u64).map(made).collect());
        assert!(ledger.is_behind());
        ledger.write(vec![made(1), made(2)]);
        ledger.write(vec![made(3)]);
        let state = queue.0.lock();
        assert_eq!((state.lines.len(), state.missing), (BOUND, 3));
    }
}
