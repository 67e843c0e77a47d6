//! A counter in shared memory that another process can wait for (futex(2)).
//!
//! Not responsible for: what is counted.

#![allow(unsafe_code)] // one system call on an address that it must own

use super::syscalls;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// Counts up and wraps.
#[repr(transparent)]
pub struct Counter(AtomicU32);

impl Counter {
    /// What it counts, and everything that was written before it was counted.
    pub fn get(&self) -> u32 {
        self.0.load(Ordering::Acquire)
    }

    /// Counts one, and tells nobody.
    pub fn step(&self) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(1), Ordering::Release);
    }

    /// Counts one, and wakes who waits.
    pub fn advance(&self) {
        self.step();
        // SAFETY: the address is this counter's, for as long as the call runs.
        unsafe { syscalls::futex(&self.0, libc::FUTEX_WAKE as u64, 1, None) };
    }

    /// Waits until it is no longer `seen`, or for `limit`, or for no reason.
    pub fn wait_past(&self, seen: u32, limit: Option<Duration>) {
        // SAFETY: as above.
        unsafe { syscalls::futex(&self.0, libc::FUTEX_WAIT as u64, seen, limit) };
    }
}
