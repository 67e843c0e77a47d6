//! A replay that is fed while the recorded run goes on: it never runs past what it has been told, and where the
//! feeding stops it goes live.

use crate::tiny::dice::{Dice, Image};
use crate::tiny::{self, Guest, Prefers, machine};
use gemel_log::{Body, ClockKind, Entry, Header, LogReader, LogWriter, ReadPolicy};
use gemel_machine::{At, Digest, Input, InputPort, Machine, Output, RunError, Stop};
use gemel_replay::{
    Conclusion, Diverged, EntrySink, EntrySource, LogSource, Lookahead, OutputSink, Record, Replay,
};
use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

/// What the recording side tells, in order.
#[derive(Clone, Debug)]
enum Told {
    Entry(Entry),
    /// A mark, and the outputs before it.
    Mark(At, u64),
}

#[derive(Clone, Default)]
struct Wire(Rc<RefCell<Vec<Told>>>);

impl EntrySink for Wire {
    fn entry(&mut self, entry: &Entry) -> Result<(), Stop> {
        self.0.borrow_mut().push(Told::Entry(entry.clone()));
        Ok(())
    }

    fn mark(&mut self, at: At, outputs: u64) -> Result<(), Stop> {
        self.0.borrow_mut().push(Told::Mark(at, outputs));
        Ok(())
    }
}

/// Gives what was told piece by piece: the next piece only when the replay can do nothing else.
struct Feed {
    told: VecDeque<Told>,
    next: Option<Entry>,
    limit: At,
    ended: bool,
}

impl Feed {
    fn new(start: At, told: &[Told]) -> Self {
        Self { told: told.to_vec().into(), next: None, limit: start, ended: false }
    }
}

impl EntrySource for Feed {
    fn peek(&mut self) -> Result<Lookahead<'_>, Stop> {
        Ok(match &self.next {
            Some(entry) => Lookahead::Entry(entry),
            None if self.ended => Lookahead::Ended,
            None => Lookahead::UpTo(self.limit),
        })
    }

    fn advance(&mut self) {
        self.limit = self.next.take().map_or(self.limit, |e| e.behind());
    }

    fn wait(&mut self) -> Result<(), Stop> {
        match self.told.pop_front() {
            Some(Told::Entry(entry)) => self.next = Some(entry),
            Some(Told::Mark(at, _)) => self.limit = at,
            None => self.ended = true,
        }
        Ok(())
    }
}

fn header(guest: Guest) -> Header {
    let mut header = Header::new(tiny::spec(guest), ClockKind::Paced);
    header.reads = vec![ReadPolicy::FromImage];
    header.epoch = 500;
    header
}

fn guest(seed: u64) -> Guest {
    let prefers = if seed.is_multiple_of(2) { Prefers::Stop } else { Prefers::Halted };
    Guest { seed, power_off_after: None, prefers, exits: false }
}

/// The guest, and the same on a machine that counts exits, of which there are fewer; each with a length for a run.
fn both(seed: u64, length: u64) -> [(Guest, u64); 2] {
    [(guest(seed), length), (Guest { exits: true, ..guest(seed) }, length / 8)]
}

struct Recorded {
    told: Vec<Told>,
    outputs: Vec<Output>,
    digest: Digest,
}

fn record(guest: Guest, length: u64) -> Recorded {
    let wire = Wire::default();
    let mut machine = tiny::kicked(guest, guest.seed + 5);
    let mut world = Record::new(Dice::new(guest.seed, length), wire.clone(), &header(guest));
    let outcome = machine.run(&mut world);
    world.conclude(&mut machine, &outcome).unwrap();
    let told = wire.0.take();
    Recorded { told, outputs: world.into_parts().0.outputs, digest: machine.digest().unwrap() }
}

/// Keeps outputs where the test can see them.
#[derive(Clone, Default)]
struct Kept(Rc<RefCell<Vec<Output>>>);

impl OutputSink for Kept {
    fn output(&mut self, ordinal: u64, _at: At, output: &Output) -> Result<(), Stop> {
        assert_eq!(ordinal, self.0.borrow().len() as u64);
        self.0.borrow_mut().push(output.clone());
        Ok(())
    }
}

fn feed(guest: Guest, told: &[Told]) -> (Machine, Replay<Feed, Kept>, Kept, Image) {
    let (kept, image) = (Kept::default(), Image::new());
    let feed = Feed::new(header(guest).start, told);
    (machine(guest), Replay::new(feed, kept.clone(), Box::new(image.clone())), kept, image)
}

#[test]
fn a_fed_replay_comes_to_the_same_end() {
    for (guest, length) in (1..20).flat_map(|seed| both(seed, 4_000)) {
        let seed = guest.seed;
        let run = record(guest, length);
        let (mut machine, mut replay, kept, _) = feed(guest, &run.told);
        let outcome = machine.run(&mut replay);
        let end = replay.conclude(&mut machine, outcome);
        assert!(matches!(end, Ok(Conclusion::Complete { .. })), "seed {seed}: {end:?}");
        assert_eq!(machine.digest().unwrap(), run.digest);
        assert_eq!(*kept.0.borrow(), run.outputs);
    }
}

#[test]
fn where_the_feeding_stops_the_replay_stops_and_not_earlier_or_later() {
    for (guest, length) in [5, 6].into_iter().flat_map(|seed| both(seed, 1_500)) {
        let run = record(guest, length);
        for cut in 0..run.told.len() {
            let (mut machine, mut replay, kept, _) = feed(guest, &run.told[..cut]);
            let outcome = machine.run(&mut replay);
            assert_eq!(replay.conclude(&mut machine, outcome).unwrap(), Conclusion::Ended, "cut {cut}");
            let (at, outputs) = match run.told[..cut].last() {
                Some(Told::Mark(at, outputs)) => (*at, *outputs),
                Some(Told::Entry(entry)) => (entry.behind(), 0),
                None => (header(guest).start, 0),
            };
            let here = machine.at();
            // An answer is given inside an instruction, which is then finished.
            let answered = |t: &Told| match t {
                Told::Entry(Entry { at: a, body: Body::Answer(_) }) => *a == at,
                Told::Entry(Entry { at: a, body: Body::Time }) => a.position.count == at.position.count,
                _ => false,
            };
            if run.told[..cut].iter().any(answered) {
                let further = here.position.count - at.position.count;
                assert!(further == 1 || guest.exits && further == 0, "cut {cut}");
            } else {
                assert_eq!((here.position.count, here.time), (at.position.count, at.time), "cut {cut}");
            }
            // The mark may stand inside an instruction whose output the machine makes when it goes on.
            let made = kept.0.borrow().len() as u64;
            assert!(made + 1 >= outputs, "cut {cut}: {made} of {outputs} outputs");
            assert!(run.outputs.starts_with(&kept.0.borrow()));
        }
    }
}

#[test]
fn a_replay_goes_live_anywhere_and_its_own_log_replays() {
    for (guest, length) in (1..8).flat_map(|seed| both(seed, 2_000)) {
        let seed = guest.seed;
        let run = record(guest, length);
        for cut in (0..run.told.len()).step_by(41) {
            let mut log = Vec::new();
            // Carried: what a later overlapping request did before the hand-over is not done again in that order.
            let header = Header { reads: vec![ReadPolicy::Carried], ..header(guest) };
            let (mut machine, replay, kept, image) = feed(guest, &run.told[..cut]);
            let mut world = Record::new(replay, LogWriter::new(&mut log, &header).unwrap(), &header);
            let outcome = machine.run(&mut world);
            assert!(matches!(outcome, Err(RunError::World(Stop::EndOfLog))), "{outcome:?}");
            let position = machine.at();
            let mut world = world.map_world(|replay| {
                let handover = replay.into_live();
                assert_eq!(handover.outputs, kept.0.borrow().len() as u64);
                Dice::going_on(seed + 77, 2 * length, image.clone(), handover.requests)
            });
            let outcome = machine.run(&mut world);
            assert!(
                machine.at().position.count >= position.position.count && machine.at().time >= position.time
            );
            world.conclude(&mut machine, &outcome).unwrap();
            let mut all = kept.0.take();
            all.extend(world.into_parts().0.outputs);
            let digest = machine.digest().unwrap();

            let offline = Kept::default();
            let mut again = tiny::machine(guest);
            let source = LogSource::new(LogReader::new(log.as_slice()).unwrap());
            let mut replay = Replay::new(source, offline.clone(), Box::new(gemel_replay::NoDisks));
            let outcome = again.run(&mut replay);
            let end = replay.conclude(&mut again, outcome);
            assert!(matches!(end, Ok(Conclusion::Complete { .. })), "seed {seed} cut {cut}: {end:?}");
            assert_eq!(again.digest().unwrap(), digest, "seed {seed} cut {cut}");
            assert_eq!(*offline.0.borrow(), all, "seed {seed} cut {cut}");
        }
    }
}

#[test]
fn a_replay_of_another_machine_is_stopped_before_it_passes_a_mark() {
    let run = record(guest(5), 1_500);
    let other = Guest { seed: 55, ..guest(5) };
    let (mut machine, mut replay, kept, _) = feed(other, &run.told);
    let outcome = machine.run(&mut replay);
    match replay.conclude(&mut machine, outcome) {
        Err(RunError::World(Stop::Diverged(e))) => assert!(e.downcast::<Diverged>().is_ok()),
        end => panic!("{end:?}"),
    }
    let first = run.told.iter().find_map(|t| if let Told::Entry(e) = t { Some(e.at) } else { None });
    assert!(machine.at().position.count <= first.unwrap().position.count + 1);
    assert!(kept.0.borrow().len() < run.outputs.len());
}

#[test]
fn numbers_and_bytes_on_their_way_are_handed_over() {
    let run = record(guest(3), 3_000);
    let mut seen = 0;
    for cut in (0..run.told.len()).step_by(17) {
        let (mut machine, mut replay, kept, _) = feed(guest(3), &run.told[..cut]);
        assert!(matches!(machine.run(&mut replay), Err(RunError::World(Stop::EndOfLog))));
        let handover = replay.into_live();
        let (mut sent, mut taken, mut number) = (0, 0, None);
        for told in &run.told[..cut] {
            if let Told::Entry(Entry { body: Body::Input { input, number: n }, .. }) = told
                && let Input::Serial { bytes, .. } = input
            {
                sent += bytes.len() as u64;
                number = *n;
            }
        }
        for output in kept.0.borrow().iter() {
            if let Output::SerialConsumed { count, .. } = output {
                taken += u64::from(*count);
            }
        }
        assert_eq!(handover.serial_in_flight.get(&0).copied().unwrap_or_default(), sent - taken, "cut {cut}");
        assert_eq!(handover.numbers.get(&InputPort::Serial(0)).copied(), number, "cut {cut}");
        seen += u64::from(sent > taken && taken > 0);
    }
    assert!(seen > 10, "{seen} cuts show something");
}
