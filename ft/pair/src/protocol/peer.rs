//! One secondary, as the side that leads sees it.
//!
//! Not responsible for: what follows for the others (`leading`).

use super::member::Action;
use super::membership::{MemberId, PeerId};
use super::message::{Mark, Message};
use super::mutant::Mutant;
use super::replication::{Cover, Facts};
use super::watch::Watch;
use gemel_machine::{At, Digest};
use std::collections::VecDeque;

/// How far a peer has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Standing {
    /// A connection that has not said who it is.
    Met,
    /// Its machine is being filled beside the running guest.
    Cloning,
    /// It gets the log from the cut on, and its state is on its way.
    Cut,
    /// It has the machine: outputs wait for it from here on. It becomes a member once it has acknowledged what was let out
    /// without it.
    Equal {
        /// That.
        owes: Cover,
    },
    /// A member.
    Member,
    /// A member that is to leave: it counts until the register says that it is none, for who is told before cannot claim, and
    /// this side may die.
    Leaving,
}

/// A mark that was sent.
#[derive(Clone, Copy, Debug)]
struct Sent {
    when: u64,
    sequence: u64,
    cover: Cover,
}

/// Places that a peer has not executed, by the time that this machine was there: one a millisecond, about.
const TRAIL: u64 = 1_000_000;

/// One secondary.
#[derive(Clone, Debug)]
pub(super) struct Peer {
    pub id: PeerId,
    /// Known once it has said hello.
    pub member: MemberId,
    pub standing: Standing,
    pub watch: Watch,
    last_sent: u64,
    /// Of the latest `Entries` or `Mark`.
    sequence: u64,
    /// Marks that it has not acknowledged.
    unacknowledged: VecDeque<Sent>,
    pub acknowledged: Cover,
    /// Counts that it has not executed, and when this machine stood there.
    trail: VecDeque<(u64, u64)>,
    /// Since when it has been further behind than it may.
    late_since: Option<u64>,
    /// The count up to which it has executed.
    pub executed: u64,
    /// It has the log from power-on.
    pub from_power_on: bool,
    /// What its machine has to be equal to, and what it is.
    pub digests: (Option<Digest>, Option<Digest>),
}

impl Peer {
    pub fn new(now: u64, id: PeerId, facts: &Facts) -> Self {
        Self {
            id,
            member: MemberId(0),
            standing: Standing::Met,
            watch: Watch::new(now, 2 * facts.timing.tick),
            last_sent: now,
            sequence: 0,
            unacknowledged: VecDeque::new(),
            acknowledged: Cover::default(),
            trail: VecDeque::new(),
            late_since: None,
            executed: 0,
            from_power_on: false,
            digests: (None, None),
        }
    }

    /// Whether outputs wait for it.
    pub fn must_acknowledge(&self) -> bool {
        matches!(self.standing, Standing::Equal { .. } | Standing::Member | Standing::Leaving)
    }

    /// Whether it gets the log.
    pub fn gets_log(&self) -> bool {
        self.standing == Standing::Cut || self.must_acknowledge()
    }

    /// Whether it may be, or stay, in the register: with all that was let out in hand.
    pub fn is_fit(&self) -> bool {
        match self.standing {
            Standing::Equal { owes } => self.acknowledged.covers(owes) || Mutant::JoinsTooEarly.is_active(),
            Standing::Member => true,
            _ => false,
        }
    }

    pub fn send(&mut self, now: u64, message: Message, out: &mut Vec<Action>) {
        self.last_sent = now;
        out.push(Action::ToPeer(self.id, message));
    }

    pub fn entries(&mut self, now: u64, bytes: Vec<u8>, out: &mut Vec<Action>) {
        self.sequence += 1;
        self.send(now, Message::Entries { sequence: self.sequence, bytes }, out);
    }

    pub fn mark(&mut self, now: u64, at: At, cover: Cover, delivered: u64, out: &mut Vec<Action>) {
        self.sequence += 1;
        let count = at.position.count;
        self.unacknowledged.push_back(Sent { when: now, sequence: self.sequence, cover });
        if self.trail.back().is_none_or(|(when, _)| now.saturating_sub(*when) >= TRAIL) {
            self.trail.push_back((now, count));
        }
        let mark = Mark { at, outputs: cover.outputs, delivered };
        self.send(now, Message::Mark { sequence: self.sequence, mark }, out);
    }

    /// It has everything up to `sequence` in hand; `false` when that was never sent.
    pub fn acknowledge(&mut self, sequence: u64, executed: u64) -> bool {
        self.has_executed(executed);
        while let Some(sent) = self.unacknowledged.pop_front_if(|sent| sent.sequence <= sequence) {
            self.acknowledged = sent.cover;
        }
        sequence <= self.sequence
    }

    pub fn has_executed(&mut self, count: u64) {
        self.executed = self.executed.max(count);
        while self.trail.pop_front_if(|(_, there)| *there <= self.executed).is_some() {}
    }

    /// How far it is behind in time: how long ago this machine was where it is now.
    pub fn host_lag(&self, now: u64) -> u64 {
        self.trail.front().map_or(0, |(when, _)| now.saturating_sub(*when))
    }

    /// Whether it has been further behind than it may for too long, in what it executes or in what it acknowledges.
    pub fn is_too_late(&mut self, now: u64, facts: &Facts) -> bool {
        // A slow one settles at what it may be behind, since the machine is slowed; one that comes no further has it waiting.
        let late = self.must_acknowledge()
            && (self.lag(facts) > 2 * facts.timing.max_lag
                || self
                    .unacknowledged
                    .front()
                    .is_some_and(|sent| now.saturating_sub(sent.when) > facts.timing.drop));
        match late {
            false => self.late_since = None,
            true => {
                let since = *self.late_since.get_or_insert(now);
                return now.saturating_sub(since) > facts.timing.late;
            }
        }
        false
    }

    pub fn marks_in_flight(&self) -> usize {
        self.unacknowledged.len()
    }

    /// How far it is behind (ns of guest time that it has to execute).
    pub fn lag(&self, facts: &Facts) -> u64 {
        facts.timing.worth(facts.reached.position.count.saturating_sub(self.executed))
    }

    pub fn heartbeat_if_due(&mut self, now: u64, facts: &Facts, out: &mut Vec<Action>) {
        if now.saturating_sub(self.last_sent) >= facts.timing.heartbeat {
            let (delivered, executed) = (facts.delivered, facts.reached.position.count);
            self.send(now, Message::Heartbeat { delivered, executed }, out);
        }
    }
}
