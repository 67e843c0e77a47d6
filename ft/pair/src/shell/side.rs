//! Carries out what a member of the pair decides.
//!
//! Not responsible for: deciding (`protocol`), the machine (`run`).

use super::address::Address;
use super::clone::{Copied, Desk, DiskBlocks, Part, copy_to};
use super::connection::{Outgoing, spawn};
use super::error::PairError;
use super::feed::Feed;
use super::ledger::LedgerFile;
use super::run::Options;
use crate::ledger::Witness;
use crate::protocol::{
    Action, ClientId, ClonePart, Event, Figures, FromSide, Hello, Member, Membership, Message, NicFrame,
    PeerId, Phase, StopReason, Timing, ToClient,
};
use crossbeam::channel::{Sender, unbounded};
use gemel_log::{ByteCounts, Class, Header};
use parking_lot::{Condvar, Mutex};
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
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

    /// Hands frames to the machine's network interfaces; must not wait. No more than [`crate::protocol::FRAMES_WINDOW`] wait at a time.
    fn frames(&self, frames: Vec<NicFrame>);

    /// Makes the machine's thread look at its world soon.
    fn nudge(&self);

    /// Called once, too: the side, which can be told to take secondaries, to part from them, or to hand over.
    fn obey(&self, side: Arc<Side>);

    /// Whether somebody asked this process to end.
    fn asked_to_quit(&self) -> bool;

    /// The machine's disks, in order: what a clone of it copies, or is copied to.
    fn disks(&self) -> &[Arc<dyn DiskBlocks>];

    /// Tells the person who runs this side.
    fn say(&self, news: &str);
}

/// A side's figures, as it tells them.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Report {
    /// The protocol's.
    #[serde(flatten)]
    pub figures: Figures,
    /// Log bytes so far, by class.
    pub log: ByteCounts,
    /// The copies made of this machine.
    pub clones: CloneFigures,
    /// When this was said (ns of the host's monotonic clock, as all moments in it).
    pub now: u64,
}

/// What copying the machine to standbys took.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct CloneFigures {
    /// How many standbys got the machine.
    pub made: u64,
    /// How long the guest stood still for the last one's cut (ns).
    pub pause: u64,
    /// How long the last one took, with the guest running (ns).
    pub took: u64,
    /// Pages sent for it.
    pub pages: u64,
    /// Disk blocks sent for it.
    pub blocks: u64,
    /// Bytes sent for it.
    pub bytes: u64,
    /// Times that what had changed meanwhile was sent again.
    pub rounds: u32,
}

/// What a standby's machine is made of, as it comes.
pub(super) enum Coming {
    /// A part of the machine.
    Part(ClonePart),
    /// The log begins here.
    Cut(Arc<Feed>, Box<Header>),
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
    feed: OnceLock<Arc<Feed>>,
    /// A standby's machine goes there.
    coming: Option<Sender<Coming>>,
    /// Where copies of this machine are made, and what the peers say to it.
    pub(super) desk: Desk,
    copies: Mutex<BTreeMap<PeerId, Sender<Part>>>,
    max_pause: Duration,
    clones: Mutex<CloneFigures>,
    /// Since when this side leads alone, if it does.
    alone_since: Mutex<Option<u64>>,
    /// Somebody wants the guest to run on this side alone.
    unprotected: AtomicBool,
    /// Where standbys may wait, the next first.
    standbys: Mutex<VecDeque<Address>>,
    changes: Sender<Membership>,
    peers: Mutex<BTreeMap<PeerId, Outgoing<Message>>>,
    next_peer: AtomicU64,
    clients: Mutex<BTreeMap<ClientId, Outgoing<ToClient>>>,
    gateway: Mutex<Option<Outgoing<FromSide>>>,
    counts: Mutex<ByteCounts>,
    progress: Mutex<Progress>,
    changed: Condvar,
    /// Who writes down what leaves. Locked only by who holds `member`.
    ledger: Option<(Mutex<Witness>, LedgerFile)>,
}

impl Side {
    /// A side of these parts; `coming` is where a standby's machine goes.
    pub(super) fn new(
        hello: Hello,
        timing: Timing,
        surroundings: Box<dyn Surroundings>,
        wanted: usize,
        options: &Options,
        (changes, coming): (Sender<Membership>, Option<Sender<Coming>>),
    ) -> Result<Arc<Self>, PairError> {
        let ledger = options.ledger.as_deref().map(LedgerFile::create).transpose()?;
        let side = Arc::new(Self {
            ledger: ledger.map(|file| (Mutex::new(Witness::new(&hello)), file)),
            member: Mutex::new(Member::new(hello, wanted, timing, now())),
            surroundings,
            feed: OnceLock::new(),
            coming,
            desk: Desk::default(),
            copies: Mutex::default(),
            max_pause: options.max_pause,
            standbys: Mutex::new(options.standbys.iter().cloned().collect()),
            clones: Mutex::default(),
            alone_since: Mutex::default(),
            unprotected: AtomicBool::new(false),
            changes,
            peers: Mutex::default(),
            next_peer: AtomicU64::new(1),
            clients: Mutex::default(),
            gateway: Mutex::default(),
            counts: Mutex::default(),
            progress: Mutex::default(),
            changed: Condvar::new(),
        });
        let observed = Arc::clone(&side);
        side.surroundings.observe(Arc::new(move || observed.report()));
        side.surroundings.obey(Arc::clone(&side));
        Ok(side)
    }

    /// This side follows a log from here on.
    pub(super) fn follow(&self, feed: Arc<Feed>) {
        let _ = self.feed.set(feed); // once in a side's life
    }

    /// Something happened.
    pub(super) fn event(self: &Arc<Self>, event: Event) {
        let mut member = self.member.lock();
        let mut events = VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            // Under the lock: what is decided first must also be sent first. Nothing below waits.
            self.witness(|witness| witness.told(&event));
            for action in member.handle(now(), event) {
                // In the ledger before it leaves.
                self.witness(|witness| witness.wanted(&action));
                events.extend(self.carry_out(&member, action));
            }
        }
    }

    fn witness(&self, f: impl FnOnce(&mut Witness)) {
        let Some((witness, file)) = &self.ledger else { return };
        let mut witness = witness.lock();
        f(&mut witness);
        let lines = witness.take();
        if !lines.is_empty() {
            file.write(lines);
        }
    }

    /// Ends the ledger, which says that this side ended in good order.
    pub(super) fn end_ledger(&self) {
        let member = self.member.lock();
        self.witness(Witness::end);
        drop(member);
        self.ledger.iter().for_each(|(_, file)| file.finish());
    }

    /// Does what was decided; returns what follows from it.
    fn carry_out(self: &Arc<Self>, member: &Member, action: Action) -> Option<Event> {
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
            Action::Clone(id) => return self.start_copy(id),
            Action::ClonePart(part) => {
                if let Some(coming) = &self.coming {
                    // A machine's thread that is gone wants none.
                    let _ = coming.send(Coming::Part(part));
                }
            }
            Action::Cut { log_header, .. } => return self.begin_feed(&log_header),
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
                if self.feed.get().is_some_and(|feed| feed.bytes(&bytes).is_err()) {
                    return self.leader_is_gone();
                }
            }
            Action::Limit(at) => {
                if let Some(feed) = self.feed.get() {
                    feed.limit(at);
                }
            }
            Action::EndFeed => {
                if let Some(feed) = self.feed.get() {
                    feed.end();
                }
            }
            Action::Input(bytes) => self.surroundings.input(&bytes),
            Action::ToGateway(message) => {
                if let Some(gateway) = &*self.gateway.lock() {
                    gateway.send(&message);
                }
            }
            Action::CloseGateway => {
                if let Some(gateway) = self.gateway.lock().take() {
                    gateway.close();
                }
            }
            Action::Frames(frames) => self.surroundings.frames(frames),
            Action::Stop(reason) => {
                self.proceed(|p| p.stopped = Some(reason));
                self.halt_machine();
            }
        }
        None
    }

    /// What a leader sends is nonsense.
    fn leader_is_gone(&self) -> Option<Event> {
        self.peers.lock().keys().next().map(|leader| Event::PeerClosed(*leader))
    }

    fn begin_feed(&self, log_header: &[u8]) -> Option<Event> {
        let (Ok((feed, header)), Some(coming)) = (Feed::new(log_header), &self.coming) else {
            return self.leader_is_gone();
        };
        self.follow(Arc::clone(&feed));
        let _ = coming.send(Coming::Cut(feed, Box::new(header)));
        None
    }

    /// Copies the running machine to a peer, in a thread of its own.
    fn start_copy(self: &Arc<Self>, peer: PeerId) -> Option<Event> {
        let (to, parts) = unbounded();
        self.copies.lock().insert(peer, to);
        let side = Arc::clone(self);
        let started = spawn("clone", move || {
            copy_to(&side, peer, parts, side.max_pause);
            side.copies.lock().remove(&peer);
        });
        started.is_err().then_some(Event::CloneFailed(peer))
    }

    /// A standby said something.
    pub(super) fn hear(self: &Arc<Self>, peer: PeerId, message: Message) {
        let Message::Clone(part) = &message else { return self.event(Event::PeerMessage(peer, message)) };
        // A copy that is done wants to hear nothing more.
        if let Some((copy, part)) = self.copies.lock().get(&peer).zip(Part::read(part)) {
            let _ = copy.send(part);
        }
    }

    /// Says something to a peer that the protocol need not know of; `false` if it is gone.
    pub(super) fn send(&self, peer: PeerId, message: &Message) -> bool {
        self.peers.lock().get(&peer).inspect(|peer| peer.send(message)).is_some()
    }

    /// A copy has left.
    pub(super) fn copied(&self, copied: Copied) {
        let Copied { pause, took, pages, blocks, bytes, rounds } = copied;
        let mut clones = self.clones.lock();
        *clones = CloneFigures {
            made: clones.made + 1,
            pause: pause.as_nanos() as u64,
            took: took.as_nanos() as u64,
            pages,
            blocks,
            bytes,
            rounds,
        };
        self.say(&format!(
            "the machine is copied to a standby: {pages} pages and {blocks} disk blocks in {rounds} rounds and {:.2} s; the guest \
             stood still for {:.1} ms",
            took.as_secs_f64(),
            pause.as_secs_f64() * 1e3
        ));
    }

    pub(super) fn disks(&self) -> &[Arc<dyn DiskBlocks>] {
        self.surroundings.disks()
    }

    pub(super) fn say(&self, news: &str) {
        self.surroundings.say(news);
    }

    pub(super) fn nudge(&self) {
        self.surroundings.nudge();
    }

    pub(super) fn has_peer(&self, peer: PeerId) -> bool {
        self.peers.lock().contains_key(&peer)
    }

    /// Whether the next standby that answers is to be connected.
    pub(super) fn wants_peer(&self) -> bool {
        !self.unprotected.load(Ordering::Relaxed) && self.member.lock().wants_peer()
    }

    /// Tells when this side begins to lead alone, and when that ends.
    fn note_protection(&self) {
        let leads_with = match self.member.lock().replication().phase() {
            Phase::Live => false,
            Phase::Primary => true,
            _ => return,
        };
        let (now, mut since) = (now(), self.alone_since.lock());
        match (*since, leads_with) {
            (None, false) => {
                *since = Some(now);
                drop(since);
                self.say("the guest runs unprotected");
            }
            (Some(began), true) => {
                *since = None;
                drop(since);
                let seconds = (now - began) as f64 / 1e9;
                self.say(&format!("the guest is protected; it was not for {seconds:.2} s"));
            }
            _ => {}
        }
    }

    /// Takes secondaries from here on, the one at `standby` first.
    pub fn protect(&self, standby: Option<Address>) {
        if let Some(standby) = standby {
            let mut standbys = self.standbys.lock();
            standbys.retain(|known| *known != standby);
            standbys.push_front(standby);
        }
        self.unprotected.store(false, Ordering::Relaxed);
    }

    /// The standby to try next.
    pub(super) fn next_standby(&self) -> Option<Address> {
        let mut standbys = self.standbys.lock();
        let next = standbys.pop_front()?;
        standbys.push_back(next.clone());
        Some(next)
    }

    /// Parts from all secondaries, and takes none until [`Side::protect`].
    pub fn unprotect(self: &Arc<Self>) {
        self.unprotected.store(true, Ordering::Relaxed);
        let figures = self.report().figures;
        for member in figures.members.into_iter().filter(|m| *m != figures.member) {
            self.event(Event::Unprotect(member));
        }
    }

    /// Hands the guest over to a secondary, with everything that it has done.
    pub fn fail_over(self: &Arc<Self>) {
        self.event(Event::FailOver(None));
    }

    fn tell(&self, id: ClientId, message: ToClient) {
        if let Some(client) = self.clients.lock().get(&id) {
            client.send(&message);
        }
    }

    fn halt_machine(&self) {
        if let Some(feed) = self.feed.get() {
            feed.stop();
        }
        self.surroundings.nudge();
    }

    fn proceed(&self, f: impl FnOnce(&mut Progress)) {
        f(&mut self.progress.lock());
        self.changed.notify_all();
    }

    /// Time passes.
    pub(super) fn tick(self: &Arc<Self>) {
        if self.surroundings.asked_to_quit() && !std::mem::replace(&mut self.progress.lock().quit, true) {
            self.changed.notify_all();
            self.halt_machine();
        }
        self.event(Event::Tick);
        self.note_protection();
    }

    /// A name for the next connection to a peer.
    pub(super) fn name_peer(&self) -> PeerId {
        PeerId(self.next_peer.fetch_add(1, Ordering::Relaxed))
    }

    pub(super) fn add_peer(self: &Arc<Self>, id: PeerId, peer: Outgoing<Message>) {
        self.peers.lock().insert(id, peer);
        self.event(Event::PeerConnected(id));
    }

    pub(super) fn peer_closed(self: &Arc<Self>, id: PeerId) {
        self.peers.lock().remove(&id);
        self.copies.lock().remove(&id);
        self.event(Event::PeerClosed(id));
    }

    /// The peers that get the log as it is from power-on.
    pub(super) fn peers_from_power_on(&self) -> Vec<PeerId> {
        self.member.lock().replication().peers_from_power_on()
    }

    pub(super) fn add_client(&self, id: ClientId, client: Outgoing<ToClient>) {
        self.clients.lock().insert(id, client);
    }

    pub(super) fn client_closed(self: &Arc<Self>, id: ClientId) {
        self.clients.lock().remove(&id);
        self.event(Event::ClientClosed(id));
    }

    pub(super) fn set_gateway(self: &Arc<Self>, gateway: Outgoing<FromSide>) {
        *self.gateway.lock() = Some(gateway);
        self.event(Event::GatewayConnected);
    }

    pub(super) fn gateway_closed(self: &Arc<Self>) {
        self.gateway.lock().take();
        self.event(Event::GatewayClosed);
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
        self.peers.lock().values().any(|peer| peer.waiting() > PEER_QUEUE)
            || self.ledger.as_ref().is_some_and(|(_, file)| file.is_behind())
            || self.member.lock().must_wait()
    }

    /// The share of time that a live guest is to sleep, in millionths.
    pub(super) fn brake(&self) -> u64 {
        self.member.lock().brake()
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
        let (log, clones) = (*self.counts.lock(), *self.clones.lock());
        Report { figures: member.figures(), log, clones, now: now() }
    }

    /// The figures.
    pub fn report(&self) -> Report {
        self.report_of(&self.member.lock())
    }
}
