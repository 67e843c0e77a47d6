//! The way by breakpoint, between two counts that the guest reaches by itself.
//!
//! Not responsible for: the count, which the engine keeps, and which ends the run when the guest leaves.

use super::{Came, Guest, Return, Target, Way};
use gemel_machine::EngineError;

/// The way by breakpoint.
pub struct ByBreakpoint {
    /// Hits before the assistant takes over.
    most_hits: u32,
    target: Option<Target>,
    hits: u32,
}

impl ByBreakpoint {
    /// A way that tries `most_hits` boundaries for each target.
    pub fn new(most_hits: u32) -> Self {
        Self { most_hits, target: None, hits: 0 }
    }
}

impl Way for ByBreakpoint {
    fn fits(&mut self, guest: &mut dyn Guest, target: &Target) -> Result<bool, EngineError> {
        Ok(guest.rip()? == target.rip)
    }

    fn next(&mut self, guest: &mut dyn Guest, target: &Target) -> Result<Came, EngineError> {
        if self.target != Some(*target) {
            (self.target, self.hits) = (Some(*target), 0);
        }
        if self.hits >= self.most_hits {
            return Ok(Came::Spent);
        }
        let breakpoint = Some(target.rip);
        // A breakpoint is a fault: where the guest stands on it, it hits again before anything is executed (SDM 3B 18.3.1.1, and KVM
        // does not set RF). And between the iterations of a REP it does not hit at all. A step does away with both.
        let mut returned =
            if guest.rip()? == target.rip { guest.step()? } else { guest.resume(breakpoint)? };
        loop {
            if returned == Return::Exit {
                return Ok(Came::Exit);
            }
            if guest.rip()? == target.rip {
                self.hits += 1;
                return Ok(Came::Here);
            }
            if returned == Return::Signal {
                return Ok(Came::Kicked);
            }
            returned = guest.resume(breakpoint)?;
        }
    }
}
