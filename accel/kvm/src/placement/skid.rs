//! How late a counter's interrupt comes.
//!
//! Not responsible for: what margin is taken from it for which CPU (`event`).

use super::{Counter, Guest, Return};
use gemel_machine::EngineError;

/// A histogram of lateness, in counts.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Skid {
    /// Interrupts that came.
    pub samples: u64,
    /// Times when the guest came back for another reason long after the counter ran over, and no interrupt had come.
    pub lost: u64,
    /// The worst lateness of an interrupt that came.
    pub worst: u64,
    /// How many came how late: element 0 not late at all, element n by 2^(n-1) to 2^n - 1 counts, the last one by more as well.
    pub buckets: [u64; 32],
}

impl Skid {
    fn note(&mut self, late: u64) {
        self.samples += 1;
        self.worst = self.worst.max(late);
        let bits = (u64::BITS - late.leading_zeros()) as usize;
        self.buckets[bits.min(self.buckets.len() - 1)] += 1;
    }

    /// Measures with a guest that makes conditional branches for ever and never leaves by itself: `rounds` interrupts, each asked for
    /// `period` counts ahead.
    ///
    /// # Errors
    /// Host trouble only.
    pub fn measure(
        counter: &mut dyn Counter,
        guest: &mut dyn Guest,
        rounds: u64,
        period: u64,
    ) -> Result<Self, EngineError> {
        let mut skid = Self::default();
        for _ in 0..rounds {
            let due = counter.read()? + period;
            counter.arm(period)?;
            loop {
                let returned = guest.resume(None)?;
                let count = counter.read()?;
                if counter.overflowed() && count >= due {
                    skid.note(count - due);
                    break;
                }
                // A kick or an exit before it was due is no matter; one that finds it long overdue is.
                if returned == Return::Exit || count > due.saturating_add(period) {
                    skid.lost += u64::from(count >= due);
                    break;
                }
            }
            counter.disarm()?;
        }
        Ok(skid)
    }
}
