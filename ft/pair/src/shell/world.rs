//! A world that tells its side what the machine does.
//!
//! Not responsible for: answering the machine (the world inside), keeping outputs (`side`).

use super::side::Side;
use crate::protocol::{Channel, Event};
use gemel_machine::{At, Input, Output, Reckoning, Stop, StopAt, VirtTime, World, forward_to_world};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Guest time between two marks at most. Without them the secondary would not know how far a guest has come that
/// takes no input.
const MARK_INTERVAL: u64 = 1_000_000;
/// Counts from an output to the mark that covers it (20 us of guest time): bytes written together leave together.
const OUTPUT_BATCH: u64 = 5_000;
/// The same in exits, of which a driver makes a few for each byte.
const EXIT_BATCH: u64 = 32;
/// A guest that is slowed still looks at its world so often.
const LONGEST_PAUSE: Duration = Duration::from_millis(50);
/// The serial port that the console is connected to.
const CONSOLE: u8 = 0;

/// Wraps the world of one side, outermost.
pub struct Paired<W> {
    world: W,
    side: Arc<Side>,
    /// This machine leads: its positions are marks. Otherwise they are progress.
    leads: bool,
    /// Counts from an output to the mark that covers it.
    batch: u64,
    /// Guest time of the last mark.
    marked: VirtTime,
    /// When the machine went on after the last mark.
    went_on: Instant,
    /// Something happened since, which has to be covered by a mark at this count.
    due: Option<u64>,
    /// When a guest that leads was last let run.
    running: Instant,
}

impl<W: World> Paired<W> {
    pub(super) fn leading(world: W, side: Arc<Side>, reckoning: Reckoning) -> Self {
        let batch = if reckoning == Reckoning::Exits { EXIT_BATCH } else { OUTPUT_BATCH };
        let now = Instant::now();
        Self { world, side, leads: true, batch, marked: VirtTime(0), went_on: now, due: None, running: now }
    }

    pub(super) fn following(world: W, side: Arc<Side>, reckoning: Reckoning) -> Self {
        Self { leads: false, ..Self::leading(world, side, reckoning) }
    }

    pub(super) fn world(&mut self) -> &mut W {
        &mut self.world
    }

    pub(super) fn into_world(self) -> W {
        self.world
    }

    fn mark_if_due(&mut self, at: At) {
        if self.due.is_some() || at.time >= self.marked.after(MARK_INTERVAL) {
            self.mark(at);
        }
    }

    /// Sleeps the share of the time since the last mark that lets the secondaries keep up.
    fn keep_pace(&mut self) {
        if self.leads {
            let share = self.side.brake().min(999_999);
            if share > 0 {
                let worked = self.went_on.elapsed().as_nanos() as u64;
                let pause = worked.saturating_mul(share) / (1_000_000 - share);
                std::thread::sleep(Duration::from_nanos(pause).min(LONGEST_PAUSE));
            }
            self.went_on = Instant::now();
        }
    }

    fn mark(&mut self, at: At) {
        self.due = None;
        self.marked = at.time;
        self.side.event(Event::Reached(at));
        self.keep_pace();
    }

    /// Stands still for as long as the side wants it. The world inside has been polled here: a mark must not overtake an entry, and of
    /// machines that count exits entries wait for that.
    fn hold(&mut self, at: At) -> Result<(), Stop> {
        self.mark(at);
        self.side.event(Event::Held);
        while self.side.must_wait() && !self.side.must_stop() && !self.side.desk.is_wanted() {
            std::thread::sleep(Duration::from_micros(200));
        }
        self.went_on = Instant::now();
        if self.side.must_stop() { Err(Stop::Quit) } else { Ok(()) }
    }
}

impl<W: World> World for Paired<W> {
    fn next_stop(&mut self, at: At) -> StopAt {
        let wanted = self.world.next_stop(at);
        if !self.leads {
            return wanted;
        }
        StopAt {
            count: wanted.count.min(self.due.unwrap_or(u64::MAX)),
            time: wanted.time.min(self.marked.after(MARK_INTERVAL)),
            landing: wanted.landing,
        }
    }

    fn poll(&mut self, at: At) -> Result<Option<Input>, Stop> {
        if !self.leads {
            // Before the world inside waits for more to follow.
            self.side.event(Event::Reached(at));
        }
        if self.leads && self.side.desk.is_wanted() && !self.side.must_stop() {
            // The machine's thread has something to do between two runs, and comes back.
            return Err(Stop::Quit);
        }
        if self.leads
            && let Some(pause) = self.side.desk.hold_up(std::mem::replace(&mut self.running, Instant::now()))
        {
            std::thread::sleep(pause);
            self.running = Instant::now();
        }
        if self.side.must_stop() {
            return Err(Stop::Quit);
        }
        let input = self.world.poll(at)?;
        match &input {
            Some(Input::Serial { port: CONSOLE, bytes }) => {
                self.side.event(Event::InputTaken(bytes.len() as u64));
                self.due = Some(at.position.count);
            }
            Some(Input::Frame { .. }) => {
                self.side.event(Event::FrameTaken);
                self.due = Some(at.position.count);
            }
            Some(_) => self.due = Some(at.position.count),
            // Whatever comes from here on is not before this point.
            None if self.leads && self.side.must_wait() => self.hold(at)?,
            None if self.leads => self.mark_if_due(at),
            None => {}
        }
        Ok(input)
    }

    fn idle(&mut self, at: At, until: VirtTime) -> Result<VirtTime, Stop> {
        // What was printed before the guest went to sleep must not wait until it wakes.
        if self.leads && self.due.is_some() {
            self.mark_if_due(at);
        }
        self.world.idle(at, until)
    }

    forward_to_world!(input_number, now, wake, landed, missed, answer, digest_due, digest);

    fn emit(&mut self, at: At, output: Output) {
        let event = match &output {
            Output::Serial { port, byte } => Some(Event::Output(Channel::Serial(*port), *byte)),
            Output::Debug(byte) => Some(Event::Output(Channel::Debug, *byte)),
            Output::Frame { nic, bytes } => Some(Event::Frame((*nic, bytes.clone()))),
            // Private to the side: its own disk, its own flow control.
            Output::Disk(_) | Output::SerialConsumed { .. } => None,
        };
        if let Some(event) = event {
            self.side.event(event);
            self.due.get_or_insert(at.position.count.saturating_add(self.batch));
        }
        self.world.emit(at, output);
    }
}
