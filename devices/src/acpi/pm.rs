//! The fixed ACPI hardware (ACPI 6.4 4.8): power button, soft off, power management timer, system control interrupt.
//!
//! Not responsible for: system management mode and its command port: the machine is in ACPI mode from power-on.

use crate::wiring::IRQ9_SCI;
use gemel_machine::{Device, DeviceCx, Input, PowerEvent, Section, SectionError, VirtTime};
use serde::{Deserialize, Serialize};

/// PM1a event block: status, then enable, a word each.
pub const EVENT_PORT: u16 = 0x600;
/// PM1a control block: a word.
pub const CONTROL_PORT: u16 = 0x604;
/// PM timer: a double word.
pub const TIMER_PORT: u16 = 0x608;
/// The last port.
pub const LAST_PORT: u16 = TIMER_PORT + 3;
/// What \_S5 names as the sleep type that turns power off.
pub const SLEEP_TYPE_OFF: u8 = 5;
/// Frequency of the PM timer (4.8.3.3).
pub const TIMER_HZ: u64 = 3_579_545;

const NAME: &str = "acpi-pm";
const STATE_VERSION: u16 = 1;
const OVERFLOW: u8 = 0;

/// Bits of status and enable (4.8.3.1).
const TIMER: u16 = 1 << 0;
const GLOBAL: u16 = 1 << 5;
const POWER_BUTTON: u16 = 1 << 8;
const RTC: u16 = 1 << 10;
const ENABLES: u16 = TIMER | GLOBAL | POWER_BUTTON | RTC;
/// Bits of control (4.8.3.2).
const SCI_ENABLE: u16 = 1 << 0;
const BUS_MASTER_RELOAD: u16 = 1 << 1;
const SLEEP_ENABLE: u16 = 1 << 13;
const SLEEP_TYPE_SHIFT: u32 = 10;

/// The chip.
#[derive(Clone, Default, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PowerManagement {
    /// Status bits but the timer's, which follows from the time.
    status: u16,
    enable: u16,
    control: u16,
    /// How often the timer's top bit had changed when its status was cleared last.
    changes_seen: u64,
}

impl PowerManagement {
    /// The chip after reset.
    pub fn new() -> Self {
        Self::default()
    }

    /// How often bit 31 of the timer has changed. The status bit is set at each change (4.8.3.1.1).
    fn changes(now: VirtTime) -> u64 {
        now.ticks(TIMER_HZ) >> 31
    }

    fn status(&self, now: VirtTime) -> u16 {
        let changed = Self::changes(now) != self.changes_seen;
        self.status | if changed { TIMER } else { 0 }
    }

    /// Drives the system control interrupt and waits for the timer's next change if anybody wants to hear of it.
    fn settle(&self, cx: &mut DeviceCx<'_>) {
        let pending = self.status(cx.now) & self.enable;
        cx.wires.set(IRQ9_SCI, pending != 0);
        if self.enable & TIMER != 0 && pending & TIMER == 0 {
            cx.arm(OVERFLOW, VirtTime::of_ticks((self.changes_seen + 1) << 31, TIMER_HZ));
        } else {
            cx.cancel(OVERFLOW);
        }
    }

    fn write_control(&mut self, cx: &mut DeviceCx<'_>, value: u16) {
        self.control = value & (BUS_MASTER_RELOAD | 7 << SLEEP_TYPE_SHIFT);
        let kind = value >> SLEEP_TYPE_SHIFT & 7;
        if value & SLEEP_ENABLE != 0 && kind == u16::from(SLEEP_TYPE_OFF) {
            cx.power(PowerEvent::Off);
        }
    }
}

impl Device for PowerManagement {
    fn name(&self) -> &'static str {
        NAME
    }

    fn reset(&mut self, cx: &mut DeviceCx<'_>) {
        *self = Self { changes_seen: Self::changes(cx.now), ..Self::new() };
        self.settle(cx);
    }

    fn save(&self) -> Section {
        Section::of(STATE_VERSION, self)
    }

    fn restore(&mut self, section: &Section) -> Result<(), SectionError> {
        let saved: Self = section.read(NAME, STATE_VERSION)?;
        // No run of 64 bits of nanoseconds sees more changes than this.
        if saved.changes_seen > Self::changes(VirtTime::NEVER) {
            return Err(SectionError::Damaged { device: NAME });
        }
        *self = saved;
        Ok(())
    }

    /// Bytes only: the board maps the ports so.
    fn port_read(&mut self, cx: &mut DeviceCx<'_>, port: u16, _size: u8) -> u32 {
        let registers = [
            u32::from(self.status(cx.now)) | u32::from(self.enable) << 16,
            u32::from(self.control | SCI_ENABLE),
            cx.now.ticks(TIMER_HZ) as u32,
        ];
        let at = port.wrapping_sub(EVENT_PORT);
        match registers.get(usize::from(at / 4)) {
            Some(register) => register >> (8 * (at % 4)) & 0xff,
            None => u32::MAX,
        }
    }

    /// Bytes only; sleep type and sleep enable are in one byte.
    fn port_write(&mut self, cx: &mut DeviceCx<'_>, port: u16, _size: u8, value: u32) {
        let byte = value as u16 & 0xff;
        let insert = |register: u16, high: bool| match high {
            false => register & 0xff00 | byte,
            true => register & 0x00ff | byte << 8,
        };
        match port.wrapping_sub(EVENT_PORT) {
            at @ (0 | 1) => {
                let cleared = insert(0, at == 1);
                self.status &= !cleared;
                if cleared & TIMER != 0 {
                    self.changes_seen = Self::changes(cx.now);
                }
            }
            at @ (2 | 3) => self.enable = insert(self.enable, at == 3) & ENABLES,
            at @ (4 | 5) => self.write_control(cx, insert(self.control, at == 5)),
            _ => {}
        }
        self.settle(cx);
    }

    fn on_timer(&mut self, cx: &mut DeviceCx<'_>, _index: u8) {
        self.settle(cx);
    }

    fn on_input(&mut self, cx: &mut DeviceCx<'_>, input: Input) {
        if input == Input::PowerButton {
            self.status |= POWER_BUTTON;
            self.settle(cx);
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
            ports: vec![(EVENT_PORT..=LAST_PORT, PortWidth::Byte)],
            inputs: vec![Input::PowerButton],
            ..Socket::default()
        }
    }

    impl Bench {
        fn word(&mut self, port: u16) -> u16 {
            self.bus.port_read(self.now, port, 2) as u16
        }

        fn set_word(&mut self, port: u16, value: u16) {
            self.bus.port_write(self.now, port, 2, value.into());
        }
    }

    #[test]
    fn keeps_the_rules_of_saving() {
        conformance(PowerManagement::new, &socket());
    }

    #[test]
    fn the_timer_counts_and_tells_of_its_top_bit() {
        let mut b = Bench::new(PowerManagement::new(), &socket());
        b.now = VirtTime(1_000_000_000);
        assert_eq!(b.bus.port_read(b.now, TIMER_PORT, 4), 3_579_545);
        assert_eq!(b.next_deadline(), VirtTime::NEVER, "nobody wants to hear of it");
        b.set_word(EVENT_PORT + 2, TIMER);
        let change = VirtTime::of_ticks(1 << 31, TIMER_HZ);
        assert_eq!(b.next_deadline(), change);
        b.run_to(VirtTime(change.0 - 1));
        assert_eq!((b.wire(IRQ9_SCI), b.word(EVENT_PORT)), (false, 0));
        b.run_to(change);
        assert_eq!((b.wire(IRQ9_SCI), b.word(EVENT_PORT)), (true, TIMER));
        b.set_word(EVENT_PORT, TIMER);
        assert_eq!((b.wire(IRQ9_SCI), b.word(EVENT_PORT)), (false, 0));
        assert_eq!(b.next_deadline(), VirtTime::of_ticks(2 << 31, TIMER_HZ), "and again at the next");
    }

    #[test]
    fn the_power_button_interrupts_when_enabled() {
        let mut b = Bench::new(PowerManagement::new(), &socket());
        b.input(Input::PowerButton);
        assert_eq!((b.wire(IRQ9_SCI), b.word(EVENT_PORT)), (false, POWER_BUTTON));
        b.set_word(EVENT_PORT + 2, POWER_BUTTON);
        assert!(b.wire(IRQ9_SCI));
        b.set_word(EVENT_PORT, POWER_BUTTON);
        assert!(!b.wire(IRQ9_SCI));
    }

    #[test]
    fn sleeping_turns_power_off_and_other_types_do_not() {
        let mut b = Bench::new(PowerManagement::new(), &socket());
        assert_eq!(b.word(CONTROL_PORT), SCI_ENABLE);
        b.set_word(CONTROL_PORT, SLEEP_ENABLE | 1 << SLEEP_TYPE_SHIFT);
        b.set_word(CONTROL_PORT, 5 << SLEEP_TYPE_SHIFT);
        assert_eq!(b.bus.power(), None);
        b.set_word(CONTROL_PORT, SLEEP_ENABLE | 5 << SLEEP_TYPE_SHIFT);
        assert_eq!(b.bus.power(), Some(PowerEvent::Off));
    }
}
