//! System control port A (0x92) and the reset control register (0xcf9).
//!
//! Not responsible for: the keyboard controller's reset and ACPI's (`i8042`, `acpi`), the address line A20, which is
//! always open here: port A only remembers its bit.

use gemel_machine::{Device, DeviceCx, PowerEvent, Section, SectionError};

const VERSION: u16 = 1;
const PORT_A: u16 = 0x92;
const RESET_CONTROL: u16 = 0xcf9;

/// Port A: a rising edge resets.
const FAST_RESET: u8 = 1 << 0;
/// Port A: A20.
const A20: u8 = 1 << 1;
/// Reset control: hard, not soft (no difference here).
const HARD: u8 = 1 << 1;
/// Reset control: a rising edge resets (82371AB datasheet, RC register).
const RESET: u8 = 1 << 2;

/// The two ports.
pub struct ResetPorts {
    port_a: u8,
    reset_control: u8,
}

impl Default for ResetPorts {
    fn default() -> Self {
        Self::new()
    }
}

impl ResetPorts {
    /// The ports. 0xcf9 lies within the PCI configuration address; only byte accesses to it are the register.
    pub const PORTS: [std::ops::RangeInclusive<u16>; 2] = [PORT_A..=PORT_A, RESET_CONTROL..=RESET_CONTROL];

    /// The reset control register.
    pub const RESET_CONTROL: u16 = RESET_CONTROL;
    /// What is written there for a hard reset, when it was zero before.
    pub const HARD_RESET: u8 = HARD | RESET;

    /// Both registers as after a reset.
    pub const fn new() -> Self {
        Self { port_a: A20, reset_control: 0 }
    }
}

impl Device for ResetPorts {
    fn name(&self) -> &'static str {
        "reset-ports"
    }

    fn reset(&mut self, _cx: &mut DeviceCx<'_>) {
        *self = Self::new();
    }

    fn save(&self) -> Section {
        let Self { port_a, reset_control } = self;
        Section::of(VERSION, &(port_a, reset_control))
    }

    fn restore(&mut self, section: &Section) -> Result<(), SectionError> {
        let (port_a, reset_control) = section.read(self.name(), VERSION)?;
        *self = Self { port_a, reset_control };
        Ok(())
    }

    fn port_read(&mut self, _cx: &mut DeviceCx<'_>, port: u16, _size: u8) -> u32 {
        match port {
            PORT_A => self.port_a.into(),
            RESET_CONTROL => self.reset_control.into(),
            _ => u32::MAX,
        }
    }

    fn port_write(&mut self, cx: &mut DeviceCx<'_>, port: u16, _size: u8, value: u32) {
        let value = value as u8;
        let rises = |was: u8, bit: u8| value & !was & bit != 0;
        match port {
            PORT_A => {
                if rises(self.port_a, FAST_RESET) {
                    cx.power(PowerEvent::Reset);
                }
                self.port_a = value & (FAST_RESET | A20);
            }
            RESET_CONTROL => {
                if rises(self.reset_control, RESET) {
                    cx.power(PowerEvent::Reset);
                }
                self.reset_control = value & (HARD | RESET);
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance::{Bench, Socket, conformance};
    use gemel_machine::bus::PortWidth;

    fn socket() -> Socket {
        Socket {
            ports: ResetPorts::PORTS.into_iter().map(|range| (range, PortWidth::Byte)).collect(),
            ..Socket::default()
        }
    }

    #[test]
    fn saves_and_restores() {
        conformance(ResetPorts::new, &socket());
    }

    #[test]
    fn rising_edges_reset() {
        for (port, writes, resets) in [
            (PORT_A, &[0x02, 0x00, 0x02][..], false),
            (PORT_A, &[0x03], true),
            (RESET_CONTROL, &[0x02, 0x00, 0x0a], false),
            (RESET_CONTROL, &[0x02, 0x06], true),
        ] {
            let mut bench = Bench::new(ResetPorts::new(), &socket());
            for value in writes {
                bench.outb(port, *value);
            }
            assert_eq!(bench.bus.power(), resets.then_some(PowerEvent::Reset), "{port:#x} {writes:x?}");
        }
    }
}
