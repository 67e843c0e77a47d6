//! How guest time follows the host's clock.
//!
//! Not responsible for: guest time itself. It is a function of the instruction count and the idle time skipped
//! (`gemel_machine::Clock`), and pacing only decides when the host lets the guest go on; or, of a machine that counts
//! exits, what a sample gives.
//!
//! Paced: guest time and the host's monotonic clock are tied together at the first moment seen (power-on, or the
//! moment a machine is taken over). From there on:
//! * a guest that is ahead waits at its next stop, so it is never ahead by more than one slice (0.26 ms);
//! * a guest that is behind, because it computed more than the host could do in that time, is never hurried while it
//!   computes, and passes its idle times at up to twice the speed until it has caught up. The bound keeps a guest
//!   that was stopped for a minute from seeing that minute in an instant.
//!
//! Free: no clock and no sleep. Idle time passes at once.
//!
//! A sample of a paced machine is what the host's clock says guest time should be. After a pause of the host it is behind, and goes at
//! twice the speed, too. A sample of a free machine is a fixed time after the last one, and a guest that computes without asking
//! is given a fixed time for each piece of it: a function of what the guest does, as far as the engine comes back at the same places.

use gemel_machine::VirtTime;
use rustix::thread::set_current_timer_slack;
use std::num::NonZeroU64;
use std::time::{Duration, Instant};

/// What guest time has to do with the host's clock.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ClockMode {
    /// Follows it.
    Paced,
    /// Nothing: a run is reproducible without any log.
    Free,
}

/// While the guest is behind, idle time passes at this many times the host's speed.
const CATCH_UP_SPEED: u64 = 2;

/// Longer than a running guest goes without a look at the clock, ns: beyond that it was stopped.
const PAUSE_NS: u64 = 100_000_000;

/// Guest time of an access of a free machine that samples it, ns: about what an access to an ISA port takes.
const FREE_ACCESS_NS: u64 = 1000;

/// Guest time of a free machine between two visits of an engine whose guest does nothing but compute, ns: 2^16 instructions of 4 ns.
const FREE_PIECE_NS: u64 = 4 << 16;

/// How late the host may wake the machine's thread, ns.
const TIMER_SLACK_NS: u64 = 1000;

/// Ties guest time to the host's clock.
pub struct Pacer {
    mode: ClockMode,
    anchor: Option<(Instant, VirtTime)>,
    /// The last look at the clock for a sample, and guest time then.
    looked: Option<(Instant, VirtTime)>,
    /// The count at the last visit of a free machine, and guest time then.
    visited: Option<(u64, VirtTime)>,
}

/// An idle time that has been given a length on the host's clock.
#[derive(Clone, Copy, Debug)]
pub struct IdlePlan {
    started: Instant,
    from: VirtTime,
    /// How far guest time was behind the host's clock at the start, ns; negative when ahead.
    behind: i64,
}

impl Pacer {
    /// A pacer that is tied to the host's clock when it is first used.
    pub fn new(mode: ClockMode) -> Self {
        Self { mode, anchor: None, looked: None, visited: None }
    }

    /// The mode.
    pub fn mode(&self) -> ClockMode {
        self.mode
    }

    /// Forgets how guest time and the host's clock were related: the next use ties them anew. A deficit is gone.
    pub fn reanchor(&mut self) {
        (self.anchor, self.looked) = (None, None);
    }

    /// Guest time that should be now on the host's clock `host`.
    fn target(&mut self, host: Instant, now: VirtTime) -> VirtTime {
        let (start, guest) = *self.anchor.get_or_insert_with(|| {
            // By default Linux may wake this thread 50 us late, as long as a whole disk request takes. A host that
            // refuses more is only less exact.
            let _ = set_current_timer_slack(NonZeroU64::new(TIMER_SLACK_NS));
            (host, now)
        });
        guest.after(host.saturating_duration_since(start).as_nanos() as u64)
    }

    /// By how much guest time is behind the host's clock; zero in free mode.
    pub fn behind(&mut self, now: VirtTime) -> Duration {
        match self.mode {
            ClockMode::Paced => {
                Duration::from_nanos(self.target(Instant::now(), now).0.saturating_sub(now.0))
            }
            ClockMode::Free => Duration::ZERO,
        }
    }

    /// Holds the guest up while it is ahead.
    pub fn hold(&mut self, now: VirtTime) {
        if self.mode == ClockMode::Paced {
            let ahead = now.0.saturating_sub(self.target(Instant::now(), now).0);
            if ahead > 0 {
                std::thread::sleep(Duration::from_nanos(ahead));
            }
        }
    }

    /// What guest time it is when a guest asks that has come to `now` before.
    pub fn sample(&mut self, now: VirtTime) -> VirtTime {
        match self.mode {
            ClockMode::Paced => self.look(Instant::now(), now),
            ClockMode::Free => {
                self.visited = None;
                now.after(FREE_ACCESS_NS)
            }
        }
    }

    /// The same at a stop at `count`, where nothing asked.
    pub fn visit(&mut self, count: u64, now: VirtTime) -> VirtTime {
        if self.mode == ClockMode::Paced {
            return self.look(Instant::now(), now);
        }
        let reached = match self.visited {
            Some((last, reached)) if last == count => reached.max(now).after(FREE_PIECE_NS),
            _ => now,
        };
        self.visited = Some((count, reached));
        reached
    }

    fn look(&mut self, host: Instant, now: VirtTime) -> VirtTime {
        let target = self.target(host, now);
        let (last, reached) = self.looked.unwrap_or((host, now));
        let passed = (host.saturating_duration_since(last).as_nanos() as u64).min(PAUSE_NS);
        let time = target.min(reached.max(now).after(passed * CATCH_UP_SPEED)).max(now);
        self.looked = Some((host, time));
        time
    }

    /// Begins an idle time. `None`: it passes at once (free mode).
    pub fn plan(&mut self, now: VirtTime) -> Option<IdlePlan> {
        if self.mode == ClockMode::Free {
            self.visited = None;
            return None;
        }
        let started = Instant::now();
        let behind = self.target(started, now).0.wrapping_sub(now.0) as i64;
        Some(IdlePlan { started, from: now, behind })
    }
}

impl IdlePlan {
    /// When guest time is `until` on the host's clock; `None` when that is beyond the clock.
    pub fn deadline(&self, until: VirtTime) -> Option<Instant> {
        if until == VirtTime::NEVER {
            return None;
        }
        let guest = until.0.saturating_sub(self.from.0);
        let host = match u64::try_from(self.behind) {
            Ok(behind) => guest.saturating_sub(behind).max(guest.div_ceil(CATCH_UP_SPEED)),
            Err(_) => guest.saturating_add(self.behind.unsigned_abs()),
        };
        self.started.checked_add(Duration::from_nanos(host))
    }

    /// Guest time at a moment within it.
    pub fn guest_time_at(&self, moment: Instant) -> VirtTime {
        let elapsed = moment.saturating_duration_since(self.started).as_nanos() as u64;
        let passed = match u64::try_from(self.behind) {
            Ok(behind) => elapsed.saturating_mul(CATCH_UP_SPEED).min(elapsed.saturating_add(behind)),
            Err(_) => elapsed.saturating_sub(self.behind.unsigned_abs()),
        };
        self.from.after(passed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    const FROM: VirtTime = VirtTime(100);
    const UNTIL: VirtTime = VirtTime(100 + 10 * MS);

    fn plan(behind_ms: i64) -> IdlePlan {
        IdlePlan { started: Instant::now(), from: FROM, behind: behind_ms * MS as i64 }
    }

    #[test]
    fn catching_up_is_bounded_and_a_lead_is_waited_for() {
        let length = |behind_ms| {
            let plan = plan(behind_ms);
            (plan.deadline(UNTIL).unwrap() - plan.started).as_millis()
        };
        assert_eq!([-1, 0, 1, 4, 5, 6, 60_000].map(length), [11, 10, 9, 6, 5, 5, 5]);
    }

    #[test]
    fn guest_time_reaches_the_end_when_the_deadline_says() {
        for behind in [-3, 0, 2, 5, 1000] {
            let plan = plan(behind);
            let deadline = plan.deadline(UNTIL).unwrap();
            assert_eq!(plan.guest_time_at(plan.started), FROM);
            assert_eq!(plan.guest_time_at(deadline), UNTIL, "behind {behind}");
            assert!(plan.guest_time_at(deadline - Duration::from_micros(1)) < UNTIL);
        }
    }

    #[test]
    fn an_idle_time_without_end_has_no_deadline_and_catches_up() {
        let plan = plan(1);
        assert_eq!(plan.deadline(VirtTime::NEVER), None);
        assert_eq!(plan.guest_time_at(plan.started + Duration::from_micros(400)), FROM.after(800_000));
        assert_eq!(plan.guest_time_at(plan.started + Duration::from_millis(3)), FROM.after(4 * MS));
    }

    #[test]
    fn a_sample_follows_the_host_and_makes_up_for_a_pause_at_a_bounded_rate() {
        let start = Instant::now();
        let at = |ns: u64| start + Duration::from_nanos(ns);
        let mut pacer = Pacer::new(ClockMode::Paced);
        let mut now = pacer.look(start, VirtTime(500));
        assert_eq!(now, VirtTime(500));
        // A guest that computes is looked at without being told.
        for ms in 1..=50 {
            pacer.look(at(ms * MS), now);
        }
        now = pacer.look(at(51 * MS), now);
        assert_eq!(now, VirtTime(500 + 51 * MS));
        // A minute's pause.
        let (minute, mut passed) = (60_000, 51);
        while now.0 < 500 + (minute + passed) * MS {
            let before = now;
            passed += 10;
            now = pacer.look(at((minute + passed) * MS), now);
            let most = if passed == 61 { 200 } else { 20 };
            assert!(now > before && now.0 <= before.0 + most * MS, "{passed} ms");
        }
        assert!((59_000..=61_000).contains(&passed), "{passed} ms");
        assert_eq!(pacer.look(start, now), now, "never back");
    }

    #[test]
    fn a_free_sample_is_a_function_of_what_the_guest_does() {
        let mut pacer = Pacer::new(ClockMode::Free);
        assert_eq!(pacer.sample(VirtTime(7)), VirtTime(7 + FREE_ACCESS_NS));
        let visits = [5, 5, 5, 6, 6].map(|count| pacer.visit(count, VirtTime(7)).0);
        assert_eq!(visits, [0, FREE_PIECE_NS, 2 * FREE_PIECE_NS, 0, FREE_PIECE_NS].map(|ns| 7 + ns));
        assert!(pacer.plan(VirtTime(7)).is_none());
        assert_eq!(pacer.visit(6, VirtTime(7)), VirtTime(7), "it slept");
    }

    #[test]
    fn free_mode_never_waits() {
        let mut pacer = Pacer::new(ClockMode::Free);
        assert!(pacer.plan(VirtTime(0)).is_none());
        pacer.hold(VirtTime(u64::MAX - 1));
        assert_eq!(pacer.behind(VirtTime(0)), Duration::ZERO);
    }
}
