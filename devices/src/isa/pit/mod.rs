//! The 8254 interval timer, and system control port B (0x61) with it: the port holds channel 2's gate and shows its
//! output.
//!
//! Not responsible for: how a counter counts (`counter`), sound.

mod counter;

use crate::wiring::IRQ0_TIMER;
use counter::Counter;
use gemel_machine::{Device, DeviceCx, Section, SectionError, VirtTime};

/// CLK of all three counters: a third of the NTSC colour carrier times four, 14.31818 MHz / 12.
pub const PIT_HZ: u64 = 1_193_182;

const VERSION: u16 = 1;
const DATA: std::ops::RangeInclusive<u16> = 0x40..=0x42;
const CONTROL: u16 = 0x43;
const PORT_B: u16 = 0x61;
/// Port B: gate of channel 2.
const GATE_2: u8 = 1 << 0;
/// Port B, writable bits: gate, speaker, parity and channel check enables.
const PORT_B_WRITABLE: u8 = 0x0f;
/// CLK ticks between two memory refreshes on an AT (channel 1 at 18, 15.09 us); each turns bit 4 of port B over.
const REFRESH_TICKS: u64 = 18;
/// The one timer: channel 0's next edge.
const EDGE: u8 = 0;

/// The timer chip. Only channel 0 has a wire, so only its edges need a timer of the board; the rest is worked out
/// when somebody looks.
pub struct Pit {
    counters: [Counter; 3],
    port_b: u8,
}

impl Default for Pit {
    fn default() -> Self {
        Self::new()
    }
}

impl Pit {
    /// The ports: counters, control word.
    pub const PORTS: std::ops::RangeInclusive<u16> = 0x40..=0x43;
    /// System control port B.
    pub const PORT_B: u16 = PORT_B;

    /// A timer chip as it is at power-on. Gates 0 and 1 are tied high, gate 2 is a bit of port B.
    pub const fn new() -> Self {
        Self { counters: [Counter::new(true), Counter::new(true), Counter::new(false)], port_b: 0 }
    }

    /// Puts IRQ0 where channel 0's OUT is, and arms its next edge.
    fn drive(&mut self, cx: &mut DeviceCx<'_>) {
        let t = cx.now.ticks(PIT_HZ);
        cx.wires.set(IRQ0_TIMER, self.counters[0].out(t));
        let edge = self.counters[0].next_edge(t);
        cx.arm(EDGE, edge.map_or(VirtTime::NEVER, |edge| VirtTime::of_ticks(edge, PIT_HZ)));
    }

    fn control(&mut self, t: u64, word: u8) {
        match word >> 6 {
            3 => {
                // 8254 datasheet, Read-Back Command: both latch bits are active low.
                for (i, counter) in self.counters.iter_mut().enumerate() {
                    if word & 2 << i != 0 {
                        if word & 0x20 == 0 {
                            counter.latch(t);
                        }
                        if word & 0x10 == 0 {
                            counter.latch_status(t);
                        }
                    }
                }
            }
            i if word & 0x30 == 0 => self.counters[usize::from(i)].latch(t),
            i => self.counters[usize::from(i)].control(t, word),
        }
    }
}

impl Device for Pit {
    fn name(&self) -> &'static str {
        "pit"
    }

    fn reset(&mut self, cx: &mut DeviceCx<'_>) {
        *self = Self::new();
        self.drive(cx);
    }

    fn save(&self) -> Section {
        let Self { counters, port_b } = self;
        Section::of(VERSION, &(counters, port_b))
    }

    fn restore(&mut self, section: &Section) -> Result<(), SectionError> {
        let (counters, port_b): ([Counter; 3], u8) = section.read(self.name(), VERSION)?;
        if !counters.iter().all(Counter::is_sound) {
            return Err(SectionError::Damaged { device: self.name() });
        }
        *self = Self { counters, port_b };
        Ok(())
    }

    fn port_read(&mut self, cx: &mut DeviceCx<'_>, port: u16, _size: u8) -> u32 {
        let t = cx.now.ticks(PIT_HZ);
        match port {
            _ if DATA.contains(&port) => u32::from(self.counters[usize::from(port - 0x40)].read(t)),
            PORT_B => {
                let refresh = ((t / REFRESH_TICKS) & 1) as u8;
                let out = u8::from(self.counters[2].out(t));
                u32::from(self.port_b | refresh << 4 | out << 5)
            }
            _ => u32::MAX, // the control word cannot be read
        }
    }

    fn port_write(&mut self, cx: &mut DeviceCx<'_>, port: u16, _size: u8, value: u32) {
        let t = cx.now.ticks(PIT_HZ);
        let byte = value as u8;
        match port {
            _ if DATA.contains(&port) => self.counters[usize::from(port - 0x40)].write(t, byte),
            CONTROL => self.control(t, byte),
            PORT_B => {
                self.port_b = byte & PORT_B_WRITABLE;
                self.counters[2].set_gate(t, byte & GATE_2 != 0);
            }
            _ => {}
        }
        self.drive(cx);
    }

    fn on_timer(&mut self, cx: &mut DeviceCx<'_>, _index: u8) {
        // Where guest time moves in coarser steps than a pulse lasts, the pulse is over by now and still counts.
        if self.counters[0].out(cx.now.ticks(PIT_HZ)) == cx.wires.level(IRQ0_TIMER) {
            let level = cx.wires.level(IRQ0_TIMER);
            cx.wires.set(IRQ0_TIMER, !level);
        }
        self.drive(cx);
    }
}

#[cfg(test)]
mod tests;
