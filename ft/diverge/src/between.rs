//! From one exit interval of machines that count exits to one instruction in it.
//!
//! Not responsible for: finding the interval (`narrow`).
//!
//! An engine that counts exits may be able to stop at nothing else. What it can always do is begin anywhere: it is put where the
//! judge, an interpreter, is after some steps, and runs to the exit. As long as the exit then differs, the fault lies there or later.

use crate::error::Error;
use crate::lane::{Arrival, Lane, agree};
use crate::narrow::Parting;
use crate::place::{Back, Trail};
use gemel_machine::Aim;

/// Steps that an interpreter makes in one run at most before it comes back by itself.
const STRETCH: u64 = 1 << 15;

/// Narrows a parting whose trail ends at the exit before it, with a second lane that judges the first one's log. Leaves it as it is
/// where beginning anew at that exit already makes no difference any more.
pub(crate) fn narrow_between(parting: Parting<'_>) -> Result<Parting<'_>, Error> {
    let Parting { mut lanes, mut trail, .. } = parting;
    let exit = trail.last.at.position.count + 1;
    // The piece that is left begins at the last place and has this many steps at most.
    let mut most = STRETCH;
    while begins_before(&mut lanes, &trail, most, exit)? {
        trail.advance(&mut lanes)?;
    }
    while most > 1 {
        let steps = most / 2;
        if begins_before(&mut lanes, &trail, steps, exit)? {
            trail.advance(&mut lanes)?;
            most -= steps;
        } else {
            most = steps;
        }
    }
    let arrivals = one_step(&mut lanes, &trail, exit)?;
    Ok(Parting { lanes, arrivals, trail })
}

/// Whether the fault lies behind so many steps: both lanes are then there, in the judge's state.
fn begins_before(
    lanes: &mut (Lane<'_>, Lane<'_>),
    trail: &Trail,
    steps: u64,
    exit: u64,
) -> Result<bool, Error> {
    let (engine, judge) = (&mut lanes.0, &mut lanes.1);
    judge.go_to(trail, Back::Last)?;
    judge.run_aimed(Aim { steps, ..Aim::NONE }, exit)?;
    if judge.at().position.count >= exit {
        return Ok(false);
    }
    engine.go_where(judge)?;
    let (state, bookmark) = (judge.machine.snapshot()?, judge.bookmark()?);
    let arrivals = (engine.run_to(exit)?, judge.run_to(exit)?);
    let differs = !agree((engine, &arrivals.0), (judge, &arrivals.1))?;
    engine.go_to_snapshot(&state, &bookmark)?;
    judge.go_to_snapshot(&state, &bookmark)?;
    lanes.0.machine.ram().digest();
    lanes.1.machine.ram().digest();
    Ok(differs)
}

/// Takes both one step on from the last place. An engine that shows nothing wrong there, because it stops between exits only with
/// somebody's help, goes on to the exit, and so does the judge.
fn one_step(lanes: &mut (Lane<'_>, Lane<'_>), trail: &Trail, exit: u64) -> Result<(Arrival, Arrival), Error> {
    let (engine, judge) = (&mut lanes.0, &mut lanes.1);
    judge.go_to(trail, Back::Last)?;
    engine.go_to(trail, Back::Last)?;
    let arrived = judge.run_aimed(Aim::STEP, exit)?;
    let after = judge.at().position;
    if after.count < exit {
        let arrival = engine.run_aimed(Aim { rip: Some(after.rip), ..Aim::NONE }, exit)?;
        if !agree((engine, &arrival), (judge, &arrived))? {
            return Ok((arrival, arrived));
        }
    }
    judge.go_to(trail, Back::Last)?;
    engine.go_to(trail, Back::Last)?;
    Ok((engine.run_to(exit)?, judge.run_to(exit)?))
}
