//! The simulated world: two members with toy machines, a console client, an arbiter, and connections that delay and
//! break, in virtual time.

use crate::toy::{Dice, Entry, Followed, STEP, Toy};
use gemel_machine::TimeBase;
use gemel_pair::ledger::{Line, Told, Verdict, Witness, prove};
use gemel_pair::protocol::*;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};

pub const MS: u64 = 1_000_000;
/// The pair's: the primary had one before, alone.
const FIRST_EPOCH: u64 = 2;
/// Each side's name for the connection to the other.
const PEER: PeerId = PeerId(1);

pub fn timing() -> Timing {
    Timing {
        tick: 2 * MS,
        heartbeat: 10 * MS,
        silence: 50 * MS,
        drop: 120 * MS,
        retry: 20 * MS,
        max_lag: 10 * MS,
        time_base: TimeBase { num: STEP as u32, den: 1 },
        linger: 200 * MS,
    }
}

/// What can go wrong in one run. Times are virtual nanoseconds.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    pub seed: u64,
    /// (when, side)
    pub crashes: Vec<(u64, usize)>,
    /// (when, side, how long)
    pub pauses: Vec<(u64, usize, u64)>,
    /// The pair's connection breaks: both ends hear of it sooner or later.
    pub link_breaks: Option<u64>,
    /// The pair's connection goes silent: nobody hears anything.
    pub link_silent: Option<u64>,
    /// The client's connection to a side breaks.
    pub client_breaks: Vec<(u64, usize)>,
    /// The arbiter cannot be reached.
    pub arbiter_away: Option<(u64, u64)>,
    /// An answer of the arbiter is lost after it took effect, one time in so many.
    pub answers_lost: u64,
    /// The secondary's machine goes wrong.
    pub corrupt: Option<u64>,
    /// The guest powers off at this count.
    pub ends_at: u64,
    /// The longest delay of a message.
    pub delay: u64,
    /// Faults and typing are over.
    pub calm: u64,
}

#[derive(Clone, Debug)]
enum Payload {
    Peer(Message),
    ToServer(ToServer),
    ToClient(ToClient),
}

#[derive(Clone, Debug)]
enum Happening {
    Tick(usize),
    Step(usize),
    Resume(usize),
    PeerConnected(usize),
    /// To a side (or, for `ToClient`, from it to the client) over a connection of this generation.
    Deliver {
        side: usize,
        generation: u64,
        payload: Payload,
    },
    PeerClosed(usize),
    /// The client's connection to a side is gone, as the side hears it.
    ClientClosed {
        side: usize,
        generation: u64,
    },
    /// ... and as the client hears it.
    SideClosed {
        side: usize,
        generation: u64,
    },
    ClientConnects(usize),
    Change(usize, Membership),
    Answer(usize, Option<Changed>),
    Type,
    Fault(Fault),
}

#[derive(Clone, Debug)]
enum Fault {
    Crash(usize),
    Pause(usize, u64),
    LinkBreaks,
    LinkSilent,
    ClientBreaks(usize),
    Corrupt,
}

pub struct Side {
    pub member: Member,
    witness: Witness,
    ledger: Vec<Line>,
    pub toy: Toy,
    started: bool,
    following: bool,
    feed_ended: bool,
    inbox: VecDeque<u8>,
    unmarked: u64,
    pub dead: bool,
    pub stopped: Option<StopReason>,
    paused: bool,
    backlog: Vec<Happening>,
    /// Outputs covered by the marks that this side holds.
    marked: u64,
    pub claimed: bool,
}

pub struct World {
    plan: Plan,
    dice: Dice,
    now: u64,
    queue: BinaryHeap<Reverse<(u64, u64)>>,
    happenings: BTreeMap<u64, Happening>,
    next: u64,
    pub sides: [Side; 2],
    link_open: bool,
    link_silent: bool,
    /// When the last message on a directed connection arrives: connections keep order.
    arrivals: BTreeMap<(usize, bool, bool), u64>,
    pub client: ConsoleClient,
    /// Generation of the client's connection to each side; odd is open.
    generations: [u64; 2],
    register: Vec<Membership>,
    pub typed: Vec<u8>,
    pub shown: Vec<u8>,
    pub guest_ended: bool,
    diverged: bool,
}

fn side(role: Role, ends_at: u64) -> Side {
    let hello = Hello {
        protocol: PROTOCOL,
        vm: "toy".into(),
        role,
        member: MemberId(if role == Role::Primary { 0 } else { 1 }),
        epoch: if role == Role::Primary { FIRST_EPOCH - 1 } else { 0 },
        running: false,
        machine: 7,
        log_header: Vec::new(),
    };
    Side {
        witness: Witness::new(&hello),
        ledger: Vec::new(),
        member: Member::new(hello, 1, timing(), 0),
        toy: Toy::new(ends_at),
        started: false,
        following: role == Role::Secondary,
        feed_ended: false,
        inbox: VecDeque::new(),
        unmarked: 0,
        dead: false,
        stopped: None,
        paused: false,
        backlog: Vec::new(),
        marked: 0,
        claimed: false,
    }
}

impl World {
    pub fn new(plan: Plan) -> Self {
        let mut world = Self {
            dice: Dice(plan.seed ^ 0xd1ce),
            now: 0,
            queue: BinaryHeap::new(),
            happenings: BTreeMap::new(),
            next: 0,
            sides: [side(Role::Primary, plan.ends_at), side(Role::Secondary, plan.ends_at)],
            link_open: true,
            link_silent: false,
            arrivals: BTreeMap::new(),
            client: ConsoleClient::new(),
            generations: [0, 0],
            register: vec![Membership::new(FIRST_EPOCH - 1, MemberId(0), [])],
            typed: Vec::new(),
            shown: Vec::new(),
            guest_ended: false,
            diverged: false,
            plan,
        };
        for side in 0..2 {
            world.at(0, Happening::PeerConnected(side));
            world.at(0, Happening::Tick(side));
            world.at(MS, Happening::ClientConnects(side));
        }
        world.at(2 * MS, Happening::Type);
        let plan = world.plan.clone();
        for (when, side) in plan.crashes {
            world.at(when, Happening::Fault(Fault::Crash(side)));
        }
        for (when, side, long) in plan.pauses {
            world.at(when, Happening::Fault(Fault::Pause(side, long)));
        }
        for (when, side) in plan.client_breaks {
            world.at(when, Happening::Fault(Fault::ClientBreaks(side)));
        }
        for (when, fault) in [
            (plan.link_breaks, Fault::LinkBreaks),
            (plan.link_silent, Fault::LinkSilent),
            (plan.corrupt, Fault::Corrupt),
        ] {
            if let Some(when) = when {
                world.at(when, Happening::Fault(fault));
            }
        }
        world
    }

    fn at(&mut self, when: u64, happening: Happening) {
        self.happenings.insert(self.next, happening);
        self.queue.push(Reverse((when.max(self.now), self.next)));
        self.next += 1;
    }

    fn soon(&mut self) -> u64 {
        self.now + 1 + self.dice.below(self.plan.delay)
    }

    /// Runs until the virtual time `until`.
    pub fn run(&mut self, until: u64) {
        while let Some(&Reverse((when, number))) = self.queue.peek()
            && when <= until
        {
            self.queue.pop();
            self.now = when;
            let happening = self.happenings.remove(&number).expect("queued");
            self.happen(happening);
            self.check_one_live_side();
        }
        self.now = until;
    }

    fn happen(&mut self, happening: Happening) {
        let concerned = match &happening {
            Happening::Tick(s) | Happening::Step(s) | Happening::PeerConnected(s) => Some(*s),
            Happening::PeerClosed(s) | Happening::Answer(s, _) => Some(*s),
            Happening::ClientClosed { side, .. } => Some(*side),
            Happening::Deliver { payload: Payload::ToClient(_), .. } => None,
            Happening::Deliver { side, .. } => Some(*side),
            _ => None,
        };
        if let Some(s) = concerned {
            if self.sides[s].dead || self.sides[s].stopped.is_some() {
                return;
            }
            if self.sides[s].paused {
                self.sides[s].backlog.push(happening);
                return;
            }
        }
        match happening {
            Happening::Tick(s) => {
                self.at(self.now + 2 * MS, Happening::Tick(s));
                self.handle(s, Event::Tick);
            }
            Happening::Step(s) => self.step(s),
            Happening::Resume(s) => {
                self.sides[s].paused = false;
                // What waited comes in order; ticks do not queue up.
                let mut ticked = false;
                for waiting in std::mem::take(&mut self.sides[s].backlog) {
                    if matches!(waiting, Happening::Tick(_)) && std::mem::replace(&mut ticked, true) {
                        continue;
                    }
                    self.at(self.now, waiting);
                }
            }
            Happening::PeerConnected(s) => self.handle(s, Event::PeerConnected(PEER)),
            Happening::Deliver { side, generation, payload } => self.deliver(side, generation, payload),
            Happening::PeerClosed(s) => self.handle(s, Event::PeerClosed(PEER)),
            Happening::ClientClosed { side, generation } => {
                self.handle(side, Event::ClientClosed(generation));
            }
            Happening::SideClosed { side, generation } => {
                if self.generations[side] == generation + 1 {
                    self.client_event(ClientEvent::Closed(side));
                    let when = self.now + MS + self.dice.below(10 * MS);
                    self.at(when, Happening::ClientConnects(side));
                }
            }
            Happening::ClientConnects(s) => {
                let down = self.sides[s].dead || self.sides[s].stopped.is_some();
                if !down && self.generations[s].is_multiple_of(2) {
                    self.generations[s] += 1;
                    self.client_event(ClientEvent::Connected(s));
                }
            }
            Happening::Change(s, next) => self.change(s, next),
            Happening::Answer(s, answer) => self.handle(s, Event::Changed(answer)),
            Happening::Type => {
                if self.now < self.plan.calm {
                    let bytes: Vec<u8> =
                        (0..1 + self.dice.below(6)).map(|_| self.dice.roll() as u8).collect();
                    self.typed.extend_from_slice(&bytes);
                    self.client_event(ClientEvent::Typed(bytes));
                    let when = self.now + self.dice.below(6 * MS);
                    self.at(when, Happening::Type);
                }
            }
            Happening::Fault(fault) => self.fault(fault),
        }
    }

    fn fault(&mut self, fault: Fault) {
        match fault {
            Fault::Crash(s) => {
                self.sides[s].dead = true;
                self.break_link();
                self.break_client(s);
            }
            Fault::Pause(s, long) => {
                if !self.sides[s].dead {
                    self.sides[s].paused = true;
                    self.at(self.now + long, Happening::Resume(s));
                }
            }
            Fault::LinkBreaks => self.break_link(),
            Fault::LinkSilent => self.link_silent = true,
            Fault::ClientBreaks(s) => self.break_client(s),
            Fault::Corrupt => self.sides[1].toy.state ^= 1,
        }
    }

    fn break_link(&mut self) {
        if std::mem::replace(&mut self.link_open, false) && !self.link_silent {
            for s in 0..2 {
                let when = self.soon();
                self.at(when, Happening::PeerClosed(s));
            }
        }
    }

    fn break_client(&mut self, s: usize) {
        if self.generations[s] % 2 == 1 {
            let generation = self.generations[s];
            self.generations[s] += 1;
            let (heard_there, heard_here) = (self.soon(), self.soon());
            self.at(heard_there, Happening::ClientClosed { side: s, generation });
            self.at(heard_here, Happening::SideClosed { side: s, generation });
        }
    }

    fn send(&mut self, side: usize, payload: Payload) {
        let key = (side, matches!(payload, Payload::Peer(_)), matches!(payload, Payload::ToClient(_)));
        let when = self.soon().max(self.arrivals.get(&key).copied().unwrap_or(0));
        self.arrivals.insert(key, when);
        let generation = self.generations[side];
        self.at(when, Happening::Deliver { side, generation, payload });
    }

    fn deliver(&mut self, s: usize, generation: u64, payload: Payload) {
        match payload {
            Payload::Peer(message) => {
                // What was on its way when the connection broke is lost.
                if self.link_open && !self.link_silent {
                    let marked = match &message {
                        Message::Mark { mark, .. } => mark.outputs,
                        _ => 0,
                    };
                    let follows = self.sides[s].member.replication().phase() == Phase::Secondary;
                    self.handle(s, Event::PeerMessage(PEER, message));
                    if follows {
                        self.sides[s].marked = self.sides[s].marked.max(marked);
                    }
                }
            }
            Payload::ToServer(message) => {
                if self.generations[s] == generation {
                    self.handle(s, Event::Client(generation, message));
                }
            }
            Payload::ToClient(message) => {
                if self.generations[s] == generation {
                    self.client_event(ClientEvent::Message(s, message));
                }
            }
        }
    }

    fn change(&mut self, s: usize, next: Membership) {
        let away = self.plan.arbiter_away.is_some_and(|(from, to)| (from..to).contains(&self.now));
        let mut answer = None;
        if !away {
            let held = self.holds();
            answer = Some(if *held == next {
                Changed::Done
            } else if held.epoch + 1 == next.epoch {
                self.register.push(next);
                Changed::Done
            } else {
                Changed::Refused(held.clone())
            });
            if self.plan.answers_lost > 0 && self.dice.one_in(self.plan.answers_lost) {
                answer = None;
            }
        }
        let when = self.soon();
        self.at(when, Happening::Answer(s, answer));
    }

    /// What the ledgers of both sides prove.
    pub fn verdict(&self) -> Verdict {
        let told = |(name, side): (&str, &Side)| Told { name: name.into(), lines: side.ledger.clone() };
        prove(&["primary", "secondary"].into_iter().zip(&self.sides).map(told).collect::<Vec<_>>())
    }

    fn holds(&self) -> &Membership {
        self.register.last().expect("the primary wrote it at power-on")
    }

    /// Who leads in an epoch.
    fn leader_of(&self, epoch: u64) -> Option<usize> {
        self.register.iter().find(|m| m.epoch == epoch).map(|m| m.leader.0 as usize)
    }

    fn handle(&mut self, s: usize, event: Event) {
        self.sides[s].witness.told(&event);
        for action in self.sides[s].member.handle(self.now, event) {
            self.sides[s].witness.wanted(&action);
            let lines = self.sides[s].witness.take();
            self.sides[s].ledger.extend(lines);
            match action {
                Action::ToPeer(_, message) => {
                    if self.link_open {
                        self.send(1 - s, Payload::Peer(message));
                    }
                }
                Action::ClosePeer(_) => {
                    // A closed end is heard of at the other one after what was sent before.
                    let key = (1 - s, true, false);
                    let when = self.soon().max(self.arrivals.get(&key).copied().unwrap_or(0) + 1);
                    if !self.link_silent {
                        self.at(when, Happening::PeerClosed(1 - s));
                    }
                }
                Action::ToClient(id, message) => {
                    if self.generations[s] == id {
                        self.send(s, Payload::ToClient(message));
                    }
                }
                Action::CloseClient(id) => {
                    if self.generations[s] == id {
                        let key = (s, false, true);
                        let when = self.soon().max(self.arrivals.get(&key).copied().unwrap_or(0) + 1);
                        self.at(when, Happening::Fault(Fault::ClientBreaks(s)));
                    }
                }
                Action::TellFigures(_) => {}
                Action::Change(next) => {
                    let when = self.soon();
                    self.at(when, Happening::Change(s, next));
                }
                Action::Clone(_) | Action::ClonePart(_) | Action::Cut { .. } => panic!("no clones here"),
                Action::Start => {
                    self.sides[s].started = true;
                    self.at(self.now, Happening::Step(s));
                }
                Action::Feed(bytes) => self.sides[s].toy.feed(Entry::from_bytes(&bytes)),
                Action::Limit(at) => self.sides[s].toy.allow(at),
                Action::EndFeed => {
                    self.sides[s].feed_ended = true;
                    self.sides[s].claimed = true;
                }
                Action::ToGateway(_) | Action::CloseGateway | Action::Frames(_) => panic!("no gateway here"),
                Action::Input(bytes) => self.sides[s].inbox.extend(bytes),
                Action::Stop(reason) => self.sides[s].stopped = Some(reason),
            }
        }
        if self.sides[s].member.replication().phase() == Phase::Live {
            self.sides[s].claimed = true;
        }
    }

    /// The machine's turn on one side.
    fn step(&mut self, s: usize) {
        let pace = if self.now < self.plan.calm { STEP } else { 4 * STEP };
        let when = self.now + pace / 2 + self.dice.below(pace);
        if self.sides[s].following {
            self.follow(s)
        } else {
            self.lead(s)
        }
        if self.sides[s].stopped.is_none() {
            self.at(when, Happening::Step(s));
        }
    }

    fn follow(&mut self, s: usize) {
        // A follower is faster than real time: it has to catch up.
        for _ in 0..1 + self.dice.below(4) {
            let mut outputs = Vec::new();
            let followed = self.sides[s].toy.follow(&mut outputs);
            for byte in outputs {
                self.handle(s, Event::Output(Channel::Serial(0), byte));
            }
            match followed {
                Followed::On { taken: 0 } => {}
                Followed::On { taken } => self.handle(s, Event::InputTaken(taken)),
                Followed::Diverged => {
                    self.diverged = true;
                    self.handle(s, Event::Diverged);
                    return;
                }
                Followed::AtLimit => {
                    let at = self.sides[s].toy.at();
                    if self.sides[s].toy.ended() {
                        self.handle(s, Event::MachineEnded(at));
                        self.sides[s].following = false;
                    } else if self.sides[s].feed_ended {
                        self.sides[s].following = false;
                        self.handle(s, Event::EndReached);
                    }
                    return;
                }
            }
        }
        let at = self.sides[s].toy.at();
        self.handle(s, Event::Reached(at));
    }

    fn lead(&mut self, s: usize) {
        if self.sides[s].toy.ended() {
            return;
        }
        if self.sides[s].member.must_wait() {
            return;
        }
        if !self.sides[s].inbox.is_empty() && self.dice.one_in(3) {
            let most = self.sides[s].inbox.len() as u64;
            let n = 1 + self.dice.below(most);
            let bytes: Vec<u8> = self.sides[s].inbox.drain(..n as usize).collect();
            let entry = self.sides[s].toy.input(bytes);
            self.check_inputs(s);
            self.handle(s, Event::Entries(PEER, entry.to_bytes()));
            self.handle(s, Event::InputTaken(n));
        }
        let toy = &self.sides[s].toy;
        if toy.count.is_multiple_of(16) {
            let entry = Entry::Digest { count: toy.count, state: toy.state };
            self.handle(s, Event::Entries(PEER, entry.to_bytes()));
        }
        if self.sides[s].unmarked >= 4 || self.dice.one_in(3) {
            let at = self.sides[s].toy.at();
            self.handle(s, Event::Reached(at));
            self.sides[s].unmarked = 0;
        }
        if self.dice.one_in(4) {
            return; // idle: the next input comes at this very position
        }
        for byte in self.sides[s].toy.step() {
            self.handle(s, Event::Output(Channel::Serial(0), byte));
        }
        self.sides[s].unmarked += 1;
        if self.sides[s].toy.ended() {
            let at = self.sides[s].toy.at();
            self.handle(s, Event::MachineEnded(at));
        }
    }

    fn client_event(&mut self, event: ClientEvent) {
        for action in self.client.handle(event) {
            match action {
                ClientAction::Send(s, message) => {
                    if self.generations[s] % 2 == 1 {
                        self.send(s, Payload::ToServer(message));
                    }
                }
                ClientAction::Close(s) => self.break_client(s),
                ClientAction::Show(_, bytes) => self.show(bytes),
                ClientAction::GuestEnded => self.guest_ended = true,
                ClientAction::Live(..) | ClientAction::Figures(..) => {}
                ClientAction::Missed(n) => panic!("{n} outputs are gone at {}", self.now),
                ClientAction::Replaced => panic!("replaced, with one client only"),
            }
        }
    }

    fn show(&mut self, bytes: Vec<u8>) {
        self.shown.extend_from_slice(&bytes);
        let (s, epoch) = self.client.attached().expect("outputs come from a side");
        if epoch == FIRST_EPOCH {
            let held = self.sides[1].marked;
            let shown = self.shown.len() as u64;
            assert!(shown <= held, "output {shown} left, the secondary holds marks up to {held}");
        } else {
            assert_eq!(self.leader_of(epoch), Some(s), "outputs of a side that did not claim {epoch}");
        }
    }

    fn check_inputs(&self, s: usize) {
        let consumed = &self.sides[s].toy.consumed;
        assert!(self.typed.starts_with(consumed), "side {s} took input that was not typed so");
    }

    fn check_one_live_side(&self) {
        for (s, side) in self.sides.iter().enumerate() {
            let replication = side.member.replication();
            if replication.phase() == Phase::Live {
                assert_eq!(self.leader_of(replication.epoch()), Some(s), "side {s} lives without its epoch");
            }
            if self.diverged && s == 1 {
                assert_eq!(side.stopped, Some(StopReason::Diverged));
            }
        }
    }

    /// The side whose history counts.
    pub fn authority(&self) -> usize {
        self.holds().leader.0 as usize
    }
}
