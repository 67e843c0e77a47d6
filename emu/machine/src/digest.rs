//! The digest of a machine: three numbers, so that a mismatch says where to look.
//!
//! Not responsible for: comparing (`ft`), page hashing (`ram`).

use serde::{Deserialize, Serialize};
use std::fmt;

/// Digests of the CPU state, of all devices with timers and wires, and of guest RAM.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Digest {
    /// xxh3 of the CPU state's byte form.
    pub cpu: u64,
    /// xxh3 over the devices' sections in board order, the timers, the wires and the clock.
    pub devices: u64,
    /// Sum of the page digests, see [`crate::GuestRam::digest`].
    pub ram: u64,
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cpu {:016x} devices {:016x} ram {:016x}", self.cpu, self.devices, self.ram)
    }
}

impl Digest {
    /// The names of the parts that differ.
    pub fn differing_parts(&self, other: &Self) -> Vec<&'static str> {
        [("cpu", self.cpu, other.cpu), ("devices", self.devices, other.devices), ("ram", self.ram, other.ram)]
            .into_iter()
            .filter_map(|(name, a, b)| (a != b).then_some(name))
            .collect()
    }
}
