//! Reading a log from a stream.
//!
//! Not responsible for: what the entries do to a machine (`gemel-replay`).

use crate::codec::{CRC, Decoder, HEAD};
use crate::entry::Entry;
use crate::error::{Damage, LogError};
use crate::header::{Header, read_up_to};
use std::io::Read;

/// What comes next in a log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Item {
    /// An entry.
    Entry(Entry),
    /// The log is complete: the end entry was the last.
    Complete,
    /// The log stops without an end entry: it was cut off, or its maker died. All entries so far are good.
    Cut {
        /// Whole entries.
        entries: u64,
        /// Bytes up to the end of the last whole entry.
        offset: u64,
        /// Bytes of a further entry that is not whole.
        leftover: u64,
    },
}

/// Reads a log, entry by entry. Memory is bounded by the largest entry that is really there.
pub struct LogReader<R: Read> {
    header: Header,
    decoder: Decoder,
    source: R,
    entries: u64,
    offset: u64,
    /// Bytes of the entry that is not whole, once the source has ended there.
    cut: Option<u64>,
}

impl<R: Read> LogReader<R> {
    /// Reads the header. A `source` that is a file should be buffered.
    ///
    /// # Errors
    /// See [`LogError`].
    pub fn new(mut source: R) -> Result<Self, LogError> {
        let (header, crc, offset) = Header::decode(&mut source)?;
        let decoder = Decoder::new(&header, crc);
        Ok(Self { header, decoder, source, entries: 0, offset, cut: None })
    }

    /// The header.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Entries read so far.
    pub fn entries(&self) -> u64 {
        self.entries
    }

    /// Bytes read so far, up to the end of the last whole entry.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// The next item. After [`Item::Complete`] and [`Item::Cut`] it says the same again.
    ///
    /// # Errors
    /// [`LogError::Damaged`] at the damaged entry, [`LogError::Io`] from the stream.
    pub fn next_item(&mut self) -> Result<Item, LogError> {
        if let Some(leftover) = self.cut {
            return Ok(Item::Cut { entries: self.entries, offset: self.offset, leftover });
        }
        let mut frame = read_up_to(&mut self.source, HEAD)?;
        if self.decoder.ended() {
            return if frame.is_empty() { Ok(Item::Complete) } else { Err(self.damaged(Damage::AfterEnd)) };
        }
        if let Some(head) = frame.first_chunk() {
            let rest = Decoder::payload_length(*head).map_err(|d| self.damaged(d))? + CRC;
            frame.extend(read_up_to(&mut self.source, rest)?);
            if frame.len() == HEAD + rest {
                let entry = self.decoder.decode_frame(&frame).map_err(|d| self.damaged(d))?;
                self.entries += 1;
                self.offset += frame.len() as u64;
                return Ok(Item::Entry(entry));
            }
        }
        self.cut = Some(frame.len() as u64);
        self.next_item()
    }

    fn damaged(&self, damage: Damage) -> LogError {
        LogError::Damaged { entry: self.entries, offset: self.offset, damage }
    }
}
