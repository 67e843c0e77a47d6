//! One side of the pair: the protocol, the ring and the console's server as one state machine.
//!
//! Not responsible for: threads, sockets, the arbiter's storage, the machine (`shell`, or a simulation).

use super::console::{ClientId, ConsoleServer, ServerAction, ToClient, ToServer};
use super::frames::NicFrame;
use super::gateway::{FromSide, GatewayOrder, GatewayServer, ToSide};
use super::latency::{Latencies, Stopwatch};
use super::membership::{Changed, MemberId, Membership, PeerId};
use super::message::{ClonePart, Cut, Hello, Message};
use super::mutant::Mutant;
use super::replication::{Cover, Failover, Phase, Replication, Role, StopReason, Timing};
use super::ring::{Channel, OutputRing};
use super::watch::Watch;
use gemel_machine::{At, Digest};
use serde::{Deserialize, Serialize};

/// Outputs that are kept while nobody fetches them.
pub const RING_CAPACITY: usize = 1 << 20;

/// What happens to a side.
#[derive(Clone, Debug)]
pub enum Event {
    /// Time passes; comes about every [`Timing::tick`].
    Tick,
    /// A connection to a peer stands.
    PeerConnected(PeerId),
    /// A peer says something.
    PeerMessage(PeerId, Message),
    /// The connection to a peer is gone.
    PeerClosed(PeerId),
    /// A client says something.
    Client(ClientId, ToServer),
    /// The connection to a client is gone.
    ClientClosed(ClientId),
    /// A connection to the gateway of the guest's network stands.
    GatewayConnected,
    /// The gateway says something.
    Gateway(ToSide),
    /// The connection to the gateway is gone.
    GatewayClosed,
    /// The machine sent a network frame.
    Frame(NicFrame),
    /// The machine took a network frame, from [`Action::Frames`] or from the log.
    FrameTaken,
    /// The machine emitted a byte.
    Output(Channel, u8),
    /// The machine took so many bytes of console input, from [`Action::Input`] or from the log.
    InputTaken(u64),
    /// The live machine's log grew by these bytes, as this peer gets it.
    Entries(PeerId, Vec<u8>),
    /// The machine stands at a boundary. A live one has logged everything that happened before it.
    Reached(At),
    /// The live machine stands at its boundary and waits, after [`Event::Reached`], until [`Member::must_wait`] says no.
    Held,
    /// The guest ended here: it powered off, or reset a machine that does not start again.
    MachineEnded(At),
    /// The following machine has executed all that was received before [`Action::EndFeed`].
    EndReached,
    /// The following machine is not where the log says.
    Diverged,
    /// The live machine's state at this boundary was taken for a peer: its log begins here.
    Cut {
        /// Who gets it.
        peer: PeerId,
        /// The boundary.
        at: At,
        /// The header of the log that begins here.
        log_header: Vec<u8>,
    },
    /// What a clone made at the peer's cut must be equal to.
    CutDigest {
        /// Who gets it.
        peer: PeerId,
        /// Of the machine at the cut.
        digest: Digest,
    },
    /// A peer cannot be cloned to.
    CloneFailed(PeerId),
    /// This machine has the state that it was sent, and is at the cut.
    Restored(Digest),
    /// The arbiter's answer to [`Action::Change`]; none if it cannot be reached, and nobody knows.
    Changed(Option<Changed>),
    /// Somebody wants the pair without this member.
    Unprotect(MemberId),
    /// Somebody wants another member to lead, this one or any.
    FailOver(Option<MemberId>),
}

/// What a side wants done, in this order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Action {
    /// Say something to a peer.
    ToPeer(PeerId, Message),
    /// End the connection to a peer, after what was said before.
    ClosePeer(PeerId),
    /// Copy the running machine to this peer, up to [`Event::Cut`].
    Clone(PeerId),
    /// Part of the machine that this one is to become.
    ClonePart(ClonePart),
    /// What follows is the log from here on; the machine is to be put here, then [`Event::Restored`].
    Cut {
        /// The boundary.
        at: At,
        /// The header of the log that begins here.
        log_header: Vec<u8>,
    },
    /// Say something to a client.
    ToClient(ClientId, ToClient),
    /// End the connection to a client, after what was said before.
    CloseClient(ClientId),
    /// The client asks for figures: answer with [`ToClient::Figures`].
    TellFigures(ClientId),
    /// Ask the arbiter for this change; [`Event::Changed`] has the answer. One at a time.
    Change(Membership),
    /// This side's machine may run.
    Start,
    /// Log bytes to follow.
    Feed(Vec<u8>),
    /// The following machine may run up to here.
    Limit(At),
    /// Nothing more to follow: run to the last entry or limit, then [`Event::EndReached`].
    EndFeed,
    /// Hand these bytes to the machine's first serial port.
    Input(Vec<u8>),
    /// Say something to the gateway.
    ToGateway(FromSide),
    /// End the connection to the gateway, after what was said before; then connect again.
    CloseGateway,
    /// Hand these frames to the machine's network interfaces.
    Frames(Vec<NicFrame>),
    /// Stop the machine; this side is done.
    Stop(StopReason),
}

/// What a side can tell about itself.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Figures {
    /// What it was at power-on.
    pub role: Role,
    /// What it does.
    pub phase: Phase,
    /// The epoch.
    pub epoch: u64,
    /// This side's name.
    pub member: MemberId,
    /// Who is in sync, as far as this side knows.
    pub members: Vec<MemberId>,
    /// Position of the machine (count).
    pub position: u64,
    /// Guest time of the machine (ns).
    pub guest_time: u64,
    /// How far the secondary is behind: the guest time of what it has not executed (ns).
    pub lag: u64,
    /// The same by this side's clock (ns): how long ago it was where the secondary is.
    pub host_lag: u64,
    /// The share of time that the guest sleeps so that the secondary keeps up, in millionths.
    pub brake: u64,
    /// How long the guest ran here with no other side that could go on with it (ns).
    pub unprotected: u64,
    /// Outputs emitted.
    pub outputs: u64,
    /// Outputs that wait for an acknowledgement.
    pub held: u64,
    /// Outputs that may leave.
    pub released: u64,
    /// Outputs that the console has shown.
    pub delivered: u64,
    /// Console input bytes that the guest took.
    pub inputs: u64,
    /// Network frames that the guest sent.
    pub frames: u64,
    /// Network frames that wait for an acknowledgement.
    pub frames_held: u64,
    /// Network frames that the gateway has.
    pub frames_delivered: u64,
    /// Network frames that the guest took.
    pub frames_taken: u64,
    /// Marks that wait for an acknowledgement.
    pub marks_in_flight: u64,
    /// How long outputs of this side, while it was live, waited for it.
    pub latency: Latencies,
    /// When what happened.
    pub failover: Failover,
}

/// One side.
pub struct Member {
    replication: Replication,
    ring: OutputRing,
    console: ConsoleServer,
    gateway: GatewayServer,
    timing: Timing,
    /// The guest ended.
    ended: bool,
    /// How long all its outputs could have been fetched, and in which epoch: a new one has to find its client first.
    offered: Option<(Watch, u64)>,
    stopwatch: Stopwatch,
}

impl Member {
    /// A side at power-on. See [`Replication::new`].
    pub fn new(hello: Hello, wanted: usize, timing: Timing, now: u64) -> Self {
        let gateway = GatewayServer::new(hello.vm.clone(), hello.machine);
        Self {
            gateway,
            replication: Replication::new(hello, wanted, timing, now),
            ring: OutputRing::new(RING_CAPACITY),
            console: ConsoleServer::new(),
            timing,
            ended: false,
            offered: None,
            stopwatch: Stopwatch::default(),
        }
    }

    /// The protocol's state.
    pub fn replication(&self) -> &Replication {
        &self.replication
    }

    /// Whether the live guest has to wait: so many outputs are held, or the secondary is so far behind.
    pub fn must_wait(&self) -> bool {
        self.replication.is_live() && (self.ring.is_full() || self.gateway.ring().is_full())
            || self.replication.must_wait()
    }

    /// The share of time that the live machine is to sleep so that its secondaries keep up, in millionths.
    pub fn brake(&self) -> u64 {
        self.replication.brake()
    }

    /// Whether this side leads and wants a secondary more: the next that answers is to be connected.
    pub fn wants_peer(&self) -> bool {
        !self.ended && self.replication.wants_peer()
    }

    /// What there is to tell.
    pub fn figures(&self) -> Figures {
        let Self { replication, ring, console, gateway, .. } = self;
        let at = replication.reached();
        Figures {
            role: replication.role(),
            phase: replication.phase(),
            epoch: replication.epoch(),
            member: replication.member(),
            members: replication.membership().map(|m| m.members.clone()).unwrap_or_default(),
            position: at.position.count,
            guest_time: at.time.0,
            lag: replication.lag(),
            host_lag: replication.host_lag(),
            brake: replication.brake(),
            unprotected: replication.unprotected(),
            outputs: ring.emitted(),
            held: ring.emitted().saturating_sub(ring.released()),
            released: ring.released(),
            delivered: ring.delivered(),
            inputs: console.taken(),
            frames: gateway.ring().emitted(),
            frames_held: gateway.ring().emitted().saturating_sub(gateway.ring().released()),
            frames_delivered: gateway.ring().delivered(),
            frames_taken: gateway.taken(),
            marks_in_flight: replication.marks_in_flight() as u64,
            latency: self.stopwatch.latencies.clone(),
            failover: replication.failover(),
        }
    }

    /// Takes an event at `now` (ns of a clock that never goes back).
    pub fn handle(&mut self, now: u64, event: Event) -> Vec<Action> {
        let mut out = Vec::new();
        if matches!(self.replication.phase(), Phase::Stopped(_)) {
            return out;
        }
        let (mut served, mut orders) = (Vec::new(), Vec::new());
        self.replication.observe(self.cover(), self.ring.delivered());
        match event {
            // The frequent ones change nothing that anybody sees before the next mark.
            Event::Output(channel, byte) => {
                if self.replication.is_live() {
                    self.stopwatch.emitted(now, self.ring.emitted());
                }
                self.ring.push((channel, byte));
                return out;
            }
            Event::Entries(peer, bytes) => {
                self.replication.entries(now, peer, bytes, &mut out);
                return out;
            }
            Event::InputTaken(bytes) => {
                self.console.take(bytes);
                return out;
            }
            Event::Frame(frame) => {
                self.gateway.push(frame);
                return out;
            }
            Event::FrameTaken => {
                self.gateway.take();
                return out;
            }
            Event::Tick => {
                self.replication.tick(now, &mut out);
                self.end_when_delivered(now, &mut out);
            }
            Event::PeerConnected(peer) => self.replication.connected(now, peer, &mut out),
            Event::PeerMessage(peer, message) => self.message(now, peer, message, &mut out),
            Event::PeerClosed(peer) => self.replication.closed(now, peer, &mut out),
            Event::Client(id, ToServer::Figures) => out.push(Action::TellFigures(id)),
            Event::Client(id, message) => self.console.message(id, message, &mut self.ring, &mut served),
            Event::ClientClosed(id) => self.console.closed(id),
            Event::GatewayConnected => self.gateway.connected(&mut orders),
            Event::Gateway(message) => self.gateway.message(message, &mut orders),
            Event::GatewayClosed => self.gateway.closed(),
            Event::Reached(at) => self.replication.reach(now, at, &mut out),
            Event::Held => self.replication.held(now, &mut out),
            Event::MachineEnded(at) => {
                self.replication.reach(now, at, &mut out);
                self.ended = true;
            }
            Event::EndReached => self.replication.end_reached(now, &mut out),
            Event::Diverged => self.replication.diverged(now, &mut out),
            Event::Cut { peer, at, log_header } => {
                let (ring, inputs) = (self.ring.state(), self.console.taken());
                let cut = Cut { at, log_header, ring, inputs, gateway: self.gateway.state() };
                self.replication.cut(now, peer, Message::Cut(cut), &mut out);
            }
            Event::CutDigest { peer, digest } => self.replication.cut_digest(now, peer, digest, &mut out),
            Event::CloneFailed(peer) => self.replication.clone_failed(now, peer, &mut out),
            Event::Restored(digest) => self.replication.restored(now, digest, &mut out),
            Event::Changed(answer) => self.replication.changed(now, answer, &mut out),
            Event::Unprotect(member) => self.replication.unprotect(now, member, &mut out),
            Event::FailOver(to) => self.replication.fail_over(to),
        }
        // A machine that ended has nothing more to catch up with.
        if self.ended {
            self.replication.end_reached(now, &mut out);
        }
        self.serve(served, &mut out);
        self.serve_gateway(orders, &mut out);
        self.stopwatch.released(now, self.ring.released());
        out
    }

    fn cover(&self) -> Cover {
        Cover {
            outputs: self.ring.emitted(),
            inputs: self.console.taken(),
            frames: self.gateway.ring().emitted(),
            frames_taken: self.gateway.taken(),
        }
    }

    fn message(&mut self, now: u64, peer: PeerId, message: Message, out: &mut Vec<Action>) {
        if let Message::Cut(cut) = &message
            && self.replication.phase() == Phase::Cloning
        {
            if !Mutant::ClonesWithoutRing.is_active() {
                self.ring.restore(cut.ring.clone());
            }
            self.console.restore(cut.inputs);
            self.gateway.restore(cut.gateway.clone());
        }
        self.replication.received(now, peer, message, out);
    }

    /// Lets leave what may, and tells the clients what changed.
    fn serve(&mut self, mut served: Vec<ServerAction>, out: &mut Vec<Action>) {
        let open = self.replication.open();
        if Mutant::DropsRing.is_active() && self.replication.phase() == Phase::GoingLive {
            self.ring.deliver(self.ring.emitted());
        }
        self.ring.release(open.outputs);
        self.ring.deliver(self.replication.delivered_at_leader());
        if let Phase::Stopped(reason) = self.replication.phase() {
            let guest_ended = matches!(reason, StopReason::GuestEnded | StopReason::PeerEnded);
            self.console.stop(guest_ended, &mut served);
        } else if self.replication.is_live() {
            self.console.go_live(self.replication.epoch(), &mut served);
        }
        self.console.flush(&self.ring, open.inputs, &mut served);
        out.extend(served.into_iter().map(|action| match action {
            ServerAction::Send(id, message) => Action::ToClient(id, message),
            ServerAction::Close(id) => Action::CloseClient(id),
            ServerAction::Input(bytes) => Action::Input(bytes),
        }));
    }

    /// The same for the guest's frames.
    fn serve_gateway(&mut self, mut orders: Vec<GatewayOrder>, out: &mut Vec<Action>) {
        let open = self.replication.open();
        let live = self.replication.is_live().then(|| self.replication.epoch());
        self.gateway.set_live(live);
        self.gateway.flush(open.frames, open.frames_taken, &mut orders);
        out.extend(orders.into_iter().map(|order| match order {
            GatewayOrder::Send(message) => Action::ToGateway(message),
            GatewayOrder::Close => Action::CloseGateway,
            GatewayOrder::Frames(frames) => Action::Frames(frames),
        }));
    }

    /// The guest's last outputs leave before the side does. Looked at with every tick.
    fn end_when_delivered(&mut self, now: u64, out: &mut Vec<Action>) {
        let may_leave = matches!(self.replication.phase(), Phase::Primary | Phase::Live | Phase::HandingOver);
        if !self.ended || !may_leave || self.ring.released() < self.ring.emitted() {
            return;
        }
        let epoch = self.replication.epoch();
        self.offered.take_if(|(_, of)| *of != epoch);
        let (patience, _) = self.offered.get_or_insert((Watch::new(now, 2 * self.timing.tick), epoch));
        let all_shown = self.console.has_client()
            && self.ring.delivered() >= self.ring.emitted()
            && self.gateway.is_idle();
        if all_shown || patience.look(now) > self.timing.linger {
            self.replication.finished(now, out);
        }
    }
}
