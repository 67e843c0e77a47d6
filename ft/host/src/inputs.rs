//! Which of the things that came in reach the guest now.
//!
//! Not responsible for: waiting (`live`), where they come from (`inbox` and its senders).

use crate::SERIAL_PORTS;
use crate::inbox::{Arrival, Inbox, Waiting};
use gemel_machine::{Input, Stop, VirtTime, world::SERIAL_WINDOW};
use std::sync::Arc;
use std::time::Instant;

/// Guest time between two keys: a PS/2 keyboard has 16 bytes of buffer, and a guest that is handed keys faster than
/// its driver looks loses some.
const KEY_INTERVAL_NS: u64 = 10_000_000;

/// Frames that reach the guest at one time: with more at once, a driver would find its ring empty and lose them.
const FRAMES_AT_ONCE: usize = 32;

/// The machine's side of the [`Inbox`]: serial credit and the pace of keys.
pub struct Inputs {
    inbox: Arc<Inbox>,
    /// Bytes sent to each port and not yet taken by the guest.
    in_flight: [usize; SERIAL_PORTS],
    next_key: VirtTime,
    frames: Frames,
}

/// Frames handed over so far, as far as it matters for the next.
#[derive(Default)]
struct Frames {
    /// When the last came, and how many had come by then at that time.
    last: (VirtTime, usize),
    /// The number of the last input, if it was a frame and had one.
    number: Option<u64>,
    /// Somebody found no room, and there is some now.
    room: bool,
}

impl Frames {
    /// Whether one more can come now.
    fn may_come(&self, now: VirtTime) -> bool {
        now != self.last.0 || self.last.1 < FRAMES_AT_ONCE
    }

    fn take(&mut self, waiting: &mut Waiting, now: VirtTime) -> Option<Input> {
        if !self.may_come(now) {
            return None;
        }
        let Arrival { nic, bytes, number } = waiting.frames.pop_front()?;
        self.last = (now, if now == self.last.0 { self.last.1 + 1 } else { 1 });
        self.number = number;
        self.room |= std::mem::take(&mut waiting.frames_refused);
        Some(Input::Frame { nic, bytes })
    }
}

impl Inputs {
    /// Inputs from an inbox.
    pub fn new(inbox: Arc<Inbox>) -> Self {
        Self { inbox, in_flight: [0; SERIAL_PORTS], next_key: VirtTime(0), frames: Frames::default() }
    }

    /// The inbox, for further senders.
    pub fn inbox(&self) -> &Arc<Inbox> {
        &self.inbox
    }

    /// The guest took bytes of a port: there is room for as many more.
    pub fn consumed(&mut self, port: u8, count: u16) {
        if let Some(n) = self.in_flight.get_mut(usize::from(port)) {
            *n = n.saturating_sub(usize::from(count));
        }
    }

    /// Bytes are in flight that another world sent (it handed the machine over).
    pub fn resume_in_flight(&mut self, port: u8, count: usize) {
        if let Some(n) = self.in_flight.get_mut(usize::from(port)) {
            *n = count;
        }
    }

    /// The number that the sender of the last input gave it, if it numbers what it sends.
    pub fn number(&self) -> Option<u64> {
        self.frames.number
    }

    /// Whether there is room again for frames, where somebody found none; said once.
    pub(crate) fn has_room_again(&mut self) -> bool {
        std::mem::take(&mut self.frames.room)
    }

    /// The next input for the guest at this time.
    ///
    /// # Errors
    /// [`Stop::Quit`] when somebody asked for the end.
    pub fn take(&mut self, now: VirtTime) -> Result<Option<Input>, Stop> {
        self.frames.number = None;
        if !self.inbox.any() {
            return Ok(None);
        }
        let Self { inbox, in_flight, next_key, frames } = self;
        inbox.take(|waiting| {
            waiting.nudged = false;
            if waiting.quit.is_some() {
                return (Err(Stop::Quit), true);
            }
            let input = take_one(waiting, in_flight, next_key, frames, now);
            let left = !waiting.board.is_empty()
                || !waiting.keys.is_empty()
                || !waiting.frames.is_empty()
                || waiting.serial.iter().any(|queue| !queue.is_empty());
            (Ok(input), left)
        })
    }

    /// When the next key is due, or [`VirtTime::NEVER`].
    pub fn next_due(&self) -> VirtTime {
        let waits = self.inbox.any() && self.inbox.take(|w| (!w.keys.is_empty(), true));
        if waits { self.next_key } else { VirtTime::NEVER }
    }

    /// Sleeps until there is something for the guest or the world, or the host's clock reaches the deadline.
    /// `key_waits`: a key that waits for its time is already in the deadline. `false`: the deadline passed, or there
    /// is none and nobody is left who could send.
    pub(crate) fn wait(&self, deadline: Option<Instant>, key_waits: bool) -> bool {
        self.inbox.wait(deadline, |waiting| {
            self.wakes(waiting) || !waiting.frames.is_empty() || (!waiting.keys.is_empty() && !key_waits)
        })
    }

    /// Whether [`Inputs::take`] would return something at this time.
    pub(crate) fn deliverable(&self, now: VirtTime) -> bool {
        self.inbox.any()
            && self.inbox.take(|w| {
                let key = !w.keys.is_empty() && now >= self.next_key;
                let frame = !w.frames.is_empty() && self.frames.may_come(now);
                (self.wakes(w) || key || frame, true)
            })
    }

    fn wakes(&self, waiting: &Waiting) -> bool {
        waiting.quit.is_some()
            || waiting.nudged
            || !waiting.board.is_empty()
            || (0..SERIAL_PORTS).any(|p| portion(waiting.serial[p].len(), self.in_flight[p]) > 0)
    }
}

/// How many of the bytes that wait for a port to send now. A guest takes a long text in small bites; following each
/// with as small a portion would make an input, and a log entry, of every few bytes.
fn portion(waiting: usize, in_flight: usize) -> usize {
    let room = SERIAL_WINDOW.saturating_sub(in_flight);
    if waiting <= room || room >= SERIAL_WINDOW / 2 { waiting.min(room) } else { 0 }
}

fn take_one(
    waiting: &mut Waiting,
    in_flight: &mut [usize; SERIAL_PORTS],
    next_key: &mut VirtTime,
    frames: &mut Frames,
    now: VirtTime,
) -> Option<Input> {
    if let Some(input) = waiting.board.pop_front() {
        return Some(input);
    }
    for (port, queue) in waiting.serial.iter_mut().enumerate() {
        let count = portion(queue.len(), in_flight[port]);
        if count > 0 {
            in_flight[port] += count;
            return Some(Input::Serial { port: port as u8, bytes: queue.drain(..count).collect() });
        }
    }
    if let Some(frame) = frames.take(waiting, now) {
        return Some(frame);
    }
    if now >= *next_key
        && let Some(codes) = waiting.keys.pop_front()
    {
        *next_key = now.after(KEY_INTERVAL_NS);
        return Some(Input::Key(codes));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inbox::QuitReason;

    fn serial(input: Option<Input>) -> usize {
        match input {
            Some(Input::Serial { port: 0, bytes }) => bytes.len(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn no_more_than_the_window_is_in_flight() {
        let inbox = Inbox::new();
        let mut inputs = Inputs::new(Arc::clone(&inbox));
        assert!(inbox.serial(0, &[7; 600]));
        assert_eq!(serial(inputs.take(VirtTime(0)).unwrap()), SERIAL_WINDOW);
        assert_eq!(inputs.take(VirtTime(0)).unwrap(), None);
        inputs.consumed(0, 127);
        assert_eq!(inputs.take(VirtTime(0)).unwrap(), None, "no small portions");
        inputs.consumed(0, 1);
        assert_eq!(serial(inputs.take(VirtTime(0)).unwrap()), 128);
        inputs.consumed(0, 200);
        assert_eq!(serial(inputs.take(VirtTime(0)).unwrap()), 200);
        inputs.consumed(0, 20);
        assert_eq!(serial(inputs.take(VirtTime(0)).unwrap()), 16, "the rest fits");
        assert_eq!(inputs.take(VirtTime(0)).unwrap(), None);
    }

    #[test]
    fn keys_keep_their_distance_in_guest_time() {
        let inbox = Inbox::new();
        let mut inputs = Inputs::new(Arc::clone(&inbox));
        assert_eq!(inputs.next_due(), VirtTime::NEVER);
        inbox.key(vec![1]);
        inbox.key(vec![2]);
        assert_eq!(inputs.take(VirtTime(5)).unwrap(), Some(Input::Key(vec![1])));
        assert_eq!(inputs.take(VirtTime(6)).unwrap(), None);
        let due = inputs.next_due();
        assert_eq!(due, VirtTime(5 + KEY_INTERVAL_NS));
        assert_eq!(inputs.take(due).unwrap(), Some(Input::Key(vec![2])));
        assert_eq!(inputs.next_due(), VirtTime::NEVER);
    }

    #[test]
    fn frames_come_in_order_and_not_all_at_once() {
        let inbox = Inbox::new();
        let mut inputs = Inputs::new(Arc::clone(&inbox));
        let mut refused = None;
        for n in 0..1000u16 {
            let mut frame = Some(n.to_le_bytes().to_vec());
            inbox.offer_frame(0, &mut frame, (n == 1).then_some(99));
            refused = refused.or(frame);
        }
        assert!(refused.is_some() && !inputs.has_room_again());
        for n in 0..FRAMES_AT_ONCE as u16 {
            let frame = inputs.take(VirtTime(7)).unwrap();
            assert_eq!(frame, Some(Input::Frame { nic: 0, bytes: n.to_le_bytes().to_vec() }));
            assert_eq!((inputs.number(), inputs.has_room_again()), ((n == 1).then_some(99), n == 0));
        }
        assert_eq!(inputs.take(VirtTime(7)).unwrap(), None);
        assert!(!inputs.deliverable(VirtTime(7)) && inputs.deliverable(VirtTime(8)));
        assert!(inputs.take(VirtTime(8)).unwrap().is_some());
    }

    #[test]
    fn a_full_port_holds_up_its_sender_but_not_a_request_to_quit() {
        let inbox = Inbox::new();
        let sender = {
            let inbox = Arc::clone(&inbox);
            std::thread::spawn(move || inbox.serial(1, &[0; 100_000]))
        };
        while !inbox.any() {
            std::thread::yield_now();
        }
        inbox.quit(QuitReason::Control);
        assert!(matches!(Inputs::new(Arc::clone(&inbox)).take(VirtTime(0)), Err(Stop::Quit)));
        assert!(!sender.join().unwrap());
        assert_eq!(inbox.quit_reason(), Some(QuitReason::Control));
    }

    #[test]
    fn waiting_for_ever_needs_somebody_who_can_send() {
        let inbox = Inbox::new();
        let inputs = Inputs::new(Arc::clone(&inbox));
        assert!(!inputs.wait(None, false));
        let source = inbox.source();
        let closer = std::thread::spawn(move || drop(source));
        assert!(!inputs.wait(None, false));
        closer.join().unwrap();
    }
}
