//! Batches of cases on their way to the child, and of outcomes on their way back, in shared memory.
//!
//! Three counters order everything: the parent fills a batch and then counts it as posted; the child alone touches a posted
//! batch until it counts it as finished; then it is the parent's again.
//!
//! Not responsible for: starting or watching the child (`mod.rs`), nor for running a case (`child`).

#![allow(unsafe_code)] // memory that two processes share

use super::counter::Counter;
use super::{Answer, Lost};
use crate::case::{Case, Fault, Line, Outcome, Registers};
use memmap2::{MmapOptions, MmapRaw};
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use std::time::Duration;

/// Cases in a batch at most.
pub const BATCH: usize = 128;
/// Batches on their way at most.
pub const BATCHES: usize = 4;

/// How a step ended, as [`Left::how`]: an exception's vector, or one of these.
pub const RETIRED: u32 = 0x100;
/// See [`Lost::SystemCall`].
pub const SYSTEM_CALL: u32 = 0x101;

/// An outcome as the child writes it: numbers only, so that whatever stands there is a value.
#[repr(C)]
pub struct Left {
    pub after: Registers,
    pub how: u32,
    pub error_code: u32,
    pub cr2: u64,
    /// How many of the lines count.
    pub changes: u32,
    pub lines: [Line; Outcome::MOST_CHANGES],
}

impl Left {
    fn answer(&self) -> Answer {
        let changes = self.lines[..(self.changes as usize).min(self.lines.len())].to_vec();
        let fault = match self.how {
            RETIRED => None,
            SYSTEM_CALL => return Err(Lost::SystemCall),
            vector => Some(Fault { vector: vector as u8, error_code: self.error_code, cr2: self.cr2 }),
        };
        Ok(Outcome { after: self.after, changes, fault })
    }
}

/// A case and its outcome.
#[repr(C)]
pub struct Slot {
    pub case: Case,
    pub left: Left,
}

#[repr(C)]
struct Batch {
    length: u32,
    slots: [Slot; BATCH],
}

/// What the two processes share.
#[repr(C)]
struct Shared {
    /// Batches that the parent has filled.
    posted: Counter,
    /// Batches that the child has emptied.
    finished: Counter,
    /// Cases that the child has run, ever.
    done: Counter,
    /// The case of the current batch that the child runs, or runs next. Only its owner writes it: the child, and while there
    /// is none, the parent.
    index: u32,
    /// Which step of the child's setup failed, counted from 1, and errno.
    failed: [i32; 2],
    batches: [Batch; BATCHES],
}

/// The shared memory, and the parent's place in it.
pub struct Ring {
    memory: MmapRaw,
    collected: u32,
}

impl Ring {
    /// An empty ring.
    ///
    /// # Errors
    /// When the kernel gives no memory.
    pub fn new() -> std::io::Result<Self> {
        // Fresh pages are zero, which is an empty ring.
        let file = memfd_create("cases", MemfdFlags::CLOEXEC)?;
        ftruncate(&file, size_of::<Shared>() as u64)?;
        let memory = MmapOptions::new().len(size_of::<Shared>()).map_raw(&file)?;
        Ok(Self { memory, collected: 0 })
    }

    fn shared(&self) -> *mut Shared {
        self.memory.as_mut_ptr().cast()
    }

    fn counters(&self) -> (&Counter, &Counter, &Counter) {
        let shared = self.shared();
        // SAFETY: the memory is large enough, page-aligned, and lives as long as `self`; counters are atomic.
        unsafe { (&(*shared).posted, &(*shared).finished, &(*shared).done) }
    }

    fn batch(&self, number: u32) -> *mut Batch {
        // SAFETY: the index is within the array; the address is made without a reference to what it points to.
        unsafe { &raw mut (*self.shared()).batches[number as usize % BATCHES] }
    }

    /// Batches that were posted and not collected.
    pub fn uncollected(&self) -> usize {
        self.counters().0.get().wrapping_sub(self.collected) as usize
    }

    /// The number of the batch that is collected next.
    pub fn collected(&self) -> u32 {
        self.collected
    }

    /// Cases that were run, ever.
    pub fn cases_done(&self) -> u32 {
        self.counters().2.get()
    }

    /// Hands a batch to the child. At most [`BATCH`] cases, and fewer than [`BATCHES`] batches uncollected.
    pub fn post(&mut self, cases: &[Case]) {
        let posted = self.counters().0;
        let batch = self.batch(posted.get());
        // SAFETY: the batch is collected or was never posted, so it is ours until it is counted as posted.
        let batch = unsafe { &mut *batch };
        batch.length = cases.len() as u32;
        for (slot, case) in batch.slots.iter_mut().zip(cases) {
            slot.case = *case;
        }
        posted.advance();
    }

    /// Whether the oldest uncollected batch is finished; waits for it up to `limit`.
    pub fn wait(&self, limit: Duration) -> bool {
        let finished = self.counters().1;
        let is = || finished.get() != self.collected;
        if !is() {
            finished.wait_past(self.collected, Some(limit));
        }
        is()
    }

    /// The outcomes of the oldest batch, which is finished.
    pub fn take(&mut self) -> Vec<Answer> {
        // SAFETY: the child has counted the batch as finished and leaves it alone until it is posted again.
        let batch = unsafe { &*self.batch(self.collected) };
        self.collected = self.collected.wrapping_add(1);
        batch.slots[..(batch.length as usize).min(BATCH)].iter().map(|slot| slot.left.answer()).collect()
    }

    /// Which step of the last child's setup failed, if one did.
    pub fn setup_failure(&self) -> Option<String> {
        // SAFETY: called when there is no child.
        let [step, error] = unsafe { (*self.shared()).failed };
        (step != 0).then(|| format!("step {step}: {}", std::io::Error::from_raw_os_error(error)))
    }

    /// Leaves out the case that the dead child was at. Its batch and index, or `None` when it was at none.
    pub fn skip(&mut self) -> Option<(u32, u32)> {
        let (posted, finished, _) = self.counters();
        let number = finished.get();
        if number == posted.get() {
            return None;
        }
        // SAFETY: there is no child, so everything is ours.
        let (index, length) = unsafe { (&mut (*self.shared()).index, (*self.batch(number)).length) };
        let skipped = *index;
        *index += 1;
        if *index >= length {
            *index = 0;
            finished.advance();
        }
        Some((number, skipped))
    }

    /// The child's: the slot of the next case, once there is one.
    pub fn next(&self) -> *mut Slot {
        let (posted, finished, _) = self.counters();
        loop {
            let number = finished.get();
            if number == posted.get() {
                posted.wait_past(number, None);
                continue;
            }
            // SAFETY: a posted batch is the child's, and so is the index.
            unsafe {
                let (batch, index) = (self.batch(number), (*self.shared()).index);
                if index < (*batch).length {
                    return &raw mut (*batch).slots[index as usize % BATCH];
                }
                (*self.shared()).index = 0;
            }
            finished.advance();
        }
    }

    /// The child's: the case of the last slot has been run.
    pub fn advance(&self) {
        self.counters().2.step();
        // SAFETY: the index is the child's.
        unsafe { (*self.shared()).index += 1 };
    }

    /// The child's: which step of its setup failed, and errno.
    pub fn fail(&self, step: i32, error: i32) {
        // SAFETY: the child's until it ends.
        unsafe { (*self.shared()).failed = [step, error] };
    }
}
