//! A world that answers from a log.
//!
//! Not responsible for: where the entries come from (an [`EntrySource`]), images ([`ReplayDisks`]), the outputs'
//! way out (an [`OutputSink`]).
//!
//! Every entry is met at exactly its position and guest time; a machine that comes by anywhere else has diverged,
//! and the run ends there. Where the log says nothing, the machine goes its way by itself: through timers, through
//! idle periods to their next deadline.
//!
//! Where positions count exits, an entry's count names the first boundary behind that exit. An entry anywhere else follows a
//! landing: the machine looks for that boundary, and is past it at the next exit at the latest.

use crate::disks::ReplayDisks;
use crate::diverged::{Diverged, Mismatch};
use crate::pending::{Completion, Trouble};
use crate::progress::Progress;
use crate::sink::OutputSink;
use crate::source::{EntrySource, Lookahead};
use crate::tally::OutputTally;
use gemel_log::{Body, EndReason, Entry, OutputSummary};
use gemel_machine::{
    At, Digest, DiskRequest, Input, InputPort, Landing, Machine, Output, Pause, Position, Query, RunError,
    Stop, StopAt, VirtTime, World,
};
use std::cmp::Ordering;
use std::collections::BTreeMap;

/// Answers from a log.
pub struct Replay<S, O> {
    source: S,
    outputs: O,
    disks: Box<dyn ReplayDisks>,
    progress: Progress,
    /// The next entry is a digest, and the machine is there.
    digest_here: bool,
    /// Where the machine was last told to look for a landing.
    sought: Option<At>,
    /// Trouble that came where the machine takes none; the next poll reports it.
    failed: Option<Stop>,
}

/// How a replay ended without a divergence.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Conclusion {
    /// At the end entry: same position, same digest, same outputs.
    Complete {
        /// Why the recorded run ended.
        reason: EndReason,
    },
    /// At the last whole entry of a log that is cut off.
    Cut {
        /// Whole entries.
        entries: u64,
        /// Bytes of a further entry that is not whole.
        leftover: u64,
    },
    /// Where the source ended without an end entry: the machine can go on under another world.
    Ended,
}

/// What a world needs to go on where a replay ended. Guest time and position are the machine's own.
pub struct Handover<O> {
    /// Requests that the guest waits for, in the order in which it made them: to be performed (again). Where they
    /// overlap a later one that is complete, the order between the two is not kept, which no disk promises.
    pub requests: Vec<DiskRequest>,
    /// Completed writes that no completed flush covers, each disk's in order: to be performed again before a read is served,
    /// because what happened to the images since their completion is not known.
    pub unflushed: Vec<DiskRequest>,
    /// Outputs that left the machine so far: the next one's ordinal.
    pub outputs: u64,
    /// The last number that arrived at each plug whose sender numbers what it sends.
    pub numbers: BTreeMap<InputPort, u64>,
    /// Bytes sent to each serial port that the guest has not taken yet.
    pub serial_in_flight: BTreeMap<u8, u64>,
    /// Where the outputs went.
    pub sink: O,
    /// The images, with all completed writes applied.
    pub disks: Box<dyn ReplayDisks>,
}

/// Where the machine is, seen from an entry or a limit.
fn order(at: At, other: At) -> Ordering {
    (at.position.count, at.time).cmp(&(other.position.count, other.time))
}

/// Whether the machine comes to what an entry says by going on from there, and not by being told.
fn by_itself(body: &Body) -> bool {
    matches!(body, Body::Answer(_) | Body::Time | Body::End { reason: EndReason::Guest(_), .. })
}

fn mismatch(what: &'static str, expected: impl ToString, found: impl ToString) -> Mismatch {
    Mismatch { what, expected: expected.to_string(), found: found.to_string() }
}

fn position_mismatches(expected: At, found: At) -> Vec<Mismatch> {
    let mut out = Vec::new();
    let (e, f) = (expected.position, found.position);
    if e.count != f.count {
        out.push(mismatch("count", e.count, f.count));
    }
    if expected.time != found.time {
        out.push(mismatch("time", expected.time, found.time));
    }
    for (what, e, f) in [("rip", e.rip, f.rip), ("rcx", e.rcx, f.rcx)] {
        if e != f {
            out.push(mismatch(what, format_args!("{e:#x}"), format_args!("{f:#x}")));
        }
    }
    out
}

fn digest_mismatches(expected: &Digest, found: &Digest) -> Vec<Mismatch> {
    let parts = [
        ("digest.cpu", expected.cpu, found.cpu),
        ("digest.devices", expected.devices, found.devices),
        ("digest.ram", expected.ram, found.ram),
    ];
    let differing = parts.into_iter().filter(|(_, e, f)| e != f);
    differing.map(|(what, e, f)| mismatch(what, format_args!("{e:016x}"), format_args!("{f:016x}"))).collect()
}

impl<S: EntrySource, O: OutputSink> Replay<S, O> {
    /// Answers from `source`. `disks` get every completed write, and serve the reads that the log does not carry.
    pub fn new(source: S, outputs: O, disks: Box<dyn ReplayDisks>) -> Self {
        Self::resume(source, outputs, disks, Progress::default())
    }

    /// Goes on from where a replay of the same log was.
    pub fn resume(source: S, outputs: O, disks: Box<dyn ReplayDisks>, progress: Progress) -> Self {
        Self { source, outputs, disks, progress, digest_here: false, sought: None, failed: None }
    }

    /// How far it has come.
    pub fn progress(&self) -> &Progress {
        &self.progress
    }

    /// The images.
    pub fn disks(&mut self) -> &mut dyn ReplayDisks {
        self.disks.as_mut()
    }

    /// The source.
    pub fn source(&mut self) -> &mut S {
        &mut self.source
    }

    /// Where the outputs go.
    pub fn outputs(&mut self) -> &mut O {
        &mut self.outputs
    }

    /// Outputs so far.
    pub fn tally(&self) -> &OutputTally {
        &self.progress.tally
    }

    /// Entries agreed with so far.
    pub fn entries(&self) -> u64 {
        self.progress.entries
    }

    /// What a world needs to go on here.
    pub fn into_live(self) -> Handover<O> {
        let (requests, unflushed) = self.progress.requests.into_lists();
        Handover {
            requests,
            unflushed,
            outputs: self.progress.tally.count(),
            numbers: self.progress.numbers,
            serial_in_flight: self.progress.serial_in_flight,
            sink: self.outputs,
            disks: self.disks,
        }
    }

    /// Judges what [`Machine::run`] returned: a run ended as it should only if the machine is at the end entry's
    /// position with its digest and its outputs, or at the last whole entry of a log without one.
    ///
    /// # Errors
    /// The outcome itself if it was an error other than [`Stop::EndOfLog`], or a [`Diverged`].
    pub fn conclude(
        &mut self,
        machine: &mut Machine,
        outcome: Result<Pause, RunError>,
    ) -> Result<Conclusion, RunError> {
        let reason = match outcome {
            Ok(pause) => EndReason::Guest(pause),
            Err(RunError::World(Stop::EndOfLog)) => EndReason::Stopped,
            Err(e) => return Err(e),
        };
        let at = machine.at();
        loop {
            match self.source.peek()? {
                Lookahead::Entry(entry) => {
                    let entry = entry.clone();
                    let mut mismatches = position_mismatches(entry.at, at);
                    match &entry.body {
                        Body::End { reason: expected, digest, outputs } => {
                            if *expected != reason {
                                mismatches.push(mismatch("end", expected, reason));
                            }
                            mismatches.extend(digest_mismatches(digest, &machine.digest()?));
                            mismatches.extend(output_mismatches(outputs, &self.progress.tally.summary()));
                        }
                        other => {
                            mismatches.insert(0, mismatch("event", other, format_args!("end: {reason}")))
                        }
                    }
                    if !mismatches.is_empty() {
                        return Err(self.diverged(at, Some(&entry), mismatches).into());
                    }
                    self.agree(&entry);
                    self.source.peek()?; // anything behind the end is refused
                    return Ok(Conclusion::Complete { reason });
                }
                Lookahead::UpTo(limit) if order(at, limit).is_lt() => {
                    let found = format_args!("end: {reason}").to_string();
                    let expected = format!("nothing before {} {}", limit.position, limit.time);
                    return Err(self.diverged(at, None, vec![mismatch("event", expected, found)]).into());
                }
                Lookahead::UpTo(_) => self.source.wait()?,
                Lookahead::Ended => return Ok(Conclusion::Ended),
                Lookahead::Cut { entries, leftover } => return Ok(Conclusion::Cut { entries, leftover }),
            }
        }
    }

    /// The stop that says what differs, beside the entry that it differs from.
    fn diverged(&self, at: At, entry: Option<&Entry>, mismatches: Vec<Mismatch>) -> Stop {
        Stop::Diverged(Box::new(Diverged {
            at,
            entry: self.progress.entries,
            expected: entry.map_or_else(|| "no entry here".into(), Entry::to_string),
            mismatches,
            agreed: self.progress.agreed.words().collect(),
        }))
    }

    /// The machine did as this entry says.
    fn agree(&mut self, entry: &Entry) {
        self.source.advance();
        self.progress.agreed.add(self.progress.entries, entry);
        self.progress.entries += 1;
    }

    /// Where the machine is, seen from a limit.
    fn against(&self, at: At, limit: At) -> Ordering {
        let order = order(at, limit);
        if order.is_gt() && at.position.count <= self.progress.answered { Ordering::Equal } else { order }
    }

    /// The machine came past a limit that the other side has not passed.
    fn beyond(&self, at: At, limit: At) -> Stop {
        self.diverged(at, None, position_mismatches(limit, at))
    }

    /// The input that an entry here brings, and what it means for the disks.
    fn take(&mut self, at: At, entry: &Entry) -> Result<Input, Stop> {
        let input = match &entry.body {
            Body::Input { input, number } => {
                self.progress.arrived(input, *number);
                if let Input::DiskDone { disk, tag, status, data } = input {
                    let (disk, tag, status, length) = (*disk, *tag, *status, data.len() as u64);
                    self.complete(at, entry, Completion { disk, tag, status, length, check: None })?;
                }
                input.clone()
            }
            Body::ReRead { disk, tag, status, length, check } => {
                self.progress.last_number = None;
                let (disk, tag, status, length) = (*disk, *tag, *status, u64::from(*length));
                let done = Completion { disk, tag, status, length, check: Some(*check) };
                let data = self.complete(at, entry, done)?;
                Input::DiskDone { disk, tag, status, data }
            }
            _ => return Err(Stop::EndOfLog),
        };
        self.agree(entry);
        Ok(input)
    }

    fn complete(&mut self, at: At, entry: &Entry, done: Completion) -> Result<Vec<u8>, Stop> {
        self.progress.requests.complete(self.disks.as_mut(), &done).map_err(|trouble| match trouble {
            Trouble::Host(e) => Stop::Host(Box::new(e)),
            Trouble::Differs(mismatch) => self.diverged(at, Some(entry), vec![mismatch]),
        })
    }
}

fn output_mismatches(expected: &OutputSummary, found: &OutputSummary) -> Vec<Mismatch> {
    let mut out = Vec::new();
    if expected.count != found.count {
        out.push(mismatch("outputs", expected.count, found.count));
    }
    if expected.hash != found.hash {
        out.push(mismatch(
            "outputs.hash",
            format_args!("{:016x}", expected.hash),
            format_args!("{:016x}", found.hash),
        ));
    }
    out
}

impl<S: EntrySource, O: OutputSink> World for Replay<S, O> {
    fn next_stop(&mut self, at: At) -> StopAt {
        // An entry or a limit at this count and later in time: the machine is halted, and `idle` takes it there. A
        // stop at this very count would keep it from noticing that it is. But what is due right here (after a
        // digest) is for the next poll.
        let mut landing = None;
        let count = match self.source.peek() {
            _ if self.failed.is_some() => 0,
            Ok(Lookahead::Entry(entry @ Entry { at: there, body })) => {
                let count = there.position.count;
                match by_itself(body) {
                    _ if matches!(body, Body::Landing { .. }) && at.position.count <= count => {
                        landing = entry.landing();
                        count
                    }
                    true => count.saturating_add(1).max(at.position.count + 1),
                    false if order(at, *there).is_lt() => count.max(at.position.count + 1),
                    false => 0,
                }
            }
            Ok(Lookahead::UpTo(limit)) if order(at, limit).is_ge() => 0,
            Ok(Lookahead::UpTo(limit)) => limit.position.count.max(at.position.count + 1),
            Ok(Lookahead::Ended | Lookahead::Cut { .. }) => 0,
            Err(stop) => {
                self.failed = Some(stop);
                0
            }
        };
        self.sought = landing.map(|_| at);
        StopAt { count, landing, ..StopAt::NEVER }
    }

    fn poll(&mut self, at: At) -> Result<Option<Input>, Stop> {
        self.digest_here = false;
        loop {
            if let Some(stop) = self.failed.take() {
                return Err(stop);
            }
            match self.source.peek()? {
                Lookahead::Entry(entry) => {
                    let there = entry.at;
                    if at.position.count < there.position.count && at.time <= there.time
                        || at.position.count == there.position.count && at.time < there.time
                    {
                        return Ok(None);
                    }
                    if by_itself(&entry.body) && order(at, there).is_eq() {
                        return Ok(None);
                    }
                    // The machine looks for the boundary itself, or is told before it polls again.
                    if matches!(entry.body, Body::Landing { .. }) && order(at, there).is_eq()
                        || matches!(entry.body, Body::Wake(_)) && at == there
                    {
                        return Ok(None);
                    }
                    let entry = entry.clone();
                    let mismatches = position_mismatches(there, at);
                    if !mismatches.is_empty() {
                        return Err(self.diverged(at, Some(&entry), mismatches));
                    }
                    return match entry.body {
                        Body::Input { .. } | Body::ReRead { .. } => self.take(at, &entry).map(Some),
                        Body::Digest(_) => {
                            self.digest_here = true;
                            Ok(None)
                        }
                        _ => Err(Stop::EndOfLog),
                    };
                }
                Lookahead::UpTo(limit) => match self.against(at, limit) {
                    Ordering::Less => return Ok(None),
                    Ordering::Equal => self.source.wait()?,
                    Ordering::Greater => return Err(self.beyond(at, limit)),
                },
                Lookahead::Ended | Lookahead::Cut { .. } => return Err(Stop::EndOfLog),
            }
        }
    }

    fn input_number(&self) -> Option<u64> {
        self.progress.last_number
    }

    fn idle(&mut self, at: At, until: VirtTime) -> Result<VirtTime, Stop> {
        loop {
            let (there, limit, waits) = match self.source.peek()? {
                Lookahead::Entry(entry) => {
                    // A guest that sleeps where a landing was looked for in vain is not at it.
                    let in_vain = matches!(entry.body, Body::Landing { .. }) && self.sought == Some(at);
                    (entry.at, false, !by_itself(&entry.body) && !in_vain)
                }
                Lookahead::UpTo(limit) => (limit, true, false),
                Lookahead::Ended | Lookahead::Cut { .. } => return Err(Stop::EndOfLog),
            };
            if limit && self.against(at, there).is_eq() {
                self.source.wait()?;
                continue;
            }
            match at.position.count.cmp(&there.position.count) {
                // The other side came on from here: by the deadline, since nothing else is noted.
                Ordering::Less if until <= there.time => return Ok(until),
                Ordering::Equal if until <= there.time => return Ok(until),
                Ordering::Equal if at.time < there.time => return Ok(there.time),
                // The guest went to sleep right where the next poll brings something.
                Ordering::Equal if at.time == there.time && waits => return Ok(at.time),
                _ if limit => return Err(self.beyond(At { time: until, ..at }, there)),
                _ => {
                    let expected = match self.source.peek()? {
                        Lookahead::Entry(entry) => Some(entry.clone()),
                        _ => None,
                    };
                    let mut mismatches = position_mismatches(there, at);
                    mismatches.push(mismatch("idle until", format_args!("at most {}", there.time), until));
                    return Err(self.diverged(at, expected.as_ref(), mismatches));
                }
            }
        }
    }

    fn now(&mut self, at: At) -> Result<VirtTime, Stop> {
        loop {
            match self.source.peek()? {
                Lookahead::Entry(entry) => {
                    let (Entry { at: there, body }, here) = (entry, at.position);
                    let as_noted = there.position.count == here.count && there.position.rip == here.rip;
                    if *body == Body::Time && as_noted && there.time >= at.time {
                        let entry = entry.clone();
                        self.agree(&entry);
                        self.progress.answered = here.count.saturating_add(1);
                        return Ok(entry.at.time);
                    }
                    let entry = entry.clone();
                    let position = Position { rcx: entry.at.position.rcx, ..here };
                    let mut mismatches = position_mismatches(entry.at, At { position, time: at.time });
                    if entry.body == Body::Time {
                        mismatches.retain(|m| m.what != "time" || entry.at.time < at.time);
                    } else {
                        mismatches.push(mismatch("event", &entry.body, "the guest asks what time it is"));
                    }
                    return Err(self.diverged(at, Some(&entry), mismatches));
                }
                Lookahead::UpTo(limit) if at.position.count < limit.position.count => {
                    return Err(self.beyond(at, limit));
                }
                Lookahead::UpTo(limit)
                    if at.position.count <= self.progress.answered.max(limit.position.count) =>
                {
                    self.source.wait()?;
                }
                Lookahead::UpTo(limit) => return Err(self.beyond(at, limit)),
                // An instruction that asks twice is finished, in no time, before the run ends.
                Lookahead::Ended | Lookahead::Cut { .. } => {
                    self.failed.get_or_insert(Stop::EndOfLog);
                    return Ok(at.time);
                }
            }
        }
    }

    fn wake(&mut self, at: At, _deadline: VirtTime) -> Result<Option<VirtTime>, Stop> {
        match self.source.peek()? {
            Lookahead::Entry(Entry { at: there, body: Body::Wake(time) }) if *there == at => {
                let (time, entry) = (*time, Entry { at, body: Body::Wake(*time) });
                self.agree(&entry);
                Ok(Some(time))
            }
            // A machine that comes past an entry is found out when it polls.
            _ => Ok(None),
        }
    }

    fn landed(&mut self, at: At, landing: Landing) {
        // A machine that is at such a boundary for a reason of its own says so too.
        let here = match self.source.peek() {
            Ok(Lookahead::Entry(entry)) if entry.landing().is_some_and(|there| there.is_where(&landing)) => {
                entry.clone()
            }
            _ => return,
        };
        if here.at == at {
            self.agree(&here);
        } else {
            let mismatches = position_mismatches(here.at, at);
            self.failed = Some(self.diverged(at, Some(&here), mismatches));
        }
    }

    fn missed(&mut self, at: At, landing: Landing, steps: u64) -> Stop {
        let entry = match self.source.peek() {
            Ok(Lookahead::Entry(entry)) => Some(entry.clone()),
            _ => None,
        };
        let mut mismatches = position_mismatches(At { position: landing.position, ..at }, at);
        mismatches.push(mismatch("steps to a landing", format_args!("at most {}", landing.within), steps));
        self.diverged(at, entry.as_ref(), mismatches)
    }

    fn answer(&mut self, at: At, query: Query) -> Result<u64, Stop> {
        loop {
            let entry = match self.source.peek()? {
                Lookahead::Entry(entry) => entry.clone(),
                Lookahead::UpTo(limit) if order(at, limit).is_eq() => {
                    self.source.wait()?;
                    continue;
                }
                Lookahead::UpTo(limit) => return Err(self.beyond(at, limit)),
                Lookahead::Ended | Lookahead::Cut { .. } => return Err(Stop::EndOfLog),
            };
            let mut mismatches = position_mismatches(entry.at, at);
            return match entry.body {
                Body::Answer(value) if mismatches.is_empty() => {
                    self.agree(&entry);
                    self.progress.answered = at.position.count.saturating_add(1);
                    Ok(value)
                }
                _ => {
                    mismatches.push(mismatch("event", &entry.body, format_args!("the vCPU asks {query:?}")));
                    Err(self.diverged(at, Some(&entry), mismatches))
                }
            };
        }
    }

    fn emit(&mut self, at: At, output: Output) {
        let ordinal = self.progress.emitted(&output);
        if let Err(stop) = self.outputs.output(ordinal, at, &output) {
            self.failed.get_or_insert(stop);
        }
    }

    fn digest_due(&self, _at: At) -> bool {
        self.digest_here
    }

    fn digest(&mut self, at: At, digest: Digest) -> Result<(), Stop> {
        self.digest_here = false;
        let Lookahead::Entry(entry) = self.source.peek()? else { return Ok(()) };
        let entry = entry.clone();
        let Body::Digest(expected) = &entry.body else { return Ok(()) };
        let mismatches = digest_mismatches(expected, &digest);
        if mismatches.is_empty() {
            self.agree(&entry);
            return Ok(());
        }
        Err(self.diverged(at, Some(&entry), mismatches))
    }
}
