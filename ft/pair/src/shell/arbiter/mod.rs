//! Who leads a VM, and with whom in sync: the one thing that all sides must agree on.
//!
//! Not responsible for: when to ask (`protocol`).

mod files;

pub use files::DirectoryArbiter;

use crate::protocol::{Changed, Membership};
use std::io;

/// Holds a register for each VM, which changes one step at a time and never back.
pub trait Arbiter: Send + Sync {
    /// What the register holds, if it was ever written.
    ///
    /// # Errors
    /// The arbiter cannot be reached.
    fn read(&self, vm: &str) -> io::Result<Option<Membership>>;

    /// Makes `next` the register's content if what it holds now is of the epoch before, or nothing. To ask again for what it
    /// holds is no change, and done.
    ///
    /// # Errors
    /// The arbiter cannot be reached. Whether the change took effect is then unknown; asking again is safe.
    fn change(&self, vm: &str, next: &Membership) -> io::Result<Changed>;
}
