//! What is outside the guest: somebody who types, a disk that takes its time, random numbers; all of it from a seed.
//!
//! Not responsible for: the guest (`guest`).

use crate::draw::Draw;
use crate::guest::{self, SECTORS};
use gemel_log::{ClockKind, Entry, Header, Item, LogReader, LogWriter};
use gemel_machine::{
    At, Digest, DiskOp, DiskRequest, DiskStatus, Input, Output, Query, Stop, StopAt, VirtTime, World,
};
use gemel_replay::Record;
use std::collections::BTreeMap;
use std::io::Cursor;

/// Counts from one of the log's digests to the next.
pub const EPOCH: u64 = 4096;
/// Counts of a run.
pub const LENGTH: u64 = 24_000;

/// The world of one seed.
struct Outside {
    draw: Draw,
    typed: VirtTime,
    requests: Vec<(VirtTime, DiskRequest)>,
    sectors: BTreeMap<u64, Vec<u8>>,
}

impl Outside {
    fn next(&self) -> VirtTime {
        self.requests.iter().map(|(due, _)| *due).min().unwrap_or(VirtTime::NEVER).min(self.typed)
    }

    fn serve(&mut self, DiskRequest { disk, tag, op }: DiskRequest) -> Input {
        let mut data = Vec::new();
        match op {
            DiskOp::Read { sector, sectors } => {
                for at in sector..sector + u64::from(sectors) {
                    let fresh = || (0..512u64).map(|n| (at * 7 + n * n) as u8).collect();
                    data.extend_from_slice(self.sectors.entry(at % SECTORS).or_insert_with(fresh));
                }
            }
            DiskOp::Write { sector, data } => {
                for (at, content) in (sector..).zip(data.chunks(512)) {
                    self.sectors.insert(at % SECTORS, content.to_vec());
                }
            }
            DiskOp::Flush => {}
        }
        Input::DiskDone { disk, tag, status: DiskStatus::Ok, data }
    }
}

impl World for Outside {
    fn next_stop(&mut self, _at: At) -> StopAt {
        StopAt { count: LENGTH, time: self.next(), ..StopAt::NEVER }
    }
    fn poll(&mut self, at: At) -> Result<Option<Input>, Stop> {
        if at.position.count >= LENGTH {
            return Err(Stop::Quit);
        }
        if let Some(n) = self.requests.iter().position(|(due, _)| *due <= at.time) {
            let (_, request) = self.requests.remove(n);
            return Ok(Some(self.serve(request)));
        }
        if self.typed > at.time {
            return Ok(None);
        }
        self.typed = at.time.after(2_000 + self.draw.below(16_000));
        let bytes = (0..=self.draw.below(3)).map(|_| self.draw.below(256) as u8).collect();
        Ok(Some(Input::Serial { port: 0, bytes }))
    }
    fn idle(&mut self, at: At, until: VirtTime) -> Result<VirtTime, Stop> {
        Ok(until.min(self.next()).max(at.time))
    }
    fn answer(&mut self, _at: At, _query: Query) -> Result<u64, Stop> {
        Ok(self.draw.next())
    }
    fn emit(&mut self, at: At, output: Output) {
        if let Output::Disk(request) = output {
            self.requests.push((at.time.after(3_000 + self.draw.below(9_000)), request));
        }
    }
    fn digest_due(&self, _at: At) -> bool {
        false
    }
    fn digest(&mut self, _at: At, _digest: Digest) -> Result<(), Stop> {
        Ok(())
    }
}

pub fn header() -> Header {
    Header { epoch: EPOCH, ..Header::new(guest::spec(), ClockKind::Free) }
}

/// The log of a run on a good engine.
pub fn record(seed: u64) -> Vec<u8> {
    let (mut log, header) = (Vec::new(), header());
    let mut machine = guest::machine(|interp, _| Box::new(interp));
    let outside = Outside {
        draw: Draw::of(seed),
        typed: VirtTime(9_000),
        requests: Vec::new(),
        sectors: BTreeMap::new(),
    };
    let mut world = Record::new(outside, LogWriter::new(&mut log, &header).unwrap(), &header);
    let outcome = machine.run(&mut world);
    world.conclude(&mut machine, &outcome).unwrap();
    drop(world);
    log
}

/// A log's entries.
pub fn entries(log: &[u8]) -> Vec<Entry> {
    let mut reader = LogReader::new(Cursor::new(log)).unwrap();
    let next = || match reader.next_item().unwrap() {
        Item::Entry(entry) => Some(entry),
        _ => None,
    };
    std::iter::from_fn(next).collect()
}

/// A log of these entries.
pub fn log_of(entries: &[Entry]) -> Vec<u8> {
    let mut log = Vec::new();
    let mut writer = LogWriter::new(&mut log, &header()).unwrap();
    entries.iter().for_each(|entry| writer.append(entry).unwrap());
    drop(writer);
    log
}
