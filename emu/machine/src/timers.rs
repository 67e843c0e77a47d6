//! The board's timers: one table of deadlines, ordered by (deadline, device, index).
//!
//! Not responsible for: calling the devices (`bus`), or knowing the time (`clock`).

use crate::position::VirtTime;
use serde::{Deserialize, Serialize};

/// Deadlines of all devices' timers. A device has a fixed, small number of them, named by an index of its own.
#[derive(Clone, Default, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Timers {
    /// Armed timers, sorted by (deadline, device, index). Boards have a dozen: a sorted vector beats a heap.
    armed: Vec<(VirtTime, u16, u8)>,
}

impl Timers {
    /// Arms a timer, or moves it if it was armed.
    pub fn arm(&mut self, device: u16, index: u8, deadline: VirtTime) {
        self.cancel(device, index);
        if deadline == VirtTime::NEVER {
            return;
        }
        let entry = (deadline, device, index);
        let at = self.armed.partition_point(|e| *e < entry);
        self.armed.insert(at, entry);
    }

    /// Disarms a timer; nothing happens if it was not armed.
    pub fn cancel(&mut self, device: u16, index: u8) {
        self.armed.retain(|&(_, d, i)| (d, i) != (device, index));
    }

    /// The deadline of one timer.
    pub fn deadline(&self, device: u16, index: u8) -> Option<VirtTime> {
        self.armed.iter().find(|&&(_, d, i)| (d, i) == (device, index)).map(|e| e.0)
    }

    /// The earliest deadline, or [`VirtTime::NEVER`].
    pub fn next(&self) -> VirtTime {
        self.armed.first().map_or(VirtTime::NEVER, |e| e.0)
    }

    /// Takes the earliest timer whose deadline is not after `now`: device and index.
    pub fn take_due(&mut self, now: VirtTime) -> Option<(u16, u8)> {
        let (_, device, index) = *self.armed.first().filter(|(deadline, ..)| *deadline <= now)?;
        self.armed.remove(0);
        Some((device, index))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fires_by_deadline_then_device() {
        let mut t = Timers::default();
        t.arm(2, 0, VirtTime(10));
        t.arm(1, 0, VirtTime(10));
        t.arm(3, 1, VirtTime(5));
        t.arm(3, 1, VirtTime(20));
        let fired: Vec<_> = std::iter::from_fn(|| t.take_due(VirtTime(15))).collect();
        assert_eq!(fired, [(1, 0), (2, 0)]);
        assert_eq!(t.next(), VirtTime(20));
        // At the end of time nothing is due that was not armed.
        assert_eq!(t.take_due(VirtTime::NEVER), Some((3, 1)));
        assert_eq!(t.take_due(VirtTime::NEVER), None);
    }
}
