//! The world of a case: inputs at counts that were drawn before it began, and an end.
//!
//! Not responsible for: what the inputs do (the devices).

use crate::rng::Rng;
use gemel_machine::{
    At, Digest, DiskOp, DiskRequest, DiskStatus, Input, Output, Query, Stop, StopAt, VirtTime, World,
};
use std::collections::VecDeque;

/// Times that a halted machine may go to its next deadline in one case.
const IDLES: u32 = 64;

/// Two clones of it do the same to two machines that do the same.
#[derive(Clone)]
pub struct Weather {
    /// What comes when, soonest first.
    inputs: VecDeque<(u64, Input)>,
    /// Where the run is interrupted.
    breaks: VecDeque<u64>,
    end: u64,
    idles: u32,
    over: bool,
    outputs: u64,
    random: Rng,
}

impl Weather {
    /// From count `start` on, for at most `length` counts.
    pub fn new(rng: &Rng, start: u64, length: u64) -> Self {
        let mut inputs: Vec<(u64, Input)> =
            (0..rng.below(6)).map(|_| (start.saturating_add(rng.below(length)), input(rng))).collect();
        inputs.sort_by_key(|(count, _)| *count);
        Self {
            inputs: inputs.into(),
            breaks: VecDeque::new(),
            end: start.saturating_add(length),
            idles: 0,
            over: false,
            outputs: 0,
            random: Rng::of(rng.next(), 0),
        }
    }

    /// Interrupts the run at random positions.
    pub fn break_at(&mut self, rng: &Rng) {
        let mut at = self.end.saturating_sub(super::MOST);
        while at < self.end {
            at += 1 + rng.below(1 << rng.below(12));
            self.breaks.push_back(at);
        }
    }

    /// Whether the case has ended, and was not only interrupted.
    pub fn is_over(&self) -> bool {
        self.over
    }

    /// A number that depends on all outputs seen.
    pub fn seen(&self) -> u64 {
        self.outputs
    }
}

/// An input of any kind and size.
pub fn input(rng: &Rng) -> Input {
    let bytes = |rng: &Rng, most: u64| {
        let mut bytes = vec![0; rng.below(most) as usize];
        rng.fill(&mut bytes);
        bytes
    };
    match rng.below(8) {
        0 => Input::Serial { port: rng.below(3) as u8, bytes: bytes(rng, 300) },
        1 => Input::Key(bytes(rng, 40)),
        2 => Input::Mouse { dx: rng.next() as i16, dy: rng.next() as i16, buttons: rng.next() as u8 },
        3 => Input::PowerButton,
        4 => Input::Frame { nic: rng.below(2) as u8, bytes: bytes(rng, 1600) },
        5 if rng.below(64) == 0 => {
            if rng.below(2) == 0 {
                Input::PowerOff
            } else {
                Input::Reset
            }
        }
        _ => Input::DiskDone {
            disk: rng.below(3) as u8,
            tag: rng.below(4),
            status: rng.pick(&[DiskStatus::Ok, DiskStatus::Error]),
            data: bytes(rng, 5000),
        },
    }
}

impl World for Weather {
    fn next_stop(&mut self, _at: At) -> StopAt {
        let input = self.inputs.front().map_or(u64::MAX, |(count, _)| *count);
        let stop = self.breaks.front().map_or(u64::MAX, |count| *count);
        StopAt { count: self.end.min(input).min(stop), ..StopAt::NEVER }
    }

    fn poll(&mut self, at: At) -> Result<Option<Input>, Stop> {
        if self.over || at.position.count >= self.end {
            self.over = true;
            return Err(Stop::Quit);
        }
        if self.inputs.front().is_some_and(|(count, _)| *count <= at.position.count) {
            return Ok(self.inputs.pop_front().map(|(_, input)| input));
        }
        if self.breaks.front().is_some_and(|count| *count <= at.position.count) {
            self.breaks.retain(|count| *count > at.position.count);
            return Err(Stop::Quit);
        }
        Ok(None)
    }

    fn idle(&mut self, at: At, until: VirtTime) -> Result<VirtTime, Stop> {
        self.idles += 1;
        // An hour is the longest that a guest sleeps here: times near the end of time have a test of their own.
        if self.idles > IDLES || until > at.time.after(3_600_000_000_000) {
            self.over = true;
            return Err(Stop::Quit);
        }
        Ok(until)
    }

    fn answer(&mut self, _at: At, _query: Query) -> Result<u64, Stop> {
        Ok(self.random.value())
    }

    fn emit(&mut self, at: At, output: Output) {
        let number = match output {
            Output::Serial { port, byte } => u64::from(port) << 8 | u64::from(byte),
            Output::SerialConsumed { port, count } => u64::from(port) << 16 | u64::from(count),
            Output::Debug(byte) => u64::from(byte) << 32,
            Output::Disk(DiskRequest { disk, tag, op }) => {
                let op = match op {
                    DiskOp::Read { sector, sectors } => sector << 8 ^ u64::from(sectors),
                    DiskOp::Write { sector, data } => sector << 8 ^ data.len() as u64,
                    DiskOp::Flush => 1 << 63,
                };
                u64::from(disk) << 40 ^ tag << 48 ^ op
            }
            Output::Frame { nic, bytes } => u64::from(nic) << 56 ^ bytes.len() as u64,
        };
        self.outputs =
            (self.outputs.rotate_left(7) ^ number ^ at.position.count).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    fn digest_due(&self, _at: At) -> bool {
        false
    }

    fn digest(&mut self, _at: At, _digest: Digest) -> Result<(), Stop> {
        Ok(())
    }
}
