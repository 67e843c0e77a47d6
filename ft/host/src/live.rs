//! The live world: the rule that ties pacing, inputs, disks and outputs together.
//!
//! Not responsible for: any of the four; each has a module.

use crate::disk::Disks;
use crate::error::HostError;
use crate::inputs::Inputs;
use crate::net::Nics;
use crate::outputs::OutputSink;
use crate::pacing::{ClockMode, Pacer};
use gemel_machine::{At, Digest, Input, Output, Query, Reckoning, Stop, StopAt, VirtTime, World};
use rustix::rand::{GetRandomFlags, getrandom};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Counts between two looks at the world when somebody could send something: 0.26 ms of guest time.
pub const SLICE: u64 = 1 << 16;
/// The same when only signals can come.
const QUIET_SLICE: u64 = 1 << 20;
/// Exits between two looks. A guest that computes without them is looked at whenever its engine comes back.
const EXIT_SLICE: u64 = 1 << 8;

/// Where a run is, for other threads to look at.
#[derive(Default, Debug)]
pub struct Status {
    /// Count at the last stop.
    pub count: AtomicU64,
    /// Guest time at the last stop, ns.
    pub time: AtomicU64,
    /// Bytes that left the serial ports.
    pub serial_bytes: AtomicU64,
    /// Disk requests performed.
    pub disk_requests: AtomicU64,
    /// Frames that reached the guest.
    pub frames_in: AtomicU64,
    /// Frames that left it.
    pub frames_out: AtomicU64,
}

/// The live world.
pub struct Live {
    /// How guest time follows the host's clock.
    pub pacer: Pacer,
    /// What comes in.
    pub inputs: Inputs,
    /// The disks.
    pub disks: Disks,
    /// Where frames go.
    pub nics: Nics,
    /// Where bytes go.
    pub outputs: Box<dyn OutputSink>,
    status: Arc<Status>,
    seed: u64,
    slice: u64,
    slice_end: u64,
    /// The count at the last poll. A guest that has not left it since, and counts exits, computes.
    polled: u64,
    /// The last input came out of `inputs`, which knows its number.
    numbered: bool,
    failed: Option<Stop>,
}

impl Live {
    /// A world of these parts. `seed` is the machine's seed: in free mode random numbers follow from it and the position. In
    /// paced mode they are the host's, fit for keys.
    pub fn new(pacer: Pacer, inputs: Inputs, disks: Disks, outputs: Box<dyn OutputSink>, seed: u64) -> Self {
        let quiet = pacer.mode() == ClockMode::Free && !inputs.inbox().has_sources();
        let slice = if quiet { QUIET_SLICE } else { SLICE };
        Self {
            pacer,
            inputs,
            disks,
            nics: Nics::default(),
            outputs,
            status: Arc::default(),
            seed,
            slice,
            slice_end: 0,
            polled: u64::MAX,
            numbered: false,
            failed: None,
        }
    }

    /// For a machine of this reckoning; one that counts instructions unless it is said.
    #[must_use]
    pub fn reckoning(mut self, reckoning: Reckoning) -> Self {
        if reckoning == Reckoning::Exits {
            self.slice = EXIT_SLICE;
        }
        self
    }

    /// Where the run is, kept up to date at every stop.
    pub fn status(&self) -> Arc<Status> {
        Arc::clone(&self.status)
    }

    fn flush(&mut self) {
        if let Err(e) = self.outputs.flush() {
            self.failed.get_or_insert(Stop::Host(Box::new(e)));
        }
    }

    /// What is known to come by itself: disk completions and keys that wait for their time.
    fn next_due(&self) -> VirtTime {
        self.disks.next_due().min(self.inputs.next_due())
    }

    /// Free mode: idle time passes at once, up to what is known to come; only for a person does the guest wait.
    fn idle_free(&mut self, at: At, until: VirtTime) -> Result<VirtTime, Stop> {
        let key = self.inputs.next_due();
        let until = until.min(self.disks.next_due()).min(key).max(at.time);
        if until != VirtTime::NEVER {
            return Ok(until);
        }
        if self.inputs.wait(None, false) { Ok(at.time) } else { Err(stuck()) }
    }

    fn check(&mut self) -> Result<(), Stop> {
        self.failed.take().map_or(Ok(()), Err)
    }
}

/// 64 bits from the host's generator.
fn entropy() -> Result<u64, HostError> {
    let mut bytes = [0; 8];
    match getrandom(&mut bytes, GetRandomFlags::empty()) {
        Ok(8) => Ok(u64::from_ne_bytes(bytes)),
        Ok(_) => Err(HostError::Random(std::io::ErrorKind::UnexpectedEof.into())),
        Err(e) => Err(HostError::Random(e.into())),
    }
}

fn stuck() -> Stop {
    Stop::Host(Box::new(HostError::Stuck))
}

impl World for Live {
    fn next_stop(&mut self, at: At) -> StopAt {
        // The slice's end stays where it is until it is reached: a guest that emits all the time must not push it
        // ahead of itself.
        if at.position.count >= self.slice_end {
            self.slice_end = at.position.count.saturating_add(self.slice);
        }
        StopAt { count: self.slice_end, time: self.next_due(), landing: None }
    }

    fn poll(&mut self, at: At) -> Result<Option<Input>, Stop> {
        self.status.count.store(at.position.count, Relaxed);
        self.status.time.store(at.time.0, Relaxed);
        self.check()?;
        let computes = at.position.count == std::mem::replace(&mut self.polled, at.position.count);
        if at.position.count >= self.slice_end || computes {
            self.flush();
            self.check()?;
        }
        self.pacer.hold(at.time);
        self.numbered = false;
        if let Some(done) = self.disks.take_due(at.time) {
            return Ok(Some(done));
        }
        let input = self.inputs.take(at.time)?;
        self.numbered = true;
        if let Some(Input::Frame { .. }) = input {
            self.status.frames_in.fetch_add(1, Relaxed);
        }
        if self.inputs.has_room_again() {
            self.nics.room();
        }
        Ok(input)
    }

    fn input_number(&self) -> Option<u64> {
        self.inputs.number().filter(|_| self.numbered)
    }

    fn idle(&mut self, at: At, until: VirtTime) -> Result<VirtTime, Stop> {
        self.flush();
        self.check()?;
        let Some(plan) = self.pacer.plan(at.time) else { return self.idle_free(at, until) };
        loop {
            // A key that came while another still waits for its time is no reason to wake, but it has a time now.
            let key = self.inputs.next_due();
            let until = until.min(self.disks.next_due()).min(key).max(at.time);
            let deadline = plan.deadline(until);
            if !self.inputs.wait(deadline, key != VirtTime::NEVER) {
                return deadline.map(|_| until).ok_or_else(stuck);
            }
            let now = plan.guest_time_at(Instant::now()).min(until);
            if now >= until || self.inputs.deliverable(now) {
                return Ok(now);
            }
        }
    }

    fn now(&mut self, at: At) -> Result<VirtTime, Stop> {
        Ok(self.pacer.sample(at.time))
    }

    fn wake(&mut self, at: At, deadline: VirtTime) -> Result<Option<VirtTime>, Stop> {
        let due = deadline.min(self.next_due());
        let now = self.pacer.visit(at.position.count, at.time);
        Ok((now >= due && due != VirtTime::NEVER).then_some(now))
    }

    fn answer(&mut self, at: At, query: Query) -> Result<u64, Stop> {
        match query {
            // The machine answers this itself; its clock ticks in nanoseconds.
            Query::Tsc => Ok(at.time.0),
            Query::Random if self.pacer.mode() == ClockMode::Free => {
                Ok(xxh3_64_with_seed(&at.position.count.to_le_bytes(), self.seed))
            }
            Query::Random => entropy().map_err(|e| Stop::Host(Box::new(e))),
        }
    }

    fn emit(&mut self, at: At, output: Output) {
        match output {
            Output::Serial { port, byte } => {
                self.status.serial_bytes.fetch_add(1, Relaxed);
                self.outputs.serial(port, byte);
            }
            Output::SerialConsumed { port, count } => self.inputs.consumed(port, count),
            Output::Debug(byte) => self.outputs.debug(byte),
            Output::Disk(request) => {
                self.status.disk_requests.fetch_add(1, Relaxed);
                self.disks.submit(at.time, request);
            }
            Output::Frame { nic, bytes } => {
                self.status.frames_out.fetch_add(1, Relaxed);
                self.nics.send(nic, bytes);
            }
        }
    }

    fn digest_due(&self, _at: At) -> bool {
        false
    }

    fn digest(&mut self, _at: At, _digest: Digest) -> Result<(), Stop> {
        Ok(())
    }
}
