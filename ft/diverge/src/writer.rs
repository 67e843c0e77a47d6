//! Which instruction changed a byte last.
//!
//! Not responsible for: stores that write the value that is there already; those leave no trace in the state.

use crate::error::Error;
use crate::finding::{Instruction, LastChange};
use crate::lane::Lane;
use crate::place::{Back, Trail};

/// Places looked at on each round; every round narrows the search by this factor.
const SLICES: u64 = 64;

fn values(lane: &Lane<'_>, addresses: &[u64]) -> Vec<u8> {
    let value = |address: &u64| lane.machine.ram().read_array(*address).map_or(0, |[byte]: [u8; 1]| byte);
    addresses.iter().map(value).collect()
}

/// The last piece, one of [`SLICES`] up to `until`, at whose end each byte has another value than at its beginning.
fn last_pieces(lane: &mut Lane<'_>, until: u64, addresses: &[u64]) -> Result<Vec<Option<(u64, u64)>>, Error> {
    let mut before = lane.at().position.count;
    let slice = until.saturating_sub(before).div_ceil(SLICES);
    let (mut known, mut pieces) = (values(lane, addresses), vec![None; addresses.len()]);
    while before < until {
        let after = (before + slice).min(until);
        lane.run_to(after)?;
        let now = values(lane, addresses);
        for (piece, _) in pieces.iter_mut().zip(known.iter().zip(&now)).filter(|(_, (x, y))| x != y) {
            *piece = Some((before, after));
        }
        (before, known) = (after, now);
    }
    Ok(pieces)
}

/// For each byte the last step before `until` after which it has another value than before it, as far as can be seen from
/// [`SLICES`] places a round; `None` if it has the same value at all of them. Looked for from the trail's mark on.
pub(crate) fn last_changes(
    lane: &mut Lane<'_>,
    trail: &Trail,
    until: u64,
    addresses: &[u64],
) -> Result<Vec<Option<LastChange>>, Error> {
    let mut changes = vec![None; addresses.len()];
    if addresses.is_empty() {
        return Ok(changes);
    }
    lane.go_to(trail, Back::Marked)?;
    let pieces = last_pieces(lane, until, addresses)?;
    let mut found: Vec<_> =
        pieces.into_iter().enumerate().filter_map(|(n, piece)| Some((piece?, n))).collect();
    // One way through the interval for all of them.
    found.sort_unstable();
    lane.go_to(trail, Back::Marked)?;
    for ((before, after), n) in found {
        if lane.at().position.count < before {
            lane.run_to(before)?;
        }
        changes[n] = within(lane, after, addresses[n])?;
    }
    Ok(changes)
}

/// The last change between where the lane is and `end`; the lane is then where it was.
fn within(lane: &mut Lane<'_>, mut end: u64, address: u64) -> Result<Option<LastChange>, Error> {
    let (start, bookmark) = (lane.machine.snapshot()?, lane.bookmark()?);
    let mut change = None;
    while let Some((before, after)) = last_pieces(lane, end, &[address])?[0] {
        lane.go_to_snapshot(&start, &bookmark)?;
        if lane.at().position.count < before {
            lane.run_to(before)?;
        }
        if after - before <= 1 {
            let (at, cpu) = (lane.at(), lane.cpu()?);
            change = Some(LastChange { at, instruction: Instruction::at(lane.machine.ram(), &cpu) });
            break;
        }
        end = after;
    }
    lane.go_to_snapshot(&start, &bookmark)?;
    Ok(change)
}
