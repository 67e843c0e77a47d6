//! Writing a log to a stream.
//!
//! Not responsible for: which stream, whether it is durable (the caller's file).

use crate::codec::Encoder;
use crate::entry::Entry;
use crate::error::LogError;
use crate::header::Header;
use std::io::Write;

/// Bytes collected before they are written out.
const BUFFER: usize = 64 << 10;

/// What an entry is, for statistics.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Class {
    /// Serial bytes, keys, mouse, buttons.
    Input,
    /// Disk completions.
    Disk,
    /// Network frames.
    Net,
    /// Epoch digests.
    Digest,
    /// Answers to the vCPU.
    Answer,
    /// Sampled times, and where the machine stood when it was told one.
    Time,
    /// The end.
    Other,
}

/// Bytes of a log by class, framing included.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, serde::Serialize, serde::Deserialize)]
pub struct ByteCounts {
    /// Serial bytes, keys, mouse, buttons.
    pub input: u64,
    /// Disk completions.
    pub disk: u64,
    /// Network frames.
    pub net: u64,
    /// Epoch digests.
    pub digest: u64,
    /// Answers to the vCPU.
    pub answers: u64,
    /// Sampled times, and where the machine stood when it was told one.
    pub times: u64,
    /// Header and end.
    pub other: u64,
}

impl ByteCounts {
    /// Counts an entry's bytes.
    pub fn add(&mut self, class: Class, bytes: u64) {
        *match class {
            Class::Input => &mut self.input,
            Class::Disk => &mut self.disk,
            Class::Net => &mut self.net,
            Class::Digest => &mut self.digest,
            Class::Answer => &mut self.answers,
            Class::Time => &mut self.times,
            Class::Other => &mut self.other,
        } += bytes;
    }

    /// What was added after `earlier`.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        Self {
            input: self.input.saturating_sub(earlier.input),
            disk: self.disk.saturating_sub(earlier.disk),
            net: self.net.saturating_sub(earlier.net),
            digest: self.digest.saturating_sub(earlier.digest),
            answers: self.answers.saturating_sub(earlier.answers),
            times: self.times.saturating_sub(earlier.times),
            other: self.other.saturating_sub(earlier.other),
        }
    }

    /// All bytes.
    pub fn total(&self) -> u64 {
        let Self { input, disk, net, digest, answers, times, other } = *self;
        input + disk + net + digest + answers + times + other
    }
}

/// Writes a log. What was appended and not yet written out is written when the writer is dropped.
pub struct LogWriter<W: Write> {
    encoder: Encoder,
    out: W,
    buffer: Vec<u8>,
    counts: ByteCounts,
    entries: u64,
    /// A write failed: how much of it arrived is unknown, so nothing may follow.
    broken: bool,
}

impl<W: Write> LogWriter<W> {
    /// Writes the header.
    ///
    /// # Errors
    /// [`LogError::HeaderInvalid`], or [`LogError::Io`] from the stream.
    pub fn new(out: W, header: &Header) -> Result<Self, LogError> {
        let (buffer, crc) = header.encode()?;
        let counts = ByteCounts { other: buffer.len() as u64, ..Default::default() };
        let mut writer =
            Self { encoder: Encoder::new(header, crc), out, buffer, counts, entries: 0, broken: false };
        writer.flush()?;
        Ok(writer)
    }

    /// Appends an entry. It is written out when enough has collected, see [`LogWriter::flush`].
    ///
    /// # Errors
    /// [`LogError::TooLarge`], [`LogError::Backwards`]; [`LogError::Io`] from the stream.
    pub fn append(&mut self, entry: &Entry) -> Result<(), LogError> {
        let before = self.buffer.len();
        let class = self.encoder.encode(entry, &mut self.buffer)?;
        self.counts.add(class, (self.buffer.len() - before) as u64);
        self.entries += 1;
        if self.buffer.len() >= BUFFER { self.flush() } else { Ok(()) }
    }

    /// Writes out what has collected.
    ///
    /// # Errors
    /// [`LogError::Io`]. The log ends somewhere in what had collected, and every further call fails.
    pub fn flush(&mut self) -> Result<(), LogError> {
        let written = match self.broken {
            true => Err(std::io::Error::other("an earlier write failed")),
            false => self.out.write_all(&self.buffer).and_then(|()| self.out.flush()),
        };
        self.buffer.clear();
        self.broken = written.is_err();
        written.map_err(|source| LogError::Io { what: "written", source })
    }

    /// Bytes so far by class, also those not yet written out.
    pub fn counts(&self) -> ByteCounts {
        self.counts
    }

    /// Entries so far.
    pub fn entries(&self) -> u64 {
        self.entries
    }
}

impl<W: Write> Drop for LogWriter<W> {
    fn drop(&mut self) {
        // Whoever wants to know whether it worked has called `flush`; here nobody is left to tell.
        let _ = self.flush();
    }
}
