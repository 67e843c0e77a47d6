//! The gateway's link, at the side: frames out by ordinal, frames in by number.
//!
//! Not responsible for: keeping frames (`frames`), when they may leave (`replication`), or what they mean (the gateway's).
//!
//! The gateway is a client as the console's is, with three differences. It is connected to every side, also to those that follow,
//! and tells all of them which frames it has, so that none keeps what is not wanted. It is told who is live instead of asking. And
//! frames may be lost where bytes may not: by a gateway that was away too long.

use super::frames::{FrameRing, FrameRingState, NicFrame};
use super::ring::Weigh;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;

/// Room of the frames that wait for the gateway, or for the marks that cover them.
const RING_CAPACITY: usize = 4 << 20;
/// Bytes of frames sent to the gateway and not acknowledged by it.
const OUT_WINDOW: usize = 512 << 10;
/// Bytes of frames in one message.
const CHUNK: usize = 64 << 10;
/// Frames that the gateway may have sent beyond the last [`FromSide::Consumed`].
pub const FRAMES_WINDOW: u64 = 256;

/// What a side says to the gateway.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum FromSide {
    /// First of all: who I am.
    Attach {
        /// [`super::PROTOCOL`].
        protocol: u16,
        /// The VM's name.
        vm: String,
        /// The machine, which tells one power-on from another: [`gemel_machine::MachineSpec::id`].
        run: u64,
    },
    /// I am live; frames for the guest are mine.
    Live {
        /// My epoch.
        epoch: u64,
        /// Frames that my machine has sent so far.
        emitted: u64,
        /// Number of the next frame wanted.
        input: u64,
    },
    /// Frames of the guest.
    Frames {
        /// My epoch; drop older ones.
        epoch: u64,
        /// Ordinal of the first.
        first: u64,
        /// They.
        frames: Vec<NicFrame>,
    },
    /// Frames below this number have reached the guest, and no failover undoes that.
    Consumed {
        /// My epoch.
        epoch: u64,
        /// Number of the next.
        number: u64,
    },
}

/// What the gateway says to a side.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum ToSide {
    /// To the live side: send me frames.
    Ready {
        /// Its epoch.
        epoch: u64,
        /// The next ordinal wanted; a new gateway takes what is there.
        have: Option<u64>,
    },
    /// To every side: I have everything below this ordinal.
    Ack {
        /// The next ordinal.
        next: u64,
    },
    /// To the live side: frames for the guest.
    Frames {
        /// Number of the first.
        number: u64,
        /// They.
        frames: Vec<NicFrame>,
    },
    /// You are none that I serve, and why.
    Refused(String),
}

/// What a clone gets of its origin's link.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct GatewayState {
    /// The frames that may still be wanted.
    pub ring: FrameRingState,
    /// Frames that the machine took before.
    pub taken: u64,
    /// The machine, as its gateway knows it.
    pub run: u64,
}

/// What is to be done about the gateway.
pub(super) enum GatewayOrder {
    Send(FromSide),
    /// It says what it must not: drop the connection, and connect again.
    Close,
    /// Hand these to the machine's interfaces.
    Frames(Vec<NicFrame>),
}

/// What the gateway has of a live side.
struct Sending {
    /// Ordinal of the next frame to send.
    next: u64,
    /// Room of those sent and not acknowledged, by message: (ordinal behind it, room).
    unacknowledged: VecDeque<(u64, usize)>,
    /// The last [`FromSide::Consumed`].
    told: u64,
}

/// The side's end of the link.
pub struct GatewayServer {
    vm: String,
    run: u64,
    connected: bool,
    /// The epoch, while this side is live.
    live: Option<u64>,
    /// The epoch that the gateway was told.
    told_live: Option<u64>,
    sending: Option<Sending>,
    ring: FrameRing,
    /// Frames handed to the machine's interfaces.
    accepted: u64,
    /// Frames that the machine took (by an entry).
    taken: u64,
}

impl GatewayServer {
    /// The end of a side that is not live, of this VM and machine.
    pub fn new(vm: String, run: u64) -> Self {
        Self {
            vm,
            run,
            connected: false,
            live: None,
            told_live: None,
            sending: None,
            ring: FrameRing::new(RING_CAPACITY),
            accepted: 0,
            taken: 0,
        }
    }

    /// The frames.
    pub fn ring(&self) -> &FrameRing {
        &self.ring
    }

    /// Frames that the machine took.
    pub fn taken(&self) -> u64 {
        self.taken
    }

    /// The machine sent a frame.
    pub(super) fn push(&mut self, frame: NicFrame) {
        self.ring.push(frame);
    }

    /// The machine took a frame: one of the gateway's, or of the log that it follows.
    pub(super) fn take(&mut self) {
        self.taken += 1;
        self.accepted = self.accepted.max(self.taken);
    }

    /// What a clone needs of it.
    pub(super) fn state(&self) -> GatewayState {
        GatewayState { ring: self.ring.state(), taken: self.taken, run: self.run }
    }

    /// Becomes the end of the machine that this one is cloned from.
    pub(super) fn restore(&mut self, state: GatewayState) {
        self.ring.restore(state.ring);
        (self.taken, self.accepted, self.run) = (state.taken, state.taken, state.run);
    }

    /// Whether the gateway has all that may leave, or is not there.
    pub(super) fn is_idle(&self) -> bool {
        !self.connected || self.ring.delivered() >= self.ring.released()
    }

    /// A connection to the gateway stands.
    pub(super) fn connected(&mut self, out: &mut Vec<GatewayOrder>) {
        (self.connected, self.told_live, self.sending) = (true, None, None);
        out.push(GatewayOrder::Send(FromSide::Attach {
            protocol: super::PROTOCOL,
            vm: self.vm.clone(),
            run: self.run,
        }));
    }

    /// The connection is gone.
    pub(super) fn closed(&mut self) {
        (self.connected, self.told_live, self.sending) = (false, None, None);
    }

    /// This side is live in `epoch`, or serves nobody.
    pub(super) fn set_live(&mut self, epoch: Option<u64>) {
        if self.live != epoch {
            (self.live, self.sending) = (epoch, None);
        }
    }

    pub(super) fn message(&mut self, message: ToSide, out: &mut Vec<GatewayOrder>) {
        match (message, &mut self.sending) {
            (ToSide::Ready { epoch, have }, _) => {
                // An answer to an earlier epoch is followed by another.
                if Some(epoch) == self.live {
                    let next = have.unwrap_or(0).max(self.ring.oldest()).min(self.ring.emitted());
                    self.sending = Some(Sending { next, unacknowledged: VecDeque::new(), told: 0 });
                }
            }
            (ToSide::Ack { next }, sending) => {
                self.ring.deliver(next);
                if let Some(sending) = sending {
                    while sending.unacknowledged.pop_front_if(|(behind, _)| *behind <= next).is_some() {}
                }
            }
            (ToSide::Frames { number, frames }, Some(_)) if number <= self.accepted => {
                let known = usize::try_from(self.accepted - number).unwrap_or(usize::MAX);
                let fresh = frames.get(known..).unwrap_or_default();
                if self.accepted + fresh.len() as u64 > self.taken + 2 * FRAMES_WINDOW {
                    self.drop_gateway(out);
                } else if !fresh.is_empty() {
                    self.accepted += fresh.len() as u64;
                    out.push(GatewayOrder::Frames(fresh.to_vec()));
                }
            }
            // To a side that was live when they left.
            (ToSide::Frames { .. }, None) => {}
            (ToSide::Frames { .. }, Some(_)) | (ToSide::Refused(_), _) => self.drop_gateway(out),
        }
    }

    fn drop_gateway(&mut self, out: &mut Vec<GatewayOrder>) {
        self.closed();
        out.push(GatewayOrder::Close);
    }

    /// Sends what may leave: frames below `frames`; and says what has been consumed for good: frames below `taken`.
    pub(super) fn flush(&mut self, frames: u64, taken: u64, out: &mut Vec<GatewayOrder>) {
        self.ring.release(frames);
        let Some(epoch) = self.live.filter(|_| self.connected) else { return };
        if self.told_live != Some(epoch) {
            self.told_live = Some(epoch);
            let (emitted, input) = (self.ring.emitted(), self.accepted);
            out.push(GatewayOrder::Send(FromSide::Live { epoch, emitted, input }));
        }
        let Some(sending) = &mut self.sending else { return };
        let mut under_way: usize = sending.unacknowledged.iter().map(|(_, room)| room).sum();
        while under_way < OUT_WINDOW {
            // Frames that nobody fetched in time are lost, as on a line that is down.
            sending.next = sending.next.max(self.ring.oldest());
            let frames = self.ring.run_from(sending.next, CHUNK);
            if frames.is_empty() {
                break;
            }
            let (first, room) = (sending.next, frames.iter().map(Weigh::weight).sum());
            sending.next += frames.len() as u64;
            sending.unacknowledged.push_back((sending.next, room));
            under_way += room;
            out.push(GatewayOrder::Send(FromSide::Frames { epoch, first, frames }));
        }
        let number = taken.min(self.taken);
        if number > sending.told {
            sending.told = number;
            out.push(GatewayOrder::Send(FromSide::Consumed { epoch, number }));
        }
    }
}
