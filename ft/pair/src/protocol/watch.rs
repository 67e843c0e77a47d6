//! How long a peer has been silent, in time that the watcher itself saw pass.
//!
//! Not responsible for: what follows from silence (`replication`).

/// Measures silence. A watcher that was itself stopped or starved has not listened: a stretch between two looks counts
/// for at most `longest_step`, so that what waits in its socket is read before anybody is suspected.
#[derive(Clone, Debug)]
pub struct Watch {
    looked: u64,
    silent: u64,
    longest_step: u64,
}

impl Watch {
    /// A watch that starts at `now`. All times in nanoseconds.
    pub fn new(now: u64, longest_step: u64) -> Self {
        Self { looked: now, silent: 0, longest_step }
    }

    /// Something arrived.
    pub fn heard(&mut self, now: u64) {
        self.looked = self.looked.max(now);
        self.silent = 0;
    }

    /// Looks at the clock; returns the silence observed so far.
    pub fn look(&mut self, now: u64) -> u64 {
        let step = now.saturating_sub(self.looked).min(self.longest_step);
        self.looked = self.looked.max(now);
        self.silent += step;
        self.silent
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_watchers_own_stall_does_not_count() {
        let mut watch = Watch::new(0, 10);
        assert_eq!(watch.look(8), 8);
        assert_eq!(watch.look(5_000), 18, "stopped for 5 us: at most one step counts");
        watch.heard(5_001);
        assert_eq!(watch.look(5_006), 5);
        assert_eq!(watch.look(5_000), 5, "a clock that goes back adds nothing");
    }
}
