//! The DSDT's definition block: what an operating system cannot find by probing.
//!
//! Not responsible for: the table header (`tables`), devices that PCI configuration shows by itself.

use super::aml::*;
use super::pm::SLEEP_TYPE_OFF;
use crate::pci::{self, SLOTS};

/// The definition block.
pub(super) fn definition_block() -> Vec<u8> {
    // _PIC(1) says that the operating system uses the I/O APIC (ACPI 6.4 5.8.1); _PRT answers accordingly.
    let picked = name("PICF", &integer(0));
    let pick = method("_PIC", 1, &[&store(ARG0, &reference("PICF"))]);
    let off = integer(SLEEP_TYPE_OFF.into());
    let soft_off = name("_S5", &package_of(&[off.clone(), off, integer(0), integer(0)]));
    [picked, pick, soft_off, scope("\\_SB", &[&pci_root(), &isa_devices()])].concat()
}

fn pci_root() -> Vec<u8> {
    let window = resources(&[
        bus_range(0, 0xff),
        ports(pci::CONFIG_ADDRESS, 8),
        port_range(*pci::PORT_WINDOW.start(), *pci::PORT_WINDOW.end()),
        memory_range(pci::MEMORY_WINDOW.start as u32, (pci::MEMORY_WINDOW.end - 1) as u32),
    ]);
    let routing = method(
        "_PRT",
        0,
        &[
            &if_true(&reference("PICF"), &[&return_value(&reference("PRTA"))]),
            &return_value(&reference("PRTP")),
        ],
    );
    device(
        "PCI0",
        &[
            &name("_HID", &eisa_id("PNP0A03")),
            &name("_UID", &integer(0)),
            &name("_CRS", &window),
            &name("PRTA", &routing_table(|link| pci::FIRST_GSI + link)),
            &name("PRTP", &routing_table(pci::pic_line)),
            &routing,
        ],
    )
}

/// For each slot and pin: a constant interrupt number, by the board's swizzle.
fn routing_table(interrupt: impl Fn(u8) -> u8) -> Vec<u8> {
    let entry = |slot: u8, pin: u8| {
        let all_functions = u32::from(slot) << 16 | 0xffff;
        let line = interrupt(pci::link_of(slot, pin));
        package_of(&[integer(all_functions), integer(pin.into()), integer(0), integer(line.into())])
    };
    let entries = (1..SLOTS).flat_map(|slot| (0..4).map(move |pin| (slot, pin)));
    package_of(&entries.map(|(slot, pin)| entry(slot, pin)).collect::<Vec<_>>())
}

fn isa_devices() -> Vec<u8> {
    let isa = |path: &str, id: &str, unique: u32, wants: &[Vec<u8>]| {
        device(
            path,
            &[&name("_HID", &eisa_id(id)), &name("_UID", &integer(unique)), &name("_CRS", &resources(wants))],
        )
    };
    [
        isa("COM1", "PNP0501", 1, &[ports(0x3f8, 8), irq(4)]),
        isa("COM2", "PNP0501", 2, &[ports(0x2f8, 8), irq(3)]),
        isa("KBD", "PNP0303", 0, &[ports(0x60, 1), ports(0x64, 1), irq(1)]),
        isa("MOUS", "PNP0F13", 0, &[irq(12)]),
        isa("RTC", "PNP0B00", 0, &[ports(0x70, 2), irq(8)]),
    ]
    .concat()
}
