//! The ACPI tables (ACPI 6.4 5.2), written where firmware would leave them: RSDP, RSDT, XSDT, FADT, FACS, MADT, DSDT.
//!
//! Not responsible for: AML (`dsdt`), the registers that the tables name (`pm`, `apic`, `pci`).

use super::dsdt::definition_block;
use super::pm;
use crate::apic::{ioapic, lapic};
use crate::boot::memory_map::BIOS_AREA;
use crate::isa::reset_ports::ResetPorts;
use gemel_machine::{GuestRam, RamError};

/// Where the root pointer lies: on a 16-byte boundary of the area in which kernels look for it (5.2.5.1).
pub const RSDP: u64 = BIOS_AREA.start;

const OEM: &[u8; 6] = b"GEMEL ";
const OEM_TABLE: &[u8; 8] = b"GEMEL PC";
const HEADER: usize = 36;

/// Interrupt model flags of the MADT: there is an 8259 pair as well (5.2.12).
const PCAT_COMPAT: u32 = 1;
/// An interrupt that is active high and level-triggered (5.2.12.5).
const ACTIVE_HIGH_LEVEL: u16 = 0b1101;
/// The interrupt by which ACPI events arrive.
const SCI: u8 = 9;

/// FADT flags (table 5.10): WBINVD works; C1 is HLT; no fixed sleep button; the RTC does not wake; 32-bit timer;
/// there is a reset register. The power button is a fixed one (bit 4 clear).
const FADT_FLAGS: u32 = 1 << 0 | 1 << 2 | 1 << 5 | 1 << 6 | 1 << 8 | 1 << 10;
/// IAPC boot flags (table 5.11): ISA devices, an 8042, no VGA.
const IAPC_BOOT: u16 = 1 << 0 | 1 << 1 | 1 << 2;
/// CMOS index of the century.
const CENTURY: u8 = 0x32;

/// Writes all tables and returns the address of the root pointer.
///
/// # Errors
/// [`RamError::NoRam`] only if the BIOS area is not RAM.
pub fn write(ram: &GuestRam) -> Result<u64, RamError> {
    let mut next = RSDP + 64; // the root pointer comes first and needs the other addresses
    let mut place = |table: &[u8]| {
        let at = next;
        next = (next + table.len() as u64).next_multiple_of(64); // FACS must be on a 64-byte boundary (5.2.10)
        ram.write(at, table).map(|()| at)
    };
    let facs = place(&facs())?;
    let dsdt = place(&table(b"DSDT", 2, &definition_block()))?;
    let fadt = place(&fadt(facs, dsdt))?;
    let madt = place(&madt())?;
    let rsdt = place(&table(b"RSDT", 1, &[fadt as u32, madt as u32].map(u32::to_le_bytes).concat()))?;
    let xsdt = place(&table(b"XSDT", 1, &[fadt, madt].map(u64::to_le_bytes).concat()))?;
    ram.write(RSDP, &rsdp(rsdt, xsdt))?;
    Ok(RSDP)
}

/// What makes a sum of bytes zero.
fn checksum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0u8, |sum, b| sum.wrapping_sub(*b))
}

/// A system description table with its header (5.2.6).
fn table(signature: &[u8; 4], revision: u8, body: &[u8]) -> Vec<u8> {
    let mut out = signature.to_vec();
    out.extend_from_slice(&((HEADER + body.len()) as u32).to_le_bytes());
    out.extend_from_slice(&[revision, 0]);
    out.extend_from_slice(OEM);
    out.extend_from_slice(OEM_TABLE);
    out.extend_from_slice(&1u32.to_le_bytes()); // OEM revision
    out.extend_from_slice(b"GEML");
    out.extend_from_slice(&1u32.to_le_bytes()); // creator revision
    out.extend_from_slice(body);
    out[9] = checksum(&out);
    out
}

fn rsdp(rsdt: u64, xsdt: u64) -> Vec<u8> {
    let mut out = b"RSD PTR \0".to_vec();
    out.extend_from_slice(OEM);
    out.push(2); // ACPI 2.0 and later
    out.extend_from_slice(&(rsdt as u32).to_le_bytes());
    out[8] = checksum(&out); // over the 20 bytes of ACPI 1.0
    out.extend_from_slice(&36u32.to_le_bytes());
    out.extend_from_slice(&xsdt.to_le_bytes());
    out.extend_from_slice(&[0; 4]);
    out[32] = checksum(&out);
    out
}

/// The table that firmware and operating system share; nothing sleeps here, so it stays zero (5.2.10).
fn facs() -> Vec<u8> {
    let mut out = b"FACS".to_vec();
    out.extend_from_slice(&64u32.to_le_bytes());
    out.resize(64, 0);
    out[32] = 2; // version
    out
}

/// A generic address of I/O ports (5.2.3.2): `size` is 1 byte, 2 word, 3 double word.
fn port_address(port: u16, bits: u8, size: u8) -> [u8; 12] {
    let [low, high] = port.to_le_bytes();
    [1, bits, 0, size, low, high, 0, 0, 0, 0, 0, 0]
}

fn fadt(facs: u64, dsdt: u64) -> Vec<u8> {
    const LENGTH: usize = 244;
    let mut body = vec![0; LENGTH - HEADER];
    let mut put = |offset: usize, bytes: &[u8]| {
        let at = offset - HEADER; // offsets as the standard's table 5.9 counts them
        body[at..at + bytes.len()].copy_from_slice(bytes);
    };
    put(36, &(facs as u32).to_le_bytes());
    put(40, &(dsdt as u32).to_le_bytes());
    put(45, &[1]); // preferred profile: desktop
    put(46, &u16::from(SCI).to_le_bytes());
    // SMI_CMD (48) stays zero: the machine is always in ACPI mode.
    put(56, &u32::from(pm::EVENT_PORT).to_le_bytes());
    put(64, &u32::from(pm::CONTROL_PORT).to_le_bytes());
    put(76, &u32::from(pm::TIMER_PORT).to_le_bytes());
    put(88, &[4, 2, 0, 4]); // lengths of PM1 event, PM1 control, PM2 control, PM timer
    put(96, &[0xff; 4]); // latencies of C2 and C3: not supported
    put(108, &[CENTURY]);
    put(109, &IAPC_BOOT.to_le_bytes());
    put(112, &FADT_FLAGS.to_le_bytes());
    put(116, &port_address(ResetPorts::RESET_CONTROL, 8, 1));
    put(128, &[ResetPorts::HARD_RESET]);
    put(140, &dsdt.to_le_bytes());
    put(148, &port_address(pm::EVENT_PORT, 32, 2));
    put(172, &port_address(pm::CONTROL_PORT, 16, 2));
    put(208, &port_address(pm::TIMER_PORT, 32, 3));
    table(b"FACP", 4, &body)
}

fn madt() -> Vec<u8> {
    let mut body = Vec::new();
    body.extend_from_slice(&(lapic::BASE as u32).to_le_bytes());
    body.extend_from_slice(&PCAT_COMPAT.to_le_bytes());
    // Local APIC: processor 0, enabled.
    body.extend_from_slice(&[0, 8, 0, lapic::APIC_ID, 1, 0, 0, 0]);
    // I/O APIC: global interrupts from 0 on.
    body.extend_from_slice(&[1, 12, ioapic::IOAPIC_ID, 0]);
    body.extend_from_slice(&(ioapic::BASE as u32).to_le_bytes());
    body.extend_from_slice(&0u32.to_le_bytes());
    // Overrides: the 8254 is on input 2, ACPI's interrupt is level-triggered.
    for (line, input, flags) in [(0, 2, 0), (SCI, SCI, ACTIVE_HIGH_LEVEL)] {
        body.extend_from_slice(&[2, 10, 0, line]);
        body.extend_from_slice(&u32::from(input).to_le_bytes());
        body.extend_from_slice(&flags.to_le_bytes());
    }
    // Local APIC NMI: every processor, LINT1, flags as the bus has them.
    body.extend_from_slice(&[4, 6, 0xff, 0, 0, lapic::LINT1_PIN]);
    table(b"APIC", 3, &body)
}

#[cfg(test)]
mod tests;
