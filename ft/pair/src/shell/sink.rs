//! The entries of a live side on their way to the peer.
//!
//! Not responsible for: the log file (another sink), sending (`side`).

use super::side::Side;
use crate::protocol::{Event, PeerId};
use gemel_log::{Body, Encoder, Entry, Header, LogError};
use gemel_machine::{At, Stop};
use gemel_replay::EntrySink;
use std::sync::Arc;

/// Log bytes in one message.
const CHUNK: usize = 1 << 20;
/// Bytes of sampled times that wait for something that has to leave. Each is a few bytes, and all go together.
const BATCH: usize = 8 << 10;

/// Encodes entries as the log file has them and hands them to the side.
pub struct PairSink {
    side: Arc<Side>,
    encoder: Encoder,
    /// Who gets them.
    peers: Vec<PeerId>,
    /// Sampled times that have not left.
    batch: Vec<u8>,
}

impl PairSink {
    /// A sink for the log with this header.
    ///
    /// # Errors
    /// The header says nothing that a run can be made of.
    pub(super) fn new(side: Arc<Side>, header: &Header) -> Result<Self, LogError> {
        let (bytes, crc) = header.encode()?;
        side.count_header(bytes.len() as u64);
        Ok(Self { side, encoder: Encoder::new(header, crc), peers: Vec::new(), batch: Vec::new() })
    }
}

impl PairSink {
    /// These peers get every entry, from power-on.
    pub(super) fn send_to(&mut self, peers: Vec<PeerId>) {
        self.peers = peers;
    }

    fn send(&mut self) {
        for chunk in std::mem::take(&mut self.batch).chunks(CHUNK) {
            for peer in &self.peers {
                self.side.event(Event::Entries(*peer, chunk.to_vec()));
            }
        }
    }
}

impl EntrySink for PairSink {
    fn entry(&mut self, entry: &Entry) -> Result<(), Stop> {
        let before = self.batch.len();
        let class = self.encoder.encode(entry, &mut self.batch).map_err(|e| Stop::Host(Box::new(e)))?;
        self.side.count(class, (self.batch.len() - before) as u64);
        if entry.body != Body::Time || self.batch.len() >= BATCH {
            self.send();
        }
        Ok(())
    }

    /// A mark says that nothing before it is to come.
    fn mark(&mut self, _at: At, _outputs: u64) -> Result<(), Stop> {
        self.send();
        Ok(())
    }

    fn flush(&mut self) -> Result<(), Stop> {
        self.send();
        Ok(())
    }
}
