//! Where two runs part: two machines follow their logs side by side, are compared from checkpoint to checkpoint, and
//! a difference is narrowed down to the first instruction after which they differ.
//!
//! Not responsible for: which engines the machines have and where files lie (a [`Subject`] brings them), following a
//! log (`gemel-replay`).

mod between;
mod bundle;
mod contradiction;
mod entries;
mod error;
mod finding;
mod lane;
mod linear;
mod lockstep;
mod memory;
mod mirror;
mod narrow;
mod pausing;
mod place;
mod report;
mod subject;
mod unlike;
mod vector;
mod writer;

pub use bundle::{Evidence, Found, REPORT_JSON, REPORT_TEXT, START, VECTOR, WINDOW, write_bundle};
pub use contradiction::Contradiction;
pub use entries::{EntryDifference, first_difference, header_differences};
pub use error::Error;
pub use finding::{
    ByteDifference, DeviceDifference, ElementDifference, Finding, Instruction, LastChange, Work,
};
pub use lockstep::{Agreement, Outcome, Plan, Watcher, compare};
pub use subject::Subject;
pub use unlike::{Excuse, Step};
pub use vector::ARENA;
