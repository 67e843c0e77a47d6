//! The I/O APIC (Intel 82093AA, version 11h without EOI register): 24 pins, each with a redirection entry.
//!
//! Not responsible for: which wire leads to which pin (`board`), or accepting a message (`lapic`).

use super::message::encode_redirection;
use gemel_machine::{Device, DeviceCx, Section, SectionError};
use serde::{Deserialize, Serialize};

/// Where the registers lie.
pub const BASE: u64 = 0xfec0_0000;
/// Bytes of the register window.
pub const WINDOW: u64 = 0x1000;
/// Number of pins.
pub const PINS: u8 = 24;
/// The id that the ACPI tables name.
pub const IOAPIC_ID: u8 = 1;

const NAME: &str = "ioapic";
const STATE_VERSION: u16 = 1;

/// Registers of the window: which indirect register, and its value.
const SELECT: u64 = 0x00;
const DATA: u64 = 0x10;

/// Indirect registers (82093AA 3.2).
const ID: u8 = 0x00;
const VERSION: u8 = 0x01;
const ARBITRATION: u8 = 0x02;
const REDIRECTION: u8 = 0x10;
const REDIRECTION_END: u8 = REDIRECTION + 2 * PINS;

/// Bits of a redirection entry.
const MASKED: u64 = 1 << 16;
const LEVEL: u64 = 1 << 15;
const REMOTE_IRR: u64 = 1 << 14;
const DELIVERY_STATUS: u64 = 1 << 12;
const READ_ONLY: u64 = REMOTE_IRR | DELIVERY_STATUS;
/// Destination, and bits 16:0.
const WRITABLE: u64 = 0xff << 56 | 0x1_ffff;

/// The chip.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct IoApic {
    id: u8,
    select: u8,
    entries: [u64; PINS as usize],
    /// Levels of the pins.
    levels: [bool; PINS as usize],
}

impl IoApic {
    /// An I/O APIC after reset: everything masked.
    pub fn new() -> Self {
        Self { id: IOAPIC_ID, select: 0, entries: [MASKED; PINS as usize], levels: [false; PINS as usize] }
    }

    /// A level-triggered pin is sent once until its end of interrupt. Board wires are high when a chip asks: an
    /// entry that says "active low" describes the line on a real board (PCI INTx) and changes nothing here.
    fn send_level(&mut self, cx: &mut DeviceCx<'_>, pin: usize) {
        let entry = self.entries[pin];
        if entry & LEVEL != 0 && entry & (MASKED | REMOTE_IRR) == 0 && self.levels[pin] {
            self.entries[pin] |= REMOTE_IRR;
            self.send(cx, entry);
        }
    }

    fn send(&self, cx: &mut DeviceCx<'_>, entry: u64) {
        let (address, data) = encode_redirection(entry);
        cx.wires.message(address, data);
    }

    fn read(&self) -> u32 {
        match self.select {
            ID | ARBITRATION => u32::from(self.id) << 24,
            VERSION => u32::from(PINS - 1) << 16 | 0x11,
            n @ REDIRECTION..REDIRECTION_END => {
                let entry = self.entries[usize::from((n - REDIRECTION) / 2)];
                if n & 1 == 0 { entry as u32 } else { (entry >> 32) as u32 }
            }
            _ => u32::MAX,
        }
    }

    fn write(&mut self, cx: &mut DeviceCx<'_>, value: u32) {
        match self.select {
            ID => self.id = (value >> 24) as u8 & 0xf,
            n @ REDIRECTION..REDIRECTION_END => {
                let pin = usize::from((n - REDIRECTION) / 2);
                let old = self.entries[pin];
                let new = match n & 1 {
                    0 => old & !0xffff_ffff | u64::from(value),
                    _ => old & 0xffff_ffff | u64::from(value) << 32,
                };
                let mut entry = new & WRITABLE & !READ_ONLY | old & REMOTE_IRR;
                if entry & LEVEL == 0 {
                    // Kernels without an EOI register clear a stuck remote IRR by switching to edge and back.
                    entry &= !REMOTE_IRR;
                }
                self.entries[pin] = entry;
                self.send_level(cx, pin);
            }
            _ => {}
        }
    }
}

impl Default for IoApic {
    fn default() -> Self {
        Self::new()
    }
}

impl Device for IoApic {
    fn name(&self) -> &'static str {
        NAME
    }

    fn reset(&mut self, _cx: &mut DeviceCx<'_>) {
        *self = Self { levels: self.levels, ..Self::new() };
    }

    fn save(&self) -> Section {
        Section::of(STATE_VERSION, self)
    }

    fn restore(&mut self, section: &Section) -> Result<(), SectionError> {
        *self = section.read(NAME, STATE_VERSION)?;
        Ok(())
    }

    fn mmio_read(&mut self, _cx: &mut DeviceCx<'_>, address: u64, _size: u8) -> u64 {
        match address - BASE {
            SELECT => u64::from(self.select),
            DATA => u64::from(self.read()),
            _ => u64::MAX,
        }
    }

    fn mmio_write(&mut self, cx: &mut DeviceCx<'_>, address: u64, _size: u8, value: u64) {
        match address - BASE {
            SELECT => self.select = value as u8,
            DATA => self.write(cx, value as u32),
            _ => {}
        }
    }

    fn on_wire(&mut self, cx: &mut DeviceCx<'_>, pin: u8, level: bool) {
        let pin = usize::from(pin);
        let Some(now) = self.levels.get_mut(pin) else { return };
        let rising = level && !*now;
        *now = level;
        let entry = self.entries[pin];
        if entry & LEVEL != 0 {
            self.send_level(cx, pin);
        } else if rising && entry & MASKED == 0 {
            self.send(cx, entry);
        }
    }

    fn on_end_of_interrupt(&mut self, cx: &mut DeviceCx<'_>, vector: u8) {
        for pin in 0..usize::from(PINS) {
            let entry = self.entries[pin];
            if entry & REMOTE_IRR != 0 && entry as u8 == vector {
                self.entries[pin] &= !REMOTE_IRR;
                self.send_level(cx, pin);
            }
        }
    }
}

#[cfg(test)]
mod tests;
