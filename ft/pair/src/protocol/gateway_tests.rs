//! Both ends of the gateway's link against a model of a pair, in many seeded runs: connections that break anywhere, a leader that
//! dies, a follower that goes on elsewhere than the dead leader was.

use super::frames::NicFrame;
use super::gateway::{FromSide, GatewayOrder, GatewayServer, ToSide};
use super::gateway_client::{GatewayAction, GatewayClient, GatewayEvent, SideId};
use std::collections::VecDeque;

/// splitmix64.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0) % n.max(1)
    }
}

fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// What a machine does: its log, and a state that hangs on everything that it took and did.
#[derive(Clone)]
enum Entry {
    Sends,
    Takes(NicFrame),
}

#[derive(Clone)]
struct Machine {
    state: u64,
    sent: Vec<NicFrame>,
    taken: Vec<NicFrame>,
}

impl Machine {
    fn new() -> Self {
        Self { state: 1, sent: Vec::new(), taken: Vec::new() }
    }

    fn run(&mut self, entry: &Entry, server: &mut GatewayServer) {
        match entry {
            Entry::Sends => {
                self.state = mix(self.state + 1);
                let frame =
                    (self.state as u8 % 2, self.state.to_le_bytes().repeat(1 + self.state as usize % 9));
                self.sent.push(frame.clone());
                server.push(frame);
            }
            Entry::Takes(frame) => {
                self.state = frame.1.iter().fold(self.state, |state, byte| mix(state ^ u64::from(*byte)));
                self.taken.push(frame.clone());
                server.take();
            }
        }
    }
}

struct Side {
    server: GatewayServer,
    machine: Machine,
    /// What arrived for the machine and was not taken.
    inbox: VecDeque<NicFrame>,
    /// The connection that stands, and what is under way on it.
    connection: Option<SideId>,
    there: VecDeque<FromSide>,
    back: VecDeque<ToSide>,
    dead: bool,
}

struct World {
    dice: Dice,
    sides: [Side; 2],
    client: GatewayClient,
    next: SideId,
    /// The leader's log, and how much of it the follower has in hand, and the leader knows that it has.
    log: Vec<Entry>,
    received: usize,
    acknowledged: usize,
    /// How far the follower has executed.
    executed: usize,
    leader: usize,
    /// What the gateway got of the guest, and what it sent for it.
    got: Vec<NicFrame>,
    given: Vec<NicFrame>,
}

impl World {
    fn new(seed: u64) -> Self {
        let side = || Side {
            server: GatewayServer::new("vm".into(), 7),
            machine: Machine::new(),
            inbox: VecDeque::new(),
            connection: None,
            there: VecDeque::new(),
            back: VecDeque::new(),
            dead: false,
        };
        Self {
            dice: Dice(seed),
            sides: [side(), side()],
            client: GatewayClient::new(),
            next: 0,
            log: Vec::new(),
            received: 0,
            acknowledged: 0,
            executed: 0,
            leader: 0,
            got: Vec::new(),
            given: Vec::new(),
        }
    }

    /// What may be seen of the leader: counts of frames sent and taken.
    fn open(&self) -> (u64, u64) {
        if self.leader == 1 {
            return (u64::MAX, u64::MAX);
        }
        let (sends, takes): (Vec<&Entry>, Vec<&Entry>) =
            self.log[..self.acknowledged].iter().partition(|entry| matches!(entry, Entry::Sends));
        (sends.len() as u64, takes.len() as u64)
    }

    fn orders(&mut self, s: usize, mut orders: Vec<GatewayOrder>) {
        let (live, open) = (self.leader == s, self.open());
        let side = &mut self.sides[s];
        side.server.set_live(live.then_some(1 + s as u64));
        side.server.flush(if live { open.0 } else { 0 }, if live { open.1 } else { 0 }, &mut orders);
        for order in orders {
            match order {
                GatewayOrder::Send(message) => side.there.push_back(message),
                GatewayOrder::Frames(frames) => side.inbox.extend(frames),
                GatewayOrder::Close => panic!("nobody said what it must not"),
            }
        }
    }

    fn gateway(&mut self, event: GatewayEvent) {
        for action in self.client.handle(event) {
            match action {
                GatewayAction::Send(id, message) => {
                    for side in self.sides.iter_mut().filter(|side| side.connection == Some(id)) {
                        side.back.push_back(message.clone());
                    }
                }
                GatewayAction::Frames(frames) => self.got.extend(frames),
                GatewayAction::Close(_) => panic!("nobody said what it must not"),
                GatewayAction::Live(..) => {}
            }
        }
    }

    fn connect(&mut self, s: usize) {
        if self.sides[s].connection.is_none() && !self.sides[s].dead {
            self.sides[s].connection = Some(self.next);
            self.next += 1;
            let mut orders = Vec::new();
            self.sides[s].server.connected(&mut orders);
            self.orders(s, orders);
        }
    }

    fn cut(&mut self, s: usize) {
        if let Some(id) = self.sides[s].connection.take() {
            self.sides[s].there.clear();
            self.sides[s].back.clear();
            self.sides[s].server.closed();
            self.gateway(GatewayEvent::Closed(id));
        }
    }

    fn lead(&mut self, s: usize) {
        let entry = match self.sides[s].inbox.front() {
            Some(_) if self.dice.below(2) == 0 => Entry::Takes(self.sides[s].inbox.pop_front().unwrap()),
            _ => Entry::Sends,
        };
        let side = &mut self.sides[s];
        side.machine.run(&entry, &mut side.server);
        self.log.push(entry);
    }

    fn fail_over(&mut self) {
        self.cut(0);
        self.sides[0].dead = true;
        // The survivor executes all that it has in hand, and nothing that only the dead leader had.
        self.log.truncate(self.received);
        while self.follow() {}
        self.leader = 1;
        self.orders(1, Vec::new());
    }

    fn follow(&mut self) -> bool {
        let Some(entry) = self.log[..self.received].get(self.executed) else { return false };
        self.executed += 1;
        let side = &mut self.sides[1];
        side.machine.run(entry, &mut side.server);
        true
    }

    fn step(&mut self, calm: bool) {
        let s = self.dice.below(2) as usize;
        match self.dice.below(if calm { 10 } else { 12 }) {
            0 | 1 => {
                if self.leader == s && !self.sides[s].dead && !calm {
                    self.lead(s);
                }
            }
            2 if self.leader == s && calm && !self.sides[s].inbox.is_empty() => {
                let frame = self.sides[s].inbox.pop_front().unwrap();
                let side = &mut self.sides[s];
                side.machine.run(&Entry::Takes(frame.clone()), &mut side.server);
                self.log.push(Entry::Takes(frame));
            }
            3 if self.leader == 0 => {
                self.received += self.dice.below((self.log.len() - self.received) as u64 + 1) as usize;
            }
            4 if self.leader == 0 => {
                let more = (self.received - self.acknowledged) as u64;
                self.acknowledged += self.dice.below(more + 1) as usize;
                self.orders(0, Vec::new());
            }
            5 if self.leader == 0 => drop(self.follow()),
            2 | 6 => {
                if let Some(message) = self.sides[s].there.pop_front() {
                    let id = self.sides[s].connection.unwrap();
                    self.gateway(GatewayEvent::Message(id, message));
                }
            }
            3 | 7 => {
                if let Some(message) = self.sides[s].back.pop_front() {
                    let mut orders = Vec::new();
                    self.sides[s].server.message(message, &mut orders);
                    self.orders(s, orders);
                }
            }
            8 if !calm => {
                let number = self.given.len() as u64;
                let frame = (0, number.to_le_bytes().to_vec());
                self.given.push(frame.clone());
                self.gateway(GatewayEvent::Frame(frame));
            }
            9 => self.connect(s),
            10 if self.dice.below(8) == 0 => self.cut(s),
            _ => {
                if self.leader == 1 || self.dice.below(4) == 0 {
                    let leader = self.leader;
                    self.orders(leader, Vec::new());
                }
            }
        }
        let machine = &self.sides[self.leader].machine;
        assert!(self.given.starts_with(&machine.taken), "the guest took what was not sent so");
        assert!(self.leader == 0 || machine.sent.starts_with(&self.got), "sent, and never covered by a mark");
    }
}

#[test]
fn every_frame_leaves_once_in_order_and_arrives_once_whoever_dies() {
    let mut moved = 0;
    for seed in 0..300 {
        let mut world = World::new(seed);
        let dies_at = world.dice.below(2500);
        for step in 0..2500 {
            if step == dies_at {
                world.fail_over();
            }
            world.step(false);
        }
        for _ in 0..4000 {
            world.step(true);
        }
        let survivor = &world.sides[1];
        assert!(
            world.got == survivor.machine.sent,
            "seed {seed}: {} of {}",
            world.got.len(),
            survivor.machine.sent.len()
        );
        assert!(world.given == survivor.machine.taken, "seed {seed}");
        assert_eq!(
            survivor.server.ring().oldest(),
            survivor.server.ring().emitted(),
            "seed {seed}: all acknowledged"
        );
        moved += world.got.len() + world.given.len();
    }
    assert!(moved > 20_000, "{moved}");
}

/// What was held at the leader's death was never seen: the survivor's other frames with the same ordinals are.
#[test]
fn only_what_a_mark_covers_leaves() {
    let mut world = World::new(1);
    world.connect(0);
    for _ in 0..5 {
        world.lead(0);
    }
    (world.received, world.acknowledged) = (3, 2);
    world.orders(0, Vec::new());
    for _ in 0..4 {
        for (from, id) in [(0, 0)] {
            while let Some(message) = world.sides[from].there.pop_front() {
                world.gateway(GatewayEvent::Message(id, message));
            }
            while let Some(message) = world.sides[from].back.pop_front() {
                let mut orders = Vec::new();
                world.sides[from].server.message(message, &mut orders);
                world.orders(from, orders);
            }
        }
    }
    assert_eq!(world.got.len(), 2);
    assert_eq!(world.client.live(), Some((0, 1)));
}

fn live(epoch: u64, emitted: u64, input: u64) -> FromSide {
    FromSide::Live { epoch, emitted, input }
}

fn attach(run: u64) -> FromSide {
    FromSide::Attach { protocol: super::PROTOCOL, vm: "vm".into(), run }
}

fn frames(epoch: u64, first: u64, bytes: &[u8]) -> FromSide {
    FromSide::Frames { epoch, first, frames: bytes.iter().map(|byte| (0, vec![*byte])).collect() }
}

fn got(actions: Vec<GatewayAction>) -> Vec<u8> {
    let frames = actions.into_iter().filter_map(|action| match action {
        GatewayAction::Frames(frames) => Some(frames),
        _ => None,
    });
    frames.flatten().map(|(_, bytes)| bytes[0]).collect()
}

#[test]
fn only_the_newest_epoch_is_heard() {
    let mut client = GatewayClient::new();
    let mut say = |side, message| client.handle(GatewayEvent::Message(side, message));
    (1..=2).for_each(|side| drop(say(side, attach(7))));
    say(1, live(1, 0, 0));
    assert_eq!(got(say(1, frames(1, 0, b"ab"))), b"ab");
    assert_eq!(got(say(2, frames(1, 2, b"x"))), b"", "it is not live");
    say(2, live(2, 3, 0));
    assert_eq!(got(say(1, frames(1, 2, b"c"))), b"", "a late riser");
    assert_eq!(got(say(2, frames(2, 1, b"bC"))), b"C", "each once");
    assert_eq!(say(1, live(1, 9, 0)), [], "and nobody goes back");
    assert_eq!(got(say(2, frames(2, 5, b"f"))), b"f", "what lies between was lost");
}

/// A VM that is powered on anew is another machine, whatever its epochs say, and a gateway that starts anew takes what is there.
#[test]
fn a_new_run_and_a_new_gateway_begin_anew() {
    let mut client = GatewayClient::new();
    let ready = |side, epoch, have| GatewayAction::Send(side, ToSide::Ready { epoch, have });
    client.handle(GatewayEvent::Message(1, attach(7)));
    client.handle(GatewayEvent::Frame((0, vec![9])));
    let actions = client.handle(GatewayEvent::Message(1, live(3, 10, 4)));
    let waiting = ToSide::Frames { number: 4, frames: vec![(0, vec![9])] };
    assert_eq!(actions[1..], [ready(1, 3, None), GatewayAction::Send(1, waiting)]);
    assert_eq!(got(client.handle(GatewayEvent::Message(1, frames(3, 8, b"ij")))), b"ij");
    // The same machine, powered on anew in a later epoch: it has sent nothing.
    client.handle(GatewayEvent::Message(2, attach(7)));
    assert!(client.handle(GatewayEvent::Message(2, live(4, 0, 0))).contains(&ready(2, 4, None)));
    // Another machine in an earlier epoch, while sides of this one are there, and when they are gone.
    client.handle(GatewayEvent::Message(3, attach(8)));
    assert_eq!(client.handle(GatewayEvent::Message(3, live(1, 0, 0))), []);
    (1..=2).for_each(|side| drop(client.handle(GatewayEvent::Closed(side))));
    assert!(client.handle(GatewayEvent::Message(3, live(1, 0, 0))).contains(&ready(3, 1, None)));
}

#[test]
fn nonsense_closes_the_connection_and_room_is_bounded() {
    let mut client = GatewayClient::new();
    for message in [live(1, 0, 0), frames(1, 0, b"a")] {
        assert_eq!(client.handle(GatewayEvent::Message(1, message)), [GatewayAction::Close(1)]);
    }
    let other = FromSide::Attach { protocol: 0, vm: "vm".into(), run: 7 };
    assert!(client.handle(GatewayEvent::Message(1, other)).contains(&GatewayAction::Close(1)));
    for _ in 0..10_000 {
        client.handle(GatewayEvent::Frame((0, vec![0; 1500])));
    }
    assert!(client.lost() > 5000 && client.lost() < 9000, "{}", client.lost());

    let mut server = GatewayServer::new("vm".into(), 7);
    server.set_live(Some(1));
    let mut orders = Vec::new();
    server.connected(&mut orders);
    server.message(ToSide::Ready { epoch: 1, have: None }, &mut orders);
    for (number, count) in [(5, 1), (0, 10_000)] {
        server.connected(&mut Vec::new());
        server.message(ToSide::Ready { epoch: 1, have: None }, &mut Vec::new());
        let (mut orders, frames) = (Vec::new(), vec![(0, vec![1]); count]);
        server.message(ToSide::Frames { number, frames }, &mut orders);
        assert!(matches!(orders[..], [GatewayOrder::Close]), "{number} {count}");
    }
}
