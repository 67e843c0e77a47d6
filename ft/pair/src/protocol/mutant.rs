//! Deliberate mistakes, one at a time, which only tests can switch on (feature `mutants`): a simulation that does not catch them
//! proves nothing.
//!
//! Not responsible for: the mistakes; each is made at the place that it breaks.

/// A mistake.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mutant {
    /// Outputs leave before they are acknowledged.
    SendsBeforeAcknowledgement,
    /// A survivor goes live at the last log entry, instead of the last mark.
    GoesLiveAtLastEntry,
    /// A survivor has forgotten the outputs that it kept.
    DropsRing,
    /// A side that suspects the leader leads without asking.
    SkipsClaim,
    /// A refused claim is made again for whatever epoch is next, whoever leads.
    IgnoresEpoch,
    /// A client listens to a side of an older epoch.
    ListensToOldEpoch,
    /// A client does not send again what was not consumed.
    ForgetsInput,
    /// A clone becomes a member before it has in hand what was let out without it.
    JoinsTooEarly,
    /// Outputs stop waiting for a member before the register says that it is none.
    DropsWithoutRecord,
    /// A clone does not get the outputs that may still be wanted.
    ClonesWithoutRing,
    /// A survivor relies on what its disk had not flushed. (The simulation's machine makes this one.)
    DoesNotWriteAgain,
}

#[cfg(feature = "mutants")]
mod switch {
    use super::Mutant;
    use std::cell::Cell;

    thread_local! {
        static ACTIVE: Cell<Option<Mutant>> = const { Cell::new(None) };
    }

    impl Mutant {
        /// What this thread runs from here on makes this mistake, or none.
        pub fn activate(mutant: Option<Self>) {
            ACTIVE.set(mutant);
        }

        /// Whether it is made.
        pub fn is_active(self) -> bool {
            ACTIVE.get() == Some(self)
        }
    }
}

#[cfg(not(feature = "mutants"))]
impl Mutant {
    /// Never, outside of tests.
    pub(super) const fn is_active(self) -> bool {
        false
    }
}
