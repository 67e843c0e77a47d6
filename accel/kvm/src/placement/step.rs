//! The way in single steps.
//!
//! Not responsible for: speed.

use super::{Came, Guest, Return, Target, Way};
use gemel_machine::EngineError;

/// The way in single steps.
pub struct ByStep;

impl Way for ByStep {
    fn fits(&mut self, guest: &mut dyn Guest, target: &Target) -> Result<bool, EngineError> {
        Ok(guest.rip()? == target.rip)
    }

    fn next(&mut self, guest: &mut dyn Guest, target: &Target) -> Result<Came, EngineError> {
        loop {
            let returned = guest.step()?;
            if returned == Return::Exit {
                return Ok(Came::Exit);
            }
            if self.fits(guest, target)? {
                return Ok(Came::Here);
            }
            if returned == Return::Signal {
                return Ok(Came::Kicked);
            }
        }
    }
}
