//! The proof, from the ledgers of all sides.
//!
//! Not responsible for: reading files, telling people (the command line's).
//!
//! What is proved, of every output that a ledger says left:
//! * its side led, in the epoch that the receiver was told, and no other side led in that epoch;
//! * its machine had made it, and what left is what was made;
//! * every member in sync had acknowledged a mark that covers it: as the leader heard it, and as the member's own ledger says it;
//! * it goes on where the outputs of the epochs before ended;
//! * a side that took the lead had acknowledged everything that the one before let leave.
//!
//! And of all ledgers together: digests of ranges that overlap agree.

use super::agreement::{Agreement, Beside};
use super::line::{Heard, Hex, Line, Stream};
use std::collections::BTreeMap;

/// Outputs that are kept for a client that does not fetch them; what is skipped had so many behind it.
const KEPT: u64 = crate::protocol::RING_CAPACITY as u64;

/// One side's ledger, in hand.
pub struct Told {
    /// What to call it.
    pub name: String,
    /// Its lines.
    pub lines: Vec<Line>,
}

/// Something that must not be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Violation {
    /// Which ledger.
    pub ledger: String,
    /// The line, from 1; 0 for the ledger as a whole.
    pub line: u64,
    /// What is wrong.
    pub what: String,
}

/// What the ledgers prove.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Verdict {
    /// Console bytes that left. What left twice counts twice.
    pub outputs: u64,
    /// Frames that left.
    pub frames: u64,
    /// Epochs in which a side led, in order.
    pub epochs: Vec<u64>,
    /// Outputs that left with a digest that other lines prove.
    pub matched: u64,
    /// Outputs whose acknowledgement only their leader's ledger has: the member's is not here, or is cut off before.
    pub unproved: u64,
    /// Outputs that a client says it had before a failover, and that the ledger of the side that died is cut off before.
    pub tail: u64,
    /// Outputs that nobody fetched in time.
    pub skipped: u64,
    /// Lines that were not written.
    pub missing: u64,
    /// Ledgers without an end.
    pub cut: Vec<String>,
    /// What must not be, and is.
    pub violations: Vec<Violation>,
}

impl Verdict {
    /// Whether nothing is wrong and nothing rests on one side's word.
    pub fn is_proved(&self) -> bool {
        self.violations.is_empty() && self.unproved == 0 && self.missing == 0
    }
}

/// What a member's ledger says that it acknowledged to one leader: of each mark the sequence and what it covers.
#[derive(Default)]
struct Acks(Vec<(u64, u64, u64)>);

impl Acks {
    fn of(&self, sequence: u64, stream: Stream) -> Option<u64> {
        let place = self.0.binary_search_by_key(&sequence, |mark| mark.0).ok()?;
        Some(covers(self.0[place], stream))
    }

    fn last(&self) -> (u64, u64, u64) {
        self.0.last().copied().unwrap_or_default()
    }
}

fn covers((_, outputs, frames): (u64, u64, u64), stream: Stream) -> u64 {
    match stream {
        Stream::Console => outputs,
        Stream::Frames => frames,
    }
}

/// What matters of one ledger beyond its lines.
#[derive(Default)]
struct Side {
    member: Option<Hex>,
    /// By leader.
    acks: BTreeMap<Hex, Acks>,
    /// It says all: it has an end, and no line is missing.
    whole: bool,
    ended: bool,
    /// Lines are missing.
    gaps: bool,
    /// The output behind the last one made.
    made: BTreeMap<Stream, u64>,
    /// Whom it followed last.
    leader: Option<Hex>,
    /// The output behind the last that left, and how many before it are not compared yet.
    open: BTreeMap<Stream, (u64, u64)>,
}

/// A step on the way of the outputs, in the order in which receivers were told.
struct Step {
    ledger: usize,
    line: u64,
    epoch: u64,
    stream: Stream,
    first: u64,
    next: u64,
    kind: Kind,
    /// The outputs of the stream made before this line.
    emitted: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Left,
    /// Nobody fetched them.
    Skipped,
    /// The receiver is new, has everything below `first`, and gets the rest from `next` on.
    Attached,
}

/// A side that followed took the lead.
struct TakeOver {
    ledger: usize,
    line: u64,
    from: Hex,
    acked: (u64, u64, u64),
}

struct Proof<'a> {
    ledgers: &'a [Told],
    sides: Vec<Side>,
    verdict: Verdict,
    agreement: Agreement,
    steps: Vec<Step>,
    take_overs: Vec<TakeOver>,
    /// Which ledger leads in which epoch.
    leaders: BTreeMap<u64, usize>,
}

/// Proves what can be proved from the ledgers of one VM's run.
pub fn prove(ledgers: &[Told]) -> Verdict {
    let mut proof = Proof {
        ledgers,
        sides: ledgers.iter().map(|_| Side::default()).collect(),
        verdict: Verdict::default(),
        agreement: Agreement::default(),
        steps: Vec::new(),
        take_overs: Vec::new(),
        leaders: BTreeMap::new(),
    };
    proof.identify();
    (0..ledgers.len()).for_each(|ledger| proof.collect(ledger));
    (0..ledgers.len()).for_each(|ledger| proof.compare_made(ledger));
    (0..ledgers.len()).for_each(|ledger| proof.walk(ledger));
    proof.follow_the_outputs();
    proof.check_take_overs();
    let Proof { mut verdict, leaders, .. } = proof;
    verdict.epochs = leaders.into_keys().collect();
    verdict.violations.sort_by(|a, b| (&a.ledger, a.line).cmp(&(&b.ledger, b.line)));
    verdict
}

impl<'a> Proof<'a> {
    fn wrong(&mut self, ledger: usize, line: u64, what: String) {
        self.verdict.violations.push(Violation { ledger: self.ledgers[ledger].name.clone(), line, what });
    }

    fn lines(&self, ledger: usize) -> impl Iterator<Item = (u64, &'a Line)> + use<'a> {
        (1..).zip(&self.ledgers[ledger].lines)
    }

    fn name(&self, member: Hex) -> String {
        let ledger = self.sides.iter().position(|side| side.member == Some(member));
        ledger.map_or_else(|| member.to_string(), |ledger| self.ledgers[ledger].name.clone())
    }

    /// All are of one VM, and no two of one member.
    fn identify(&mut self) {
        let mut first: Option<(&str, Hex)> = None;
        for ledger in 0..self.ledgers.len() {
            let Some(Line::Opened { vm, member, machine, .. }) = self.ledgers[ledger].lines.first() else {
                self.wrong(ledger, 1, "it does not say whose it is".into());
                continue;
            };
            let (of_vm, of_machine) = *first.get_or_insert((vm, *machine));
            if (of_vm, of_machine) != (vm.as_str(), *machine) {
                self.wrong(
                    ledger,
                    1,
                    format!("it is of VM '{vm}', machine {machine}; the first one is of another"),
                );
            }
            if self.sides.iter().any(|side| side.member == Some(*member)) {
                self.wrong(ledger, 1, format!("member {member} has another ledger here"));
            }
            self.sides[ledger].member = Some(*member);
        }
    }

    /// What other ledgers are compared with: acknowledgements, who led when, what was made.
    fn collect(&mut self, ledger: usize) {
        let (mut leader, mut missing) = (None, 0);
        for (number, line) in self.lines(ledger) {
            match line {
                Line::Follows { leader: of, .. } => {
                    leader = Some(*of);
                    self.sides[ledger].leader = leader;
                }
                Line::Acked { sequence, outputs, frames, .. } => {
                    let Some(leader) = leader else {
                        self.wrong(ledger, number, "an acknowledgement to nobody".into());
                        continue;
                    };
                    let acks = self.sides[ledger].acks.entry(leader).or_default();
                    let (latest, mark) = (acks.last(), (*sequence, *outputs, *frames));
                    if !acks.0.is_empty() && (mark.0 <= latest.0 || mark.1 < latest.1 || mark.2 < latest.2) {
                        self.wrong(
                            ledger,
                            number,
                            format!("mark {sequence} does not come after the one before"),
                        );
                        continue;
                    }
                    acks.0.push(mark);
                }
                Line::Leads { epoch, .. } => {
                    if let Some(from) = leader.take() {
                        let acked = self.sides[ledger].acks.get(&from).map(Acks::last).unwrap_or_default();
                        self.take_overs.push(TakeOver { ledger, line: number, from, acked });
                    }
                    if let Some(other) = self.leaders.insert(*epoch, ledger).filter(|other| *other != ledger)
                    {
                        let other = &self.ledgers[other].name;
                        let what = format!("it leads in epoch {epoch}, and so does {other}");
                        self.wrong(ledger, number, what);
                    }
                }
                Line::Made { stream, first, next, .. } => {
                    let made = self.sides[ledger].made.insert(*stream, *next);
                    if next <= first || made.is_some_and(|made| made != *first) && missing == 0 {
                        let what = format!("{stream} {first}..{next} do not follow what was made before");
                        self.wrong(ledger, number, what);
                    }
                }
                Line::Missing { lines } => missing += lines,
                Line::Opened { .. } | Line::Ended => {}
                Line::Attached { .. } | Line::Skipped { .. } | Line::Left { .. } => {}
            }
        }
        let ended = self.ledgers[ledger].lines.last() == Some(&Line::Ended);
        if !ended {
            self.verdict.cut.push(self.ledgers[ledger].name.clone());
        }
        self.verdict.missing += missing;
        let side = &mut self.sides[ledger];
        (side.ended, side.gaps, side.whole) = (ended, missing > 0, ended && missing == 0);
    }

    /// All machines made the same, as far as their ways are one: whoever takes over goes on from what it has in hand, and what
    /// the others made beyond that nobody has seen.
    fn compare_made(&mut self, ledger: usize) {
        let Side { member, leader, .. } = self.sides[ledger];
        let ends = |t: &&TakeOver| Some(t.from) == member || Some(t.from) == leader && t.ledger != ledger;
        let acked: Vec<_> = self.take_overs.iter().filter(ends).map(|t| t.acked).collect();
        for (line, text) in self.lines(ledger) {
            let Line::Made { stream, first, next, digest } = text else { continue };
            if acked.iter().any(|acked| *next > covers(*acked, *stream)) {
                continue;
            }
            if self.agreement.range(*stream, *first, *next, digest.0) == Beside::Contradicts {
                self.wrong(ledger, line, format!("{stream} {first}..{next} are not what another side made"));
            }
        }
    }

    /// What one ledger says must be right by itself, and beside the acknowledgements of the others.
    fn walk(&mut self, ledger: usize) {
        let mut leads: Option<(u64, &[Hex])> = None;
        let (mut made, mut latest) = (BTreeMap::<Stream, u64>::new(), 0);
        for (line, text) in self.lines(ledger) {
            let step = |kind, epoch, stream, first, next| {
                let emitted = made.get(&stream).copied().unwrap_or(0);
                Step { ledger, line, epoch, stream, first, next, kind, emitted }
            };
            match text {
                Line::Follows { epoch, .. } => (leads, latest) = (None, latest.max(*epoch)),
                Line::Leads { epoch, members } => {
                    if *epoch < latest {
                        self.wrong(ledger, line, format!("epoch {epoch} comes after epoch {latest}"));
                    }
                    (leads, latest) = (Some((*epoch, members.as_slice())), *epoch);
                }
                Line::Made { stream, next, .. } => {
                    made.insert(*stream, *next);
                }
                Line::Attached { have, from } => {
                    let have = have.unwrap_or(0);
                    self.steps.push(step(Kind::Attached, latest, Stream::Console, have, *from));
                }
                Line::Skipped { stream, first, next } => {
                    let step = step(Kind::Skipped, latest, *stream, *first, *next);
                    if step.emitted < next.saturating_add(KEPT) {
                        self.wrong(
                            ledger,
                            line,
                            format!("{stream} {first}..{next} are skipped, but were still kept"),
                        );
                    }
                    self.verdict.skipped += next.saturating_sub(*first);
                    self.steps.push(step);
                }
                Line::Left { epoch, stream, first, next, digest, heard, .. } => {
                    let step = step(Kind::Left, *epoch, *stream, *first, *next);
                    self.check_left(&step, *digest, leads, heard);
                    self.steps.push(step);
                }
                Line::Opened { .. } | Line::Acked { .. } | Line::Missing { .. } | Line::Ended => {}
            }
        }
    }

    /// Outputs left: they were made, and all members in sync had acknowledged them.
    fn check_left(&mut self, step: &Step, digest: Hex, leads: Option<(u64, &[Hex])>, heard: &[Heard]) {
        let Step { ledger, line, epoch, stream, first, next, emitted, .. } = *step;
        let range = format!("{stream} {first}..{next}");
        let Some((led, members)) = leads else {
            return self.wrong(ledger, line, format!("{range} left a side that does not lead"));
        };
        if led != epoch || next <= first {
            self.wrong(
                ledger,
                line,
                format!("{range} left as of epoch {epoch}, but the side leads in epoch {led}"),
            );
        }
        if next > emitted && !self.sides[ledger].gaps {
            self.wrong(ledger, line, format!("{range} left, but {emitted} were made"));
        }
        let count = next.saturating_sub(first);
        match stream {
            Stream::Console => self.verdict.outputs += count,
            Stream::Frames => self.verdict.frames += count,
        }
        self.compare(step, digest, count);
        let mut unproved = false;
        for member in members {
            let Some(heard) = heard.iter().find(|h| h.member == *member && h.covers >= next) else {
                let who = self.name(*member);
                self.wrong(ledger, line, format!("{range} left without the acknowledgement of {who}"));
                continue;
            };
            unproved |= !self.check_heard(step, heard);
        }
        self.verdict.unproved += if unproved { count } else { 0 };
    }

    /// What left is what was made. A piece of it is compared once those behind it come to where a digest is known.
    fn compare(&mut self, step: &Step, digest: Hex, count: u64) {
        let Step { ledger, line, stream, first, next, .. } = *step;
        let (behind, open) = self.sides[ledger].open.remove(&stream).unwrap_or_default();
        let open = count + if behind == first { open } else { 0 };
        match self.agreement.range(stream, first, next, digest.0) {
            Beside::News => {
                self.sides[ledger].open.insert(stream, (next, open));
            }
            Beside::Agrees => self.verdict.matched += open,
            Beside::Contradicts => {
                self.wrong(ledger, line, format!("{stream} {first}..{next} are not what was made"));
            }
        }
    }

    /// Whether a member's own ledger says that it acknowledged what its leader heard. Says so where it says otherwise.
    fn check_heard(&mut self, step: &Step, heard: &Heard) -> bool {
        let Some(side) = self.sides.iter().find(|side| side.member == Some(heard.member)) else {
            return false;
        };
        let Some(leader) = self.sides[step.ledger].member else { return false };
        let acks = side.acks.get(&leader);
        let found = acks.and_then(|acks| acks.of(heard.sequence, step.stream));
        let later = acks.map_or(0, |acks| acks.last().0) > heard.sequence;
        let complete = side.whole || later && !side.gaps;
        match found {
            Some(covers) if covers == heard.covers => return true,
            Some(_) => {}
            None if !complete => return false,
            None => {}
        }
        let (who, mark, next) = (self.name(heard.member), heard.sequence, step.next);
        let what = match found {
            Some(covers) => {
                format!("mark {mark} covers {covers} outputs as {who} says, not {}", heard.covers)
            }
            None => format!(
                "{who} says that it never acknowledged mark {mark}, which lets leave what is below {next}"
            ),
        };
        self.wrong(step.ledger, step.line, what);
        true
    }

    /// A side lets leave one output after the other, and all sides together leave none out.
    fn follow_the_outputs(&mut self) {
        let mut steps = std::mem::take(&mut self.steps);
        let mut cursors: BTreeMap<(usize, Stream), u64> = BTreeMap::new();
        for step in &steps {
            let cursor = cursors.insert((step.ledger, step.stream), step.next);
            if step.kind == Kind::Left && cursor.is_some_and(|cursor| step.first > cursor) {
                let (stream, first) = (step.stream, step.first);
                self.wrong(step.ledger, step.line, format!("{stream} go on with {first}, behind a gap"));
            }
        }
        steps.sort_by_key(|step| step.first);
        let mut reached: BTreeMap<Stream, u64> = BTreeMap::new();
        // What a client says that it has comes from somewhere; so it is looked at when all that left is known.
        let (told, went): (Vec<&Step>, Vec<&Step>) =
            steps.iter().partition(|step| step.kind == Kind::Attached);
        for step in went {
            let reach = reached.entry(step.stream).or_default();
            let (from, to) = (*reach, step.first);
            *reach = (*reach).max(step.next);
            if to > from {
                self.hole(step, from, to, &told);
            }
        }
        for step in &told {
            let reach = reached.entry(step.stream).or_default();
            let (from, to) = (*reach, step.first);
            *reach = (*reach).max(to);
            if to > from {
                self.hole(step, from, to, &told);
            }
        }
        self.steps = steps;
    }

    /// No ledger says that outputs `from..to` left, and yet there are some behind them.
    fn hole(&mut self, step: &Step, from: u64, to: u64, told: &[&Step]) {
        let Step { ledger, line, stream, epoch, .. } = *step;
        // What is skipped was pushed out by as much as is kept.
        let pushed_out = |t: &&&Step| t.next >= to && t.emitted >= to.saturating_add(KEPT);
        let known = stream == Stream::Frames || told.iter().any(|t| t.first >= to);
        if told.iter().any(|t| pushed_out(&t)) {
            self.verdict.skipped += to - from;
        } else if known && self.died_before(epoch) {
            self.verdict.tail += to - from;
        } else if self.verdict.missing > 0 {
            self.verdict.unproved += to - from;
        } else {
            self.wrong(
                ledger,
                line,
                format!("{stream} {from}..{to} never left, but this goes on behind them"),
            );
        }
    }

    /// Whether a side that led before this epoch has no ledger here, or one without an end: its last lines died with it.
    fn died_before(&self, epoch: u64) -> bool {
        let whole = |epoch| self.leaders.get(&epoch).is_some_and(|ledger| self.sides[*ledger].ended);
        let first = self.leaders.keys().next().copied().unwrap_or(epoch);
        let unknown = self
            .leaders
            .get(&first)
            .is_some_and(|ledger| self.take_overs.iter().any(|t| t.ledger == *ledger));
        unknown || (first..epoch).any(|epoch| !whole(epoch))
    }

    /// Who took the lead had everything in hand that had left, and made it.
    fn check_take_overs(&mut self) {
        for TakeOver { ledger, line, from, acked } in std::mem::take(&mut self.take_overs) {
            let survivor = self.ledgers[ledger].name.clone();
            let before = self.sides.iter().position(|side| side.member == Some(from));
            let mut early = Vec::new();
            for step in &self.steps {
                let bound = covers(acked, step.stream);
                if step.kind == Kind::Left && Some(step.ledger) == before && step.next > bound {
                    let range = format!("{} {}..{}", step.stream, step.first, step.next);
                    early.push((
                        step.line,
                        format!("{range} left, but {survivor} took over with {bound} in hand"),
                    ));
                }
            }
            early.into_iter().for_each(|(at, what)| self.wrong(before.unwrap_or(ledger), at, what));
            for stream in [Stream::Console, Stream::Frames] {
                let (bound, side) = (covers(acked, stream), &self.sides[ledger]);
                let made = side.made.get(&stream).copied().unwrap_or(0);
                if side.whole && made < bound {
                    self.wrong(
                        ledger,
                        line,
                        format!("it took over with {bound} {stream} outputs in hand and made {made}"),
                    );
                }
            }
        }
    }
}
