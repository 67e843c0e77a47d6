//! One machine on its way along its log: forth to any count, and back to places it was at.
//!
//! Not responsible for: comparing (`lockstep`, `narrow`).

use crate::error::Error;
use crate::pausing::Pausing;
use crate::place::{Back, Bookmark, Trail};
use crate::subject::Subject;
use gemel_log::OutputSummary;
use gemel_machine::{Aim, At, Machine, RunError, Stop, Until};
use gemel_replay::{Conclusion, Diverged, LogSource, NoOutput, Replay};
use gemel_x86::CpuState;
use std::cell::RefCell;
use std::io::Read;

type World = Pausing<Until<Replay<LogSource<Box<dyn Read>>, NoOutput>>>;

/// Which of the two lanes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Side {
    First = 0,
    Second = 1,
}

/// A machine and its log.
pub(crate) struct Lane<'s> {
    subject: &'s dyn Subject,
    side: Side,
    pub(crate) machine: Machine,
    world: World,
    /// Counts executed so far, on all ways.
    pub(crate) executed: u64,
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

impl<'s> Lane<'s> {
    /// A lane where the log begins.
    pub(crate) fn start(subject: &'s dyn Subject, side: Side) -> Result<Self, Error> {
        let source = subject.source().map_err(Error::subject)?;
        let disks = subject.disks().map_err(Error::subject)?;
        let machine = subject.machine().map_err(Error::subject)?;
        let progress = subject.progress().map_err(Error::subject)?;
        let replay = Replay::resume(source, NoOutput, disks, progress);
        Ok(Self { subject, side, machine, world: Pausing::new(Until::new(replay, None)), executed: 0 })
    }

    /// Goes back (or forth) to a place, with nothing cached.
    pub(crate) fn go_to(&mut self, trail: &Trail, back: Back) -> Result<(), Error> {
        let ram = self.machine.ram();
        let place = match back {
            Back::Last => {
                trail.ram.put_back(ram);
                &trail.last
            }
            Back::Marked => {
                trail.ram.put_marked_back(ram);
                &trail.marked
            }
        };
        self.machine.resume(&place.state)?;
        self.read_on(&place.bookmarks[self.side as usize])
    }

    /// Goes to a place whose machine is in a snapshot.
    pub(crate) fn go_to_snapshot(&mut self, snapshot: &[u8], bookmark: &Bookmark) -> Result<(), Error> {
        self.machine.restore(snapshot)?;
        self.read_on(bookmark)
    }

    /// Goes where another lane is that follows the same log.
    pub(crate) fn go_where(&mut self, other: &mut Lane<'_>) -> Result<(), Error> {
        self.go_to_snapshot(&other.machine.snapshot()?, &other.bookmark()?)
    }

    fn read_on(&mut self, bookmark: &Bookmark) -> Result<(), Error> {
        let mut source = self.subject.source().map_err(Error::subject)?;
        source.skip(bookmark.progress.entries())?;
        let disks = bookmark.disks.borrow_mut().duplicate().map_err(Error::subject)?;
        let replay = Replay::resume(source, NoOutput, disks, bookmark.progress.clone());
        self.world = Pausing::new(Until::new(replay, None));
        Ok(())
    }

    /// Runs to the first boundary whose count is not below `count`.
    pub(crate) fn run_to(&mut self, count: u64) -> Result<Arrival, Error> {
        self.world.world.rearm(count);
        self.world.pause(false);
        self.run()
    }

    /// Runs until the engine comes back: at the aim, at a stop that its log wants, or because it does so now and then; at the first
    /// boundary whose count is not below `count` at the latest.
    pub(crate) fn run_aimed(&mut self, aim: Aim, count: u64) -> Result<Arrival, Error> {
        self.world.world.rearm(count);
        self.world.pause(true);
        self.machine.vcpu().aim(aim);
        self.run()
    }

    fn run(&mut self) -> Result<Arrival, Error> {
        let from = self.at().position.count;
        let outcome = self.machine.run(&mut self.world);
        self.executed += self.at().position.count - from;
        if self.world.world.reached() || self.world.paused() {
            return Ok(Arrival::Boundary);
        }
        match self.world.world.world.conclude(&mut self.machine, outcome) {
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

    /// Its log from the first entry.
    pub(crate) fn log(&self) -> Result<LogSource<Box<dyn Read>>, Error> {
        self.subject.source().map_err(Error::subject)
    }

    /// Where the machine is.
    pub(crate) fn at(&self) -> At {
        self.machine.at()
    }

    /// The CPU's state.
    pub(crate) fn cpu(&mut self) -> Result<CpuState, Error> {
        Ok(self.machine.vcpu().save()?)
    }

    /// All outputs so far.
    pub(crate) fn outputs(&self) -> OutputSummary {
        self.world.world.world.tally().summary()
    }

    /// Where it is in its log.
    pub(crate) fn bookmark(&mut self) -> Result<Bookmark, Error> {
        let replay = &mut self.world.world.world;
        let disks = replay.disks().duplicate().map_err(Error::subject)?;
        Ok(Bookmark { progress: replay.progress().clone(), disks: RefCell::new(disks) })
    }
}

/// Whether two lanes are at the same place in the same state, and said the same on the way.
pub(crate) fn agree(a: (&mut Lane<'_>, &Arrival), b: (&mut Lane<'_>, &Arrival)) -> Result<bool, Error> {
    let arrived_alike = match (a.1, b.1) {
        // Two logs may differ in what they say of the place; what the machines are counts.
        (Arrival::Diverged(_), Arrival::Diverged(_)) | (Arrival::End(_), Arrival::End(_)) => true,
        (x, y) => x == y,
    };
    Ok(arrived_alike
        && a.0.at() == b.0.at()
        && a.0.outputs() == b.0.outputs()
        && a.0.machine.ram().digest() == b.0.machine.ram().digest()
        && a.0.machine.state()?.same_as(&b.0.machine.state()?))
}
