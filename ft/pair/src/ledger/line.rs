//! The lines of a ledger, as text.
//!
//! Not responsible for: what they prove (`proof`), files (`shell`).
//!
//! A line is a check of 16 hexadecimal digits, a space, and a JSON object. The check is xxh3 (64 bits) over the object's text,
//! seeded with the check of the line before: a line that is changed, missing, added or moved does not fit where it
//! stands. It keeps out accidents and careless hands; who computes all checks anew is found out by the other sides' ledgers.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::fmt;
use std::io::{self, BufRead, Read};
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Version of everything in this module.
pub const VERSION: u16 = 1;
/// What the first line's check is seeded with.
const SEED: u64 = u64::from_le_bytes(*b"GMLEDGER");
/// The longest line. It names members, of which there are a few.
const LONGEST: u64 = 1 << 16;
const DIGITS: usize = 16;

/// 64 bits, as hexadecimal digits: many a JSON reader rounds numbers of that size.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hex(pub u64);

impl fmt::Display for Hex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for Hex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Hex {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Hex {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        u64::from_str_radix(&text, 16).map(Self).map_err(de::Error::custom)
    }
}

/// What outputs are counted together.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stream {
    /// Bytes of serial ports and of the debug console.
    Console,
    /// Network frames.
    Frames,
}

impl fmt::Display for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Console => "console",
            Self::Frames => "frames",
        })
    }
}

/// The acknowledgement of one member, as its leader heard it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Heard {
    /// Who acknowledged.
    pub member: Hex,
    /// The mark, by its sequence number on the way to that member.
    pub sequence: u64,
    /// The mark's position (count).
    pub count: u64,
    /// The outputs of this stream before it.
    pub covers: u64,
}

/// A line. Ordinals count the outputs of a stream since power-on; ranges are from `first` to below `next`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", rename_all_fields = "kebab-case")]
pub enum Line {
    /// The first.
    Opened {
        /// [`VERSION`].
        version: u16,
        /// The VM's name.
        vm: String,
        /// Whose ledger this is.
        member: Hex,
        /// [`gemel_machine::MachineSpec::id`].
        machine: Hex,
    },
    /// From here on this side's outputs may leave, in this epoch, each once all these have acknowledged it.
    Leads {
        /// The epoch.
        epoch: u64,
        /// The other members in sync. Nobody: outputs leave as they are made.
        members: Vec<Hex>,
    },
    /// From here on this side follows.
    Follows {
        /// The epoch.
        epoch: u64,
        /// Whom.
        leader: Hex,
    },
    /// This side has in hand, from whom it follows, everything up to a mark, and says so.
    Acked {
        /// The mark, by its sequence number.
        sequence: u64,
        /// The mark's position (count).
        count: u64,
        /// Console bytes before it.
        outputs: u64,
        /// Frames before it.
        frames: u64,
    },
    /// This side's machine emitted these.
    Made {
        /// Of what.
        stream: Stream,
        /// The first.
        first: u64,
        /// The one behind the last.
        next: u64,
        /// Of the range ([`super::Sums`]).
        digest: Hex,
    },
    /// The console's client is new here, and has shown everything below `have`.
    Attached {
        /// Its word; none for one that has seen nothing.
        have: Option<u64>,
        /// The first that it gets.
        from: u64,
    },
    /// These were not sent: nobody fetched them before newer ones took their place.
    Skipped {
        /// Of what.
        stream: Stream,
        /// The first.
        first: u64,
        /// The one behind the last.
        next: u64,
    },
    /// These left.
    Left {
        /// The epoch that their receiver was told.
        epoch: u64,
        /// Of what.
        stream: Stream,
        /// The first.
        first: u64,
        /// The one behind the last.
        next: u64,
        /// Of what left ([`super::Sums`]).
        digest: Hex,
        /// Where the machine stood (count).
        at: u64,
        /// The latest acknowledgement of each member.
        heard: Vec<Heard>,
    },
    /// So many lines were not written, because the file did not take them in time.
    Missing {
        /// How many.
        lines: u64,
    },
    /// The last: the side ended in good order.
    Ended,
}

/// Turns lines into text.
#[derive(Debug)]
pub struct Writer {
    check: u64,
}

impl Default for Writer {
    fn default() -> Self {
        Self { check: SEED }
    }
}

impl Writer {
    /// Appends the next line to `out`.
    pub fn line(&mut self, line: &Line, out: &mut Vec<u8>) {
        // A line has only numbers and names: it can always be written.
        let text = serde_json::to_string(line).unwrap_or_default();
        self.check = xxh3_64_with_seed(text.as_bytes(), self.check);
        out.extend_from_slice(format!("{:016x} {text}\n", self.check).as_bytes());
    }
}

/// A line that is not what was written.
#[derive(Debug, thiserror::Error)]
pub enum Damage {
    /// It was changed, or does not belong here.
    #[error("line {line} is not as it was written: {why}")]
    Line {
        /// Its number, from 1.
        line: u64,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The file cannot be read.
    #[error("line {line} cannot be read: {error}")]
    Host {
        /// Its number, from 1.
        line: u64,
        /// What the host said.
        error: io::Error,
    },
}

/// Reads lines. Ends behind [`Line::Ended`], or where the text is cut off: then the last line was never `Ended`.
pub struct Lines<R> {
    from: R,
    check: u64,
    number: u64,
    ended: bool,
}

impl<R: BufRead> Lines<R> {
    /// Lines of a whole ledger.
    pub fn new(from: R) -> Self {
        Self { from, check: SEED, number: 0, ended: false }
    }

    fn text(&mut self) -> Result<Option<String>, Damage> {
        let mut bytes = Vec::new();
        self.number += 1;
        let line = self.number;
        let read = self.from.by_ref().take(LONGEST).read_until(b'\n', &mut bytes);
        read.map_err(|error| Damage::Host { line, error })?;
        match bytes.pop() {
            Some(b'\n') => {
                String::from_utf8(bytes).map(Some).map_err(|_| Damage::Line { line, why: "it is no text" })
            }
            Some(_) if bytes.len() as u64 + 1 == LONGEST => Err(Damage::Line { line, why: "it is too long" }),
            // Whoever wrote it died at it.
            _ => Ok(None),
        }
    }

    fn next_line(&mut self) -> Result<Option<Line>, Damage> {
        let Some(text) = self.text()? else { return Ok(None) };
        let wrong = |why| Damage::Line { line: self.number, why };
        if self.ended {
            return Err(wrong("it stands behind the end"));
        }
        let (check, json) = text
            .split_at_checked(DIGITS)
            .and_then(|(check, rest)| Some((check, rest.strip_prefix(' ')?)))
            .ok_or_else(|| wrong("it has no check"))?;
        self.check = xxh3_64_with_seed(json.as_bytes(), self.check);
        if check != format!("{:016x}", self.check) {
            return Err(wrong("its check does not fit"));
        }
        let parsed: Line = serde_json::from_str(json).map_err(|_| wrong("it says nothing known"))?;
        match (self.number, &parsed) {
            (1, Line::Opened { version: VERSION, .. }) => {}
            (1, Line::Opened { .. }) => return Err(wrong("another version of gemel wrote it")),
            (1, _) => return Err(wrong("a ledger begins otherwise")),
            (_, Line::Opened { .. }) => return Err(wrong("another ledger begins here")),
            _ => {}
        }
        self.ended = parsed == Line::Ended;
        Ok(Some(parsed))
    }
}

impl<R: BufRead> Iterator for Lines<R> {
    type Item = Result<Line, Damage>;

    fn next(&mut self) -> Option<Self::Item> {
        self.next_line().transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Vec<Line> {
        let (member, machine) = (Hex(7), Hex(u64::MAX));
        let digest = Hex(5);
        let mut lines = vec![
            Line::Opened { version: VERSION, vm: "web".into(), member, machine },
            Line::Leads { epoch: 3, members: vec![Hex(9)] },
            Line::Attached { have: None, from: 0 },
        ];
        for i in 0..20 {
            let (first, next) = (i * 10, (i + 1) * 10);
            lines.push(Line::Made { stream: Stream::Console, first, next, digest });
            let heard = vec![Heard { member: Hex(9), sequence: i, count: i, covers: next }];
            lines.push(Line::Left { epoch: 3, stream: Stream::Frames, first, next, digest, at: i, heard });
        }
        lines.push(Line::Ended);
        lines
    }

    fn written(lines: &[Line]) -> Vec<Vec<u8>> {
        let mut writer = Writer::default();
        let text = |line| {
            let mut out = Vec::new();
            writer.line(line, &mut out);
            out
        };
        lines.iter().map(text).collect()
    }

    fn read(text: &[Vec<u8>]) -> Result<Vec<Line>, Damage> {
        Lines::new(&*text.concat()).collect()
    }

    /// The line that is refused.
    fn refused(text: &[Vec<u8>]) -> u64 {
        match read(text) {
            Err(Damage::Line { line, .. }) => line,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let lines = sample();
        assert_eq!(read(&written(&lines)).unwrap(), lines);
    }

    #[test]
    fn every_changed_byte_is_found_at_its_line() {
        let text = written(&sample());
        for line in 0..text.len() {
            // The line's end is part of it: without it two lines are one.
            for at in 0..text[line].len() {
                for flip in [1, 0x20, 0x80] {
                    let mut edited = text.clone();
                    edited[line][at] ^= flip;
                    assert_eq!(refused_or_cut(&edited), line as u64 + 1, "byte {at} of line {}", line + 1);
                }
            }
        }
    }

    /// The last line's end can be taken away without a trace in another line; then the ledger is cut off there.
    fn refused_or_cut(text: &[Vec<u8>]) -> u64 {
        match read(text) {
            Err(Damage::Line { line, .. }) => line,
            Ok(lines) if lines.last() != Some(&Line::Ended) => lines.len() as u64 + 1,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn every_line_that_is_missing_repeated_or_moved_is_found_at_its_place() {
        let text = written(&sample());
        for line in 0..text.len() {
            let mut removed = text.clone();
            removed.remove(line);
            assert_eq!(refused_or_cut(&removed), line as u64 + 1, "line {} is missing", line + 1);
            let mut repeated = text.clone();
            repeated.insert(line + 1, text[line].clone());
            assert_eq!(refused(&repeated), line as u64 + 2, "line {} comes twice", line + 1);
            for other in line + 1..text.len() {
                let mut swapped = text.clone();
                swapped.swap(line, other);
                assert_eq!(
                    refused(&swapped),
                    line as u64 + 1,
                    "lines {} and {} swapped",
                    line + 1,
                    other + 1
                );
            }
        }
    }

    #[test]
    fn a_line_of_another_ledger_does_not_fit() {
        let (ours, mut other) = (written(&sample()), sample());
        other[1] = Line::Leads { epoch: 4, members: vec![] };
        let theirs = written(&other);
        for line in 2..ours.len() {
            let mut mixed = ours.clone();
            mixed[line] = theirs[line].clone();
            assert_eq!(refused(&mixed), line as u64 + 1);
        }
    }

    #[test]
    fn a_ledger_that_is_cut_anywhere_says_what_was_written_before() {
        let (lines, text) = (sample(), written(&sample()).concat());
        for cut in 0..text.len() {
            let whole = text[..cut].iter().filter(|byte| **byte == b'\n').count();
            let read: Result<Vec<Line>, _> = Lines::new(&text[..cut]).collect();
            assert_eq!(read.unwrap(), lines[..whole], "cut at {cut}");
        }
    }

    #[test]
    fn nonsense_is_refused_and_costs_nothing() {
        assert_eq!(refused(&[vec![b'x'; 1 << 20]]), 1);
        assert_eq!(refused(&[b"\n".to_vec()]), 1);
        assert_eq!(refused(&[vec![0xff, 0xfe, b'\n']]), 1);
        let headless = written(&[Line::Ended]);
        assert_eq!(refused(&headless), 1, "a ledger begins with who wrote it");
    }
}
