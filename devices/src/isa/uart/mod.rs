//! The 16550A serial port.
//!
//! Not responsible for: what is at the other end of the line (a world's).
//!
//! The line has no noise, no parity errors and no breaks. Bytes for the guest wait on the line while the receiver
//! has no room, as with a peer that obeys flow control, so that nothing typed is lost; the world's window
//! ([`SERIAL_WINDOW`]) bounds how many. Bytes from the guest leave at the moment of the guest's write, so that nothing
//! is lost when the power goes; the transmitter is busy with them for as long as the line takes all the same.
//! Headings in brackets are those of the National PC16550D datasheet.

mod registers;

use crate::wiring::{IRQ3_SERIAL1, IRQ4_SERIAL0};
use gemel_machine::world::SERIAL_WINDOW;
use gemel_machine::{Device, DeviceCx, Input, Output, Section, SectionError, VirtTime, Wire};
use registers::*;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;

const VERSION: u16 = 1;
const FIFO: usize = 16;
/// The crystal: 16 ticks a bit at divisor 1 (115200 bit/s).
const UART_HZ: u64 = 1_843_200;
const TICKS_A_BIT: u64 = 16;

/// Timers: the transmit shift register is empty; a byte has arrived; the receive time-out.
const SENT: u8 = 0;
const ARRIVED: u8 = 1;
const TIMEOUT: u8 = 2;

/// Where a port is, and which wire it interrupts on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Place {
    name: &'static str,
    number: u8,
    ports: u16,
    irq: Wire,
}

/// A serial port.
pub struct Uart {
    place: Place,
    state: State,
}

#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
struct State {
    ier: u8,
    fcr: u8,
    lcr: u8,
    mcr: u8,
    /// Modem inputs and their deltas.
    msr: u8,
    scr: u8,
    divisor: u16,
    overrun: bool,
    /// The interrupt "transmit holding register empty" waits; reading IIR takes it away.
    transmit_wants: bool,
    /// The interrupt "receive time-out" waits; reading a byte takes it away.
    timed_out: bool,
    received: VecDeque<Byte>,
    /// Bytes that the world sent and the receiver has not got yet.
    line: VecDeque<u8>,
    /// When the first of them is complete, in ticks; `None` while the line is empty or held.
    arrives: Option<u64>,
    holding: VecDeque<Byte>,
    shifting: Option<Byte>,
    /// When the shift register is empty, in ticks.
    sent_at: u64,
}

/// A byte in the chip.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
struct Byte {
    value: u8,
    /// It comes from the transmitter or goes to the receiver of this chip.
    looped: bool,
}

impl State {
    fn power_on() -> Self {
        Self { msr: MSR_CONNECTED, ..Self::default() }
    }

    fn is_sound(&self) -> bool {
        self.received.len() <= FIFO
            && self.holding.len() <= FIFO
            && self.line.len() <= SERIAL_WINDOW
            && self.sent_at < 1 << 62
            && self.arrives.is_none_or(|at| at < 1 << 62)
    }

    fn fifos(&self) -> bool {
        self.fcr & FCR_ENABLE != 0
    }

    fn depth(&self) -> usize {
        if self.fifos() { FIFO } else { 1 }
    }

    /// Bytes in the receive FIFO that raise the interrupt [FIFO Control Register].
    fn trigger(&self) -> usize {
        match (self.fifos(), self.fcr >> 6) {
            (false, _) | (true, 0) => 1,
            (true, 1) => 4,
            (true, 2) => 8,
            (true, _) => 14,
        }
    }

    /// Ticks that a character takes on the line: start, data, parity and stop bits. A divisor of zero counts as one.
    fn character(&self) -> u64 {
        let data = 5 + u64::from(self.lcr & 3);
        let parity = u64::from(self.lcr >> 3 & 1);
        let halves = 2 * (1 + data + parity)
            + match (self.lcr & 4 != 0, data) {
                (false, _) => 2,
                (true, 5) => 3,
                (true, _) => 4,
            };
        halves * TICKS_A_BIT / 2 * u64::from(self.divisor.max(1))
    }

    /// What IIR shows, by priority.
    fn interrupt(&self) -> u8 {
        if self.ier & IER_LINE != 0 && self.overrun {
            IIR_LINE
        } else if self.ier & IER_RECEIVE != 0 && self.received.len() >= self.trigger() {
            IIR_RECEIVE
        } else if self.ier & IER_RECEIVE != 0 && self.timed_out {
            IIR_TIMEOUT
        } else if self.ier & IER_TRANSMIT != 0 && self.transmit_wants {
            IIR_TRANSMIT
        } else if self.ier & IER_MODEM != 0 && self.msr & 0x0f != 0 {
            IIR_MODEM
        } else {
            IIR_NONE
        }
    }

    /// Brings the modem inputs up to the control register: in loopback they are its outputs [Modem Control Register].
    fn connect_modem(&mut self) {
        let inputs = if self.mcr & MCR_LOOP != 0 {
            let bit = |from: u32, to: u32| (self.mcr >> from & 1) << to;
            bit(1, 4) | bit(0, 5) | bit(2, 6) | bit(3, 7)
        } else {
            MSR_CONNECTED
        };
        let changed = (self.msr ^ inputs) & 0xf0;
        // The ring indicator notes only that it ended.
        let noted = changed & !(MSR_RING & inputs);
        self.msr = inputs | self.msr & 0x0f | noted >> 4;
    }
}

impl Uart {
    /// The first serial port: 0x3f8, IRQ 4.
    pub fn first() -> Self {
        let place = Place { name: "uart0", number: 0, ports: 0x3f8, irq: IRQ4_SERIAL0 };
        Self { place, state: State::power_on() }
    }

    /// The second serial port: 0x2f8, IRQ 3.
    pub fn second() -> Self {
        let place = Place { name: "uart1", number: 1, ports: 0x2f8, irq: IRQ3_SERIAL1 };
        Self { place, state: State::power_on() }
    }

    /// The eight ports.
    pub fn ports(&self) -> std::ops::RangeInclusive<u16> {
        self.place.ports..=self.place.ports + 7
    }

    fn drive(&self, cx: &mut DeviceCx<'_>) {
        let connected = self.state.mcr & (MCR_OUT2 | MCR_LOOP) == MCR_OUT2;
        cx.wires.set(self.place.irq, connected && self.state.interrupt() != IIR_NONE);
    }

    fn consumed(&self, cx: &mut DeviceCx<'_>, count: usize) {
        if count > 0 {
            cx.emit(Output::SerialConsumed { port: self.place.number, count: count as u16 });
        }
    }

    // Transmitter.

    fn write_data(&mut self, cx: &mut DeviceCx<'_>, value: u8) {
        let looped = self.state.mcr & MCR_LOOP != 0;
        if !looped {
            cx.emit(Output::Serial { port: self.place.number, byte: value });
        }
        // A guest that writes without asking whether there is room loses bytes on a real chip. Here they have left
        // already, and only the transmitter does not get busier than full.
        if self.state.holding.len() == self.state.depth() {
            self.state.holding.pop_back();
        }
        self.state.holding.push_back(Byte { value, looped });
        self.state.transmit_wants = false;
        if self.state.shifting.is_none() {
            self.shift(cx, cx.now.ticks(UART_HZ));
        }
    }

    /// Moves the next byte into the shift register at a tick.
    fn shift(&mut self, cx: &mut DeviceCx<'_>, at: u64) {
        let state = &mut self.state;
        state.shifting = state.holding.pop_front();
        if state.shifting.is_some() {
            state.transmit_wants |= state.holding.is_empty();
            state.sent_at = at + state.character();
            cx.arm(SENT, VirtTime::of_ticks(state.sent_at, UART_HZ));
        }
    }

    // Receiver.

    /// Starts the next byte on the line, if there is one and room for it.
    fn pull_line(&mut self, cx: &mut DeviceCx<'_>, from: u64) {
        let state = &mut self.state;
        let room = state.received.len() < state.depth() && state.mcr & MCR_LOOP == 0;
        if state.arrives.is_none() && room && !state.line.is_empty() {
            let at = from + state.character();
            state.arrives = Some(at);
            cx.arm(ARRIVED, VirtTime::of_ticks(at, UART_HZ));
        }
    }

    fn receive(&mut self, cx: &mut DeviceCx<'_>, byte: Byte) {
        if self.state.received.len() >= self.state.depth() {
            self.state.overrun = true;
            self.consumed(cx, usize::from(!byte.looped));
            if !self.state.fifos() {
                // Without FIFOs the new character replaces the old one [Line Status Register].
                if let Some(old) = self.state.received.pop_front() {
                    self.consumed(cx, usize::from(!old.looped));
                }
                self.state.received.push_back(byte);
            }
        } else {
            self.state.received.push_back(byte);
        }
        self.watch_receiver(cx);
    }

    /// Starts the time-out anew: four characters without a byte received or read [FIFO Interrupt Mode Operation].
    fn watch_receiver(&mut self, cx: &mut DeviceCx<'_>) {
        if self.state.fifos() && !self.state.received.is_empty() {
            let at = cx.now.ticks(UART_HZ) + 4 * self.state.character();
            cx.arm(TIMEOUT, VirtTime::of_ticks(at, UART_HZ));
        } else {
            cx.cancel(TIMEOUT);
        }
    }

    fn read_data(&mut self, cx: &mut DeviceCx<'_>) -> u8 {
        let Some(byte) = self.state.received.pop_front() else { return 0 };
        self.state.timed_out = false;
        self.consumed(cx, usize::from(!byte.looped));
        self.watch_receiver(cx);
        self.pull_line(cx, cx.now.ticks(UART_HZ));
        byte.value
    }

    fn clear_received(&mut self, cx: &mut DeviceCx<'_>) {
        let count = self.state.received.drain(..).filter(|byte| !byte.looped).count();
        self.state.timed_out = false;
        self.consumed(cx, count);
        self.watch_receiver(cx);
        self.pull_line(cx, cx.now.ticks(UART_HZ));
    }

    // Registers.

    fn write_fifo_control(&mut self, cx: &mut DeviceCx<'_>, value: u8) {
        let switched = (value ^ self.state.fcr) & FCR_ENABLE != 0;
        // The other bits are only taken together with the enable bit [FIFO Control Register].
        self.state.fcr = if value & FCR_ENABLE != 0 { value & 0xc9 } else { 0 };
        if switched || value & FCR_CLEAR_RECEIVE != 0 {
            self.clear_received(cx);
        }
        if switched || value & FCR_CLEAR_TRANSMIT != 0 {
            self.state.transmit_wants |= !self.state.holding.is_empty();
            self.state.holding.clear();
        }
    }

    fn read_interrupt(&mut self) -> u8 {
        let source = self.state.interrupt();
        if source == IIR_TRANSMIT {
            self.state.transmit_wants = false;
        }
        source | if self.state.fifos() { IIR_FIFOS } else { 0 }
    }

    fn read_line_status(&mut self) -> u8 {
        let state = &mut self.state;
        let mut lsr = 0;
        if !state.received.is_empty() {
            lsr |= LSR_DATA;
        }
        if std::mem::take(&mut state.overrun) {
            lsr |= LSR_OVERRUN;
        }
        if state.holding.is_empty() {
            lsr |= LSR_HOLDING_EMPTY;
            if state.shifting.is_none() {
                lsr |= LSR_EMPTY;
            }
        }
        lsr
    }
}

impl Device for Uart {
    fn name(&self) -> &'static str {
        self.place.name
    }

    /// The line is not the chip's: what waits on it stays there.
    fn reset(&mut self, cx: &mut DeviceCx<'_>) {
        let lost = self.state.received.iter().filter(|byte| !byte.looped).count();
        self.consumed(cx, lost);
        let line = std::mem::take(&mut self.state.line);
        self.state = State { line, ..State::power_on() };
        for timer in [SENT, ARRIVED, TIMEOUT] {
            cx.cancel(timer);
        }
        self.pull_line(cx, cx.now.ticks(UART_HZ));
        self.drive(cx);
    }

    fn save(&self) -> Section {
        let Self { place: _, state } = self;
        Section::of(VERSION, state)
    }

    fn restore(&mut self, section: &Section) -> Result<(), SectionError> {
        let state: State = section.read(self.name(), VERSION)?;
        if !state.is_sound() {
            return Err(SectionError::Damaged { device: self.name() });
        }
        self.state = state;
        Ok(())
    }

    fn port_read(&mut self, cx: &mut DeviceCx<'_>, port: u16, _size: u8) -> u32 {
        let latch = self.state.lcr & LCR_DLAB != 0;
        let [low, high] = self.state.divisor.to_le_bytes();
        let value = match port.wrapping_sub(self.place.ports) {
            DATA if latch => low,
            IER if latch => high,
            DATA => self.read_data(cx),
            IER => self.state.ier,
            IIR_FCR => self.read_interrupt(),
            LCR => self.state.lcr,
            MCR => self.state.mcr,
            LSR => self.read_line_status(),
            MSR => {
                let value = self.state.msr;
                self.state.msr &= 0xf0;
                value
            }
            SCR => self.state.scr,
            _ => 0xff,
        };
        self.drive(cx);
        value.into()
    }

    fn port_write(&mut self, cx: &mut DeviceCx<'_>, port: u16, _size: u8, value: u32) {
        let value = value as u8;
        let latch = self.state.lcr & LCR_DLAB != 0;
        let [low, high] = self.state.divisor.to_le_bytes();
        match port.wrapping_sub(self.place.ports) {
            DATA if latch => self.state.divisor = u16::from_le_bytes([value, high]),
            IER if latch => self.state.divisor = u16::from_le_bytes([low, value]),
            DATA => self.write_data(cx, value),
            IER => {
                // Enabling the interrupt while the register is empty raises it, and drivers rely on that.
                let enabled = value & !self.state.ier & IER_TRANSMIT != 0;
                self.state.transmit_wants |= enabled && self.state.holding.is_empty();
                self.state.ier = value & 0x0f;
            }
            IIR_FCR => self.write_fifo_control(cx, value),
            LCR => self.state.lcr = value,
            MCR => {
                self.state.mcr = value & MCR_WRITABLE;
                self.state.connect_modem();
                self.pull_line(cx, cx.now.ticks(UART_HZ));
            }
            SCR => self.state.scr = value,
            _ => {} // LSR and MSR are written only in factory tests
        }
        self.drive(cx);
    }

    fn on_timer(&mut self, cx: &mut DeviceCx<'_>, index: u8) {
        match index {
            SENT => {
                let sent_at = self.state.sent_at;
                if let Some(byte) = self.state.shifting.take()
                    && byte.looped
                {
                    self.receive(cx, byte);
                }
                self.shift(cx, sent_at);
            }
            ARRIVED => {
                let arrived = self.state.arrives.take();
                if self.state.mcr & MCR_LOOP == 0
                    && self.state.received.len() < self.state.depth()
                    && let Some(value) = self.state.line.pop_front()
                {
                    self.receive(cx, Byte { value, looped: false });
                }
                self.pull_line(cx, arrived.unwrap_or(cx.now.ticks(UART_HZ)));
            }
            _ => self.state.timed_out = !self.state.received.is_empty(),
        }
        self.drive(cx);
    }

    fn on_input(&mut self, cx: &mut DeviceCx<'_>, input: Input) {
        if let Input::Serial { bytes, .. } = input {
            let room = (SERIAL_WINDOW - self.state.line.len()).min(bytes.len());
            let (taken, lost) = bytes.split_at(room);
            self.state.line.extend(taken);
            self.consumed(cx, lost.len());
            self.pull_line(cx, cx.now.ticks(UART_HZ));
            self.drive(cx);
        }
    }
}

#[cfg(test)]
mod tests;
