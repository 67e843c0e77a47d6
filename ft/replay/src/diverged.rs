//! A machine that does not do what the log says.
//!
//! Not responsible for: finding out (`replay`), finding the first differing instruction.

use gemel_machine::At;
use serde::Serialize;
use std::fmt;

/// One thing that differs.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Mismatch {
    /// What: `count`, `rip`, `rcx`, `time`, `digest.ram`, ...
    pub what: &'static str,
    /// What the log says.
    pub expected: String,
    /// What the machine says.
    pub found: String,
}

/// Disagreement between a machine and its log. The run stops at once.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Diverged {
    /// Where the machine is.
    pub at: At,
    /// Number of the entry that it disagrees with, from 0.
    pub entry: u64,
    /// That entry, in words.
    pub expected: String,
    /// What differs. Never empty.
    pub mismatches: Vec<Mismatch>,
    /// The entries before it that the machine agreed with, in words; the last few.
    pub agreed: Vec<String>,
}

impl fmt::Display for Diverged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "diverged at {} {} from log entry {}:", self.at.position, self.at.time, self.entry)?;
        for (i, Mismatch { what, expected, found }) in self.mismatches.iter().enumerate() {
            let comma = if i == 0 { "" } else { "," };
            write!(f, "{comma} {what} is {found} where the log has {expected}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Diverged {}

impl Diverged {
    /// The whole report, for people.
    pub fn report(&self) -> String {
        let mut out = format!(
            "The machine does not do what the log says.\n\nmachine   count {}\n          rip   {:#x}\n          rcx   {:#x}\n          time  {}\nlog entry {}: {}\n\n",
            self.at.position.count,
            self.at.position.rip,
            self.at.position.rcx,
            self.at.time,
            self.entry,
            self.expected,
        );
        for Mismatch { what, expected, found } in &self.mismatches {
            out += &format!("{what}\n    log      {expected}\n    machine  {found}\n");
        }
        out += "\nLast entries that it agreed with:\n";
        for line in &self.agreed {
            out += &format!("    {line}\n");
        }
        out
    }
}
