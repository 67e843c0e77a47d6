//! What leaves a machine, by ordinal: held until it may leave, kept until it was delivered.
//!
//! Not responsible for: who says that it may leave (`replication`) or was delivered (`console`, `gateway`).
//!
//! [`Ring`] is the mechanism. [`OutputRing`] is one of the console's bytes, `frames` has one of network frames.

use serde::{Deserialize, Serialize};
use std::collections::VecDeque;

/// What a ring keeps.
pub trait Weigh {
    /// The room that it takes, in the unit of the ring's capacity.
    fn weight(&self) -> usize;
}

/// What somebody may still ask for. The ordinal of an item is the number of items before it since power-on; all sides count
/// alike, because they run the same machine.
#[derive(Clone, Debug)]
pub struct Ring<T> {
    /// Ordinal of the front of `items`.
    pub(super) first: u64,
    pub(super) items: VecDeque<T>,
    /// Room that they take.
    pub(super) weight: usize,
    /// Room that those take that may not leave yet.
    pub(super) held: usize,
    /// Items below this ordinal may leave.
    released: u64,
    /// Items below this ordinal were delivered.
    delivered: u64,
    capacity: usize,
}

impl<T: Weigh> Ring<T> {
    /// An empty ring. While nobody fetches them, it keeps the latest items: those that `capacity` has room for.
    pub fn new(capacity: usize) -> Self {
        Self { first: 0, items: VecDeque::new(), weight: 0, held: 0, released: 0, delivered: 0, capacity }
    }

    /// Becomes the ring of the machine that this one is cloned from. Nothing of it has left here.
    pub(super) fn become_clone(&mut self, first: u64, items: impl Iterator<Item = T>, delivered: u64) {
        *self = Self { first, delivered, ..Self::new(self.capacity) };
        items.for_each(|item| self.push(item));
    }

    /// The next item in order.
    pub fn push(&mut self, item: T) {
        self.weight += item.weight();
        if self.emitted() >= self.released {
            self.held += item.weight();
        }
        self.items.push_back(item);
        while self.weight > self.capacity || (self.first < self.delivered && !self.items.is_empty()) {
            self.drop_first();
        }
    }

    fn drop_first(&mut self) {
        if let Some(item) = self.items.pop_front() {
            self.weight -= item.weight();
            if self.first >= self.released {
                self.held -= item.weight();
            }
            self.first += 1;
        }
    }

    /// How many items there have been.
    pub fn emitted(&self) -> u64 {
        self.first + self.items.len() as u64
    }

    /// Items below this ordinal may leave.
    pub fn released(&self) -> u64 {
        self.released
    }

    /// Items below this ordinal were delivered.
    pub fn delivered(&self) -> u64 {
        self.delivered
    }

    /// The oldest ordinal that can still be had.
    pub fn oldest(&self) -> u64 {
        self.first
    }

    /// Whether so much is held that the guest has to wait before it makes more.
    pub fn is_full(&self) -> bool {
        self.held >= self.capacity / 2
    }

    /// Lets everything below `ordinal` leave.
    pub fn release(&mut self, ordinal: u64) {
        let to = ordinal.min(self.emitted());
        while self.released < to {
            if self.released >= self.first {
                self.held -= self.items.get((self.released - self.first) as usize).map_or(0, Weigh::weight);
                self.released += 1;
            } else {
                self.released = self.first.min(to);
            }
        }
    }

    /// Everything below `ordinal` was delivered and need not be kept. The ordinal can be ahead of this machine.
    pub fn deliver(&mut self, ordinal: u64) {
        self.delivered = self.delivered.max(ordinal);
        while self.first < self.delivered && !self.items.is_empty() {
            self.drop_first();
        }
    }

    /// The released items from `from` on; none if that one is gone.
    pub(super) fn released_from(&self, from: u64) -> impl Iterator<Item = &T> {
        let (skip, open) = match from.checked_sub(self.first) {
            Some(skip) => (skip as usize, self.released.saturating_sub(from) as usize),
            None => (0, 0),
        };
        self.items.iter().skip(skip).take(open)
    }
}

/// Where an output byte leaves the machine.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Channel {
    /// A serial port, by number.
    Serial(u8),
    /// The debug console (port 0xe9).
    Debug,
}

/// A byte and where it leaves.
pub type OutputByte = (Channel, u8);

impl Weigh for OutputByte {
    fn weight(&self) -> usize {
        1
    }
}

/// The bytes of the console. Its capacity is a number of bytes.
pub type OutputRing = Ring<OutputByte>;

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
        let bytes = |(channel, bytes): (Channel, Vec<u8>)| bytes.into_iter().map(move |b| (channel, b));
        self.become_clone(state.first, state.runs.into_iter().flat_map(bytes), state.delivered);
    }

    /// The released outputs from `from` on that leave through one channel, at most `most` of them.
    pub fn run_from(&self, from: u64, most: usize) -> Option<(Channel, Vec<u8>)> {
        let mut items = self.released_from(from).take(most);
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
            ring.push((Channel::Serial(0), *byte));
        }
        ring.push((Channel::Debug, b'!'));
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
            ring.push((Channel::Serial(0), *byte));
        }
        assert_eq!((ring.oldest(), ring.emitted()), (2, 3));
    }

    #[test]
    fn the_latest_are_kept_when_nobody_fetches() {
        let mut ring = OutputRing::new(2);
        for byte in b"abc" {
            ring.push((Channel::Serial(0), *byte));
        }
        ring.release(3);
        assert_eq!((ring.oldest(), ring.run_from(1, 9)), (1, Some((Channel::Serial(0), b"bc".to_vec()))));
    }

    #[test]
    fn a_clone_has_what_may_still_be_wanted() {
        let mut ring = OutputRing::new(100);
        let outputs = [(Channel::Serial(0), b'a'), (Channel::Serial(0), b'b'), (Channel::Debug, b'!')];
        outputs.into_iter().for_each(|output| ring.push(output));
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
