//! A world that ends a run when the engine first comes back.
//!
//! Not responsible for: why it comes back.

use gemel_machine::{At, Input, Stop, StopAt, World, forward_to_world};

/// Wraps a world; does nothing unless told to.
pub(crate) struct Pausing<W> {
    pub(crate) world: W,
    pauses: bool,
    ran: bool,
    paused: bool,
}

impl<W> Pausing<W> {
    pub(crate) fn new(world: W) -> Self {
        Self { world, pauses: false, ran: false, paused: false }
    }

    /// Whether the next run ends so.
    pub(crate) fn pause(&mut self, pauses: bool) {
        (self.pauses, self.ran, self.paused) = (pauses, false, false);
    }

    /// Whether the last run ended so.
    pub(crate) fn paused(&self) -> bool {
        self.paused
    }
}

impl<W: World> World for Pausing<W> {
    fn next_stop(&mut self, at: At) -> StopAt {
        self.ran = true;
        self.world.next_stop(at)
    }

    fn poll(&mut self, at: At) -> Result<Option<Input>, Stop> {
        if self.pauses && self.ran {
            self.paused = true;
            return Err(Stop::Quit);
        }
        self.world.poll(at)
    }

    forward_to_world!(input_number, idle, now, wake, landed, missed, answer, emit, digest_due, digest);
}
