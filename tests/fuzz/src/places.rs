//! Where things are on the board: ports and addresses at which something answers.
//!
//! Not responsible for: what answers there.

use crate::rng::Rng;
use gemel_devices::apic::{ioapic, lapic};
use gemel_devices::pci;
use gemel_machine::ram::{HIGH_START, LOW_END, VIDEO_HOLE};

/// First ports of the chips.
const PORTS: [u16; 15] =
    [0x20, 0xa0, 0x40, 0x60, 0x70, 0x80, 0x92, 0xe9, 0x2f8, 0x3f8, 0x4d0, 0x600, 0xcf8, 0xcfc, 0x61];

/// A port, mostly one where something is.
pub fn port(rng: &Rng) -> u16 {
    if rng.once_in(16) { rng.next() as u16 } else { rng.pick(&PORTS) + rng.below(8) as u16 }
}

/// The page of a register window, or of a place around which RAM begins or ends.
pub fn page(rng: &Rng, ram: u64) -> u64 {
    let slot = rng.below(4) * 0x4000 + rng.below(4) * 0x1000;
    rng.pick(&[
        lapic::BASE,
        ioapic::BASE,
        pci::MEMORY_WINDOW.start + slot,
        pci::MEMORY_WINDOW.end - 0x1000,
        VIDEO_HOLE.start - 0x1000,
        VIDEO_HOLE.start,
        VIDEO_HOLE.end - 0x1000,
        VIDEO_HOLE.end,
        ram - 0x1000,
        ram,
        LOW_END,
        HIGH_START - 0x1000,
        HIGH_START,
        (1 << 40) - 0x1000,
    ])
}

/// An address in a register window.
pub fn address(rng: &Rng) -> u64 {
    let slot = rng.below(4) * 0x4000;
    let bar = rng.below(4) * 0x1000;
    let base = rng.pick(&[lapic::BASE, ioapic::BASE, pci::MEMORY_WINDOW.start + slot + bar]);
    let offset = rng.pick(&[rng.below(0x40), rng.below(0x400), rng.below(0x1000)]);
    base + if rng.once_in(8) { offset } else { offset & !3 }
}
