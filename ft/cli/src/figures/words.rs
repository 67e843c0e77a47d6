//! Figures in words: lines for people, JSON for programs.
//!
//! Not responsible for: the terminal (`top`).

use gemel_log::ByteCounts;
use gemel_pair::protocol::{Latencies, Phase};
use gemel_pair::shell::{CloneFigures, Report};
use serde_json::{Value, json};

/// The classes of a log's bytes, by name.
pub fn classes(log: &ByteCounts) -> [(&'static str, u64); 7] {
    let ByteCounts { input, disk, net, digest, answers, times, other } = *log;
    [
        ("input", input),
        ("disk", disk),
        ("net", net),
        ("digest", digest),
        ("answers", answers),
        ("times", times),
        ("other", other),
    ]
}

/// The name of a phase.
pub fn phase(phase: &Phase) -> String {
    match phase {
        Phase::Stopped(_) => "Stopped".into(),
        other => format!("{other:?}"),
    }
}

/// Whether another side can go on with the guest.
pub fn is_protected(report: &Report) -> bool {
    report.figures.members.len() > 1 && matches!(report.figures.phase, Phase::Primary | Phase::Secondary)
}

/// What changed between two reports of one side.
pub struct Change<'a> {
    now: &'a Report,
    seconds: f64,
    then: Option<&'a Report>,
}

impl<'a> Change<'a> {
    /// `then` was said by the same process, or is none.
    pub fn new(then: Option<&'a Report>, now: &'a Report) -> Self {
        // Counts of another process that took the address say nothing about this one's rates.
        let then = then.filter(|then| then.figures.member == now.figures.member && then.now < now.now);
        let seconds = then.map_or(1.0, |then| (now.now - then.now) as f64 / 1e9);
        Self { now, seconds, then }
    }

    /// Per second; 0 while there is nothing to compare with.
    fn rate(&self, of: impl Fn(&Report) -> u64) -> f64 {
        self.then.map_or(0.0, |then| of(self.now).saturating_sub(of(then)) as f64 / self.seconds)
    }

    fn latency(&self) -> Latencies {
        let latency = &self.now.figures.latency;
        self.then.map_or_else(|| latency.clone(), |then| latency.since(&then.figures.latency))
    }

    fn log_rates(&self) -> impl Iterator<Item = (&'static str, f64)> {
        (0..classes(&self.now.log).len())
            .map(|i| (classes(&self.now.log)[i].0, self.rate(|report| classes(&report.log)[i].1)))
    }

    /// For programs: the report, and what can only be told from two.
    pub fn json(&self, side: &str) -> Value {
        let latency = self.latency();
        let us = |share| latency.below(share).map(|ns| ns as f64 / 1e3);
        json!({
            "side": side,
            "protected": is_protected(self.now),
            "log_bytes_per_s": self.log_rates().map(|(name, rate)| (name.into(), rate.round().into()))
                .collect::<serde_json::Map<String, Value>>(),
            "outputs_per_s": self.rate(|report| report.figures.outputs).round(),
            "output_latency_us": { "p50": us(0.5), "p90": us(0.9), "p99": us(0.99) },
            "figures": self.now,
        })
    }

    /// For people.
    pub fn lines(&self, side: &str) -> Vec<String> {
        let figures = &self.now.figures;
        let protection = match (is_protected(self.now), figures.members.len()) {
            (true, members) => format!("protected, {members} in sync"),
            (false, _) => "UNPROTECTED".into(),
        };
        let alone = match figures.unprotected {
            0 => String::new(),
            ns => format!("  unprotected for {} so far", time(ns)),
        };
        let clones = match self.now.clones {
            CloneFigures { made: 0, .. } => String::new(),
            CloneFigures { made, pause, took, .. } => {
                format!("  clones {made}, the last in {}, pause {}", time(took), time(pause))
            }
        };
        let log: f64 = self.log_rates().map(|(_, rate)| rate).sum();
        let by_class: Vec<_> = self
            .log_rates()
            .filter(|(_, rate)| *rate >= 0.5)
            .map(|(name, rate)| format!("{name} {}", bytes(rate)))
            .collect();
        let latency = self.latency();
        let below = |share| latency.below(share).map_or("-".into(), time);
        vec![
            format!(
                "{side}  {}  epoch {}  {protection}{alone}{clones}",
                phase(&figures.phase),
                figures.epoch
            ),
            format!(
                "  guest {:.3} s  lag {}  held {}  marks in flight {}",
                figures.guest_time as f64 / 1e9,
                time(figures.lag),
                figures.held,
                figures.marks_in_flight
            ),
            format!("  log {}/s  {}", bytes(log), by_class.join("  ")),
            format!(
                "  outputs {:.0}/s  wait: half below {}, 90 % {}, 99 % {}",
                self.rate(|report| report.figures.outputs),
                below(0.5),
                below(0.9),
                below(0.99)
            ),
        ]
    }
}

/// Bytes in the unit that leaves few digits.
pub fn bytes(count: f64) -> String {
    let (unit, digits, name) = match count {
        c if c < 1e3 => (1.0, 0, "B"),
        c if c < 1e6 => (1e3, 1, "KB"),
        c if c < 1e9 => (1e6, 1, "MB"),
        _ => (1e9, 1, "GB"),
    };
    format!("{:.digits$} {name}", count / unit)
}

/// Nanoseconds in the unit that leaves few digits.
fn time(ns: u64) -> String {
    match ns / 1_000_000 {
        0 => format!("{} us", ns / 1000),
        1..=999 => format!("{:.1} ms", ns as f64 / 1e6),
        _ => format!("{:.1} s", ns as f64 / 1e9),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_leave_few_digits() {
        let shown = [0.4, 999.0, 1500.0, 2.5e6, 3e9].map(bytes);
        assert_eq!(shown, ["0 B", "999 B", "1.5 KB", "2.5 MB", "3.0 GB"]);
        assert_eq!([15_000, 1_500_000, 2_000_000_000].map(time), ["15 us", "1.5 ms", "2.0 s"]);
    }
}
