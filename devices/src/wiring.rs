//! The wires of the board, by number, and what runs along each.
//!
//! Not responsible for: who drives or listens (`board.rs` connects them), what a chip does with a level.
//!
//! Wires are active high here, whatever the polarity of the pin that they stand for: high means asserted.

use gemel_machine::Wire;

/// Channel 0 of the 8254 (I/O APIC input 2 by the usual override, 8259 input 0).
pub const IRQ0_TIMER: Wire = 0;
/// Keyboard.
pub const IRQ1_KEYBOARD: Wire = 1;
/// The second serial port.
pub const IRQ3_SERIAL1: Wire = 3;
/// The first serial port.
pub const IRQ4_SERIAL0: Wire = 4;
/// Real-time clock.
pub const IRQ8_RTC: Wire = 8;
/// ACPI system control interrupt (SCI): ISA line 9, level-triggered.
pub const IRQ9_SCI: Wire = 9;
/// PS/2 mouse.
pub const IRQ12_MOUSE: Wire = 12;
/// x87 error, the PC's way.
pub const IRQ13_COPROCESSOR: Wire = 13;

/// How many ISA lines there are: wires 0 to 15 go to the 8259 pair and to the I/O APIC, pin numbers as wire numbers.
pub const ISA_LINES: u16 = 16;

/// INTR of the 8259 pair, to LINT0 of the local APIC (virtual wire mode, MP specification 3.6.2.2).
pub const PIC_INTR: Wire = 16;
/// PCI interrupt pin A, I/O APIC input 16.
pub const PCI_INTA: Wire = 17;
/// PCI interrupt pin B, I/O APIC input 17.
pub const PCI_INTB: Wire = 18;
/// PCI interrupt pin C, I/O APIC input 18.
pub const PCI_INTC: Wire = 19;
/// PCI interrupt pin D, I/O APIC input 19.
pub const PCI_INTD: Wire = 20;

/// FERR# of the vCPU: an x87 error waits.
pub const FERR: Wire = 21;
/// IGNNE# of the vCPU: it is to be ignored.
pub const IGNNE: Wire = 22;

/// How many wires the board has.
pub const WIRES: usize = 23;

/// The wire of an ISA interrupt line, 0 to 15.
pub const fn isa_irq(line: u8) -> Wire {
    (line & 15) as Wire
}
