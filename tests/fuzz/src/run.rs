//! Runs episodes for a number of them or a length of time, keeps count, and says how to see a failure again.
//!
//! Not responsible for: what an episode does.

use crate::rng::Rng;
use rustix::time::{ClockId, clock_gettime};
use std::collections::BTreeMap;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// CPU time that a case may take, per 10,000 steps or less. A case that takes more is as good as a hang.
const MOST_CPU_TIME: Duration = Duration::from_secs(1);
/// CPU time after which a case that has not ended is called a hang.
const HANG: Duration = Duration::from_secs(20);

/// Something that can be fuzzed, an episode at a time.
pub trait Episode {
    /// Runs episode `number`; all that is random comes from `rng`.
    ///
    /// # Errors
    /// A failure that is no panic.
    fn run(&self, rng: &Rng, number: u64, tally: &mut Tally) -> anyhow::Result<()>;
}

/// Which episodes to run.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// The run's seed.
    pub seed: u64,
    /// The first episode.
    pub first: u64,
    /// How many at most.
    pub episodes: u64,
    /// For how long at most.
    pub time: Duration,
    /// How many times longer a case may take: more than one for a build that checks its memory accesses.
    pub patience: u32,
    /// How often to print how far it is; zero for never.
    pub report_every: Duration,
}

/// Cases of one kind.
#[derive(Clone, Copy, Default, Debug)]
pub struct Kind {
    /// Cases.
    pub cases: u64,
    /// Steps in them: instructions, or accesses.
    pub steps: u64,
    /// Cases that went as far as they should: used up their instructions, reached the rings.
    pub complete: u64,
}

/// Where the run is, for the watchdog's eyes too.
#[derive(Default)]
struct Progress {
    cases: AtomicU64,
    episode: AtomicU64,
    ended: AtomicBool,
}

/// What was done so far, and what is being done.
#[derive(Default)]
pub struct Tally {
    kinds: BTreeMap<&'static str, Kind>,
    now: &'static str,
    input: Vec<u8>,
    case_began: Duration,
    patience: u32,
    progress: Arc<Progress>,
}

impl Tally {
    /// A case of a kind begins, with the bytes that a failure should print.
    pub fn case(&mut self, kind: &'static str, input: impl FnOnce() -> Vec<u8>) {
        self.now = kind;
        self.input = input();
        self.case_began = cpu_time(ClockId::ThreadCPUTime);
        self.progress.cases.fetch_add(1, Relaxed);
    }

    /// The case ended after `steps`; `complete` says whether it went as far as it should.
    ///
    /// # Panics
    /// When it took longer than a case may.
    pub fn done(&mut self, steps: u64, complete: bool) {
        let kind = self.kinds.entry(self.now).or_default();
        kind.cases += 1;
        kind.steps += steps;
        kind.complete += u64::from(complete);
        let took = cpu_time(ClockId::ThreadCPUTime) - self.case_began;
        let limit = MOST_CPU_TIME * self.patience * (1 + steps / 10_000) as u32;
        assert!(took < limit, "{steps} steps took {took:?} of CPU time");
    }

    /// All kinds together.
    pub fn total(&self) -> Kind {
        self.kinds.values().fold(Kind::default(), |sum, kind| Kind {
            cases: sum.cases + kind.cases,
            steps: sum.steps + kind.steps,
            complete: sum.complete + kind.complete,
        })
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, Kind { cases, steps, complete }) in &self.kinds {
            writeln!(f, "  {name:<24} {cases:>10} cases {steps:>14} steps {complete:>10} complete")?;
        }
        let Kind { cases, steps, complete } = self.total();
        write!(f, "  {:<24} {cases:>10} cases {steps:>14} steps {complete:>10} complete", "all")
    }
}

/// CPU time of a thread or process: other load does not count.
fn cpu_time(clock: ClockId) -> Duration {
    let now = clock_gettime(clock);
    Duration::new(now.tv_sec.unsigned_abs(), now.tv_nsec.unsigned_abs() as u32)
}

/// Aborts the process when a case does not end.
fn watch(progress: Arc<Progress>, seed: u64) {
    std::thread::spawn(move || {
        let used = || cpu_time(ClockId::ProcessCPUTime);
        let mut last = (0, used());
        while !progress.ended.load(Relaxed) {
            std::thread::sleep(Duration::from_secs(1));
            let cases = progress.cases.load(Relaxed);
            if cases != last.0 {
                last = (cases, used());
            } else if used() - last.1 > HANG {
                let episode = progress.episode.load(Relaxed);
                eprintln!(
                    "hang: a case has not ended for {HANG:?}; again with --seed {seed} --first {episode} --episodes 1"
                );
                std::process::abort();
            }
        }
    });
}

/// Runs a plan.
///
/// # Errors
/// The first failure, with what it takes to see it again.
pub fn run(fuzzer: &dyn Episode, plan: Plan) -> anyhow::Result<Tally> {
    let mut tally = Tally { patience: plan.patience, ..Tally::default() };
    let progress = tally.progress.clone();
    watch(progress.clone(), plan.seed);
    let began = Instant::now();
    let mut reported = began;
    for number in plan.first..plan.first.saturating_add(plan.episodes) {
        if began.elapsed() >= plan.time {
            break;
        }
        progress.episode.store(number, Relaxed);
        let rng = Rng::of(plan.seed, number);
        let outcome = catch_unwind(AssertUnwindSafe(|| fuzzer.run(&rng, number, &mut tally)));
        let failure = match outcome {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(format!("{error:#}")),
            Err(_) => Some("panic (message above)".into()),
        };
        if let Some(failure) = failure {
            progress.ended.store(true, Relaxed);
            let hex: String = tally.input.iter().map(|byte| format!("{byte:02x}")).collect();
            anyhow::bail!(
                "{failure}\nin a case of '{}'; again with --seed {} --first {number} --episodes 1\nbytes: {hex}",
                tally.now,
                plan.seed
            );
        }
        if !plan.report_every.is_zero() && reported.elapsed() >= plan.report_every {
            reported = Instant::now();
            let Kind { cases, steps, .. } = tally.total();
            println!("{:>6} s: episode {number}, {cases} cases, {steps} steps", began.elapsed().as_secs());
        }
    }
    progress.ended.store(true, Relaxed);
    Ok(tally)
}
