//! A world that writes down what another world answers.
//!
//! Not responsible for: where the entries go (an [`EntrySink`]), the world inside.
//!
//! What the machine does by itself is never written: timers, the way through an idle period to the next deadline,
//! outputs. What is written is what another machine cannot know: inputs, answers, sampled times, and digests to compare by.

use crate::progress::Progress;
use crate::sink::EntrySink;
use crate::tally::OutputTally;
use gemel_log::{Body, EndReason, Entry, Header, ReadPolicy, data_check};
use gemel_machine::{
    At, Digest, Input, Landing, Machine, Output, Pause, Position, Query, Reckoning, RunError, Stop, StopAt,
    VirtTime, World, forward_to_world,
};

/// Wraps a world and records it.
pub struct Record<W, S> {
    world: W,
    sink: S,
    reads: Vec<ReadPolicy>,
    epoch: u64,
    next_epoch: u64,
    progress: Progress,
    /// Time is sampled, and a count does not name every boundary.
    samples: bool,
    /// The entry that the machine will meet. Where counts do not name every boundary, it follows the landing that it needs.
    held: Option<Entry>,
    /// A refusal of the sink that came where the machine takes none; the next poll reports it.
    failed: Option<Stop>,
}

impl<W: World, S: EntrySink> Record<W, S> {
    /// Records `world` into `sink` by the rules of `header` (read policies, epoch, start).
    pub fn new(world: W, sink: S, header: &Header) -> Self {
        Self::resume(world, sink, header, Progress::default())
    }

    /// Records a run that has come to the header's start.
    pub fn resume(world: W, sink: S, header: &Header, progress: Progress) -> Self {
        let epoch = header.epoch.max(1);
        Self {
            world,
            sink,
            reads: header.reads.clone(),
            epoch,
            next_epoch: after(header.start.position.count, epoch),
            progress,
            samples: header.machine.reckoning == Reckoning::Exits,
            held: None,
            failed: None,
        }
    }

    /// The world inside.
    pub fn world(&mut self) -> &mut W {
        &mut self.world
    }

    /// The sink.
    pub fn sink(&mut self) -> &mut S {
        &mut self.sink
    }

    /// Outputs so far.
    pub fn tally(&self) -> &OutputTally {
        &self.progress.tally
    }

    /// How far the run has come. A recording knows of no unflushed writes: where the images lie that it could lose them of is the
    /// world's to say.
    pub fn progress(&self) -> &Progress {
        &self.progress
    }

    /// Everything up to where the machine stands goes to the sink, between two runs.
    ///
    /// # Errors
    /// The sink's.
    pub fn settle(&mut self) -> Result<(), Stop> {
        self.release()?;
        self.sink.flush()
    }

    /// Goes on with another world and the same record: a replay that goes live keeps writing its log.
    pub fn map_world<V: World>(self, f: impl FnOnce(W) -> V) -> Record<V, S> {
        let Self { world, sink, reads, epoch, next_epoch, progress, samples, held, failed } = self;
        Record { world: f(world), sink, reads, epoch, next_epoch, progress, samples, held, failed }
    }

    /// World and sink.
    pub fn into_parts(self) -> (W, S) {
        (self.world, self.sink)
    }

    /// Ends the record with what [`Machine::run`] returned: an end entry if the guest or the world ended the run
    /// (after host trouble or a divergence the log stays open-ended, which is what happened), and a flush.
    ///
    /// # Errors
    /// The sink's, or host trouble of the engine.
    pub fn conclude(
        &mut self,
        machine: &mut Machine,
        outcome: &Result<Pause, RunError>,
    ) -> Result<(), RunError> {
        self.release()?;
        let reason = match outcome {
            Ok(pause) => EndReason::Guest(*pause),
            Err(RunError::World(Stop::Quit | Stop::EndOfLog)) => EndReason::Stopped,
            Err(_) => return Ok(self.sink.flush()?),
        };
        let digest = machine.digest()?;
        if self.samples && reason == EndReason::Stopped {
            // Where a run is stopped its count need not say.
            self.sink.entry(&entry_of(machine.at(), machine.landing()?))?;
        }
        let body = Body::End { reason, digest, outputs: self.progress.tally.summary() };
        self.sink.entry(&Entry { at: machine.at(), body })?;
        Ok(self.sink.flush()?)
    }

    fn body_of(&self, input: &Input) -> Body {
        match input {
            Input::DiskDone { disk, tag, status, data }
                if self.reads.get(usize::from(*disk)) == Some(&ReadPolicy::FromImage) =>
            {
                let length = data.len() as u32;
                Body::ReRead { disk: *disk, tag: *tag, status: *status, length, check: data_check(data) }
            }
            _ => Body::Input { input: input.clone(), number: self.world.input_number() },
        }
    }

    /// An entry for a stop, before the machine meets what is in it.
    fn enter(&mut self, entry: Entry) -> Result<(), Stop> {
        if self.samples {
            self.held = Some(entry);
            return Ok(());
        }
        self.sink.entry(&entry)
    }

    /// The machine went on: the entry needs no landing, or has it.
    fn release(&mut self) -> Result<(), Stop> {
        self.held.take().map_or(Ok(()), |entry| self.sink.entry(&entry))
    }

    fn keep(&mut self, done: Result<(), Stop>) {
        if let Err(stop) = done {
            self.failed.get_or_insert(stop);
        }
    }

    fn mark(&mut self, at: At) {
        let released = self.release();
        self.keep(released);
        if let Err(stop) = self.sink.mark(at, self.progress.outputs()) {
            self.failed.get_or_insert(stop);
        }
    }
}

fn entry_of(at: At, landing: Landing) -> Entry {
    let Landing { digest, linear, within, .. } = landing;
    Entry { at, body: Body::Landing { digest, linear, within } }
}

/// The first multiple of `epoch` beyond `count`.
fn after(count: u64, epoch: u64) -> u64 {
    (count / epoch + 1).saturating_mul(epoch)
}

impl<W: World, S: EntrySink> World for Record<W, S> {
    fn next_stop(&mut self, at: At) -> StopAt {
        let released = self.release();
        self.keep(released);
        let wanted = self.world.next_stop(at);
        let count = if self.failed.is_some() { 0 } else { wanted.count.min(self.next_epoch) };
        StopAt { count, ..wanted }
    }

    fn poll(&mut self, at: At) -> Result<Option<Input>, Stop> {
        self.mark(at);
        if let Some(stop) = self.failed.take() {
            return Err(stop);
        }
        let input = self.world.poll(at)?;
        if let Some(input) = &input {
            self.progress.arrived(input, self.world.input_number());
            if let Input::DiskDone { disk, tag, .. } = input {
                self.progress.requests.forget(*disk, *tag);
            }
            let body = self.body_of(input);
            self.enter(Entry { at, body })?;
        }
        Ok(input)
    }

    fn now(&mut self, at: At) -> Result<VirtTime, Stop> {
        let time = self.world.now(at)?.max(at.time);
        let position = Position { rcx: 0, ..at.position };
        self.sink.entry(&Entry { at: At { position, time }, body: Body::Time })?;
        Ok(time)
    }

    fn wake(&mut self, at: At, deadline: VirtTime) -> Result<Option<VirtTime>, Stop> {
        self.release()?;
        let woken = self.world.wake(at, deadline)?.map(|time| time.max(at.time));
        if let Some(time) = woken {
            self.enter(Entry { at, body: Body::Wake(time) })?;
        }
        Ok(woken)
    }

    fn landed(&mut self, at: At, landing: Landing) {
        let written = self.sink.entry(&entry_of(at, landing)).and_then(|()| self.release());
        self.keep(written);
        self.world.landed(at, landing);
    }

    forward_to_world!(input_number, idle);

    fn answer(&mut self, at: At, query: Query) -> Result<u64, Stop> {
        let value = self.world.answer(at, query)?;
        self.sink.entry(&Entry { at, body: Body::Answer(value) })?;
        Ok(value)
    }

    fn emit(&mut self, at: At, output: Output) {
        self.progress.emitted(&output);
        self.world.emit(at, output);
        self.mark(at);
    }

    fn digest_due(&self, at: At) -> bool {
        at.position.count >= self.next_epoch || self.world.digest_due(at)
    }

    fn digest(&mut self, at: At, digest: Digest) -> Result<(), Stop> {
        if self.world.digest_due(at) {
            self.world.digest(at, digest)?;
        }
        self.release()?;
        if at.position.count >= self.next_epoch {
            self.next_epoch = after(at.position.count, self.epoch);
            self.sink.entry(&Entry { at, body: Body::Digest(digest) })?;
            self.sink.flush()?;
        }
        Ok(())
    }
}
