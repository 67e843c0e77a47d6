//! Worlds that write and worlds that read, with a machine small enough to see through.

mod offline;
mod tiny;
