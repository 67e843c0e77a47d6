//! The chips of the board, and the board.
//!
//! Not responsible for: when a chip is called (`gemel_machine::Machine`), backends (a world's).

pub mod isa;
pub mod wiring;
