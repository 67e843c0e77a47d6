//! PCI: the host bridge, configuration space, base addresses, message-signalled interrupts.
//!
//! Not responsible for: what the functions do (`virtio`).

pub mod config;
pub mod function;
pub mod host;
pub mod msix;

pub use config::ConfigSpace;
pub use function::PciFunction;
pub use host::PciHost;

use std::ops::{Range, RangeInclusive};

/// Configuration mechanism 1: the address register, a double word; data follows at the next four ports.
pub const CONFIG_ADDRESS: u16 = 0xcf8;
/// Memory addresses that the bridge hands on.
pub const MEMORY_WINDOW: Range<u64> = 0xc000_0000..0xfec0_0000;
/// Ports that the bridge hands on.
pub const PORT_WINDOW: RangeInclusive<u16> = 0xc000..=0xffff;
/// Slots of the one bus; slot 0 is the bridge itself.
pub const SLOTS: u8 = 32;
/// I/O APIC input of interrupt link A; B, C and D follow.
pub const FIRST_GSI: u8 = 16;

/// The interrupt link (0 to 3 for A to D) that a slot's pin (0 to 3) is wired to: turned by one from slot to slot.
pub const fn link_of(slot: u8, pin: u8) -> u8 {
    (slot + pin) & 3
}

/// The 8259 line of a link, for systems that do without the I/O APIC: A and C share 10, B and D share 11.
pub const fn pic_line(link: u8) -> u8 {
    10 + (link & 1)
}
