//! The entries of a live side on their way to the peer.
//!
//! Not responsible for: the log file (another sink), sending (`side`).

use super::side::Side;
use crate::protocol::Event;
use gemel_log::{Encoder, Entry, Header, LogError};
use gemel_machine::Stop;
use gemel_replay::EntrySink;
use std::sync::Arc;

/// Log bytes in one message.
const CHUNK: usize = 1 << 20;

/// Encodes entries as the log file has them and hands them to the side.
pub struct PairSink {
    side: Arc<Side>,
    encoder: Encoder,
}

impl PairSink {
    /// A sink for the log with this header.
    ///
    /// # Errors
    /// The header says nothing that a run can be made of.
    pub(super) fn new(side: Arc<Side>, header: &Header) -> Result<Self, LogError> {
        let (bytes, crc) = header.encode()?;
        side.count_header(bytes.len() as u64);
        Ok(Self { side, encoder: Encoder::new(header, crc) })
    }
}

impl EntrySink for PairSink {
    fn entry(&mut self, entry: &Entry) -> Result<(), Stop> {
        let mut bytes = Vec::new();
        let class = self.encoder.encode(entry, &mut bytes).map_err(|e| Stop::Host(Box::new(e)))?;
        self.side.count(class, bytes.len() as u64);
        for chunk in bytes.chunks(CHUNK) {
            self.side.event(Event::Entries(chunk.to_vec()));
        }
        Ok(())
    }
}
