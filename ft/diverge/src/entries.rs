//! Where two logs part by what stands in them, without running anything.
//!
//! Not responsible for: the machines' states (`lockstep`).

use crate::error::Error;
use gemel_log::{Header, Item, LogReader};
use gemel_replay::{EntrySource, Lookahead};
use serde::Serialize;
use std::io::Read;

/// The first entry that is not the same in two logs.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct EntryDifference {
    /// Its number, from 0: so many entries are the same.
    pub number: u64,
    /// The two entries in words, or how the log ends there.
    pub entries: [String; 2],
    /// The last entry that is the same.
    pub last_same: Option<String>,
}

fn words(item: &Item) -> String {
    match item {
        Item::Entry(entry) => entry.to_string(),
        Item::Complete => "the log is complete".into(),
        Item::Cut { leftover, .. } => format!("the log is cut off, {leftover} bytes into an entry"),
    }
}

/// Compares entry by entry; `None` if both logs say the same to their ends.
///
/// # Errors
/// A log that is damaged or cannot be read.
pub fn first_difference(
    a: &mut LogReader<impl Read>,
    b: &mut LogReader<impl Read>,
) -> Result<Option<EntryDifference>, Error> {
    let (mut number, mut last_same) = (0, None);
    loop {
        let (x, y) = (a.next_item().map_err(Error::subject)?, b.next_item().map_err(Error::subject)?);
        match (&x, &y) {
            (Item::Entry(left), Item::Entry(right)) if left == right => last_same = Some(words(&x)),
            (Item::Entry(_), _) | (_, Item::Entry(_)) => {
                return Ok(Some(EntryDifference { number, entries: [words(&x), words(&y)], last_same }));
            }
            _ => return Ok(None),
        }
        number += 1;
    }
}

/// The first entry that is not the same in what two sources say next, as far as `until`. `number` is that of the next entry.
pub(crate) fn difference_ahead(
    a: &mut impl EntrySource,
    b: &mut impl EntrySource,
    mut number: u64,
    until: u64,
) -> Result<Option<EntryDifference>, Error> {
    let here = |source: &Lookahead<'_>| matches!(source, Lookahead::Entry(e) if e.at.position.count <= until);
    let words = |source: &Lookahead<'_>| match source {
        Lookahead::Entry(entry) => entry.to_string(),
        _ => "the log ends".into(),
    };
    let mut last_same = None;
    loop {
        let (x, y) = (a.peek()?, b.peek()?);
        if !here(&x) && !here(&y) {
            return Ok(None);
        }
        if x != y {
            return Ok(Some(EntryDifference { number, entries: [words(&x), words(&y)], last_same }));
        }
        last_same = Some(words(&x));
        a.advance();
        b.advance();
        number += 1;
    }
}

/// The fields of two headers that differ: name and both values.
pub fn header_differences(a: &Header, b: &Header) -> Vec<(&'static str, String, String)> {
    let fields = |h: &Header| {
        let m = &h.machine;
        [
            ("board", format!("{:?}", m.board)),
            ("RAM", m.ram.to_string()),
            ("CPU model", m.cpu.clone()),
            ("reckoning", format!("{:?}", m.reckoning)),
            ("RTC base", m.rtc_base.to_string()),
            ("seed", m.seed.to_string()),
            ("disks", format!("{:?}", m.disks)),
            ("boot", format!("{:?}", m.boot)),
            ("clock", format!("{:?}", h.clock)),
            ("reads", format!("{:?}", h.reads)),
            ("epoch", h.epoch.to_string()),
            ("start", format!("{:?}", h.start)),
            ("creator", h.creator.clone()),
            ("host CPU", h.host_cpu.clone()),
            ("engine", format!("{:?}", h.engine)),
            ("asserted clear of", h.stays_clear.join(" ")),
        ]
    };
    let both = fields(a).into_iter().zip(fields(b));
    both.filter(|((_, x), (_, y))| x != y).map(|((name, x), (_, y))| (name, x, y)).collect()
}
