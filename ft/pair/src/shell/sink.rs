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

/// The log as some peers get it.
struct Stream {
    encoder: Encoder,
    peers: Vec<PeerId>,
    /// Sampled times that have not left.
    batch: Vec<u8>,
}

/// Encodes entries as the log file has them and hands them to the side: for each peer from where its log begins.
pub struct PairSink {
    side: Arc<Side>,
    streams: Vec<Stream>,
}

impl PairSink {
    /// A sink for the log with this header.
    ///
    /// # Errors
    /// The header says nothing that a run can be made of.
    pub(super) fn new(side: Arc<Side>, header: &Header) -> Result<Self, LogError> {
        let mut sink = Self { side, streams: Vec::new() };
        sink.begin(header, Vec::new())?;
        Ok(sink)
    }

    /// These peers get every entry, from where the first header says.
    pub(super) fn send_to(&mut self, peers: Vec<PeerId>) {
        if let Some(stream) = self.streams.first_mut() {
            stream.peers = peers;
        }
    }

    /// This peer gets every entry from here on, as a log with this header.
    ///
    /// # Errors
    /// As [`PairSink::new`].
    pub(super) fn cut(&mut self, peer: PeerId, header: &Header) -> Result<(), LogError> {
        self.begin(header, vec![peer])
    }

    fn begin(&mut self, header: &Header, peers: Vec<PeerId>) -> Result<(), LogError> {
        let (bytes, crc) = header.encode()?;
        self.side.count_header(bytes.len() as u64);
        self.streams.push(Stream { encoder: Encoder::new(header, crc), peers, batch: Vec::new() });
        Ok(())
    }

    fn send(&mut self) {
        for stream in &mut self.streams {
            for chunk in std::mem::take(&mut stream.batch).chunks(CHUNK) {
                for peer in &stream.peers {
                    self.side.event(Event::Entries(*peer, chunk.to_vec()));
                }
            }
        }
    }
}

impl EntrySink for PairSink {
    fn entry(&mut self, entry: &Entry) -> Result<(), Stop> {
        let mut waiting = 0;
        for Stream { encoder, batch, .. } in &mut self.streams {
            let before = batch.len();
            let class = encoder.encode(entry, batch).map_err(|e| Stop::Host(Box::new(e)))?;
            self.side.count(class, (batch.len() - before) as u64);
            waiting = batch.len().max(waiting);
        }
        if entry.body != Body::Time || waiting >= BATCH {
            self.send();
        }
        Ok(())
    }

    /// A mark says that nothing before it is to come.
    fn mark(&mut self, _at: At, _outputs: u64) -> Result<(), Stop> {
        self.send();
        Ok(())
    }

    /// Peers that are gone get nothing more.
    fn flush(&mut self) -> Result<(), Stop> {
        self.send();
        let Self { side, streams } = self;
        let mut first = true;
        streams.retain(|stream| {
            std::mem::take(&mut first) || stream.peers.iter().any(|peer| side.has_peer(*peer))
        });
        Ok(())
    }
}
