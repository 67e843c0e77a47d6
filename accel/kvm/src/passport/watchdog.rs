//! Wakes this thread out of KVM_RUN now and then, so that no guest can keep a probe.
//!
//! Not responsible for: how long is too long (`sandbox`).
#![allow(unsafe_code)] // POSIX timers and signal handlers

use std::cell::Cell;
use std::io;
use std::mem::{MaybeUninit, zeroed};
use std::ptr::null_mut;
use std::time::{Duration, Instant};

/// Time between two signals: short against a probe's patience, long against what a probe measures.
const PERIOD: Duration = Duration::from_millis(50);

/// A timer that interrupts the thread that made it, until it is dropped.
pub struct Watchdog {
    timer: libc::timer_t,
    before: libc::sigaction,
    started: Instant,
    seen: Cell<u128>,
}

extern "C" fn ignore(_: libc::c_int) {}

/// One of the real-time signals that nothing else here uses.
pub fn signal() -> libc::c_int {
    libc::SIGRTMIN() + 3
}

/// Processor time that this thread has used, its guests included: other work of the host does not count.
pub fn processor_time() -> Duration {
    // SAFETY: plain data for which zero is valid, filled in by the call; this clock always exists.
    let used = unsafe {
        let mut used: libc::timespec = zeroed();
        libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut used);
        used
    };
    Duration::new(used.tv_sec as u64, used.tv_nsec as u32)
}

impl Watchdog {
    /// Starts it for this thread.
    ///
    /// # Errors
    /// What the host refused.
    pub fn start() -> io::Result<Self> {
        // SAFETY: plain data for which zero is valid; the handler does nothing, so it is safe wherever it interrupts; the pointers
        // are to locals that outlive the calls.
        unsafe {
            let mut action: libc::sigaction = zeroed();
            action.sa_sigaction = ignore as *const () as usize;
            let mut before = MaybeUninit::uninit();
            if libc::sigaction(signal(), &action, before.as_mut_ptr()) != 0 {
                return Err(io::Error::last_os_error());
            }
            let before = before.assume_init();
            let mut event: libc::sigevent = zeroed();
            event.sigev_notify = libc::SIGEV_THREAD_ID;
            event.sigev_signo = signal();
            event.sigev_notify_thread_id = libc::gettid();
            let mut timer = null_mut();
            if libc::timer_create(libc::CLOCK_MONOTONIC, &mut event, &mut timer) != 0 {
                let error = io::Error::last_os_error();
                libc::sigaction(signal(), &before, null_mut());
                return Err(error);
            }
            let watchdog = Self { timer, before, started: Instant::now(), seen: Cell::new(0) };
            let period = libc::timespec { tv_sec: 0, tv_nsec: PERIOD.as_nanos() as i64 };
            let rate = libc::itimerspec { it_interval: period, it_value: period };
            if libc::timer_settime(timer, 0, &rate, null_mut()) != 0 {
                return Err(io::Error::last_os_error());
            }
            Ok(watchdog)
        }
    }

    /// Whether an interruption is this timer's: a period began since the last question.
    pub fn barked(&self) -> bool {
        let period = self.started.elapsed().as_nanos() / PERIOD.as_nanos();
        self.seen.replace(period) != period
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        // SAFETY: the timer is ours and deleted once. A signal of it that still waits finds the old disposition only after this
        // thread has taken it: the system call that deletes the timer returns through delivery.
        unsafe {
            libc::timer_delete(self.timer);
            libc::sigaction(signal(), &self.before, null_mut());
        }
    }
}
