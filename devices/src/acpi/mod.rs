//! ACPI: the tables that describe the board, and the power management chip that they describe.
//!
//! Not responsible for: the reset register (`pci`, port cf9h), interpreting AML (the guest does).

mod aml;
mod dsdt;
pub mod pm;
pub mod tables;

pub use pm::PowerManagement;
