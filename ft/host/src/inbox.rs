//! Where threads leave what comes in, until the machine takes it.
//!
//! Not responsible for: when an input reaches the guest (`inputs`), or where it comes from (`serial`, `control`,
//! `signals`).
//!
//! One mutex and two condition variables instead of a channel: a serial port that the guest does not read must hold
//! up its own sender and nothing else, least of all a request to quit.

use crate::SERIAL_PORTS;
use gemel_machine::Input;
use parking_lot::{Condvar, Mutex, MutexGuard};
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// Who asked for the end of the run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum QuitReason {
    /// Ctrl-A x on the terminal.
    Terminal,
    /// `quit` on the control socket.
    Control,
    /// A signal, by number.
    Signal(i32),
}

/// Bytes that may wait for one serial port before its sender has to wait too.
const SERIAL_QUEUE: usize = 4096;
/// Key presses that may wait; a person does not type that far ahead.
const KEY_QUEUE: usize = 4096;

/// Frames that may wait for the machine: as many as its interface has buffers, and as many again.
const FRAME_QUEUE: usize = 512;

/// A frame on its way in.
pub(crate) struct Arrival {
    pub nic: u8,
    pub bytes: Vec<u8>,
    /// What its sender calls it, if it numbers what it sends.
    pub number: Option<u64>,
}

/// Inputs for the board that may wait: nobody presses buttons that fast.
const BOARD_QUEUE: usize = 64;

/// What has come in and was not taken yet.
#[derive(Default)]
pub(crate) struct Waiting {
    pub serial: [VecDeque<u8>; SERIAL_PORTS],
    pub keys: VecDeque<Vec<u8>>,
    pub frames: VecDeque<Arrival>,
    /// A sender of frames found no room and went away.
    pub frames_refused: bool,
    /// For the board itself, in order.
    pub board: VecDeque<Input>,
    pub quit: Option<QuitReason>,
    /// Somebody else wants the machine's thread to look at its world.
    pub nudged: bool,
    sources: usize,
}

/// The meeting point of backend threads and the machine's thread.
#[derive(Default)]
pub struct Inbox {
    waiting: Mutex<Waiting>,
    arrived: Condvar,
    room: Condvar,
    any: AtomicBool,
}

/// Something that can still send. The machine may wait for ever only while one exists.
pub struct Source(Arc<Inbox>);

impl Drop for Source {
    fn drop(&mut self) {
        self.0.waiting.lock().sources -= 1;
        self.0.arrived.notify_all();
    }
}

impl Inbox {
    /// An empty inbox without sources.
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Registers a source of inputs, for as long as the returned value lives.
    pub fn source(self: &Arc<Self>) -> Source {
        self.waiting.lock().sources += 1;
        Source(Arc::clone(self))
    }

    /// Bytes for a serial port. Blocks while the guest is far behind; returns `false` when the run is over.
    pub fn serial(&self, port: usize, bytes: &[u8]) -> bool {
        for piece in bytes.chunks(SERIAL_QUEUE) {
            let mut waiting = self.waiting.lock();
            while waiting.serial[port].len() >= SERIAL_QUEUE && waiting.quit.is_none() {
                self.room.wait(&mut waiting);
            }
            if waiting.quit.is_some() {
                return false;
            }
            waiting.serial[port].extend(piece);
            self.announce(waiting);
        }
        true
    }

    /// A key, or several held together, as scan codes of set 2. `false` when too many wait already.
    pub fn key(&self, codes: Vec<u8>) -> bool {
        let mut waiting = self.waiting.lock();
        let room = waiting.keys.len() < KEY_QUEUE;
        if room {
            waiting.keys.push_back(codes);
        }
        self.announce(waiting);
        room
    }

    /// A frame, taken out of its place if there is room for it. `number`: what the sender calls it.
    pub(crate) fn offer_frame(&self, nic: u8, frame: &mut Option<Vec<u8>>, number: Option<u64>) {
        let mut waiting = self.waiting.lock();
        waiting.frames_refused |= waiting.frames.len() >= FRAME_QUEUE;
        if waiting.frames.len() < FRAME_QUEUE
            && let Some(bytes) = frame.take()
        {
            waiting.frames.push_back(Arrival { nic, bytes, number });
            self.announce(waiting);
        }
    }

    /// A frame. Blocks while there is no room for it; returns `false` when the run is over.
    pub(crate) fn frame(&self, nic: u8, bytes: Vec<u8>) -> bool {
        let mut waiting = self.waiting.lock();
        while waiting.frames.len() >= FRAME_QUEUE && waiting.quit.is_none() {
            self.room.wait(&mut waiting);
        }
        if waiting.quit.is_some() {
            return false;
        }
        waiting.frames.push_back(Arrival { nic, bytes, number: None });
        self.announce(waiting);
        true
    }

    /// Something for the board itself (the power button, the reset button, the plug), as soon as the machine takes inputs.
    /// `false` when too many wait already.
    pub fn board(&self, input: Input) -> bool {
        let mut waiting = self.waiting.lock();
        let room = waiting.board.len() < BOARD_QUEUE;
        if room {
            waiting.board.push_back(input);
        }
        self.announce(waiting);
        room
    }

    /// Ends the run. The first reason stays.
    pub fn quit(&self, reason: QuitReason) {
        let mut waiting = self.waiting.lock();
        waiting.quit.get_or_insert(reason);
        self.room.notify_all();
        self.announce(waiting);
    }

    /// Makes the machine's thread return from an idle wait early, once (a wrapper has something to do).
    pub fn nudge(&self) {
        let mut waiting = self.waiting.lock();
        waiting.nudged = true;
        self.announce(waiting);
    }

    /// Why the run was ended from outside, if it was.
    pub fn quit_reason(&self) -> Option<QuitReason> {
        self.waiting.lock().quit
    }

    /// Whether any source is left.
    pub fn has_sources(&self) -> bool {
        self.waiting.lock().sources > 0
    }

    fn announce(&self, waiting: MutexGuard<'_, Waiting>) {
        self.any.store(true, Ordering::Release);
        drop(waiting);
        self.arrived.notify_all();
    }

    /// Whether [`Inbox::take`] can find anything: one load, for the machine's frequent look.
    pub(crate) fn any(&self) -> bool {
        self.any.load(Ordering::Acquire)
    }

    /// Looks at what waits and takes of it. `f` says also whether something is left.
    pub(crate) fn take<R>(&self, f: impl FnOnce(&mut Waiting) -> (R, bool)) -> R {
        let mut waiting = self.waiting.lock();
        let (result, left) = f(&mut waiting);
        self.any.store(left, Ordering::Release);
        drop(waiting);
        self.room.notify_all();
        result
    }

    /// Sleeps until `wanted` holds (`true`), the deadline passed, or there is neither deadline nor source (`false`).
    pub(crate) fn wait(&self, deadline: Option<Instant>, wanted: impl Fn(&Waiting) -> bool) -> bool {
        let mut waiting = self.waiting.lock();
        loop {
            if wanted(&waiting) {
                return true;
            }
            match deadline {
                Some(at) if self.arrived.wait_until(&mut waiting, at).timed_out() => {
                    return wanted(&waiting);
                }
                Some(_) => {}
                None if waiting.sources == 0 => return false,
                None => self.arrived.wait(&mut waiting),
            }
        }
    }
}
