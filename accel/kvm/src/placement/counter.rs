//! What the way by branches needs of a counter.
//!
//! Not responsible for: which counter it is (`perf` has the host's PMU, the tests have one with every fault).

use gemel_machine::EngineError;

/// Counts what one guest does, and can interrupt it.
///
/// The count is trusted to be exact; the interrupt is not trusted at all: it may come late, come for no reason, or never come.
pub trait Counter {
    /// How much was counted since the counter was made. Never goes back.
    ///
    /// # Errors
    /// Host trouble, so also a counter that somebody else took away for a while.
    fn read(&mut self) -> Result<u64, EngineError>;

    /// From now on, asks for an interrupt once `after` more were counted. Not zero. Replaces what was armed before.
    ///
    /// # Errors
    /// Host trouble only.
    fn arm(&mut self, after: u64) -> Result<(), EngineError>;

    /// No interrupt is wanted.
    ///
    /// # Errors
    /// Host trouble only.
    fn disarm(&mut self) -> Result<(), EngineError>;

    /// Whether an interrupt came since the counter was last armed.
    fn overflowed(&self) -> bool;
}
