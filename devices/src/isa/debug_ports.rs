//! The two test devices that kernel test suites expect: debug exit at 0xf4 and the debug console at 0xe9.
//!
//! Not responsible for: the process's exit code (who ends the run computes it from the value written), where debug
//! characters go (a world's).

use gemel_machine::{Device, DeviceCx, Output, PowerEvent, Section, SectionError};

const VERSION: u16 = 1;

/// A write ends the run with the value written.
pub struct DebugExit;

impl DebugExit {
    /// The port, four bytes wide.
    pub const PORTS: std::ops::RangeInclusive<u16> = 0xf4..=0xf7;
}

impl Device for DebugExit {
    fn name(&self) -> &'static str {
        "debug-exit"
    }

    fn reset(&mut self, _cx: &mut DeviceCx<'_>) {}

    fn save(&self) -> Section {
        Section::of(VERSION, &())
    }

    fn restore(&mut self, section: &Section) -> Result<(), SectionError> {
        section.read(self.name(), VERSION)
    }

    fn port_read(&mut self, _cx: &mut DeviceCx<'_>, _port: u16, _size: u8) -> u32 {
        0
    }

    fn port_write(&mut self, cx: &mut DeviceCx<'_>, _port: u16, _size: u8, value: u32) {
        cx.power(PowerEvent::DebugExit(value));
    }
}

/// Each byte written leaves the machine; reads give 0xe9, by which programs know that it is there.
pub struct DebugConsole;

impl DebugConsole {
    /// The port.
    pub const PORT: u16 = 0xe9;
}

impl Device for DebugConsole {
    fn name(&self) -> &'static str {
        "debug-console"
    }

    fn reset(&mut self, _cx: &mut DeviceCx<'_>) {}

    fn save(&self) -> Section {
        Section::of(VERSION, &())
    }

    fn restore(&mut self, section: &Section) -> Result<(), SectionError> {
        section.read(self.name(), VERSION)
    }

    fn port_read(&mut self, _cx: &mut DeviceCx<'_>, port: u16, _size: u8) -> u32 {
        port.into()
    }

    fn port_write(&mut self, cx: &mut DeviceCx<'_>, _port: u16, _size: u8, value: u32) {
        cx.emit(Output::Debug(value as u8));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance::{Bench, Socket, conformance};
    use gemel_machine::bus::PortWidth;

    fn socket(ports: std::ops::RangeInclusive<u16>, width: PortWidth) -> Socket {
        Socket { ports: vec![(ports, width)], ..Socket::default() }
    }

    #[test]
    fn saves_and_restores() {
        conformance(|| DebugExit, &socket(DebugExit::PORTS, PortWidth::Any));
        conformance(|| DebugConsole, &socket(0xe9..=0xe9, PortWidth::Byte));
    }

    #[test]
    fn exit_carries_the_value() {
        let mut bench = Bench::new(DebugExit, &socket(DebugExit::PORTS, PortWidth::Any));
        bench.bus.port_write(bench.now, 0xf4, 4, 0x1234_5678);
        assert_eq!(bench.bus.power(), Some(PowerEvent::DebugExit(0x1234_5678)));
    }

    #[test]
    fn console_emits_bytes() {
        let mut bench = Bench::new(DebugConsole, &socket(0xe9..=0xe9, PortWidth::Byte));
        assert_eq!(bench.inb(0xe9), 0xe9);
        bench.outb(0xe9, b'A');
        assert_eq!(bench.outputs(), [Output::Debug(b'A')]);
    }
}
