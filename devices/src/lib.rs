//! The chips of the board, and the board.
//!
//! Not responsible for: when a chip is called (`gemel_machine::Machine`), backends (a world's).

pub mod acpi;
pub mod apic;
pub mod board;
pub mod boot;
#[cfg(test)]
pub(crate) mod conformance;
pub mod isa;
pub mod pci;
pub mod virtio;
pub mod wiring;
