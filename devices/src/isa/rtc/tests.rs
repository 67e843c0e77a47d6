use super::*;
use crate::conformance::{Bench, Seen, Socket, conformance};
use gemel_machine::bus::PortWidth;

/// 2026-11-24 23:59:58 UTC, a Tuesday.
const BASE: u64 = 1_795_564_798;

fn socket() -> Socket {
    Socket { ports: vec![(Rtc::PORTS, PortWidth::Byte)], ..Socket::default() }
}

fn bench() -> Bench {
    Bench::new(Rtc::new(BASE, 512 << 20), &socket())
}

fn read(bench: &mut Bench, register: u8) -> u8 {
    bench.outb(INDEX, register);
    bench.inb(DATA)
}

fn write(bench: &mut Bench, register: u8, value: u8) {
    bench.outb(INDEX, register);
    bench.outb(DATA, value);
}

/// Century, year, month, day, weekday, hour, minute, second.
fn clock(bench: &mut Bench) -> [u8; 8] {
    [CENTURY, 9, 8, 7, 6, 4, 2, 0].map(|register| read(bench, register))
}

fn rises(bench: &mut Bench) -> Vec<VirtTime> {
    let seen = bench.seen().into_iter();
    seen.filter(|(_, s)| *s == Seen::Level(8, true)).map(|(at, _)| at).collect()
}

#[test]
fn saves_and_restores() {
    conformance(|| Rtc::new(BASE, 512 << 20), &socket());
}

#[test]
fn reads_the_base_at_time_zero_and_turns_at_full_seconds() {
    let mut bench = bench();
    assert_eq!(clock(&mut bench), [0x20, 0x26, 0x11, 0x24, 3, 0x23, 0x59, 0x58]);
    bench.run_to(VirtTime(1_999_999_999));
    assert_eq!(clock(&mut bench), [0x20, 0x26, 0x11, 0x24, 3, 0x23, 0x59, 0x59]);
    bench.run_to(VirtTime(2_000_000_000));
    assert_eq!(clock(&mut bench), [0x20, 0x26, 0x11, 0x25, 4, 0x00, 0x00, 0x00]);
}

#[test]
fn update_is_announced_244_us_ahead() {
    let mut bench = bench();
    for (ns, uip) in [(0, 0), (999_755_999, 0), (999_756_000, UIP), (999_999_999, UIP), (1_000_000_000, 0)] {
        bench.run_to(VirtTime(ns));
        assert_eq!(read(&mut bench, REGISTER_A), 0x26 | uip, "at {ns}");
    }
    bench.run_to(VirtTime(1_999_900_000));
    write(&mut bench, REGISTER_B, SET | DAY_HAS_24);
    assert_eq!(read(&mut bench, REGISTER_A) & UIP, 0, "no update while the guest sets the clock");
}

#[test]
fn periodic_interrupts_have_the_rates_of_the_datasheet() {
    // [Periodic Interrupt Rate], the 32.768 kHz column.
    let hz = [256, 128, 8192, 4096, 2048, 1024, 512, 256, 128, 64, 32, 16, 8, 4, 2];
    for (rate, hz) in (1..=15).zip(hz) {
        let mut bench = bench();
        write(&mut bench, REGISTER_A, 0x20 | rate);
        write(&mut bench, REGISTER_B, PERIODIC | DAY_HAS_24);
        for n in 1..=hz {
            let at = bench.next_deadline();
            assert_eq!(at, VirtTime::of_ticks(n * (CRYSTAL_HZ / hz), CRYSTAL_HZ), "rate {rate}, number {n}");
            bench.run_to(at);
            assert!(bench.wire(8));
            assert_eq!(bench.next_deadline(), VirtTime::NEVER, "nothing more until C is read");
            assert_eq!(read(&mut bench, REGISTER_C) & !UPDATE, REQUEST | PERIODIC);
            assert!(!bench.wire(8));
        }
        assert_eq!(bench.now, VirtTime(1_000_000_000), "rate {rate}: no drift in a second");
    }
}

/// Rate 0 is none; the divider held in reset stops it all [Divider Control].
#[test]
fn no_periodic_interrupts_without_a_rate_or_a_divider() {
    for a in [0x20, 0x66, 0x76] {
        let mut bench = bench();
        write(&mut bench, REGISTER_A, a);
        write(&mut bench, REGISTER_B, PERIODIC | DAY_HAS_24);
        assert_eq!(bench.next_deadline(), VirtTime::NEVER, "register A {a:#x}");
        bench.run_to(VirtTime(2_000_000_000));
        assert_eq!((read(&mut bench, REGISTER_C) & PERIODIC, rises(&mut bench)), (0, vec![]));
    }
}

/// The alarm, the update and the periodic flag of one instant are one interrupt with all its flags, and UIP is clear in it [Update
/// Cycle].
#[test]
fn interrupts_of_the_same_instant() {
    let mut bench = bench();
    write(&mut bench, REGISTER_A, 0x2f);
    for (register, value) in
        [(5, 0x23), (3, 0x59), (1, 0x59), (REGISTER_B, PERIODIC | ALARM | UPDATE | DAY_HAS_24)]
    {
        write(&mut bench, register, value);
    }
    bench.run_to(VirtTime(500_000_000));
    assert_eq!(read(&mut bench, REGISTER_C), REQUEST | PERIODIC);
    bench.run_to(VirtTime(SECOND_NS));
    assert_eq!(read(&mut bench, REGISTER_A) & UIP, 0);
    assert_eq!(read(&mut bench, REGISTER_C), REQUEST | PERIODIC | ALARM | UPDATE);
    assert_eq!(rises(&mut bench), [VirtTime(500_000_000), VirtTime(SECOND_NS)]);
}

#[test]
fn update_interrupts_at_full_seconds() {
    let mut bench = bench();
    bench.run_to(VirtTime(300_000_000));
    write(&mut bench, REGISTER_B, UPDATE | DAY_HAS_24);
    for second in 1..=3 {
        bench.run_to(VirtTime(second * SECOND_NS));
        assert_eq!(read(&mut bench, REGISTER_C) & (REQUEST | UPDATE), REQUEST | UPDATE);
        assert_eq!(read(&mut bench, REGISTER_C), 0);
    }
    assert_eq!(rises(&mut bench), [1, 2, 3].map(|s| VirtTime(s * SECOND_NS)));
}

#[test]
fn flags_are_set_without_their_interrupts() {
    let mut bench = bench();
    bench.run_to(VirtTime(1_500_000_000));
    assert_eq!(read(&mut bench, REGISTER_C), PERIODIC | UPDATE);
    assert_eq!(rises(&mut bench), []);
}

#[test]
fn alarm_at_a_time_and_with_any_hour() {
    // 00:00:01 tomorrow, three seconds from power-on.
    let mut bench = bench();
    for (register, value) in [(5, 0x00), (3, 0x00), (1, 0x01), (REGISTER_B, ALARM | DAY_HAS_24)] {
        write(&mut bench, register, value);
    }
    bench.run_to(VirtTime(10 * SECOND_NS));
    assert_eq!(rises(&mut bench), [VirtTime(3 * SECOND_NS)]);
    assert_eq!(read(&mut bench, REGISTER_C) & (REQUEST | ALARM), REQUEST | ALARM);
    // Every hour at :30:10.
    for (register, value) in [(5, 0xff), (3, 0x30), (1, 0x10)] {
        write(&mut bench, register, value);
    }
    for hour in 0..2 {
        let at = 2 + hour * 3600 + 30 * 60 + 10;
        bench.run_to(VirtTime(at * SECOND_NS));
        assert_eq!(rises(&mut bench), [VirtTime(at * SECOND_NS)]);
        read(&mut bench, REGISTER_C);
    }
    // A time that never comes.
    write(&mut bench, 1, 0x77);
    read(&mut bench, REGISTER_C);
    assert_eq!(bench.next_deadline(), VirtTime::NEVER);
}

#[test]
fn the_guest_sets_the_clock() {
    let mut bench = bench();
    bench.run_to(VirtTime(700_000_000));
    // As Linux does: SET, hold the divider, write, let go of both.
    write(&mut bench, REGISTER_B, SET | DAY_HAS_24);
    write(&mut bench, REGISTER_A, 0x76);
    for (register, value) in
        [(CENTURY, 0x19), (9, 0x99), (8, 0x12), (7, 0x31), (6, 6), (4, 0x23), (2, 0x59), (0, 0x59)]
    {
        write(&mut bench, register, value);
        assert_eq!(read(&mut bench, register), value, "as written while SET");
    }
    bench.run_to(VirtTime(5_000_000_000));
    write(&mut bench, REGISTER_B, DAY_HAS_24);
    write(&mut bench, REGISTER_A, 0x26);
    // The first update half a second after the divider starts.
    bench.run_to(VirtTime(5_499_999_999));
    assert_eq!(clock(&mut bench), [0x19, 0x99, 0x12, 0x31, 6, 0x23, 0x59, 0x59]);
    bench.run_to(VirtTime(5_500_000_000));
    assert_eq!(clock(&mut bench), [0x20, 0x00, 0x01, 0x01, 7, 0x00, 0x00, 0x00]);
    bench.run_to(VirtTime(6_500_000_000));
    assert_eq!(read(&mut bench, 0), 0x01);
}

#[test]
fn binary_and_twelve_hour_formats() {
    let mut bench = bench();
    write(&mut bench, REGISTER_B, BINARY);
    assert_eq!(clock(&mut bench), [20, 26, 11, 24, 3, 0x80 | 11, 59, 58]);
}

#[test]
fn ram_holds_and_tells_the_memory_size() {
    let mut bench = bench();
    write(&mut bench, 0x7f, 0xa5);
    assert_eq!(read(&mut bench, 0x7f), 0xa5);
    assert_eq!([read(&mut bench, 0x15), read(&mut bench, 0x16)], [0x80, 0x02]);
    assert_eq!([read(&mut bench, 0x34), read(&mut bench, 0x35)], [0x00, 0x1f], "496 MiB above 16, in 64 KiB");
    assert_eq!(read(&mut bench, REGISTER_D), VALID);
    assert_eq!(bench.inb(INDEX), 0xff);
}

#[test]
fn reset_keeps_the_time_and_the_ram() {
    let mut bench = bench();
    write(&mut bench, 0x40, 7);
    write(&mut bench, REGISTER_B, PERIODIC | UPDATE | DAY_HAS_24);
    let mut rtc = Rtc::new(0, 0);
    rtc.restore(&bench.section()).unwrap();
    // Plugging the clock in resets it.
    let mut bench = Bench::new(rtc, &socket());
    bench.run_to(VirtTime(SECOND_NS));
    assert_eq!((read(&mut bench, REGISTER_B), read(&mut bench, 0x40), read(&mut bench, 0)), (2, 7, 0x59));
    assert_eq!(rises(&mut bench), []);
}
