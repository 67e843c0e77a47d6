//! One machine on its way along its log: forth to any count, and back to any checkpoint.
//!
//! Not responsible for: comparing (`lockstep`, `narrow`).

use crate::error::Error;
use crate::subject::Subject;
use gemel_machine::{At, Digest, Machine, RunError, Stop, Until};
use gemel_replay::{Conclusion, Diverged, LogSource, NoOutput, Progress, Replay, ReplayDisks};
use gemel_x86::CpuState;
use std::cell::RefCell;
use std::io::Read;

type World = Until<Replay<LogSource<Box<dyn Read>>, NoOutput>>;

/// A machine and its log.
pub(crate) struct Lane<'s> {
    subject: &'s dyn Subject,
    pub(crate) machine: Machine,
    world: World,
}

/// Where a lane came to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Arrival {
    /// The boundary that was asked for.
    Boundary,
    /// The end of its log, where everything was as the log says.
    End(Conclusion),
    /// Where it does not do what its log says.
    Diverged(Box<Diverged>),
}

/// A place to come back to.
pub(crate) struct Checkpoint {
    pub(crate) at: At,
    pub(crate) snapshot: Vec<u8>,
    pub(crate) progress: Progress,
    disks: RefCell<Box<dyn ReplayDisks>>,
}

impl<'s> Lane<'s> {
    /// A lane where the log begins.
    pub(crate) fn start(subject: &'s dyn Subject) -> Result<Self, Error> {
        let source = subject.source().map_err(Error::subject)?;
        let disks = subject.disks().map_err(Error::subject)?;
        let machine = subject.machine().map_err(Error::subject)?;
        let progress = subject.progress().map_err(Error::subject)?;
        let replay = Replay::resume(source, NoOutput, disks, progress);
        Ok(Self { subject, machine, world: Until::new(replay, None) })
    }

    /// Goes back (or forth) to a checkpoint, one of this lane's or of another machine that was there.
    pub(crate) fn go_to(&mut self, checkpoint: &Checkpoint) -> Result<(), Error> {
        self.machine.restore(&checkpoint.snapshot)?;
        let mut source = self.subject.source().map_err(Error::subject)?;
        source.skip(checkpoint.progress.entries())?;
        let disks = checkpoint.disks.borrow_mut().duplicate().map_err(Error::subject)?;
        let replay = Replay::resume(source, NoOutput, disks, checkpoint.progress.clone());
        self.world = Until::new(replay, None);
        Ok(())
    }

    /// Runs to the first boundary whose count is not below `count`.
    pub(crate) fn run_to(&mut self, count: u64) -> Result<Arrival, Error> {
        self.world.rearm(count);
        let outcome = self.machine.run(&mut self.world);
        if self.world.reached() {
            return Ok(Arrival::Boundary);
        }
        match self.world.world.conclude(&mut self.machine, outcome) {
            Ok(conclusion) => Ok(Arrival::End(conclusion)),
            Err(RunError::World(Stop::Diverged(e))) => match e.downcast() {
                Ok(diverged) => Ok(Arrival::Diverged(diverged)),
                Err(e) => Err(Error::Subject(e)),
            },
            Err(e) => Err(e.into()),
        }
    }

    /// How it is called.
    pub(crate) fn name(&self) -> &'s str {
        self.subject.name()
    }

    /// Where the machine is.
    pub(crate) fn at(&self) -> At {
        self.machine.at()
    }

    /// The machine's digest.
    pub(crate) fn digest(&mut self) -> Result<Digest, Error> {
        Ok(self.machine.digest()?)
    }

    /// The CPU's state.
    pub(crate) fn cpu(&mut self) -> Result<CpuState, Error> {
        Ok(self.machine.vcpu().save()?)
    }

    /// This place, to come back to.
    pub(crate) fn checkpoint(&mut self) -> Result<Checkpoint, Error> {
        let replay = &mut self.world.world;
        Ok(Checkpoint {
            at: self.machine.at(),
            snapshot: self.machine.snapshot()?,
            progress: replay.progress().clone(),
            disks: RefCell::new(replay.disks().duplicate().map_err(Error::subject)?),
        })
    }
}

/// Whether two lanes are at the same place in the same state.
pub(crate) fn agree(a: (&mut Lane<'_>, &Arrival), b: (&mut Lane<'_>, &Arrival)) -> Result<bool, Error> {
    let arrived_alike = match (a.1, b.1) {
        // Two logs may differ in what they say of the place; what the machines are counts.
        (Arrival::Diverged(_), Arrival::Diverged(_)) | (Arrival::End(_), Arrival::End(_)) => true,
        (x, y) => x == y,
    };
    Ok(arrived_alike && a.0.at() == b.0.at() && a.0.digest()? == b.0.digest()?)
}
