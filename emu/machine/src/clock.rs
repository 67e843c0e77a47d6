//! What a machine counts, and what makes guest time of it: the count itself plus the idle time that was skipped, or what
//! the world says at each access that leaves the guest.
//!
//! Not responsible for: keeping pace with the host: a paced world sleeps, the function stays the same.

use crate::position::{CountKind, VirtTime};
use serde::{Deserialize, Serialize};

/// Nanoseconds of guest time for one count, as a fraction.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct TimeBase {
    /// Nanoseconds ...
    pub num: u32,
    /// ... for this many counts. Not zero.
    pub den: u32,
}

impl Default for TimeBase {
    /// 4 ns an instruction: guest time passes as on a 250 MIPS machine, near to what the interpreter reaches.
    fn default() -> Self {
        Self { num: 4, den: 1 }
    }
}

/// What is counted, and what makes guest time of it. Fixed for the life of a machine, whatever engine runs it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Reckoning {
    /// Instructions are counted, and guest time is a function of their number.
    Instructions(TimeBase),
    /// Exits are counted ([`CountKind::Exits`]), for engines that cannot count instructions. Guest time is what
    /// [`crate::World::now`] says at each of them, and stands still in between.
    Exits,
}

impl Default for Reckoning {
    fn default() -> Self {
        Self::Instructions(TimeBase::default())
    }
}

impl Reckoning {
    /// The unit of counts.
    pub const fn count_kind(self) -> CountKind {
        match self {
            Self::Instructions(_) => CountKind::Instructions,
            Self::Exits => CountKind::Exits,
        }
    }

    /// The rate, where there is one.
    pub const fn time_base(self) -> Option<TimeBase> {
        match self {
            Self::Instructions(base) => Some(base),
            Self::Exits => None,
        }
    }
}

/// The clock: an anchor where count and time are both known, and how time goes on from there.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Clock {
    reckoning: Reckoning,
    anchor_count: u64,
    anchor_time: VirtTime,
}

impl Clock {
    /// A clock that reads zero at count zero.
    pub const fn new(reckoning: Reckoning) -> Self {
        Self { reckoning, anchor_count: 0, anchor_time: VirtTime(0) }
    }

    /// What makes time of counts.
    pub const fn reckoning(&self) -> Reckoning {
        self.reckoning
    }

    /// Guest time at a count not before the anchor.
    pub fn time_at(&self, count: u64) -> VirtTime {
        let Reckoning::Instructions(base) = self.reckoning else { return self.anchor_time };
        let counts = count.saturating_sub(self.anchor_count);
        let (num, den) = (u64::from(base.num), u64::from(base.den));
        let elapsed = match counts.checked_mul(num) {
            Some(product) => product / den,
            None => u64::try_from(u128::from(counts) * u128::from(num) / u128::from(den)).unwrap_or(u64::MAX),
        };
        self.anchor_time.after(elapsed)
    }

    /// The first count at which guest time is at least `time`; `u64::MAX` when none is. Where time is sampled, a time that
    /// has come is at the anchor's count, and no count is known for a later one.
    pub fn count_at(&self, time: VirtTime) -> u64 {
        if time == VirtTime::NEVER {
            return u64::MAX;
        }
        let wait = u128::from(time.0.saturating_sub(self.anchor_time.0));
        let Reckoning::Instructions(base) = self.reckoning else {
            return if wait == 0 { self.anchor_count } else { u64::MAX };
        };
        let counts = (wait * u128::from(base.den)).div_ceil(u128::from(base.num));
        u64::try_from(counts).map_or(u64::MAX, |c| self.anchor_count.saturating_add(c))
    }

    /// At `count` it is now `time`: idle time was skipped, or the world was asked. Earlier times are ignored: the clock never goes back.
    pub fn advance(&mut self, count: u64, time: VirtTime) {
        if time > self.time_at(count) {
            (self.anchor_count, self.anchor_time) = (count, time);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn count_at_is_the_first_count_that_reaches_the_time() {
        for base in [TimeBase { num: 4, den: 1 }, TimeBase { num: 1, den: 3 }, TimeBase { num: 7, den: 2 }] {
            let mut clock = Clock::new(Reckoning::Instructions(base));
            clock.advance(1000, VirtTime(1_000_000));
            for ns in [1_000_000, 1_000_001, 1_000_003, 1_000_700, 2_000_000] {
                let count = clock.count_at(VirtTime(ns));
                assert!(clock.time_at(count).0 >= ns);
                assert!(count == 1000 || clock.time_at(count - 1).0 < ns);
            }
        }
    }

    #[test]
    fn never_goes_back() {
        let mut clock = Clock::new(Reckoning::default());
        clock.advance(10, VirtTime(5));
        assert_eq!(clock.time_at(10), VirtTime(40));
    }

    #[test]
    fn sampled_time_stands_still_between_samples_and_never_goes_back() {
        let mut clock = Clock::new(Reckoning::Exits);
        clock.advance(3, VirtTime(500));
        assert_eq!((clock.time_at(3), clock.time_at(1_000)), (VirtTime(500), VirtTime(500)));
        assert_eq!((clock.count_at(VirtTime(500)), clock.count_at(VirtTime(501))), (3, u64::MAX));
        clock.advance(4, VirtTime(499));
        assert_eq!(clock.time_at(4), VirtTime(500));
    }
}
