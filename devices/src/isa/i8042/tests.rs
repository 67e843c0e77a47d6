use super::*;
use crate::conformance::{Bench, Socket, conformance};
use gemel_machine::bus::PortWidth;

fn socket() -> Socket {
    Socket {
        ports: I8042::PORTS.into_iter().map(|range| (range, PortWidth::Byte)).collect(),
        inputs: vec![
            Input::Key(vec![0x1c, 0xf0, 0x1c]),
            Input::Key(vec![0xe0, 0x75]),
            Input::Mouse { dx: 300, dy: -5, buttons: 1 },
            Input::Mouse { dx: 0, dy: 0, buttons: 0 },
        ],
        ..Socket::default()
    }
}

fn bench() -> Bench {
    Bench::new(I8042::new(), &socket())
}

/// Reads all that comes within 20 byte times of silence: (byte, from the mouse).
fn drain(bench: &mut Bench) -> Vec<(u8, bool)> {
    let mut got = Vec::new();
    let mut silence = 0;
    while silence < 20 {
        let status = bench.inb(COMMAND);
        if status & OUTPUT_FULL != 0 {
            got.push((bench.inb(DATA), status & FROM_MOUSE != 0));
            silence = 0;
        } else {
            bench.run_for(BYTE_NS);
            silence += 1;
        }
    }
    got
}

/// Sends bytes to the keyboard and returns its answers.
fn keyboard(bench: &mut Bench, bytes: &[u8]) -> Vec<u8> {
    let mut answers = Vec::new();
    for byte in bytes {
        bench.outb(DATA, *byte);
        answers.extend(drain(bench).into_iter().map(|(byte, from_mouse)| {
            assert!(!from_mouse);
            byte
        }));
    }
    answers
}

/// Sends bytes to the mouse and returns its answers.
fn mouse(bench: &mut Bench, bytes: &[u8]) -> Vec<u8> {
    let mut answers = Vec::new();
    for byte in bytes {
        bench.outb(COMMAND, 0xd4);
        bench.outb(DATA, *byte);
        answers.extend(drain(bench).into_iter().map(|(byte, from_mouse)| {
            assert!(from_mouse);
            byte
        }));
    }
    answers
}

fn without_translation(bench: &mut Bench) {
    bench.outb(COMMAND, 0x60);
    bench.outb(DATA, KEYBOARD_INTERRUPT | MOUSE_INTERRUPT | SYSTEM);
}

#[test]
fn saves_and_restores() {
    conformance(I8042::new, &socket());
}

#[test]
fn controller_commands_of_the_specification() {
    // (command, argument, answer)
    for (command, argument, answer) in [
        (0xaa, None, &[0x55][..]),
        (0xa9, None, &[0x00]),
        (0xab, None, &[0x00]),
        (0xa4, None, &[0xf1]),
        (0x20, None, &[0x65]),
        (0xd0, None, &[0x03]),
        (0xc0, None, &[0x80]),
        (0xd2, Some(0x5a), &[0x5a]),
        (0xd1, Some(0xdf), &[]),
    ] {
        let mut bench = bench();
        bench.outb(COMMAND, command);
        if let Some(argument) = argument {
            bench.outb(DATA, argument);
        }
        let answers: Vec<u8> = drain(&mut bench).into_iter().map(|(byte, _)| byte).collect();
        assert_eq!(answers, answer, "command {command:#x}");
        assert_eq!(bench.bus.power(), None);
    }
}

#[test]
fn answers_of_the_controller_are_there_at_once() {
    let mut bench = bench();
    bench.outb(COMMAND, 0xaa);
    assert_eq!(bench.inb(COMMAND), UNLOCKED | WAS_COMMAND | SYSTEM | OUTPUT_FULL);
    assert_eq!(bench.inb(DATA), 0x55);
    assert_eq!(bench.inb(COMMAND), UNLOCKED | WAS_COMMAND | SYSTEM);
}

#[test]
fn the_system_flag_follows_the_command_byte_and_the_self_test() {
    let mut bench = bench();
    bench.outb(COMMAND, 0x60);
    bench.outb(DATA, 0x43);
    assert_eq!(bench.inb(COMMAND) & SYSTEM, 0);
    bench.outb(COMMAND, 0xaa);
    bench.inb(DATA);
    assert_eq!(bench.inb(COMMAND) & SYSTEM, SYSTEM);
    bench.outb(COMMAND, 0x20);
    assert_eq!(bench.inb(DATA), 0x43, "the command byte stays as written");
}

#[test]
fn clocks_follow_their_commands() {
    for (command, then) in [(0xa8, 0x45), (0xad, 0x75), (0xa7, 0x65), (0xae, 0x65)] {
        let mut bench = bench();
        bench.outb(COMMAND, command);
        bench.outb(COMMAND, 0x20);
        assert_eq!(bench.inb(DATA), then, "command {command:#x}");
    }
    let mut bench = bench();
    bench.outb(COMMAND, 0xad);
    bench.input(Input::Key(vec![0x1c]));
    assert_eq!(drain(&mut bench), []);
    bench.outb(COMMAND, 0xae);
    assert_eq!(drain(&mut bench), [(0x1e, false)], "held back, not lost");
}

#[test]
fn resets() {
    for bytes in [&[(COMMAND, 0xfe)][..], &[(COMMAND, 0xd1), (DATA, 0xfe)]] {
        let mut bench = bench();
        for (port, byte) in bytes {
            bench.outb(*port, *byte);
        }
        assert_eq!(bench.bus.power(), Some(PowerEvent::Reset));
    }
}

#[test]
fn keyboard_commands_of_the_specification() {
    for (bytes, answers) in [
        (&[0xff][..], &[0xfa, 0xaa][..]),
        (&[0xf2], &[0xfa, 0xab, 0x83]),
        (&[0xed, 0x07], &[0xfa, 0xfa]),
        (&[0xee], &[0xee]),
        (&[0xf0, 0x00], &[0xfa, 0xfa, 0x02]),
        (&[0xf0, 0x01, 0xf0, 0x00], &[0xfa, 0xfa, 0xfa, 0xfa, 0x01]),
        (&[0xf0, 0x05], &[0xfa, 0xfe]),
        (&[0xf3, 0x20], &[0xfa, 0xfa]),
        (&[0xf4], &[0xfa]),
        (&[0xf5], &[0xfa]),
        (&[0xf6], &[0xfa]),
        (&[0xed, 0xf2], &[0xfa, 0xfa, 0xab, 0x83]),
        (&[0x42], &[0xfe]),
        (&[0xf2, 0xfe], &[0xfa, 0xab, 0x83, 0x83]),
    ] {
        let mut bench = bench();
        without_translation(&mut bench);
        assert_eq!(keyboard(&mut bench, bytes), answers, "{bytes:#x?}");
    }
}

#[test]
fn keys_are_translated_and_interrupt() {
    let mut bench = bench();
    bench.input(Input::Key(vec![0x1c, 0xf0, 0x1c]));
    assert!(!bench.wire(1));
    bench.run_for(BYTE_NS);
    assert!(bench.wire(1) && !bench.wire(12));
    assert_eq!(bench.inb(DATA), 0x1e);
    assert!(!bench.wire(1));
    assert_eq!(drain(&mut bench), [(0x9e, false)]);
    without_translation(&mut bench);
    bench.input(Input::Key(vec![0x1c, 0xf0, 0x1c]));
    assert_eq!(drain(&mut bench), [(0x1c, false), (0xf0, false), (0x1c, false)]);
}

#[test]
fn a_disabled_keyboard_is_silent() {
    let mut bench = bench();
    keyboard(&mut bench, &[0xf5]);
    bench.input(Input::Key(vec![0x1c]));
    assert_eq!(drain(&mut bench), []);
    keyboard(&mut bench, &[0xf4]);
    bench.input(Input::Key(vec![0x1c]));
    assert_eq!(drain(&mut bench), [(0x1e, false)]);
}

#[test]
fn answers_go_before_keys_but_not_into_one() {
    let mut bench = bench();
    without_translation(&mut bench);
    bench.input(Input::Key(vec![0xe0, 0x75, 0xe0, 0xf0, 0x75]));
    bench.run_for(BYTE_NS);
    assert_eq!(bench.inb(DATA), 0xe0);
    bench.outb(DATA, 0xee);
    let got: Vec<u8> = drain(&mut bench).into_iter().map(|(byte, _)| byte).collect();
    assert_eq!(got, [0x75, 0xee, 0xe0, 0xf0, 0x75]);
}

#[test]
fn a_hundred_keys_at_once_all_arrive() {
    let mut bench = bench();
    for _ in 0..100 {
        bench.input(Input::Key(vec![0x1c, 0xf0, 0x1c]));
    }
    assert_eq!(drain(&mut bench).len(), 200);
}

#[test]
fn mouse_commands_of_the_specification() {
    for (bytes, answers) in [
        (&[0xff][..], &[0xfa, 0xaa, 0x00][..]),
        (&[0xf2], &[0xfa, 0x00]),
        (&[0xf3, 200, 0xf3, 100, 0xf3, 80, 0xf2], &[0xfa, 0xfa, 0xfa, 0xfa, 0xfa, 0xfa, 0xfa, 0x03]),
        (&[0xf3, 77], &[0xfa, 0xfe]),
        (&[0xe8, 0x03], &[0xfa, 0xfa]),
        (&[0xe8, 0x04], &[0xfa, 0xfe]),
        (&[0xe9], &[0xfa, 0x00, 0x02, 100]),
        (&[0xe7, 0xf4, 0xe9], &[0xfa, 0xfa, 0xfa, 0x30, 0x02, 100]),
        (&[0xe7, 0xe6, 0xe9], &[0xfa, 0xfa, 0xfa, 0x00, 0x02, 100]),
        (&[0xf4, 0xf5, 0xe9], &[0xfa, 0xfa, 0xfa, 0x00, 0x02, 100]),
        (&[0xf0, 0xe9], &[0xfa, 0xfa, 0x40, 0x02, 100]),
        (&[0xf0, 0xea, 0xe9], &[0xfa, 0xfa, 0xfa, 0x00, 0x02, 100]),
        (&[0xeb], &[0xfa, 0x08, 0x00, 0x00]),
        (&[0xee, 0x55, 0xf2, 0xec, 0xf2], &[0xfa, 0x55, 0xf2, 0xfa, 0xfa, 0x00]),
        (&[0x12], &[0xfe]),
    ] {
        let mut bench = bench();
        without_translation(&mut bench);
        assert_eq!(mouse(&mut bench, bytes), answers, "{bytes:#x?}");
    }
}

#[test]
fn movement_makes_packets_once_reporting_is_on() {
    let mut bench = bench();
    without_translation(&mut bench);
    bench.input(Input::Mouse { dx: 5, dy: 5, buttons: 0 });
    assert_eq!(drain(&mut bench), []);
    mouse(&mut bench, &[0xf4]);
    let mut packets = |dx, dy, buttons| -> Vec<u8> {
        bench.input(Input::Mouse { dx, dy, buttons });
        drain(&mut bench).into_iter().map(|(byte, _)| byte).collect()
    };
    assert_eq!(packets(3, -2, 1), [0x29, 3, 0xfe]);
    assert_eq!(packets(0, 0, 0), [0x08, 0, 0]);
    assert_eq!(packets(-300, 0, 6), [0x1e, 0x01, 0, 0x1e, 0xd3, 0], "more than a packet holds");
}

#[test]
fn movement_that_finds_no_room_is_summed_up() {
    let mut bench = bench();
    without_translation(&mut bench);
    mouse(&mut bench, &[0xf4]);
    for _ in 0..200 {
        bench.input(Input::Mouse { dx: 1, dy: 0, buttons: 0 });
    }
    let bytes: Vec<u8> = drain(&mut bench).into_iter().map(|(byte, _)| byte).collect();
    assert_eq!(bytes.chunks(3).map(|p| u32::from(p[1])).sum::<u32>(), 200);
    assert!(bytes.len() < 100);
}

/// What Linux's i8042_check_aux does: a byte through the mouse's buffer must come with its interrupt.
#[test]
fn the_mouse_loop_interrupts() {
    let mut bench = bench();
    without_translation(&mut bench);
    bench.outb(COMMAND, 0xd3);
    bench.outb(DATA, 0xa5);
    assert!(bench.wire(12) && !bench.wire(1));
    assert_eq!((bench.inb(COMMAND) & FROM_MOUSE, bench.inb(DATA)), (FROM_MOUSE, 0xa5));
    assert!(!bench.wire(12));
}
