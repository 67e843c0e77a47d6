//! The local APIC's timer as arithmetic (SDM 3A 10.5.4). The bus clock is 1 GHz, one tick a nanosecond of guest
//! time: no count of this timer ever rounds.
//!
//! Not responsible for: the LVT entry's mask and vector (`lapic`), or when it is asked.

use gemel_machine::VirtTime;
use gemel_x86::cpuid::TSC_HZ;
use serde::{Deserialize, Serialize};

/// What bits 18:17 of the LVT timer entry say.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub(super) enum Mode {
    /// Counts down once.
    #[default]
    OneShot,
    /// Counts down again and again.
    Periodic,
    /// Fires when the TSC reaches IA32_TSC_DEADLINE.
    TscDeadline,
}

/// The counter.
#[derive(Clone, Default, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct Timer {
    mode: Mode,
    /// Divide configuration register, bits 3, 1 and 0.
    divide: u32,
    /// Initial count register.
    initial: u32,
    /// What the counter held ...
    count: u32,
    /// ... at this time. The first period starts from `count`, the next ones from `initial`.
    since: VirtTime,
    /// IA32_TSC_DEADLINE; zero when disarmed.
    tsc_deadline: u64,
}

impl Timer {
    pub(super) fn mode(&self) -> Mode {
        self.mode
    }

    /// Changes the mode. Changing to or from TSC-deadline mode disarms (SDM 3A 10.5.4.1).
    pub(super) fn set_mode(&mut self, now: VirtTime, mode: Mode) {
        if (mode == Mode::TscDeadline) != (self.mode == Mode::TscDeadline) {
            (self.initial, self.count, self.tsc_deadline) = (0, 0, 0);
        }
        self.count = self.current(now);
        (self.since, self.mode) = (now, mode);
    }

    pub(super) fn divide(&self) -> u32 {
        self.divide
    }

    /// Writes the divide configuration; the count goes on from where it is.
    pub(super) fn set_divide(&mut self, now: VirtTime, value: u32) {
        self.count = self.current(now);
        (self.since, self.divide) = (now, value & 0b1011);
    }

    pub(super) fn initial(&self) -> u32 {
        self.initial
    }

    /// Writes the initial count, which starts the counter. Without effect in TSC-deadline mode.
    pub(super) fn set_initial(&mut self, now: VirtTime, value: u32) {
        if self.mode != Mode::TscDeadline {
            (self.initial, self.count, self.since) = (value, value, now);
        }
    }

    /// Nanoseconds per count.
    fn tick(&self) -> u64 {
        // 000 divides by 2, 001 by 4, ... 110 by 128, and 111 by 1 (SDM 3A figure 10-10).
        let code = (self.divide & 3) | (self.divide >> 1 & 4);
        1 << ((code + 1) & 7)
    }

    /// The current count register.
    pub(super) fn current(&self, now: VirtTime) -> u32 {
        if self.mode == Mode::TscDeadline || self.count == 0 {
            return 0;
        }
        let elapsed = now.0.saturating_sub(self.since.0) / self.tick();
        let count = u64::from(self.count);
        match elapsed.checked_sub(count) {
            None => (count - elapsed) as u32,
            Some(over) if self.mode == Mode::Periodic && self.initial != 0 => {
                let initial = u64::from(self.initial);
                (initial - over % initial) as u32
            }
            Some(_) => 0,
        }
    }

    pub(super) fn tsc_deadline(&self) -> u64 {
        self.tsc_deadline
    }

    /// Writes IA32_TSC_DEADLINE. Without effect in the other modes.
    pub(super) fn set_tsc_deadline(&mut self, value: u64) {
        if self.mode == Mode::TscDeadline {
            self.tsc_deadline = value;
        }
    }

    /// When it reaches zero next, after `now`; [`VirtTime::NEVER`] when it stands. A TSC deadline may lie in the past.
    pub(super) fn deadline(&self, now: VirtTime) -> VirtTime {
        if self.mode == Mode::TscDeadline {
            return match self.tsc_deadline {
                0 => VirtTime::NEVER,
                deadline => VirtTime::of_ticks(deadline, TSC_HZ),
            };
        }
        if self.count == 0 {
            return VirtTime::NEVER;
        }
        let first = self.since.after(u64::from(self.count) * self.tick());
        if first > now {
            return first;
        }
        match (self.mode, self.initial) {
            (Mode::Periodic, 1..) => {
                let period = u64::from(self.initial) * self.tick();
                let periods = (now.0 - first.0) / period + 1;
                first.after(periods.saturating_mul(period))
            }
            _ => VirtTime::NEVER,
        }
    }

    /// The deadline was reached: a TSC deadline is disarmed; the counter moves on by itself.
    pub(super) fn expire(&mut self) {
        self.tsc_deadline = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_shot_counts_exactly_and_stops() {
        let mut t = Timer::default();
        t.set_divide(VirtTime(0), 0b0011); // by 16
        t.set_initial(VirtTime(100), 1000);
        assert_eq!(t.deadline(VirtTime(100)), VirtTime(16_100));
        assert_eq!(t.current(VirtTime(115)), 1000);
        assert_eq!(t.current(VirtTime(116)), 999);
        assert_eq!(t.current(VirtTime(16_099)), 1);
        assert_eq!(t.current(VirtTime(16_100)), 0);
        assert_eq!(t.deadline(VirtTime(16_100)), VirtTime::NEVER);
    }

    #[test]
    fn periodic_keeps_its_grid_when_asked_late() {
        let mut t = Timer::default();
        t.set_mode(VirtTime(0), Mode::Periodic);
        t.set_divide(VirtTime(0), 0b1011); // by 1
        t.set_initial(VirtTime(7), 10);
        for (now, next, current) in
            [(7, 17, 10), (16, 17, 1), (17, 27, 10), (18, 27, 9), (1_000_003, 1_000_007, 4)]
        {
            assert_eq!(t.deadline(VirtTime(now)), VirtTime(next), "at {now}");
            assert_eq!(t.current(VirtTime(now)), current, "at {now}");
        }
    }

    #[test]
    fn every_divisor_of_the_manual() {
        let codes = [0b0000, 0b0001, 0b0010, 0b0011, 0b1000, 0b1001, 0b1010, 0b1011];
        for (code, divisor) in codes.into_iter().zip([2, 4, 8, 16, 32, 64, 128, 1]) {
            let mut t = Timer::default();
            t.set_divide(VirtTime(0), code);
            t.set_initial(VirtTime(0), 3);
            assert_eq!(t.deadline(VirtTime(0)), VirtTime(3 * divisor), "code {code:04b}");
        }
    }

    #[test]
    fn a_new_divisor_goes_on_from_the_current_count() {
        let mut t = Timer::default();
        t.set_divide(VirtTime(0), 0b1011);
        t.set_initial(VirtTime(0), 100);
        t.set_divide(VirtTime(40), 0b0000);
        assert_eq!(t.current(VirtTime(40)), 60);
        assert_eq!(t.deadline(VirtTime(40)), VirtTime(40 + 120));
    }

    #[test]
    fn changing_to_and_from_deadline_mode_disarms() {
        let mut t = Timer::default();
        t.set_tsc_deadline(5);
        assert_eq!(t.tsc_deadline(), 0, "not in that mode");
        t.set_initial(VirtTime(0), 100);
        t.set_mode(VirtTime(1), Mode::TscDeadline);
        assert_eq!(t.deadline(VirtTime(1)), VirtTime::NEVER);
        t.set_tsc_deadline(500);
        assert_eq!(t.deadline(VirtTime(1)), VirtTime(500));
        t.set_initial(VirtTime(2), 9);
        assert_eq!(t.initial(), 0, "ignored in that mode");
        t.set_mode(VirtTime(3), Mode::OneShot);
        t.set_mode(VirtTime(4), Mode::TscDeadline);
        assert_eq!(t.deadline(VirtTime(4)), VirtTime::NEVER);
    }
}
