//! Places to come back to.
//!
//! Not responsible for: going there (`lane`).

use crate::error::Error;
use crate::lane::Lane;
use crate::mirror::Mirror;
use gemel_machine::{At, MachineState};
use gemel_replay::{Progress, ReplayDisks};
use std::cell::RefCell;

/// How far a lane is in its log, and its disks there.
pub(crate) struct Bookmark {
    pub(crate) progress: Progress,
    pub(crate) disks: RefCell<Box<dyn ReplayDisks>>,
}

/// One boundary: a machine that two lanes share, and where each is in its log.
pub(crate) struct Place {
    pub(crate) at: At,
    pub(crate) state: MachineState,
    pub(crate) bookmarks: [Bookmark; 2],
}

impl Place {
    fn of(lanes: &mut (Lane<'_>, Lane<'_>), judge: bool) -> Result<Self, Error> {
        let first = lanes.0.bookmark()?;
        // A judge goes on where the first one is, with the first one's log.
        let second = if judge { lanes.0.bookmark()? } else { lanes.1.bookmark()? };
        Ok(Self { at: lanes.0.at(), state: lanes.0.machine.state()?, bookmarks: [first, second] })
    }
}

/// The last place at which both lanes were the same, and the one at which the interval began.
pub(crate) struct Trail {
    pub(crate) ram: Mirror,
    pub(crate) last: Place,
    pub(crate) marked: Place,
}

/// A place on a trail.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Back {
    /// The last one.
    Last,
    /// Where the interval began.
    Marked,
}

impl Trail {
    /// Begins where the first lane is.
    pub(crate) fn begin(lanes: &mut (Lane<'_>, Lane<'_>), judge: bool) -> Result<Self, Error> {
        lanes.0.machine.ram().digest();
        Ok(Self {
            ram: Mirror::of(lanes.0.machine.ram()),
            last: Place::of(lanes, judge)?,
            marked: Place::of(lanes, judge)?,
        })
    }

    /// An interval begins where the first lane is.
    pub(crate) fn mark(&mut self, lanes: &mut (Lane<'_>, Lane<'_>), judge: bool) -> Result<(), Error> {
        lanes.0.machine.ram().digest();
        self.ram.follow(lanes.0.machine.ram());
        self.ram.mark();
        self.last = Place::of(lanes, judge)?;
        self.marked = Place::of(lanes, judge)?;
        Ok(())
    }

    /// Both lanes are the same here, and their RAM's digests were just taken.
    pub(crate) fn advance(&mut self, lanes: &mut (Lane<'_>, Lane<'_>)) -> Result<(), Error> {
        self.ram.follow(lanes.0.machine.ram());
        self.last = Place::of(lanes, false)?;
        Ok(())
    }
}
