use super::*;
use crate::apic::{LocalApic, lapic};
use crate::conformance::{Bench, Seen, Socket, conformance};
use gemel_machine::bus::BusBuilder;
use gemel_machine::{Bus, GuestRam, VirtTime};
use gemel_x86::CpuModel;
use std::sync::Arc;

fn socket() -> Socket {
    Socket { windows: vec![(BASE, 0x20)], pins: (20..20 + u16::from(PINS)).collect(), ..Socket::default() }
}

impl Bench {
    fn ioapic(&mut self, register: u8) -> u32 {
        self.bus.mmio_write(self.now, BASE, 4, register.into());
        self.bus.mmio_read(self.now, BASE + 0x10, 4) as u32
    }

    fn set_ioapic(&mut self, register: u8, value: u32) {
        self.bus.mmio_write(self.now, BASE, 4, register.into());
        self.bus.mmio_write(self.now, BASE + 0x10, 4, value.into());
    }

    fn messages(&mut self) -> Vec<(u64, u32)> {
        let seen = self.seen().into_iter();
        seen.filter_map(|(_, s)| if let Seen::Message(a, d) = s { Some((a, d)) } else { None }).collect()
    }
}

#[test]
fn keeps_the_rules_of_saving() {
    conformance(IoApic::new, &socket());
}

#[test]
fn reset_values_of_the_datasheet() {
    let mut b = Bench::new(IoApic::new(), &socket());
    assert_eq!(b.ioapic(1), 0x0017_0011);
    assert_eq!([b.ioapic(0x10), b.ioapic(0x3e)], [0x1_0000; 2]);
    b.set_ioapic(0x11, 0xab00_0000);
    b.set_ioapic(0x10, 0xffff_ffff);
    assert_eq!(
        [b.ioapic(0x10), b.ioapic(0x11)],
        [0x1_afff, 0xab00_0000],
        "status and remote IRR are read-only"
    );
}

#[test]
fn an_edge_is_one_message_and_is_lost_while_masked() {
    let mut b = Bench::new(IoApic::new(), &socket());
    b.set_ioapic(0x10 + 2 * 4, 0x31);
    b.set_wire(24, true);
    assert_eq!(b.messages(), [(0xfee0_0000, 0x31)]);
    b.set_wire(24, false);
    assert_eq!(b.messages(), []);
    b.set_ioapic(0x10 + 2 * 4, 0x1_0031);
    b.set_wire(24, true);
    b.set_ioapic(0x10 + 2 * 4, 0x31);
    assert_eq!(b.messages(), []);
}

#[test]
fn switching_to_edge_and_back_clears_remote_irr() {
    let mut b = Bench::new(IoApic::new(), &socket());
    b.set_ioapic(0x10, 0x8031);
    b.set_wire(20, true);
    assert_eq!((b.ioapic(0x10), b.messages().len()), (0xc031, 1));
    b.set_ioapic(0x10, 0x1_0031);
    b.set_ioapic(0x10, 0x8031);
    assert_eq!((b.ioapic(0x10), b.messages().len()), (0xc031, 1), "and the level asks again");
}

/// Drives wires from outside: a store of a level to its window sets wire `address - HAND`.
struct Hand;
const HAND: u64 = 0xf000_0000;

impl Device for Hand {
    fn name(&self) -> &'static str {
        "hand"
    }
    fn reset(&mut self, _cx: &mut DeviceCx<'_>) {}
    fn save(&self) -> Section {
        Section::of(1, &())
    }
    fn restore(&mut self, section: &Section) -> Result<(), SectionError> {
        section.read("hand", 1)
    }
    fn mmio_write(&mut self, cx: &mut DeviceCx<'_>, address: u64, _size: u8, value: u64) {
        cx.wires.set((address - HAND) as u16, value != 0);
    }
}

/// Both APICs on one bus, one wire for each pin.
fn both() -> Bus {
    let mut board = BusBuilder::new(Arc::new(GuestRam::new(1 << 20).unwrap()), usize::from(PINS));
    let lapic = board.add(LocalApic::new(&CpuModel::x86_64_v2()));
    let ioapic = board.add(IoApic::new());
    let hand = board.add(Hand);
    board.cpu_interrupts(&[lapic]).end_of_interrupt(ioapic);
    board.window(BASE, WINDOW, ioapic).window(lapic::BASE, lapic::WINDOW, lapic).window(HAND, 64, hand);
    for pin in 0..PINS {
        board.connect(pin.into(), ioapic, pin);
    }
    board.build()
}

#[test]
fn a_level_asks_again_at_each_end_until_it_falls() {
    let mut bus = both();
    let now = VirtTime(0);
    let eoi = |bus: &mut Bus| bus.mmio_write(now, lapic::BASE + 0xb0, 4, 0);
    for pin in [16u64, 17] {
        bus.mmio_write(now, BASE, 4, 0x10 + 2 * pin);
        bus.mmio_write(now, BASE + 0x10, 4, 0xa061); // level, active low, vector 61h: shared by two pins
    }
    bus.mmio_write(now, HAND + 16, 1, 1);
    for _ in 0..3 {
        assert!(bus.interrupt_pending());
        assert_eq!(bus.acknowledge(now), 0x61);
        assert!(!bus.interrupt_pending(), "once until its end");
        assert_eq!(bus.mmio_read(now, lapic::BASE + 0x1b0, 4), 1 << 1, "TMR of 60h-7fh");
        eoi(&mut bus);
    }
    assert_eq!(bus.acknowledge(now), 0x61);
    bus.mmio_write(now, HAND + 16, 1, 0);
    bus.mmio_write(now, HAND + 17, 1, 1);
    assert!(bus.interrupt_pending() || bus.mmio_read(now, lapic::BASE + 0x230, 4) & 2 != 0);
    eoi(&mut bus);
    assert_eq!(bus.acknowledge(now), 0x61, "the other pin of the vector");
    bus.mmio_write(now, HAND + 17, 1, 0);
    eoi(&mut bus);
    assert!(!bus.interrupt_pending());
}
