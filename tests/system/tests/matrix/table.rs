//! What became of each guest in each role, as a table on standard output.
//!
//! Not responsible for the verdict: libtest's summary and the exit code are.

use crate::subject::Outcome;
use crate::{ROLES, Role};
use anyhow::Result;
use std::fmt;
use std::sync::Mutex;
use std::time::Duration;

/// One test
#[derive(Clone, Copy, Default)]
pub enum Cell {
    /// Left out
    #[default]
    NotRun,
    /// Did not end as it should
    Failed,
    /// Took this long, builds and waits for runs that it shares included; ran this many guest instructions
    Passed(Duration, Option<u64>),
}

impl Cell {
    /// What to enter for a test that took `time`.
    pub fn of(result: &Result<&Outcome>, time: Duration) -> Self {
        match result {
            Ok(outcome) => Self::Passed(time, outcome.report["instructions"].as_u64()),
            Err(_) => Self::Failed,
        }
    }
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotRun => write!(f, "-"),
            Self::Failed => write!(f, "FAILED"),
            Self::Passed(time, None) => write!(f, "{:.1} s", time.as_secs_f64()),
            Self::Passed(time, Some(count)) => {
                write!(f, "{:.1} s, {:.2} G", time.as_secs_f64(), *count as f64 / 1e9)
            }
        }
    }
}

/// One row for each guest, one column for each role
pub struct Table(Mutex<Vec<[Cell; ROLES.len()]>>);

impl Table {
    /// A table in which nothing has run.
    pub fn new(guests: usize) -> Self {
        Self(Mutex::new(vec![[Cell::NotRun; ROLES.len()]; guests]))
    }

    /// Enters the result of one test.
    pub fn enter(&self, row: usize, role: Role, cell: Cell) {
        let mut rows = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        rows[row][role as usize] = cell;
    }

    /// Prints the rows in which something ran: seconds, and instructions of the guest.
    pub fn print<'a>(&self, guests: impl Iterator<Item = &'a str>) {
        let rows = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let heads: Vec<String> = ROLES.iter().map(|role| format!("{role:?}").to_lowercase()).collect();
        println!("| guest | {} |\n|{}", heads.join(" | "), "---|".repeat(heads.len() + 1));
        for (guest, cells) in guests.zip(rows.iter()) {
            if cells.iter().any(|cell| !matches!(cell, Cell::NotRun)) {
                let cells: Vec<String> = cells.iter().map(Cell::to_string).collect();
                println!("| {guest} | {} |", cells.join(" | "));
            }
        }
    }
}
