//! The few findings that the engine needs itself: looked up in a passport, or probed for one by one in some tens of milliseconds.
//!
//! Not responsible for: what follows from them (`quirks`).

use super::facts::{Findings, Measured, Stopped};
use super::probes::Bench;
use super::stage::Mode;
use super::{host, modes, walks};
use std::path::Path;

/// A stop that user space can ask KVM for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stop {
    /// After one step.
    SingleStep,
    /// Before the instruction at an address.
    Breakpoint,
    /// As soon as an interrupt can be taken.
    Window,
}

/// What knows this host's KVM. What could not be found out is answered with no.
pub trait Answers {
    /// Whether the CPU itself executes code of this mode.
    fn is_native(&self, mode: Mode) -> bool;

    /// Whether a stop comes exactly where it should.
    fn is_exact(&self, stop: Stop, mode: Mode) -> bool;

    /// Whether the guest's walks find what user space has written into its page tables.
    fn heeds_outside_writes(&self, mode: Mode) -> bool;
}

impl Answers for Findings {
    fn is_native(&self, mode: Mode) -> bool {
        self.modes.get(&mode).is_some_and(|found| found.is_native())
    }

    fn is_exact(&self, stop: Stop, mode: Mode) -> bool {
        let Some(found) = self.modes.get(&mode) else { return false };
        let stopped = match stop {
            Stop::SingleStep => &found.single_step,
            Stop::Breakpoint => &found.breakpoint,
            Stop::Window => &found.window,
        };
        *stopped == Measured::Found(Stopped::Exactly)
    }

    fn heeds_outside_writes(&self, mode: Mode) -> bool {
        self.tables.outside_writes.get(&mode) == Some(&Measured::Found(true))
    }
}

impl Answers for Bench {
    fn is_native(&self, mode: Mode) -> bool {
        modes::is_native(self, mode) == Ok(true)
    }

    fn is_exact(&self, stop: Stop, mode: Mode) -> bool {
        let probe = match stop {
            Stop::SingleStep => modes::single_step,
            Stop::Breakpoint => modes::breakpoint,
            Stop::Window => modes::window,
        };
        probe(self, mode) == Ok(Stopped::Exactly)
    }

    fn heeds_outside_writes(&self, mode: Mode) -> bool {
        walks::outside_writes(self, mode) == Ok(true)
    }
}

/// Asks the KVM behind a device itself; nobody where it cannot be opened. The calling thread gets signals meanwhile, which it ignores.
pub(crate) fn ask<T>(device: &Path, question: impl FnOnce(&dyn Answers) -> T) -> Option<T> {
    let (kvm, _) = host::open(device).ok()?;
    let bench = Bench::new(kvm).ok()?;
    Some(question(&bench))
}
