//! Where a clone's thread and the machine's thread meet.
//!
//! Not responsible for: what is done there (`send` asks, `cut` does).

use crate::protocol::PeerId;
use gemel_machine::GuestRam;
use gemel_machine::ram::PAGE_SIZE;
use parking_lot::{Condvar, Mutex, MutexGuard};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// What the machine's thread is asked to do between two runs.
pub(in crate::shell) enum Errand {
    /// Follow changes of RAM from here on, and tell the pages that are not all zeros.
    Follow,
    /// Tell the pages written since.
    Collect,
    /// Cut, unless more is left than fits.
    Cut {
        /// Who gets it.
        peer: PeerId,
        /// How long it takes.
        costs: Costs,
        /// Room for pages, so that the guest does not wait for the host's memory.
        room: Vec<u8>,
    },
}

/// How long what the guest waits for takes, about, in nanoseconds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::shell) struct Costs {
    pub(super) page: u64,
    pub(super) block: u64,
    /// The guest may wait for this long.
    pub(super) most: u64,
}

impl Costs {
    pub(super) fn of(self, pages: usize, blocks: usize) -> u64 {
        pages as u64 * self.page + blocks as u64 * self.block
    }

    /// Half of what is allowed: state and digest take time, too, and the host may have other things to do.
    pub(super) fn allows(self, pages: usize, blocks: usize) -> bool {
        self.of(pages, blocks) <= self.most / 2
    }
}

/// What the guest's machine was at the cut.
pub(in crate::shell) struct CutState {
    pub(super) pages: Vec<u32>,
    pub(super) content: Vec<u8>,
    pub(super) blocks: Vec<(u8, u64, Vec<u8>)>,
    pub(super) machine: Vec<u8>,
    pub(super) progress: Vec<u8>,
    /// How long the guest stood still.
    pub(super) pause: Duration,
}

/// What came of it.
pub(in crate::shell) enum Answer {
    /// This is followed, and these pages are to be copied.
    Follows(Arc<GuestRam>, Vec<u32>),
    /// These pages are to be copied again.
    Pages(Vec<u32>),
    /// It is cut.
    Cut(Box<CutState>),
    /// The machine cannot be copied.
    Failed(String),
}

#[derive(Default)]
struct Papers {
    errand: Option<Errand>,
    answer: Option<Answer>,
    /// The machine runs no more.
    closed: bool,
}

/// The desk.
#[derive(Default)]
pub(in crate::shell) struct Desk {
    /// Who copies the machine; the next waits.
    turn: Mutex<()>,
    papers: Mutex<Papers>,
    changed: Condvar,
    wanted: AtomicBool,
    /// Of a hundred parts of its time a guest that changes its memory too fast has to stand still this many.
    slowed: AtomicU64,
}

impl Desk {
    /// One copy at a time: changes of RAM and disks are told once.
    pub(super) fn turn(&self) -> MutexGuard<'_, ()> {
        self.turn.lock()
    }

    /// Asks for something, and waits until it is done. `nudge` makes the machine's thread look.
    pub(super) fn ask(&self, errand: Errand, nudge: impl Fn()) -> Option<Answer> {
        let mut papers = self.papers.lock();
        papers.errand = Some(errand);
        papers.answer = None;
        self.wanted.store(true, Relaxed);
        nudge();
        while papers.answer.is_none() && !papers.closed {
            self.changed.wait(&mut papers);
        }
        papers.answer.take()
    }

    /// Whether the machine's run is to end for an errand.
    pub(in crate::shell) fn is_wanted(&self) -> bool {
        self.wanted.load(Relaxed)
    }

    pub(super) fn take(&self) -> Option<Errand> {
        self.wanted.store(false, Relaxed);
        self.papers.lock().errand.take()
    }

    pub(super) fn answer(&self, answer: Answer) {
        self.papers.lock().answer = Some(answer);
        self.changed.notify_all();
    }

    /// The machine runs no more.
    pub(in crate::shell) fn close(&self) {
        self.papers.lock().closed = true;
        self.changed.notify_all();
    }

    /// Makes the guest stand still for so many parts in a hundred of its time.
    pub(super) fn slow(&self, percent: u64) {
        self.slowed.store(percent.min(95), Relaxed);
    }

    /// How long a guest that has run since `since` has to stand still.
    pub(in crate::shell) fn hold_up(&self, since: Instant) -> Option<Duration> {
        let percent = self.slowed.load(Relaxed);
        // A guest that slept has not changed anything for longer than this.
        let ran = since.elapsed().min(Duration::from_millis(10));
        (percent > 0).then(|| Duration::from_nanos(ran.as_nanos() as u64 * percent / (100 - percent)))
    }
}

/// Room for so many pages that the host has given already.
pub(super) fn room(pages: usize) -> Vec<u8> {
    let mut room = vec![1; pages * PAGE_SIZE];
    room.clear();
    room
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::thread::spawn;

    #[test]
    fn an_errand_is_done_once_and_nobody_waits_at_a_closed_desk() {
        let desk = Arc::new(Desk::default());
        assert!(!desk.is_wanted() && desk.take().is_none());
        let asking = {
            let desk = Arc::clone(&desk);
            spawn(move || desk.ask(Errand::Collect, || {}))
        };
        while !desk.is_wanted() {
            std::thread::yield_now();
        }
        assert!(matches!(desk.take(), Some(Errand::Collect)));
        assert!(!desk.is_wanted() && desk.take().is_none());
        desk.answer(Answer::Pages(vec![7]));
        assert!(matches!(asking.join().unwrap(), Some(Answer::Pages(pages)) if pages == [7]));
        desk.close();
        assert!(desk.ask(Errand::Collect, || {}).is_none());
    }

    #[test]
    fn a_slowed_guest_stands_still_for_its_share_of_the_time() {
        let desk = Desk::default();
        let since = Instant::now() - Duration::from_secs(1);
        assert_eq!(desk.hold_up(since), None);
        desk.slow(75);
        assert_eq!(desk.hold_up(since), Some(Duration::from_millis(30)), "of 10 ms that count");
        desk.slow(500);
        assert_eq!(desk.hold_up(since), Some(Duration::from_millis(190)));
    }

    #[test]
    fn half_of_the_pause_is_for_pages_and_blocks() {
        let costs = Costs { page: 1_000, block: 50_000, most: 10_000_000 };
        assert!(costs.allows(5_000, 0) && !costs.allows(5_001, 0));
        assert!(costs.allows(0, 100) && costs.allows(4_000, 20) && !costs.allows(4_000, 21));
    }
}
