//! Who owns which physical memory at power-on: what BIOS function E820 would say.
//!
//! Not responsible for: how a boot protocol hands it over (`bzimage`, `pvh`, `multiboot`).

use gemel_machine::ram::{HIGH_START, LOW_END, VIDEO_HOLE};
use gemel_machine::{GuestRam, RamError};

/// Where memory above the legacy area starts.
pub const ONE_MIB: u64 = 0x10_0000;
/// Where conventional memory ends: the extended BIOS data area is the last KiB of the 640.
const EBDA: u64 = 0x9_fc00;
/// The area in which an operating system looks for the ACPI root pointer; the tables lie there too (ACPI 5.2.5.1).
pub const BIOS_AREA: std::ops::Range<u64> = 0xe_0000..ONE_MIB;

/// What a range is, with E820's numbers (ACPI 15.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum Kind {
    /// Free RAM.
    Usable = 1,
    /// Not to be used.
    Reserved = 2,
}

/// One range of the map.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Region {
    /// First address.
    pub start: u64,
    /// Bytes.
    pub size: u64,
    /// What it is.
    pub kind: Kind,
}

/// The map, in ascending order.
pub fn memory_map(ram: &GuestRam) -> Vec<Region> {
    let mut map = Vec::new();
    let mut add = |start: u64, end: u64, kind| {
        if end > start {
            map.push(Region { start, size: end - start, kind });
        }
    };
    add(0, EBDA, Kind::Usable);
    add(EBDA, VIDEO_HOLE.start, Kind::Reserved);
    add(BIOS_AREA.start, BIOS_AREA.end, Kind::Reserved);
    add(ONE_MIB, usable_end(ram), Kind::Usable);
    if ram.size() > LOW_END {
        add(HIGH_START, HIGH_START + ram.size() - LOW_END, Kind::Usable);
    }
    map
}

/// Where the RAM that starts at 1 MiB ends.
pub fn usable_end(ram: &GuestRam) -> u64 {
    ram.size().min(LOW_END)
}

/// Writes the two words of the BIOS data area that kernels read to find the end of conventional memory.
pub(super) fn write_bios_data_area(ram: &GuestRam) -> Result<(), RamError> {
    ram.write(0x40e, &((EBDA >> 4) as u16).to_le_bytes())?;
    ram.write(0x413, &((EBDA >> 10) as u16).to_le_bytes())
}
