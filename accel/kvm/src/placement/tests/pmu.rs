//! A simulated PMU with the faults that real ones have.

use super::chance::Chance;
use crate::placement::Counter;
use gemel_machine::EngineError;
use std::cell::RefCell;
use std::rc::Rc;

/// How the PMU and the host behave.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Faults {
    /// The interrupt comes up to so many branches late.
    pub(super) skid: u64,
    /// One in so many interrupts never comes.
    pub(super) lost: u64,
    /// One in so many instructions is followed by a host interrupt that makes the PMU count branches again.
    pub(super) spurious: u64,
}

/// The PMU's registers. The CPU has them too.
pub(super) struct Pmu {
    faults: Faults,
    chance: Chance,
    count: u64,
    armed: Option<u64>,
    /// An interrupt is under way: how many branches and how many instructions it is still off.
    under_way: Option<(u64, u64)>,
    overflowed: bool,
}

impl Pmu {
    pub(super) fn new(faults: Faults, seed: u64) -> Rc<RefCell<Self>> {
        let chance = Chance(seed ^ 0x706d_7500);
        Rc::new(RefCell::new(Self {
            faults,
            chance,
            count: 0,
            armed: None,
            under_way: None,
            overflowed: false,
        }))
    }

    /// An instruction retired. Whether the guest is interrupted at the boundary behind it.
    pub(super) fn retired(&mut self, branch: bool) -> bool {
        if let Some((branches, instructions)) = &mut self.under_way {
            *branches = branches.saturating_sub(u64::from(branch));
            *instructions = instructions.saturating_sub(1);
        }
        self.count += u64::from(branch);
        if self.chance.once_in(self.faults.spurious) {
            self.count += 1 + self.chance.below(3);
        }
        if self.armed.is_some_and(|at| self.count >= at) {
            self.armed = None;
            if !self.chance.once_in(self.faults.lost) {
                let skid = self.chance.below(self.faults.skid + 1);
                self.under_way = Some((skid, 8 * (skid + 1)));
            }
        }
        if self.under_way.is_some_and(|(branches, instructions)| branches == 0 || instructions == 0) {
            self.under_way = None;
            self.overflowed = true;
            return true;
        }
        false
    }
}

/// The counter's side of it.
pub(super) struct Simulated(pub(super) Rc<RefCell<Pmu>>);

impl Counter for Simulated {
    fn read(&mut self) -> Result<u64, EngineError> {
        Ok(self.0.borrow().count)
    }

    fn arm(&mut self, after: u64) -> Result<(), EngineError> {
        assert_ne!(after, 0);
        let mut pmu = self.0.borrow_mut();
        (pmu.armed, pmu.overflowed) = (Some(pmu.count + after), false);
        Ok(())
    }

    /// An interrupt that is under way may come all the same.
    fn disarm(&mut self) -> Result<(), EngineError> {
        let mut pmu = self.0.borrow_mut();
        pmu.armed = None;
        if !pmu.chance.once_in(4) {
            pmu.under_way = None;
        }
        Ok(())
    }

    fn overflowed(&self) -> bool {
        self.0.borrow().overflowed
    }
}
