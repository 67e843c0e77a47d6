//! A guest that computes for ever without an exit, and logs that look for it between two: where it comes by, and where it never does.
//!
//! Not responsible for how an engine looks for a boundary.

use crate::recorded::{Make, describe, spec};
use anyhow::{Context, Result, anyhow, bail, ensure};
use gemel_log::{Body, ClockKind, Entry, Header, Item, LogReader, LogWriter};
use gemel_machine::bus::BusBuilder;
use gemel_machine::{
    At, BootSpec, Digest, GuestRam, Input, Machine, Nothing, RunError, Stop, StopAt, World, forward_to_world,
};
use gemel_replay::{Conclusion, Diverged, LogSource, NoDisks, NoOutput, Record, Replay};
use gemel_x86::CpuModel;
use std::sync::Arc;

/// inc eax; jmp back, in 16-bit code
const LOOP: [u8; 4] = [0x66, 0x40, 0xeb, 0xfc];
const START: u64 = 0x1000;
/// What a false landing allows, so that nobody waits long: a recorded one, of a hypervisor, allows what no CPU could do in its time.
const SOON: u64 = 100_000;

/// Nothing comes in, and the run ends at a poll.
struct Impatient {
    world: Nothing,
    polls: u32,
}

impl World for Impatient {
    fn next_stop(&mut self, at: At) -> StopAt {
        self.world.next_stop(at)
    }

    fn poll(&mut self, at: At) -> Result<Option<Input>, Stop> {
        self.polls = self.polls.checked_sub(1).ok_or(Stop::Quit)?;
        self.world.poll(at)
    }

    forward_to_world!(idle, answer, emit, digest_due, digest);
}

fn header() -> Header {
    Header::new(spec(Vec::new(), BootSpec::default()), ClockKind::Free)
}

fn machine(engine: Make<'_>) -> Result<Machine> {
    let spec = header().machine;
    let model = CpuModel::parse(&spec.cpu).map_err(|e| anyhow!("{e}"))?;
    let ram = Arc::new(GuestRam::new(spec.ram)?);
    ram.write(START, &LOOP).context("the guest")?;
    let bus = BusBuilder::new(Arc::clone(&ram), 1).build();
    let mut machine = Machine::new(engine(&model, &ram)?, bus, ram, spec.reckoning, spec.id());
    let mut state = machine.vcpu().save()?;
    (state.seg[gemel_x86::segment::CS].selector, state.seg[gemel_x86::segment::CS].base) = (0, 0);
    state.rip = START;
    machine.vcpu().restore(&state)?;
    Ok(machine)
}

/// The entries of a run that was stopped somewhere: a landing and the end.
fn recorded(engine: Make<'_>) -> Result<Vec<Entry>> {
    let (mut log, header, mut machine) = (Vec::new(), header(), machine(engine)?);
    let inside = Impatient { world: Nothing { stop: u64::MAX }, polls: 5 };
    let mut world = Record::new(inside, LogWriter::new(&mut log, &header)?, &header);
    let outcome = machine.run(&mut world);
    world.conclude(&mut machine, &outcome).map_err(describe)?;
    drop(world);
    let mut reader = LogReader::new(log.as_slice())?;
    let mut entries = Vec::new();
    while let Item::Entry(entry) = reader.next_item()? {
        entries.push(entry);
    }
    Ok(entries)
}

fn replayed(engine: Make<'_>, entries: &[Entry]) -> Result<Result<Conclusion, RunError>> {
    let mut log = Vec::new();
    let mut writer = LogWriter::new(&mut log, &header())?;
    entries.iter().try_for_each(|entry| writer.append(entry))?;
    writer.flush()?;
    drop(writer);
    let mut machine = machine(engine)?;
    let mut world = Replay::new(LogSource::new(LogReader::new(log.as_slice())?), NoOutput, Box::new(NoDisks));
    let outcome = machine.run(&mut world);
    Ok(world.conclude(&mut machine, outcome))
}

/// A run without exits is found again where it was stopped; a landing that it does not come by ends in a divergence that says so.
pub fn endless(recording: Make<'_>, replaying: Make<'_>) -> Result<()> {
    let entries = recorded(recording)?;
    let [landing @ Entry { body: Body::Landing { digest, linear, within }, .. }, end] = entries.as_slice()
    else {
        bail!("not a landing and an end: {entries:?}");
    };
    let again = replayed(replaying, &entries)?.map_err(describe)?;
    ensure!(matches!(again, Conclusion::Complete { .. }), "{again:?}");
    let false_landing = |rip: u64, ram: u64| {
        let mut entry = landing.clone();
        entry.at.position.rip ^= rip;
        let digest = Digest { ram: digest.ram ^ ram, ..*digest };
        entry.body = Body::Landing { digest, linear: *linear, within: SOON };
        entry
    };
    // The same address and registers with other memory, and an address that the guest does not come to.
    for landing in [false_landing(0, 1), false_landing(0x100, 0)] {
        let diverged = match replayed(replaying, &[landing.clone(), end.clone()])? {
            Err(RunError::World(Stop::Diverged(e))) => {
                e.downcast::<Diverged>().map_err(|e| anyhow!("no evidence: {e}"))?
            }
            other => bail!("{landing}: {other:?}"),
        };
        let steps = diverged.mismatches.iter().find(|m| m.what == "steps to a landing");
        let made = steps.with_context(|| diverged.report())?.found.parse::<u64>()?;
        ensure!(made > SOON && diverged.entry == 0, "{}", diverged.report());
    }
    println!("landing within {within} steps");
    Ok(())
}
