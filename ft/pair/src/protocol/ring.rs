//! Outputs by ordinal: held until they may leave, kept until they were delivered.
//!
//! Not responsible for: who says that they may leave (`replication`) or were delivered (`console`).

use serde::{Deserialize, Serialize};
use std::collections::VecDeque;

/// Where an output byte leaves the machine.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Channel {
    /// A serial port, by number.
    Serial(u8),
    /// The debug console (port 0xe9).
    Debug,
}

/// The outputs that somebody may still ask for. The ordinal of an output is the number of outputs before it since
/// power-on; both sides of a pair count alike, because they run the same machine.
#[derive(Clone, Debug)]
pub struct OutputRing {
    /// Ordinal of the front of `items`.
    first: u64,
    items: VecDeque<(Channel, u8)>,
    /// Outputs below this ordinal may leave.
    released: u64,
    /// Outputs below this ordinal were delivered.
    delivered: u64,
    capacity: usize,
}

/// The outputs that may still be wanted, as a clone gets them.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct RingState {
    /// Ordinal of the first.
    pub first: u64,
    /// They, in order: those of one channel together.
    pub runs: Vec<(Channel, Vec<u8>)>,
    /// Outputs below this ordinal were delivered.
    pub delivered: u64,
}

impl OutputRing {
    /// What a clone needs of it.
    pub fn state(&self) -> RingState {
        let mut runs: Vec<(Channel, Vec<u8>)> = Vec::new();
        for &(channel, byte) in &self.items {
            match runs.last_mut().filter(|(of, _)| *of == channel) {
                Some((_, bytes)) => bytes.push(byte),
                None => runs.push((channel, vec![byte])),
            }
        }
        RingState { first: self.first, runs, delivered: self.delivered }
    }

    /// Becomes the ring of the machine that this one is cloned from. Nothing of it has left here.
    pub fn restore(&mut self, state: RingState) {
        let items =
            state.runs.into_iter().flat_map(|(channel, bytes)| bytes.into_iter().map(move |b| (channel, b)));
        *self = Self {
            first: state.first,
            items: items.collect(),
            released: 0,
            delivered: state.delivered,
            capacity: self.capacity,
        };
    }

    /// An empty ring. While nobody fetches them, it keeps the latest `capacity` outputs.
    pub fn new(capacity: usize) -> Self {
        Self { first: 0, items: VecDeque::new(), released: 0, delivered: 0, capacity }
    }

    /// The next output in order.
    pub fn push(&mut self, channel: Channel, byte: u8) {
        self.items.push_back((channel, byte));
        while self.items.len() > self.capacity || (self.first < self.delivered && !self.items.is_empty()) {
            self.items.pop_front();
            self.first += 1;
        }
    }

    /// How many outputs there have been.
    pub fn emitted(&self) -> u64 {
        self.first + self.items.len() as u64
    }

    /// Outputs below this ordinal may leave.
    pub fn released(&self) -> u64 {
        self.released
    }

    /// Outputs below this ordinal were delivered.
    pub fn delivered(&self) -> u64 {
        self.delivered
    }

    /// The oldest ordinal that can still be had.
    pub fn oldest(&self) -> u64 {
        self.first
    }

    /// Whether so many outputs are held that the guest has to wait before it makes more.
    pub fn is_full(&self) -> bool {
        self.emitted().saturating_sub(self.released) >= self.capacity as u64 / 2
    }

    /// Lets everything below `ordinal` leave.
    pub fn release(&mut self, ordinal: u64) {
        self.released = self.released.max(ordinal.min(self.emitted()));
    }

    /// Everything below `ordinal` was delivered and need not be kept. The ordinal can be ahead of this machine.
    pub fn deliver(&mut self, ordinal: u64) {
        self.delivered = self.delivered.max(ordinal);
        while self.first < self.delivered && self.items.pop_front().is_some() {
            self.first += 1;
        }
    }

    /// The released outputs from `from` on that leave through one channel, at most `most` of them.
    pub fn run_from(&self, from: u64, most: usize) -> Option<(Channel, Vec<u8>)> {
        if from < self.first || from >= self.released {
            return None;
        }
        let skip = (from - self.first) as usize;
        let open = (self.released - from).min(most as u64) as usize;
        let mut items = self.items.iter().skip(skip).take(open);
        let &(channel, byte) = items.next()?;
        let mut bytes = vec![byte];
        bytes.extend(items.take_while(|item| item.0 == channel).map(|item| item.1));
        Some((channel, bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holds_until_released_and_keeps_until_delivered() {
        let mut ring = OutputRing::new(100);
        for byte in b"ab" {
            ring.push(Channel::Serial(0), *byte);
        }
        ring.push(Channel::Debug, b'!');
        assert_eq!(ring.run_from(0, 10), None, "held");
        ring.release(2);
        assert_eq!(ring.run_from(0, 10), Some((Channel::Serial(0), b"ab".to_vec())));
        ring.release(9);
        assert_eq!(ring.released(), 3, "nothing is released before it exists");
        assert_eq!(ring.run_from(2, 10), Some((Channel::Debug, b"!".to_vec())));
        ring.deliver(1);
        assert_eq!(ring.run_from(0, 10), None, "gone");
        assert_eq!(ring.run_from(1, 1), Some((Channel::Serial(0), b"b".to_vec())));
    }

    #[test]
    fn an_output_that_was_delivered_elsewhere_is_not_kept() {
        let mut ring = OutputRing::new(100);
        ring.deliver(2);
        for byte in b"abc" {
            ring.push(Channel::Serial(0), *byte);
        }
        assert_eq!((ring.oldest(), ring.emitted()), (2, 3));
    }

    #[test]
    fn the_latest_are_kept_when_nobody_fetches() {
        let mut ring = OutputRing::new(2);
        for byte in b"abc" {
            ring.push(Channel::Serial(0), *byte);
        }
        ring.release(3);
        assert_eq!((ring.oldest(), ring.run_from(1, 9)), (1, Some((Channel::Serial(0), b"bc".to_vec()))));
    }

    #[test]
    fn a_clone_has_what_may_still_be_wanted() {
        let mut ring = OutputRing::new(100);
        for (channel, byte) in
            [(Channel::Serial(0), b'a'), (Channel::Serial(0), b'b'), (Channel::Debug, b'!')]
        {
            ring.push(channel, byte);
        }
        ring.release(2);
        ring.deliver(1);
        let mut clone = OutputRing::new(100);
        clone.restore(ring.state());
        assert_eq!((clone.oldest(), clone.emitted(), clone.released(), clone.delivered()), (1, 3, 0, 1));
        clone.release(u64::MAX);
        assert_eq!(clone.run_from(1, 9), Some((Channel::Serial(0), b"b".to_vec())));
        assert_eq!(clone.run_from(2, 9), Some((Channel::Debug, b"!".to_vec())));
    }
}
