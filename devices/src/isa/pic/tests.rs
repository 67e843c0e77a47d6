use super::*;
use crate::conformance::{Bench, Socket, conformance};
use gemel_machine::bus::PortWidth;

fn socket() -> Socket {
    Socket {
        ports: Pic::PORTS.into_iter().map(|range| (range, PortWidth::Byte)).collect(),
        pins: (0..16).collect(),
        controller: true,
        ..Socket::default()
    }
}

/// A pair initialised as every PC firmware does: vectors 08h and 70h, ICW4 as given.
fn bench(icw4: u8) -> Bench {
    let mut bench = Bench::new(Pic::new(), &socket());
    for (port, base, icw3) in [(0x20, 0x08, 0x04), (0xa0, 0x70, 0x02)] {
        bench.outb(port, 0x11);
        for value in [base, icw3, icw4] {
            bench.outb(port + 1, value);
        }
    }
    bench
}

fn acknowledge(bench: &mut Bench) -> u8 {
    bench.bus.acknowledge(bench.now)
}

fn pulse(bench: &mut Bench, wire: u16) {
    bench.set_wire(wire, false);
    bench.set_wire(wire, true);
}

/// IRR and ISR of the chip at an even port.
fn registers(bench: &mut Bench, port: u16) -> (u8, u8) {
    bench.outb(port, 0x0a);
    let irr = bench.inb(port);
    bench.outb(port, 0x0b);
    (irr, bench.inb(port))
}

#[test]
fn saves_and_restores() {
    conformance(Pic::new, &socket());
}

#[test]
fn silent_until_initialised() {
    let mut bench = Bench::new(Pic::new(), &socket());
    bench.set_wire(3, true);
    assert!(!bench.bus.interrupt_pending() && !bench.wire(PIC_INTR));
    // How Linux's probe_8259A tells a chip from nothing.
    bench.outb(0xa1, 0xff);
    bench.outb(0x21, 0xfb);
    assert_eq!(bench.inb(0x21), 0xfb);
}

#[test]
fn higher_priority_interrupts_lower_and_not_the_reverse() {
    let mut bench = bench(1);
    bench.set_wire(4, true);
    assert!(bench.wire(PIC_INTR));
    assert_eq!(acknowledge(&mut bench), 0x0c);
    assert!(!bench.wire(PIC_INTR));
    bench.set_wire(5, true);
    assert!(!bench.bus.interrupt_pending());
    bench.set_wire(1, true);
    assert_eq!(acknowledge(&mut bench), 0x09);
    assert_eq!(registers(&mut bench, 0x20), (1 << 5, 1 << 4 | 1 << 1));
    bench.outb(0x20, 0x20);
    assert_eq!(registers(&mut bench, 0x20), (1 << 5, 1 << 4), "non-specific: the highest");
    bench.outb(0x20, 0x64);
    assert_eq!(acknowledge(&mut bench), 0x0d);
}

#[test]
fn the_slave_is_between_1_and_3() {
    let mut bench = bench(1);
    for wire in [3, 8, 12] {
        bench.set_wire(wire, true);
    }
    assert_eq!(acknowledge(&mut bench), 0x70);
    assert_eq!((registers(&mut bench, 0x20).1, registers(&mut bench, 0xa0).1), (1 << 2, 1));
    // The slave's next is held off by the slave and by the master.
    bench.outb(0xa0, 0x20);
    assert!(!bench.bus.interrupt_pending());
    bench.outb(0x20, 0x20);
    assert_eq!(acknowledge(&mut bench), 0x74);
    bench.outb(0xa0, 0x20);
    bench.outb(0x20, 0x20);
    assert_eq!(acknowledge(&mut bench), 0x0b);
}

#[test]
fn special_fully_nested_lets_the_slave_interrupt_itself() {
    for (icw4, nested) in [(0x01, false), (0x11, true)] {
        let mut bench = bench(icw4);
        bench.set_wire(12, true);
        assert_eq!(acknowledge(&mut bench), 0x74);
        bench.set_wire(8, true);
        assert_eq!(bench.bus.interrupt_pending(), nested);
    }
}

#[test]
fn edges_latch_once_and_levels_again() {
    let mut bench = bench(1);
    bench.outb(0x4d0, 0xff);
    assert_eq!(bench.inb(0x4d0), 0xf8, "timer, keyboard and cascade stay edge-triggered");
    bench.outb(0x4d1, 0xff);
    assert_eq!(bench.inb(0x4d1), 0xde);
    bench.outb(0x4d0, 0x20);
    for (wire, again) in [(4, false), (5, true)] {
        bench.set_wire(wire, true);
        acknowledge(&mut bench);
        bench.outb(0x20, 0x20);
        assert_eq!(bench.bus.interrupt_pending(), again, "wire {wire}");
        bench.set_wire(wire, false);
        assert!(!bench.bus.interrupt_pending());
    }
}

#[test]
fn what_goes_away_is_spurious() {
    let mut bench = bench(1);
    bench.set_wire(3, true);
    bench.set_wire(3, false);
    assert_eq!(acknowledge(&mut bench), 0x0f);
    assert_eq!(registers(&mut bench, 0x20), (0, 0), "IRQ 7 is not in service");
}

#[test]
fn masks_hold_requests_back_without_losing_them() {
    let mut bench = bench(1);
    bench.outb(0x21, 0x08);
    bench.set_wire(3, true);
    assert!(!bench.bus.interrupt_pending());
    bench.outb(0x21, 0x00);
    assert_eq!(acknowledge(&mut bench), 0x0b);
}

#[test]
fn icw1_forgets_edges() {
    let mut bench = bench(1);
    bench.set_wire(3, true);
    bench.outb(0x20, 0x11);
    for value in [0x20, 0x04, 0x01] {
        bench.outb(0x21, value);
    }
    assert!(!bench.bus.interrupt_pending());
    pulse(&mut bench, 3);
    assert_eq!(acknowledge(&mut bench), 0x23);
}

#[test]
fn automatic_end_of_interrupt_and_rotation() {
    let mut bench = bench(3);
    bench.outb(0x20, 0x80);
    bench.set_wire(0, true);
    assert_eq!(acknowledge(&mut bench), 0x08);
    assert_eq!(registers(&mut bench, 0x20).1, 0);
    pulse(&mut bench, 0);
    bench.set_wire(6, true);
    assert_eq!(acknowledge(&mut bench), 0x0e, "0 is the lowest now");
}

#[test]
fn rotation_and_set_priority() {
    let mut bench = bench(1);
    bench.set_wire(4, true);
    acknowledge(&mut bench);
    bench.outb(0x20, 0xa0);
    pulse(&mut bench, 4);
    bench.set_wire(7, true);
    assert_eq!(acknowledge(&mut bench), 0x0f, "4 is the lowest after its rotation");
    bench.outb(0x20, 0xe7);
    bench.outb(0x20, 0xc3);
    pulse(&mut bench, 3);
    pulse(&mut bench, 7);
    assert_eq!(acknowledge(&mut bench), 0x0c, "4 is the highest when 3 is the lowest");
}

#[test]
fn special_mask_mode_opens_lower_levels() {
    let mut bench = bench(1);
    bench.set_wire(3, true);
    acknowledge(&mut bench);
    bench.outb(0x21, 0x08);
    bench.outb(0x20, 0x68);
    bench.set_wire(6, true);
    assert_eq!(acknowledge(&mut bench), 0x0e);
    bench.outb(0x20, 0x20);
    assert_eq!(registers(&mut bench, 0x20).1, 1 << 3, "a masked level is not ended");
    bench.outb(0x20, 0x48);
    pulse(&mut bench, 6);
    assert!(!bench.bus.interrupt_pending());
}

#[test]
fn polling_acknowledges() {
    let mut bench = bench(1);
    bench.outb(0x20, 0x0c);
    assert_eq!(bench.inb(0x20), 0);
    bench.set_wire(5, true);
    bench.outb(0x20, 0x0c);
    assert_eq!(bench.inb(0x20), 0x85);
    assert_eq!(registers(&mut bench, 0x20), (0, 1 << 5));
    assert!(!bench.wire(PIC_INTR));
}
