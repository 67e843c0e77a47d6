//! The gateway's end of its link to the sides of one VM: every frame of the guest once and in order, every frame for it once, whichever
//! side is live.
//!
//! Not responsible for: sockets (`shell`), what the frames mean (`gemel-net`).

use super::frames::NicFrame;
use super::gateway::{FRAMES_WINDOW, FromSide, ToSide};
use super::ring::Weigh;
use std::collections::{BTreeMap, VecDeque};

/// Names a side's connection to the gateway; never used again.
pub type SideId = u64;

/// Room for frames that wait for the guest to take them for good. More are lost, as on a wire.
const CAPACITY: usize = 4 << 20;
/// Bytes of frames in one message.
const CHUNK: usize = 64 << 10;

/// What happens to the gateway.
#[derive(Clone, Debug)]
pub enum GatewayEvent {
    /// A side says something.
    Message(SideId, FromSide),
    /// The connection to a side is gone.
    Closed(SideId),
    /// A frame for the guest.
    Frame(NicFrame),
}

/// What the gateway wants done.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum GatewayAction {
    /// Say something to a side.
    Send(SideId, ToSide),
    /// Drop the connection to a side.
    Close(SideId),
    /// Frames that the guest sent.
    Frames(Vec<NicFrame>),
    /// A side is live in this epoch.
    Live(SideId, u64),
}

/// The gateway's state for one VM.
#[derive(Clone, Debug, Default)]
pub struct GatewayClient {
    /// Connected sides, and the machine that each runs.
    sides: BTreeMap<SideId, u64>,
    /// The machine that the rest is about.
    run: Option<u64>,
    /// The latest epoch heard of.
    epoch: u64,
    /// The side that is live in it, while it is connected.
    live: Option<SideId>,
    /// The next ordinal wanted; none before the first side went live.
    have: Option<u64>,
    /// Frames for the guest that are not known to be consumed for good.
    waiting: VecDeque<NicFrame>,
    /// Room that they take.
    weight: usize,
    /// Number of the front of `waiting`.
    consumed: u64,
    /// Number of the next frame to send to the live side.
    sent: u64,
    /// Frames for the guest that were lost for want of room.
    lost: u64,
}

impl GatewayClient {
    /// A gateway that knows no side.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether a side was ever live: what this end knows is then worth keeping.
    pub fn has_history(&self) -> bool {
        self.run.is_some()
    }

    /// The live side and its epoch.
    pub fn live(&self) -> Option<(SideId, u64)> {
        self.live.map(|side| (side, self.epoch))
    }

    /// The next ordinal wanted.
    pub fn have(&self) -> u64 {
        self.have.unwrap_or(0)
    }

    /// Frames for the guest that were lost for want of room.
    pub fn lost(&self) -> u64 {
        self.lost
    }

    /// Takes an event.
    pub fn handle(&mut self, event: GatewayEvent) -> Vec<GatewayAction> {
        let mut out = Vec::new();
        match event {
            GatewayEvent::Message(side, message) => self.message(side, message, &mut out),
            GatewayEvent::Closed(side) => {
                self.sides.remove(&side);
                self.live.take_if(|live| *live == side);
            }
            GatewayEvent::Frame(frame) => {
                let room = frame.weight();
                if self.weight + room > CAPACITY {
                    self.lost += 1;
                } else {
                    self.weight += room;
                    self.waiting.push_back(frame);
                    self.send_waiting(&mut out);
                }
            }
        }
        out
    }

    fn message(&mut self, side: SideId, message: FromSide, out: &mut Vec<GatewayAction>) {
        let known = self.sides.contains_key(&side);
        match message {
            FromSide::Attach { protocol, run, .. } if !known => {
                if protocol != super::PROTOCOL {
                    let why =
                        format!("protocol {} here, {protocol} there: run the same gemel", super::PROTOCOL);
                    out.push(GatewayAction::Send(side, ToSide::Refused(why)));
                    out.push(GatewayAction::Close(side));
                    return;
                }
                self.sides.insert(side, run);
                if let Some(next) = self.have.filter(|_| self.run == Some(run)) {
                    out.push(GatewayAction::Send(side, ToSide::Ack { next }));
                }
            }
            FromSide::Live { epoch, emitted, input } if known => {
                self.went_live(side, epoch, emitted, input, out)
            }
            FromSide::Frames { epoch, first, frames } if known => {
                if epoch == self.epoch && self.live == Some(side) {
                    self.take(first, frames, out);
                }
            }
            FromSide::Consumed { epoch, number } if known => {
                if epoch == self.epoch && self.live == Some(side) && number <= self.sent {
                    self.forget_below(number);
                    self.send_waiting(out);
                }
            }
            // Who says who it is twice, or never, is no side.
            _ => out.push(GatewayAction::Close(side)),
        }
    }

    fn went_live(
        &mut self,
        side: SideId,
        epoch: u64,
        emitted: u64,
        input: u64,
        out: &mut Vec<GatewayAction>,
    ) {
        let run = self.sides.get(&side).copied();
        let new = self.run.is_none();
        // A machine that has sent less than was had from it is another one: the VM was powered on anew.
        let another = !new && (self.run != run || self.have.is_some_and(|have| emitted < have));
        // Epochs rise from one power-on to the next, unless somebody has cleared the arbiter away since.
        let abandoned = another && !self.sides.iter().any(|(id, of)| *id != side && Some(*of) == self.run);
        if epoch < self.epoch && !abandoned {
            return;
        }
        self.run = run;
        if another {
            (self.have, self.weight) = (None, 0);
            self.waiting.clear();
        }
        if new || another || input < self.consumed || input > self.consumed + self.waiting.len() as u64 {
            // What waits has no numbers yet, or another gateway was here in between: it comes after what was taken.
            self.consumed = input;
        }
        (self.epoch, self.live, self.sent) = (epoch, Some(side), input);
        out.push(GatewayAction::Live(side, epoch));
        out.push(GatewayAction::Send(side, ToSide::Ready { epoch, have: self.have }));
        self.send_waiting(out);
    }

    fn take(&mut self, first: u64, frames: Vec<NicFrame>, out: &mut Vec<GatewayAction>) {
        // What lies between was lost while nobody fetched it.
        let have = self.have.unwrap_or(first).max(first);
        let known = usize::try_from(have - first).unwrap_or(usize::MAX);
        let fresh = frames.get(known..).unwrap_or_default().to_vec();
        let next = have + fresh.len() as u64;
        self.have = Some(next);
        let told = self.sides.iter().filter(|(_, run)| Some(**run) == self.run);
        out.extend(told.map(|(side, _)| GatewayAction::Send(*side, ToSide::Ack { next })));
        if !fresh.is_empty() {
            out.push(GatewayAction::Frames(fresh));
        }
    }

    fn forget_below(&mut self, number: u64) {
        while self.consumed < number
            && let Some(frame) = self.waiting.pop_front()
        {
            self.weight -= frame.weight();
            self.consumed += 1;
        }
    }

    /// Sends what the window allows.
    fn send_waiting(&mut self, out: &mut Vec<GatewayAction>) {
        let Some(side) = self.live else { return };
        let end = self.consumed + (self.waiting.len() as u64).min(FRAMES_WINDOW);
        while self.sent < end {
            let (from, to) = ((self.sent - self.consumed) as usize, (end - self.consumed) as usize);
            let mut room = CHUNK;
            let fits = |frame: &&NicFrame| {
                let fits = room > 0;
                room = room.saturating_sub(frame.weight());
                fits
            };
            let frames: Vec<NicFrame> = self.waiting.range(from..to).take_while(fits).cloned().collect();
            let number = self.sent;
            self.sent += frames.len() as u64;
            out.push(GatewayAction::Send(side, ToSide::Frames { number, frames }));
        }
    }
}
