//! A host: one side after another, each with a machine; and the connections between hosts.

use crate::plan::MS;
use crate::toy::{Entry, STEP, Toy};
use crate::world::Happening;
use gemel_machine::TimeBase;
use gemel_pair::ledger::{Line, Witness};
use gemel_pair::protocol::*;
use std::collections::VecDeque;

pub fn timing() -> Timing {
    Timing {
        tick: 2 * MS,
        heartbeat: 4 * MS,
        silence: 12 * MS,
        drop: 24 * MS,
        retry: 6 * MS,
        max_lag: 8 * MS,
        late: 100 * MS,
        time_base: TimeBase { num: STEP as u32, den: 1 },
        linger: 60 * MS,
    }
}

/// What a side is at its start.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Start {
    Primary,
    /// A secondary at power-on, or a standby: the leader's hello says which.
    Waiting,
}

/// A state machine and its machine.
pub struct Side {
    pub member: Member,
    /// Where ledgers are kept.
    pub ledger: Option<(Witness, Vec<Line>)>,
    pub id: MemberId,
    pub toy: Toy,
    /// The machine may run.
    pub runs: bool,
    pub following: bool,
    pub feed_ended: bool,
    /// Input that the machine has not taken.
    pub inbox: VecDeque<u8>,
    /// Steps since the last mark.
    pub unmarked: u64,
    /// Who gets the log.
    pub log_to: Vec<PeerId>,
    /// Who is to get the state at the next boundary.
    pub cut_due: Vec<PeerId>,
    /// Log and limit that wait for the machine of a clone.
    pub parked: Option<(Vec<Entry>, u64)>,
    /// Outputs that the latest mark covers.
    pub marked: u64,
    pub stopped: Option<StopReason>,
}

impl Side {
    pub fn new(id: MemberId, start: Start, wanted: usize, ends_at: u64, now: u64) -> Self {
        let hello = Hello {
            protocol: PROTOCOL,
            vm: "toy".into(),
            role: if start == Start::Primary { Role::Primary } else { Role::Secondary },
            member: id,
            epoch: u64::from(start == Start::Primary),
            running: false,
            machine: 7,
            log_header: Vec::new(),
        };
        let witness = Witness::new(&hello);
        Self {
            ledger: Some((witness, Vec::new())),
            member: Member::new(hello, wanted, timing(), now),
            id,
            toy: Toy::new(ends_at),
            runs: false,
            following: start == Start::Waiting,
            feed_ended: false,
            inbox: VecDeque::new(),
            unmarked: 0,
            log_to: Vec::new(),
            cut_due: Vec::new(),
            parked: None,
            marked: 0,
            stopped: None,
        }
    }

    pub fn phase(&self) -> Phase {
        self.member.replication().phase()
    }

    /// Whether it waits for somebody to connect.
    pub fn is_idle(&self) -> bool {
        self.stopped.is_none() && self.phase() == Phase::Sync && self.following
    }
}

pub struct Host {
    pub side: Side,
    /// Counts its sides: what was meant for an earlier one is void.
    pub incarnation: u64,
    pub alive: bool,
    pub paused: bool,
    pub backlog: Vec<Happening>,
    /// Other hosts hear nothing of it before.
    pub cut_off_until: u64,
}

/// A connection between two sides, which keeps order.
pub struct Connection {
    /// Host and incarnation of both ends; the first is the leader.
    pub ends: [(usize, u64); 2],
    /// Nothing comes through any more.
    pub silent: bool,
    /// When the latest message arrives at each end.
    pub arrivals: [u64; 2],
    /// The ends that know that it is closed.
    pub closed: [bool; 2],
}

impl Connection {
    pub fn joins(&self, host: usize, incarnation: u64) -> bool {
        self.ends.contains(&(host, incarnation))
    }
}

/// The client's connection to a host.
#[derive(Clone, Default)]
pub struct Link {
    /// Odd while it is open.
    pub generation: u64,
    /// When the latest message arrives at the host, and at the client.
    pub arrivals: [u64; 2],
}

impl Link {
    pub fn is_open(&self) -> bool {
        self.generation % 2 == 1
    }
}
