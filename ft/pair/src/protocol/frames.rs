//! The ring of network frames.
//!
//! Not responsible for: how it holds and keeps them (`ring`), the link to the gateway (`gateway`).
//!
//! Unlike the console's outputs, frames are bounded by their bytes, and losing one is what a network may do: a gateway that is
//! away must not stop the guest.

use super::ring::{Ring, Weigh};
use serde::{Deserialize, Serialize};

/// A frame and the number of the network interface that it leaves or arrives by.
pub type NicFrame = (u8, Vec<u8>);

/// What a frame takes besides its bytes.
const OVERHEAD: usize = 64;

impl Weigh for NicFrame {
    fn weight(&self) -> usize {
        self.1.len() + OVERHEAD
    }
}

/// The frames that the gateway may still ask for, of all interfaces. Its capacity is in bytes; delivered ones are at the gateway.
pub type FrameRing = Ring<NicFrame>;

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
    /// What a clone needs of it.
    pub fn state(&self) -> FrameRingState {
        let frames = self.items.iter().cloned().collect();
        FrameRingState { first: self.first, frames, delivered: self.delivered() }
    }

    /// Becomes the ring of the machine that this one is cloned from. Nothing of it has left here.
    pub fn restore(&mut self, state: FrameRingState) {
        self.become_clone(state.first, state.frames.into_iter(), state.delivered);
    }

    /// The released frames from `from` on, about `most` bytes of them.
    pub fn run_from(&self, from: u64, most: usize) -> Vec<NicFrame> {
        let mut room = most;
        let fits = |frame: &&NicFrame| {
            let fits = room > 0;
            room = room.saturating_sub(frame.weight());
            fits
        };
        self.released_from(from).take_while(fits).cloned().collect()
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
        assert_eq!((ring.items.len(), ring.held, ring.weight), (10, 10_640, 10_640));
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
