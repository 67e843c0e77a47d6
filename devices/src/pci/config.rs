//! A function's configuration space: 256 bytes, of which software may change some (PCI Local Bus 3.0 chapter 6).
//!
//! Not responsible for: what a change means to the function (`function`).

/// Bytes of a configuration space.
pub const SIZE: usize = 256;

const COMMAND: usize = 0x04;
const STATUS: usize = 0x06;
const BAR0: usize = 0x10;
const CAPABILITIES: usize = 0x34;
const INTERRUPT_LINE: usize = 0x3c;
const INTERRUPT_PIN: usize = 0x3d;
/// Where the first capability goes.
const FIRST_CAPABILITY: usize = 0x40;

const COMMAND_MEMORY: u16 = 1 << 1;
const COMMAND_MASTER: u16 = 1 << 2;
const COMMAND_INTX_DISABLE: u16 = 1 << 10;
const STATUS_INTERRUPT: u8 = 1 << 3;
const STATUS_CAPABILITIES: u8 = 1 << 4;

/// Who made a function and what it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Identity {
    /// Vendor id.
    pub vendor: u16,
    /// Device id.
    pub device: u16,
    /// Revision.
    pub revision: u8,
    /// Class, subclass, programming interface, in the high 24 bits' order: `0x018000`.
    pub class: u32,
    /// Subsystem vendor id.
    pub subsystem_vendor: u16,
    /// Subsystem id.
    pub subsystem: u16,
}

/// Configuration space with its write masks.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ConfigSpace {
    bytes: [u8; SIZE],
    /// What a reset puts back: as firmware left it.
    at_reset: [u8; SIZE],
    writable: [u8; SIZE],
    /// Size of each 32-bit memory BAR; zero where there is none.
    bars: [u32; 6],
    next_capability: usize,
    last_capability: usize,
}

impl ConfigSpace {
    /// The configuration of a function without BARs and capabilities.
    pub fn new(identity: Identity) -> Self {
        let mut space = Self {
            bytes: [0; SIZE],
            at_reset: [0; SIZE],
            writable: [0; SIZE],
            bars: [0; 6],
            next_capability: FIRST_CAPABILITY,
            last_capability: CAPABILITIES,
        };
        let Identity { vendor, device, revision, class, subsystem_vendor, subsystem } = identity;
        space.put(0x00, &vendor.to_le_bytes());
        space.put(0x02, &device.to_le_bytes());
        space.put(0x08, &(class << 8 | u32::from(revision)).to_le_bytes());
        space.put(0x2c, &subsystem_vendor.to_le_bytes());
        space.put(0x2e, &subsystem.to_le_bytes());
        space.allow(COMMAND, &(COMMAND_MEMORY | COMMAND_MASTER | COMMAND_INTX_DISABLE).to_le_bytes());
        space.allow(0x0c, &[0xff]); // cache line size: of no effect, kept for software
        space
    }

    /// Sets bytes for good: reset brings them back.
    pub fn put(&mut self, at: usize, bytes: &[u8]) {
        self.bytes[at..at + bytes.len()].copy_from_slice(bytes);
        self.at_reset[at..at + bytes.len()].copy_from_slice(bytes);
    }

    /// As after power-on.
    pub fn reset(&mut self) {
        self.bytes = self.at_reset;
    }

    /// Lets software change the bits of a mask.
    pub fn allow(&mut self, at: usize, mask: &[u8]) {
        self.writable[at..at + mask.len()].copy_from_slice(mask);
    }

    /// Adds a 32-bit memory BAR. `size` is a power of two from 16 bytes on.
    pub fn add_memory_bar(&mut self, index: usize, size: u32) {
        debug_assert!(size.is_power_of_two() && size >= 16);
        self.bars[index] = size;
        self.allow(BAR0 + 4 * index, &(!(size - 1)).to_le_bytes());
    }

    /// Appends a capability and returns its offset. `body` comes after id and link.
    pub fn add_capability(&mut self, id: u8, body: &[u8]) -> usize {
        let at = self.next_capability;
        self.put(self.last_capability, &[at as u8]);
        self.put(at, &[id, 0]);
        self.put(at + 2, body);
        self.put(STATUS, &[STATUS_CAPABILITIES]);
        self.last_capability = at + 1;
        self.next_capability = (at + 2 + body.len()).next_multiple_of(4);
        at
    }

    /// Says that the function uses interrupt pin A, and what firmware wrote into the line register.
    pub fn use_interrupt_pin(&mut self, line: u8) {
        self.put(INTERRUPT_PIN, &[1]);
        self.put(INTERRUPT_LINE, &[line]);
        self.allow(INTERRUPT_LINE, &[0xff]);
    }

    /// The sizes of the BARs by index; zero where there is none.
    pub fn bar_sizes(&self) -> [u32; 6] {
        self.bars
    }

    /// Writes a BAR as firmware does, and lets the function answer there.
    pub fn assign_bar(&mut self, index: usize, address: u32) {
        self.put(BAR0 + 4 * index, &address.to_le_bytes());
        self.put(COMMAND, &COMMAND_MEMORY.to_le_bytes());
    }

    /// The BAR, and the offset in it, that an address falls into.
    pub fn bar_at(&self, address: u64) -> Option<(usize, u64)> {
        if self.command() & COMMAND_MEMORY == 0 {
            return None;
        }
        (0..6).filter(|&i| self.bars[i] != 0).find_map(|i| {
            let base = u64::from(self.read(BAR0 + 4 * i, 4));
            let offset = address.checked_sub(base)?;
            (offset < u64::from(self.bars[i])).then_some((i, offset))
        })
    }

    fn command(&self) -> u16 {
        self.read(COMMAND, 2) as u16
    }

    /// Whether the function may write to memory (and so send messages).
    pub fn is_bus_master(&self) -> bool {
        self.command() & COMMAND_MASTER != 0
    }

    /// Shows an interrupt in the status register; returns whether it may be driven on the pin.
    pub fn show_interrupt(&mut self, pending: bool) -> bool {
        let status = self.bytes[STATUS] & !STATUS_INTERRUPT;
        self.bytes[STATUS] = status | if pending { STATUS_INTERRUPT } else { 0 };
        pending && self.command() & COMMAND_INTX_DISABLE == 0
    }

    /// Reads `size` bytes (1, 2 or 4); what lies beyond the end reads as ones.
    pub fn read(&self, at: usize, size: usize) -> u32 {
        (0..size).fold(0, |v, i| v | u32::from(self.bytes.get(at + i).copied().unwrap_or(0xff)) << (8 * i))
    }

    /// Software writes `size` bytes.
    pub fn write(&mut self, at: usize, size: usize, value: u32) {
        for (i, new) in value.to_le_bytes().into_iter().enumerate().take(size) {
            if let (Some(byte), Some(mask)) = (self.bytes.get_mut(at + i), self.writable.get(at + i)) {
                *byte = *byte & !mask | new & mask;
            }
        }
    }

    /// The bytes, for the saved state.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Takes saved bytes on: only what software can change, so that damaged ones cannot make another function of it.
    /// `None` when their number is wrong.
    pub fn restore(&mut self, saved: &[u8]) -> Option<()> {
        let saved: &[u8; SIZE] = saved.try_into().ok()?;
        for (i, byte) in self.bytes.iter_mut().enumerate() {
            *byte = *byte & !self.writable[i] | saved[i] & self.writable[i];
        }
        self.bytes[STATUS] = saved[STATUS] & STATUS_INTERRUPT | self.bytes[STATUS] & !STATUS_INTERRUPT;
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn space() -> ConfigSpace {
        ConfigSpace::new(Identity {
            vendor: 0x1234,
            device: 0x5678,
            revision: 9,
            class: 0x01_8000,
            subsystem_vendor: 1,
            subsystem: 2,
        })
    }

    #[test]
    fn a_bar_is_sized_by_writing_ones() {
        // PCI 3.0 6.2.5.1: write all ones, read back, clear the low bits, invert, add one.
        let mut c = space();
        c.add_memory_bar(0, 0x4000);
        c.write(0x10, 4, u32::MAX);
        assert_eq!(!c.read(0x10, 4) + 1, 0x4000);
        c.write(0x14, 4, u32::MAX);
        assert_eq!(c.read(0x14, 4), 0, "there is no BAR 1");
        c.write(0x10, 4, 0xd000_1234);
        assert_eq!(c.read(0x10, 4), 0xd000_0000);
        assert_eq!(c.bar_at(0xd000_0010), None, "memory is not enabled");
        c.write(0x04, 2, 2);
        assert_eq!(c.bar_at(0xd000_3fff), Some((0, 0x3fff)));
        assert_eq!(c.bar_at(0xd000_4000), None);
    }

    #[test]
    fn identity_is_read_only_and_capabilities_are_linked() {
        let mut c = space();
        assert_eq!(c.add_capability(9, &[0; 3]), 0x40);
        assert_eq!(c.add_capability(0x11, &[0; 10]), 0x48);
        c.write(0, 4, 0);
        assert_eq!(c.read(0, 4), 0x5678_1234);
        assert_eq!(c.read(8, 4), 0x0180_0009);
        assert_eq!((c.read(0x34, 1), c.read(0x41, 1), c.read(0x49, 1)), (0x40, 0x48, 0));
        assert_eq!(c.read(6, 2) & 0x10, 0x10);
        assert_eq!(c.read(254, 4), 0xffff_0000);
    }

    #[test]
    fn restoring_changes_only_what_software_can() {
        let mut c = space();
        assert_eq!(c.restore(&[0xff; 255]), None);
        assert_eq!(c.restore(&[0xff; 256]), Some(()));
        assert_eq!(c.read(0, 4), 0x5678_1234);
        assert_eq!(c.read(4, 2), 0x0406);
    }
}
