//! A world that lets a person watch and interrupt a run that would otherwise listen to its log alone.
//!
//! Not responsible for: what the run does.

use gemel_host::Inbox;
use gemel_machine::{At, Input, Stop, StopAt, World, forward_to_world};
use indicatif::{ProgressBar, ProgressStyle};
use std::sync::Arc;

/// Counts between two looks: a few milliseconds.
const SLICE: u64 = 1 << 20;

/// Watches the wrapped world.
pub struct Watch<W> {
    /// The wrapped world.
    pub world: W,
    inbox: Arc<Inbox>,
    bar: Option<ProgressBar>,
}

/// A progress bar over a run of `length` counts, on standard error.
pub fn progress_bar(length: u64) -> ProgressBar {
    let style = ProgressStyle::with_template(
        "{bar:40} {percent:>3}% {human_pos}/{human_len} ({per_sec}, {eta} left)",
    );
    let bar = ProgressBar::new(length);
    match style {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

impl<W> Watch<W> {
    /// Wraps a world; requests to quit come through the inbox.
    pub fn new(world: W, inbox: Arc<Inbox>, bar: Option<ProgressBar>) -> Self {
        Self { world, inbox, bar }
    }
}

impl<W> Drop for Watch<W> {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

impl<W: World> World for Watch<W> {
    fn next_stop(&mut self, at: At) -> StopAt {
        let wanted = self.world.next_stop(at);
        StopAt { count: wanted.count.min((at.position.count / SLICE + 1) * SLICE), ..wanted }
    }

    fn poll(&mut self, at: At) -> Result<Option<Input>, Stop> {
        if self.inbox.quit_reason().is_some() {
            return Err(Stop::Quit);
        }
        if let Some(bar) = &self.bar {
            bar.set_position(at.position.count);
        }
        self.world.poll(at)
    }

    forward_to_world!(input_number, idle, now, wake, landed, missed, answer, emit, digest_due, digest);
}
