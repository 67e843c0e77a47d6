//! From a piece of the run at whose end two machines differ to one instruction.
//!
//! Not responsible for: describing what differs (`finding`).

use crate::error::Error;
use crate::lane::{Arrival, Lane, agree};
use crate::place::{Back, Trail};

/// Two machines one step after they were the same for the last time.
pub(crate) struct Parting<'s> {
    /// Both lanes, after the step.
    pub(crate) lanes: (Lane<'s>, Lane<'s>),
    /// How the step ended for each.
    pub(crate) arrivals: (Arrival, Arrival),
    /// The last place is the one before the step.
    pub(crate) trail: Trail,
}

/// Halves the piece until one step is left. Both lanes are the same at the trail's last place and differ once they are at
/// `reached`.
///
/// States that differ can become the same again (a wrong flag that the next instruction overwrites). What is found
/// is a step before which the states are the same and after which they differ, and after which they do not become
/// the same again at any of the places looked at.
pub(crate) fn narrow<'s>(
    mut lanes: (Lane<'s>, Lane<'s>),
    mut trail: Trail,
    reached: u64,
) -> Result<Parting<'s>, Error> {
    lanes.0.go_to(&trail, Back::Last)?;
    lanes.1.go_to(&trail, Back::Last)?;
    let mut end = reached.max(trail.last.at.position.count + 1);
    loop {
        let start = trail.last.at.position.count;
        let single = end - start == 1;
        let middle = if single { end } else { start + (end - start) / 2 };
        let arrivals = (lanes.0.run_to(middle)?, lanes.1.run_to(middle)?);
        // The last step needs no comparison: that they differ after it is why we are here.
        if single {
            return Ok(Parting { lanes, arrivals, trail });
        }
        if arrivals.0 == Arrival::Boundary && agree((&mut lanes.0, &arrivals.0), (&mut lanes.1, &arrivals.1))?
        {
            trail.advance(&mut lanes)?;
            // A boundary can lie beyond the count that was asked for.
            end = end.max(trail.last.at.position.count + 1);
        } else {
            end = middle;
            lanes.0.go_to(&trail, Back::Last)?;
            lanes.1.go_to(&trail, Back::Last)?;
        }
    }
}
