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
mod tests {
    use super::*;
    use crate::conformance::{Bench, Seen, Socket, conformance};
    use gemel_machine::bus::PortWidth;

    fn socket() -> Socket {
        Socket {
            ports: vec![(Pit::PORTS, PortWidth::Byte), (PORT_B..=PORT_B, PortWidth::Byte)],
            ..Socket::default()
        }
    }

    fn tick(n: u64) -> VirtTime {
        VirtTime::of_ticks(n, PIT_HZ)
    }

    #[test]
    fn saves_and_restores() {
        conformance(Pit::new, &socket());
    }

    #[test]
    fn a_second_of_hundred_hertz_has_a_hundred_edges_at_exact_ticks() {
        let mut bench = Bench::new(Pit::new(), &socket());
        bench.outb(0x43, 0x34);
        bench.outb(0x40, (11_932 & 0xff) as u8);
        bench.outb(0x40, (11_932 >> 8) as u8);
        bench.seen();
        bench.run_to(VirtTime(1_000_000_000));
        let rises: Vec<_> =
            bench.seen().into_iter().filter(|(_, s)| *s == Seen::Level(0, true)).map(|(t, _)| t).collect();
        assert_eq!(rises.len(), 99);
        for (i, at) in rises.iter().enumerate() {
            assert_eq!(*at, tick(1 + 11_932 * (i as u64 + 1)), "edge {i}");
        }
    }

    /// What Linux's pit_calibrate_tsc does: channel 2 in mode 0 for 50 ms, OUT polled through port 0x61.
    #[test]
    fn channel_2_ends_at_the_exact_tick_in_port_61() {
        let mut bench = Bench::new(Pit::new(), &socket());
        bench.run_to(VirtTime(123_456));
        bench.outb(0x61, 0x01);
        bench.outb(0x43, 0xb0);
        bench.outb(0x42, (59_659 & 0xff) as u8);
        bench.outb(0x42, (59_659 >> 8) as u8);
        let end = tick(VirtTime(123_456).ticks(PIT_HZ) + 1 + 59_659);
        bench.run_to(VirtTime(end.0 - 1));
        assert_eq!(bench.inb(0x61) & 0x20, 0);
        bench.run_to(end);
        assert_eq!(bench.inb(0x61) & 0x20, 0x20);
        assert_eq!(bench.next_deadline(), VirtTime::NEVER, "channel 2 needs no timer");
    }

    #[test]
    fn latch_and_read_back() {
        let mut bench = Bench::new(Pit::new(), &socket());
        bench.outb(0x43, 0x34);
        bench.outb(0x40, 0x00);
        bench.outb(0x40, 0x10);
        bench.run_to(tick(1 + 0x123));
        bench.outb(0x43, 0x00);
        bench.run_to(tick(0x900));
        assert_eq!([bench.inb(0x40), bench.inb(0x40)], [0xdd, 0x0e]);
        // Status and count at once: OUT high, count taken, two bytes, mode 2; then the count.
        bench.outb(0x43, 0xc2);
        assert_eq!([bench.inb(0x40), bench.inb(0x40), bench.inb(0x40)], [0xb4, 0x01, 0x07]);
        // A fresh count is null until it is loaded at the end of the cycle.
        bench.outb(0x40, 0x00);
        bench.outb(0x40, 0x20);
        bench.outb(0x43, 0xe2);
        assert_eq!(bench.inb(0x40), 0xf4);
        bench.run_to(tick(1 + 0x1000));
        bench.outb(0x43, 0xe2);
        assert_eq!(bench.inb(0x40), 0xb4);
    }

    #[test]
    fn refresh_turns_over_every_18_ticks() {
        let mut bench = Bench::new(Pit::new(), &socket());
        let bits: Vec<_> = [0, 17, 18, 35, 36]
            .map(|n| {
                bench.run_to(tick(n));
                bench.inb(0x61) >> 4 & 1
            })
            .into();
        assert_eq!(bits, [0, 0, 1, 1, 0]);
    }
}
