//! Cases run by the CPU under us: in a child process, one instruction each, by single-stepping it in user mode.
//!
//! The child maps the [arena](crate::arena), gives the kernel a signal frame that holds a case's registers, and returns into
//! it; the trap of the single step, or the fault, comes back as the next signal, whose frame holds what the instruction left.
//! Cases and outcomes travel in batches through shared memory, so that both processes can work at once. A case that kills the
//! child or does not come back costs a new child and is told as [`Lost`].
//!
//! Not responsible for: what must not run here at all ([`excluded`] names it; callers ask before), nor for comparing.

#![allow(unsafe_code)] // processes, shared memory and signal frames

mod child;
mod counter;
pub mod excluded;
mod frame;
mod memory;
mod ring;
mod syscalls;

use crate::arena;
use crate::case::{Case, Outcome};
use anyhow::{Context, Result, bail};
use ring::Ring;
use std::collections::VecDeque;
use std::fmt;
use std::time::{Duration, Instant};

pub use ring::{BATCH, BATCHES};

/// How much time of a CPU a case may take: a thousand times what the slowest needs.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long a case may take when it gets no CPU: a busy machine is not to be taken for a hanging child.
const LONGEST_STALL: Duration = Duration::from_secs(30);

/// Why a case has no outcome.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Lost {
    /// The child ended, with this wait status.
    Died(i32),
    /// It did not come back within a second of CPU time.
    Hung,
    /// It called the kernel, which refused.
    SystemCall,
}

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Died(status) if libc::WIFSIGNALED(*status) => {
                write!(f, "the child died of signal {}", libc::WTERMSIG(*status))
            }
            Self::Died(status) => write!(f, "the child ended with status {status:#x}"),
            Self::Hung => write!(f, "no answer within {PATIENCE:?}"),
            Self::SystemCall => write!(f, "it called the kernel"),
        }
    }
}

/// What became of a case.
pub type Answer = Result<Outcome, Lost>;

/// The CPU under us as an oracle. Its child ends with it, and with the thread that started it.
pub struct Native {
    ring: Ring,
    pid: libc::pid_t,
    /// [`LONGEST_STALL`], but for tests.
    longest_stall: Duration,
    /// Lost cases of batches not yet collected: batch number, index, why.
    lost: VecDeque<(u32, u32, Lost)>,
}

impl Native {
    /// Starts the child.
    ///
    /// # Errors
    /// When the CPU or the kernel lacks AVX or FSGSBASE, or the kernel gives no shared memory, process, or LDT segments. Tests
    /// on other hosts are to say so and be counted as left out.
    pub fn start() -> Result<Self> {
        check_host()?;
        // Made before the fork: the child can't allocate.
        arena::background();
        let ring = Ring::new().context("no shared memory for the ring of cases")?;
        let mut native = Self { ring, pid: 0, longest_stall: LONGEST_STALL, lost: VecDeque::new() };
        native.fork()?;
        Ok(native)
    }

    /// How many more batches [`Native::submit`] takes before one must be collected.
    pub fn room(&self) -> usize {
        BATCHES - self.ring.uncollected()
    }

    /// Gives the child up to [`BATCH`] cases to run; comes back at once.
    ///
    /// # Errors
    /// When there are too many cases, no [room](Native::room), or a case whose code or patches lie outside the arena.
    pub fn submit(&mut self, cases: &[Case]) -> Result<()> {
        if cases.len() > BATCH || self.room() == 0 {
            bail!("{} cases do not fit: {BATCH} a batch, room for {} batches", cases.len(), self.room());
        }
        for case in cases {
            check(case)?;
        }
        self.ring.post(cases);
        Ok(())
    }

    /// The outcomes of the oldest batch that was submitted and not collected, in its order. Waits for them.
    ///
    /// # Errors
    /// When there is no such batch, or the child died and no other can be started.
    pub fn collect(&mut self) -> Result<Vec<Answer>> {
        if self.ring.uncollected() == 0 {
            bail!("no batch was submitted");
        }
        let batch = self.ring.collected();
        let mut progress = (self.ring.cases_done(), Instant::now(), self.cpu_time());
        while !self.ring.wait(Duration::from_millis(50)) {
            let done = self.ring.cases_done();
            if let Some(status) = self.ended()? {
                self.restart(Lost::Died(status))?;
            } else if done != progress.0 {
                progress = (done, Instant::now(), self.cpu_time());
            } else if self.cpu_time() > progress.2 + PATIENCE || progress.1.elapsed() > self.longest_stall {
                self.end();
                self.restart(Lost::Hung)?;
                progress = (done, Instant::now(), self.cpu_time());
            }
        }
        let mut answers = self.ring.take();
        while let Some(&(_, index, lost)) = self.lost.front().filter(|(of, ..)| *of == batch) {
            answers[index as usize] = Err(lost);
            self.lost.pop_front();
        }
        Ok(answers)
    }

    /// Runs cases, however many, and waits for all of them.
    ///
    /// # Errors
    /// As [`Native::submit`] and [`Native::collect`].
    pub fn run(&mut self, cases: &[Case]) -> Result<Vec<Answer>> {
        let mut answers = Vec::with_capacity(cases.len());
        for batch in cases.chunks(BATCH) {
            if self.room() == 0 {
                answers.append(&mut self.collect()?);
            }
            self.submit(batch)?;
        }
        while self.ring.uncollected() > 0 {
            answers.append(&mut self.collect()?);
        }
        Ok(answers)
    }

    fn fork(&mut self) -> Result<()> {
        // SAFETY: the child calls nothing but `child::main`, which allocates nothing and takes no lock.
        match unsafe { libc::fork() } {
            -1 => Err(std::io::Error::last_os_error()).context("no child process"),
            0 => child::main(&self.ring),
            pid => {
                self.pid = pid;
                Ok(())
            }
        }
    }

    /// CPU time that the child has used; zero if it can't be told.
    fn cpu_time(&self) -> Duration {
        let mut clock = 0;
        let mut used = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: both write to variables that live.
        let told = unsafe {
            libc::clock_getcpuclockid(self.pid, &raw mut clock) == 0
                && libc::clock_gettime(clock, &raw mut used) == 0
        };
        if told { Duration::new(used.tv_sec as u64, used.tv_nsec as u32) } else { Duration::ZERO }
    }

    /// The child's wait status, if it has ended.
    fn ended(&self) -> Result<Option<i32>> {
        let mut status = 0;
        // SAFETY: waits for our own child; `status` lives.
        match unsafe { libc::waitpid(self.pid, &raw mut status, libc::WNOHANG) } {
            0 => Ok(None),
            -1 => Err(std::io::Error::last_os_error()).context("waiting for the child"),
            _ => Ok(Some(status)),
        }
    }

    /// Ends the child and waits until it has.
    fn end(&self) {
        // SAFETY: our own child, which nobody else waits for.
        unsafe {
            libc::kill(self.pid, libc::SIGKILL);
            libc::waitpid(self.pid, std::ptr::null_mut(), 0);
        }
    }

    /// Another child goes on behind the case that lost this one.
    fn restart(&mut self, why: Lost) -> Result<()> {
        if let Some(failure) = self.ring.setup_failure() {
            bail!("the child process could not be set up: {failure}");
        }
        let Some((batch, index)) = self.ring.skip() else {
            bail!("the child process ended without a case: {why}");
        };
        self.lost.push_back((batch, index, why));
        self.fork()
    }
}

impl Drop for Native {
    fn drop(&mut self) {
        self.end();
    }
}

/// Whether this host can be an oracle at all.
fn check_host() -> Result<()> {
    /// HWCAP2_FSGSBASE: the kernel lets user mode write segment bases (arch/x86/include/uapi/asm/hwcap2.h).
    const FSGSBASE: u64 = 1 << 1;
    if !is_x86_feature_detected!("avx") {
        bail!("this CPU has no AVX, whose registers are part of a case");
    }
    // SAFETY: reads the process's auxiliary vector.
    if unsafe { libc::getauxval(libc::AT_HWCAP2) } & FSGSBASE == 0 {
        bail!("WRFSBASE is not for user mode here: it takes a CPU of 2012 or later and Linux 5.9");
    }
    Ok(())
}

/// Whether the child can place the case without leaving the arena.
fn check(case: &Case) -> Result<()> {
    let at = arena::segment(case.mode, gemel_x86::segment::CS).base.wrapping_add(case.before.rip);
    let end = at.wrapping_add(case.code().len() as u64);
    let page = u64::from(arena::CODE)..u64::from(arena::CODE + arena::PAGE);
    if case.length == 0 || !page.contains(&at) || end > page.end {
        bail!("{} bytes of code at {at:#x} are not in the code page", case.length);
    }
    for patch in &case.patches {
        let length = u32::from(patch.length);
        if length > 64 || length > 0 && !arena::holds_data(patch.address, length) {
            bail!("a patch of {length} bytes at {:#x} is not in the pages of data", patch.address);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
