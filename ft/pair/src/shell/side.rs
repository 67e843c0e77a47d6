//! Carries out what a member of the pair decides.
//!
//! Not responsible for: deciding (`protocol`), the machine (`run`).

use super::connection::Outgoing;
use super::feed::Feed;
use crate::protocol::{
    Action, ClientId, Event, Figures, Hello, Member, Membership, Message, PeerId, StopReason, Timing,
    ToClient,
};
use crossbeam::channel::Sender;
use gemel_log::{ByteCounts, Class};
use parking_lot::{Condvar, Mutex};
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Bytes to the peer that may wait before the guest has to.
const PEER_QUEUE: usize = 8 << 20;

/// The host's monotonic clock in nanoseconds: the same for all processes of one host.
pub fn now() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// Tells a side's figures.
pub type ReportFn = Arc<dyn Fn() -> Report + Send + Sync>;

/// What a side needs of the live world around its machine. Called from any thread.
pub trait Surroundings: Send + Sync {
    /// Called once, before anything else: how to learn the side's figures.
    fn observe(&self, report: ReportFn);

    /// Hands bytes to the first serial port; must not wait.
    fn input(&self, bytes: &[u8]);

    /// Makes the machine's thread look at its world soon.
    fn nudge(&self);

    /// Whether somebody asked this process to end.
    fn asked_to_quit(&self) -> bool;
}

/// A side's figures, as it tells them.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Report {
    /// The protocol's.
    #[serde(flatten)]
    pub figures: Figures,
    /// Log bytes so far, by class.
    pub log: ByteCounts,
    /// When this was said (ns of the host's monotonic clock, as all moments in it).
    pub now: u64,
}

#[derive(Default)]
struct Progress {
    started: bool,
    stopped: Option<StopReason>,
    quit: bool,
}

/// One side of the pair, shared by its threads.
pub struct Side {
    member: Mutex<Member>,
    surroundings: Box<dyn Surroundings>,
    feed: Option<Arc<Feed>>,
    changes: Sender<Membership>,
    peers: Mutex<BTreeMap<PeerId, Outgoing<Message>>>,
    next_peer: AtomicU64,
    clients: Mutex<BTreeMap<ClientId, Outgoing<ToClient>>>,
    counts: Mutex<ByteCounts>,
    progress: Mutex<Progress>,
    changed: Condvar,
}

impl Side {
    pub(super) fn new(
        hello: Hello,
        timing: Timing,
        surroundings: Box<dyn Surroundings>,
        feed: Option<Arc<Feed>>,
        changes: Sender<Membership>,
        wanted: usize,
    ) -> Arc<Self> {
        let side = Arc::new(Self {
            member: Mutex::new(Member::new(hello, wanted, timing, now())),
            surroundings,
            feed,
            changes,
            peers: Mutex::default(),
            next_peer: AtomicU64::new(1),
            clients: Mutex::default(),
            counts: Mutex::default(),
            progress: Mutex::default(),
            changed: Condvar::new(),
        });
        let observed = Arc::clone(&side);
        side.surroundings.observe(Arc::new(move || observed.report()));
        side
    }

    /// Something happened.
    pub(super) fn event(&self, event: Event) {
        let mut member = self.member.lock();
        let mut events = VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            // Under the lock: what is decided first must also be sent first. Nothing below waits.
            for action in member.handle(now(), event) {
                events.extend(self.carry_out(&member, action));
            }
        }
    }

    /// Does what was decided; returns what follows from it.
    fn carry_out(&self, member: &Member, action: Action) -> Option<Event> {
        match action {
            Action::ToPeer(id, message) => {
                if let Some(peer) = self.peers.lock().get(&id) {
                    peer.send(&message);
                }
            }
            Action::ClosePeer(id) => {
                if let Some(peer) = self.peers.lock().remove(&id) {
                    peer.close();
                }
            }
            // Nothing here copies a running machine yet, or becomes a copy.
            Action::Clone(id) => return Some(Event::CloneFailed(id)),
            Action::ClonePart(_) | Action::Cut { .. } => {}
            Action::ToClient(id, message) => self.tell(id, message),
            Action::CloseClient(id) => {
                if let Some(client) = self.clients.lock().remove(&id) {
                    client.close();
                }
            }
            Action::TellFigures(id) => {
                let report = self.report_of(member);
                self.tell(id, ToClient::Figures(serde_json::to_string(&report).unwrap_or_default()));
            }
            Action::Change(next) => {
                if self.changes.send(next).is_err() {
                    return Some(Event::Changed(None));
                }
            }
            Action::Start => self.proceed(|p| p.started = true),
            Action::Feed(bytes) => {
                // A peer that sends nonsense is gone for us; what came before it counts.
                if self.feed.as_ref().is_some_and(|feed| feed.bytes(&bytes).is_err()) {
                    return self.peers.lock().keys().next().map(|leader| Event::PeerClosed(*leader));
                }
            }
            Action::Limit(at) => {
                if let Some(feed) = &self.feed {
                    feed.limit(at);
                }
            }
            Action::EndFeed => {
                if let Some(feed) = &self.feed {
                    feed.end();
                }
            }
            Action::Input(bytes) => self.surroundings.input(&bytes),
            Action::Stop(reason) => {
                self.proceed(|p| p.stopped = Some(reason));
                self.halt_machine();
            }
        }
        None
    }

    fn tell(&self, id: ClientId, message: ToClient) {
        if let Some(client) = self.clients.lock().get(&id) {
            client.send(&message);
        }
    }

    fn halt_machine(&self) {
        if let Some(feed) = &self.feed {
            feed.stop();
        }
        self.surroundings.nudge();
    }

    fn proceed(&self, f: impl FnOnce(&mut Progress)) {
        f(&mut self.progress.lock());
        self.changed.notify_all();
    }

    /// Time passes.
    pub(super) fn tick(&self) {
        if self.surroundings.asked_to_quit() && !std::mem::replace(&mut self.progress.lock().quit, true) {
            self.changed.notify_all();
            self.halt_machine();
        }
        self.event(Event::Tick);
    }

    /// A name for the next connection to a peer.
    pub(super) fn name_peer(&self) -> PeerId {
        PeerId(self.next_peer.fetch_add(1, Ordering::Relaxed))
    }

    pub(super) fn add_peer(&self, id: PeerId, peer: Outgoing<Message>) {
        self.peers.lock().insert(id, peer);
        self.event(Event::PeerConnected(id));
    }

    pub(super) fn peer_closed(&self, id: PeerId) {
        self.peers.lock().remove(&id);
        self.event(Event::PeerClosed(id));
    }

    /// The peers that get the log as it is from power-on.
    pub(super) fn peers_from_power_on(&self) -> Vec<PeerId> {
        self.member.lock().replication().peers_from_power_on()
    }

    pub(super) fn add_client(&self, id: ClientId, client: Outgoing<ToClient>) {
        self.clients.lock().insert(id, client);
    }

    pub(super) fn client_closed(&self, id: ClientId) {
        self.clients.lock().remove(&id);
        self.event(Event::ClientClosed(id));
    }

    pub(super) fn count(&self, class: Class, bytes: u64) {
        self.counts.lock().add(class, bytes);
    }

    pub(super) fn count_header(&self, bytes: u64) {
        self.counts.lock().other += bytes;
    }

    /// Whether the machine's thread is to give up.
    pub(super) fn must_stop(&self) -> bool {
        let progress = self.progress.lock();
        progress.stopped.is_some() || progress.quit
    }

    /// Whether a live guest has to wait: more is on its way than may be.
    pub(super) fn must_wait(&self) -> bool {
        self.peers.lock().values().any(|peer| peer.waiting() > PEER_QUEUE) || self.member.lock().must_wait()
    }

    pub(super) fn is_started(&self) -> bool {
        self.progress.lock().started
    }

    /// Waits until the pair is complete; `false` when it never will be.
    pub(super) fn wait_started(&self) -> bool {
        let mut progress = self.progress.lock();
        while !progress.started && progress.stopped.is_none() && !progress.quit {
            self.changed.wait(&mut progress);
        }
        progress.started && !progress.quit
    }

    /// Waits until this side is done, and returns why; `None` when somebody asked the process to end.
    pub(super) fn wait_stopped(&self) -> Option<StopReason> {
        let mut progress = self.progress.lock();
        while progress.stopped.is_none() && !progress.quit {
            self.changed.wait(&mut progress);
        }
        progress.stopped.clone()
    }

    /// Lets what was said last go out, but not for long.
    pub(super) fn drain(&self, patience: Duration) {
        let deadline = Instant::now() + patience;
        while Instant::now() < deadline && self.clients.lock().values().any(|c| c.waiting() > 0) {
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn report_of(&self, member: &Member) -> Report {
        Report { figures: member.figures(), log: *self.counts.lock(), now: now() }
    }

    /// The figures.
    pub fn report(&self) -> Report {
        self.report_of(&self.member.lock())
    }
}
