//! What goes wrong in one run, drawn from its seed.

use crate::toy::Dice;

pub const MS: u64 = 1_000_000;
/// Faults and typing are over.
pub const CALM: u64 = 120 * MS;
/// Everything has to be in order again.
pub const END: u64 = 420 * MS;

/// Moments of the protocol at which a fault is worth more than at others.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Point {
    /// A mark that covers outputs is about to be sent.
    BeforeSend,
    /// It was sent, and nobody has acknowledged it.
    Unacknowledged,
    /// Its acknowledgement is there, and nothing was let out.
    Acknowledged,
    /// Some of what may leave has left.
    MidRelease,
    /// The arbiter is about to be asked.
    BeforeChange,
    /// The arbiter has decided, and the answer is on its way.
    AfterChange,
    /// A survivor writes to its disk again.
    MidReissue,
    /// A survivor has just gone live.
    JustLive,
    /// A running machine is being copied.
    Cloning,
    /// The state was taken for a clone.
    Cut,
    /// The clone has the machine.
    Restored,
    /// A member is told that it is one.
    Members,
    /// A member is told to take over.
    TakeOver,
}

const POINTS: [Point; 13] = [
    Point::BeforeSend,
    Point::Unacknowledged,
    Point::Acknowledged,
    Point::MidRelease,
    Point::BeforeChange,
    Point::AfterChange,
    Point::MidReissue,
    Point::JustLive,
    Point::Cloning,
    Point::Cut,
    Point::Restored,
    Point::Members,
    Point::TakeOver,
];

/// What goes wrong, where.
#[derive(Clone, Copy, Debug)]
pub enum Fault {
    /// The process is killed: what it sent arrives, and its connections close.
    Kill(usize),
    /// The host is gone: nobody hears anything of it any more.
    PowerCut(usize),
    /// The process stops for so long.
    Pause(usize, u64),
    /// All connections of a host to others break.
    Break(usize),
    /// A host is cut off from the other hosts, not from clients and arbiter, for so long.
    Partition(usize, u64),
    /// The client's connection to a host breaks.
    BreakClient(usize),
    /// The arbiter cannot be reached for so long.
    ArbiterAway(u64),
    /// A host that died comes back, empty.
    Repair(usize),
    /// The machine of a host goes wrong.
    Corrupt(usize),
    /// Somebody asks for another leader.
    FailOver,
    /// Somebody asks to leave out a member.
    Unprotect,
}

impl Fault {
    /// The same at this host.
    pub fn at(self, host: usize) -> Self {
        match self {
            Self::Kill(_) => Self::Kill(host),
            Self::PowerCut(_) => Self::PowerCut(host),
            Self::Pause(_, long) => Self::Pause(host, long),
            Self::Break(_) => Self::Break(host),
            Self::Partition(_, long) => Self::Partition(host, long),
            Self::BreakClient(_) => Self::BreakClient(host),
            elsewhere => elsewhere,
        }
    }
}

/// A fault at a point, at the host that comes to it or at another.
#[derive(Clone, Copy, Debug)]
pub struct Strike {
    pub point: Point,
    /// So many times it goes well.
    pub after: u64,
    pub fault: Fault,
    /// At the host that comes to it; otherwise at the one that the fault names.
    pub here: bool,
}

/// What can go wrong in one run. Times are virtual nanoseconds.
#[derive(Clone, Debug)]
pub struct Plan {
    pub seed: u64,
    pub hosts: usize,
    /// Secondaries wanted.
    pub wanted: usize,
    pub faults: Vec<(u64, Fault)>,
    pub strikes: Vec<Strike>,
    /// An answer of the arbiter is lost after it took effect, one time in so many.
    pub answers_lost: u64,
    /// A question to the arbiter reaches it a second time, later, one time in so many.
    pub asked_twice: u64,
    /// A message between sides is lost, said twice or overtaken, one time in so many: what no connection does.
    pub garbled: u64,
    /// The sides keep ledgers.
    pub ledgers: bool,
    /// The guest powers off at this count.
    pub ends_at: u64,
    /// The longest delay of a message.
    pub delay: u64,
    /// A dead host comes back after so long.
    pub repair: Option<u64>,
}

impl Plan {
    /// Nothing goes wrong.
    pub fn calm(seed: u64, hosts: usize, wanted: usize) -> Self {
        Self {
            seed,
            hosts,
            wanted,
            faults: Vec::new(),
            strikes: Vec::new(),
            answers_lost: 0,
            asked_twice: 0,
            garbled: 0,
            ledgers: true,
            ends_at: u64::MAX,
            delay: MS / 2,
            repair: None,
        }
    }

    pub fn drawn(seed: u64) -> Self {
        let mut dice = Dice(seed);
        let hosts = 2 + dice.below(3) as usize;
        let wanted = 1 + dice.below(2.min(hosts as u64 - 1)) as usize;
        let mut plan = Self {
            delay: [50_000, MS / 2, 4 * MS][dice.below(3) as usize],
            answers_lost: [0, 0, 2, 4][dice.below(4) as usize],
            asked_twice: [0, 3][dice.below(2) as usize],
            garbled: [0, 0, 0, 0, 0, 0, 0, 50][dice.below(8) as usize],
            repair: dice.one_in(2).then(|| 5 * MS + dice.below(40 * MS)),
            ledgers: false,
            ..Self::calm(seed, hosts, wanted)
        };
        for _ in 0..dice.below(3) {
            let when = MS + dice.below(CALM - 5 * MS);
            let fault = plan.draw_fault(&mut dice);
            plan.faults.push((when, fault));
        }
        for _ in 0..dice.below(3) {
            let point = POINTS[dice.below(POINTS.len() as u64) as usize];
            let often = matches!(
                point,
                Point::BeforeSend | Point::Unacknowledged | Point::Acknowledged | Point::MidRelease
            );
            plan.strikes.push(Strike {
                point,
                after: dice.below(if often { 40 } else { 4 }),
                fault: plan.draw_fault(&mut dice),
                here: !dice.one_in(3),
            });
        }
        if dice.one_in(4) {
            plan.ends_at = 60 + dice.below(200);
        }
        plan
    }

    fn draw_fault(&self, dice: &mut Dice) -> Fault {
        let host = dice.below(self.hosts as u64) as usize;
        match dice.below(16) {
            0..4 => Fault::Kill(host),
            4..6 => Fault::PowerCut(host),
            6..8 => Fault::Pause(host, dice.below(60 * MS)),
            8 => Fault::Break(host),
            9..11 => Fault::Partition(host, dice.below(60 * MS)),
            11 => Fault::BreakClient(host),
            12 | 13 => Fault::ArbiterAway(dice.below(60 * MS)),
            14 => Fault::FailOver,
            _ => Fault::Unprotect,
        }
    }
}
