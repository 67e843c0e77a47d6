//! The side that follows: what it has in hand, whom it suspects, when it claims.
//!
//! Not responsible for: leading afterwards (`leading`), executing (`shell`).

use super::leading::misfit;
use super::member::Action;
use super::membership::{Changed, MemberId, Membership, PeerId};
use super::message::{Goodbye, Hello, Message};
use super::mutant::Mutant;
use super::replication::{Facts, Phase, StopReason, Timing};
use super::watch::Watch;
use gemel_machine::{At, Digest};

/// A secondary that executes tells how far it is so often, on its own clock and by what it has executed (ns).
const PROGRESS_INTERVAL: u64 = 1_000_000;

/// How far this side has come.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Standing {
    /// Nobody there yet, or somebody who has not said hello.
    Met,
    /// A running machine's state is on its way.
    Cloning,
    /// The same, and the log from there on.
    Cut,
    /// On the log, and not told to be a member.
    Joining,
    /// A member.
    Member,
    /// Asks the arbiter for the lead.
    Claiming {
        /// What was asked.
        next: Membership,
        /// When to ask again, if there was no answer.
        again: Option<u64>,
    },
    /// Leads once it has executed what it has in hand.
    GoingLive(Membership),
    /// Runs to the guest's end.
    Finishing,
}

/// The side that follows.
#[derive(Clone, Debug)]
pub(super) struct Following {
    standing: Standing,
    /// The leader's connection.
    peer: Option<PeerId>,
    /// Who leads, as it said.
    leader: MemberId,
    /// The latest that this side was told.
    membership: Option<Membership>,
    /// This side was cloned. Otherwise it has the log from power-on.
    cloned: bool,
    watch: Watch,
    last_sent: u64,
    /// Of the latest `Entries` or `Mark`.
    sequence: u64,
    /// The latest mark's count.
    marked: u64,
    /// The count that the leader was told last.
    told: u64,
    delivered: u64,
}

impl Following {
    pub fn new(now: u64, timing: Timing) -> Self {
        Self {
            standing: Standing::Met,
            peer: None,
            leader: MemberId(0),
            membership: None,
            cloned: false,
            watch: Watch::new(now, 2 * timing.tick),
            last_sent: now,
            sequence: 0,
            marked: 0,
            told: 0,
            delivered: 0,
        }
    }

    pub fn phase(&self) -> Phase {
        match self.standing {
            Standing::Met => Phase::Sync,
            Standing::Cloning | Standing::Cut => Phase::Cloning,
            Standing::Joining if self.cloned => Phase::Joining,
            Standing::Joining => Phase::Sync,
            Standing::Member => Phase::Secondary,
            Standing::Claiming { .. } => Phase::Arbitrating,
            Standing::GoingLive(_) => Phase::GoingLive,
            Standing::Finishing => Phase::Finishing,
        }
    }

    pub fn membership(&self) -> Option<&Membership> {
        self.membership.as_ref()
    }

    pub fn delivered(&self) -> u64 {
        self.delivered
    }

    pub fn lag(&self, facts: &Facts) -> u64 {
        match self.standing {
            Standing::Finishing => 0,
            _ => facts.timing.worth(self.marked.saturating_sub(facts.reached.position.count)),
        }
    }

    fn send(&mut self, now: u64, message: Message, out: &mut Vec<Action>) {
        self.last_sent = now;
        out.extend(self.peer.map(|peer| Action::ToPeer(peer, message)));
    }

    fn stop(&mut self, reason: StopReason, facts: &mut Facts, out: &mut Vec<Action>) {
        out.extend(self.peer.take().map(Action::ClosePeer));
        facts.stop(reason, out);
    }

    pub fn connected(&mut self, now: u64, peer: PeerId, facts: &mut Facts, out: &mut Vec<Action>) {
        if self.standing != Standing::Met || self.peer.is_some() {
            return out.push(Action::ClosePeer(peer));
        }
        self.peer = Some(peer);
        self.watch.heard(now);
        self.send(now, Message::Hello(facts.hello.clone()), out);
    }

    pub fn closed(&mut self, now: u64, peer: PeerId, facts: &mut Facts, out: &mut Vec<Action>) {
        if self.peer == Some(peer) {
            self.suspect(now, facts, out);
        }
    }

    /// The leader is gone, or is as good as gone.
    fn suspect(&mut self, now: u64, facts: &mut Facts, out: &mut Vec<Action>) {
        let epoch = match (&self.standing, &self.membership) {
            (Standing::Member, Some(membership)) => membership.epoch + 1,
            // Whether it is a member only the register knows. The leader's own epoch is taken, so that the answer to this is what
            // the register holds.
            (Standing::Joining, _) if self.cloned => facts.hello.epoch,
            (Standing::Met | Standing::Cloning | Standing::Cut | Standing::Joining, _) => {
                return self.stop(StopReason::NeverInSync, facts, out);
            }
            _ => return,
        };
        out.extend(self.peer.take().map(Action::ClosePeer));
        self.claim(now, epoch, facts, out);
    }

    fn claim(&mut self, now: u64, epoch: u64, facts: &mut Facts, out: &mut Vec<Action>) {
        facts.failover.suspected = now;
        let next = Membership::new(epoch, facts.me(), []);
        self.standing = Standing::Claiming { next: next.clone(), again: None };
        if Mutant::SkipsClaim.is_active() {
            return self.changed(now, Some(Changed::Done), facts, out);
        }
        out.push(Action::Change(next));
    }

    pub fn changed(&mut self, now: u64, answer: Option<Changed>, facts: &mut Facts, out: &mut Vec<Action>) {
        let Standing::Claiming { next, again } = &mut self.standing else { return };
        match answer {
            None => *again = Some(now.saturating_add(facts.timing.retry)),
            Some(Changed::Done) => {
                let next = next.clone();
                facts.hello.epoch = next.epoch;
                facts.failover.claimed = now;
                facts.failover.lag = self.lag(facts);
                self.send(now, Message::Goodbye(Goodbye::Leads(next.epoch)), out);
                out.extend(self.peer.take().map(Action::ClosePeer));
                self.standing = Standing::GoingLive(next);
                out.push(Action::EndFeed);
            }
            // The one who is suspected changed it, and this side missed that it is still in.
            Some(Changed::Refused(held))
                if held.leader == self.leader && held.has(facts.me()) || Mutant::IgnoresEpoch.is_active() =>
            {
                self.claim(facts.failover.suspected, held.epoch + 1, facts, out);
            }
            Some(Changed::Refused(_)) => self.stop(StopReason::Lost, facts, out),
        }
    }

    pub fn received(
        &mut self,
        now: u64,
        peer: PeerId,
        message: Message,
        facts: &mut Facts,
        out: &mut Vec<Action>,
    ) {
        if self.peer != Some(peer) {
            return;
        }
        self.watch.heard(now);
        facts.failover.last_heard = now;
        let gets_log = matches!(self.standing, Standing::Cut | Standing::Joining | Standing::Member);
        match (self.standing.clone(), message) {
            (Standing::Met, Message::Hello(hello)) => self.greeted(now, hello, facts, out),
            (Standing::Cloning, Message::Clone(part)) => out.push(Action::ClonePart(part)),
            (Standing::Cloning, Message::Cut(cut)) => {
                self.standing = Standing::Cut;
                facts.reached = cut.at;
                self.marked = cut.at.position.count;
                out.push(Action::Cut { at: cut.at, log_header: cut.log_header });
            }
            // What belongs to the cut and was too large for the boundary follows it.
            (Standing::Cut, Message::Clone(part)) => out.push(Action::ClonePart(part)),
            (_, Message::Entries { sequence, bytes }) if gets_log && self.follows(sequence) => {
                out.push(Action::Feed(bytes));
            }
            (_, Message::Mark { sequence, mark }) if gets_log && self.follows(sequence) => {
                self.marked = self.marked.max(mark.at.position.count);
                self.delivered = self.delivered.max(mark.delivered);
                if !Mutant::GoesLiveAtLastEntry.is_active() {
                    out.push(Action::Limit(mark.at));
                }
                let executed = self.tell(facts);
                self.send(now, Message::Ack { sequence, executed }, out);
            }
            (_, Message::Heartbeat { delivered, .. }) => self.delivered = self.delivered.max(delivered),
            (Standing::Joining | Standing::Member, Message::Members(membership)) => {
                self.told_members(membership, facts, out);
            }
            (Standing::Member, Message::TakeOver) => {
                let epoch = self.membership.as_ref().map_or(0, |m| m.epoch) + 1;
                self.claim(now, epoch, facts, out);
            }
            (Standing::Joining | Standing::Member, Message::Goodbye(Goodbye::GuestEnded)) => {
                self.standing = Standing::Finishing;
                out.push(Action::EndFeed);
            }
            (_, Message::Goodbye(Goodbye::GuestEnded)) => self.stop(StopReason::PeerEnded, facts, out),
            (_, Message::Goodbye(Goodbye::Dismissed)) => self.stop(StopReason::Lost, facts, out),
            (_, Message::Goodbye(Goodbye::Refused(why))) => self.stop(StopReason::Refused(why), facts, out),
            (Standing::Claiming { .. } | Standing::GoingLive(_) | Standing::Finishing, _) => {}
            // Whoever says what it must not say now is as good as gone.
            _ => self.suspect(now, facts, out),
        }
    }

    fn greeted(&mut self, now: u64, peer: Hello, facts: &mut Facts, out: &mut Vec<Action>) {
        if let Some(why) = misfit(&facts.hello, &peer) {
            self.send(now, Message::Goodbye(Goodbye::Refused(why.clone())), out);
            return self.stop(StopReason::Refused(why), facts, out);
        }
        facts.hello.epoch = peer.epoch;
        self.leader = peer.member;
        self.cloned = peer.running;
        self.standing = if peer.running { Standing::Cloning } else { Standing::Joining };
    }

    fn told_members(&mut self, membership: Membership, facts: &mut Facts, out: &mut Vec<Action>) {
        if self.membership.as_ref().is_some_and(|known| known.epoch >= membership.epoch) {
            return;
        }
        if !membership.has(facts.me()) || membership.leader != self.leader {
            return self.stop(StopReason::Lost, facts, out);
        }
        facts.hello.epoch = membership.epoch;
        if self.membership.is_none() && !self.cloned {
            out.push(Action::Start);
        }
        self.membership = Some(membership);
        self.standing = Standing::Member;
    }

    /// This machine is the clone, and stands at the cut.
    pub fn restored(&mut self, now: u64, digest: Digest, out: &mut Vec<Action>) {
        if self.standing == Standing::Cut {
            self.standing = Standing::Joining;
            self.send(now, Message::Restored { digest }, out);
            out.push(Action::Start);
        }
    }

    /// Takes the next sequence number; anything else is a peer that cannot be relied on.
    fn follows(&mut self, sequence: u64) -> bool {
        let next = self.sequence.wrapping_add(1) == sequence;
        if next {
            self.sequence = sequence;
        }
        next
    }

    pub fn tick(&mut self, now: u64, facts: &mut Facts, out: &mut Vec<Action>) {
        let silent = self.watch.look(now);
        match &mut self.standing {
            Standing::Claiming { next, again } if again.is_some_and(|at| at <= now) => {
                *again = None;
                out.push(Action::Change(next.clone()));
            }
            Standing::Member if silent > facts.timing.silence => return self.suspect(now, facts, out),
            Standing::Cloning | Standing::Cut | Standing::Joining if silent > facts.timing.drop => {
                return self.suspect(now, facts, out);
            }
            // Somebody who connects and says nothing keeps others away.
            Standing::Met if self.peer.is_some() && silent > facts.timing.drop => {
                return self.suspect(now, facts, out);
            }
            Standing::Met | Standing::GoingLive(_) | Standing::Finishing => return,
            _ => {}
        }
        if now.saturating_sub(self.last_sent) >= facts.timing.heartbeat {
            self.heartbeat(now, facts, out);
        }
    }

    fn heartbeat(&mut self, now: u64, facts: &Facts, out: &mut Vec<Action>) {
        let (delivered, executed) = (self.delivered, self.tell(facts));
        self.send(now, Message::Heartbeat { delivered, executed }, out);
    }

    /// The count that this machine has executed, to be told to the peer.
    fn tell(&mut self, facts: &Facts) -> u64 {
        self.told = facts.reached.position.count;
        self.told
    }

    pub fn reach(&mut self, now: u64, at: At, facts: &mut Facts, out: &mut Vec<Action>) {
        if matches!(self.standing, Standing::Joining | Standing::Member) {
            // A leader that waits for this side sends nothing that would be acknowledged.
            let executed = facts.timing.worth(at.position.count.saturating_sub(self.told));
            if executed.max(now.saturating_sub(self.last_sent)) >= PROGRESS_INTERVAL {
                self.heartbeat(now, facts, out);
            }
        }
    }

    /// The machine has executed all that was received. Returns what this side leads from now on.
    pub fn end_reached(&mut self, facts: &mut Facts, out: &mut Vec<Action>) -> Option<Membership> {
        match &self.standing {
            Standing::GoingLive(membership) => return Some(membership.clone()),
            Standing::Finishing => self.stop(StopReason::PeerEnded, facts, out),
            _ => {}
        }
        None
    }

    /// The machine is not where the log says.
    pub fn diverged(&mut self, now: u64, facts: &mut Facts, out: &mut Vec<Action>) {
        self.send(now, Message::Goodbye(Goodbye::Diverged), out);
        self.stop(StopReason::Diverged, facts, out);
    }
}
