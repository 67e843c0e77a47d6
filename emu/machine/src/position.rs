//! Where a run is: positions in the instruction stream and guest time.
//!
//! Not responsible for: how counts become time (`clock`).

use crate::digest::Digest;
use serde::{Deserialize, Serialize};
use std::fmt;

/// A point between two instructions. Deliberately not `Ord`: on engines that count branches, equal counts can name
/// different points; compare [`Position::count`] where the kind of count allows it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Position {
    /// Events counted since power-on, in the unit that the log header's [`CountKind`] names.
    pub count: u64,
    /// RIP at that point.
    pub rip: u64,
    /// RCX at that point: tells the iterations of one REP instruction apart.
    pub rcx: u64,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (rip {:#x}, rcx {:#x})", self.count, self.rip, self.rcx)
    }
}

/// What [`Position::count`] counts.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum CountKind {
    /// Retired instructions, each REP iteration, each exception or interrupt delivery. Exact by itself.
    Instructions,
    /// Retired conditional branches; needs RIP, RCX and a hash of the registers beside it.
    CondBranches,
    /// Instructions that left the guest: each element of IN, OUT, INS and OUTS, each instruction (or REP iteration) that
    /// reads or writes what is not RAM, each RDMSR and WRMSR of a register that is not the vCPU's own, each HLT. Counted
    /// where it leaves, so also when it then faults. Says nothing between two of them: see [`Landing`].
    Exits,
}

/// A boundary between two exits, described by the state there, since its count does not tell it from its neighbours. Where all of
/// the state is equal, an interrupt that waits included, so is all that follows.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Landing {
    /// Count, RIP and RCX there.
    pub position: Position,
    /// The machine's digest there.
    pub digest: Digest,
    /// The linear address of the instruction there: a hardware breakpoint knows no other.
    pub linear: u64,
    /// From the exit before it to there are at most so many steps: a search that has made more is in vain.
    pub within: u64,
}

impl Landing {
    /// Whether the other is this boundary too, whatever way led there.
    pub fn is_where(&self, other: &Self) -> bool {
        (self.position, self.digest) == (other.position, other.digest)
    }
}

/// How many steps an engine has made since it was made itself: instructions, REP iterations, deliveries. One that counts them knows the
/// number; a hypervisor has bounds for it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Steps {
    /// Not fewer than these.
    pub at_least: u64,
    /// Not more than these.
    pub at_most: u64,
}

impl Steps {
    /// Counted.
    pub const fn exactly(steps: u64) -> Self {
        Self { at_least: steps, at_most: steps }
    }
}

/// Nanoseconds of guest time since power-on. Never goes backwards.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Hash, Serialize, Deserialize)]
pub struct VirtTime(pub u64);

impl VirtTime {
    /// Later than every time a run can reach.
    pub const NEVER: Self = Self(u64::MAX);

    /// This time and `ns` nanoseconds, saturating at [`VirtTime::NEVER`].
    pub const fn after(self, ns: u64) -> Self {
        Self(self.0.saturating_add(ns))
    }

    /// Ticks that a clock of `hz` has made since power-on, rounded down.
    pub const fn ticks(self, hz: u64) -> u64 {
        if hz == 1_000_000_000 {
            return self.0;
        }
        (self.0 as u128 * hz as u128 / 1_000_000_000) as u64
    }

    /// The first time at which a clock of `hz` has made `ticks` ticks.
    pub const fn of_ticks(ticks: u64, hz: u64) -> Self {
        let ns = (ticks as u128 * 1_000_000_000).div_ceil(hz as u128);
        if ns > u64::MAX as u128 { Self::NEVER } else { Self(ns as u64) }
    }
}

impl fmt::Display for VirtTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:09}s", self.0 / 1_000_000_000, self.0 % 1_000_000_000)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_and_of_ticks_are_inverse_at_every_rate_of_the_board() {
        for hz in [1_193_182, 32_768, 3_579_545, 1_000_000_000] {
            for n in [0, 1, 2, 1_000, 65_536, 123_456_789, 1 << 40] {
                let t = VirtTime::of_ticks(n, hz);
                assert_eq!(t.ticks(hz), n, "{n} ticks at {hz} Hz");
                assert!(n == 0 || VirtTime(t.0 - 1).ticks(hz) < n);
            }
        }
    }
}
