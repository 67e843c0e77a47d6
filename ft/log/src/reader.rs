//! Reading a log from a stream.
//!
//! Not responsible for: what the entries do to a machine (`gemel-replay`).

use crate::codec::Decoder;
use crate::entry::Entry;
use crate::error::LogError;
use crate::header::Header;
use std::io::{ErrorKind, Read};

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

/// Bytes read at a time, at most.
const PIECE: usize = 64 << 10;

/// Reads a log, entry by entry. Memory is bounded by the largest entry that is really there.
pub struct LogReader<R: Read> {
    header: Header,
    decoder: Decoder,
    source: R,
    entries: u64,
    offset: u64,
    /// What was read and is not decoded yet, from `front` on.
    buffer: Vec<u8>,
    front: usize,
    /// The source has ended.
    exhausted: bool,
}

impl<R: Read> LogReader<R> {
    /// Reads the header.
    ///
    /// # Errors
    /// See [`LogError`].
    pub fn new(mut source: R) -> Result<Self, LogError> {
        let (header, crc, offset) = Header::decode(&mut source)?;
        let decoder = Decoder::new(&header, crc);
        Ok(Self {
            header,
            decoder,
            source,
            entries: 0,
            offset,
            buffer: Vec::new(),
            front: 0,
            exhausted: false,
        })
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
        let Self { entries, offset, .. } = *self;
        loop {
            let left = &self.buffer[self.front..];
            let decoded = self.decoder.decode(left);
            if let Some((entry, bytes)) =
                decoded.map_err(|damage| LogError::Damaged { entry: entries, offset, damage })?
            {
                self.front += bytes;
                self.offset += bytes as u64;
                self.entries += 1;
                return Ok(Item::Entry(entry));
            }
            if self.exhausted {
                return Ok(match self.decoder.ended() {
                    true => Item::Complete,
                    false => Item::Cut { entries, offset, leftover: left.len() as u64 },
                });
            }
            self.buffer.drain(..self.front);
            self.front = 0;
            self.exhausted = self.read_on()? == 0;
        }
    }

    /// Takes what one read gives, so that a source that still grows is not waited for longer than it takes to go on.
    fn read_on(&mut self) -> Result<usize, LogError> {
        let filled = self.buffer.len();
        self.buffer.resize(filled + PIECE, 0);
        let read = loop {
            match self.source.read(&mut self.buffer[filled..]) {
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                other => break other,
            }
        };
        self.buffer.truncate(filled + read.as_ref().map_or(0, |n| *n));
        read.map_err(|source| LogError::Io { what: "read", source })
    }
}
