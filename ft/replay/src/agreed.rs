//! The last entries that a replay agreed with, for its report.
//!
//! Not responsible for: agreeing (`replay`).

use gemel_log::{Body, Entry};
use gemel_machine::At;
use std::collections::VecDeque;

/// How many a divergence report shows.
const REMEMBERED: usize = 16;

/// Remembers the last few entries.
#[derive(Clone, Default)]
pub(crate) struct Agreed(VecDeque<(u64, Kept)>);

#[derive(Clone)]
enum Kept {
    /// In words, since the data of an entry can be large.
    Words(String),
    /// A sampled time, of which there are too many to put each into words.
    Time(At),
}

impl Agreed {
    pub(crate) fn add(&mut self, number: u64, entry: &Entry) {
        if self.0.len() == REMEMBERED {
            self.0.pop_front();
        }
        let kept = match entry.body {
            Body::Time => Kept::Time(entry.at),
            _ => Kept::Words(entry.to_string()),
        };
        self.0.push_back((number, kept));
    }

    /// Each with its number, the latest last.
    pub(crate) fn words(&self) -> impl DoubleEndedIterator<Item = String> + '_ {
        self.0.iter().map(|(number, kept)| match kept {
            Kept::Words(words) => format!("{number}: {words}"),
            Kept::Time(at) => format!("{number}: {}", Entry { at: *at, body: Body::Time }),
        })
    }
}
