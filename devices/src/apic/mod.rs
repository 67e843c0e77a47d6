//! The APIC system: the vCPU's local APIC, and the I/O APIC that turns wires into messages.
//!
//! Not responsible for: the 8259 pair (`isa/pic.rs`), whose output reaches the local APIC's LINT0 pin.

pub mod ioapic;
pub mod lapic;
mod message;
mod timer;
mod vectors;

pub use ioapic::IoApic;
pub use lapic::LocalApic;
