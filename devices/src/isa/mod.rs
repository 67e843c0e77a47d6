//! The chips of the ISA bus: what an AT had, and what every PC still answers to.
//!
//! Not responsible for: port maps and wires (`board.rs` makes the connections; `crate::wiring` has the numbers).

pub mod pic;
pub mod pit;
pub mod rtc;
pub mod uart;
