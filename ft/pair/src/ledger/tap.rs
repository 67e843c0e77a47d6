//! Watches a side and makes lines of what it sees.
//!
//! Not responsible for: the lines' form (`line`), writing them (`shell`).
//!
//! It is told what goes into a side's state machine and what comes out of it, and nothing of what the machine thinks.

use super::line::{Heard, Hex, Line, Stream, VERSION};
use super::sums::{Sums, byte_item, of_bytes};
use crate::protocol::Channel;
use std::collections::{BTreeMap, VecDeque};

/// A mark on its way between two members.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Point {
    /// Its sequence number on that way. 0 stands for the state that a member was cloned from.
    pub sequence: u64,
    /// Its position (count).
    pub count: u64,
    /// Console bytes before it.
    pub outputs: u64,
    /// Frames before it.
    pub frames: u64,
}

impl Point {
    fn covers(&self, stream: Stream) -> u64 {
        match stream {
            Stream::Console => self.outputs,
            Stream::Frames => self.frames,
        }
    }

    /// Whether it covers an output that another does not. A mark that covers nothing new is not written down, by neither side.
    fn news(&self, other: &Self) -> bool {
        self.outputs > other.outputs || self.frames > other.frames
    }
}

const NOTHING: Point = Point { sequence: 0, count: 0, outputs: 0, frames: 0 };

/// A member that has to acknowledge.
#[derive(Clone, Debug)]
struct Peer {
    /// The latest mark on the way to it that covers something new.
    latest: Point,
    /// Those that it has not acknowledged.
    under_way: VecDeque<Point>,
    /// The latest that it has.
    heard: Point,
    gone: bool,
}

/// One side's witness.
#[derive(Clone, Debug)]
pub struct Tap {
    leads: Option<(u64, Vec<Hex>)>,
    /// Where the machine stands (count).
    at: u64,
    console: Sums,
    frames: Sums,
    /// The console bytes and frames before each mark that this side has in hand and its machine has not come to.
    ahead: VecDeque<Point>,
    /// The latest mark that this side has in hand.
    taken: Point,
    /// The latest that it has acknowledged.
    acked: Point,
    peers: BTreeMap<Hex, Peer>,
    /// The next console byte that would leave.
    cursor: Option<u64>,
    lines: Vec<Line>,
}

impl Tap {
    /// The witness of `member`, whose machine has made no output yet.
    pub fn new(vm: &str, member: Hex, machine: u64) -> Self {
        let opened = Line::Opened { version: VERSION, vm: vm.into(), member, machine: Hex(machine) };
        Self {
            leads: None,
            at: 0,
            console: Sums::new(0),
            frames: Sums::new(0),
            ahead: VecDeque::new(),
            taken: NOTHING,
            acked: NOTHING,
            peers: BTreeMap::new(),
            cursor: None,
            lines: vec![opened],
        }
    }

    /// The lines since the last call.
    pub fn take(&mut self) -> Vec<Line> {
        std::mem::take(&mut self.lines)
    }

    /// The machine stands here.
    pub fn reached(&mut self, count: u64) {
        self.at = count;
    }

    /// This side is sent a state from which its machine will go on.
    pub fn state_taken(&mut self, point: Point) {
        (self.console, self.frames) = (Sums::new(point.outputs), Sums::new(point.frames));
        (self.at, self.taken, self.acked) = (point.count, point, NOTHING);
        self.ahead.clear();
    }

    /// The machine emitted a byte.
    pub fn byte(&mut self, channel: Channel, byte: u8) {
        self.console.push(byte_item(channel, byte));
        self.cut_at_marks();
    }

    /// The machine emitted a frame ([`super::frame_item`]).
    pub fn frame(&mut self, item: u64) {
        self.frames.push(item);
        self.cut_at_marks();
    }

    /// A machine that follows has made what a mark covers: the range ends where it ended on the other side.
    fn cut_at_marks(&mut self) {
        let (outputs, frames) = (self.console.next(), self.frames.next());
        while self.ahead.pop_front_if(|point| point.outputs <= outputs && point.frames <= frames).is_some() {
            self.cut();
        }
    }

    /// Ends the ranges of what was made.
    fn cut(&mut self) {
        let ranges = [(Stream::Console, self.console.cut()), (Stream::Frames, self.frames.cut())];
        for (stream, range) in ranges {
            if let Some((first, next, digest)) = range {
                self.lines.push(Line::Made { stream, first, next, digest: Hex(digest) });
            }
        }
    }

    /// This side leads, and these others are in sync.
    pub fn leads(&mut self, epoch: u64, others: Vec<Hex>) {
        self.cut();
        self.peers.retain(|member, peer| !peer.gone || others.contains(member));
        self.lines.push(Line::Leads { epoch, members: others.clone() });
        self.leads = Some((epoch, others));
    }

    /// This side follows.
    pub fn follows(&mut self, epoch: u64, leader: Hex) {
        self.leads = None;
        self.lines.push(Line::Follows { epoch, leader });
    }

    /// A mark is on its way to a member.
    pub fn mark_sent(&mut self, member: Hex, point: Point) {
        self.cut();
        let fresh = Peer { latest: NOTHING, under_way: VecDeque::new(), heard: NOTHING, gone: false };
        let peer = self.peers.entry(member).or_insert(fresh);
        if point.news(&peer.latest) {
            peer.latest = point;
            peer.under_way.push_back(point);
        }
    }

    /// A member is sent the state here, from which it goes on; with sequence 0 it will acknowledge that it has it.
    pub fn state_sent(&mut self, member: Hex, point: Point) {
        self.peers
            .insert(member, Peer { latest: point, under_way: [point].into(), heard: NOTHING, gone: false });
    }

    /// A member has acknowledged everything up to a mark.
    pub fn ack_heard(&mut self, member: Hex, sequence: u64) {
        if let Some(peer) = self.peers.get_mut(&member) {
            while let Some(point) = peer.under_way.pop_front_if(|point| point.sequence <= sequence) {
                peer.heard = point;
            }
        }
    }

    /// A member is gone. What it acknowledged may leave all the same, until it is no member any more.
    pub fn gone(&mut self, member: Hex) {
        if let Some(peer) = self.peers.get_mut(&member) {
            peer.gone = true;
        }
    }

    /// A mark has arrived here.
    pub fn mark_taken(&mut self, point: Point) {
        if point.news(&self.taken) {
            self.taken = point;
            self.ahead.push_back(point);
            self.cut_at_marks();
        }
    }

    /// This side acknowledges everything up to a mark.
    pub fn acks(&mut self, sequence: u64) {
        if sequence >= self.taken.sequence && self.taken.news(&self.acked) {
            self.acked = self.taken;
            let Point { sequence, count, outputs, frames } = self.acked;
            self.lines.push(Line::Acked { sequence, count, outputs, frames });
        }
    }

    /// How many outputs there are of each kind: console bytes and frames.
    pub fn made(&self) -> (u64, u64) {
        (self.console.next(), self.frames.next())
    }

    /// The console has a client that has shown everything below `have` and gets the rest from `from` on.
    pub fn attached(&mut self, have: Option<u64>, from: u64) {
        self.cut();
        self.cursor = Some(from);
        self.lines.push(Line::Attached { have, from });
    }

    /// Console bytes leave.
    pub fn bytes_leave(&mut self, epoch: u64, first: u64, channel: Channel, bytes: &[u8]) {
        let next = first.saturating_add(bytes.len() as u64);
        if let Some(cursor) = self.cursor.filter(|cursor| *cursor < first) {
            self.cut();
            self.lines.push(Line::Skipped { stream: Stream::Console, first: cursor, next: first });
        }
        self.cursor = Some(next);
        self.leave(epoch, Stream::Console, first, next, of_bytes(first, channel, bytes));
    }

    /// A frame leaves.
    pub fn frame_leaves(&mut self, epoch: u64, ordinal: u64, item: u64) {
        let mut sums = Sums::new(ordinal);
        sums.push(item);
        if let Some((first, next, digest)) = sums.cut() {
            self.leave(epoch, Stream::Frames, first, next, digest);
        }
    }

    fn leave(&mut self, epoch: u64, stream: Stream, first: u64, next: u64, digest: u64) {
        self.cut();
        let heard = |(member, peer): (&Hex, &Peer)| {
            let Point { sequence, count, .. } = peer.heard;
            Heard { member: *member, sequence, count, covers: peer.heard.covers(stream) }
        };
        let heard = self.peers.iter().map(heard).collect();
        self.lines.push(Line::Left { epoch, stream, first, next, digest: Hex(digest), at: self.at, heard });
    }

    /// The side ends in good order.
    pub fn end(&mut self) {
        self.cut();
        self.lines.push(Line::Ended);
    }
}
