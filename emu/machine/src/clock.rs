//! Guest time as a function of the instruction count plus the idle time that was skipped (`ByCount`).
//!
//! Not responsible for: keeping pace with the host: a paced world sleeps, the function stays the same.

use crate::position::VirtTime;
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

/// The clock: an anchor where count and time are both known, and the rate from there on.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Clock {
    base: TimeBase,
    anchor_count: u64,
    anchor_time: VirtTime,
}

impl Clock {
    /// A clock that reads zero at count zero.
    pub const fn new(base: TimeBase) -> Self {
        Self { base, anchor_count: 0, anchor_time: VirtTime(0) }
    }

    /// The rate.
    pub const fn base(&self) -> TimeBase {
        self.base
    }

    /// Guest time at a count not before the anchor.
    pub fn time_at(&self, count: u64) -> VirtTime {
        let counts = count.saturating_sub(self.anchor_count);
        let (num, den) = (u64::from(self.base.num), u64::from(self.base.den));
        let elapsed = match counts.checked_mul(num) {
            Some(product) => product / den,
            None => u64::try_from(u128::from(counts) * u128::from(num) / u128::from(den)).unwrap_or(u64::MAX),
        };
        self.anchor_time.after(elapsed)
    }

    /// The first count at which guest time is at least `time`; `u64::MAX` when none is.
    pub fn count_at(&self, time: VirtTime) -> u64 {
        if time == VirtTime::NEVER {
            return u64::MAX;
        }
        let wait = u128::from(time.0.saturating_sub(self.anchor_time.0));
        let counts = (wait * u128::from(self.base.den)).div_ceil(u128::from(self.base.num));
        u64::try_from(counts).map_or(u64::MAX, |c| self.anchor_count.saturating_add(c))
    }

    /// Skips idle time: at `count` it is now `time`. Earlier times are ignored: the clock never goes back.
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
            let mut clock = Clock::new(base);
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
        let mut clock = Clock::new(TimeBase::default());
        clock.advance(10, VirtTime(5));
        assert_eq!(clock.time_at(10), VirtTime(40));
    }
}
