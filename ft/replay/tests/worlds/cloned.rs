//! A recorded run is cut somewhere while it goes on: from a copy of the machine there, a log that begins there yields the
//! same rest of the run.

use crate::tiny::dice::{Dice, Image};
use crate::tiny::{self, Guest, Prefers};
use gemel_log::{ClockKind, Header, LogReader, LogWriter, ReadPolicy};
use gemel_machine::ram::PAGE_SIZE;
use gemel_machine::{At, Digest, DiskOp, Machine, Output, RunError, Stop, Until};
use gemel_replay::{Conclusion, LogSource, Progress, Record, Replay, Start};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::rc::Rc;

/// Stops before the cut at which pages are copied.
const ROUNDS: u64 = 5;

/// A log in memory.
#[derive(Clone, Default)]
struct File(Rc<RefCell<Vec<u8>>>);

impl io::Write for File {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.borrow_mut().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What is known of the machine where it was cut.
struct Cut {
    at: At,
    digest: Digest,
    /// A [`Start`], its snapshot without RAM.
    start: Vec<u8>,
    pages: BTreeMap<u32, [u8; PAGE_SIZE]>,
    /// The disk there.
    image: Vec<u8>,
    /// The log from there on.
    log: Vec<u8>,
    /// All outputs of the run.
    outputs: Vec<Output>,
    /// The machine and the disk at its end.
    end: (Digest, Vec<u8>),
}

fn copy(machine: &mut Machine, pages: &mut BTreeMap<u32, [u8; PAGE_SIZE]>) {
    machine.vcpu().save().unwrap();
    for page in machine.ram().take_changes() {
        machine.ram().copy_page(page, pages.entry(page).or_insert([0; PAGE_SIZE]));
    }
}

/// Runs a guest to `length`, cut at `cut`; nothing if it ended before.
fn run(guest: Guest, cut: u64, length: u64) -> Option<Cut> {
    let header = header(guest);
    let (mut whole, rest) = (Vec::new(), File::default());
    let mut machine = tiny::kicked(guest, guest.seed + 7);
    let sinks = (LogWriter::new(&mut whole, &header).unwrap(), None);
    let mut world = Until::new(Record::new(Dice::new(guest.seed, length), sinks, &header), None);
    let mut pages = BTreeMap::new();
    for round in 1..=ROUNDS {
        world.rearm(cut * round / ROUNDS);
        match machine.run(&mut world) {
            Err(RunError::World(Stop::Quit)) if world.reached() => {}
            _ => return None,
        }
        if round == 1 {
            machine.ram().follow_changes();
        }
        copy(&mut machine, &mut pages);
    }
    world.world.settle().unwrap();
    let at = machine.at();
    let snapshot = machine.snapshot_beside_ram().unwrap();
    let start = Start { progress: world.world.progress().clone(), snapshot }.to_bytes();
    let image = world.world.world().image.content();
    let digest = machine.digest().unwrap();
    machine.ram().forget_changes();
    let second = Header { start: at, ..header };
    world.world.sink().1 = Some(LogWriter::new(rest.clone(), &second).unwrap());
    world.rearm(u64::MAX);
    let outcome = machine.run(&mut world);
    world.world.conclude(&mut machine, &outcome).unwrap();
    let last = machine.digest().unwrap();
    let Dice { outputs, image: end, .. } = world.world.into_parts().0;
    Some(Cut { at, digest, start, pages, image, log: rest.0.take(), outputs, end: (last, end.content()) })
}

fn header(guest: Guest) -> Header {
    let mut header = Header::new(tiny::spec(guest), ClockKind::Free);
    header.reads = vec![ReadPolicy::Carried];
    header.epoch = 500;
    header
}

/// Guests on machines that count instructions and on such that count exits.
fn guests() -> impl Iterator<Item = (Guest, u64)> {
    (1..120).map(|seed| {
        let (exits, prefers) = (seed % 2 == 0, if seed % 3 == 0 { Prefers::Stop } else { Prefers::Halted });
        let power_off_after = (seed % 5 == 0).then_some(if exits { 1_500 } else { 15_000 });
        (Guest { seed, power_off_after, prefers, exits }, if exits { 2_500 } else { 20_000 })
    })
}

#[test]
fn a_copy_of_a_running_machine_does_the_rest_as_it_did() {
    let (mut seen, mut in_flight, mut waiting_bytes) = (0, 0, 0);
    for (guest, length) in guests() {
        let seed = guest.seed;
        let cut = length / 10 + seed * length / 150 % (length / 2);
        let Some(cut) = run(guest, cut, length) else { continue };
        let (log, (last, end)) = (cut.log, cut.end);
        seen += 1;
        let Start { progress, snapshot } = Start::from_bytes(&cut.start).unwrap();
        let mut machine = tiny::kicked(guest, seed + 99);
        for (page, content) in &cut.pages {
            machine.ram().write(machine.ram().address_of(*page), content).unwrap();
        }
        machine.restore_beside_ram(&snapshot).unwrap();
        assert_eq!((machine.at(), machine.digest().unwrap()), (cut.at, cut.digest), "seed {seed}");

        let before = progress.outputs();
        let requests = replay_lists(&progress, &log);
        in_flight += requests.0;
        waiting_bytes += requests.1;
        let source = LogSource::new(LogReader::new(&log[..]).unwrap());
        let mut rest = Vec::new();
        let sink = |ordinal: u64, _, output: &Output| {
            assert_eq!(ordinal, before + rest.len() as u64);
            rest.push(output.clone());
            Ok(())
        };
        let image = Image::of(cut.image);
        let mut world = Replay::resume(source, sink, Box::new(image.clone()), progress);
        let outcome = machine.run(&mut world);
        let conclusion = world.conclude(&mut machine, outcome);
        assert!(matches!(conclusion, Ok(Conclusion::Complete { .. })), "seed {seed}: {conclusion:?}");
        // Writes in flight at the end were performed on the recorded side alone.
        let (mut ours, mut theirs) = (image.content(), end);
        for request in world.into_live().requests {
            if let DiskOp::Write { sector, data } = request.op {
                let range = sector as usize * 512..sector as usize * 512 + data.len();
                ours[range.clone()].fill(0);
                theirs[range].fill(0);
            }
        }
        assert!(ours == theirs, "seed {seed}: the images differ");
        assert_eq!(machine.digest().unwrap(), last, "seed {seed}");
        assert_eq!(rest, cut.outputs[before as usize..], "seed {seed}");
    }
    assert!(seen > 80 && in_flight > 30 && waiting_bytes > 30, "{seen} {in_flight} {waiting_bytes}");
}

/// Requests and serial bytes in flight at the cut.
fn replay_lists(progress: &Progress, log: &[u8]) -> (usize, u64) {
    let source = LogSource::new(LogReader::new(log).unwrap());
    let sink = |_: u64, _: At, _: &Output| Ok(());
    let handover =
        Replay::resume(source, sink, Box::new(gemel_replay::NoDisks), progress.clone()).into_live();
    (handover.requests.len(), handover.serial_in_flight.values().sum())
}
