use super::*;
use crate::conformance::{Bench, Socket, conformance};
use gemel_machine::bus::PortWidth;

const BASE: u16 = 0x3f8;
/// Nanoseconds of `n` characters of 8N1 at 115200 bit/s, from power-on: the first instant at which they are over.
fn characters(n: u64) -> VirtTime {
    VirtTime::of_ticks(n * 160, UART_HZ)
}

fn socket() -> Socket {
    let input = |bytes: &[u8]| Input::Serial { port: 0, bytes: bytes.to_vec() };
    Socket {
        ports: vec![(BASE..=BASE + 7, PortWidth::Byte)],
        inputs: vec![input(b"a"), input(b"hello, world\n"), input(&[0; 100])],
        ..Socket::default()
    }
}

/// A port at 115200 8N1 with FIFOs (trigger as given), interrupts as given, OUT2 on.
fn bench(fcr: u8, ier: u8) -> Bench {
    let mut bench = Bench::new(Uart::first(), &socket());
    for (port, value) in
        [(LCR, 0x83), (DATA, 1), (IER, 0), (LCR, 0x03), (IIR_FCR, fcr), (MCR, 0x0b), (IER, ier)]
    {
        bench.outb(BASE + port, value);
    }
    bench
}

fn send(bench: &mut Bench, bytes: &[u8]) {
    bench.input(Input::Serial { port: 0, bytes: bytes.to_vec() });
}

fn consumed(bench: &mut Bench) -> usize {
    let counts = bench.outputs().into_iter().map(|o| match o {
        Output::SerialConsumed { port: 0, count } => usize::from(count),
        other => panic!("{other:?}"),
    });
    counts.sum()
}

#[test]
fn saves_and_restores() {
    conformance(Uart::first, &socket());
}

#[test]
fn the_second_port_is_elsewhere() {
    let second = Uart::second();
    assert_eq!((second.ports(), second.name()), (0x2f8..=0x2ff, "uart1"));
}

#[test]
fn registers_that_linux_probes() {
    let mut bench = Bench::new(Uart::first(), &socket());
    // autoconfig: IER bits 7:4 do not exist, loopback shows RTS and OUT2, FIFOs show in IIR.
    bench.outb(BASE + IER, 0xff);
    assert_eq!(bench.inb(BASE + IER), 0x0f);
    bench.outb(BASE + IER, 0);
    bench.outb(BASE + MCR, 0x1a);
    assert_eq!(bench.inb(BASE + MSR) & 0xf0, 0x90);
    bench.outb(BASE + MCR, 0);
    assert_eq!(bench.inb(BASE + MSR) & 0xf0, 0xb0);
    bench.outb(BASE + IIR_FCR, 0x01);
    assert_eq!(bench.inb(BASE + IIR_FCR), 0xc1);
    bench.outb(BASE + IIR_FCR, 0x00);
    assert_eq!(bench.inb(BASE + IIR_FCR), 0x01);
    bench.outb(BASE + SCR, 0xa5);
    assert_eq!(bench.inb(BASE + SCR), 0xa5);
    assert_eq!(bench.inb(BASE + LSR), 0x60);
}

#[test]
fn divisor_latch_and_line_format_set_the_time_of_a_character() {
    let mut bench = Bench::new(Uart::first(), &socket());
    // (divisor, LCR, ticks of the crystal): 8N1, 7E1, 8N2, 5N1.5, and a divisor that nobody set.
    for (divisor, lcr, ticks) in
        [(1, 0x03, 160), (12, 0x1a, 1920), (2, 0x07, 352), (1, 0x04, 120), (0, 0x03, 160)]
    {
        bench.outb(BASE + LCR, 0x80);
        bench.outb(BASE + DATA, divisor);
        assert_eq!(bench.inb(BASE + DATA), divisor);
        bench.outb(BASE + LCR, lcr);
        let start = bench.now.ticks(UART_HZ);
        bench.outb(BASE + DATA, b'x');
        assert_eq!(bench.next_deadline(), VirtTime::of_ticks(start + ticks, UART_HZ), "LCR {lcr:#x}");
        bench.run_to(bench.next_deadline());
        assert_eq!(bench.inb(BASE + LSR), 0x60);
    }
}

#[test]
fn a_polled_console_waits_one_character_for_each() {
    let mut bench = bench(0x00, 0);
    for (i, byte) in b"boot".iter().enumerate() {
        bench.outb(BASE + DATA, *byte);
        assert_eq!(bench.outputs(), [Output::Serial { port: 0, byte: *byte }], "leaves at the write");
        // The holding register is free at once while the shift register was idle, one character later after that.
        assert_eq!(bench.inb(BASE + LSR), if i == 0 { 0x20 } else { 0x00 });
        if i > 0 {
            bench.run_to(VirtTime(characters(i as u64).0 - 1));
            assert_eq!(bench.inb(BASE + LSR), 0x00);
            bench.run_to(characters(i as u64));
            assert_eq!(bench.inb(BASE + LSR), 0x20);
        }
    }
    bench.run_to(characters(4));
    assert_eq!(bench.inb(BASE + LSR), 0x60);
}

#[test]
fn transmit_interrupt_comes_when_the_fifo_is_empty() {
    let mut bench = bench(0x01, IER_TRANSMIT);
    assert!(bench.wire(4), "enabled while empty");
    assert_eq!(bench.inb(BASE + IIR_FCR), 0xc2);
    assert!(!bench.wire(4), "reading IIR takes it away");
    for i in 0..16 {
        bench.outb(BASE + DATA, i);
    }
    bench.inb(BASE + IIR_FCR);
    // One byte is in the shift register, fifteen in the FIFO: empty when the last one starts.
    bench.run_to(VirtTime(characters(15).0 - 1));
    assert!(!bench.wire(4));
    bench.run_to(characters(15));
    assert!(bench.wire(4));
    assert_eq!(bench.outputs().len(), 16);
    bench.outb(BASE + DATA, 0);
    assert!(!bench.wire(4), "writing takes it away");
}

#[test]
fn receives_at_the_rate_of_the_line_and_interrupts_at_the_trigger() {
    for (fcr, trigger) in [(0x01, 1), (0x41, 4), (0x81, 8), (0xc1, 14)] {
        let mut bench = bench(fcr, IER_RECEIVE);
        send(&mut bench, &[7; 14]);
        bench.run_to(VirtTime(characters(trigger).0 - 1));
        assert!(!bench.wire(4), "trigger {trigger}");
        bench.run_to(characters(trigger));
        assert!(bench.wire(4), "trigger {trigger}");
        assert_eq!(bench.inb(BASE + IIR_FCR), 0xc4);
        assert_eq!((bench.inb(BASE + DATA), consumed(&mut bench)), (7, 1));
        assert!(!bench.wire(4));
    }
}

#[test]
fn times_out_four_characters_after_the_last() {
    let mut bench = bench(0xc1, IER_RECEIVE);
    send(&mut bench, b"ab");
    bench.run_to(VirtTime(characters(2 + 4).0 - 1));
    assert!(!bench.wire(4));
    bench.run_to(characters(2 + 4));
    assert_eq!((bench.wire(4), bench.inb(BASE + IIR_FCR)), (true, 0xcc));
    bench.inb(BASE + DATA);
    assert!(!bench.wire(4));
    bench.run_to(characters(2 + 4 + 4));
    assert!(bench.wire(4), "again while a byte is left");
    bench.inb(BASE + DATA);
    bench.run_to(characters(20));
    assert!(!bench.wire(4));
}

/// The time-out is four characters of whatever the line's format makes of one [FIFO Interrupt Mode Operation].
#[test]
fn the_time_out_follows_divisor_and_frame() {
    for (divisor, lcr, character) in
        [(12, 0x03, 1920), (1, 0x1a, 160), (3, 0x07, 528), (1, 0x04, 120), (2, 0x1f, 384)]
    {
        let mut bench = bench(0x81, IER_RECEIVE);
        bench.outb(BASE + LCR, 0x80);
        bench.outb(BASE + DATA, divisor);
        bench.outb(BASE + LCR, lcr);
        send(&mut bench, b"abc");
        let end = VirtTime::of_ticks((3 + 4) * character, UART_HZ);
        bench.run_to(VirtTime(end.0 - 1));
        assert!(!bench.wire(4), "divisor {divisor}, LCR {lcr:#x}");
        bench.run_to(end);
        assert_eq!(
            (bench.wire(4), bench.inb(BASE + IIR_FCR)),
            (true, 0xcc),
            "divisor {divisor}, LCR {lcr:#x}"
        );
    }
}

/// A byte that arrives or is read begins the four characters anew; below the trigger the data interrupt is gone.
#[test]
fn the_time_out_begins_anew() {
    let mut bench = bench(0x41, IER_RECEIVE);
    send(&mut bench, b"abcd");
    bench.run_to(characters(4));
    assert_eq!(bench.inb(BASE + IIR_FCR), 0xc4);
    bench.run_to(characters(7));
    bench.inb(BASE + DATA);
    assert_eq!((bench.wire(4), bench.inb(BASE + IIR_FCR)), (false, 0xc1), "three are below the trigger");
    bench.run_to(VirtTime(characters(11).0 - 1));
    assert!(!bench.wire(4));
    bench.run_to(characters(11));
    assert_eq!((bench.wire(4), bench.inb(BASE + IIR_FCR)), (true, 0xcc));
    // One more byte: the time-out is over until four characters after it.
    bench.inb(BASE + DATA);
    send(&mut bench, b"e");
    bench.run_to(VirtTime(characters(16).0 - 1));
    assert!(!bench.wire(4));
    bench.run_to(characters(16));
    assert!(bench.wire(4));
}

/// Without FIFOs the next character overwrites the one that nobody read, and says so once [Line Status Register].
#[test]
fn overrun_without_fifos() {
    let mut bench = bench(0x00, IER_LINE | IER_RECEIVE);
    bench.outb(BASE + MCR, 0x1b);
    for byte in [1, 2] {
        bench.outb(BASE + DATA, byte);
        bench.run_for(100_000);
    }
    assert_eq!(bench.inb(BASE + IIR_FCR), 0x06);
    assert_eq!(bench.inb(BASE + LSR), 0x63);
    assert_eq!((bench.inb(BASE + IIR_FCR), bench.inb(BASE + DATA)), (0x04, 2));
    assert_eq!(bench.inb(BASE + LSR), 0x60);
}

#[test]
fn nothing_is_lost_while_nobody_reads() {
    let mut bench = bench(0x01, 0);
    let sent: Vec<u8> = (0..200).collect();
    send(&mut bench, &sent);
    bench.run_to(characters(500));
    assert_eq!(bench.inb(BASE + LSR), 0x61, "sixteen bytes wait, and none was overrun");
    let mut got = Vec::new();
    while got.len() < sent.len() {
        assert_eq!(bench.inb(BASE + LSR) & 1, 1);
        got.push(bench.inb(BASE + DATA));
        bench.run_for(100_000);
    }
    assert_eq!((got, consumed(&mut bench)), (sent, 200));
    assert_eq!(bench.inb(BASE + LSR) & 1, 0);
}

#[test]
fn the_window_never_leaks() {
    let mut bench = bench(0x01, 0);
    send(&mut bench, &[1; SERIAL_WINDOW]);
    send(&mut bench, &[2; 10]);
    assert_eq!(consumed(&mut bench), 10, "beyond the window: dropped, and said so");
    bench.run_to(characters(16));
    bench.outb(BASE + IIR_FCR, 0x03);
    assert_eq!(consumed(&mut bench), 16, "cleared with the FIFO");
    bench.run_to(characters(40));
    bench.outb(BASE + IIR_FCR, 0x00);
    assert_eq!(consumed(&mut bench), 16, "and by turning the FIFOs off");
    bench.run_to(characters(60));
    assert_eq!((bench.inb(BASE + DATA), consumed(&mut bench)), (1, 1));
}

#[test]
fn loopback_returns_bytes_and_hides_them_from_the_world() {
    let mut bench = bench(0x01, IER_RECEIVE | IER_LINE);
    bench.outb(BASE + MCR, 0x1b);
    for byte in 0..18 {
        bench.outb(BASE + DATA, byte);
        bench.run_for(100_000);
    }
    assert!(!bench.wire(4), "OUT2 leads nowhere in loopback");
    assert_eq!(bench.inb(BASE + IIR_FCR), 0xc6, "the 17th was overrun");
    assert_eq!(bench.inb(BASE + LSR), 0x63);
    assert_eq!(bench.inb(BASE + LSR), 0x61);
    assert_eq!((0..16).map(|_| bench.inb(BASE + DATA)).collect::<Vec<_>>(), (0..16).collect::<Vec<_>>());
    assert_eq!(bench.outputs(), []);
}

#[test]
fn modem_deltas_interrupt_until_read() {
    let mut bench = bench(0x01, IER_MODEM);
    bench.outb(BASE + MCR, 0x18);
    bench.inb(BASE + MSR);
    // RTS up: CTS changed. OUT1 up: the ring has only begun. OUT1 down: it ended.
    bench.outb(BASE + MCR, 0x1a);
    assert_eq!((bench.inb(BASE + IIR_FCR), bench.inb(BASE + MSR)), (0xc0, 0x91));
    bench.outb(BASE + MCR, 0x1e);
    assert_eq!((bench.inb(BASE + IIR_FCR), bench.inb(BASE + MSR)), (0xc1, 0xd0));
    bench.outb(BASE + MCR, 0x1a);
    assert_eq!((bench.inb(BASE + IIR_FCR), bench.inb(BASE + MSR)), (0xc0, 0x94));
}

#[test]
fn line_status_comes_before_data_and_data_before_transmit() {
    let mut bench = bench(0x01, 0x0f);
    assert_eq!(bench.inb(BASE + IIR_FCR), 0xc2);
    bench.outb(BASE + IER, 0);
    bench.outb(BASE + IER, 0x0f);
    send(&mut bench, b"x");
    bench.run_to(characters(1));
    assert_eq!(bench.inb(BASE + IIR_FCR), 0xc4);
    bench.inb(BASE + DATA);
    assert_eq!(bench.inb(BASE + IIR_FCR), 0xc2);
}

#[test]
fn out2_connects_the_interrupt() {
    let mut bench = bench(0x01, IER_TRANSMIT);
    bench.outb(BASE + MCR, 0x03);
    assert!(!bench.wire(4));
    bench.outb(BASE + MCR, 0x0b);
    assert!(bench.wire(4));
}
