//! Which of several ports a frame goes to: a learning switch (IEEE 802.1D 7.8).
//!
//! Not responsible for: carrying it there.

use smoltcp::wire::{EthernetAddress, EthernetFrame};
use std::collections::BTreeMap;

/// Addresses that are remembered. A guest that makes up more makes itself hard to reach, and nobody else.
const MAX_ADDRESSES: usize = 1024;

/// Where a frame goes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum To<P> {
    /// To one port.
    Port(P),
    /// To all ports but the one it came from.
    Others,
    /// Nowhere.
    None,
}

/// A switch whose ports are named by `P`.
pub struct Switch<P> {
    ports: BTreeMap<[u8; 6], P>,
}

impl<P: Ord + Clone> Default for Switch<P> {
    fn default() -> Self {
        Self { ports: BTreeMap::new() }
    }
}

impl<P: Ord + Clone> Switch<P> {
    /// A frame came from `port`.
    pub fn forward(&mut self, port: &P, frame: &[u8]) -> To<P> {
        let Ok(ethernet) = EthernetFrame::new_checked(frame) else { return To::None };
        let (from, to) = (ethernet.src_addr(), ethernet.dst_addr());
        let full = self.ports.len() >= MAX_ADDRESSES && !self.ports.contains_key(from.as_bytes());
        if from.is_unicast() && !full {
            self.ports.insert(from.0, port.clone());
        }
        match self.ports.get(to.as_bytes()).filter(|_| to.is_unicast()) {
            Some(known) if known == port => To::None,
            Some(known) => To::Port(known.clone()),
            None => To::Others,
        }
    }

    /// A port that is gone for good: what was behind it is forgotten.
    pub fn forget(&mut self, port: &P) {
        self.ports.retain(|_, p| p != port);
    }

    /// The port behind which an address is.
    pub fn port_of(&self, address: EthernetAddress) -> Option<&P> {
        self.ports.get(address.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(to: u8, from: u8) -> Vec<u8> {
        let mut frame = vec![0; 60];
        frame[..6].fill(to);
        frame[6..12].fill(from);
        frame
    }

    #[test]
    fn frames_go_where_their_address_was_seen() {
        let mut switch = Switch::default();
        assert_eq!(switch.forward(&1, &frame(4, 2)), To::Others, "not seen yet");
        assert_eq!(switch.forward(&2, &frame(2, 4)), To::Port(1));
        assert_eq!(switch.forward(&1, &frame(4, 2)), To::Port(2));
        assert_eq!(switch.forward(&1, &frame(2, 2)), To::None, "it is there already");
        assert_eq!(switch.forward(&1, &frame(0xff, 2)), To::Others, "broadcast");
        assert_eq!(switch.forward(&1, &[0; 13]), To::None, "no frame");
        assert_eq!(switch.forward(&3, &frame(4, 2)), To::Port(2), "it moved");
        assert_eq!(switch.forward(&2, &frame(2, 4)), To::Port(3));
        switch.forget(&3);
        assert_eq!(switch.forward(&2, &frame(2, 4)), To::Others);
    }

    #[test]
    fn a_guest_that_makes_up_addresses_is_bounded() {
        let mut switch = Switch::default();
        switch.forward(&1, &frame(0xff, 2));
        for i in 0..10_000u32 {
            let mut made_up = frame(0xff, 2);
            made_up[8..12].copy_from_slice(&i.to_le_bytes());
            switch.forward(&2, &made_up);
        }
        assert_eq!(switch.ports.len(), MAX_ADDRESSES);
        assert_eq!(switch.forward(&2, &frame(2, 4)), To::Port(1));
    }
}
