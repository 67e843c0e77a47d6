//! The coprocessor error logic of the PC/AT: FERR# becomes IRQ 13, and a write to port 0xf0 answers it (SDM 1 D.2.1.2 and figure
//! D-1; 82371AB datasheet, coprocessor error register).
//!
//! Not responsible for: when the vCPU asserts FERR# (only with CR0.NE clear), what it does under IGNNE#.

use crate::wiring::{IGNNE, IRQ13_COPROCESSOR};
use gemel_machine::{Device, DeviceCx, Section, SectionError};
use std::ops::RangeInclusive;

const VERSION: u16 = 1;
/// A write clears the interrupt, and has the error ignored while it is there.
const CLEAR_BUSY: u16 = 0xf0;
/// Reset of the 80287; nothing since the 387.
const RESET: u16 = 0xf1;

/// Two latches.
#[derive(Default)]
pub struct Coprocessor {
    /// FERR# as it stands.
    error: bool,
    /// IRQ 13 is asserted.
    interrupt: bool,
    /// IGNNE# is asserted.
    ignored: bool,
}

impl Coprocessor {
    /// Its ports.
    pub const PORTS: RangeInclusive<u16> = CLEAR_BUSY..=RESET;
    /// The pin that FERR# comes in on.
    pub const FERR_PIN: u8 = 0;

    fn drive(&self, cx: &mut DeviceCx<'_>) {
        cx.wires.set(IRQ13_COPROCESSOR, self.interrupt);
        cx.wires.set(IGNNE, self.ignored);
    }
}

impl Device for Coprocessor {
    fn name(&self) -> &'static str {
        "coprocessor"
    }

    fn reset(&mut self, cx: &mut DeviceCx<'_>) {
        *self = Self::default();
        self.drive(cx);
    }

    fn save(&self) -> Section {
        let Self { error, interrupt, ignored } = self;
        Section::of(VERSION, &(error, interrupt, ignored))
    }

    fn restore(&mut self, section: &Section) -> Result<(), SectionError> {
        let (error, interrupt, ignored) = section.read(self.name(), VERSION)?;
        *self = Self { error, interrupt, ignored };
        Ok(())
    }

    fn port_write(&mut self, cx: &mut DeviceCx<'_>, port: u16, _size: u8, _value: u32) {
        if port == CLEAR_BUSY {
            self.interrupt = false;
            self.ignored = self.error;
            self.drive(cx);
        }
    }

    fn on_wire(&mut self, cx: &mut DeviceCx<'_>, pin: u8, level: bool) {
        if pin != Self::FERR_PIN {
            return;
        }
        self.error = level;
        if level {
            self.interrupt = true;
        } else {
            self.ignored = false;
        }
        self.drive(cx);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance::{Bench, Socket, conformance};
    use crate::wiring::FERR;
    use gemel_machine::bus::PortWidth;

    fn socket() -> Socket {
        Socket { ports: vec![(Coprocessor::PORTS, PortWidth::Byte)], pins: vec![FERR], ..Socket::default() }
    }

    #[test]
    fn saves_and_restores() {
        conformance(Coprocessor::default, &socket());
    }

    /// SDM 1 figure D-2, edge by edge: FERR#, IRQ 13, IGNNE#.
    #[test]
    fn the_error_is_ignored_from_the_write_until_it_is_gone() {
        let mut bench = Bench::new(Coprocessor::default(), &socket());
        let lines = |bench: &Bench| (bench.wire(IRQ13_COPROCESSOR), bench.wire(IGNNE));
        bench.outb(CLEAR_BUSY, 0);
        assert_eq!(lines(&bench), (false, false), "without an error nothing is ignored");
        bench.set_wire(FERR, true);
        assert_eq!(lines(&bench), (true, false));
        bench.outb(RESET, 0);
        assert_eq!(lines(&bench), (true, false));
        bench.outb(CLEAR_BUSY, 0);
        assert_eq!(lines(&bench), (false, true));
        bench.set_wire(FERR, false);
        assert_eq!(lines(&bench), (false, false));
        bench.set_wire(FERR, true);
        bench.set_wire(FERR, false);
        assert_eq!(lines(&bench), (true, false), "only the port clears the interrupt");
    }
}
