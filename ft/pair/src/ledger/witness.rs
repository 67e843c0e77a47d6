//! What a side's state machine is told and what it wants done, as a witness sees it.
//!
//! Not responsible for: the lines that come of it (`tap`).

use super::line::{Hex, Line};
use super::tap::{Point, Tap};
use crate::protocol::{
    Action, Changed, ClientId, Event, Hello, Mark, MemberId, Membership, Message, PeerId, Role, ToClient,
    ToServer,
};
use gemel_machine::At;
use std::collections::BTreeMap;

/// Watches one [`crate::protocol::Member`].
pub struct Witness {
    tap: Tap,
    me: MemberId,
    leads: bool,
    /// Who is at the other end of which connection.
    peers: BTreeMap<PeerId, MemberId>,
    /// What the arbiter was asked for.
    asked: Option<Membership>,
    /// What the client says that it has, until it is answered.
    have: Option<(ClientId, Option<u64>)>,
}

fn hex(member: MemberId) -> Hex {
    Hex(member.0)
}

fn point(sequence: u64, mark: &Mark) -> Point {
    Point { sequence, count: mark.at.position.count, outputs: mark.outputs, frames: 0 }
}

impl Witness {
    /// The witness of the side that says hello like this.
    pub fn new(hello: &Hello) -> Self {
        let mut tap = Tap::new(&hello.vm, hex(hello.member), hello.machine);
        let leads = hello.role == Role::Primary;
        if leads {
            tap.leads(hello.epoch, Vec::new());
        }
        Self { tap, me: hello.member, leads, peers: BTreeMap::new(), asked: None, have: None }
    }

    /// The lines since the last call.
    pub fn take(&mut self) -> Vec<Line> {
        self.tap.take()
    }

    /// The side ends in good order.
    pub fn end(&mut self) {
        self.tap.end();
    }

    /// The state machine is told this.
    pub fn told(&mut self, event: &Event) {
        match event {
            Event::Output(channel, byte) => self.tap.byte(*channel, *byte),
            Event::Reached(at) | Event::MachineEnded(at) => self.tap.reached(at.position.count),
            Event::PeerMessage(peer, message) => self.heard(*peer, message),
            Event::PeerClosed(peer) => self.gone(*peer),
            Event::Changed(Some(Changed::Done)) => self.changed(),
            Event::Cut { peer, at, .. } => self.cut(*peer, *at),
            Event::Client(id, ToServer::Attach { have }) => self.have = Some((*id, *have)),
            _ => {}
        }
    }

    fn heard(&mut self, peer: PeerId, message: &Message) {
        match message {
            Message::Hello(hello) => {
                self.peers.insert(peer, hello.member);
                if !self.leads && hello.role == Role::Primary {
                    self.tap.follows(hello.epoch, hex(hello.member));
                }
            }
            Message::Members(membership) if !self.leads => {
                self.tap.follows(membership.epoch, hex(membership.leader));
            }
            Message::Mark { sequence, mark } => self.tap.mark_taken(point(*sequence, mark)),
            Message::Cut(cut) => {
                let bytes = cut.ring.runs.iter().map(|(_, bytes)| bytes.len() as u64);
                let outputs = cut.ring.first.saturating_add(bytes.sum());
                let count = cut.at.position.count;
                self.tap.state_taken(Point { sequence: 0, count, outputs, frames: 0 });
            }
            Message::Ack { sequence, .. } => self.acked(peer, *sequence),
            Message::Restored { .. } => self.acked(peer, 0),
            _ => {}
        }
    }

    fn acked(&mut self, peer: PeerId, sequence: u64) {
        if let Some(member) = self.peers.get(&peer) {
            self.tap.ack_heard(hex(*member), sequence);
        }
    }

    fn gone(&mut self, peer: PeerId) {
        if let Some(member) = self.peers.remove(&peer) {
            self.tap.gone(hex(member));
        }
    }

    /// The arbiter has what it was asked for.
    fn changed(&mut self) {
        if let Some(membership) = self.asked.take()
            && membership.leader == self.me
        {
            self.leads = true;
            self.tap.leads(membership.epoch, membership.followers().map(hex).collect());
        }
    }

    fn cut(&mut self, peer: PeerId, at: At) {
        if let Some(member) = self.peers.get(&peer) {
            let (outputs, frames) = self.tap.made();
            let count = at.position.count;
            self.tap.state_sent(hex(*member), Point { sequence: 0, count, outputs, frames });
        }
    }

    /// The state machine wants this done.
    pub fn wanted(&mut self, action: &Action) {
        match action {
            Action::ToPeer(peer, Message::Mark { sequence, mark }) => {
                if let Some(member) = self.peers.get(peer) {
                    self.tap.mark_sent(hex(*member), point(*sequence, mark));
                }
            }
            Action::ToPeer(_, Message::Ack { sequence, .. }) => self.tap.acks(*sequence),
            Action::ToPeer(_, Message::Restored { .. }) => self.tap.acks(0),
            Action::ClosePeer(peer) => self.gone(*peer),
            Action::Change(next) => self.asked = Some(next.clone()),
            Action::ToClient(id, message) => self.for_client(*id, message),
            _ => {}
        }
    }

    fn for_client(&mut self, id: ClientId, message: &ToClient) {
        match message {
            ToClient::Attached { from, .. } => {
                let have = self.have.take().filter(|(who, _)| *who == id).and_then(|(_, have)| have);
                self.tap.attached(have, *from);
            }
            ToClient::Output { epoch, first, channel, bytes } => {
                self.tap.bytes_leave(*epoch, *first, *channel, bytes);
            }
            _ => {}
        }
    }
}
