//! Who is live: the state machine of one side.
//!
//! Not responsible for: keeping outputs (`ring`), clients (`console`), executing (`shell`).
//!
//! ```text
//! leads      Sync -> Primary <-> Live (unprotected)         a change of members that is not answered: Arbitrating
//!                       +-> HandingOver -> Stopped          the arbiter refuses: Stopped
//!
//! follows    Sync ------------+-> Secondary -> Arbitrating -won-> GoingLive -> Live, and leads
//!             +-> Cloning -> Joining -+  |         +-lost-> Stopped
//!                                        +-differs-> Stopped
//!                                        +-guest ended-> Finishing -> Stopped
//! ```

use super::following::Following;
use super::leading::Leading;
use super::member::Action;
use super::membership::{Changed, MemberId, Membership, PeerId};
use super::message::{Hello, Message};
use gemel_machine::{At, Clock, Digest, Reckoning, TimeBase};
use serde::{Deserialize, Serialize};

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
    /// Live, and about to hand over to a secondary: the guest stands still.
    HandingOver,
    /// Becoming the clone of a running machine.
    Cloning,
    /// Cloned and following, but no member yet.
    Joining,
    /// Following a primary, as a member.
    Secondary,
    /// A peer is suspected, or leaves; the arbiter is asked.
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
    /// Another side has the next epoch, or goes on without this one.
    Lost,
    /// Another side goes on, as was asked for.
    HandedOver,
    /// The machine is not where the log says it must be.
    Diverged,
    /// The guest ended here.
    GuestEnded,
    /// The guest ended at the peer.
    PeerEnded,
    /// The peer is not one, and why.
    Refused(String),
    /// The peer went before this side was in sync.
    NeverInSync,
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
    /// How far a secondary may be behind before the primary's guest is slowed, as the guest time of what it has not executed: it
    /// has to be caught up with before the survivor can go live. At twice that the guest waits.
    pub max_lag: u64,
    /// A secondary that the guest waits for so long is dropped.
    pub late: u64,
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
            max_lag: 200 * MS,
            late: 10_000 * MS,
            time_base: TimeBase::default(),
            linger: 2_000 * MS,
        }
    }
}

impl Timing {
    /// Guest time that so many counts take (ns).
    pub(super) fn worth(&self, counts: u64) -> u64 {
        Clock::new(Reckoning::Instructions(self.time_base)).time_at(counts).0
    }
}

/// What may be seen from outside: outputs, network frames, and inputs taken below these numbers.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Cover {
    pub outputs: u64,
    /// Console input bytes that the guest took.
    pub inputs: u64,
    /// Network frames that the guest sent.
    pub frames: u64,
    /// Network frames that the guest took.
    pub frames_taken: u64,
}

impl Cover {
    pub(super) const ALL: Self =
        Self { outputs: u64::MAX, inputs: u64::MAX, frames: u64::MAX, frames_taken: u64::MAX };

    fn join(self, other: Self, of: impl Fn(u64, u64) -> u64) -> Self {
        Self {
            outputs: of(self.outputs, other.outputs),
            inputs: of(self.inputs, other.inputs),
            frames: of(self.frames, other.frames),
            frames_taken: of(self.frames_taken, other.frames_taken),
        }
    }

    /// What both cover.
    pub(super) fn and(self, other: Self) -> Self {
        self.join(other, u64::min)
    }

    /// What one of them covers.
    pub(super) fn or(self, other: Self) -> Self {
        self.join(other, u64::max)
    }

    /// Whether this covers all that the other does.
    pub(super) fn covers(self, other: Self) -> bool {
        self.or(other) == self
    }
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

/// What both kinds of side know.
#[derive(Clone, Debug)]
pub(super) struct Facts {
    pub hello: Hello,
    pub timing: Timing,
    /// Secondaries wanted.
    pub wanted: usize,
    /// Where this machine is.
    pub reached: At,
    /// Everything that happened here so far.
    pub cover: Cover,
    /// Outputs that the console's client has acknowledged.
    pub delivered: u64,
    pub failover: Failover,
    /// How long the guest ran with no secondary that could go on with it (ns), and when that was looked at last.
    pub unprotected: u64,
    pub looked: u64,
    pub stopped: Option<StopReason>,
}

impl Facts {
    pub(super) fn me(&self) -> MemberId {
        self.hello.member
    }

    pub(super) fn stop(&mut self, reason: StopReason, out: &mut Vec<Action>) {
        if self.stopped.is_none() {
            self.stopped = Some(reason.clone());
            out.push(Action::Stop(reason));
        }
    }
}

#[derive(Clone, Debug)]
enum Part {
    Leads(Leading),
    Follows(Following),
}

/// One side's part in the protocol.
#[derive(Clone, Debug)]
pub struct Replication {
    role: Role,
    facts: Facts,
    part: Part,
}

const POWER_ON: At =
    At { position: gemel_machine::Position { count: 0, rip: 0, rcx: 0 }, time: gemel_machine::VirtTime(0) };

impl Replication {
    /// A side at power-on. A primary has made `hello.epoch` its own at the arbiter before, with no other member; it starts when
    /// `wanted` secondaries are in sync. A secondary takes the epoch over.
    pub fn new(hello: Hello, wanted: usize, timing: Timing, now: u64) -> Self {
        let role = hello.role;
        let (epoch, member, hello_runs) = (hello.epoch, hello.member, hello.running);
        let facts = Facts {
            hello,
            timing,
            wanted,
            reached: POWER_ON,
            cover: Cover::default(),
            delivered: 0,
            failover: Failover::default(),
            unprotected: 0,
            looked: now,
            stopped: None,
        };
        let part = match role {
            Role::Primary => {
                Part::Leads(Leading::at_power_on(Membership::new(epoch, member, []), hello_runs))
            }
            Role::Secondary => Part::Follows(Following::new(now, timing)),
        };
        Self { role, facts, part }
    }

    /// What this side was at power-on.
    pub fn role(&self) -> Role {
        self.role
    }

    /// Its name among all that take part.
    pub fn member(&self) -> MemberId {
        self.facts.me()
    }

    /// What this side does now.
    pub fn phase(&self) -> Phase {
        match (&self.facts.stopped, &self.part) {
            (Some(reason), _) => Phase::Stopped(reason.clone()),
            (None, Part::Leads(leading)) => leading.phase(),
            (None, Part::Follows(following)) => following.phase(),
        }
    }

    /// The epoch that this side lives in.
    pub fn epoch(&self) -> u64 {
        self.facts.hello.epoch
    }

    /// The membership that this side knows of, if any.
    pub fn membership(&self) -> Option<&Membership> {
        match &self.part {
            Part::Leads(leading) => Some(leading.membership()),
            Part::Follows(following) => following.membership(),
        }
    }

    /// Whether the guest takes input here and clients are served.
    pub fn is_live(&self) -> bool {
        self.facts.stopped.is_none() && matches!(&self.part, Part::Leads(leading) if leading.has_started())
    }

    /// When what happened.
    pub fn failover(&self) -> Failover {
        self.facts.failover
    }

    /// How far a secondary is behind: what it still has to execute, as guest time (ns); of several the last. Idle time costs no
    /// execution, so it does not count.
    pub fn lag(&self) -> u64 {
        match &self.part {
            Part::Leads(leading) => leading.lag(&self.facts),
            Part::Follows(following) => following.lag(&self.facts),
        }
    }

    /// How far the last secondary is behind in time (ns): how long ago this machine was where that one is.
    pub fn host_lag(&self) -> u64 {
        match &self.part {
            Part::Leads(leading) => leading.host_lag(),
            Part::Follows(_) => 0,
        }
    }

    /// The share of time that the live machine is to sleep so that its secondaries keep up, in millionths.
    pub fn brake(&self) -> u64 {
        match &self.part {
            Part::Leads(leading) => leading.brake(),
            Part::Follows(_) => 0,
        }
    }

    /// How long the guest ran here with no secondary (ns).
    pub fn unprotected(&self) -> u64 {
        self.facts.unprotected
    }

    /// Where this machine is.
    pub fn reached(&self) -> At {
        self.facts.reached
    }

    /// The peers that have the log from power-on and nothing else: at the start, those to send it to.
    pub fn peers_from_power_on(&self) -> Vec<PeerId> {
        match &self.part {
            Part::Leads(leading) => leading.peers_from_power_on().collect(),
            Part::Follows(_) => Vec::new(),
        }
    }

    /// Whether another secondary is wanted and none is on its way.
    pub fn wants_peer(&self) -> bool {
        self.is_live() && matches!(&self.part, Part::Leads(leading) if leading.peers() < self.facts.wanted)
    }

    /// Whether a secondary is so far behind that a live guest has to wait, or the guest is to stand still.
    pub fn must_wait(&self) -> bool {
        match &self.part {
            Part::Leads(leading) => leading.must_wait(&self.facts),
            Part::Follows(_) => false,
        }
    }

    /// Primary: how many marks wait for their acknowledgement.
    pub fn marks_in_flight(&self) -> usize {
        match &self.part {
            Part::Leads(leading) => leading.marks_in_flight(),
            Part::Follows(_) => 0,
        }
    }

    pub(super) fn open(&self) -> Cover {
        match &self.part {
            Part::Leads(leading) => leading.open(),
            Part::Follows(_) => Cover::default(),
        }
    }

    /// Outputs that the leader says were delivered.
    pub(super) fn delivered_at_leader(&self) -> u64 {
        match &self.part {
            Part::Leads(_) => 0,
            Part::Follows(following) => following.delivered(),
        }
    }

    /// What was seen from outside so far, and what there is to see.
    pub(super) fn observe(&mut self, cover: Cover, delivered: u64) {
        self.facts.cover = cover;
        self.facts.delivered = delivered;
    }

    /// A connection to a peer stands.
    pub(super) fn connected(&mut self, now: u64, peer: PeerId, out: &mut Vec<Action>) {
        match &mut self.part {
            Part::Leads(leading) => leading.connected(now, peer, &mut self.facts, out),
            Part::Follows(following) => following.connected(now, peer, &mut self.facts, out),
        }
    }

    /// The connection is gone.
    pub(super) fn closed(&mut self, now: u64, peer: PeerId, out: &mut Vec<Action>) {
        match &mut self.part {
            Part::Leads(leading) => leading.closed(now, peer, &mut self.facts, out),
            Part::Follows(following) => following.closed(now, peer, &mut self.facts, out),
        }
    }

    /// A message arrived.
    pub(super) fn received(&mut self, now: u64, peer: PeerId, message: Message, out: &mut Vec<Action>) {
        match &mut self.part {
            Part::Leads(leading) => leading.received(now, peer, message, &mut self.facts, out),
            Part::Follows(following) => following.received(now, peer, message, &mut self.facts, out),
        }
    }

    /// The arbiter answered, or did not.
    pub(super) fn changed(&mut self, now: u64, answer: Option<Changed>, out: &mut Vec<Action>) {
        match &mut self.part {
            Part::Leads(leading) => leading.changed(now, answer, &mut self.facts, out),
            Part::Follows(following) => following.changed(now, answer, &mut self.facts, out),
        }
    }

    /// Time passes.
    pub(super) fn tick(&mut self, now: u64, out: &mut Vec<Action>) {
        let passed = now.saturating_sub(std::mem::replace(&mut self.facts.looked, now));
        if matches!(self.phase(), Phase::Live | Phase::Arbitrating) && self.is_live() {
            self.facts.unprotected += passed;
        }
        match &mut self.part {
            Part::Leads(leading) => leading.tick(now, &mut self.facts, out),
            Part::Follows(following) => following.tick(now, &mut self.facts, out),
        }
    }

    /// The live machine's log grew, as this peer gets it.
    pub(super) fn entries(&mut self, now: u64, peer: PeerId, bytes: Vec<u8>, out: &mut Vec<Action>) {
        if let Part::Leads(leading) = &mut self.part {
            leading.entries(now, peer, bytes, out);
        }
    }

    /// The machine stands here; a live one has logged all that happened before.
    pub(super) fn reach(&mut self, now: u64, at: At, out: &mut Vec<Action>) {
        self.facts.reached = at;
        match &mut self.part {
            Part::Leads(leading) => leading.reach(now, at, &mut self.facts, out),
            Part::Follows(following) => following.reach(now, at, &mut self.facts, out),
        }
    }

    /// The machine's state at this boundary was taken for a peer.
    pub(super) fn cut(&mut self, now: u64, peer: PeerId, message: Message, out: &mut Vec<Action>) {
        if let Part::Leads(leading) = &mut self.part {
            leading.cut(now, peer, message, &self.facts, out);
        }
    }

    /// What a clone made at the cut must be equal to.
    pub(super) fn cut_digest(&mut self, now: u64, peer: PeerId, digest: Digest, out: &mut Vec<Action>) {
        if let Part::Leads(leading) = &mut self.part {
            leading.cut_digest(now, peer, digest, &mut self.facts, out);
        }
    }

    /// A peer cannot be cloned to.
    pub(super) fn clone_failed(&mut self, now: u64, peer: PeerId, out: &mut Vec<Action>) {
        if let Part::Leads(leading) = &mut self.part {
            leading.leave(now, peer, None, &mut self.facts, out);
        }
    }

    /// This machine is the clone, and stands at the cut.
    pub(super) fn restored(&mut self, now: u64, digest: Digest, out: &mut Vec<Action>) {
        if let Part::Follows(following) = &mut self.part {
            following.restored(now, digest, out);
        }
    }

    /// The live machine stands still because it has to wait, and all that happened before is covered by a mark.
    pub(super) fn held(&mut self, now: u64, out: &mut Vec<Action>) {
        if let Part::Leads(leading) = &mut self.part {
            leading.held(now, &mut self.facts, out);
        }
    }

    /// A member is to leave.
    pub(super) fn unprotect(&mut self, now: u64, member: MemberId, out: &mut Vec<Action>) {
        if let Part::Leads(leading) = &mut self.part {
            leading.unprotect(now, member, &mut self.facts, out);
        }
    }

    /// A member is to lead in this side's place.
    pub(super) fn fail_over(&mut self, to: Option<MemberId>) {
        if let Part::Leads(leading) = &mut self.part {
            leading.hand_over(to);
        }
    }

    /// The machine has executed all that was received before the feed ended, or has ended itself.
    pub(super) fn end_reached(&mut self, now: u64, out: &mut Vec<Action>) {
        let Part::Follows(following) = &mut self.part else { return };
        if let Some(membership) = following.end_reached(&mut self.facts, out) {
            self.facts.failover.live = now;
            self.facts.hello.role = Role::Primary;
            self.facts.hello.running = true;
            self.part = Part::Leads(Leading::alone(membership));
        }
    }

    /// The machine is not where the log says.
    pub(super) fn diverged(&mut self, now: u64, out: &mut Vec<Action>) {
        if let Part::Follows(following) = &mut self.part {
            following.diverged(now, &mut self.facts, out);
        }
    }

    /// The guest ended and nobody waits for anything any more.
    pub(super) fn finished(&mut self, now: u64, out: &mut Vec<Action>) {
        if let Part::Leads(leading) = &mut self.part {
            leading.finished(now, &mut self.facts, out);
        }
    }
}
