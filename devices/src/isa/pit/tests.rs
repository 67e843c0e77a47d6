//! Exact counts of every mode, as the board sees them: edges of OUT in nanoseconds of guest time, on channel 0's wire and in
//! channel 2's bit of port 0x61. References are to the Intel 8254 datasheet (231164).

use super::*;
use crate::conformance::{Bench, Seen, Socket, conformance};
use gemel_machine::bus::PortWidth;

fn socket() -> Socket {
    let ports = vec![(Pit::PORTS, PortWidth::Byte), (PORT_B..=PORT_B, PortWidth::Byte)];
    Socket { ports, ..Socket::default() }
}

fn bench() -> Bench {
    Bench::new(Pit::new(), &socket())
}

fn tick(n: u64) -> VirtTime {
    VirtTime::of_ticks(n, PIT_HZ)
}

fn at(bench: &mut Bench, n: u64) -> &mut Bench {
    bench.run_to(tick(n));
    bench
}

/// A tick, and the level from then on.
type Edge = (u64, bool);

/// Edges of channel 0 from now on, up to a tick: (tick, level), each at the first nanosecond of its tick.
fn edges_to(bench: &mut Bench, end: u64) -> Vec<Edge> {
    bench.run_to(tick(end));
    let levels = bench.seen().into_iter().filter_map(|(time, seen)| match seen {
        Seen::Level(0, level) => Some((time, level)),
        _ => None,
    });
    let edges = levels.map(|(time, level)| {
        let n = time.ticks(PIT_HZ);
        assert_eq!(time, tick(n), "an edge between two ticks");
        (n, level)
    });
    edges.collect()
}

/// Where channel 2's bit changes, looked at in the last nanosecond before every tick and in its first.
fn bit_edges(bench: &mut Bench, from: u64, end: u64) -> Vec<Edge> {
    let mut level = bench.inb(PORT_B) & 0x20 != 0;
    let mut edges = Vec::new();
    for n in from + 1..=end {
        bench.run_to(VirtTime(tick(n).0 - 1));
        assert_eq!(bench.inb(PORT_B) & 0x20 != 0, level, "an edge between two ticks, before {n}");
        bench.run_to(tick(n));
        let now = bench.inb(PORT_B) & 0x20 != 0;
        if now != level {
            edges.push((n, now));
            level = now;
        }
    }
    edges
}

fn count(bench: &mut Bench, channel: u16) -> u16 {
    bench.outb(CONTROL, (channel as u8) << 6);
    u16::from_le_bytes([bench.inb(0x40 + channel), bench.inb(0x40 + channel)])
}

fn program(bench: &mut Bench, word: u8, n: u16) {
    let port = 0x40 + u16::from(word >> 6);
    bench.outb(CONTROL, word);
    let [low, high] = n.to_le_bytes();
    bench.outb(port, low);
    bench.outb(port, high);
}

/// Figures 15, 17, 18 and 19: GATE is high, the count is written in tick 100, the CLK after it loads.
#[test]
fn edges_of_channel_0() {
    let cases: [(u8, u16, &[Edge]); 7] = [
        // Mode 0: low at the control word, high N + 1 after the write, once.
        (0x30, 5, &[(106, true)]),
        // Mode 2: low for one tick of every N.
        (
            0x34,
            5,
            &[(100, true), (105, false), (106, true), (110, false), (111, true), (115, false), (116, true)],
        ),
        // Mode 3: half and half; an odd count is high for one more.
        (0x36, 4, &[(100, true), (103, false), (105, true), (107, false), (109, true), (111, false)]),
        (0x36, 5, &[(100, true), (104, false), (106, true), (109, false), (111, true), (114, false)]),
        // Mode 4: a strobe of one tick, N + 1 after the write, once.
        (0x38, 5, &[(100, true), (106, false), (107, true)]),
        // Modes 1 and 5 wait for a trigger, which this channel never gets.
        (0x32, 5, &[(100, true)]),
        (0x3a, 5, &[(100, true)]),
    ];
    for (word, n, wanted) in cases {
        let mut bench = bench();
        at(&mut bench, 100).seen();
        program(&mut bench, word, n);
        let edges = edges_to(&mut bench, 116);
        let known = wanted.len().min(edges.len());
        assert_eq!(edges[..known], wanted[..known], "control word {word:#x}, N = {n}");
        assert!(edges.len() >= wanted.len(), "control word {word:#x}, N = {n}: {edges:?}");
        if matches!(word >> 1 & 7, 0 | 1 | 4 | 5) {
            assert_eq!(edges.len(), wanted.len(), "control word {word:#x}: once");
            assert_eq!(bench.next_deadline(), VirtTime::NEVER);
        }
    }
}

/// Figures 16 and 20: the trigger is the rising edge of GATE, here bit 0 of port 0x61, in tick 200; another in 203.
#[test]
fn edges_of_a_triggered_channel() {
    for (word, once, again) in [
        (0xb2, [(201, false), (206, true)], [(201, false), (209, true)]),
        (0xba, [(206, false), (207, true)], [(209, false), (210, true)]),
    ] {
        for (retrigger, wanted) in [(false, once), (true, again)] {
            let mut bench = bench();
            at(&mut bench, 100);
            program(&mut bench, word, 5);
            at(&mut bench, 200).outb(PORT_B, 1);
            let mut edges = bit_edges(&mut bench, 200, 203);
            bench.outb(PORT_B, 0);
            if retrigger {
                bench.outb(PORT_B, 1);
            }
            edges.extend(bit_edges(&mut bench, 203, 300));
            assert_eq!(edges, wanted, "control word {word:#x}, retriggered: {retrigger}");
        }
    }
}

/// GATE low [Gate Pin Operations Summary]: modes 0 and 4 stop where they are and go on; modes 2 and 3 put OUT high at once and
/// start over at the rising edge.
#[test]
fn gate_stops_the_count() {
    for (word, wanted) in [
        (0xb0, &[(118, true)][..]),
        (0xb8, &[(118, false), (119, true)]),
        (0xb4, &[(120, false), (121, true), (130, false)]),
        (0xb6, &[(116, false), (121, true), (126, false)]),
    ] {
        let mut bench = bench();
        bench.outb(PORT_B, 1);
        at(&mut bench, 100);
        program(&mut bench, word, 10);
        at(&mut bench, 103).outb(PORT_B, 0);
        at(&mut bench, 110);
        if matches!(word, 0xb0 | 0xb8) {
            assert_eq!(count(&mut bench, 2), 8, "control word {word:#x}: held");
        }
        bench.outb(PORT_B, 1);
        assert_eq!(bit_edges(&mut bench, 110, 130), wanted, "control word {word:#x}");
    }
    // Mode 3 in its low half: high at once.
    let mut bench = bench();
    bench.outb(PORT_B, 1);
    at(&mut bench, 100);
    program(&mut bench, 0xb6, 10);
    at(&mut bench, 108);
    assert_eq!(bench.inb(PORT_B) & 0x20, 0);
    bench.outb(PORT_B, 0);
    assert_eq!(bench.inb(PORT_B) & 0x20, 0x20);
}

/// A count written while another runs: modes 0 and 4 take it with the next CLK, mode 2 after the cycle, mode 3 after the half
/// cycle, modes 1 and 5 at the next trigger [Mode Definitions].
#[test]
fn a_new_count_while_counting() {
    for (word, wanted) in [
        (0xb0, &[(108, true)][..]),
        (0xb8, &[(108, false), (109, true)]),
        (0xb4, &[(110, false), (111, true), (114, false), (115, true)]),
        (0xb6, &[(106, false), (108, true), (110, false), (112, true), (114, false)]),
    ] {
        let mut bench = bench();
        bench.outb(PORT_B, 1);
        at(&mut bench, 100);
        program(&mut bench, word, 10);
        at(&mut bench, 103);
        bench.outb(0x42, 4);
        bench.outb(0x42, 0);
        assert_eq!(bit_edges(&mut bench, 103, 115), wanted, "control word {word:#x}");
    }
    for (word, wanted) in
        [(0xb2, [(111, true), (201, false), (205, true)]), (0xba, [(111, false), (112, true), (205, false)])]
    {
        let mut bench = bench();
        program(&mut bench, word, 10);
        at(&mut bench, 100).outb(PORT_B, 1);
        at(&mut bench, 103);
        bench.outb(0x42, 4);
        bench.outb(0x42, 0);
        let mut edges = bit_edges(&mut bench, 103, 200);
        bench.outb(PORT_B, 0);
        bench.outb(PORT_B, 1);
        edges.extend(bit_edges(&mut bench, 200, 205));
        assert_eq!(edges, wanted, "control word {word:#x}");
    }
}

/// The first byte of two [Mode 0]: it stops mode 0, and is without effect in mode 4.
#[test]
fn half_a_count() {
    for (word, held) in [(0x30, true), (0x38, false)] {
        let mut bench = bench();
        at(&mut bench, 100);
        program(&mut bench, word, 0x1000);
        at(&mut bench, 101 + 0x10).outb(0x40, 7);
        at(&mut bench, 101 + 0x20);
        let wanted = if held { 0x1000 - 0x10 } else { 0x1000 - 0x20 };
        assert_eq!(count(&mut bench, 0), wanted, "control word {word:#x}");
    }
}

/// What the counting element holds from the load on, in every mode, binary and BCD.
#[test]
fn count_sequences() {
    let cases: [(u8, u16, [u16; 8]); 10] = [
        (0xb0, 4, [4, 3, 2, 1, 0, 0xffff, 0xfffe, 0xfffd]),
        (0xb1, 0x10, [0x10, 0x09, 0x08, 0x07, 0x06, 0x05, 0x04, 0x03]),
        (0xb1, 0x02, [2, 1, 0, 0x9999, 0x9998, 0x9997, 0x9996, 0x9995]),
        (0xb2, 3, [3, 2, 1, 0, 0xffff, 0xfffe, 0xfffd, 0xfffc]),
        (0xb4, 3, [3, 2, 1, 3, 2, 1, 3, 2]),
        (0xb5, 0x1000, [0x1000, 0x0999, 0x0998, 0x0997, 0x0996, 0x0995, 0x0994, 0x0993]),
        (0xb6, 6, [6, 4, 2, 6, 4, 2, 6, 4]),
        (0xb7, 0x0100, [0x0100, 0x0098, 0x0096, 0x0094, 0x0092, 0x0090, 0x0088, 0x0086]),
        (0xb8, 2, [2, 1, 0, 0xffff, 0xfffe, 0xfffd, 0xfffc, 0xfffb]),
        (0xba, 2, [2, 1, 0, 0xffff, 0xfffe, 0xfffd, 0xfffc, 0xfffb]),
    ];
    for (word, n, wanted) in cases {
        let mut bench = bench();
        at(&mut bench, 100);
        program(&mut bench, word, n);
        // Counts from here in the modes that GATE lets count, and triggers the others.
        bench.outb(PORT_B, 1);
        let first = if matches!(word >> 1 & 7, 0 | 4) { 100 } else { 101 };
        let seen = std::array::from_fn(|i| count(at(&mut bench, first + i as u64), 2));
        assert_eq!(seen, wanted, "control word {word:#x}, N = {n:#x}");
    }
}

/// One byte of the two [Read/Write Operations]: the other is zero in the count, and is not shown.
#[test]
fn one_byte_counts() {
    let mut bench = bench();
    bench.outb(CONTROL, 0x24); // channel 0, high byte, mode 2
    bench.outb(0x40, 0x10);
    at(&mut bench, 1 + 0x123);
    assert_eq!([bench.inb(0x40), bench.inb(0x40)], [0x0e, 0x0e]);
    bench.outb(CONTROL, 0x00);
    at(&mut bench, 0x900);
    assert_eq!([bench.inb(0x40), bench.inb(0x40)], [0x0e, 0x07], "the latch once, then what runs");
}

/// Reads and writes of a two-byte count may alternate [Read Operations].
#[test]
fn reads_and_writes_interleaved() {
    let mut bench = bench();
    program(&mut bench, 0x34, 0x2345);
    at(&mut bench, 1);
    assert_eq!(bench.inb(0x40), 0x45);
    bench.outb(0x40, 0x80);
    assert_eq!(bench.inb(0x40), 0x23);
    bench.outb(0x40, 0x01);
    at(&mut bench, 1 + 0x2345);
    assert_eq!(count(&mut bench, 0), 0x0180);
}

/// Read-Back Command, figures 11 to 13: several channels at once, the first latch stays, status comes before the count; null count
/// from the write to the load.
#[test]
fn read_back() {
    let mut bench = bench();
    program(&mut bench, 0x34, 0x1000);
    program(&mut bench, 0x76, 0x2000);
    bench.outb(CONTROL, 0xe6); // status of 0 and 1
    assert_eq!([bench.inb(0x40), bench.inb(0x41)], [0xf4, 0xf6], "not loaded yet");
    at(&mut bench, 1).outb(CONTROL, 0xc6); // count and status
    assert_eq!([bench.inb(0x40), bench.inb(0x41)], [0xb4, 0xb6]);
    assert_eq!([bench.inb(0x40), bench.inb(0x40)], [0x00, 0x10]);
    at(&mut bench, 1 + 0x10);
    bench.outb(CONTROL, 0xee); // status alone, of all three
    at(&mut bench, 1 + 0x20).outb(CONTROL, 0xde); // counts, later
    at(&mut bench, 1 + 0x30).outb(CONTROL, 0xc6); // latched already: without effect
    let mut word = |port: u16| [bench.inb(port), bench.inb(port), bench.inb(port)];
    assert_eq!(word(0x40), [0xb4, 0xe0, 0x0f]);
    let one = word(0x41);
    assert_eq!(one, [0xb6, 0x00, 0x20], "what was latched at the load is still there");
    assert_eq!(bench.inb(0x42) & 0x40, 0x40, "channel 2 was never programmed: null count");
    // Null until the cycle in which it was written is over.
    bench.outb(0x40, 0x00);
    bench.outb(0x40, 0x08);
    for (n, null) in [(0x1000, 0x40), (0x1001, 0)] {
        at(&mut bench, n).outb(CONTROL, 0xe2);
        assert_eq!(bench.inb(0x40) & 0x40, null, "at tick {n:#x}");
    }
}

#[test]
fn saves_and_restores() {
    conformance(Pit::new, &socket());
}

#[test]
fn a_second_of_hundred_hertz_has_a_hundred_edges_at_exact_ticks() {
    let mut bench = bench();
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
    let mut bench = bench();
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
    let mut bench = bench();
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
    let mut bench = bench();
    let bits: Vec<_> = [0, 17, 18, 35, 36]
        .map(|n| {
            bench.run_to(tick(n));
            bench.inb(0x61) >> 4 & 1
        })
        .into();
    assert_eq!(bits, [0, 0, 1, 1, 0]);
}
