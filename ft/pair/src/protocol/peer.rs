//! One secondary, as the side that leads sees it.
//!
//! Not responsible for: what follows for the others (`leading`).

use super::member::Action;
use super::membership::{MemberId, PeerId};
use super::message::{Mark, Message};
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
}

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
    unacknowledged: VecDeque<(u64, Cover)>,
    pub acknowledged: Cover,
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
            executed: 0,
            from_power_on: false,
            digests: (None, None),
        }
    }

    /// Whether outputs wait for it.
    pub fn must_acknowledge(&self) -> bool {
        matches!(self.standing, Standing::Equal { .. } | Standing::Member)
    }

    /// Whether it gets the log.
    pub fn gets_log(&self) -> bool {
        self.standing == Standing::Cut || self.must_acknowledge()
    }

    /// Whether it may be, or stay, in the register: with all that was let out in hand.
    pub fn is_fit(&self) -> bool {
        match self.standing {
            Standing::Equal { owes } => self.acknowledged.covers(owes),
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
        self.unacknowledged.push_back((self.sequence, cover));
        let mark = Mark { at, outputs: cover.outputs, delivered };
        self.send(now, Message::Mark { sequence: self.sequence, mark }, out);
    }

    /// It has everything up to `sequence` in hand; `false` when that was never sent.
    pub fn acknowledge(&mut self, sequence: u64, executed: u64) -> bool {
        self.executed = self.executed.max(executed);
        while let Some((_, cover)) = self.unacknowledged.pop_front_if(|(s, _)| *s <= sequence) {
            self.acknowledged = cover;
        }
        sequence <= self.sequence
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
