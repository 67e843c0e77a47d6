//! Who is live: the state machine of the two sides of a pair.
//!
//! Not responsible for: keeping outputs (`ring`), clients (`console`), executing (`shell`).
//!
//! ```text
//! primary    Sync -> Primary -------+                      +-> Live (unprotected)
//!                                   +-> Arbitrating -won---+
//! secondary  Sync -> Secondary -----+        |             +-> GoingLive -> Live (unprotected)
//!                        |                  lost
//!                        +-differs-> Stopped <+
//!                        +-guest ended-> Finishing -> Stopped
//! ```

use super::member::Action;
use super::message::{Goodbye, Hello, Mark, Message, PROTOCOL};
use super::watch::Watch;
use gemel_machine::{At, Clock, Reckoning, TimeBase};
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;

/// What a side is at power-on.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Role {
    /// Runs the guest and lets its outputs leave.
    Primary,
    /// Runs the same guest from the primary's log and keeps its outputs.
    Secondary,
}

/// What a side does now.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Phase {
    /// At power-on, waiting for the peer.
    Sync,
    /// Live, with a secondary.
    Primary,
    /// Following a primary.
    Secondary,
    /// The peer is suspected; the arbiter is asked.
    Arbitrating,
    /// Won the epoch; on the way to the last entry or mark.
    GoingLive,
    /// Live without a peer.
    Live,
    /// The guest has ended at the primary, and its outputs are delivered; this side still runs to the same end, to compare it.
    Finishing,
    /// Nothing more to do.
    Stopped(StopReason),
}

/// Why a side stopped.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum StopReason {
    /// The other side has the next epoch.
    Lost,
    /// The machine is not where the log says it must be.
    Diverged,
    /// The guest ended here.
    GuestEnded,
    /// The guest ended at the peer.
    PeerEnded,
    /// The peer is not one, and why.
    Refused(String),
    /// The peer went before the pair was complete.
    NeverInSync,
}

/// What the arbiter said.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ClaimAnswer {
    /// The epoch is ours.
    Won,
    /// It is the other side's.
    Lost,
    /// No answer; nobody knows.
    Unreachable,
}

/// The protocol's times, in nanoseconds.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// How often `Tick` comes, about.
    pub tick: u64,
    /// A side that has said nothing for so long says that it is there.
    pub heartbeat: u64,
    /// Silence after which a secondary suspects its primary.
    pub silence: u64,
    /// Silence after which a primary drops its secondary. Longer: a guest that waits is better than one unprotected.
    pub drop: u64,
    /// How long to wait before an arbiter that did not answer is asked again.
    pub retry: u64,
    /// How far the secondary may be behind before the primary's guest waits, as the guest time of what it has not executed: it
    /// has to be caught up with before the survivor can go live.
    pub max_lag: u64,
    /// What a count is worth.
    pub time_base: TimeBase,
    /// How long the last outputs of a guest that ended wait for a console to fetch them.
    pub linger: u64,
}

impl Default for Timing {
    fn default() -> Self {
        const MS: u64 = 1_000_000;
        Self {
            tick: 2 * MS,
            heartbeat: 10 * MS,
            silence: 50 * MS,
            drop: 300 * MS,
            retry: 50 * MS,
            max_lag: 10 * MS,
            time_base: TimeBase::default(),
            linger: 2_000 * MS,
        }
    }
}

/// What may be seen from outside: outputs and console inputs below these numbers.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Cover {
    pub outputs: u64,
    pub inputs: u64,
}

impl Cover {
    const ALL: Self = Self { outputs: u64::MAX, inputs: u64::MAX };
}

/// When what happened, on the side's own clock. Zero: not yet.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Failover {
    /// When the peer was last heard.
    pub last_heard: u64,
    /// When it was suspected.
    pub suspected: u64,
    /// When the epoch was won.
    pub claimed: u64,
    /// When this side went live.
    pub live: u64,
    /// What was still to be executed when the epoch was won, as guest time.
    pub lag: u64,
}

/// One side's part in the protocol.
#[derive(Clone, Debug)]
pub struct Replication {
    role: Role,
    phase: Phase,
    hello: Hello,
    timing: Timing,
    watch: Watch,
    last_sent: u64,
    /// Of the latest `Entries` or `Mark` sent or received.
    sequence: u64,
    /// Primary: marks that the secondary has not acknowledged.
    unacknowledged: VecDeque<(u64, Cover)>,
    /// What may be seen from outside.
    open: Cover,
    /// Where this machine is.
    reached: At,
    /// Primary: the count up to which the secondary has executed. Secondary: the latest mark's.
    peer_count: u64,
    /// Secondary: the count that the primary was told last.
    told: u64,
    delivered: u64,
    /// When to ask the arbiter again.
    retry_at: Option<u64>,
    failover: Failover,
}

/// A secondary that executes tells how far it is so often, on its own clock and by what it has executed (ns).
const PROGRESS_INTERVAL: u64 = 1_000_000;

const POWER_ON: At =
    At { position: gemel_machine::Position { count: 0, rip: 0, rcx: 0 }, time: gemel_machine::VirtTime(0) };

impl Replication {
    /// A side at power-on. A primary has won `hello.epoch` from the arbiter before; a secondary takes it over.
    pub fn new(hello: Hello, timing: Timing, now: u64) -> Self {
        Self {
            role: hello.role,
            phase: Phase::Sync,
            hello,
            timing,
            watch: Watch::new(now, 2 * timing.tick),
            last_sent: now,
            sequence: 0,
            unacknowledged: VecDeque::new(),
            open: Cover::default(),
            reached: POWER_ON,
            peer_count: 0,
            told: 0,
            delivered: 0,
            retry_at: None,
            failover: Failover::default(),
        }
    }

    /// What this side was at power-on.
    pub fn role(&self) -> Role {
        self.role
    }

    /// What this side does now.
    pub fn phase(&self) -> &Phase {
        &self.phase
    }

    /// The epoch that this side lives in.
    pub fn epoch(&self) -> u64 {
        self.hello.epoch
    }

    /// Whether the guest takes input here and clients are served.
    pub fn is_live(&self) -> bool {
        match self.phase {
            Phase::Primary | Phase::Live => true,
            Phase::Arbitrating => self.role == Role::Primary,
            _ => false,
        }
    }

    /// When what happened.
    pub fn failover(&self) -> Failover {
        self.failover
    }

    /// How far the secondary is behind: what it still has to execute, as guest time (ns). Idle time costs no execution, so it
    /// does not count.
    pub fn lag(&self) -> u64 {
        let (here, peer) = (self.reached.position.count, self.peer_count);
        match self.phase {
            Phase::Primary => self.worth(here.saturating_sub(peer)),
            Phase::Secondary | Phase::Arbitrating | Phase::GoingLive if self.role == Role::Secondary => {
                self.worth(peer.saturating_sub(here))
            }
            _ => 0,
        }
    }

    /// Guest time that so many counts take.
    fn worth(&self, counts: u64) -> u64 {
        Clock::new(Reckoning::Instructions(self.timing.time_base)).time_at(counts).0
    }

    /// Where this machine is.
    pub fn reached(&self) -> At {
        self.reached
    }

    pub(super) fn open(&self) -> Cover {
        self.open
    }

    /// Outputs that the peer says were delivered.
    pub(super) fn delivered_at_peer(&self) -> u64 {
        if self.role == Role::Secondary { self.delivered } else { 0 }
    }

    fn send(&mut self, now: u64, message: Message, out: &mut Vec<Action>) {
        self.last_sent = now;
        out.push(Action::ToPeer(message));
    }

    fn stop(&mut self, reason: StopReason, out: &mut Vec<Action>) {
        self.phase = Phase::Stopped(reason.clone());
        out.push(Action::ClosePeer);
        out.push(Action::Stop(reason));
    }

    /// A connection to the peer stands.
    pub(super) fn connected(&mut self, now: u64, out: &mut Vec<Action>) {
        if self.phase == Phase::Sync {
            self.watch.heard(now);
            self.send(now, Message::Hello(self.hello.clone()), out);
        }
    }

    /// The connection is gone.
    pub(super) fn closed(&mut self, now: u64, out: &mut Vec<Action>) {
        match self.phase {
            Phase::Primary | Phase::Secondary => self.arbitrate(now, out),
            Phase::Sync if self.role == Role::Secondary => self.stop(StopReason::NeverInSync, out),
            _ => {}
        }
    }

    /// A message arrived.
    pub(super) fn received(&mut self, now: u64, message: Message, out: &mut Vec<Action>) {
        if !matches!(self.phase, Phase::Sync | Phase::Primary | Phase::Secondary) {
            return; // Too late: this side has turned to the arbiter.
        }
        self.watch.heard(now);
        self.failover.last_heard = now;
        match (self.phase.clone(), message) {
            (Phase::Sync, Message::Hello(hello)) => self.greeted(now, hello, out),
            (Phase::Sync, Message::Goodbye(Goodbye::Refused(why))) if self.role == Role::Secondary => {
                self.stop(StopReason::Refused(why), out);
            }
            (Phase::Secondary, Message::Entries { sequence, bytes }) if self.follows(sequence) => {
                out.push(Action::Feed(bytes));
            }
            (Phase::Secondary, Message::Mark { sequence, mark }) if self.follows(sequence) => {
                self.peer_count = self.peer_count.max(mark.at.position.count);
                self.delivered = self.delivered.max(mark.delivered);
                out.push(Action::Limit(mark.at));
                let executed = self.tell();
                self.send(now, Message::Ack { sequence, executed }, out);
            }
            (Phase::Secondary, Message::Goodbye(Goodbye::GuestEnded)) => {
                self.phase = Phase::Finishing;
                out.push(Action::EndFeed);
            }
            (Phase::Secondary, Message::Heartbeat { delivered, .. }) => {
                self.delivered = self.delivered.max(delivered);
            }
            (Phase::Primary, Message::Ack { sequence, executed }) if sequence <= self.sequence => {
                self.peer_count = self.peer_count.max(executed);
                while let Some((_, cover)) = self.unacknowledged.pop_front_if(|(s, _)| *s <= sequence) {
                    self.open = cover;
                }
            }
            (Phase::Primary, Message::Heartbeat { executed, .. }) => {
                self.peer_count = self.peer_count.max(executed);
            }
            // Whoever differs, or says what it must not say now, is as good as gone.
            (Phase::Primary | Phase::Secondary, _) => self.arbitrate(now, out),
            _ => out.push(Action::ClosePeer),
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

    fn greeted(&mut self, now: u64, peer: Hello, out: &mut Vec<Action>) {
        let ours = &self.hello;
        let problem = if peer.protocol != PROTOCOL {
            Some(format!(
                "protocol {} here, {} there: run the same gemel on both sides",
                PROTOCOL, peer.protocol
            ))
        } else if peer.vm != ours.vm {
            Some(format!(
                "the VM is '{}' here and '{}' there: give both sides the same --vm",
                ours.vm, peer.vm
            ))
        } else if peer.role == ours.role {
            Some(format!("both sides are a {:?}", ours.role))
        } else if peer.machine != ours.machine {
            Some("the machines differ: give both sides the same machine options and identical images".into())
        } else {
            None
        };
        if let Some(why) = problem {
            self.send(now, Message::Goodbye(Goodbye::Refused(why.clone())), out);
            match self.role {
                Role::Primary => out.push(Action::ClosePeer), // and wait for a better one
                Role::Secondary => self.stop(StopReason::Refused(why), out),
            }
            return;
        }
        match self.role {
            Role::Primary => self.phase = Phase::Primary,
            Role::Secondary => {
                self.hello.epoch = peer.epoch;
                self.phase = Phase::Secondary;
            }
        }
        out.push(Action::Start);
    }

    fn arbitrate(&mut self, now: u64, out: &mut Vec<Action>) {
        self.phase = Phase::Arbitrating;
        self.failover.suspected = now;
        out.push(Action::ClosePeer);
        out.push(Action::Claim { epoch: self.hello.epoch + 1 });
    }

    /// The arbiter answered, or did not.
    pub(super) fn claim_answered(&mut self, now: u64, answer: ClaimAnswer, out: &mut Vec<Action>) {
        if self.phase != Phase::Arbitrating {
            return;
        }
        match answer {
            ClaimAnswer::Lost => self.stop(StopReason::Lost, out),
            ClaimAnswer::Unreachable => self.retry_at = Some(now.saturating_add(self.timing.retry)),
            ClaimAnswer::Won => {
                self.hello.epoch += 1;
                self.open = Cover::ALL;
                self.unacknowledged.clear();
                self.failover.claimed = now;
                match self.role {
                    Role::Primary => {
                        self.phase = Phase::Live;
                        self.failover.live = now;
                    }
                    Role::Secondary => {
                        self.failover.lag = self.lag();
                        self.phase = Phase::GoingLive;
                        out.push(Action::EndFeed);
                    }
                }
            }
        }
    }

    /// Time passes.
    pub(super) fn tick(&mut self, now: u64, out: &mut Vec<Action>) {
        let silent = self.watch.look(now);
        match self.phase {
            Phase::Primary | Phase::Secondary => {
                let limit = if self.role == Role::Primary { self.timing.drop } else { self.timing.silence };
                if silent > limit {
                    self.arbitrate(now, out);
                } else if now.saturating_sub(self.last_sent) >= self.timing.heartbeat {
                    self.heartbeat(now, out);
                }
            }
            Phase::Arbitrating if self.retry_at.is_some_and(|at| at <= now) => {
                self.retry_at = None;
                out.push(Action::Claim { epoch: self.hello.epoch + 1 });
            }
            _ => {}
        }
    }

    fn heartbeat(&mut self, now: u64, out: &mut Vec<Action>) {
        let (delivered, executed) = (self.delivered, self.tell());
        self.send(now, Message::Heartbeat { delivered, executed }, out);
    }

    /// The count that this machine has executed, to be told to the peer.
    fn tell(&mut self) -> u64 {
        self.told = self.reached.position.count;
        self.told
    }

    /// Whether the secondary is so far behind that a live guest has to wait.
    pub fn must_wait(&self) -> bool {
        self.phase == Phase::Primary && self.lag() > self.timing.max_lag
    }

    /// The live machine's log grew.
    pub(super) fn entries(&mut self, now: u64, bytes: Vec<u8>, out: &mut Vec<Action>) {
        if self.phase == Phase::Primary {
            self.sequence += 1;
            self.send(now, Message::Entries { sequence: self.sequence, bytes }, out);
        }
    }

    /// The machine stands here; a live one has logged all that happened before.
    pub(super) fn reach(&mut self, now: u64, at: At, cover: Cover, delivered: u64, out: &mut Vec<Action>) {
        self.reached = at;
        if self.role == Role::Primary {
            self.delivered = delivered;
        }
        if self.phase == Phase::Primary {
            self.sequence += 1;
            self.unacknowledged.push_back((self.sequence, cover));
            let mark = Mark { at, outputs: cover.outputs, delivered };
            self.send(now, Message::Mark { sequence: self.sequence, mark }, out);
        } else if self.phase == Phase::Secondary {
            // A primary that waits for this side sends nothing that would be acknowledged.
            let executed = self.worth(at.position.count.saturating_sub(self.told));
            if executed.max(now.saturating_sub(self.last_sent)) >= PROGRESS_INTERVAL {
                self.heartbeat(now, out);
            }
        }
    }

    /// The machine has executed all that was received before the feed ended, or has ended itself.
    pub(super) fn end_reached(&mut self, now: u64, out: &mut Vec<Action>) {
        match self.phase {
            Phase::GoingLive => {
                self.phase = Phase::Live;
                self.failover.live = now;
            }
            Phase::Finishing => self.stop(StopReason::PeerEnded, out),
            _ => {}
        }
    }

    /// The machine is not where the log says.
    pub(super) fn diverged(&mut self, now: u64, out: &mut Vec<Action>) {
        if !matches!(self.phase, Phase::Stopped(_)) {
            self.send(now, Message::Goodbye(Goodbye::Diverged), out);
            self.stop(StopReason::Diverged, out);
        }
    }

    /// The guest ended and nobody waits for anything any more.
    pub(super) fn finished(&mut self, now: u64, out: &mut Vec<Action>) {
        if self.phase == Phase::Primary {
            self.send(now, Message::Goodbye(Goodbye::GuestEnded), out);
        }
        self.stop(StopReason::GuestEnded, out);
    }

    /// Primary: how many marks wait for their acknowledgement.
    pub fn marks_in_flight(&self) -> usize {
        self.unacknowledged.len()
    }
}
