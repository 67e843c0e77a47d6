//! The chips of the ISA bus: what an AT had, and what every PC still answers to.
//!
//! Not responsible for: port maps and wires (`board.rs` makes the connections; `crate::wiring` has the numbers).

pub mod coprocessor;
pub mod debug_ports;
pub mod i8042;
pub mod pic;
pub mod pit;
pub mod reset_ports;
pub mod rtc;
pub mod uart;
