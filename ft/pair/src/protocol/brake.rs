//! How much a leader's machine is slowed so that its secondaries keep up.
//!
//! Not responsible for: measuring how far they are behind (`peer`), sleeping (`shell`).
//!
//! A slow feedback, in place of a machine that stops and goes: the share of time that the machine sleeps is a part that follows the
//! lag's distance from the bound, so that it settles, and a part that collects it, so that it settles at the bound. What is behind
//! delays a failover, so the bound is short.

/// The largest share, in millionths: a machine that is slowed a hundredfold still goes on.
const MOST: i64 = 990_000;
/// A lag of twice the bound collects the whole share within so long (ns), and none gives it back within half of that.
const RISE: i64 = 1_000_000_000;
const FALL: i64 = RISE / 2;
/// The longest time between two looks that counts (ns).
const STEP: u64 = 100_000_000;

/// The share of time that the machine sleeps.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Brake {
    /// What was collected, and the share, in millionths.
    collected: i64,
    share: i64,
    looked: u64,
}

impl Brake {
    /// Looks at the lag of the slowest, in nanoseconds as all times.
    pub fn look(&mut self, now: u64, lag: u64, bound: u64) {
        let passed = now.saturating_sub(std::mem::replace(&mut self.looked, now)).min(STEP) as i64;
        // Distance from the bound, as a part of it, in the share's unit.
        let bound = i128::from(bound.max(1));
        let distance = (i128::from(lag) - bound).min(bound) * i128::from(MOST) / bound;
        let distance = distance as i64; // from -MOST to MOST
        let within = if distance > 0 { RISE } else { FALL };
        self.collected = (self.collected + distance * passed / within).clamp(0, MOST);
        self.share = (self.collected + distance).clamp(0, MOST);
    }

    /// The share, in millionths.
    pub fn share(&self) -> u64 {
        self.share.unsigned_abs()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    /// A leader that makes a second of work in a second, and a secondary that does `speed` percent of that.
    fn settle(speed: u64) -> (u64, u64) {
        let (mut brake, mut lag) = (Brake::default(), 0u64);
        let mut worst = 0; // once it has settled
        for tick in 1..20_000 {
            let made = 2 * MS * (1_000_000 - brake.share()) / 1_000_000;
            lag = (lag + made).saturating_sub(2 * MS * speed / 100);
            brake.look(tick * 2 * MS, lag, 200 * MS);
            if tick > 10_000 {
                worst = worst.max(lag);
            }
        }
        (brake.share(), worst)
    }

    #[test]
    fn a_leader_comes_down_to_the_pace_of_its_secondary_and_is_let_go() {
        for speed in [2, 10, 50, 90] {
            let (share, worst) = settle(speed);
            let wanted = 1_000_000 - 10_000 * speed;
            assert!(share.abs_diff(wanted) < 20_000, "{speed} %: {share} of {wanted}");
            assert!(worst < 240 * MS, "{speed} %: {worst} ns behind");
        }
        assert_eq!(settle(120), (0, 0), "a fast one slows nobody");
    }

    #[test]
    fn it_is_released_when_nobody_is_behind() {
        let mut brake = Brake { collected: MOST, share: MOST, looked: 0 };
        (1..=400).for_each(|tick| brake.look(tick * 2 * MS, 0, 200 * MS));
        assert_eq!(brake.share(), 0);
    }
}
