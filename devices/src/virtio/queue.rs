//! The split virtqueue (Virtio 1.2 2.7): descriptors, what the driver made available, what the device has used.
//!
//! Not responsible for: what is in a buffer (the device), when a queue is looked at (the transport).
//!
//! A driver can write anything into a ring. Walks are bounded by the queue's size, and a ring that breaks the rules
//! is a [`RingError`], upon which the transport asks for a reset.

use gemel_machine::{GuestRam, RamError};
use serde::{Deserialize, Serialize};

/// The largest size of a queue, and the one that it has until the driver makes it smaller.
pub const MAX_SIZE: u16 = 256;

const NEXT: u16 = 1 << 0;
const WRITE: u16 = 1 << 1;
const INDIRECT: u16 = 1 << 2;
const NO_INTERRUPT: u16 = 1 << 0;
/// Bytes of a descriptor.
const DESCRIPTOR: u64 = 16;

/// A ring that breaks the rules.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RingError;

impl From<RamError> for RingError {
    fn from(_: RamError) -> Self {
        Self
    }
}

/// A piece of guest memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Buffer {
    /// Guest physical address.
    pub address: u64,
    /// Bytes.
    pub len: u32,
}

/// A descriptor chain: what the device reads, then what it writes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Chain {
    /// Index of the first descriptor, by which the driver knows the chain.
    pub head: u16,
    /// Buffers for the device to read.
    pub readable: Vec<Buffer>,
    /// Buffers for the device to write.
    pub writable: Vec<Buffer>,
}

/// A queue as the driver set it up, and how far it has been worked on.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Queue {
    /// Entries; a power of two.
    pub size: u16,
    /// The driver has enabled the queue.
    pub enabled: bool,
    /// Descriptor area.
    pub descriptors: u64,
    /// Driver area: the available ring.
    pub available: u64,
    /// Device area: the used ring.
    pub used: u64,
    /// The next available entry to take.
    next_available: u16,
    /// The next used entry to write.
    next_used: u16,
    /// Whether the driver is to be interrupted for what was used; the transport takes it in the same call.
    #[serde(skip)]
    pub(super) interrupt: bool,
}

impl Queue {
    /// A queue as after reset.
    pub const fn new() -> Self {
        Self {
            size: MAX_SIZE,
            enabled: false,
            descriptors: 0,
            available: 0,
            used: 0,
            next_available: 0,
            next_used: 0,
            interrupt: false,
        }
    }

    /// Whether a size is one that a queue can have.
    pub const fn is_size(size: u16) -> bool {
        size.is_power_of_two() && size <= MAX_SIZE
    }

    /// Takes the next chain that the driver made available.
    ///
    /// # Errors
    /// [`RingError`] when the ring breaks the rules or is not in RAM.
    pub fn pop(&mut self, ram: &GuestRam) -> Result<Option<Chain>, RingError> {
        let index = u16_at(ram, at(self.available, 2)?)?;
        let waiting = index.wrapping_sub(self.next_available);
        if waiting > self.size {
            return Err(RingError); // 2.7.13.3: the index moves by what was added
        }
        if waiting == 0 {
            return Ok(None);
        }
        let slot = u64::from(self.next_available & (self.size - 1));
        let head = u16_at(ram, at(self.available, 4 + 2 * slot)?)?;
        self.next_available = self.next_available.wrapping_add(1);
        self.walk(ram, head).map(Some)
    }

    fn walk(&self, ram: &GuestRam, head: u16) -> Result<Chain, RingError> {
        let mut chain = Chain { head, readable: Vec::new(), writable: Vec::new() };
        let (mut table, mut entries, mut index) = (self.descriptors, u64::from(self.size), u64::from(head));
        let mut indirect = false;
        // 2.7.5.3.1: a chain is no longer than the queue; the descriptor that leads to a table is not part of it.
        for _ in 0..=self.size {
            if index >= entries {
                return Err(RingError);
            }
            let bytes: [u8; 16] = ram.read_array(at(table, index * DESCRIPTOR)?)?;
            let [a0, a1, a2, a3, a4, a5, a6, a7, l0, l1, l2, l3, f0, f1, n0, n1] = bytes;
            let buffer = Buffer {
                address: u64::from_le_bytes([a0, a1, a2, a3, a4, a5, a6, a7]),
                len: u32::from_le_bytes([l0, l1, l2, l3]),
            };
            let flags = u16::from_le_bytes([f0, f1]);
            if flags & INDIRECT != 0 {
                if indirect || flags & NEXT != 0 || !u64::from(buffer.len).is_multiple_of(DESCRIPTOR) {
                    return Err(RingError);
                }
                indirect = true;
                (table, entries, index) = (buffer.address, u64::from(buffer.len) / DESCRIPTOR, 0);
                continue;
            }
            match flags & WRITE != 0 {
                true => chain.writable.push(buffer),
                false if chain.writable.is_empty() => chain.readable.push(buffer),
                false => return Err(RingError), // 2.7.4.2: readable ones come first
            }
            if flags & NEXT == 0 {
                return Ok(chain);
            }
            index = u64::from(u16::from_le_bytes([n0, n1]));
        }
        Err(RingError)
    }

    /// Gives a chain back, with the number of bytes written into it.
    ///
    /// # Errors
    /// [`RingError`] when the used ring is not in RAM.
    pub fn push(&mut self, ram: &GuestRam, head: u16, written: u32) -> Result<(), RingError> {
        let slot = u64::from(self.next_used & (self.size - 1));
        let entry = [u32::from(head), written].map(u32::to_le_bytes).concat();
        ram.write(at(self.used, 4 + 8 * slot)?, &entry)?;
        self.next_used = self.next_used.wrapping_add(1);
        ram.write(at(self.used, 2)?, &self.next_used.to_le_bytes())?;
        self.interrupt |= u16_at(ram, self.available)? & NO_INTERRUPT == 0;
        Ok(())
    }
}

impl Default for Queue {
    fn default() -> Self {
        Self::new()
    }
}

fn at(base: u64, offset: u64) -> Result<u64, RingError> {
    base.checked_add(offset).ok_or(RingError)
}

fn u16_at(ram: &GuestRam, address: u64) -> Result<u16, RingError> {
    Ok(u16::from_le_bytes(ram.read_array(address)?))
}

/// Bytes in a list of buffers.
pub fn total(buffers: &[Buffer]) -> u64 {
    buffers.iter().map(|b| u64::from(b.len)).sum()
}

/// Reads the bytes from `skip` on, at most `max` of them.
///
/// # Errors
/// [`RingError`] when a buffer is not in RAM.
pub fn gather(ram: &GuestRam, buffers: &[Buffer], skip: u64, max: usize) -> Result<Vec<u8>, RingError> {
    let mut out = Vec::new();
    let mut skip = skip;
    for buffer in buffers {
        let len = u64::from(buffer.len);
        let from = skip.min(len);
        skip -= from;
        let take = ((len - from) as usize).min(max - out.len());
        let start = out.len();
        out.resize(start + take, 0);
        ram.read(at(buffer.address, from)?, &mut out[start..])?;
    }
    Ok(out)
}

/// Writes bytes into buffers from `skip` on; what has no room is dropped.
///
/// # Errors
/// [`RingError`] when a buffer is not in RAM.
pub fn scatter(ram: &GuestRam, buffers: &[Buffer], skip: u64, data: &[u8]) -> Result<(), RingError> {
    let (mut skip, mut data) = (skip, data);
    for buffer in buffers {
        let len = u64::from(buffer.len);
        let from = skip.min(len);
        skip -= from;
        let (now, later) = data.split_at(((len - from) as usize).min(data.len()));
        ram.write(at(buffer.address, from)?, now)?;
        data = later;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
