//! How guest time follows the host's clock.
//!
//! Not responsible for: guest time itself, which is a function of the instruction count and the idle time skipped
//! (`gemel_machine::Clock`). Pacing only decides when the host lets the guest go on.
//!
//! Paced: guest time and the host's monotonic clock are tied together at the first moment seen (power-on, or the
//! moment a machine is taken over). From there on:
//! * a guest that is ahead waits at its next stop, so it is never ahead by more than one slice (0.26 ms);
//! * a guest that is behind, because it computed more than the host could do in that time, is never hurried while it
//!   computes, and passes its idle times at up to twice the speed until it has caught up. The bound keeps a guest
//!   that was stopped for a minute from seeing that minute in an instant.
//!
//! Free: no clock and no sleep. Idle time passes at once.

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

/// How late the host may wake the machine's thread, ns.
const TIMER_SLACK_NS: u64 = 1000;

/// Ties guest time to the host's clock.
pub struct Pacer {
    mode: ClockMode,
    anchor: Option<(Instant, VirtTime)>,
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
        Self { mode, anchor: None }
    }

    /// The mode.
    pub fn mode(&self) -> ClockMode {
        self.mode
    }

    /// Forgets how guest time and the host's clock were related: the next use ties them anew. A deficit is gone.
    pub fn reanchor(&mut self) {
        self.anchor = None;
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

    /// Begins an idle time. `None`: it passes at once (free mode).
    pub fn plan(&mut self, now: VirtTime) -> Option<IdlePlan> {
        if self.mode == ClockMode::Free {
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
    fn free_mode_never_waits() {
        let mut pacer = Pacer::new(ClockMode::Free);
        assert!(pacer.plan(VirtTime(0)).is_none());
        pacer.hold(VirtTime(u64::MAX - 1));
        assert_eq!(pacer.behind(VirtTime(0)), Duration::ZERO);
    }
}
