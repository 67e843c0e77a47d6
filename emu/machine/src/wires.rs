//! Wires between chips: interrupt lines by level, and messages (MSI) to the local APIC.
//!
//! Not responsible for: what a chip does when a wire changes (its `on_wire`), or who is at which end
//! (`devices/board.rs` says so when it builds the bus).

use serde::{Deserialize, Serialize};

/// A wire's number on the board.
pub type Wire = u16;

/// A change on its way to the chips that listen.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Signal {
    /// A wire went to a level.
    Level(Wire, bool),
    /// A write to the interrupt message address range (SDM 3A 10.11).
    Message { address: u64, data: u32 },
    /// The local APIC ended a level-triggered interrupt.
    EndOfInterrupt(u8),
}

/// The levels of all wires, and the changes that have not been delivered yet.
#[derive(Clone, Default, Debug, Serialize, Deserialize)]
pub struct Wires {
    levels: Vec<bool>,
    #[serde(skip)]
    pending: std::collections::VecDeque<Signal>,
}

impl Wires {
    /// Wires 0 to `count` - 1, all low.
    pub fn new(count: usize) -> Self {
        Self { levels: vec![false; count], pending: Default::default() }
    }

    /// Drives a wire. Setting it to the level that it has does nothing. A wire that the board lacks is ignored.
    pub fn set(&mut self, wire: Wire, level: bool) {
        if let Some(now) = self.levels.get_mut(usize::from(wire))
            && *now != level
        {
            *now = level;
            self.pending.push_back(Signal::Level(wire, level));
        }
    }

    /// A short high pulse, for edge-triggered inputs. A wire that is high already stays high.
    pub fn pulse(&mut self, wire: Wire) {
        if !self.level(wire) {
            self.set(wire, true);
            self.set(wire, false);
        }
    }

    /// The level of a wire.
    pub fn level(&self, wire: Wire) -> bool {
        self.levels.get(usize::from(wire)).copied().unwrap_or(false)
    }

    /// Sends a message-signalled interrupt to the local APIC.
    pub fn message(&mut self, address: u64, data: u32) {
        self.pending.push_back(Signal::Message { address, data });
    }

    /// Announces the end of a level-triggered interrupt to the I/O APIC.
    pub fn end_of_interrupt(&mut self, vector: u8) {
        self.pending.push_back(Signal::EndOfInterrupt(vector));
    }

    /// How many wires there are.
    pub fn count(&self) -> usize {
        self.levels.len()
    }

    pub(crate) fn take_pending(&mut self) -> Option<Signal> {
        self.pending.pop_front()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_changes_are_signals() {
        let mut w = Wires::new(2);
        w.set(1, true);
        w.set(1, true);
        w.set(7, true);
        assert_eq!(w.take_pending(), Some(Signal::Level(1, true)));
        assert_eq!(w.take_pending(), None);
        w.pulse(0);
        assert_eq!(w.take_pending(), Some(Signal::Level(0, true)));
        assert_eq!(w.take_pending(), Some(Signal::Level(0, false)));
    }
}
