//! The secondary's log: entries as they arrive, and how far it may run.
//!
//! Not responsible for: obeying them (`gemel-replay`).

use gemel_log::{Damage, Decoder, Entry, Header, LogError};
use gemel_machine::{At, Stop};
use gemel_replay::{EntrySource, Lookahead};
use parking_lot::{Condvar, Mutex};
use std::collections::VecDeque;
use std::sync::Arc;

struct State {
    decoder: Decoder,
    /// Bytes of an entry that is not whole.
    partial: Vec<u8>,
    entries: VecDeque<Entry>,
    /// The last mark or entry: nothing that comes later is before it.
    limit: At,
    ended: bool,
    stopped: bool,
}

/// Where the peer's messages are left for the machine's thread.
pub struct Feed {
    state: Mutex<State>,
    changed: Condvar,
}

fn later(a: At, b: At) -> At {
    if (b.position.count, b.time) > (a.position.count, a.time) { b } else { a }
}

impl Feed {
    /// A feed that follows a log header as it stands in the log.
    ///
    /// # Errors
    /// What is wrong with the header.
    pub fn new(header_bytes: &[u8]) -> Result<(Arc<Self>, Header), LogError> {
        let (header, crc, _) = Header::decode(&mut &*header_bytes)?;
        let state = State {
            decoder: Decoder::new(&header, crc),
            partial: Vec::new(),
            entries: VecDeque::new(),
            limit: header.start,
            ended: false,
            stopped: false,
        };
        Ok((Arc::new(Self { state: Mutex::new(state), changed: Condvar::new() }), header))
    }

    /// Log bytes arrived.
    ///
    /// # Errors
    /// They are no log.
    pub fn bytes(&self, bytes: &[u8]) -> Result<(), Damage> {
        let mut state = self.state.lock();
        let State { decoder, partial, entries, limit, .. } = &mut *state;
        partial.extend_from_slice(bytes);
        let mut used = 0;
        while let Some((entry, length)) = decoder.decode(&partial[used..])? {
            used += length;
            *limit = later(*limit, entry.behind());
            entries.push_back(entry);
            if used == partial.len() {
                break;
            }
        }
        partial.drain(..used);
        self.changed.notify_all();
        Ok(())
    }

    /// The machine may run up to here.
    pub fn limit(&self, at: At) {
        let mut state = self.state.lock();
        state.limit = later(state.limit, at);
        self.changed.notify_all();
    }

    /// Nothing more will come.
    pub fn end(&self) {
        self.state.lock().ended = true;
        self.changed.notify_all();
    }

    /// The machine's thread is to give up.
    pub fn stop(&self) {
        self.state.lock().stopped = true;
        self.changed.notify_all();
    }
}

/// The machine's end of a feed.
pub struct FeedSource {
    feed: Arc<Feed>,
    next: Option<Entry>,
    /// The limit last told.
    told: At,
    /// The feed has ended, and the machine is at its limit.
    exhausted: bool,
}

impl FeedSource {
    /// The source for a feed's only machine.
    pub fn new(feed: Arc<Feed>) -> Self {
        let told = feed.state.lock().limit;
        Self { feed, next: None, told, exhausted: false }
    }
}

impl EntrySource for FeedSource {
    fn peek(&mut self) -> Result<Lookahead<'_>, Stop> {
        if self.next.is_none() {
            let mut state = self.feed.state.lock();
            self.next = state.entries.pop_front();
            self.told = state.limit;
        }
        Ok(match &self.next {
            Some(entry) => Lookahead::Entry(entry),
            None if self.exhausted => Lookahead::Ended,
            // Also when the feed has ended: the machine still has to come here, and not stop earlier.
            None => Lookahead::UpTo(self.told),
        })
    }

    fn advance(&mut self) {
        self.next = None;
    }

    /// Called only when the machine is at the limit.
    fn wait(&mut self) -> Result<(), Stop> {
        let mut state = self.feed.state.lock();
        loop {
            if state.stopped {
                return Err(Stop::Quit);
            }
            if !state.entries.is_empty() || state.limit != self.told {
                return Ok(());
            }
            if state.ended {
                self.exhausted = true;
                return Ok(());
            }
            self.feed.changed.wait(&mut state);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gemel_log::{Body, ClockKind, Encoder};
    use gemel_machine::{BootSpec, MachineSpec, Position, Reckoning, VirtTime};

    fn header() -> Header {
        let machine = MachineSpec {
            board: 1,
            ram: 1 << 20,
            cpu: "x86-64-v2".into(),
            reckoning: Reckoning::default(),
            rtc_base: 0,
            seed: 0,
            disks: Vec::new(),
            nics: Vec::new(),
            boot: BootSpec::default(),
        };
        Header::new(machine, ClockKind::Paced)
    }

    fn at(count: u64) -> At {
        At { position: Position { count, rip: 5, rcx: 6 }, time: VirtTime(4 * count) }
    }

    #[test]
    fn the_machine_runs_to_the_last_entry_or_mark_and_not_less() {
        let (bytes, crc) = header().encode().unwrap();
        let (feed, read) = Feed::new(&bytes).unwrap();
        assert_eq!(read, header());
        let mut source = FeedSource::new(Arc::clone(&feed));
        assert_eq!(source.peek().unwrap(), Lookahead::UpTo(header().start));

        let entry = Entry { at: at(10), body: Body::Answer(1) };
        let mut frame = Vec::new();
        Encoder::new(&header(), crc).encode(&entry, &mut frame).unwrap();
        let (front, back) = frame.split_at(7);
        feed.bytes(front).unwrap();
        assert_eq!(source.peek().unwrap(), Lookahead::UpTo(header().start), "not whole yet");
        feed.bytes(back).unwrap();
        feed.limit(at(30));
        feed.limit(at(20));
        feed.end();
        assert_eq!(source.peek().unwrap(), Lookahead::Entry(&entry));
        source.advance();
        assert_eq!(
            source.peek().unwrap(),
            Lookahead::UpTo(at(30)),
            "ended, but the machine is not there yet"
        );
        source.wait().unwrap();
        assert_eq!(source.peek().unwrap(), Lookahead::Ended);
    }

    #[test]
    fn a_waiting_machine_can_be_stopped_and_nonsense_is_refused() {
        let (bytes, _) = header().encode().unwrap();
        let (feed, _) = Feed::new(&bytes).unwrap();
        assert!(feed.bytes(&[0xff; 64]).is_err());
        let mut source = FeedSource::new(Arc::clone(&feed));
        assert!(matches!(source.peek().unwrap(), Lookahead::UpTo(_)));
        let waiting = std::thread::spawn(move || source.wait());
        feed.stop();
        assert!(matches!(waiting.join().unwrap(), Err(Stop::Quit)));
    }
}
