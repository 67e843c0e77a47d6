//! Two runs compared from checkpoint to checkpoint.
//!
//! Not responsible for: finding the instruction (`narrow`).

use crate::error::Error;
use crate::finding::Finding;
use crate::lane::{Arrival, Checkpoint, Lane, agree};
use crate::narrow::narrow;
use crate::subject::Subject;
use gemel_machine::At;
use gemel_replay::{Conclusion, Diverged};
use std::rc::Rc;

/// How to compare.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Instructions from one checkpoint to the next. A snapshot of the machine is taken at each, so that a
    /// difference costs at most this much to find.
    pub interval: u64,
    /// Compare one interval in so many.
    pub sample: u64,
    /// The second machine begins each interval at the first one's checkpoint, and so judges that interval alone;
    /// otherwise it runs along its own log from the beginning.
    pub judge: bool,
    /// Where to stop, for a log that goes on further.
    pub end: u64,
}

impl Default for Plan {
    fn default() -> Self {
        Self { interval: 1 << 28, sample: 1, judge: true, end: u64::MAX }
    }
}

/// Two runs that are the same.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Agreement {
    /// Where the runs end.
    pub at: At,
    /// How their logs end; `None` where [`Plan::end`] was reached first.
    pub conclusion: Option<Conclusion>,
    /// Instructions that both machines executed.
    pub compared: u64,
}

/// What came of a comparison.
#[derive(Debug)]
pub enum Outcome {
    /// No difference.
    Agree(Agreement),
    /// Both machines do the same, and it is not what the log says.
    LogDiffers(Box<Diverged>),
    /// The machines part.
    Part(Box<Finding>),
}

/// Compares two subjects. `tell` hears how far both are, after every interval; an error from it ends the comparison.
///
/// # Errors
/// See [`Error`]. A difference is not one.
pub fn compare(
    a: &dyn Subject,
    b: &dyn Subject,
    plan: Plan,
    mut tell: impl FnMut(At) -> Result<(), Error>,
) -> Result<Outcome, Error> {
    let mut lanes = (Lane::start(a)?, Lane::start(b)?);
    let mut compared = 0;
    for number in 0u64.. {
        let start = lanes.0.at().position.count;
        let target = start.saturating_add(plan.interval).min(plan.end);
        let sampled = !plan.judge || number.is_multiple_of(plan.sample.max(1));
        let from = if sampled { Some(checkpoints(&mut lanes, plan)?) } else { None };
        let arrival = lanes.0.run_to(target)?;
        if let Some(from) = from {
            if plan.judge {
                lanes.1.go_to(&from.1)?;
            }
            let other = lanes.1.run_to(target)?;
            if !agree((&mut lanes.0, &arrival), (&mut lanes.1, &other))? {
                let reached = lanes.0.at().position.count.max(lanes.1.at().position.count);
                let since = Rc::clone(&from.0);
                let parting = narrow(lanes, from, reached)?;
                return Ok(Outcome::Part(Box::new(Finding::of(parting, &since)?)));
            }
            compared += lanes.0.at().position.count - start;
        }
        let at = lanes.0.at();
        tell(at)?;
        match arrival {
            Arrival::Diverged(diverged) => return Ok(Outcome::LogDiffers(diverged)),
            Arrival::End(conclusion) => {
                return Ok(Outcome::Agree(Agreement { at, conclusion: Some(conclusion), compared }));
            }
            Arrival::Boundary if target == plan.end => {
                return Ok(Outcome::Agree(Agreement { at, conclusion: None, compared }));
            }
            Arrival::Boundary => {}
        }
    }
    unreachable!("the loop has no end of its own")
}

/// Where an interval begins, for each machine.
fn checkpoints(
    lanes: &mut (Lane<'_>, Lane<'_>),
    plan: Plan,
) -> Result<(Rc<Checkpoint>, Rc<Checkpoint>), Error> {
    let first = Rc::new(lanes.0.checkpoint()?);
    let second = if plan.judge { Rc::clone(&first) } else { Rc::new(lanes.1.checkpoint()?) };
    Ok((first, second))
}
