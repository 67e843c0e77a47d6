//! A world that ends the run at a count.
//!
//! Not responsible for: anything else; the wrapped world answers.

use gemel_machine::{At, Digest, Input, Output, Query, Stop, StopAt, VirtTime, World};

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

    fn input_number(&self) -> Option<u64> {
        self.world.input_number()
    }

    fn idle(&mut self, at: At, until: VirtTime) -> Result<VirtTime, Stop> {
        self.world.idle(at, until)
    }

    fn answer(&mut self, at: At, query: Query) -> Result<u64, Stop> {
        self.world.answer(at, query)
    }

    fn emit(&mut self, at: At, output: Output) {
        self.world.emit(at, output);
    }

    fn digest_due(&self, at: At) -> bool {
        self.world.digest_due(at)
    }

    fn digest(&mut self, at: At, digest: Digest) -> Result<(), Stop> {
        self.world.digest(at, digest)
    }
}
