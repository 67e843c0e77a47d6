//! The console's client: shows every output once and delivers every typed byte once, whichever side is live.
//!
//! Not responsible for: sockets, the terminal (the command line's).

use super::console::{INPUT_WINDOW, ToClient, ToServer};
use super::mutant::Mutant;
use super::ring::Channel;
use std::collections::VecDeque;

/// What happens to a client. `side` is an index into the addresses that it was given.
#[derive(Clone, Debug)]
pub enum ClientEvent {
    /// A connection to a side stands.
    Connected(usize),
    /// A side says something.
    Message(usize, ToClient),
    /// The connection to a side is gone.
    Closed(usize),
    /// The user typed.
    Typed(Vec<u8>),
}

/// What a client wants done.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ClientAction {
    /// Say something to a side.
    Send(usize, ToServer),
    /// Drop the connection to a side, and connect again in a while.
    Close(usize),
    /// Show output bytes.
    Show(Channel, Vec<u8>),
    /// So many outputs are gone because nobody fetched them in time.
    Missed(u64),
    /// A side went live in this epoch, and this console talks to it now.
    Live(usize, u64),
    /// Figures that were asked for, as JSON, and the side that they are of.
    Figures(usize, String),
    /// The guest ended and everything was shown.
    GuestEnded,
    /// Another client is the console now.
    Replaced,
}

/// The client's state.
#[derive(Clone, Debug, Default)]
pub struct ConsoleClient {
    /// The next output wanted; none before the first attachment.
    have: Option<u64>,
    /// The latest epoch heard of.
    epoch: u64,
    /// The side that this client is attached to.
    side: Option<usize>,
    /// Typed and not yet known to be consumed for good.
    typed: VecDeque<u8>,
    /// Number of the front of `typed`.
    consumed: u64,
    /// Number of the next byte to send to `side`.
    sent: u64,
    /// Whether `consumed` follows a server's count.
    numbered: bool,
}

impl ConsoleClient {
    /// A client that has seen nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// The next output wanted: the number of outputs shown, when attached since power-on.
    pub fn shown(&self) -> u64 {
        self.have.unwrap_or(0)
    }

    /// The epoch and side that it is attached to.
    pub fn attached(&self) -> Option<(usize, u64)> {
        self.side.map(|side| (side, self.epoch))
    }

    /// Typed bytes that are not known to be consumed for good.
    pub fn unconsumed(&self) -> usize {
        self.typed.len()
    }

    /// Takes an event.
    pub fn handle(&mut self, event: ClientEvent) -> Vec<ClientAction> {
        let mut out = Vec::new();
        match event {
            ClientEvent::Connected(side) => {
                out.push(ClientAction::Send(side, ToServer::Attach { have: self.have }));
            }
            ClientEvent::Closed(side) => {
                self.side = self.side.filter(|s| *s != side);
            }
            ClientEvent::Typed(bytes) => {
                self.typed.extend(bytes);
                self.send_typed(&mut out);
            }
            ClientEvent::Message(side, message) => self.message(side, message, &mut out),
        }
        out
    }

    fn message(&mut self, side: usize, message: ToClient, out: &mut Vec<ClientAction>) {
        match message {
            ToClient::Standby => {}
            ToClient::Live { epoch } => {
                if epoch >= self.epoch {
                    out.push(ClientAction::Send(side, ToServer::Attach { have: self.have }));
                }
            }
            ToClient::Attached { epoch, from, input } => self.attach(side, epoch, from, input, out),
            ToClient::Output { epoch, first, channel, bytes } => {
                if epoch == self.epoch && self.side == Some(side) {
                    self.show(side, first, channel, bytes, out);
                }
            }
            ToClient::Consumed { epoch, number } => {
                if epoch == self.epoch && self.side == Some(side) && number <= self.sent {
                    self.forget_below(number);
                    self.send_typed(out);
                }
            }
            ToClient::Replaced => {
                if self.side == Some(side) {
                    out.push(ClientAction::Replaced);
                }
            }
            ToClient::GuestEnded => {
                // A side that only followed ends too; its word counts when the live one is gone.
                if self.side.is_none_or(|s| s == side) {
                    out.push(ClientAction::GuestEnded);
                }
            }
            ToClient::Figures(json) => out.push(ClientAction::Figures(side, json)),
        }
    }

    fn attach(&mut self, side: usize, epoch: u64, from: u64, input: u64, out: &mut Vec<ClientAction>) {
        if epoch < self.epoch && !Mutant::ListensToOldEpoch.is_active() {
            out.push(ClientAction::Close(side)); // a late riser
            return;
        }
        if !self.numbered {
            (self.numbered, self.consumed) = (true, input);
        }
        let typed_to = self.consumed + self.typed.len() as u64;
        if input < self.consumed || input > typed_to {
            // Another client typed in between. What this one has typed since comes after that.
            self.consumed = input;
        }
        (self.epoch, self.side) = (epoch, Some(side));
        self.sent = if Mutant::ForgetsInput.is_active() { input.max(self.sent) } else { input };
        out.push(ClientAction::Live(side, epoch));
        self.skip_to(from, out);
        self.send_typed(out);
    }

    fn skip_to(&mut self, from: u64, out: &mut Vec<ClientAction>) {
        let have = *self.have.get_or_insert(from);
        if from > have {
            out.push(ClientAction::Missed(from - have));
            self.have = Some(from);
        }
    }

    fn show(
        &mut self,
        side: usize,
        first: u64,
        channel: Channel,
        bytes: Vec<u8>,
        out: &mut Vec<ClientAction>,
    ) {
        self.skip_to(first, out);
        let have = self.have.unwrap_or(first);
        let known = usize::try_from(have - first).unwrap_or(usize::MAX);
        let fresh = bytes.get(known..).unwrap_or_default();
        if !fresh.is_empty() {
            let next = have + fresh.len() as u64;
            self.have = Some(next);
            out.push(ClientAction::Show(channel, fresh.to_vec()));
            out.push(ClientAction::Send(side, ToServer::Ack { next }));
        }
    }

    fn forget_below(&mut self, number: u64) {
        let known = number.saturating_sub(self.consumed).min(self.typed.len() as u64);
        self.typed.drain(..known as usize);
        self.consumed += known;
    }

    /// Sends what the window allows.
    fn send_typed(&mut self, out: &mut Vec<ClientAction>) {
        let Some(side) = self.side else { return };
        let end = (self.consumed + self.typed.len() as u64).min(self.consumed + INPUT_WINDOW);
        if self.sent < end {
            let (from, to) = ((self.sent - self.consumed) as usize, (end - self.consumed) as usize);
            let bytes = self.typed.range(from..to).copied().collect();
            out.push(ClientAction::Send(side, ToServer::Input { number: self.sent, bytes }));
            self.sent = end;
        }
    }
}
