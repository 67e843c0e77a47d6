//! Bringing the guest to the boundary that an event needs.
//!
//! Not responsible for: what the event is; whether a boundary is the one that was meant (the machine compares the whole state
//! there, CPU and RAM, and asks for the next one if it is another); interpreting (that is the assistant's).
//!
//! One contract, [`Way`]: from boundary to boundary that could be the one. A way never jumps over such a boundary in silence: either
//! it stops there, or it says that it came past. Three ways:
//!
//! * [`ByBranches`]: positions count the conditional branches that the guest retired ([`Counter`], a PMU). The counter's interrupt is
//!   asked for a margin early, because it comes late; the rest of the way goes by breakpoint or in single steps.
//! * [`ByBreakpoint`]: positions count exits, which end a run by themselves, and between two of them a boundary is known by
//!   its address: a hardware breakpoint there.
//! * [`ByStep`]: every boundary is looked at. Microseconds for each: for tests and short distances.
//!
//! [`Means::choose`] is the one place that says which way is taken, and when the assistant interprets instead.
//!
//! What rr does for a process (in its session code, "Why a skid region?"), with two differences: the whole guest is the process, so
//! ring 0 is counted too; and a boundary is compared by all of its state, not by registers alone, so that a loop which changes nothing
//! but memory cannot pass for an earlier or later round of itself.

mod branches;
mod breakpoint;
mod choice;
mod counter;
mod event;
mod perf;
mod skid;
mod step;
#[cfg(test)]
mod tests;

pub use branches::ByBranches;
pub use breakpoint::ByBreakpoint;
pub use choice::{Choice, Means};
pub use counter::Counter;
pub(crate) use event::family_and_model;
pub use event::{BranchEvent, Unsuitable};
pub use perf::PerfCounter;
pub use skid::Skid;
pub use step::ByStep;

use gemel_machine::EngineError;

/// What a way needs of the vCPU.
pub trait Guest {
    /// RIP at this boundary.
    ///
    /// # Errors
    /// Host trouble only.
    fn rip(&mut self) -> Result<u64, EngineError>;

    /// Lets the guest run until it leaves by itself, a signal comes, or it is about to execute the instruction at `breakpoint`. One at
    /// the very instruction where the guest stands may end the run at once.
    ///
    /// # Errors
    /// Host trouble only.
    fn resume(&mut self, breakpoint: Option<u64>) -> Result<Return, EngineError>;

    /// Lets the guest make one step: an instruction, a REP iteration or a delivery.
    ///
    /// # Errors
    /// Host trouble only.
    fn step(&mut self) -> Result<Return, EngineError>;
}

/// Why the vCPU came back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Return {
    /// The step is made, or the breakpoint hit.
    Boundary,
    /// The guest left by itself: its access, MSR or HLT has to be served.
    Exit,
    /// A signal, the counter's or another. The guest may have gone on or not.
    Signal,
}

/// Boundaries that could be the one an event needs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Target {
    /// The count there, in the unit of the machine's positions.
    pub count: u64,
    /// RIP there.
    pub rip: u64,
}

/// How a way came back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Came {
    /// The guest is at a boundary that fits.
    Here,
    /// The guest left by itself. Its exit is to be served; the boundary behind it has not been looked at ([`Way::fits`]).
    Exit,
    /// A signal that was not the counter's. The boundary here does not fit.
    Kicked,
    /// The way has spent what it may: the assistant is to go on from here. The boundary here does not fit, or was already shown.
    Spent,
    /// The target lies behind.
    Passed(Passed),
}

/// How a target came to lie behind.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Passed {
    /// The counter's interrupt came too late, or not at all, and the guest ran over boundaries that were not looked at. Says nothing
    /// about the run, only that this host needs a greater margin, or cannot place events by its counter.
    Overshot {
        /// How early the interrupt was asked for, in counts.
        margin: u64,
        /// How many counts after that the guest came back.
        late: u64,
    },
    /// Every boundary with the target's count was looked at, and the one that was meant is not among them: the run is another one, or
    /// the counter counted what the guest did not do.
    NotThere,
}

/// A way to get to a boundary.
pub trait Way {
    /// Whether the boundary where the guest is fits.
    ///
    /// # Errors
    /// Host trouble only.
    fn fits(&mut self, guest: &mut dyn Guest, target: &Target) -> Result<bool, EngineError>;

    /// Brings the guest to the next boundary that fits, at least one step on. After a signal that hindered the first step it may be
    /// the same boundary again.
    ///
    /// # Errors
    /// Host trouble only.
    fn next(&mut self, guest: &mut dyn Guest, target: &Target) -> Result<Came, EngineError>;
}
