//! A host's process: carries out what its side decides, and runs its machine.

use crate::plan::{CALM, Fault, MS, Point};
use crate::toy::{Entry, Followed};
use crate::world::{Happening, World, peer};
use gemel_pair::protocol::*;

impl World {
    pub fn handle(&mut self, h: usize, event: Event) {
        let incarnation = self.hosts[h].incarnation;
        if let Some((witness, _)) = &mut self.hosts[h].side.ledger {
            witness.told(&event);
        }
        let told = self.tells.then(|| format!("{event:?}"));
        let actions = self.hosts[h].side.member.handle(self.now, event);
        if let Some(event) = told {
            let us = self.now / 1000;
            println!("{us:>7} host {h} {:?} {event} -> {actions:?}", self.hosts[h].side.phase());
        }
        for action in actions {
            if let Some((witness, lines)) = &mut self.hosts[h].side.ledger {
                witness.wanted(&action);
                lines.extend(witness.take());
            }
            self.carry_out(h, action);
            if !self.hosts[h].alive || self.hosts[h].incarnation != incarnation {
                return;
            }
        }
    }

    fn carry_out(&mut self, h: usize, action: Action) {
        match action {
            Action::ToPeer(to, message) => self.tell_peer(h, to, message),
            Action::ClosePeer(to) => {
                let (connection, end) = self.end_of(h, to);
                if !std::mem::replace(&mut self.connections[connection].closed[end], true) {
                    self.close_end(connection, 1 - end);
                }
            }
            Action::ToClient(id, message) => {
                let released = self.note_release(h, &message);
                self.tell_client(h, id, message);
                if released {
                    self.point(Point::MidRelease, h);
                }
            }
            Action::CloseClient(id) => {
                if self.links[h].generation == id {
                    // What was said before still arrives.
                    let when = self.soon().max(self.links[h].arrivals[1] + 1);
                    self.at(when, h, Happening::Fault(Fault::BreakClient(h)));
                }
            }
            Action::TellFigures(_) => {}
            Action::Change(next) => {
                if !self.point(Point::BeforeChange, h) {
                    return;
                }
                if self.plan.asked_twice > 0 && self.dice.one_in(self.plan.asked_twice) {
                    let late = self.now + self.dice.below(40 * MS);
                    self.at(late, h, Happening::Asked(next.clone(), true));
                }
                let when = self.soon();
                self.at(when, h, Happening::Asked(next, false));
            }
            Action::Start => {
                let side = &mut self.hosts[h].side;
                side.runs = true;
                side.log_to = side.member.replication().peers_from_power_on();
                self.at(self.now, h, Happening::Step);
            }
            Action::Clone(to) => {
                let when = self.now + self.dice.below(8 * MS);
                self.at(when, h, Happening::Copied(to));
                self.tell_peer(h, to, Message::Clone(ClonePart(Vec::new())));
                self.point(Point::Cloning, h);
            }
            Action::ClonePart(ClonePart(bytes)) => {
                if let Ok(number) = <[u8; 8]>::try_from(bytes) {
                    let when = self.now + self.dice.below(4 * MS);
                    self.at(when, h, Happening::Filled(u64::from_le_bytes(number) as usize));
                }
            }
            Action::Cut { .. } => self.hosts[h].side.parked = Some((Vec::new(), 0)),
            Action::Feed(bytes) => {
                let (side, entry) = (&mut self.hosts[h].side, Entry::from_bytes(&bytes));
                match &mut side.parked {
                    Some((entries, _)) => entries.push(entry),
                    None => side.toy.feed(entry),
                }
            }
            Action::Limit(at) => {
                let side = &mut self.hosts[h].side;
                match &mut side.parked {
                    Some((_, limit)) => *limit = at.position.count,
                    None => side.toy.allow(at),
                }
            }
            Action::EndFeed => self.hosts[h].side.feed_ended = true,
            Action::ToGateway(_) | Action::CloseGateway | Action::Frames(_) => panic!("no gateway here"),
            Action::Input(bytes) => self.hosts[h].side.inbox.extend(bytes),
            Action::Stop(reason) => self.stop(h, reason),
        }
    }

    fn stop(&mut self, h: usize, reason: StopReason) {
        match reason {
            StopReason::GuestEnded => self.ended = true,
            StopReason::PeerEnded => {}
            // The process waits for another leader.
            _ => {
                let when = self.now + MS + self.dice.below(5 * MS);
                self.at(when, h, Happening::Anew);
            }
        }
        // Who was never told to be a member may be one in a register that changed too late for it.
        let untold = self.hosts[h].side.member.replication().membership().is_none();
        if untold || matches!(reason, StopReason::Diverged | StopReason::Refused(_)) {
            self.gone.push(self.hosts[h].side.id);
        }
        self.hosts[h].side.stopped = Some(reason);
    }

    /// A side's connection, and which of its ends the side has.
    fn end_of(&self, h: usize, to: PeerId) -> (usize, usize) {
        let connection = to.0 as usize;
        let end = usize::from(self.connections[connection].ends[0].0 != h);
        (connection, end)
    }

    fn tell_peer(&mut self, h: usize, to: PeerId, message: Message) {
        let (connection, end) = self.end_of(h, to);
        let is_mark = matches!(message, Message::Mark { .. });
        if is_mark && !self.point(Point::BeforeSend, h) {
            return;
        }
        if matches!(message, Message::Ack { .. }) {
            let side = &self.hosts[h].side;
            self.judge.has(side.id, side.marked);
        }
        self.send(connection, 1 - end, message);
        if is_mark {
            self.point(Point::Unacknowledged, h);
        }
    }

    /// Tells the judge of what leaves; whether it is an output.
    fn note_release(&mut self, h: usize, message: &ToClient) -> bool {
        let sender = self.hosts[h].side.id;
        match message {
            ToClient::Output { first, bytes, .. } => {
                self.judge.released(sender, *first, bytes);
                true
            }
            ToClient::Consumed { number, .. } => {
                self.judge.told_consumed(*number);
                false
            }
            _ => false,
        }
    }

    pub fn deliver(&mut self, h: usize, connection: usize, end: usize, message: Message) {
        let point = match &message {
            _ if self.connections[connection].closed[end] || self.connections[connection].silent => return,
            Message::Ack { .. } => Some(Point::Acknowledged),
            Message::Members(_) => Some(Point::Members),
            Message::TakeOver => Some(Point::TakeOver),
            _ => None,
        };
        if point.is_some_and(|point| !self.point(point, h)) {
            return;
        }
        match &message {
            Message::Mark { mark, .. } => self.hosts[h].side.marked = mark.outputs,
            Message::Cut(cut) => {
                let before = cut.ring.runs.iter().map(|(_, bytes)| bytes.len() as u64).sum::<u64>();
                self.hosts[h].side.marked = cut.ring.first + before;
            }
            _ => {}
        }
        self.handle(h, Event::PeerMessage(peer(connection), message));
    }

    /// The machine of a clone is whole.
    pub fn filled(&mut self, h: usize, clone: usize) {
        let Some((entries, limit)) = self.hosts[h].side.parked.take() else { return };
        if !self.point(Point::Restored, h) {
            return;
        }
        let side = &mut self.hosts[h].side;
        side.toy = self.clones[clone].clone();
        let mut at = side.toy.at();
        let digest = side.toy.digest();
        entries.into_iter().for_each(|entry| side.toy.feed(entry));
        at.position.count = limit.max(at.position.count);
        side.toy.allow(at);
        let outputs = side.toy.outputs.len() as u64;
        let marked = side.marked;
        self.judge.has(side.id, outputs.max(marked));
        self.handle(h, Event::Restored(digest));
    }

    /// The machine's turn on one side.
    pub fn turn(&mut self, h: usize) {
        if self.hosts[h].side.following { self.follow(h) } else { self.lead(h) }
    }

    fn follow(&mut self, h: usize) {
        // A follower is faster than real time: it has to catch up.
        for _ in 0..1 + self.dice.below(4) {
            let mut outputs = Vec::new();
            let followed = self.hosts[h].side.toy.follow(&mut outputs);
            for byte in outputs {
                self.handle(h, Event::Output(Channel::Serial(0), byte));
            }
            match followed {
                Followed::On { taken: 0 } => {}
                Followed::On { taken } => self.handle(h, Event::InputTaken(taken)),
                Followed::Diverged => return self.handle(h, Event::Diverged),
                Followed::AtLimit => return self.at_limit(h),
            }
        }
        let at = self.hosts[h].side.toy.at();
        self.handle(h, Event::Reached(at));
    }

    fn at_limit(&mut self, h: usize) {
        let side = &mut self.hosts[h].side;
        let at = side.toy.at();
        if side.toy.ended() {
            side.following = false;
            self.handle(h, Event::MachineEnded(at));
        } else if side.feed_ended {
            side.following = false;
            self.go_live(h);
        } else {
            self.handle(h, Event::Reached(at));
        }
    }

    fn go_live(&mut self, h: usize) {
        // The backend may have lost what was not flushed.
        if self.dice.one_in(2) {
            self.hosts[h].side.toy.image.cut_power();
        }
        if !self.point(Point::MidReissue, h) {
            return;
        }
        if !Mutant::DoesNotWriteAgain.is_active() {
            self.hosts[h].side.toy.write_again();
        }
        self.handle(h, Event::EndReached);
        if self.hosts[h].alive && self.hosts[h].side.member.replication().is_live() {
            self.judge.goes_live(&self.hosts[h].side);
            self.point(Point::JustLive, h);
        }
    }

    fn lead(&mut self, h: usize) {
        let side = &self.hosts[h].side;
        if side.toy.ended() {
            return;
        }
        assert!(side.toy.disk_is_whole(), "the guest reads something else than it wrote");
        if self.dice.below(1_000_000) < self.hosts[h].side.member.brake() {
            return;
        }
        if self.hosts[h].side.member.must_wait() {
            self.mark(h);
            return self.handle(h, Event::Held);
        }
        self.take_input(h);
        self.cut(h);
        let toy = &self.hosts[h].side.toy;
        if toy.count.is_multiple_of(16) {
            self.log(h, &Entry::Digest { count: toy.count, state: toy.state });
        }
        if self.hosts[h].side.unmarked >= 4 || self.dice.one_in(3) {
            self.mark(h);
        }
        if self.dice.one_in(4) {
            return; // idle: the next input comes at this very position
        }
        for byte in self.hosts[h].side.toy.step() {
            self.handle(h, Event::Output(Channel::Serial(0), byte));
        }
        let side = &mut self.hosts[h].side;
        side.unmarked += 1;
        self.judge.has(side.id, side.toy.outputs.len() as u64);
        if side.toy.ended() {
            let at = side.toy.at();
            self.handle(h, Event::MachineEnded(at));
        }
    }

    fn mark(&mut self, h: usize) {
        self.hosts[h].side.unmarked = 0;
        let at = self.hosts[h].side.toy.at();
        self.handle(h, Event::Reached(at));
    }

    fn take_input(&mut self, h: usize) {
        if self.hosts[h].side.inbox.is_empty() || self.now < CALM && !self.dice.one_in(3) {
            return;
        }
        let most = self.hosts[h].side.inbox.len() as u64;
        let n = 1 + self.dice.below(most);
        let bytes: Vec<u8> = self.hosts[h].side.inbox.drain(..n as usize).collect();
        let entry = self.hosts[h].side.toy.input(bytes);
        self.judge.took_input(&self.hosts[h].side);
        self.log(h, &entry);
        self.handle(h, Event::InputTaken(n));
    }

    fn log(&mut self, h: usize, entry: &Entry) {
        for to in self.hosts[h].side.log_to.clone() {
            self.handle(h, Event::Entries(to, entry.to_bytes()));
        }
    }

    /// Takes the state at this boundary for whom it is due.
    fn cut(&mut self, h: usize) {
        for to in std::mem::take(&mut self.hosts[h].side.cut_due) {
            let (at, digest) = (self.hosts[h].side.toy.at(), self.hosts[h].side.toy.digest());
            let clone = self.clones.len() as u64;
            let toy = self.hosts[h].side.toy.cloned();
            self.clones.push(toy);
            self.hosts[h].side.log_to.push(to);
            self.handle(h, Event::Cut { peer: to, at, log_header: Vec::new() });
            self.tell_peer(h, to, Message::Clone(ClonePart(clone.to_le_bytes().to_vec())));
            let when = self.soon();
            self.at(when, h, Happening::Hashed(to, digest));
            if !self.point(Point::Cut, h) {
                return;
            }
        }
    }
}
