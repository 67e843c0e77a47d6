//! The side that leads: who has to acknowledge, who is a member, when an output may leave.
//!
//! Not responsible for: one peer's account (`peer`), following (`following`).

use super::brake::Brake;
use super::member::Action;
use super::membership::{Changed, MemberId, Membership, PeerId};
use super::message::{Goodbye, Hello, Message, PROTOCOL};
use super::mutant::Mutant;
use super::peer::{Peer, Standing};
use super::replication::{Cover, Facts, Phase, StopReason};
use gemel_machine::{At, Digest};
use std::collections::BTreeMap;

/// A change that was asked of the arbiter. One at a time: while its answer is unknown, outputs wait for the members before it and
/// those after it.
#[derive(Clone, Debug)]
struct Asked {
    next: Membership,
    /// When to ask again, if there was no answer.
    again: Option<u64>,
}

/// On the way to another leader.
#[derive(Clone, Copy, Debug)]
struct HandOver {
    /// Who; any member otherwise.
    to: Option<MemberId>,
    /// The guest stands still.
    held: bool,
    /// Who was told.
    told: Option<PeerId>,
}

/// The side that leads.
#[derive(Clone, Debug)]
pub(super) struct Leading {
    membership: Membership,
    asked: Option<Asked>,
    peers: BTreeMap<PeerId, Peer>,
    /// The guest runs.
    started: bool,
    hand_over: Option<HandOver>,
    brake: Brake,
    /// How far the last is behind in time, at the last tick.
    host_lag: u64,
    /// What may be seen from outside.
    open: Cover,
    /// What was seen from outside at some time, by an account that never goes back: `open` does when somebody joins.
    seen: Cover,
}

impl Leading {
    /// At power-on, before the guest runs.
    pub fn at_power_on(membership: Membership, running: bool) -> Self {
        let open = if running { Cover::ALL } else { Cover::default() };
        Self { started: running, open, ..Self::alone(membership) }
    }

    /// With a running guest and no other member.
    pub fn alone(membership: Membership) -> Self {
        Self {
            membership,
            asked: None,
            peers: BTreeMap::new(),
            started: true,
            hand_over: None,
            brake: Brake::default(),
            host_lag: 0,
            open: Cover::ALL,
            seen: Cover::default(),
        }
    }

    pub fn phase(&self) -> Phase {
        if !self.started {
            Phase::Sync
        } else if self.hand_over.is_some() {
            Phase::HandingOver
        } else if self.someone_is_missing() {
            Phase::Arbitrating
        } else if self.membership.members.len() > 1 {
            Phase::Primary
        } else {
            Phase::Live
        }
    }

    pub fn membership(&self) -> &Membership {
        &self.membership
    }

    pub fn has_started(&self) -> bool {
        self.started
    }

    pub fn open(&self) -> Cover {
        self.open
    }

    pub fn peers(&self) -> usize {
        self.peers.len()
    }

    pub fn peers_from_power_on(&self) -> impl Iterator<Item = PeerId> + '_ {
        self.peers.values().filter(|p| p.from_power_on).map(|p| p.id)
    }

    pub fn marks_in_flight(&self) -> usize {
        self.peers.values().map(Peer::marks_in_flight).max().unwrap_or(0)
    }

    pub fn lag(&self, facts: &Facts) -> u64 {
        self.waited_for().map(|p| p.lag(facts)).max().unwrap_or(0)
    }

    pub fn host_lag(&self) -> u64 {
        self.host_lag
    }

    /// The share of time that the machine is to sleep, in millionths.
    pub fn brake(&self) -> u64 {
        self.brake.share()
    }

    pub fn must_wait(&self, facts: &Facts) -> bool {
        self.hand_over.is_some() || self.lag(facts) > 2 * facts.timing.max_lag
    }

    /// Keeps account of what was let out so far.
    fn note_seen(&mut self, facts: &Facts) -> Cover {
        self.seen = self.seen.or(facts.cover.and(self.open));
        self.seen
    }

    fn waited_for(&self) -> impl Iterator<Item = &Peer> {
        self.peers.values().filter(|p| p.must_acknowledge())
    }

    /// Whether outputs wait for a member that is gone.
    fn someone_is_missing(&self) -> bool {
        let present = |m| self.waited_for().any(|p| p.member == m);
        let asked = self.asked.iter().flat_map(|asked| asked.next.followers());
        self.membership.followers().chain(asked).any(|m| !present(m))
    }

    pub fn connected(&mut self, now: u64, id: PeerId, facts: &mut Facts, out: &mut Vec<Action>) {
        let mut peer = Peer::new(now, id, facts);
        peer.send(now, Message::Hello(facts.hello.clone()), out);
        self.peers.insert(id, peer);
    }

    pub fn closed(&mut self, now: u64, id: PeerId, facts: &mut Facts, out: &mut Vec<Action>) {
        if self.peers.remove(&id).is_some() {
            self.settle(now, facts, out);
        }
    }

    /// Parts from a peer, of this side's own will.
    pub fn leave(
        &mut self,
        now: u64,
        id: PeerId,
        word: Option<Goodbye>,
        facts: &mut Facts,
        out: &mut Vec<Action>,
    ) {
        let Some(mut peer) = self.peers.remove(&id) else { return };
        if let Some(word) = word {
            peer.send(now, Message::Goodbye(word), out);
        }
        out.push(Action::ClosePeer(id));
        self.settle(now, facts, out);
    }

    pub fn received(
        &mut self,
        now: u64,
        id: PeerId,
        message: Message,
        facts: &mut Facts,
        out: &mut Vec<Action>,
    ) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        peer.watch.heard(now);
        facts.failover.last_heard = now;
        match (peer.standing, message) {
            (Standing::Met, Message::Hello(hello)) => self.greeted(now, id, hello, facts, out),
            (_, Message::Ack { sequence, executed }) if peer.gets_log() => {
                if !peer.acknowledge(sequence, executed) {
                    self.leave(now, id, None, facts, out);
                }
            }
            (_, Message::Heartbeat { executed, .. }) if peer.standing != Standing::Met => {
                peer.has_executed(executed);
            }
            (Standing::Cut, Message::Restored { digest }) => {
                peer.digests.1 = Some(digest);
                self.compare(now, id, facts, out);
            }
            (_, Message::Goodbye(Goodbye::Leads(epoch))) if epoch > self.membership.epoch => {
                self.stop(StopReason::HandedOver, facts, out);
                return;
            }
            // Whoever differs, or says what it must not say now, is as good as gone.
            _ => self.leave(now, id, None, facts, out),
        }
        self.settle(now, facts, out);
    }

    fn greeted(&mut self, now: u64, id: PeerId, hello: Hello, facts: &mut Facts, out: &mut Vec<Action>) {
        if let Some(why) = misfit(&facts.hello, &hello) {
            // ... and wait for a better one.
            return self.leave(now, id, Some(Goodbye::Refused(why)), facts, out);
        }
        let Some(peer) = self.peers.get_mut(&id) else { return };
        peer.member = hello.member;
        if self.started {
            peer.standing = Standing::Cloning;
            out.push(Action::Clone(id));
        } else {
            peer.standing = Standing::Equal { owes: Cover::default() };
            peer.from_power_on = true;
        }
    }

    pub fn cut(&mut self, now: u64, id: PeerId, message: Message, facts: &Facts, out: &mut Vec<Action>) {
        let Some(peer) = self.peers.get_mut(&id).filter(|p| p.standing == Standing::Cloning) else { return };
        peer.standing = Standing::Cut;
        peer.executed = facts.reached.position.count;
        // What was there to see at the cut is in the state that it gets.
        peer.acknowledged = facts.cover;
        peer.send(now, message, out);
    }

    pub fn cut_digest(
        &mut self,
        now: u64,
        id: PeerId,
        digest: Digest,
        facts: &mut Facts,
        out: &mut Vec<Action>,
    ) {
        if let Some(peer) = self.peers.get_mut(&id) {
            peer.digests.0 = Some(digest);
            self.compare(now, id, facts, out);
            self.settle(now, facts, out);
        }
    }

    /// A clone counts once it is known to be one.
    fn compare(&mut self, now: u64, id: PeerId, facts: &mut Facts, out: &mut Vec<Action>) {
        let owes = self.note_seen(facts);
        let Some(peer) = self.peers.get_mut(&id).filter(|p| p.standing == Standing::Cut) else { return };
        match peer.digests {
            // Until now outputs left without it: it has to have all of that in hand before it may claim.
            (Some(ours), Some(theirs)) if ours == theirs => peer.standing = Standing::Equal { owes },
            (Some(_), Some(_)) => {
                let why = "the clone differs from its original".into();
                self.leave(now, id, Some(Goodbye::Refused(why)), facts, out);
            }
            _ => {}
        }
    }

    /// Draws the consequences of what changed: what may leave, and whether the register has to change.
    fn settle(&mut self, now: u64, facts: &mut Facts, out: &mut Vec<Action>) {
        self.note_seen(facts);
        if self.started && (!self.someone_is_missing() || Mutant::DropsWithoutRecord.is_active()) {
            self.open = self.waited_for().fold(Cover::ALL, |cover, peer| cover.and(peer.acknowledged));
        }
        if Mutant::SendsBeforeAcknowledgement.is_active() {
            self.open = Cover::ALL;
        }
        self.hand_over_if_ready(now, facts, out);
        if self.asked.is_some() || facts.stopped.is_some() {
            return;
        }
        let fit: Vec<_> = self.peers.values().filter(|p| p.is_fit()).map(|p| p.member).collect();
        if !self.started && fit.len() < facts.wanted && self.membership.members.len() == 1 {
            return; // at power-on they join together
        }
        let next = Membership::new(self.membership.epoch + 1, facts.me(), fit);
        if next.members != self.membership.members {
            if self.someone_is_missing() {
                facts.failover.suspected = now;
            }
            self.asked = Some(Asked { next: next.clone(), again: None });
            out.push(Action::Change(next));
        }
    }

    pub fn changed(&mut self, now: u64, answer: Option<Changed>, facts: &mut Facts, out: &mut Vec<Action>) {
        let Some(asked) = &mut self.asked else { return };
        match answer {
            None => asked.again = Some(now.saturating_add(facts.timing.retry)),
            Some(Changed::Refused(_)) => {
                let handing = self.hand_over.is_some_and(|h| h.told.is_some());
                self.stop(if handing { StopReason::HandedOver } else { StopReason::Lost }, facts, out);
            }
            Some(Changed::Done) => {
                let next = asked.next.clone();
                self.asked = None;
                self.recorded(now, next, facts, out);
            }
        }
    }

    /// The register holds what was asked for.
    fn recorded(&mut self, now: u64, next: Membership, facts: &mut Facts, out: &mut Vec<Action>) {
        if self.membership.followers().any(|m| !next.has(m)) {
            facts.failover.claimed = now;
            facts.failover.live = now;
        }
        facts.hello.epoch = next.epoch;
        self.membership = next;
        for peer in self.peers.values_mut().filter(|p| self.membership.has(p.member)) {
            if peer.standing != Standing::Leaving {
                peer.standing = Standing::Member;
            }
            peer.send(now, Message::Members(self.membership.clone()), out);
        }
        let left = |p: &&Peer| p.standing == Standing::Leaving && !self.membership.has(p.member);
        for id in self.peers.values().filter(left).map(|p| p.id).collect::<Vec<_>>() {
            self.leave(now, id, Some(Goodbye::Dismissed), facts, out);
        }
        if !self.started && self.membership.followers().count() >= facts.wanted && !self.someone_is_missing()
        {
            self.started = true;
            facts.hello.running = true;
            out.push(Action::Start);
        }
        self.settle(now, facts, out);
    }

    pub fn tick(&mut self, now: u64, facts: &mut Facts, out: &mut Vec<Action>) {
        let mut silent = Vec::new();
        for peer in self.peers.values_mut() {
            if peer.watch.look(now) > facts.timing.drop || peer.is_too_late(now, facts) {
                silent.push(peer.id);
            } else if peer.standing != Standing::Met {
                peer.heartbeat_if_due(now, facts, out);
            }
        }
        for id in silent {
            self.leave(now, id, None, facts, out);
        }
        self.brake.look(now, self.lag(facts), facts.timing.max_lag);
        self.host_lag = self.waited_for().map(|p| p.host_lag(now)).max().unwrap_or(0);
        if let Some(asked) = &mut self.asked
            && asked.again.is_some_and(|at| at <= now)
        {
            asked.again = None;
            out.push(Action::Change(asked.next.clone()));
        }
    }

    pub fn entries(&mut self, now: u64, id: PeerId, bytes: Vec<u8>, out: &mut Vec<Action>) {
        if let Some(peer) = self.peers.get_mut(&id).filter(|p| p.gets_log()) {
            peer.entries(now, bytes, out);
        }
    }

    pub fn reach(&mut self, now: u64, at: At, facts: &mut Facts, out: &mut Vec<Action>) {
        for peer in self.peers.values_mut().filter(|p| p.gets_log()) {
            peer.mark(now, at, facts.cover, facts.delivered, out);
        }
    }

    /// The guest stands still because it was asked to wait, at a boundary that a mark was sent for.
    pub fn held(&mut self, now: u64, facts: &mut Facts, out: &mut Vec<Action>) {
        if let Some(hand_over) = &mut self.hand_over {
            hand_over.held = true;
            self.settle(now, facts, out);
        }
    }

    /// A member is to leave.
    pub fn unprotect(&mut self, now: u64, member: MemberId, facts: &mut Facts, out: &mut Vec<Action>) {
        let of = |p: &Peer| p.standing != Standing::Met && p.member == member;
        let Some(peer) = self.peers.values_mut().find(|p| of(p)) else { return };
        let registers = [Some(&self.membership), self.asked.as_ref().map(|a| &a.next)];
        if registers.into_iter().flatten().any(|m| m.has(member)) {
            peer.standing = Standing::Leaving;
            self.settle(now, facts, out);
        } else {
            let id = peer.id;
            self.leave(now, id, Some(Goodbye::Dismissed), facts, out);
        }
    }

    /// A member is to lead in this side's place: the guest stands still from its next boundary on.
    pub fn hand_over(&mut self, to: Option<MemberId>) {
        let possible =
            self.peers.values().any(|p| p.standing == Standing::Member && to.is_none_or(|m| m == p.member));
        if possible && self.hand_over.is_none() {
            self.hand_over = Some(HandOver { to, held: false, told: None });
        }
    }

    /// Tells the next leader once it has everything. It claims as if this side had died, so that whichever of the two dies on the
    /// way, the arbiter still decides.
    fn hand_over_if_ready(&mut self, now: u64, facts: &Facts, out: &mut Vec<Action>) {
        let Some(hand_over) = self.hand_over else { return };
        let mut heirs = self
            .peers
            .values_mut()
            .filter(|p| p.standing == Standing::Member && hand_over.to.is_none_or(|m| m == p.member));
        if let Some(told) = hand_over.told {
            if !heirs.any(|p| p.id == told) && self.asked.is_none() && !self.someone_is_missing() {
                self.hand_over = None; // It is out, and this side goes on.
            }
            return;
        }
        let here = facts.reached.position.count;
        match heirs.by_ref().min_by_key(|p| here.saturating_sub(p.executed)) {
            None => self.hand_over = None,
            Some(heir)
                if hand_over.held && heir.acknowledged.covers(facts.cover) && heir.executed >= here =>
            {
                heir.send(now, Message::TakeOver, out);
                let told = Some(heir.id);
                self.hand_over = Some(HandOver { told, ..hand_over });
            }
            Some(_) => {}
        }
    }

    pub fn finished(&mut self, now: u64, facts: &mut Facts, out: &mut Vec<Action>) {
        for peer in self.peers.values_mut() {
            peer.send(now, Message::Goodbye(Goodbye::GuestEnded), out);
        }
        self.stop(StopReason::GuestEnded, facts, out);
    }

    fn stop(&mut self, reason: StopReason, facts: &mut Facts, out: &mut Vec<Action>) {
        out.extend(self.peers.keys().map(|id| Action::ClosePeer(*id)));
        self.peers.clear();
        facts.stop(reason, out);
    }
}

/// Why a peer cannot follow, if it cannot.
pub(super) fn misfit(ours: &Hello, peer: &Hello) -> Option<String> {
    if peer.protocol != PROTOCOL {
        Some(format!("protocol {PROTOCOL} here, {} there: run the same gemel on both sides", peer.protocol))
    } else if peer.vm != ours.vm {
        Some(format!("the VM is '{}' here and '{}' there: give both sides the same --vm", ours.vm, peer.vm))
    } else if peer.role == ours.role {
        Some(format!("both sides are a {:?}", ours.role))
    } else if peer.machine != ours.machine {
        Some("the machines differ: give both sides the same machine options and identical images".into())
    } else {
        None
    }
}
