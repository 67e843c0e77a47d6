//! Whether the host has a processor to spare.
//!
//! Not responsible for: what is done with it.

use rustix::time::{ClockId, clock_gettime};
use std::fs;
use std::time::{Duration, Instant};

/// Between two looks at least: the host counts in hundredths of a second.
const PAUSE: Duration = Duration::from_millis(200);
/// Processors that must be free, this process left out.
const FREE: f64 = 0.9;

/// What the host's processors did up to a moment.
struct Look {
    at: Instant,
    /// Time without work and all time, in the host's ticks.
    idle: u64,
    all: u64,
    /// Seconds of this process.
    own: f64,
}

/// Watches the host.
pub struct Idle {
    last: Option<Look>,
    free: bool,
}

/// The first line of /proc/stat: time without work (fourth and fifth figure) and all time, over all processors.
fn ticks(stat: &str) -> Option<(u64, u64)> {
    let figures: Vec<u64> = stat
        .lines()
        .next()?
        .strip_prefix("cpu ")?
        .split_whitespace()
        .filter_map(|f| f.parse().ok())
        .collect();
    // Guest time (ninth and tenth) is part of user time.
    let all = figures.iter().take(8).sum();
    Some((figures.get(3)? + figures.get(4)?, all))
}

fn look() -> Option<Look> {
    let (idle, all) = ticks(&fs::read_to_string("/proc/stat").ok()?)?;
    let own = clock_gettime(ClockId::ProcessCPUTime);
    Some(Look { at: Instant::now(), idle, all, own: own.tv_sec as f64 + own.tv_nsec as f64 / 1e9 })
}

impl Idle {
    /// Knows nothing yet, so the host is taken for busy.
    pub fn new() -> Self {
        Self { last: look(), free: false }
    }

    /// Whether a processor had nothing to do since the last look but what this process did.
    pub fn is_free(&mut self) -> bool {
        if self.last.as_ref().is_some_and(|last| last.at.elapsed() < PAUSE) {
            return self.free;
        }
        let now = look();
        self.free = match (&self.last, &now) {
            (Some(last), Some(now)) => {
                let processors = std::thread::available_parallelism().map_or(1, |n| n.get()) as f64;
                let all = now.all.saturating_sub(last.all).max(1) as f64;
                let idle = now.idle.saturating_sub(last.idle) as f64 / all * processors;
                let own = (now.own - last.own) / (now.at - last.at).as_secs_f64();
                idle + own >= FREE
            }
            _ => false,
        };
        self.last = now;
        self.free
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hosts_figures_are_read() {
        let stat = "cpu  100 5 20 1000 50 1 2 3 90 0\ncpu0 1 2 3\n";
        assert_eq!(ticks(stat), Some((1050, 1181)));
        assert_eq!(ticks("intr 5"), None);
        assert!(look().is_some_and(|look| look.all >= look.idle));
    }
}
