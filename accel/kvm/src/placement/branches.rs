//! The way by branches: to a number of retired conditional branches, and from there to an address.
//!
//! Not responsible for: what a branch is to the counter (`event`).
//!
//! Why a margin: the PMU's interrupt is no fault of the instruction that overflowed it. It comes when the pipeline, the interrupt
//! controller and the host's kernel get to it, and the guest retires more branches until then. So it is asked for `margin` counts
//! early. Too small a margin shows as [`Passed::Overshot`], never as a wrong place: what to do about it is a greater margin (every
//! doubling costs some hundred breakpoint hits or thousand steps more for each event) or going the way again on the interpreter.

use super::{Came, Counter, Guest, Passed, Return, Target, Way};
use gemel_machine::EngineError;

/// Steps and hits near one target before the assistant takes over. On a vCPU each costs some microseconds, so this is a third of a
/// second; reached in a REP of many iterations, or with single steps after a great margin.
const MOST_LOOKS: u32 = 1 << 16;

/// The way by branches.
pub struct ByBranches<C> {
    counter: C,
    /// What positions counted when the counter read `from`.
    base: u64,
    from: u64,
    margin: u64,
    breakpoints: bool,
    pursuit: Pursuit,
}

/// What is remembered between two boundaries that fit the same target.
struct Pursuit {
    target: Option<Target>,
    looks: u32,
    /// Boundaries with the target's count were run over unseen: how late the counter's interrupt was.
    overshot: Option<u64>,
}

impl<C: Counter> ByBranches<C> {
    /// A way by `counter`, whose interrupts come at most `margin` counts late; `breakpoints`: whether the guest obeys them at every
    /// privilege level.
    pub fn new(counter: C, margin: u64, breakpoints: bool) -> Self {
        let pursuit = Pursuit { target: None, looks: 0, overshot: None };
        Self { counter, base: 0, from: 0, margin, breakpoints, pursuit }
    }

    /// The count of the boundary where the guest is.
    ///
    /// # Errors
    /// Host trouble only.
    pub fn count(&mut self) -> Result<u64, EngineError> {
        Ok(self.base + (self.counter.read()? - self.from))
    }

    /// The boundary where the guest is has this count: a state was taken on, or the assistant went some of the way.
    ///
    /// # Errors
    /// Host trouble only.
    pub fn set_count(&mut self, count: u64) -> Result<(), EngineError> {
        (self.base, self.from) = (count, self.counter.read()?);
        Ok(())
    }

    /// What can be said here without going on.
    fn look(&mut self, guest: &mut dyn Guest, target: &Target) -> Result<Option<Came>, EngineError> {
        let count = self.count()?;
        if count > target.count {
            let passed = match self.pursuit.overshot {
                Some(late) => Passed::Overshot { margin: self.margin, late },
                None => Passed::NotThere,
            };
            return Ok(Some(Came::Passed(passed)));
        }
        Ok((count == target.count && guest.rip()? == target.rip).then_some(Came::Here))
    }

    /// Lets the guest run freely to the margin before the target. `None`: the rest of the way is to be gone with care.
    fn run_up(&mut self, guest: &mut dyn Guest, target: &Target) -> Result<Option<Came>, EngineError> {
        loop {
            let due = target.count.saturating_sub(self.margin);
            let ahead = due.saturating_sub(self.count()?);
            if ahead == 0 {
                return Ok(None);
            }
            self.counter.arm(ahead)?;
            let returned = guest.resume(None)?;
            self.counter.disarm()?;
            let count = self.count()?;
            if count >= target.count {
                self.pursuit.overshot = Some(count - due);
            }
            if returned == Return::Exit {
                return Ok(Some(Came::Exit));
            }
            if let Some(came) = self.look(guest, target)? {
                return Ok(Some(came));
            }
            if !self.counter.overflowed() && count < due {
                return Ok(Some(Came::Kicked));
            }
        }
    }

    /// From boundary to boundary, or from hit to hit.
    fn close_in(&mut self, guest: &mut dyn Guest, target: &Target) -> Result<Came, EngineError> {
        // A step gets the guest off the address where it stands; then a breakpoint can be waited for.
        let mut stepping = true;
        loop {
            self.pursuit.looks += 1;
            if self.pursuit.looks > MOST_LOOKS {
                return Ok(Came::Spent);
            }
            let returned = if stepping {
                guest.step()?
            } else {
                // For the first branch too many, so that a guest which never comes to the address comes back.
                let left = target.count.saturating_sub(self.count()?);
                self.counter.arm(left + 1)?;
                let returned = guest.resume(Some(target.rip))?;
                self.counter.disarm()?;
                returned
            };
            if returned == Return::Exit {
                return Ok(Came::Exit);
            }
            if let Some(came) = self.look(guest, target)? {
                return Ok(came);
            }
            if returned == Return::Signal && (stepping || !self.counter.overflowed()) {
                return Ok(Came::Kicked);
            }
            stepping = !self.breakpoints || guest.rip()? == target.rip;
        }
    }
}

impl<C: Counter> Way for ByBranches<C> {
    fn fits(&mut self, guest: &mut dyn Guest, target: &Target) -> Result<bool, EngineError> {
        Ok(self.look(guest, target)? == Some(Came::Here))
    }

    fn next(&mut self, guest: &mut dyn Guest, target: &Target) -> Result<Came, EngineError> {
        if self.pursuit.target != Some(*target) {
            self.pursuit = Pursuit { target: Some(*target), looks: 0, overshot: None };
        }
        if self.count()? > target.count
            && let Some(came) = self.look(guest, target)?
        {
            return Ok(came);
        }
        match self.run_up(guest, target)? {
            Some(came) => Ok(came),
            None => self.close_in(guest, target),
        }
    }
}
