//! What is said about connections that were refused or broken off: lines on standard error, few of them.
//!
//! Not responsible for: refusing (`listener`, `connection`).

use parking_lot::Mutex;
use std::time::{Duration, Instant};

/// Lines that may be said at once; later ones come one a second. Whoever knocks all day must not fill a disk.
const BURST: u32 = 10;
/// One more line after so long.
const PACE: Duration = Duration::from_secs(1);
/// The same line again only after so long.
const AGAIN: Duration = Duration::from_secs(10);

/// Says lines, and counts those that it leaves out.
#[derive(Default)]
pub struct Complaints(Mutex<State>);

#[derive(Default)]
struct State {
    last: Option<(String, Instant)>,
    /// Lines said in the burst, less those that time has given back.
    said: u32,
    given_back: Option<Instant>,
    left_out: u64,
}

impl Complaints {
    /// What became of a connection of `peer`.
    pub fn say(&self, peer: &str, what: &str) {
        if let Some(line) = self.0.lock().line(Instant::now(), format!("{peer}: {what}")) {
            eprintln!("gemel: connection closed: {line}");
        }
    }
}

impl State {
    fn line(&mut self, now: Instant, line: String) -> Option<String> {
        let since = *self.given_back.get_or_insert(now);
        let back = (now - since).as_nanos() / PACE.as_nanos();
        if back > 0 {
            self.said = self.said.saturating_sub(u32::try_from(back).unwrap_or(u32::MAX));
            self.given_back = Some(now);
        }
        let again = self.last.as_ref().is_some_and(|(last, at)| *last == line && now - *at < AGAIN);
        if again || self.said >= BURST {
            self.left_out += 1;
            return None;
        }
        self.said += 1;
        self.last = Some((line.clone(), now));
        Some(match std::mem::take(&mut self.left_out) {
            0 => line,
            count => format!("{line} (and {count} more since)"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_said_once_in_a_while_and_many_are_counted() {
        let (mut state, start) = (State::default(), Instant::now());
        let mut at = |ms: u64, line: &str| state.line(start + Duration::from_millis(ms), line.into());
        assert_eq!(at(0, "a"), Some("a".into()));
        assert_eq!(at(10, "a"), None, "the same");
        for i in 0..9 {
            assert!(at(20, &i.to_string()).is_some_and(|l| l.starts_with(&i.to_string())));
        }
        assert_eq!(at(30, "b"), None, "too many");
        assert_eq!(at(1500, "c"), Some("c (and 1 more since)".into()));
        assert_eq!(at(1600, "d"), None);
        assert_eq!(at(12_000, "d"), Some("d (and 1 more since)".into()));
    }
}
