//! The simulated world: hosts, a console client, an arbiter, and connections that delay and break, in virtual time.

use crate::host::{Connection, Host, Link, Side, Start};
use crate::judge::Judge;
use crate::plan::{CALM, Fault, MS, Plan, Point};
use crate::toy::{Dice, STEP, Toy};
use gemel_machine::Digest;
use gemel_pair::ledger::Told;
use gemel_pair::protocol::*;
use std::cmp::Ordering;
use std::collections::BinaryHeap;

#[derive(Debug)]
pub enum Happening {
    Tick,
    Step,
    /// A connection stands, at this end.
    Connected(usize, usize),
    /// A message arrives at this end of a connection.
    Deliver(usize, usize, Message),
    /// A connection is closed, as this end hears.
    Closed(usize, usize),
    /// The arbiter's answer.
    Answer(Option<Changed>),
    /// The pages are with a peer.
    Copied(PeerId),
    /// The state at the cut is hashed.
    Hashed(PeerId, Digest),
    /// A clone has its machine.
    Filled(usize),
    ToServer(u64, ToServer),
    /// The client's connection is gone, as the side hears.
    ClientClosed(u64),
    /// The process takes up work again as a standby.
    Anew,
    Resume,
    // What follows happens at no host's process.
    ToClient(u64, ToClient),
    /// ... as the client hears.
    ServerClosed(u64),
    ClientConnects,
    /// A question arrives at the arbiter, for the first time or again.
    Asked(Membership, bool),
    Type,
    Fault(Fault),
}

/// What happens when, to which host and which of its sides.
struct Scheduled {
    when: u64,
    number: u64,
    host: usize,
    incarnation: u64,
    happening: Happening,
}

impl PartialEq for Scheduled {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Scheduled {}

impl PartialOrd for Scheduled {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Scheduled {
    fn cmp(&self, other: &Self) -> Ordering {
        (other.when, other.number).cmp(&(self.when, self.number))
    }
}

pub struct World {
    pub plan: Plan,
    pub dice: Dice,
    pub now: u64,
    queue: BinaryHeap<Scheduled>,
    next: u64,
    pub hosts: Vec<Host>,
    pub connections: Vec<Connection>,
    pub client: ConsoleClient,
    pub links: Vec<Link>,
    pub arbiter_away_until: u64,
    /// How often each strike's point was come to.
    pub struck: Vec<u64>,
    /// Machines on their way to a clone.
    pub clones: Vec<Toy>,
    pub judge: Judge,
    members: u64,
    /// A guest came to its end where it was led.
    pub ended: bool,
    pub guest_ended: bool,
    /// Every event and what follows is printed.
    pub tells: bool,
    /// Members whose process died, or was asked to leave.
    pub gone: Vec<MemberId>,
}

impl World {
    pub fn new(plan: Plan) -> Self {
        let mut world = Self {
            dice: Dice(plan.seed ^ 0xd1ce),
            now: 0,
            queue: BinaryHeap::new(),
            next: 0,
            hosts: Vec::new(),
            connections: Vec::new(),
            client: ConsoleClient::new(),
            links: vec![Link::default(); plan.hosts],
            arbiter_away_until: 0,
            struck: vec![0; plan.strikes.len()],
            clones: Vec::new(),
            judge: Judge::default(),
            members: 0,
            ended: false,
            guest_ended: false,
            gone: Vec::new(),
            tells: std::env::var_os("GEMEL_SEED").is_some(),
            plan,
        };
        for host in 0..world.plan.hosts {
            let side = world.new_side(if host == 0 { Start::Primary } else { Start::Waiting });
            world.hosts.push(Host {
                side,
                incarnation: 0,
                alive: true,
                paused: false,
                backlog: Vec::new(),
                cut_off_until: 0,
            });
            world.at(MS / 4, host, Happening::Tick);
            world.at(MS, host, Happening::ClientConnects);
        }
        world.judge.register.push(Membership::new(1, world.hosts[0].side.id, []));
        for host in 1..=world.plan.wanted {
            world.connect(0, host);
        }
        world.at(2 * MS, 0, Happening::Type);
        for (when, fault) in world.plan.faults.clone() {
            world.at(when, 0, Happening::Fault(fault));
        }
        world
    }

    fn new_side(&mut self, start: Start) -> Side {
        self.members += 1;
        let mut side =
            Side::new(MemberId(self.members), start, self.plan.wanted, self.plan.ends_at, self.now);
        side.ledger.take_if(|_| !self.plan.ledgers);
        side
    }

    /// What each host's ledger says.
    pub fn ledgers(&self) -> Vec<Told> {
        let told = |(h, host): (usize, &Host)| {
            host.side
                .ledger
                .as_ref()
                .map(|(_, lines)| Told { name: format!("host {h}"), lines: lines.clone() })
        };
        self.hosts.iter().enumerate().filter_map(told).collect()
    }

    pub fn at(&mut self, when: u64, host: usize, happening: Happening) {
        let incarnation = self.hosts.get(host).map_or(0, |h| h.incarnation);
        self.schedule(when, host, incarnation, happening);
    }

    fn schedule(&mut self, when: u64, host: usize, incarnation: u64, happening: Happening) {
        let number = self.next;
        self.next += 1;
        self.queue.push(Scheduled { when: when.max(self.now), number, host, incarnation, happening });
    }

    pub fn soon(&mut self) -> u64 {
        self.now + 1 + self.dice.below(self.plan.delay)
    }

    /// Runs until the virtual time `until`.
    pub fn run(&mut self, until: u64) {
        while let Some(next) = self.queue.peek()
            && next.when <= until
        {
            let Some(Scheduled { when, host, incarnation, happening, .. }) = self.queue.pop() else { return };
            self.now = when;
            self.happen(host, incarnation, happening);
        }
        self.now = until;
    }

    fn happen(&mut self, h: usize, incarnation: u64, happening: Happening) {
        match happening {
            Happening::ToClient(generation, message) if self.links[h].generation == generation => {
                self.client_event(ClientEvent::Message(h, message));
            }
            Happening::ToClient(..) => {}
            Happening::ServerClosed(generation) if self.links[h].generation == generation + 1 => {
                self.client_event(ClientEvent::Closed(h));
                let when = self.now + MS + self.dice.below(4 * MS);
                self.at(when, h, Happening::ClientConnects);
            }
            Happening::ServerClosed(_) => {}
            Happening::ClientConnects => self.client_connects(h),
            Happening::Asked(next, again) => self.asked(h, incarnation, next, again),
            Happening::Type => self.types(),
            Happening::Fault(fault) => self.fault(fault),
            Happening::Resume => {
                self.hosts[h].paused = false;
                for waiting in std::mem::take(&mut self.hosts[h].backlog) {
                    self.happen(h, incarnation, waiting);
                }
            }
            // What the process does; what was meant for an earlier one is void.
            own if self.hosts[h].incarnation == incarnation && self.hosts[h].alive => {
                if self.hosts[h].paused {
                    self.hosts[h].backlog.push(own);
                } else {
                    self.work(h, own);
                    self.judge.lives(&self.hosts[h].side);
                }
            }
            _ => {}
        }
    }

    /// What happens in a host's process.
    fn work(&mut self, h: usize, happening: Happening) {
        match happening {
            Happening::Anew => {
                self.break_client(h);
                self.close_all(h);
                self.hosts[h].incarnation += 1;
                self.hosts[h].side = self.new_side(Start::Waiting);
                self.at(self.now, h, Happening::Tick);
            }
            _ if self.hosts[h].side.stopped.is_some() => {}
            Happening::Tick => {
                self.at(self.now + 2 * MS, h, Happening::Tick);
                self.handle(h, Event::Tick);
                self.look_for_standby(h);
            }
            Happening::Step => {
                let when = self.now + STEP / 2 + self.dice.below(STEP);
                self.at(when, h, Happening::Step);
                self.turn(h);
            }
            Happening::Connected(connection, end) if !self.connections[connection].closed[end] => {
                self.handle(h, Event::PeerConnected(peer(connection)));
            }
            Happening::Connected(..) => {}
            Happening::Deliver(connection, end, message) => self.deliver(h, connection, end, message),
            Happening::Closed(connection, end) => {
                self.connections[connection].closed[end] = true;
                self.handle(h, Event::PeerClosed(peer(connection)));
            }
            Happening::Answer(answer) => self.handle(h, Event::Changed(answer)),
            Happening::Copied(peer) => self.hosts[h].side.cut_due.push(peer),
            Happening::Hashed(peer, digest) => self.handle(h, Event::CutDigest { peer, digest }),
            Happening::Filled(clone) => self.filled(h, clone),
            Happening::ToServer(generation, message) if self.links[h].generation == generation => {
                self.handle(h, Event::Client(generation, message));
            }
            Happening::ToServer(..) => {}
            Happening::ClientClosed(generation) => self.handle(h, Event::ClientClosed(generation)),
            other => unreachable!("{other:?} is no process's"),
        }
    }

    fn types(&mut self) {
        if self.now < CALM {
            let bytes: Vec<u8> = (0..1 + self.dice.below(4)).map(|_| self.dice.roll() as u8).collect();
            self.judge.typed.extend_from_slice(&bytes);
            self.client_event(ClientEvent::Typed(bytes));
            let when = self.now + self.dice.below(6 * MS);
            self.at(when, 0, Happening::Type);
        }
    }

    fn asked(&mut self, h: usize, incarnation: u64, next: Membership, again: bool) {
        let mut answer = None;
        if self.now >= self.arbiter_away_until {
            let held = self.judge.register.last().expect("written at power-on");
            answer = Some(if *held == next {
                Changed::Done
            } else if held.epoch + 1 == next.epoch {
                self.judge.changed(next);
                Changed::Done
            } else {
                Changed::Refused(held.clone())
            });
            if self.now < CALM && self.plan.answers_lost > 0 && self.dice.one_in(self.plan.answers_lost) {
                answer = None;
            }
        }
        if !again {
            let when = self.soon();
            self.schedule(when, h, incarnation, Happening::Answer(answer));
            self.point(Point::AfterChange, h);
        }
    }

    pub fn client_event(&mut self, event: ClientEvent) {
        for action in self.client.handle(event) {
            match action {
                ClientAction::Send(h, message) => {
                    if self.links[h].is_open() {
                        let when = self.soon().max(self.links[h].arrivals[0]);
                        self.links[h].arrivals[0] = when;
                        let generation = self.links[h].generation;
                        self.at(when, h, Happening::ToServer(generation, message));
                    }
                }
                ClientAction::Close(h) => self.break_client(h),
                ClientAction::Show(_, bytes) => self.judge.shown(&bytes),
                ClientAction::GuestEnded => self.guest_ended = true,
                ClientAction::Live(_, epoch) => self.judge.attached(epoch),
                ClientAction::Figures(..) => {}
                ClientAction::Missed(n) => panic!("{n} outputs are gone at {}", self.now),
                ClientAction::Replaced => panic!("replaced, with one client only"),
            }
        }
    }

    fn client_connects(&mut self, h: usize) {
        let host = &self.hosts[h];
        if host.alive && host.side.stopped.is_none() && !self.links[h].is_open() {
            self.links[h].generation += 1;
            self.client_event(ClientEvent::Connected(h));
        } else if !self.links[h].is_open() && self.now < 3 * CALM {
            self.at(self.now + 10 * MS, h, Happening::ClientConnects);
        }
    }

    /// What a client gets of a side.
    pub fn tell_client(&mut self, h: usize, generation: u64, message: ToClient) {
        if self.links[h].generation == generation {
            let when = self.soon().max(self.links[h].arrivals[1]);
            self.links[h].arrivals[1] = when;
            self.at(when, h, Happening::ToClient(generation, message));
        }
    }

    /// A leader that has fewer secondaries than it wants takes the next host that waits.
    fn look_for_standby(&mut self, h: usize) {
        let side = &self.hosts[h].side;
        let at_power_on = side.phase() == Phase::Sync && !side.following;
        let incarnation = self.hosts[h].incarnation;
        let mut joined = self.connections.iter().filter(|c| c.ends[0] == (h, incarnation) && !c.closed[0]);
        let wants =
            if at_power_on { joined.clone().count() < self.plan.wanted } else { side.member.wants_peer() };
        if !wants {
            return;
        }
        let idle = (0..self.hosts.len()).find(|other| {
            let host = &self.hosts[*other];
            host.alive && host.side.is_idle() && !joined.any(|c| c.ends[1] == (*other, host.incarnation))
        });
        if let Some(other) = idle {
            self.connect(h, other);
        }
    }
}

/// The name of a connection, at both ends.
pub fn peer(connection: usize) -> PeerId {
    PeerId(connection as u64)
}
