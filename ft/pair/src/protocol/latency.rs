//! How long outputs wait between leaving the machine and leaving the side.
//!
//! Not responsible for: holding them (`ring`), the way to a client.

use serde::{Deserialize, Serialize};
use std::collections::VecDeque;

/// Upper bounds of the buckets in nanoseconds, six to a decade from 10 us to 1 s. One more bucket is for what takes longer.
pub const LATENCY_BOUNDS: [u64; 31] = {
    const STEPS: [u64; 6] = [10, 15, 20, 30, 50, 70];
    let (mut bounds, mut i, mut unit) = ([0; 31], 0, 1_000);
    while i < 31 {
        bounds[i] = STEPS[i % 6] * unit;
        i += 1;
        if i.is_multiple_of(6) {
            unit *= 10;
        }
    }
    bounds
};

/// Outputs whose way is timed at once; of more the rest is not counted, so that a long outage costs no memory.
const WATCHED: usize = 4096;

/// How long outputs were held, as a histogram.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Latencies {
    /// How many outputs waited so long: one count for each of [`LATENCY_BOUNDS`], and one for longer ones.
    pub counts: Vec<u64>,
    /// All waits together (ns).
    pub sum: u64,
}

impl Default for Latencies {
    fn default() -> Self {
        Self { counts: vec![0; LATENCY_BOUNDS.len() + 1], sum: 0 }
    }
}

impl Latencies {
    fn add(&mut self, wait: u64) {
        self.counts[LATENCY_BOUNDS.partition_point(|bound| *bound < wait)] += 1;
        self.sum += wait;
    }

    /// How many outputs were counted.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// What was counted after `earlier`.
    pub fn since(&self, earlier: &Self) -> Self {
        let counts = self.counts.iter().zip(&earlier.counts).map(|(now, then)| now.saturating_sub(*then));
        Self { counts: counts.collect(), sum: self.sum.saturating_sub(earlier.sum) }
    }

    /// The bound (ns) below which this share of the outputs waited; `None` without outputs. What took longer than the last bound is
    /// told as the last bound.
    pub fn below(&self, share: f64) -> Option<u64> {
        let rank = (self.count() as f64 * share).ceil().max(1.0) as u64;
        let mut seen = 0;
        let bucket = self.counts.iter().position(|count| {
            seen += count;
            seen >= rank
        })?;
        LATENCY_BOUNDS.get(bucket).or(LATENCY_BOUNDS.last()).copied()
    }
}

/// Outputs on their way.
#[derive(Clone, Debug, Default)]
pub(super) struct Stopwatch {
    /// Ordinal and moment, in order.
    waiting: VecDeque<(u64, u64)>,
    pub latencies: Latencies,
}

impl Stopwatch {
    /// A live machine emitted this output.
    pub fn emitted(&mut self, now: u64, ordinal: u64) {
        if self.waiting.len() < WATCHED {
            self.waiting.push_back((ordinal, now));
        }
    }

    /// Outputs below this ordinal may leave.
    pub fn released(&mut self, now: u64, ordinal: u64) {
        while let Some((_, since)) = self.waiting.pop_front_if(|(of, _)| *of < ordinal) {
            self.latencies.add(now.saturating_sub(since));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_are_counted_from_output_to_release() {
        assert_eq!(LATENCY_BOUNDS[0], 10_000);
        assert_eq!(LATENCY_BOUNDS[5..8], [70_000, 100_000, 150_000]);
        assert_eq!(LATENCY_BOUNDS[30], 1_000_000_000);
        let mut stopwatch = Stopwatch::default();
        for (ordinal, moment) in [(5, 0), (6, 100_000), (7, 200_000)] {
            stopwatch.emitted(moment, ordinal);
        }
        assert_eq!(stopwatch.latencies.below(0.5), None);
        stopwatch.released(250_000, 7);
        assert_eq!((stopwatch.latencies.count(), stopwatch.latencies.sum), (2, 400_000));
        assert_eq!(stopwatch.latencies.below(0.5), Some(150_000), "150 us is not longer than 150 us");
        assert_eq!(stopwatch.latencies.below(0.99), Some(300_000));
        let before = stopwatch.latencies.clone();
        stopwatch.released(9_000_000_000, u64::MAX);
        let since = stopwatch.latencies.since(&before);
        assert_eq!((since.count(), since.below(0.5)), (1, Some(1_000_000_000)));
        for ordinal in 0..2 * WATCHED as u64 {
            stopwatch.emitted(0, ordinal);
        }
        assert_eq!(stopwatch.waiting.len(), WATCHED);
    }
}
