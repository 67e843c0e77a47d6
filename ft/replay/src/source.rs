//! Where the entries of a replay come from.
//!
//! Not responsible for: obeying them (`replay`).

use gemel_log::{Entry, Item, LogReader};
use gemel_machine::{At, Stop};
use std::io::Read;

/// What a source knows of what comes next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Lookahead<'a> {
    /// The next entry.
    Entry(&'a Entry),
    /// No entry yet, and whatever comes is not before this point (it can still be at it). The machine may run to
    /// the point but not past it.
    UpTo(At),
    /// No further entry will come, and the source ended as it should: after the end entry, or because whoever
    /// feeds it says so (a peer that died).
    Ended,
    /// No further entry will come, because the log is cut off.
    Cut {
        /// Whole entries.
        entries: u64,
        /// Bytes of a further entry that is not whole.
        leftover: u64,
    },
}

/// A source of entries.
///
/// A source that said [`Lookahead::UpTo`] goes on saying it until [`EntrySource::wait`] was called or an entry or a
/// later limit came, also when nothing more can come: the replay must still reach that point, and not stop earlier,
/// because outputs up to there may have been released.
pub trait EntrySource {
    /// Looks at what comes next; does not block longer than a file's read takes.
    ///
    /// # Errors
    /// The reason to end the run: the log is damaged, the peer sent nonsense.
    fn peek(&mut self) -> Result<Lookahead<'_>, Stop>;

    /// Removes the entry that [`EntrySource::peek`] showed.
    fn advance(&mut self);

    /// Waits until [`EntrySource::peek`] would say something else than the [`Lookahead::UpTo`] it said last. A
    /// source that never says `UpTo` is never asked.
    ///
    /// # Errors
    /// The reason to end the run.
    fn wait(&mut self) -> Result<(), Stop>;
}

/// Entries from a log.
pub struct LogSource<R: Read> {
    reader: LogReader<R>,
    next: Option<Item>,
}

impl<R: Read> LogSource<R> {
    /// All entries that the reader has not read yet.
    pub fn new(reader: LogReader<R>) -> Self {
        Self { reader, next: None }
    }

    /// Passes over entries that a replay agreed with before. Stops early where the log does.
    ///
    /// # Errors
    /// Those of the log.
    pub fn skip(&mut self, entries: u64) -> Result<(), Stop> {
        for _ in 0..entries {
            if !matches!(self.peek()?, Lookahead::Entry(_)) {
                break;
            }
            self.advance();
        }
        Ok(())
    }

    /// The reader.
    pub fn reader(&self) -> &LogReader<R> {
        &self.reader
    }
}

impl<R: Read> EntrySource for LogSource<R> {
    fn peek(&mut self) -> Result<Lookahead<'_>, Stop> {
        if self.next.is_none() {
            self.next = Some(self.reader.next_item().map_err(|e| Stop::Host(Box::new(e)))?);
        }
        Ok(match &self.next {
            Some(Item::Entry(entry)) => Lookahead::Entry(entry),
            Some(Item::Cut { entries, leftover, .. }) => {
                Lookahead::Cut { entries: *entries, leftover: *leftover }
            }
            Some(Item::Complete) | None => Lookahead::Ended,
        })
    }

    fn advance(&mut self) {
        self.next = None;
    }

    fn wait(&mut self) -> Result<(), Stop> {
        Ok(())
    }
}
