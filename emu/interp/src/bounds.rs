//! Where a run ends, and what positions count.
//!
//! Not responsible for: the loop that obeys (`exec`).
//!
//! Inside, the interpreter counts steps: instructions, REP iterations, deliveries. A machine that counts instructions counts the
//! same. For one that counts exits ([`CountKind::Exits`]), as a hypervisor does, exits are counted beside them, and the stop is
//! made known to the loop as a number of steps once it is reached.

use gemel_machine::{Aim, CountKind};

/// After so many steps a run that counts exits comes back, so that the world is asked now and then: 0.3 ms. It does so at the next
/// exit, whose boundary the count names, and after as many steps again where it is.
const QUANTUM: u64 = 1 << 16;

/// The bounds of a run.
pub(crate) struct Bounds {
    /// The machine's stop, in the unit of positions.
    wanted: u64,
    aim: Aim,
    /// The step at which this run began.
    began: u64,
    /// The step at which to look at the aim.
    aim_end: u64,
    /// From this step on an exit ends the run.
    lenient: u64,
    /// `None`: positions count steps.
    exits: Option<Exits>,
    /// What is to be added to the step for all steps ever made: states that were taken on began theirs elsewhere. Modulo 2^64.
    before: u64,
}

struct Exits {
    count: u64,
    /// The step that the last one was counted for: an instruction counts once, however many accesses it makes.
    step: u64,
}

/// No exit was counted yet.
const NO_STEP: u64 = u64::MAX;

impl Exits {
    /// Whether the last exit is not before `step`.
    fn since(&self, step: u64) -> bool {
        self.step >= step && self.step != NO_STEP
    }
}

impl Bounds {
    pub(crate) fn new() -> Self {
        Self {
            wanted: 0,
            aim: Aim::NONE,
            began: 0,
            aim_end: u64::MAX,
            lenient: u64::MAX,
            exits: None,
            before: 0,
        }
    }

    /// What positions count from now on.
    pub(crate) fn count(&mut self, kind: CountKind) {
        self.exits = (kind != CountKind::Instructions).then_some(Exits { count: 0, step: NO_STEP });
    }

    /// Whether positions count exits, so that time is sampled.
    pub(crate) fn counts_exits(&self) -> bool {
        self.exits.is_some()
    }

    /// Takes on a position's count, after `steps` steps from the one before. Returns the steps to go on from.
    pub(crate) fn restart(&mut self, count: u64, steps: u64) -> u64 {
        let start = match &mut self.exits {
            None => count,
            Some(exits) => {
                *exits = Exits { count, step: NO_STEP };
                0
            }
        };
        self.before = self.made(steps).wrapping_sub(start);
        start
    }

    /// All steps ever made.
    pub(crate) fn made(&self, steps: u64) -> u64 {
        self.before.wrapping_add(steps)
    }

    /// The instruction at `step` leaves the guest.
    #[inline]
    pub(crate) fn note_exit(&mut self, step: u64) {
        if let Some(exits) = &mut self.exits
            && exits.step != step
        {
            *exits = Exits { count: exits.count + 1, step };
        }
    }

    /// The count of the boundary after `steps` steps.
    #[inline]
    pub(crate) fn counted(&self, steps: u64) -> u64 {
        self.exits.as_ref().map_or(steps, |exits| exits.count)
    }

    /// The count of the boundary before the instruction that runs as step `step`.
    #[inline]
    pub(crate) fn counted_before(&self, step: u64) -> u64 {
        self.exits.as_ref().map_or(step, |exits| exits.count - u64::from(exits.step == step))
    }

    pub(crate) fn set_aim(&mut self, aim: Aim) {
        self.aim = aim;
    }

    /// A run begins. The aim holds for this one.
    pub(crate) fn begin(&mut self, steps: u64) {
        let most = if self.exits.is_some() { self.aim.steps.min(2 * QUANTUM) } else { self.aim.steps };
        self.aim.steps = steps.saturating_add(most);
        self.lenient = steps.saturating_add(QUANTUM);
        self.began = steps;
        self.aim_end = self.aim.steps;
    }

    /// The address that the run is to end at, once it has begun.
    #[inline]
    pub(crate) fn address(&self) -> Option<u64> {
        self.aim.rip
    }

    /// Takes on the machine's stop. Returns the step at which the loop must look.
    #[inline]
    pub(crate) fn heed(&mut self, stop: u64) -> u64 {
        self.wanted = stop;
        match &self.exits {
            None => stop.min(self.aim_end),
            Some(exits) if exits.count >= stop || exits.since(self.lenient) => 0,
            Some(_) => self.aim_end,
        }
    }

    /// The loop looks. Whether the machine's stop is reached, or an exit to come back at.
    pub(crate) fn reached(&self, steps: u64) -> bool {
        let left =
            self.exits.as_ref().is_some_and(|exits| exits.since(self.lenient) && exits.step + 1 == steps);
        left || self.counted(steps) >= self.wanted
    }

    /// The loop looks, and the machine's stop is not reached: the step at which to look again, or `None` at the aim. What
    /// runs next does not come to the aim's address within `clear` steps.
    pub(crate) fn next_look(&mut self, steps: u64, rip: u64, rcx: u64, clear: u64) -> Option<u64> {
        let there = self.aim.rip == Some(rip) && self.aim.rcx.is_none_or(|wanted| wanted == rcx);
        if steps >= self.aim.steps || (there && steps > self.began) {
            return None;
        }
        self.aim_end = self.aim.steps.min(steps.saturating_add(clear));
        Some(self.heed(self.wanted))
    }

    /// The run is over.
    pub(crate) fn end(&mut self) {
        (self.aim, self.aim_end) = (Aim::NONE, u64::MAX);
    }
}
