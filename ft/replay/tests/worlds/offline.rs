//! A recorded run is replayed from its log: whole, cut off, and with every kind of change that must be found out.

use crate::tiny::dice::{Dice, Image};
use crate::tiny::{self, Guest, Prefers, machine};
use gemel_log::{Body, ClockKind, EndReason, Entry, Header, Item, LogReader, LogWriter, ReadPolicy};
use gemel_machine::{
    Digest, DiskOp, DiskRequest, DiskStatus, Input, Output, Pause, RunError, Stop, VirtTime,
};
use gemel_replay::{Conclusion, Diverged, LogSource, NoDisks, Record, Replay, ReplayDisks};

const EPOCH: u64 = 1000;

struct Run {
    guest: Guest,
    log: Vec<u8>,
    digest: Digest,
    outputs: Vec<Output>,
    image: Vec<u8>,
    outcome: Result<Pause, RunError>,
}

fn header(guest: Guest, policy: ReadPolicy) -> Header {
    let mut header = Header::new(tiny::spec(guest), ClockKind::Free);
    header.reads = vec![policy];
    header.epoch = EPOCH;
    header
}

fn record(guest: Guest, dice: u64, length: u64, policy: ReadPolicy) -> Run {
    let mut log = Vec::new();
    let mut machine = tiny::kicked(guest, dice);
    let header = header(guest, policy);
    let sink = LogWriter::new(&mut log, &header).unwrap();
    let mut world = Record::new(Dice::new(dice, length), sink, &header);
    let outcome = machine.run(&mut world);
    world.conclude(&mut machine, &outcome).unwrap();
    let digest = machine.digest().unwrap();
    let Dice { outputs, image, .. } = world.into_parts().0;
    Run { guest, log, digest, outputs, image: image.content(), outcome }
}

struct Replayed {
    result: Result<Conclusion, RunError>,
    outputs: Vec<Output>,
    digest: Digest,
    count: u64,
    entries: u64,
    /// Requests that were not complete at the end.
    open: Vec<DiskRequest>,
}

fn replay(guest: Guest, log: &[u8], disks: Box<dyn ReplayDisks>) -> Replayed {
    let mut outputs = Vec::new();
    let mut machine = machine(guest);
    let source = LogSource::new(LogReader::new(log).unwrap());
    let sink = |ordinal: u64, _, output: &Output| {
        assert_eq!(ordinal, outputs.len() as u64);
        outputs.push(output.clone());
        Ok(())
    };
    let mut world = Replay::new(source, sink, disks);
    let outcome = machine.run(&mut world);
    let result = world.conclude(&mut machine, outcome);
    let entries = world.entries();
    let (digest, count) = (machine.digest().unwrap(), machine.at().position.count);
    let open = world.into_live().requests;
    Replayed { result, outputs, digest, count, entries, open }
}

fn diverged(result: Result<Conclusion, RunError>) -> Box<Diverged> {
    match result {
        Err(RunError::World(Stop::Diverged(e))) => e.downcast::<Diverged>().unwrap(),
        other => panic!("not found out: {other:?}"),
    }
}

fn guest(seed: u64) -> Guest {
    let prefers = if seed.is_multiple_of(2) { Prefers::Stop } else { Prefers::Halted };
    Guest { seed, power_off_after: seed.is_multiple_of(3).then_some(15_000), prefers, exits: false }
}

/// The same guest on a machine that counts exits, of which there are fewer.
fn exiting(seed: u64) -> Guest {
    let guest = guest(seed);
    Guest { power_off_after: guest.power_off_after.map(|n| n / 10), exits: true, ..guest }
}

/// Both, each with a length for a run.
fn both(seed: u64, length: u64) -> [(Guest, u64); 2] {
    [(guest(seed), length), (exiting(seed), length / 8)]
}

fn kinds(run: &Run, kind: fn(&Body) -> bool) -> usize {
    entries(&run.log).1.iter().filter(|e| kind(&e.body)).count()
}

fn entries(log: &[u8]) -> (Header, Vec<Entry>) {
    let mut reader = LogReader::new(log).unwrap();
    let mut out = Vec::new();
    while let Item::Entry(entry) = reader.next_item().unwrap() {
        out.push(entry);
    }
    (reader.header().clone(), out)
}

fn written(header: &Header, entries: &[Entry]) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    let mut writer = LogWriter::new(&mut out, header).ok()?;
    entries.iter().try_for_each(|e| writer.append(e)).ok()?;
    drop(writer);
    Some(out)
}

#[test]
fn a_replay_does_what_the_recorded_run_did() {
    let (mut stopped, mut ended, mut digests, mut landings, mut wakes) = (0, 0, 0, 0, 0);
    for (guest, length) in (1..60).flat_map(|seed| both(seed, 20_000)) {
        let seed = guest.seed;
        let run = record(guest, seed + 1000, length, ReadPolicy::Carried);
        let again = replay(run.guest, &run.log, Box::new(NoDisks));
        let reason = match run.outcome {
            Ok(pause) => EndReason::Guest(pause),
            Err(_) => EndReason::Stopped,
        };
        if reason == EndReason::Stopped {
            stopped += 1
        } else {
            ended += 1
        }
        assert_eq!(again.result.unwrap(), Conclusion::Complete { reason }, "seed {seed}");
        assert_eq!(again.digest, run.digest, "seed {seed}");
        assert_eq!(again.outputs, run.outputs, "seed {seed}");
        digests += kinds(&run, |body| matches!(body, Body::Digest(_)));
        landings += kinds(&run, |body| matches!(body, Body::Landing { .. }));
        wakes += kinds(&run, |body| matches!(body, Body::Wake(_)));
    }
    let shown = [stopped > 10, ended > 10, digests > 200, landings > 1000, wakes > 1000];
    assert_eq!(shown, [true; 5], "the runs show too little: {stopped} {ended} {digests} {landings} {wakes}");
}

#[test]
fn a_replay_reads_its_own_identical_image_and_applies_the_writes() {
    for (guest, length) in (1..20).flat_map(|seed| both(seed, 20_000)) {
        let seed = guest.seed;
        let run = record(guest, seed, length, ReadPolicy::FromImage);
        let image = Image::new();
        let again = replay(run.guest, &run.log, Box::new(image.clone()));
        assert!(matches!(again.result, Ok(Conclusion::Complete { .. })), "seed {seed}: {:?}", again.result);
        assert_eq!(again.digest, run.digest);
        // What the recorded side had performed and not yet completed is not in the replay's image.
        let open = again.open.iter().filter_map(|r| match &r.op {
            DiskOp::Write { sector, .. } => Some(*sector as usize),
            _ => None,
        });
        let open: Vec<usize> = open.collect();
        let closed = |image: &[u8]| {
            let sectors = image.chunks(512).map(<[u8]>::to_vec).enumerate();
            sectors.filter(|(i, _)| !open.contains(i)).collect::<Vec<_>>()
        };
        assert_eq!(closed(&image.content()), closed(&run.image), "seed {seed}");
        assert_ne!(closed(&run.image), closed(&Image::new().content()), "seed {seed}: nothing was written");
        let carried = record(guest, seed, length, ReadPolicy::Carried);
        assert_eq!(carried.digest, run.digest);
        assert!(carried.log.len() > run.log.len());
    }
}

#[test]
fn another_image_is_found_out_at_the_first_read() {
    let run = record(guest(1), 1, 20_000, ReadPolicy::FromImage);
    let image = Image::new();
    image.damage();
    let found = diverged(replay(run.guest, &run.log, Box::new(image)).result);
    assert_eq!(found.mismatches[0].what, "disk image");
    let (_, all) = entries(&run.log);
    let first = all
        .iter()
        .position(|e| matches!(e.body, Body::ReRead { status: DiskStatus::Ok, length, .. } if length > 0));
    assert_eq!(Some(found.entry as usize), first);
    assert!(matches!(
        replay(run.guest, &run.log, Box::new(NoDisks)).result,
        Err(RunError::World(Stop::Host(e))) if e.to_string().contains("give the replay the image")
    ));
}

#[test]
fn a_log_cut_at_any_byte_replays_up_to_its_last_whole_entry() {
    for (guest, length) in both(11, 1_500) {
        let run = record(guest, 5, length, ReadPolicy::FromImage);
        let (_, all) = entries(&run.log);
        let header = header(run.guest, ReadPolicy::FromImage).encode().unwrap().0.len();
        assert!(all.len() > 30);
        for cut in header..run.log.len() {
            let again = replay(run.guest, &run.log[..cut], Box::new(Image::new()));
            let Ok(Conclusion::Cut { entries, .. }) = again.result else {
                panic!("cut at {cut}: {:?}", again.result)
            };
            assert_eq!(entries, again.entries);
            let last = entries.checked_sub(1).map(|i| &all[i as usize]);
            let count = last.map_or(0, |entry| entry.at.position.count);
            // An answer is given in the middle of an instruction, which is then finished.
            let inside = last.is_some_and(|entry| matches!(entry.body, Body::Answer(_) | Body::Time));
            let counted = if guest.exits { again.count > count } else { true };
            assert_eq!(again.count, count + u64::from(inside && counted), "cut at {cut}");
            assert!(run.outputs.starts_with(&again.outputs));
        }
    }
}

/// Replays the log with one entry replaced by others and expects a divergence no earlier than there.
fn must_diverge(run: &Run, at: usize, with: &[Entry], what: &str) {
    let (header, mut all) = entries(&run.log);
    all.splice(at..=at, with.iter().cloned());
    let Some(log) = written(&header, &all) else { return };
    let again = replay(run.guest, &log, Box::new(Image::new()));
    assert!(again.result.is_err(), "{what} at {at} of {}, not found out: {}", all.len(), all[at]);
    let found = diverged(again.result);
    assert!(found.entry as usize >= at.saturating_sub(1), "{what} at {at}: {found}");
    assert!(!found.mismatches.is_empty() && found.report().contains(found.mismatches[0].what));
    assert_eq!(found.to_string().lines().count(), 1);
}

/// An input that cuts an idle period short can come a nanosecond earlier or later, and if nothing looks at the clock
/// before the next deadline, all that follows is the same: then it is another log of the same run.
fn changes_nothing(run: &Run, at: usize, with: &Entry) -> bool {
    let (header, mut all) = entries(&run.log);
    all[at] = with.clone();
    let Some(log) = written(&header, &all) else { return true };
    let again = replay(run.guest, &log, Box::new(Image::new()));
    again.result.is_ok() && again.digest == run.digest && again.outputs == run.outputs
}

#[test]
fn every_change_to_an_event_is_found_out() {
    for (guest, length) in [3, 4].into_iter().flat_map(|seed| both(seed, 2_500)) {
        let seed = guest.seed;
        let run = record(guest, seed, length, ReadPolicy::Carried);
        let (_, all) = entries(&run.log);
        assert!(all.len() > 30, "seed {seed}: {}", all.len());
        let mut found = 0;
        for (i, entry) in all.iter().enumerate() {
            for by in [-1i64, 1] {
                let mut moved = entry.clone();
                moved.at.position.count = moved.at.position.count.wrapping_add_signed(by);
                must_diverge(&run, i, &[moved], "moved in count");
                let mut moved = entry.clone();
                moved.at.time = VirtTime(moved.at.time.0.wrapping_add_signed(by));
                if !changes_nothing(&run, i, &moved) {
                    must_diverge(&run, i, &[moved], "moved in time");
                    found += 1;
                }
            }
            let mut other = entry.clone();
            other.at.position.rip ^= 0x10;
            must_diverge(&run, i, &[other], "another rip");
            let mut other = entry.clone();
            other.at.position.rcx ^= 1;
            if entry.body != Body::Time {
                must_diverge(&run, i, &[other], "another rcx");
            }
            let mut other = entry.clone();
            match &mut other.body {
                Body::Input { input: Input::Serial { bytes, .. }, .. } => bytes[0] ^= 1,
                // The chip takes no notice of which key it is.
                Body::Input { input: Input::Key(codes), .. } => codes.extend([1, 2, 3]),
                Body::Input { input: Input::DiskDone { tag, .. }, .. } => *tag += 1,
                Body::Input { input, .. } => *input = Input::Key(vec![]),
                Body::ReRead { check, .. } => *check ^= 1,
                Body::Answer(value) => *value ^= 1 << 40,
                Body::Digest(digest) => digest.devices ^= 1,
                Body::Landing { digest, .. } => digest.ram ^= 1,
                Body::Time => other.body = Body::Answer(1),
                Body::Wake(_) => other.body = Body::Time,
                Body::End { outputs, .. } => outputs.hash ^= 1,
            }
            must_diverge(&run, i, &[other], "another content");
            if matches!(entry.body, Body::Input { .. } | Body::Answer(_) | Body::Time) {
                must_diverge(&run, i, &[], "missing");
                must_diverge(&run, i, &[entry.clone(), entry.clone()], "repeated");
            }
        }
        let least = if guest.exits { all.len() / 10 } else { all.len() };
        assert!(found > least, "{found} of {} moves in time", 2 * all.len());
    }
}

#[test]
fn another_machine_is_found_out() {
    let run = record(guest(2), 3, 5_000, ReadPolicy::Carried);
    let found = diverged(replay(Guest { seed: 99, ..run.guest }, &run.log, Box::new(NoDisks)).result);
    assert_eq!(found.entry, 0);
    let directory = tempfile::tempdir().unwrap();
    gemel_replay::write_evidence(&directory.path().join("bundle"), &found, Some(b"state")).unwrap();
    let report = std::fs::read_to_string(directory.path().join("bundle/report.txt")).unwrap();
    assert!(report.contains("rip"));
    assert_eq!(std::fs::read(directory.path().join("bundle/machine.snapshot")).unwrap(), b"state");
}

#[test]
fn two_runs_with_equal_worlds_are_equal() {
    for seed in 1..10 {
        for (guest, length) in both(seed, 20_000) {
            let (a, b) = (
                record(guest, 7, length, ReadPolicy::Carried),
                record(guest, 7, length, ReadPolicy::Carried),
            );
            assert!(a.log == b.log && a.digest == b.digest && a.outputs == b.outputs, "seed {seed}");
        }
    }
    assert_ne!(
        record(guest(1), 7, 20_000, ReadPolicy::Carried).digest,
        record(guest(1), 8, 20_000, ReadPolicy::Carried).digest,
        "the world makes no difference, so the test shows nothing"
    );
}
