//! The console's server side: outputs by ordinal, inputs by number.
//!
//! Not responsible for: keeping outputs (`ring`), or when they may leave (`replication`).
//!
//! Outputs are numbered by their ordinal, inputs by their byte: the number of an input byte is the count of bytes typed
//! before it since power-on. The log needs no field for that: its entries hold the bytes, so whoever replays them has
//! counted them. A client keeps what it sent until it hears that a mark covers it, and sends the rest again to
//! whoever goes live.

use super::ring::{Channel, OutputRing};
use serde::{Deserialize, Serialize};

/// A client's connection, as the shell names it.
pub type ClientId = u64;

/// Outputs sent to a client and not acknowledged by it.
const OUTPUT_WINDOW: u64 = 64 << 10;
/// Outputs in one message.
const OUTPUT_CHUNK: usize = 4 << 10;
/// Input bytes that a client may have sent beyond the last [`ToClient::Consumed`].
pub const INPUT_WINDOW: u64 = 1 << 10;

/// What a client says.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum ToServer {
    /// Be my console. With the ordinal of the next output wanted; a new client takes what is there.
    Attach {
        /// The next ordinal.
        have: Option<u64>,
    },
    /// Everything below this ordinal has been shown.
    Ack {
        /// The next ordinal.
        next: u64,
    },
    /// Bytes typed.
    Input {
        /// Number of the first.
        number: u64,
        /// The bytes.
        bytes: Vec<u8>,
    },
    /// Tell me the figures, as [`ToClient::Figures`].
    Figures,
}

/// What the server says.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum ToClient {
    /// This side is not live; wait for `Live`.
    Standby,
    /// This side went live: attach again.
    Live {
        /// Its epoch.
        epoch: u64,
    },
    /// You are the console.
    Attached {
        /// This side's epoch.
        epoch: u64,
        /// Ordinal of the first output that follows.
        from: u64,
        /// Number of the next input byte wanted.
        input: u64,
    },
    /// Outputs.
    Output {
        /// This side's epoch; drop older ones.
        epoch: u64,
        /// Ordinal of the first byte.
        first: u64,
        /// Where they left the machine.
        channel: Channel,
        /// The bytes.
        bytes: Vec<u8>,
    },
    /// Input bytes below this number have reached the guest, and no failover undoes that.
    Consumed {
        /// This side's epoch.
        epoch: u64,
        /// Number of the next.
        number: u64,
    },
    /// Another client is the console now.
    Replaced,
    /// The guest ended; nothing follows.
    GuestEnded,
    /// Figures, as JSON.
    Figures(String),
}

/// What the server wants done.
pub(super) enum ServerAction {
    Send(ClientId, ToClient),
    Close(ClientId),
    /// Hand these to the machine's serial port.
    Input(Vec<u8>),
}

struct Attached {
    id: ClientId,
    /// Ordinal of the next output to send.
    next: u64,
    /// Outputs below this were shown.
    acknowledged: u64,
    /// The last [`ToClient::Consumed`].
    told: u64,
}

/// The server. One client at a time is the console; others may ask for figures.
pub struct ConsoleServer {
    /// The epoch, while this side is live.
    live: Option<u64>,
    client: Option<Attached>,
    waiting: Vec<ClientId>,
    /// Input bytes handed to the machine's serial port.
    accepted: u64,
    /// Input bytes that the machine took (by an entry).
    taken: u64,
}

impl Default for ConsoleServer {
    fn default() -> Self {
        Self::new()
    }
}

impl ConsoleServer {
    /// A server of a side that is not live.
    pub fn new() -> Self {
        Self { live: None, client: None, waiting: Vec::new(), accepted: 0, taken: 0 }
    }

    /// Whether a client is the console.
    pub fn has_client(&self) -> bool {
        self.client.is_some()
    }

    /// Input bytes that the machine took.
    pub fn taken(&self) -> u64 {
        self.taken
    }

    /// The machine took so many bytes: from this server, or from the log that it follows.
    pub(super) fn take(&mut self, bytes: u64) {
        self.taken += bytes;
        self.accepted = self.accepted.max(self.taken);
    }

    /// This machine is a clone, of one that took so many bytes.
    pub(super) fn restore(&mut self, taken: u64) {
        (self.taken, self.accepted) = (taken, taken);
    }

    /// This side is live in `epoch` from now on.
    pub(super) fn go_live(&mut self, epoch: u64, out: &mut Vec<ServerAction>) {
        if self.live == Some(epoch) {
            return;
        }
        self.live = Some(epoch);
        for id in self.waiting.drain(..).chain(self.client.take().map(|c| c.id)) {
            out.push(ServerAction::Send(id, ToClient::Live { epoch }));
        }
    }

    /// This side serves nobody any more.
    pub(super) fn stop(&mut self, guest_ended: bool, out: &mut Vec<ServerAction>) {
        self.live = None;
        for id in self.waiting.drain(..).chain(self.client.take().map(|c| c.id)) {
            if guest_ended {
                out.push(ServerAction::Send(id, ToClient::GuestEnded));
            }
            out.push(ServerAction::Close(id));
        }
    }

    pub(super) fn message(
        &mut self,
        id: ClientId,
        message: ToServer,
        ring: &mut OutputRing,
        out: &mut Vec<ServerAction>,
    ) {
        let attached = self.client.as_mut().filter(|c| c.id == id);
        match (message, attached) {
            (ToServer::Attach { have }, _) => self.attach(id, have, ring, out),
            (ToServer::Ack { next }, Some(client)) if next <= client.next => {
                client.acknowledged = client.acknowledged.max(next);
                ring.deliver(client.acknowledged);
            }
            (ToServer::Input { number, bytes }, Some(_)) if number <= self.accepted => {
                let known = usize::try_from(self.accepted - number).unwrap_or(usize::MAX);
                let fresh = bytes.get(known..).unwrap_or_default();
                if self.accepted + fresh.len() as u64 > self.taken + 2 * INPUT_WINDOW {
                    self.drop_client(id, out);
                } else if !fresh.is_empty() {
                    self.accepted += fresh.len() as u64;
                    out.push(ServerAction::Input(fresh.to_vec()));
                }
            }
            // From a console that was replaced, or before it attached: it will hear, or attach.
            (ToServer::Ack { .. } | ToServer::Input { .. }, None) => {}
            // Numbers that this side never gave: nobody to rely on.
            _ => self.drop_client(id, out),
        }
    }

    fn attach(&mut self, id: ClientId, have: Option<u64>, ring: &OutputRing, out: &mut Vec<ServerAction>) {
        self.waiting.retain(|w| *w != id);
        let Some(epoch) = self.live else {
            self.waiting.push(id);
            out.push(ServerAction::Send(id, ToClient::Standby));
            return;
        };
        if let Some(other) = self.client.take().filter(|c| c.id != id) {
            out.push(ServerAction::Send(other.id, ToClient::Replaced));
            out.push(ServerAction::Close(other.id));
        }
        let from = have.unwrap_or(0).max(ring.oldest());
        if from > ring.emitted() {
            // It has seen more than this machine has done: it belongs to another run.
            out.push(ServerAction::Close(id));
            return;
        }
        self.client = Some(Attached { id, next: from, acknowledged: from, told: 0 });
        out.push(ServerAction::Send(id, ToClient::Attached { epoch, from, input: self.accepted }));
    }

    fn drop_client(&mut self, id: ClientId, out: &mut Vec<ServerAction>) {
        self.closed(id);
        out.push(ServerAction::Close(id));
    }

    pub(super) fn closed(&mut self, id: ClientId) {
        self.waiting.retain(|w| *w != id);
        if self.client.as_ref().is_some_and(|c| c.id == id) {
            self.client = None;
        }
    }

    /// Sends what may leave, and says what has been consumed for good: input bytes below `inputs`.
    pub(super) fn flush(&mut self, ring: &OutputRing, inputs: u64, out: &mut Vec<ServerAction>) {
        let (Some(client), Some(epoch)) = (&mut self.client, self.live) else { return };
        while client.next.saturating_sub(client.acknowledged) < OUTPUT_WINDOW {
            // Outputs that nobody fetched in time are gone, as from a terminal's scrollback; `first` tells the client.
            client.next = client.next.max(ring.oldest());
            let Some((channel, bytes)) = ring.run_from(client.next, OUTPUT_CHUNK) else { break };
            let first = client.next;
            client.next += bytes.len() as u64;
            out.push(ServerAction::Send(client.id, ToClient::Output { epoch, first, channel, bytes }));
        }
        let number = inputs.min(self.taken);
        if number > client.told {
            client.told = number;
            out.push(ServerAction::Send(client.id, ToClient::Consumed { epoch, number }));
        }
    }
}
