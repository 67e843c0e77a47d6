//! The keyboard controller of a PC, with a PS/2 keyboard and mouse plugged in.
//!
//! Not responsible for: what the two devices say (`keyboard`, `mouse`), the address line A20 (always open: nothing
//! here wraps at 1 MiB), host keys to scan codes.
//!
//! Commands as in the IBM PS/2 Hardware Interface Technical Reference (1988), "Keyboard and Auxiliary Device
//! Controller".

mod keyboard;
mod mouse;
mod scancodes;

use crate::wiring::{IRQ1_KEYBOARD, IRQ12_MOUSE};
use gemel_machine::{Device, DeviceCx, Input, PowerEvent, Section, SectionError};
use keyboard::Keyboard;
use mouse::Mouse;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;

const VERSION: u16 = 1;
/// The one timer: the next byte of a device is complete.
const BYTE: u8 = 0;
/// A byte on a PS/2 line: 11 bits at 12.5 kHz. Shorter, and drivers that wait for the output buffer to empty
/// between two bytes would meet the next one.
const BYTE_NS: u64 = 880_000;

const DATA: u16 = 0x60;
const COMMAND: u16 = 0x64;

/// Status: output buffer full.
const OUTPUT_FULL: u8 = 1 << 0;
/// Status: the self test has passed.
const SYSTEM: u8 = 1 << 2;
/// Status: the last write was a command.
const WAS_COMMAND: u8 = 1 << 3;
/// Status: the keyboard is not locked.
const UNLOCKED: u8 = 1 << 4;
/// Status: the output buffer's byte is from the mouse.
const FROM_MOUSE: u8 = 1 << 5;

/// Command byte: interrupt when a byte of the keyboard arrives.
const KEYBOARD_INTERRUPT: u8 = 1 << 0;
/// Command byte: the same for the mouse.
const MOUSE_INTERRUPT: u8 = 1 << 1;
/// Command byte: keyboard clock held.
const KEYBOARD_OFF: u8 = 1 << 4;
/// Command byte: mouse clock held.
const MOUSE_OFF: u8 = 1 << 5;
/// Command byte: translate set 2 to set 1.
const TRANSLATE: u8 = 1 << 6;
/// What firmware leaves: translation, keyboard interrupt, self test passed, mouse off.
const COMMAND_BYTE: u8 = TRANSLATE | MOUSE_OFF | SYSTEM | KEYBOARD_INTERRUPT;

/// Output port: reset line, active low, and A20.
const OUTPUT_PORT: u8 = 0x03;
const NOT_RESET: u8 = 1 << 0;
/// Output port bits that show the output buffer: keyboard's byte, mouse's byte.
const KEYBOARD_FULL: u8 = 1 << 4;
const MOUSE_FULL: u8 = 1 << 5;

/// Answers of the controller that wait for the output buffer.
const ANSWERS: usize = 16;

/// The controller.
pub struct I8042 {
    keyboard: Keyboard,
    mouse: Mouse,
    registers: Registers,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
struct Registers {
    /// The command byte is byte 0.
    ram: [u8; 32],
    /// The status register's system flag: set by the self test, and to what a command byte says.
    system: bool,
    output_port: u8,
    was_command: bool,
    /// The command that waits for its argument at the data port.
    command: Option<u8>,
    /// The output buffer, and what was in it last.
    output: Byte,
    full: bool,
    /// Answers of the controller itself; they come before the devices' bytes.
    answers: VecDeque<Byte>,
    /// A byte of a device is on its line; the timer is armed.
    on_line: bool,
    /// The keyboard's last byte was a release code that translation swallowed.
    releasing: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
struct Byte {
    value: u8,
    from_mouse: bool,
}

impl Registers {
    fn power_on() -> Self {
        let mut ram = [0; 32];
        ram[0] = COMMAND_BYTE;
        Self {
            ram,
            system: true,
            output_port: OUTPUT_PORT,
            was_command: false,
            command: None,
            output: Byte { value: 0, from_mouse: false },
            full: false,
            answers: VecDeque::new(),
            on_line: false,
            releasing: false,
        }
    }
}

impl Default for I8042 {
    fn default() -> Self {
        Self::new()
    }
}

impl I8042 {
    /// Ports: data, status and command.
    pub const PORTS: [std::ops::RangeInclusive<u16>; 2] = [DATA..=DATA, COMMAND..=COMMAND];

    /// A controller as firmware leaves it: tested, translating.
    pub fn new() -> Self {
        Self { keyboard: Keyboard::new(), mouse: Mouse::new(), registers: Registers::power_on() }
    }

    fn command_byte(&self) -> u8 {
        self.registers.ram[0]
    }

    /// The output buffer's interrupt lines.
    fn drive(&self, cx: &mut DeviceCx<'_>) {
        let Registers { full, output, .. } = self.registers;
        let enabled = |bit| full && self.command_byte() & bit != 0;
        cx.wires.set(IRQ1_KEYBOARD, !output.from_mouse && enabled(KEYBOARD_INTERRUPT));
        cx.wires.set(IRQ12_MOUSE, output.from_mouse && enabled(MOUSE_INTERRUPT));
    }

    /// Fills the empty output buffer: with an answer at once, with a device's byte after its time on the line.
    fn fill(&mut self, cx: &mut DeviceCx<'_>) {
        if !self.registers.full {
            if let Some(answer) = self.registers.answers.pop_front() {
                self.registers.output = answer;
                self.registers.full = true;
            } else if !self.registers.on_line && (self.keyboard_waits() || self.mouse_waits()) {
                self.registers.on_line = true;
                cx.arm(BYTE, cx.now.after(BYTE_NS));
            }
        }
        self.drive(cx);
    }

    fn keyboard_waits(&self) -> bool {
        self.command_byte() & KEYBOARD_OFF == 0 && self.keyboard.has_bytes()
    }

    fn mouse_waits(&self) -> bool {
        self.command_byte() & MOUSE_OFF == 0 && self.mouse.has_bytes()
    }

    /// A device's byte is complete: the keyboard's first.
    fn take_byte(&mut self) -> Option<Byte> {
        while self.keyboard_waits() {
            let byte = self.keyboard.take()?;
            let value = if self.command_byte() & TRANSLATE != 0 {
                scancodes::translate(byte, &mut self.registers.releasing)
            } else {
                Some(byte)
            };
            if let Some(value) = value {
                return Some(Byte { value, from_mouse: false });
            }
        }
        if !self.mouse_waits() {
            return None;
        }
        self.mouse.take().map(|value| Byte { value, from_mouse: true })
    }

    fn answer(&mut self, value: u8) {
        self.answer_as(value, false);
    }

    fn answer_as(&mut self, value: u8, from_mouse: bool) {
        if self.registers.answers.len() < ANSWERS {
            self.registers.answers.push_back(Byte { value, from_mouse });
        }
    }

    fn status(&self) -> u8 {
        let Registers { full, output, was_command, .. } = self.registers;
        UNLOCKED
            | if self.registers.system { SYSTEM } else { 0 }
            | if full { OUTPUT_FULL } else { 0 }
            | if full && output.from_mouse { FROM_MOUSE } else { 0 }
            | if was_command { WAS_COMMAND } else { 0 }
    }

    fn set_output_port(&mut self, cx: &mut DeviceCx<'_>, value: u8) {
        self.registers.output_port = value & OUTPUT_PORT;
        if value & NOT_RESET == 0 {
            cx.power(PowerEvent::Reset);
        }
    }

    fn write_command(&mut self, cx: &mut DeviceCx<'_>, command: u8) {
        self.registers.was_command = true;
        self.registers.command = None;
        match command {
            0x20..=0x3f => self.answer(self.registers.ram[usize::from(command & 31)]),
            0x60..=0x7f | 0xd1..=0xd4 => self.registers.command = Some(command),
            0xa4 => self.answer(0xf1), // no password
            0xa7 => self.registers.ram[0] |= MOUSE_OFF,
            0xa8 => self.registers.ram[0] &= !MOUSE_OFF,
            0xa9 | 0xab => self.answer(0x00), // the interface's lines are not stuck
            0xaa => {
                self.registers.system = true;
                self.answer(0x55);
            }
            0xad => self.registers.ram[0] |= KEYBOARD_OFF,
            0xae => self.registers.ram[0] &= !KEYBOARD_OFF,
            0xc0 => self.answer(0x80), // input port: keyboard not locked
            0xd0 => {
                let Registers { output_port, full, output, .. } = self.registers;
                let keyboard = if full && !output.from_mouse { KEYBOARD_FULL } else { 0 };
                let mouse = if full && output.from_mouse { MOUSE_FULL } else { 0 };
                self.answer(output_port | keyboard | mouse);
            }
            0xe0 => self.answer(0x00), // test inputs: both clocks low
            0xf0..=0xff if command & NOT_RESET == 0 => cx.power(PowerEvent::Reset),
            _ => {}
        }
    }

    fn write_data(&mut self, cx: &mut DeviceCx<'_>, value: u8) {
        self.registers.was_command = false;
        match self.registers.command.take() {
            Some(0x60) => {
                self.registers.ram[0] = value;
                self.registers.system = value & SYSTEM != 0;
            }
            Some(command @ 0x61..=0x7f) => self.registers.ram[usize::from(command & 31)] = value,
            Some(0xd1) => self.set_output_port(cx, value),
            Some(0xd2) => self.answer(value),
            Some(0xd3) => self.answer_as(value, true),
            Some(0xd4) => {
                // Talking to a device starts its clock.
                self.registers.ram[0] &= !MOUSE_OFF;
                self.mouse.write(value);
            }
            _ => {
                self.registers.ram[0] &= !KEYBOARD_OFF;
                self.keyboard.write(value);
            }
        }
    }
}

impl Device for I8042 {
    fn name(&self) -> &'static str {
        "i8042"
    }

    fn reset(&mut self, cx: &mut DeviceCx<'_>) {
        *self = Self::new();
        cx.cancel(BYTE);
        self.drive(cx);
    }

    fn save(&self) -> Section {
        let Self { keyboard, mouse, registers } = self;
        Section::of(VERSION, &(keyboard, mouse, registers))
    }

    fn restore(&mut self, section: &Section) -> Result<(), SectionError> {
        let (keyboard, mouse, registers): (Keyboard, Mouse, Registers) =
            section.read(self.name(), VERSION)?;
        if !keyboard.is_sound() || !mouse.is_sound() || registers.answers.len() > ANSWERS {
            return Err(SectionError::Damaged { device: self.name() });
        }
        *self = Self { keyboard, mouse, registers };
        Ok(())
    }

    fn port_read(&mut self, cx: &mut DeviceCx<'_>, port: u16, _size: u8) -> u32 {
        let value = match port {
            DATA => {
                let value = self.registers.output.value;
                if self.registers.full {
                    // The line falls before the next byte raises it again.
                    self.registers.full = false;
                    self.drive(cx);
                    self.fill(cx);
                }
                value
            }
            COMMAND => self.status(),
            _ => 0xff,
        };
        value.into()
    }

    fn port_write(&mut self, cx: &mut DeviceCx<'_>, port: u16, _size: u8, value: u32) {
        match port {
            DATA => self.write_data(cx, value as u8),
            COMMAND => self.write_command(cx, value as u8),
            _ => {}
        }
        self.fill(cx);
    }

    fn on_timer(&mut self, cx: &mut DeviceCx<'_>, _index: u8) {
        self.registers.on_line = false;
        if !self.registers.full
            && let Some(byte) = self.take_byte()
        {
            self.registers.output = byte;
            self.registers.full = true;
        }
        self.fill(cx);
    }

    fn on_input(&mut self, cx: &mut DeviceCx<'_>, input: Input) {
        match input {
            Input::Key(codes) => self.keyboard.type_codes(&codes),
            Input::Mouse { dx, dy, buttons } => self.mouse.moves(dx, dy, buttons),
            _ => return,
        }
        self.fill(cx);
    }
}

#[cfg(test)]
mod tests;
