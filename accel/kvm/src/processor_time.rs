#![allow(unsafe_code)] // asks the kernel for a clock
//! The time that a thread has had of a processor.
//!
//! Not responsible for: time as it passes.

use std::mem::zeroed;
use std::time::Duration;

/// Processor time that this thread has used, its guests included: other work of the host does not count.
pub(crate) fn processor_time() -> Duration {
    // SAFETY: plain data for which zero is valid, filled in by the call; this clock always exists.
    let used = unsafe {
        let mut used: libc::timespec = zeroed();
        libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut used);
        used
    };
    Duration::new(used.tv_sec as u64, used.tv_nsec as u32)
}
