//! Wakes this thread out of KVM_RUN now and then, so that no guest can keep a probe.
//!
//! Not responsible for: how long is too long (`sandbox`), the signal (`kick`).

use crate::error::KvmError;
use crate::kick::Kick;
use std::cell::Cell;
use std::time::Duration;

/// Time between two signals: short against a probe's patience, long against what a probe measures.
const PERIOD: Duration = Duration::from_millis(50);

/// Interrupts the thread that made it, until it is dropped.
pub struct Watchdog {
    kick: Kick,
    seen: Cell<u64>,
}

impl Watchdog {
    /// Starts it for this thread.
    ///
    /// # Errors
    /// What the host refused.
    pub fn start() -> Result<Self, KvmError> {
        let mut kick = Kick::every(PERIOD);
        kick.begin()?;
        Ok(Self { kick, seen: Cell::new(0) })
    }

    /// Whether an interruption is a kick: one came since the last question.
    pub fn barked(&self) -> bool {
        let kicks = self.kick.kicks();
        self.seen.replace(kicks) != kicks
    }
}
