//! Which instruction changed a byte last.
//!
//! Not responsible for: stores that write the value that is there already; those leave no trace in the state.

use crate::error::Error;
use crate::finding::{Instruction, LastChange};
use crate::lane::{Checkpoint, Lane};

/// Places looked at on each round; every round narrows the search by this factor.
const SLICES: u64 = 64;

/// The last step between a checkpoint and a count after which a byte has another value than before it, as far as can be
/// seen from [`SLICES`] places a round; `None` if it has the same value at all of them.
pub(crate) fn last_change(
    lane: &mut Lane<'_>,
    since: &Checkpoint,
    until: u64,
    address: u64,
) -> Result<Option<LastChange>, Error> {
    let value = |lane: &Lane<'_>| lane.machine.ram().read_array(address).map_or(0, |[byte]: [u8; 1]| byte);
    lane.go_to(since)?;
    let mut end = until;
    loop {
        let start = lane.checkpoint()?;
        let from = start.at.position.count;
        if end <= from {
            return Ok(None);
        }
        let slice = (end - from).div_ceil(SLICES);
        let (mut before, mut known, mut change) = (from, value(lane), None);
        while before < end {
            let after = (before + slice).min(end);
            lane.run_to(after)?;
            let now = value(lane);
            if now != known {
                change = Some((before, after));
            }
            (before, known) = (after, now);
        }
        let Some((before, after)) = change else { return Ok(None) };
        lane.go_to(&start)?;
        if before > from {
            lane.run_to(before)?;
        }
        if after - before <= 1 {
            let at = lane.at();
            let cpu = lane.cpu()?;
            return Ok(Some(LastChange { at, instruction: Instruction::at(lane.machine.ram(), &cpu) }));
        }
        end = after;
    }
}
