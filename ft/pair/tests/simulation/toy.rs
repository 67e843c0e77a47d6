//! A deterministic toy machine with a disk: what it does hangs on its inputs and where they came, and on nothing else.

use gemel_machine::{At, Digest, Position, VirtTime};
use std::collections::VecDeque;

/// Guest time of one step.
pub const STEP: u64 = 500_000;
/// Blocks of the disk, of one byte each.
const BLOCKS: usize = 8;

/// splitmix64: the simulation's dice, and the toy's arithmetic.
#[derive(Clone)]
pub struct Dice(pub u64);

impl Dice {
    pub fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    pub fn below(&mut self, n: u64) -> u64 {
        self.roll() % n.max(1)
    }

    pub fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}

fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// An entry of the toy's log.
#[derive(Clone, Debug)]
pub enum Entry {
    Input { count: u64, bytes: Vec<u8> },
    Digest { count: u64, state: u64 },
}

impl Entry {
    fn count(&self) -> u64 {
        match self {
            Self::Input { count, .. } | Self::Digest { count, .. } => *count,
        }
    }

    pub fn to_bytes(&self) -> Vec<u8> {
        let (kind, count, body) = match self {
            Self::Input { count, bytes } => (0, count, bytes.clone()),
            Self::Digest { count, state } => (1, count, state.to_le_bytes().to_vec()),
        };
        [&[kind][..], &count.to_le_bytes(), &body].concat()
    }

    pub fn from_bytes(bytes: &[u8]) -> Self {
        let word = |at: usize| bytes[at..at + 8].iter().rev().fold(0, |v, b| v << 8 | u64::from(*b));
        let count = word(1);
        match bytes[0] {
            0 => Self::Input { count, bytes: bytes[9..].to_vec() },
            _ => Self::Digest { count, state: word(9) },
        }
    }
}

/// What a step of a following machine came to.
#[derive(Debug, PartialEq, Eq)]
pub enum Followed {
    /// It took input, or went on.
    On { taken: u64 },
    /// It must not go further before it hears more.
    AtLimit,
    /// It is not where the log says.
    Diverged,
}

/// A side's image, behind a cache that a power cut empties.
#[derive(Clone, Default)]
pub struct Image {
    durable: [u8; BLOCKS],
    cached: [u8; BLOCKS],
}

impl Image {
    pub fn cut_power(&mut self) {
        self.cached = self.durable;
    }

    pub fn flush(&mut self) {
        self.durable = self.cached;
    }
}

#[derive(Clone)]
pub struct Toy {
    pub count: u64,
    pub state: u64,
    /// All outputs since power-on: the truth that the console is compared with.
    pub outputs: Vec<u8>,
    /// All input bytes consumed since power-on.
    pub consumed: Vec<u8>,
    /// The guest powers off here.
    pub ends_at: u64,
    pub image: Image,
    /// What the guest has written, and relies on.
    written: [u8; BLOCKS],
    /// Writes that no flush covers.
    unflushed: Vec<(usize, u8)>,
    entries: VecDeque<Entry>,
    limit: u64,
}

impl Toy {
    pub fn new(ends_at: u64) -> Self {
        Self {
            count: 0,
            state: 1,
            outputs: Vec::new(),
            consumed: Vec::new(),
            ends_at,
            image: Image::default(),
            written: [0; BLOCKS],
            unflushed: Vec::new(),
            entries: VecDeque::new(),
            limit: 0,
        }
    }

    pub fn at(&self) -> At {
        At {
            position: Position { count: self.count, rip: self.state, rcx: 0 },
            time: VirtTime(self.count * STEP),
        }
    }

    pub fn digest(&self) -> Digest {
        let ram = self.written.iter().fold(self.unflushed.len() as u64, |sum, b| mix(sum ^ u64::from(*b)));
        Digest { cpu: self.state, devices: self.consumed.len() as u64, ram }
    }

    pub fn ended(&self) -> bool {
        self.count >= self.ends_at
    }

    /// Becomes what a clone of it is: the same guest, an image that is durable, and nothing to follow yet.
    pub fn cloned(&self) -> Self {
        let mut clone = Self { entries: VecDeque::new(), limit: self.count, ..self.clone() };
        clone.image.flush();
        clone
    }

    /// Takes input here; returns the entry for it.
    pub fn input(&mut self, bytes: Vec<u8>) -> Entry {
        for byte in &bytes {
            self.state = mix(self.state ^ u64::from(*byte) ^ self.count << 8);
        }
        self.consumed.extend_from_slice(&bytes);
        Entry::Input { count: self.count, bytes }
    }

    /// One step; returns the outputs of it.
    pub fn step(&mut self) -> Vec<u8> {
        self.state = mix(self.state.wrapping_add(self.count));
        self.count += 1;
        self.use_disk();
        let outputs = match self.state % 5 {
            0 => self.state.to_le_bytes()[4..5 + (self.state >> 8) as usize % 3].to_vec(),
            _ => Vec::new(),
        };
        self.outputs.extend_from_slice(&outputs);
        outputs
    }

    fn use_disk(&mut self) {
        let block = (self.state >> 20) as usize % BLOCKS;
        match (self.state >> 40) % 16 {
            0..4 => {
                let value = (self.state >> 24) as u8;
                self.written[block] = value;
                self.image.cached[block] = value;
                self.unflushed.push((block, value));
            }
            4 => {
                self.image.flush();
                self.unflushed.clear();
            }
            _ => {}
        }
    }

    /// Writes what no flush covers again.
    pub fn write_again(&mut self) {
        for &(block, value) in &self.unflushed {
            self.image.cached[block] = value;
        }
    }

    /// Whether the guest would read what it wrote.
    pub fn disk_is_whole(&self) -> bool {
        self.image.cached == self.written
    }

    pub fn feed(&mut self, entry: Entry) {
        self.entries.push_back(entry);
    }

    pub fn allow(&mut self, at: At) {
        self.limit = self.limit.max(at.position.count);
    }

    /// One step of a follower. Outputs go to `out`.
    pub fn follow(&mut self, out: &mut Vec<u8>) -> Followed {
        let mut taken = 0;
        while let Some(entry) = self.entries.pop_front_if(|e| e.count() <= self.count) {
            match entry {
                _ if entry.count() < self.count => return Followed::Diverged,
                Entry::Digest { state, .. } if state != self.state => return Followed::Diverged,
                Entry::Digest { .. } => {}
                Entry::Input { bytes, .. } => {
                    taken += bytes.len() as u64;
                    self.input(bytes);
                }
            }
        }
        let limit = self.entries.back().map_or(self.limit, |e| e.count().max(self.limit));
        if taken == 0 && (self.count >= limit || self.ended()) {
            return Followed::AtLimit;
        }
        if taken == 0 {
            out.extend(self.step());
        }
        Followed::On { taken }
    }
}
