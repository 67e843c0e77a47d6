//! ACPI: the tables that describe the board, and the power management chip that they describe.
//!
//! Not responsible for: the reset register (`isa/reset_ports.rs`), interpreting AML (the guest does).

mod aml;
mod dsdt;
pub mod pm;
pub mod tables;

pub use pm::PowerManagement;
