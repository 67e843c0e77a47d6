#![allow(unsafe_code)] // a timer and a signal handler of the kernel's own kind
//! Kicks: a signal to the vCPU's thread now and then, so that a guest that computes without exits comes back.
//!
//! Not responsible for: what is done about one (`run`). No other thread sees the signal: the timer names the thread.

use crate::error::KvmError;
use std::io;
use std::mem::{MaybeUninit, zeroed};
use std::ptr::null_mut;
use std::sync::Once;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Kicks to any vCPU thread of the process. One that was meant for another brings a run back early, of which nobody can tell.
static TICKS: AtomicU64 = AtomicU64::new(0);

extern "C" fn note(_: libc::c_int) {
    TICKS.fetch_add(1, Relaxed);
}

/// The signal: a real-time one that neither Rust nor the terminal uses.
pub(crate) fn signal() -> libc::c_int {
    libc::SIGRTMIN() + 3
}

/// The timer of one vCPU.
pub(crate) struct Kick {
    /// The timer and the thread that it kicks.
    timer: Option<(libc::timer_t, libc::pid_t)>,
    period: Duration,
    seen: u64,
}

// SAFETY: a timer is a number of the process; any thread may set or delete it.
unsafe impl Send for Kick {}

impl Kick {
    /// Not more than a second from one to the next.
    pub(crate) const fn every(period: Duration) -> Self {
        Self { timer: None, period, seen: 0 }
    }

    /// A run begins on this thread.
    pub(crate) fn begin(&mut self) -> Result<(), KvmError> {
        // SAFETY: asks for a number.
        let thread = unsafe { libc::gettid() };
        if self.timer.is_some_and(|(_, of)| of != thread) {
            self.delete();
        }
        if self.timer.is_none() {
            self.timer = Some((create(thread)?, thread));
        }
        self.set(self.period);
        self.forget();
        Ok(())
    }

    /// The run is over.
    pub(crate) fn end(&self) {
        self.set(Duration::ZERO);
    }

    /// Kicks since `begin` or `forget`.
    pub(crate) fn kicks(&self) -> u64 {
        TICKS.load(Relaxed).wrapping_sub(self.seen)
    }

    /// Starts to count anew.
    pub(crate) fn forget(&mut self) {
        self.seen = TICKS.load(Relaxed);
    }

    fn set(&self, period: Duration) {
        let Some((timer, _)) = self.timer else { return };
        let period = libc::timespec { tv_sec: 0, tv_nsec: period.subsec_nanos().into() };
        let times = libc::itimerspec { it_interval: period, it_value: period };
        // SAFETY: a timer that `create` made, and times that outlive the call. It cannot fail for such.
        unsafe { libc::timer_settime(timer, 0, &times, null_mut()) };
    }

    fn delete(&mut self) {
        if let Some((timer, _)) = self.timer.take() {
            // SAFETY: a timer that `create` made, and that nobody knows any more.
            unsafe { libc::timer_delete(timer) };
        }
    }
}

impl Drop for Kick {
    fn drop(&mut self) {
        self.delete();
    }
}

fn create(thread: libc::pid_t) -> Result<libc::timer_t, KvmError> {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        // SAFETY: all zeros is a `sigaction` without flags (so KVM_RUN is not started again) and with an empty mask; the handler only
        // adds to an atomic. It fails for no signal in the range.
        unsafe {
            let mut action: libc::sigaction = zeroed();
            action.sa_sigaction = note as extern "C" fn(libc::c_int) as usize;
            libc::sigaction(signal(), &action, null_mut());
        }
    });
    // SAFETY: all zeros is a valid `sigevent`, whose fields are then set.
    let mut event: libc::sigevent = unsafe { zeroed() };
    event.sigev_notify = libc::SIGEV_THREAD_ID;
    event.sigev_signo = signal();
    event.sigev_notify_thread_id = thread;
    let mut timer = MaybeUninit::uninit();
    // SAFETY: both pointers are to locals; the timer is read only after it was made.
    unsafe {
        if libc::timer_create(libc::CLOCK_MONOTONIC, &mut event, timer.as_mut_ptr()) != 0 {
            return Err(KvmError::Refused { what: "timer_create", source: io::Error::last_os_error() });
        }
        Ok(timer.assume_init())
    }
}
