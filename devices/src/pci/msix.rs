//! MSI-X: a table of messages in memory, one for each interrupt reason of a function (PCI Local Bus 3.0 6.8.2).
//!
//! Not responsible for: delivering a message (`apic/lapic.rs`).

use super::ConfigSpace;
use gemel_machine::DeviceCx;
use serde::{Deserialize, Serialize};

const CAPABILITY: u8 = 0x11;
const CONTROL_ENABLE: u32 = 1 << 15;
const CONTROL_FUNCTION_MASK: u32 = 1 << 14;
const VECTOR_MASKED: u32 = 1;
/// Bytes of a table entry: address (two words), data, vector control.
const ENTRY: u64 = 16;
/// Where the pending bits lie in the BAR that holds both; the table is at its start.
pub const PENDING_OFFSET: u32 = 0x800;

/// The table and the pending bits.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct MsiX {
    capability: u16,
    table: Vec<[u32; 4]>,
    pending: Vec<bool>,
}

impl MsiX {
    /// `vectors` messages (1 to 128), with table and pending bits in BAR `bar` (4 KiB).
    pub fn new(config: &mut ConfigSpace, bar: u8, vectors: u16) -> Self {
        let mut body = vec![];
        body.extend_from_slice(&(vectors - 1).to_le_bytes());
        body.extend_from_slice(&u32::from(bar).to_le_bytes());
        body.extend_from_slice(&(PENDING_OFFSET | u32::from(bar)).to_le_bytes());
        let capability = config.add_capability(CAPABILITY, &body);
        config.allow(capability + 3, &[0xc0]);
        config.add_memory_bar(usize::from(bar), 0x1000);
        let count = usize::from(vectors);
        Self {
            capability: capability as u16,
            table: vec![[0, 0, 0, VECTOR_MASKED]; count],
            pending: vec![false; count],
        }
    }

    /// Number of messages.
    pub fn vectors(&self) -> usize {
        self.table.len()
    }

    /// Whether a saved table fits this one.
    pub fn matches(&self, other: &Self) -> bool {
        (self.capability, self.table.len(), self.pending.len())
            == (other.capability, other.table.len(), other.pending.len())
    }

    /// Masks everything, as after reset.
    pub fn reset(&mut self) {
        self.table.fill([0, 0, 0, VECTOR_MASKED]);
        self.pending.fill(false);
    }

    fn control(&self, config: &ConfigSpace) -> u32 {
        config.read(usize::from(self.capability) + 2, 2)
    }

    /// Whether messages are used in place of the interrupt pin.
    pub fn is_enabled(&self, config: &ConfigSpace) -> bool {
        self.control(config) & CONTROL_ENABLE != 0
    }

    /// Sends a message, or notes it until it is unmasked. A vector that does not exist is "none".
    pub fn notify(&mut self, cx: &mut DeviceCx<'_>, config: &ConfigSpace, vector: u16) {
        if let Some(pending) = self.pending.get_mut(usize::from(vector)) {
            *pending = true;
            self.flush(cx, config);
        }
    }

    /// Sends what was noted and is not masked any more.
    pub fn flush(&mut self, cx: &mut DeviceCx<'_>, config: &ConfigSpace) {
        let control = self.control(config);
        if control & CONTROL_ENABLE == 0 || control & CONTROL_FUNCTION_MASK != 0 || !config.is_bus_master() {
            return;
        }
        for (pending, [low, high, data, vector_control]) in self.pending.iter_mut().zip(&self.table) {
            if *pending && vector_control & VECTOR_MASKED == 0 {
                *pending = false;
                let address = u64::from(*high) << 32 | u64::from(*low & !3);
                cx.wires.message(address, *data);
            }
        }
    }

    /// A load from the BAR.
    pub fn read(&self, offset: u64, size: u8) -> u64 {
        if !matches!(size, 4 | 8) || !offset.is_multiple_of(u64::from(size)) {
            return u64::MAX; // 6.8.2: only aligned double and quad words are defined
        }
        let low = u64::from(self.word(offset));
        if size == 8 { low | u64::from(self.word(offset + 4)) << 32 } else { low }
    }

    fn word(&self, offset: u64) -> u32 {
        let pending_offset = u64::from(PENDING_OFFSET);
        if let Some(entry) = self.table.get((offset / ENTRY) as usize) {
            return entry[(offset % ENTRY / 4) as usize];
        }
        match offset.checked_sub(pending_offset) {
            Some(at) => {
                let bits = self.pending.iter().skip(at as usize * 8).take(32).enumerate();
                bits.fold(0, |word, (i, pending)| word | u32::from(*pending) << i)
            }
            None => 0,
        }
    }

    /// A store to the BAR. The pending bits are read-only.
    pub fn write(&mut self, cx: &mut DeviceCx<'_>, config: &ConfigSpace, offset: u64, size: u8, value: u64) {
        if !matches!(size, 4 | 8) || !offset.is_multiple_of(u64::from(size)) {
            return;
        }
        for (i, word) in
            [value as u32, (value >> 32) as u32].into_iter().take(usize::from(size / 4)).enumerate()
        {
            let offset = offset + 4 * i as u64;
            if let Some(entry) = self.table.get_mut((offset / ENTRY) as usize) {
                entry[(offset % ENTRY / 4) as usize] = word;
            }
        }
        self.flush(cx, config);
    }
}
