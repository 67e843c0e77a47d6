//! The checker on one faulty run after the other, and what it took.
//!
//! Not responsible for: faults (`inject`).

use crate::draw::Draw;
use crate::inject::{Followed, Injection, Kind};
use crate::outside::{self, EPOCH, LENGTH};
use gemel_diverge::{Agreement, Finding, Found, Outcome, Plan, compare};
use gemel_log::EndReason;
use gemel_machine::At;
use gemel_replay::Conclusion;
use std::collections::BTreeMap;

/// Intervals to run the checker with: the log's epoch, and then one short enough that it compares after every instruction.
const INTERVALS: [u64; 2] = [EPOCH, 16];
/// What was executed to name the step, in lengths of the interval that it lies in.
const MOST_WORK: f64 = 3.0;
/// Runs that faults are put into, by seed.
const RUNS: u64 = 16;

#[derive(Default)]
struct Figures {
    /// Named, by interval.
    named: [usize; INTERVALS.len()],
    verdict: Vec<f64>,
    report: Vec<f64>,
}

pub struct Campaign {
    seed: u64,
    logs: BTreeMap<u64, Vec<u8>>,
    figures: BTreeMap<Kind, Figures>,
    pub failed: usize,
}

fn plan(interval: u64, judge: bool) -> Plan {
    Plan { interval, judge, ..Plan::default() }
}

impl Campaign {
    pub fn new(seed: u64) -> Self {
        Self { seed, logs: BTreeMap::new(), figures: BTreeMap::new(), failed: 0 }
    }

    /// Puts fault `number` in and looks for it.
    pub fn run(&mut self, number: u64, tell: bool) {
        let mut draw = Draw::of(self.seed.wrapping_mul(1_000_003).wrapping_add(number));
        let run = draw.below(RUNS);
        let log = self.logs.entry(run).or_insert_with(|| outside::record(run));
        let kind = Kind::ALL[(number % Kind::ALL.len() as u64) as usize];
        let injection = Injection::draw(kind, log, &mut draw);
        if tell {
            println!("fault {number}: {}: {injection}", kind.words());
        }
        match self.look(&injection, tell) {
            Ok(()) => {}
            Err(complaint) => {
                self.failed += 1;
                println!("FAILED: fault {number} of seed {}: {}: {injection}", self.seed, kind.words());
                println!("    {complaint}");
            }
        }
    }

    fn look(&mut self, injection: &Injection, tell: bool) -> Result<(), String> {
        for (nth, interval) in INTERVALS.into_iter().enumerate() {
            let plan = plan(interval, injection.judge);
            match compare(&injection.first, &injection.second, plan, &mut |_: At| Ok(()))
                .map_err(|e| e.to_string())?
            {
                // It has healed: every digest of the log and every output is as recorded, and no comparison saw it.
                Outcome::Agree(Agreement { conclusion: Some(Conclusion::Complete { .. }), .. }) => {}
                Outcome::Part(finding) => {
                    if tell {
                        println!("{}", finding.report());
                    }
                    return match injection.complaint(&finding) {
                        Some(complaint) => Err(complaint),
                        None => self.note(injection.kind, nth, &finding, interval),
                    };
                }
                other => return Err(format!("with interval {interval}: {other:?}")),
            }
        }
        Err("not found".into())
    }

    fn note(&mut self, kind: Kind, nth: usize, finding: &Finding, interval: u64) -> Result<(), String> {
        let start = finding.since.position.count;
        // The last interval is as long as there is something to replay.
        let length = interval.min(LENGTH - start) as f64;
        let figures = self.figures.entry(kind).or_default();
        figures.named[nth] += 1;
        let verdict = finding.work.verdict as f64 / length;
        figures.verdict.push(verdict);
        figures.report.push(verdict + finding.work.history as f64 / length);
        if verdict > MOST_WORK {
            return Err(format!("{verdict:.2} times the interval was executed: {:?}", finding.work));
        }
        Ok(())
    }

    /// Prints what was found, and how.
    pub fn table(&self) {
        println!(
            "{:<36}{:>7}{:>9}{:>9}   executed until named, in intervals; with history",
            "fault", "faults", "interval", "every"
        );
        println!(
            "{:<36}{:>7}{EPOCH:>9}{:>9}   {:>8}{:>8}{:>8}{:>8}",
            "", "named", "step", "median", "max", "median", "max"
        );
        for (kind, figures) in &self.figures {
            let [coarse, fine] = figures.named;
            println!(
                "{:<36}{:>7}{coarse:>9}{fine:>9}   {:>8.2}{:>8.2}{:>8.2}{:>8.2}",
                kind.words(),
                coarse + fine,
                median(&figures.verdict),
                most(&figures.verdict),
                median(&figures.report),
                most(&figures.report),
            );
        }
        let named: usize = self.figures.values().flat_map(|f| f.named).sum();
        println!("{named} named, {} not", self.failed);
    }
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}

fn most(values: &[f64]) -> f64 {
    values.iter().copied().fold(0.0, f64::max)
}

/// Whether the checker says nothing of a run without a fault: judged, and compared with itself.
pub fn clean(seed: u64) -> bool {
    let log = outside::record(seed);
    let (first, second) = (Followed::good("engine", &log), Followed::good("judge", &log));
    [(EPOCH, true), (EPOCH, false), (1000, true)].into_iter().all(|(interval, judge)| {
        let outcome = compare(&first, &second, plan(interval, judge), &mut |_: At| Ok(()));
        let stopped = Some(Conclusion::Complete { reason: EndReason::Stopped });
        let good = matches!(&outcome, Ok(Outcome::Agree(Agreement { at, conclusion, compared }))
            if *conclusion == stopped && (at.position.count, *compared) == (LENGTH, LENGTH));
        if !good {
            println!("FAILED: the clean run of seed {seed}: {outcome:?}");
        }
        good
    })
}
