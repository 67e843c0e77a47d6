//! Snapshots with a part that nobody saved: every checksum is right, and what they guard is not.
//!
//! Not responsible for: damage that a checksum finds (the interpreter's own test), sections of single devices (their
//! conformance tests).

use super::state::{self, Mode};
use super::{CpuFuzzer, Weather, go, machine, model};
use crate::rng::Rng;
use crate::run::{Episode, Tally};
use std::ops::Range;

/// Damaged copies of one snapshot.
const CASES: u64 = 16;
/// Counts that a machine may run that took one on.
const MOST: u64 = 500;
/// Bytes before the first section.
const HEADER: usize = 60;

/// The fuzzer.
#[derive(Default)]
pub struct SnapshotFuzzer {
    cpu: CpuFuzzer,
}

/// A section: its name, and where its body lies; the checksum is in the four bytes before.
struct Part {
    name: String,
    body: Range<usize>,
}

/// The sections of a good snapshot.
fn parts(snapshot: &[u8]) -> Vec<Part> {
    let mut parts = Vec::new();
    let mut at = HEADER;
    while at < snapshot.len() {
        let name = at + 1..at + 1 + usize::from(snapshot[at]);
        let length = name.end + 2;
        let bytes = std::array::from_fn(|i| snapshot[length + i]);
        let body = length + 12..length + 12 + u64::from_le_bytes(bytes) as usize;
        at = body.end;
        parts.push(Part { name: String::from_utf8_lossy(&snapshot[name]).into_owned(), body });
    }
    parts
}

/// Changes some bytes of a section, or all, and makes its checksum right.
fn damage(rng: &Rng, snapshot: &mut [u8], body: Range<usize>) {
    let length = body.len() as u64;
    if length == 0 {
        return;
    }
    for _ in 0..1 + rng.below(8) {
        let at = body.start + rng.below(length) as usize;
        let end = (at + rng.pick(&[1, 1, 2, 8])).min(body.end);
        match rng.below(4) {
            0 => snapshot[at..end].fill(0),
            1 => snapshot[at..end].fill(0xff),
            _ => rng.fill(&mut snapshot[at..end]),
        }
    }
    if rng.once_in(16) {
        rng.fill(&mut snapshot[body.clone()]);
    }
    let checksum = crc32fast::hash(&snapshot[body.clone()]).to_le_bytes();
    snapshot[body.start - 4..body.start].copy_from_slice(&checksum);
}

impl Episode for SnapshotFuzzer {
    fn run(&self, rng: &Rng, number: u64, tally: &mut Tally) -> anyhow::Result<()> {
        let model = model(number)?;
        let mut original = machine(&model, Some(rng))?;
        let made = state::make(rng, Mode::pick(rng), &model, &self.cpu.shapes, 0);
        for (address, bytes) in &made.memory {
            let _ = original.ram().write(*address, bytes);
        }
        original.vcpu().restore(&made.state)?;
        go(&mut original, &mut Weather::new(rng, 0, MOST), |_| ())?;
        let snapshot = original.snapshot()?;
        let parts = parts(&snapshot);
        for _ in 0..CASES {
            let part = &parts[rng.below(parts.len() as u64) as usize];
            let mut damaged = snapshot.clone();
            damage(rng, &mut damaged, part.body.clone());
            let small = part.body.len() < 4096;
            tally.case("snapshots", || {
                let body = if small { &damaged[part.body.clone()] } else { &[] };
                [part.name.as_bytes(), b" ", body].concat()
            });
            let mut other = machine(&model, None)?;
            let taken = other.restore(&damaged).is_ok();
            if taken {
                let count = other.at().position.count;
                go(&mut other, &mut Weather::new(rng, count, MOST), |_| ())?;
            }
            tally.done(u64::from(taken), taken);
        }
        Ok(())
    }
}
