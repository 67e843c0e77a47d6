//! A world that decides by seeded dice when to stop, what comes in, how long a disk takes.

use super::{SECTORS, mix};
use gemel_machine::{
    At, Digest, DiskOp, DiskRequest, DiskStatus, Input, Output, Query, Stop, StopAt, VirtTime, World,
};
use gemel_replay::ReplayDisks;
use std::cell::RefCell;
use std::io;
use std::rc::Rc;

/// An image that is looked at from outside while a replay has it.
#[derive(Clone)]
pub struct Image(Rc<RefCell<Vec<u8>>>);

impl Image {
    pub fn new() -> Self {
        Self::of((0..SECTORS * 512).map(|i| (mix(i / 8, 5) >> 7) as u8).collect())
    }

    pub fn of(content: Vec<u8>) -> Self {
        Self(Rc::new(RefCell::new(content)))
    }

    pub fn content(&self) -> Vec<u8> {
        self.0.borrow().clone()
    }

    pub fn damage(&self) {
        self.0.borrow_mut().iter_mut().for_each(|b| *b ^= 1);
    }
}

impl ReplayDisks for Image {
    fn read(&mut self, _disk: u8, sector: u64, out: &mut [u8]) -> io::Result<()> {
        let start = sector as usize * 512;
        out.copy_from_slice(&self.0.borrow()[start..start + out.len()]);
        Ok(())
    }

    fn write(&mut self, _disk: u8, sector: u64, data: &[u8]) -> io::Result<()> {
        let start = sector as usize * 512;
        self.0.borrow_mut()[start..start + data.len()].copy_from_slice(data);
        Ok(())
    }

    fn flush(&mut self, _disk: u8) -> io::Result<()> {
        Ok(())
    }
}

pub struct Dice {
    state: u64,
    pub image: Image,
    under_way: Vec<Input>,
    end: u64,
    sent: u64,
    pub outputs: Vec<Output>,
}

impl Dice {
    /// Ends the run at the first stop at or after count `end`: this world stops, pulls the plug, or presses the reset button.
    pub fn new(seed: u64, end: u64) -> Self {
        Self { state: seed, image: Image::new(), under_way: Vec::new(), end, sent: 0, outputs: Vec::new() }
    }

    /// Goes on where another world stopped: with its image and the requests that wait.
    pub fn going_on(seed: u64, end: u64, image: Image, requests: Vec<DiskRequest>) -> Self {
        let mut world = Self { image, ..Self::new(seed, end) };
        requests.into_iter().for_each(|r| world.perform(r));
        world
    }

    fn roll(&mut self, sides: u64) -> u64 {
        self.state = mix(self.state, 1);
        (self.state >> 20) % sides
    }

    /// Requests are performed at once, in order; they complete later, in any order.
    fn perform(&mut self, request: DiskRequest) {
        let mut data = Vec::new();
        // A write that fails on the recorded side only is beyond what an identical image can show.
        let fails = !matches!(request.op, DiskOp::Write { .. }) && self.roll(10) == 0;
        let status = if fails { DiskStatus::Error } else { DiskStatus::Ok };
        if status == DiskStatus::Ok {
            match request.op {
                DiskOp::Read { sector, sectors } => {
                    data = vec![0; sectors as usize * 512];
                    self.image.read(0, sector, &mut data).unwrap();
                }
                DiskOp::Write { sector, data } => self.image.write(0, sector, &data).unwrap(),
                DiskOp::Flush => {}
            }
        }
        self.under_way.push(Input::DiskDone { disk: request.disk, tag: request.tag, status, data });
    }
}

impl World for Dice {
    fn next_stop(&mut self, at: At) -> StopAt {
        StopAt { count: at.position.count + 1 + self.roll(200), ..StopAt::NEVER }
    }

    fn poll(&mut self, at: At) -> Result<Option<Input>, Stop> {
        if at.position.count >= self.end {
            return match self.roll(6) {
                0 => Ok(Some(Input::PowerOff)),
                1 => Ok(Some(Input::Reset)),
                _ => Err(Stop::Quit),
            };
        }
        Ok(match self.roll(8) {
            0 => {
                self.sent += 1;
                let bytes = (0..1 + self.roll(5)).map(|i| i as u8 + b'a').collect();
                Some(Input::Serial { port: 0, bytes })
            }
            1 => Some(Input::Key(vec![self.roll(0x80) as u8])),
            2 if self.roll(4) == 0 => Some(Input::PowerButton),
            4 if self.roll(4) == 0 => Some(Input::Frame { nic: 0, bytes: vec![self.roll(0x100) as u8; 60] }),
            3 if !self.under_way.is_empty() => {
                let which = self.roll(self.under_way.len() as u64) as usize;
                Some(self.under_way.remove(which))
            }
            _ => None,
        })
    }

    fn input_number(&self) -> Option<u64> {
        Some(self.sent)
    }

    fn idle(&mut self, at: At, until: VirtTime) -> Result<VirtTime, Stop> {
        if self.roll(2_000) == 0 {
            self.end = 0;
            return Err(Stop::Quit);
        }
        // Half of the idle periods are cut short, though not always for an input.
        let early = at.time.after(self.roll(1 + until.0.saturating_sub(at.time.0).min(10_000)));
        Ok(if self.roll(2) == 0 { early.min(until) } else { until })
    }

    fn now(&mut self, at: At) -> Result<VirtTime, Stop> {
        Ok(at.time.after(self.roll(3) * self.roll(400)))
    }

    fn wake(&mut self, at: At, deadline: VirtTime) -> Result<Option<VirtTime>, Stop> {
        Ok(match self.roll(6) {
            0 if deadline != VirtTime::NEVER => Some(deadline.after(self.roll(50))),
            1 if self.roll(10) == 0 => Some(at.time.after(self.roll(50))),
            _ => None,
        })
    }

    fn answer(&mut self, _at: At, _query: Query) -> Result<u64, Stop> {
        Ok(self.roll(u64::MAX))
    }

    fn emit(&mut self, _at: At, output: Output) {
        if let Output::Disk(request) = &output {
            self.perform(request.clone());
        }
        self.outputs.push(output);
    }

    fn digest_due(&self, _at: At) -> bool {
        false
    }

    fn digest(&mut self, _at: At, _digest: Digest) -> Result<(), Stop> {
        Ok(())
    }
}
