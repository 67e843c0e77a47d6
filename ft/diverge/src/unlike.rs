//! A step after which two unlike CPUs differ, for one who knows what the manuals leave to the CPU.
//!
//! Not responsible for: knowing it (an [`Excuse`] does). An excused difference is one all the same: the runs part there.

use crate::linear;
use gemel_machine::{GuestRam, Paging};
use gemel_x86::CpuState;

/// One step from equal states to unequal ones.
pub struct Step<'a> {
    /// The state before it, of both.
    pub before: &'a CpuState,
    /// The states after it.
    pub after: [&'a CpuState; 2],
    /// Guest physical addresses of all bytes of memory that differ after it.
    pub memory: &'a [u64],
    /// RAM before it.
    pub(crate) ram: &'a GuestRam,
}

impl Step<'_> {
    /// Up to `n` bytes from a linear address on, before the step; fewer where mapped RAM ends.
    pub fn read(&self, linear: u64, n: usize) -> Vec<u8> {
        linear::read(self.ram, self.before, linear, n)
    }

    /// The guest physical address of a linear one; `None` where nothing is mapped.
    pub fn physical(&self, linear: u64) -> Option<u64> {
        Paging::of(self.before).physical(self.ram, linear)
    }
}

/// Says in words what differs, if all of it is what the manuals leave undefined. Asked only where nothing but CPU and memory differs.
pub type Excuse = fn(&Step<'_>) -> Option<String>;
