//! Frames by ordinal: held until they may leave, kept until the gateway has them.
//!
//! Not responsible for: who says that they may leave (`replication`) or that the gateway has them (`gateway`).
//!
//! Unlike the console's outputs, frames are bounded by their bytes, and losing one is what a network may do: a gateway that is
//! away must not stop the guest.

use serde::{Deserialize, Serialize};
use std::collections::VecDeque;

/// A frame and the number of the network interface that it leaves or arrives by.
pub type NicFrame = (u8, Vec<u8>);

/// What a frame takes besides its bytes.
const OVERHEAD: usize = 64;

/// The room that a frame takes.
pub(super) fn weight((_, bytes): &NicFrame) -> usize {
    bytes.len() + OVERHEAD
}

/// The frames that the gateway may still ask for. A frame's ordinal is the number of frames before it since power-on, of all
/// interfaces; all sides count alike, because they run the same machine.
#[derive(Clone, Debug)]
pub struct FrameRing {
    /// Ordinal of the front of `frames`.
    first: u64,
    frames: VecDeque<NicFrame>,
    /// Room that they take.
    weight: usize,
    /// Room that those take that may not leave yet.
    held: usize,
    /// Frames below this ordinal may leave.
    released: u64,
    /// Frames below this ordinal are at the gateway.
    delivered: u64,
    capacity: usize,
}

/// The frames that may still be wanted, as a clone gets them.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct FrameRingState {
    /// Ordinal of the first.
    pub first: u64,
    /// They, in order.
    pub frames: Vec<NicFrame>,
    /// Frames below this ordinal are at the gateway.
    pub delivered: u64,
}

impl FrameRing {
    /// An empty ring. While nobody fetches them, it keeps the latest frames: `capacity` bytes of them.
    pub fn new(capacity: usize) -> Self {
        Self { first: 0, frames: VecDeque::new(), weight: 0, held: 0, released: 0, delivered: 0, capacity }
    }

    /// What a clone needs of it.
    pub fn state(&self) -> FrameRingState {
        let frames = self.frames.iter().cloned().collect();
        FrameRingState { first: self.first, frames, delivered: self.delivered }
    }

    /// Becomes the ring of the machine that this one is cloned from. Nothing of it has left here.
    pub fn restore(&mut self, state: FrameRingState) {
        *self = Self { first: state.first, delivered: state.delivered, ..Self::new(self.capacity) };
        for frame in state.frames {
            self.push(frame);
        }
    }

    /// The next frame in order.
    pub fn push(&mut self, frame: NicFrame) {
        self.weight += weight(&frame);
        if self.emitted() >= self.released {
            self.held += weight(&frame);
        }
        self.frames.push_back(frame);
        while self.weight > self.capacity || (self.first < self.delivered && !self.frames.is_empty()) {
            self.drop_first();
        }
    }

    fn drop_first(&mut self) {
        if let Some(frame) = self.frames.pop_front() {
            self.weight -= weight(&frame);
            if self.first >= self.released {
                self.held -= weight(&frame);
            }
            self.first += 1;
        }
    }

    /// How many frames there have been.
    pub fn emitted(&self) -> u64 {
        self.first + self.frames.len() as u64
    }

    /// Frames below this ordinal may leave.
    pub fn released(&self) -> u64 {
        self.released
    }

    /// Frames below this ordinal are at the gateway.
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
                self.held -= self.frames.get((self.released - self.first) as usize).map_or(0, weight);
                self.released += 1;
            } else {
                self.released = self.first.min(to);
            }
        }
    }

    /// The gateway has everything below `ordinal`, which need not be kept. The ordinal can be ahead of this machine.
    pub fn deliver(&mut self, ordinal: u64) {
        self.delivered = self.delivered.max(ordinal);
        while self.first < self.delivered && !self.frames.is_empty() {
            self.drop_first();
        }
    }

    /// The released frames from `from` on, about `most` bytes of them.
    pub fn run_from(&self, from: u64, most: usize) -> Vec<NicFrame> {
        if from < self.first || from >= self.released {
            return Vec::new();
        }
        let (skip, open) = ((from - self.first) as usize, (self.released - from) as usize);
        let mut room = most;
        let fits = |frame: &&NicFrame| {
            let fits = room > 0;
            room = room.saturating_sub(weight(frame));
            fits
        };
        self.frames.iter().skip(skip).take(open).take_while(fits).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(byte: u8, length: usize) -> NicFrame {
        (0, vec![byte; length])
    }

    #[test]
    fn holds_until_released_and_keeps_until_delivered() {
        let mut ring = FrameRing::new(10_000);
        for byte in 0..3 {
            ring.push(frame(byte, 100));
        }
        assert!(ring.run_from(0, 1000).is_empty(), "held");
        ring.release(2);
        assert_eq!(ring.run_from(0, 1000), [frame(0, 100), frame(1, 100)]);
        assert_eq!(ring.run_from(0, 1), [frame(0, 100)], "one, however long it is");
        ring.release(9);
        assert_eq!(ring.released(), 3, "nothing is released before it exists");
        ring.deliver(1);
        assert!(ring.run_from(0, 1000).is_empty(), "gone");
        assert_eq!(ring.run_from(2, 1000), [frame(2, 100)]);
        ring.deliver(5);
        ring.push(frame(3, 100));
        assert_eq!((ring.oldest(), ring.emitted(), ring.weight, ring.held), (4, 4, 0, 0), "had elsewhere");
    }

    #[test]
    fn room_is_bounded_by_bytes_and_only_held_frames_stop_the_guest() {
        let mut ring = FrameRing::new(10 * 1064);
        for byte in 0..20 {
            ring.push(frame(byte, 1000));
            ring.release(u64::from(byte)); // all but the last
            assert!(!ring.is_full());
        }
        assert_eq!((ring.oldest(), ring.emitted(), ring.held), (10, 20, 1064));
        for byte in 0..4 {
            ring.push(frame(byte, 1000));
        }
        assert!(ring.is_full());
        for byte in 0..40 {
            ring.push(frame(byte, 1000)); // a side that follows: nobody releases here
        }
        assert_eq!((ring.frames.len(), ring.held, ring.weight), (10, 10_640, 10_640));
        ring.release(u64::MAX);
        assert_eq!((ring.released(), ring.held), (64, 0));
    }

    #[test]
    fn a_clone_has_what_may_be_wanted() {
        let mut ring = FrameRing::new(10_000);
        (0..5).for_each(|byte| ring.push(frame(byte, 100)));
        ring.release(4);
        ring.deliver(2);
        let mut clone = FrameRing::new(10_000);
        clone.restore(ring.state());
        assert_eq!((clone.oldest(), clone.emitted(), clone.released(), clone.delivered()), (2, 5, 0, 2));
        clone.release(u64::MAX);
        assert_eq!(clone.run_from(2, 1000), [frame(2, 100), frame(3, 100), frame(4, 100)]);
    }
}
