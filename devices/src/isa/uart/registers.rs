//! Register offsets and bits of the 16550A.
//!
//! Not responsible for: what they do (`uart`). Names follow the National PC16550D datasheet.

/// Receive buffer (read), transmit holding (write); divisor low byte under DLAB.
pub(super) const DATA: u16 = 0;
/// Interrupt enable; divisor high byte under DLAB.
pub(super) const IER: u16 = 1;
/// Interrupt identification (read), FIFO control (write).
pub(super) const IIR_FCR: u16 = 2;
/// Line control.
pub(super) const LCR: u16 = 3;
/// Modem control.
pub(super) const MCR: u16 = 4;
/// Line status.
pub(super) const LSR: u16 = 5;
/// Modem status.
pub(super) const MSR: u16 = 6;
/// Scratch.
pub(super) const SCR: u16 = 7;

/// IER: received data available, and the receive time-out.
pub(super) const IER_RECEIVE: u8 = 1 << 0;
/// IER: transmit holding register empty.
pub(super) const IER_TRANSMIT: u8 = 1 << 1;
/// IER: line status.
pub(super) const IER_LINE: u8 = 1 << 2;
/// IER: modem status.
pub(super) const IER_MODEM: u8 = 1 << 3;

/// IIR: nothing pending.
pub(super) const IIR_NONE: u8 = 0x01;
/// IIR: modem status, the lowest priority.
pub(super) const IIR_MODEM: u8 = 0x00;
/// IIR: transmit holding register empty.
pub(super) const IIR_TRANSMIT: u8 = 0x02;
/// IIR: received data available.
pub(super) const IIR_RECEIVE: u8 = 0x04;
/// IIR: receive time-out, of the same priority as received data.
pub(super) const IIR_TIMEOUT: u8 = 0x0c;
/// IIR: line status, the highest priority.
pub(super) const IIR_LINE: u8 = 0x06;
/// IIR: FIFOs are enabled.
pub(super) const IIR_FIFOS: u8 = 0xc0;

/// FCR: FIFOs on.
pub(super) const FCR_ENABLE: u8 = 1 << 0;
/// FCR: clear the receive FIFO (clears itself).
pub(super) const FCR_CLEAR_RECEIVE: u8 = 1 << 1;
/// FCR: clear the transmit FIFO (clears itself).
pub(super) const FCR_CLEAR_TRANSMIT: u8 = 1 << 2;

/// LCR: divisor latch access.
pub(super) const LCR_DLAB: u8 = 1 << 7;

/// MCR: DTR, RTS, OUT1, OUT2, loop: what exists.
pub(super) const MCR_WRITABLE: u8 = 0x1f;
/// MCR: OUT2, which on a PC connects the interrupt to the bus.
pub(super) const MCR_OUT2: u8 = 1 << 3;
/// MCR: loopback.
pub(super) const MCR_LOOP: u8 = 1 << 4;

/// LSR: data ready.
pub(super) const LSR_DATA: u8 = 1 << 0;
/// LSR: a character was lost.
pub(super) const LSR_OVERRUN: u8 = 1 << 1;
/// LSR: transmit holding register (FIFO) empty.
pub(super) const LSR_HOLDING_EMPTY: u8 = 1 << 5;
/// LSR: and the shift register too.
pub(super) const LSR_EMPTY: u8 = 1 << 6;

/// MSR: CTS, DSR and DCD, as a connected peer holds them.
pub(super) const MSR_CONNECTED: u8 = 0xb0;
/// MSR: ring indicator; its delta bit notes the trailing edge only.
pub(super) const MSR_RING: u8 = 1 << 6;
