//! The interpreter against silicon: one instruction at a time, run by the CPU under the test in user mode and by the
//! interpreter on the same state, and everything compared that the instruction can see or change.
//!
//! Not responsible for: what user mode cannot show (`tests/tables`), nor for whole programs (`tests/system`).

pub mod arena;
pub mod case;
pub mod claim;
pub mod compare;
pub mod corpus;
pub mod fields;
pub mod generate;
pub mod interpreted;
pub mod list;
pub mod native;
pub mod run;
pub mod shrink;
pub mod sweep;
pub mod undefined;
pub mod vector;
