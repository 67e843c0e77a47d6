//! Two runs compared from place to place.
//!
//! Not responsible for: finding the instruction (`narrow`).

use crate::between::narrow_between;
use crate::contradiction::Contradiction;
use crate::error::Error;
use crate::finding::Finding;
use crate::lane::{Arrival, Lane, Side, agree};
use crate::narrow::{Parting, narrow};
use crate::place::{Back, Trail};
use crate::subject::Subject;
use crate::unlike::Excuse;
use gemel_machine::At;
use gemel_replay::Conclusion;

/// The longest first piece of an interval.
const FIRST_PIECE: u64 = 1024;
/// A piece is at most this part of what lies before it in the interval, so that going through it again costs little beside what
/// was spent already.
const PART: u64 = 16;

/// How to compare.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Counts from one beginning of the judge to the next. The machines are compared many times in between, and where they
    /// differ, what was executed to name the step is at most three times what the interval has.
    pub interval: u64,
    /// Compare one interval in so many.
    pub sample: u64,
    /// The second machine begins each interval where the first one is, with nothing cached, and so judges that interval alone;
    /// otherwise it runs along its own log from the beginning.
    pub judge: bool,
    /// Where to stop, for a log that goes on further.
    pub end: u64,
    /// The two run on unlike CPUs: who knows what these may leave different.
    pub excuse: Option<Excuse>,
}

impl Default for Plan {
    fn default() -> Self {
        Self { interval: 1 << 28, sample: 1, judge: true, end: u64::MAX, excuse: None }
    }
}

/// Two runs that are the same.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Agreement {
    /// Where the runs end.
    pub at: At,
    /// How their logs end; `None` where [`Plan::end`] was reached first.
    pub conclusion: Option<Conclusion>,
    /// Counts that both machines executed.
    pub compared: u64,
}

/// What came of a comparison.
#[derive(Debug)]
pub enum Outcome {
    /// No difference.
    Agree(Agreement),
    /// Both machines do the same, and it is not what the log says.
    LogDiffers(Box<Contradiction>),
    /// The machines part.
    Part(Box<Finding>),
}

/// Somebody who follows a comparison from interval to interval.
pub trait Watcher {
    /// Whether the interval that begins here is to be compared, if [`Plan::sample`] does not leave it out.
    fn wants(&mut self, _at: At) -> bool {
        true
    }

    /// An interval is over, and nothing differs if it was compared.
    ///
    /// # Errors
    /// The reason to end the comparison.
    fn passed(&mut self, at: At, compared: bool) -> Result<(), Error>;
}

/// Hears how far the comparison is.
impl<F: FnMut(At) -> Result<(), Error>> Watcher for F {
    fn passed(&mut self, at: At, _compared: bool) -> Result<(), Error> {
        self(at)
    }
}

/// Compares two subjects.
///
/// # Errors
/// See [`Error`]. A difference is not one.
pub fn compare(
    a: &dyn Subject,
    b: &dyn Subject,
    plan: Plan,
    watcher: &mut dyn Watcher,
) -> Result<Outcome, Error> {
    let mut lanes = (Lane::start(a, Side::First)?, Lane::start(b, Side::Second)?);
    let mut trail = Trail::begin(&mut lanes, plan.judge)?;
    if !plan.judge && !agree((&mut lanes.0, &Arrival::Boundary), (&mut lanes.1, &Arrival::Boundary))? {
        // Never the same: the first step stands for it.
        let first = trail.last.at.position.count + 1;
        let arrivals = (lanes.0.run_to(first)?, lanes.1.run_to(first)?);
        return Ok(Outcome::Part(Box::new(Finding::of(Parting { lanes, arrivals, trail }, 0, plan.excuse)?)));
    }
    let mut compared = 0;
    for number in 0u64.. {
        let start = lanes.0.at().position.count;
        let target = start.saturating_add(plan.interval).min(plan.end);
        let sampled = !plan.judge || number.is_multiple_of(plan.sample.max(1)) && watcher.wants(lanes.0.at());
        let arrival = if sampled {
            trail.mark(&mut lanes, plan.judge)?;
            if plan.judge {
                lanes.1.go_to(&trail, Back::Last)?;
            }
            let before = lanes.0.executed + lanes.1.executed;
            match interval(&mut lanes, &mut trail, plan.interval, target)? {
                Interval::Agrees(arrival) => arrival,
                Interval::Differs { reached } => {
                    let mut parting = narrow(lanes, trail, reached)?;
                    // A step of such machines is all that lies between two exits.
                    if plan.judge && parting.trail.last.state.counts_exits() {
                        parting = narrow_between(parting)?;
                    }
                    return Ok(Outcome::Part(Box::new(Finding::of(parting, before, plan.excuse)?)));
                }
            }
        } else {
            lanes.0.run_to(target)?
        };
        let at = lanes.0.at();
        if sampled {
            compared += at.position.count - start;
        }
        if let Arrival::Diverged(diverged) = arrival {
            return Ok(Outcome::LogDiffers(Box::new(Contradiction::of(*diverged, lanes.0, &trail)?)));
        }
        watcher.passed(at, sampled)?;
        match arrival {
            Arrival::End(conclusion) => {
                return Ok(Outcome::Agree(Agreement { at, conclusion: Some(conclusion), compared }));
            }
            Arrival::Boundary if target == plan.end => {
                return Ok(Outcome::Agree(Agreement { at, conclusion: None, compared }));
            }
            Arrival::Boundary | Arrival::Diverged(_) => {}
        }
    }
    unreachable!("the loop has no end of its own")
}

enum Interval {
    /// Both came there, and are the same.
    Agrees(Arrival),
    /// They differ, at this count at the latest.
    Differs { reached: u64 },
}

/// Takes both lanes through an interval, piece by piece.
fn interval(
    lanes: &mut (Lane<'_>, Lane<'_>),
    trail: &mut Trail,
    length: u64,
    target: u64,
) -> Result<Interval, Error> {
    let first = (length / 64).clamp(1, FIRST_PIECE);
    let start = trail.marked.at.position.count;
    loop {
        let from = trail.last.at.position.count;
        let to = from.saturating_add(first.max((from - start) / PART)).min(target);
        let arrivals = (lanes.0.run_to(to)?, lanes.1.run_to(to)?);
        if !agree((&mut lanes.0, &arrivals.0), (&mut lanes.1, &arrivals.1))? {
            let reached = lanes.0.at().position.count.max(lanes.1.at().position.count);
            return Ok(Interval::Differs { reached });
        }
        if arrivals.0 != Arrival::Boundary || to == target {
            return Ok(Interval::Agrees(arrivals.0));
        }
        trail.advance(lanes)?;
    }
}
