//! The two 8259A of an AT as one device, with the edge/level registers (ELCR) of the south bridge.
//!
//! Not responsible for: what is on which input (`crate::wiring`), the local APIC, which hands acknowledges on to
//! this device in virtual wire mode.

mod chip;

use crate::wiring::PIC_INTR;
use chip::Chip;
use gemel_machine::{Device, DeviceCx, Section, SectionError};

const VERSION: u16 = 1;
/// The master's input that the slave is on.
const CASCADE: u8 = 2;
/// What an acknowledge gets that finds no request (8259A datasheet, Interrupt Sequence).
const SPURIOUS: u8 = 7;
/// Inputs whose trigger mode is fixed: timer, keyboard, cascade.
const MASTER_EDGE_ONLY: u8 = 1 << 0 | 1 << 1 | 1 << 2;
/// The same: RTC, FPU error.
const SLAVE_EDGE_ONLY: u8 = 1 << 0 | 1 << 5;

const ELCR_MASTER: u16 = 0x4d0;
const ELCR_SLAVE: u16 = 0x4d1;

/// The pair. Pins 0 to 15 are the ISA lines; pin 2 is the cascade and leads nowhere.
pub struct Pic {
    master: Chip,
    slave: Chip,
}

impl Default for Pic {
    fn default() -> Self {
        Self::new()
    }
}

impl Pic {
    /// Ports: command and mask of the master, of the slave, ELCR.
    pub const PORTS: [std::ops::RangeInclusive<u16>; 3] =
        [0x20..=0x21, 0xa0..=0xa1, ELCR_MASTER..=ELCR_SLAVE];

    /// A pair that nobody has initialised.
    pub const fn new() -> Self {
        Self { master: Chip::new(), slave: Chip::new() }
    }

    /// Lets the slave's INT reach the master, and the master's the board.
    fn drive(&mut self, cx: &mut DeviceCx<'_>) {
        // The slave drops INT with the acknowledge and raises it for what is next, so that the master sees an edge
        // for each; a level says the same without the glitch.
        let slave = self.slave.pending(None).is_some();
        self.master.set_line(CASCADE, false);
        self.master.set_line(CASCADE, slave);
        cx.wires.set(PIC_INTR, self.master.pending(Some(CASCADE)).is_some());
    }

    /// The acknowledge cycle: (input of the pair, vector). `None` when there is no request.
    fn take(&mut self) -> Option<u8> {
        let input = self.master.pending(Some(CASCADE))?;
        self.master.take(input);
        if input != CASCADE {
            return Some(self.master.vector(input));
        }
        Some(match self.slave.pending(None) {
            Some(input) => {
                self.slave.take(input);
                self.slave.vector(input)
            }
            None => self.slave.vector(SPURIOUS),
        })
    }

    /// A poll (8259A datasheet, Poll Command): the read is the acknowledge; bit 7 says that there was a request.
    fn poll(chip: &mut Chip, slave: Option<u8>) -> u8 {
        match chip.pending(slave) {
            Some(input) => {
                chip.take(input);
                0x80 | input
            }
            None => 0,
        }
    }
}

impl Device for Pic {
    fn name(&self) -> &'static str {
        "pic"
    }

    fn reset(&mut self, cx: &mut DeviceCx<'_>) {
        *self = Self::new();
        for pin in 0..16 {
            self.on_wire(cx, pin, cx.wires.level(pin.into()));
        }
    }

    fn save(&self) -> Section {
        let Self { master, slave } = self;
        Section::of(VERSION, &(master, slave))
    }

    fn restore(&mut self, section: &Section) -> Result<(), SectionError> {
        let (master, slave): (Chip, Chip) = section.read(self.name(), VERSION)?;
        if !master.is_sound() || !slave.is_sound() {
            return Err(SectionError::Damaged { device: self.name() });
        }
        *self = Self { master, slave };
        Ok(())
    }

    fn port_read(&mut self, cx: &mut DeviceCx<'_>, port: u16, _size: u8) -> u32 {
        let (chip, slave) = match port {
            0x20 | 0x21 => (&mut self.master, Some(CASCADE)),
            0xa0 | 0xa1 => (&mut self.slave, None),
            ELCR_MASTER => return self.master.level_triggered().into(),
            ELCR_SLAVE => return self.slave.level_triggered().into(),
            _ => return u32::MAX,
        };
        let value = if chip.take_poll() {
            Self::poll(chip, slave)
        } else if port & 1 == 0 {
            chip.read_command()
        } else {
            chip.read_data()
        };
        self.drive(cx);
        value.into()
    }

    fn port_write(&mut self, cx: &mut DeviceCx<'_>, port: u16, _size: u8, value: u32) {
        let byte = value as u8;
        match port {
            0x20 => self.master.write_command(byte),
            0x21 => self.master.write_data(byte),
            0xa0 => self.slave.write_command(byte),
            0xa1 => self.slave.write_data(byte),
            ELCR_MASTER => self.master.set_level_triggered(byte & !MASTER_EDGE_ONLY),
            ELCR_SLAVE => self.slave.set_level_triggered(byte & !SLAVE_EDGE_ONLY),
            _ => {}
        }
        self.drive(cx);
    }

    fn on_wire(&mut self, cx: &mut DeviceCx<'_>, pin: u8, level: bool) {
        match pin {
            CASCADE => {}
            0..=7 => self.master.set_line(pin, level),
            8..=15 => self.slave.set_line(pin - 8, level),
            _ => {}
        }
        self.drive(cx);
    }

    fn interrupt_pending(&self) -> bool {
        self.master.pending(Some(CASCADE)).is_some()
    }

    fn acknowledge(&mut self, cx: &mut DeviceCx<'_>) -> Option<u8> {
        let vector = self.take().unwrap_or(self.master.vector(SPURIOUS));
        self.drive(cx);
        Some(vector)
    }
}

#[cfg(test)]
mod tests;
