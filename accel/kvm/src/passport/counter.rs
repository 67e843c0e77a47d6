//! Probe of the performance counter that could place events inside a stretch without exits: conditional branches that retire in guest
//! mode, how exact their count is, and how far after an overflow the guest stops.
//!
//! Not responsible for: which event that is and how it is counted, placing anything (`placement`).

use super::facts::CounterFindings;
use super::guests;
use super::probes::{Bench, unexpected};
use super::sandbox::{Left, Probe, Sandbox};
use super::stage::Mode;
use crate::kick;
use crate::placement::{BranchEvent, Counter, PerfCounter};
use gemel_machine::EngineError;
use std::collections::BTreeMap;

/// Branches that the guest makes to test the count.
const BRANCHES: u64 = 100_000;
/// Branches until an overflow.
const PERIOD: u64 = 20_000;
/// Overflows that are measured.
const SAMPLES: u32 = 50;

/// Counts a known number of branches, then measures the skid of overflows.
///
/// # Errors
/// Why there is no such counter: mostly that the host has no PMU.
pub fn measure(bench: &Bench) -> Probe<CounterFindings> {
    let event = BranchEvent::of_this_cpu().map_err(|e| e.to_string())?;
    let mut sandbox = bench.sandbox()?;
    // The handler of kicks has no effect here but for the interruption.
    let mut counter = PerfCounter::open(&event, kick::signal()).map_err(said)?;

    load(&mut sandbox)?;
    let before = counter.read().map_err(said)?;
    let left = sandbox.run()?;
    if left != Left::Done {
        return unexpected(left);
    }
    let counted = [BRANCHES, counter.read().map_err(said)? - before];

    let mut skid = BTreeMap::new();
    for _ in 0..SAMPLES {
        load(&mut sandbox)?;
        counter.arm(PERIOD).map_err(said)?;
        loop {
            let left = sandbox.leave_once()?;
            let made = BRANCHES - sandbox.regs()?.rcx.min(BRANCHES);
            match left {
                // Other signals come too.
                Left::Interrupted if counter.overflowed() => {
                    *skid.entry(made as i64 - PERIOD as i64).or_insert(0) += 1;
                    break;
                }
                Left::Interrupted => {}
                // The overflow was lost, or its signal came after the last branch.
                _ => break,
            }
        }
        counter.disarm().map_err(said)?;
    }
    Ok(CounterFindings { event: event.config, counted, skid: skid.into_iter().collect() })
}

/// A guest that is about to make so many branches.
fn load(sandbox: &mut Sandbox<'_>) -> Probe<()> {
    sandbox.load(Mode::LongRing3, guests::countdown(), |regs, _| regs.rcx = BRANCHES)
}

fn said(error: EngineError) -> String {
    error.to_string()
}
