//! Worlds that write and worlds that read, with a machine small enough to see through.

#![allow(clippy::unwrap_used)] // a test that unwraps fails with the line

mod cloned;
mod fed;
mod offline;
mod tiny;
