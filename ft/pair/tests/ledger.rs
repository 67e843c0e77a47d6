//! Pairs that write ledgers, without any machine: a seeded script makes outputs, marks and faults, and the proof must hold; with
//! any one thing wrong in a ledger it must fail, and say where.

#![allow(clippy::unwrap_used)] // a test that cannot do its work has failed

use gemel_pair::ledger::{Heard, Hex, Line, Point, Stream, Tap, Told, Verdict, frame_item, prove};
use gemel_pair::protocol::Channel;

const A: Hex = Hex(0xa);
const B: Hex = Hex(0xb);

struct Dice(u64);

impl Dice {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % n
    }
}

/// The guest's console: the byte of an ordinal.
fn byte(ordinal: u64) -> u8 {
    ((ordinal * ordinal) >> 3) as u8
}

/// The guest's frames.
fn frame(ordinal: u64) -> u64 {
    frame_item(0, &ordinal.to_le_bytes())
}

/// A side's machine and its witness.
struct Side {
    tap: Tap,
    outputs: u64,
    frames: u64,
}

impl Side {
    fn new(member: Hex) -> Self {
        Self { tap: Tap::new("vm", member, 1), outputs: 0, frames: 0 }
    }

    fn run(&mut self, outputs: u64, frames: u64) {
        while self.outputs < outputs {
            self.tap.byte(Channel::Serial(0), byte(self.outputs));
            self.outputs += 1;
        }
        while self.frames < frames {
            self.tap.frame(frame(self.frames));
            self.frames += 1;
        }
        self.tap.reached(outputs * 100);
    }

    /// Lets outputs leave, in pieces.
    fn leave(&mut self, epoch: u64, shown: &mut (u64, u64), to: (u64, u64), dice: &mut Dice) {
        while shown.0 < to.0 {
            let next = to.0.min(shown.0 + 1 + dice.below(9));
            let bytes: Vec<u8> = (shown.0..next).map(byte).collect();
            self.tap.bytes_leave(epoch, shown.0, Channel::Serial(0), &bytes);
            shown.0 = next;
        }
        while shown.1 < to.1 {
            self.tap.frame_leaves(epoch, shown.1, frame(shown.1));
            shown.1 += 1;
        }
    }
}

/// A pair from power-on; A dies in the middle, B goes on. A's ledger may lose its last lines with it.
fn failover(seed: u64) -> Vec<Told> {
    let mut dice = Dice(seed);
    let (mut a, mut b) = (Side::new(A), Side::new(B));
    a.tap.leads(7, vec![]);
    a.tap.leads(8, vec![B]);
    b.tap.follows(8, A);
    a.tap.attached(None, 0);
    let (mut marks, mut shown, mut open) = (Vec::new(), (0, 0), (0, 0));
    for sequence in 1..20 + dice.below(40) {
        a.run(a.outputs + dice.below(12), a.frames + dice.below(3));
        let (outputs, frames) = (a.outputs, a.frames);
        let point = Point { sequence, count: outputs * 100, outputs, frames };
        a.tap.mark_sent(B, point);
        marks.push(point);
        // B takes some of what is on its way, and acknowledges it; A hears of it later.
        let take = dice.below(marks.len() as u64 + 1) as usize;
        for point in marks.drain(..take) {
            b.tap.mark_taken(point);
            b.tap.acks(point.sequence);
            a.tap.ack_heard(B, point.sequence);
            open = (point.outputs, point.frames);
        }
        b.run(dice.below(open.0 + 1).max(b.outputs), dice.below(open.1 + 1).max(b.frames));
        a.leave(8, &mut shown, open, &mut dice);
    }
    let mut lines = a.tap.take();
    let lost = dice.below(4) as usize;
    lines.truncate(lines.len() - lost);
    // What B took over with: all that it acknowledged.
    b.run(open.0, open.1);
    b.tap.leads(9, vec![]);
    b.tap.attached(Some(shown.0), shown.0);
    for _ in 0..10 {
        b.run(b.outputs + dice.below(20), b.frames + dice.below(3));
        let to = (b.outputs, b.frames);
        b.leave(9, &mut shown, to, &mut dice);
    }
    b.tap.end();
    vec![Told { name: "A".into(), lines }, Told { name: "B".into(), lines: b.tap.take() }]
}

#[test]
fn a_failover_is_proved() {
    let (mut tails, mut matched) = (0, 0);
    for seed in 0..500 {
        let verdict = prove(&failover(seed));
        assert!(verdict.is_proved(), "seed {seed}: {verdict:?}");
        assert_eq!(verdict.epochs, [7, 8, 9]);
        assert_eq!(verdict.cut, ["A"]);
        tails += u64::from(verdict.tail > 0);
        matched += verdict.matched * 100 / (verdict.outputs + verdict.frames);
    }
    assert!(tails > 50 && matched / 500 > 80, "{tails} {matched}");
}

/// The violations, after `change` was made to the ledgers of this seed.
fn after(seed: u64, change: impl FnOnce(&mut Vec<Told>)) -> Verdict {
    let mut ledgers = failover(seed);
    change(&mut ledgers);
    prove(&ledgers)
}

fn places(verdict: &Verdict) -> Vec<(&str, u64)> {
    verdict.violations.iter().map(|v| (v.ledger.as_str(), v.line)).collect()
}

/// The numbers of the lines that a ledger has of a kind.
fn lines_of(told: &Told, kind: impl Fn(&Line) -> bool) -> Vec<u64> {
    (1..).zip(&told.lines).filter(|(_, line)| kind(line)).map(|(number, _)| number).collect()
}

#[test]
fn a_digest_that_is_not_that_of_what_was_made_is_found_at_its_line() {
    for seed in 0..40 {
        for ledger in 0..2 {
            let all = failover(seed);
            let left = lines_of(&all[ledger], |line| matches!(line, Line::Left { .. }));
            let place = left[seed as usize % left.len()];
            let verdict = after(seed, |told| {
                if let Line::Left { digest, .. } = &mut told[ledger].lines[place as usize - 1] {
                    digest.0 ^= 1;
                }
            });
            // A piece in the middle of a range is found where the range ends.
            let name = &all[ledger].name;
            assert!(!verdict.violations.is_empty(), "seed {seed}");
            assert!(verdict.violations.iter().all(|v| v.ledger == *name || v.line >= place), "{verdict:?}");
        }
    }
}

#[test]
fn what_leaves_before_its_acknowledgement_is_found_at_its_line() {
    for seed in 0..40 {
        let left = lines_of(&failover(seed)[0], |line| matches!(line, Line::Left { .. }));
        for (nth, place) in left.into_iter().enumerate() {
            let verdict = after(seed, |told| {
                let Line::Left { heard, next, .. } = &mut told[0].lines[place as usize - 1] else { panic!() };
                match nth % 3 {
                    0 => heard.clear(),
                    1 => heard[0].covers = *next - 1,
                    // The leader says that B acknowledged a mark that B knows nothing of.
                    _ => heard[0] = Heard { sequence: heard[0].sequence * 1000, ..heard[0] },
                }
            });
            assert!(places(&verdict).contains(&("A", place)), "seed {seed} line {place}: {verdict:?}");
        }
    }
}

#[test]
fn an_acknowledgement_that_the_member_does_not_know_is_found_where_it_was_relied_on() {
    for seed in 0..40 {
        let all = failover(seed);
        let relied: Vec<u64> = all[0]
            .lines
            .iter()
            .filter_map(|line| match line {
                Line::Left { heard, .. } => heard.first().map(|h| h.sequence),
                _ => None,
            })
            .collect();
        let sequence = relied[seed as usize % relied.len()];
        let verdict = after(seed, |told| {
            told[1].lines.retain(|line| !matches!(line, Line::Acked { sequence: s, .. } if *s == sequence));
        });
        let found = verdict.violations.iter().filter(|v| v.ledger == "A");
        assert_eq!(found.count(), relied.iter().filter(|s| **s == sequence).count(), "{verdict:?}");
    }
}

#[test]
fn a_survivor_that_goes_on_too_far_ahead_is_found() {
    let console = |line: &Line| matches!(line, Line::Left { stream: Stream::Console, .. });
    for seed in 0..40 {
        let left = lines_of(&failover(seed)[1], console);
        let verdict = after(seed, |told| {
            told[1].lines.remove(left[1] as usize - 1);
        });
        // The next one is where something is missing before it.
        let mut places = places(&verdict);
        places.dedup();
        assert_eq!(places, [("B", left[2] - 1)], "{verdict:?}");
        // With the other's ledger whole, nothing can have been lost with it.
        let verdict = after(seed, |told| {
            let last = told[0].lines.iter().rposition(console);
            told[0].lines.truncate(last.unwrap());
            told[0].lines.push(Line::Ended);
        });
        assert!(verdict.violations.iter().any(|v| v.ledger == "B"), "{verdict:?}");
    }
}

#[test]
fn two_that_lead_in_one_epoch_are_found() {
    let verdict = after(1, |told| {
        for line in &mut told[1].lines {
            match line {
                Line::Leads { epoch, .. } | Line::Left { epoch, .. } => *epoch = 8,
                _ => {}
            }
        }
    });
    let place = lines_of(&failover(1)[1], |line| matches!(line, Line::Leads { .. }))[0];
    assert!(places(&verdict).contains(&("B", place)), "{verdict:?}");
}

#[test]
fn a_late_riser_that_lets_leave_what_the_survivor_never_had_is_found() {
    for seed in 0..40 {
        let mut at = 0;
        let verdict = after(seed, |told| {
            let Some(Line::Left { next, heard, .. }) = told[0]
                .lines
                .last()
                .cloned()
                .filter(|l| matches!(l, Line::Left { stream: Stream::Console, .. }))
            else {
                return;
            };
            let (first, next) = (next, next + 1000);
            let made = Line::Made { stream: Stream::Console, first: 0, next: 0, digest: Hex(0) };
            told[0].lines.push(made);
            let heard = heard.into_iter().map(|h| Heard { covers: next, ..h }).collect();
            told[0].lines.push(Line::Left {
                epoch: 8,
                stream: Stream::Console,
                first,
                next,
                digest: Hex(0),
                at: 0,
                heard,
            });
            at = told[0].lines.len() as u64;
        });
        assert!(at == 0 || places(&verdict).contains(&("A", at)), "{verdict:?}");
    }
}

#[test]
fn without_the_members_ledger_nothing_is_proved_and_nothing_is_wrong() {
    let mut ledgers = failover(3);
    ledgers.pop();
    let verdict = prove(&ledgers);
    assert!(verdict.violations.is_empty() && verdict.unproved > 0 && !verdict.is_proved(), "{verdict:?}");
}

#[test]
fn ledgers_of_different_runs_do_not_go_together() {
    let (mut ledgers, other) = (failover(3), failover(4));
    ledgers.extend(other);
    assert!(!prove(&ledgers).violations.is_empty());
}
