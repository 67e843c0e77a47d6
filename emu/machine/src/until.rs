//! A world that ends the run at a count.
//!
//! Not responsible for: anything else; the wrapped world answers.

use crate::forward_to_world;
use crate::world::{At, Input, Stop, StopAt, World};

/// Ends the run at the first boundary whose count is not below a limit.
pub struct Until<W> {
    /// The wrapped world.
    pub world: W,
    limit: u64,
    reached: bool,
}

impl<W> Until<W> {
    /// Wraps a world; `None` is no limit.
    pub fn new(world: W, limit: Option<u64>) -> Self {
        Self { world, limit: limit.unwrap_or(u64::MAX), reached: false }
    }

    /// Sets another limit, for the next run.
    pub fn rearm(&mut self, limit: u64) {
        (self.limit, self.reached) = (limit, false);
    }

    /// Whether the limit ended the run.
    pub fn reached(&self) -> bool {
        self.reached
    }
}

impl<W: World> World for Until<W> {
    fn next_stop(&mut self, at: At) -> StopAt {
        let wanted = self.world.next_stop(at);
        StopAt { count: wanted.count.min(self.limit), ..wanted }
    }

    fn poll(&mut self, at: At) -> Result<Option<Input>, Stop> {
        if at.position.count >= self.limit {
            self.reached = true;
            return Err(Stop::Quit);
        }
        self.world.poll(at)
    }

    forward_to_world!(input_number, idle, now, wake, landed, missed, answer, emit, digest_due, digest);
}
