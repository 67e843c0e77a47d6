//! The virtio network device (Virtio 1.2 5.1): frames that the driver queues leave at its notification, and a frame that comes in
//! goes into the next buffer that the driver made available.
//!
//! Not responsible for: who is at the other end (a world), the ring (`queue`).
//!
//! Nothing is offered beyond address and link status: no checksums or segments to finish, so that a frame is the same bytes
//! on both sides, and nothing to configure. The device has no state: a frame is through within one call or lost, as on a wire.

use super::VirtioDevice;
use super::queue::{Queue, RingError, gather, scatter, total};
use gemel_machine::{DeviceCx, Input, Output, SectionError};

/// Feature bits (5.1.3).
const F_MAC: u64 = 1 << 5;
const F_STATUS: u64 = 1 << 16;

const RECEIVE: usize = 0;
const TRANSMIT: usize = 1;

/// Bytes of the header before each frame (5.1.6), which a device without offloads neither reads nor needs; only the last field,
/// the number of buffers, is not zero on the way in (5.1.6.4.1).
const HEADER: u64 = 12;
const ONE_BUFFER: [u8; HEADER as usize] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0];

/// The shortest frame has addresses and type; padding is the wire's.
const SHORTEST: u64 = 14;
/// The longest: an MTU of 1500 bytes behind addresses, type, and one VLAN tag.
const LONGEST: u64 = 1518;

const LINK_UP: u16 = 1;

/// A network interface.
pub struct Net {
    // Configuration.
    nic: u8,
    mac: [u8; 6],
}

impl Net {
    /// Interface number `nic` with its address.
    pub fn new(nic: u8, mac: [u8; 6]) -> Self {
        Self { nic, mac }
    }
}

fn is_frame(bytes: u64) -> bool {
    (SHORTEST..=LONGEST).contains(&bytes)
}

impl VirtioDevice for Net {
    const TYPE: u16 = 1;
    const CLASS: u32 = 0x02_0000;
    const QUEUES: u16 = 2;

    fn features(&self) -> u64 {
        F_MAC | F_STATUS
    }

    fn config(&self) -> Vec<u8> {
        [&self.mac[..], &LINK_UP.to_le_bytes()].concat() // 5.1.4, up to the status
    }

    fn notified(
        &mut self,
        cx: &mut DeviceCx<'_>,
        queues: &mut [Queue],
        index: usize,
    ) -> Result<(), RingError> {
        // A buffer to receive into is found when a frame comes.
        let Some(queue) = queues.get_mut(index).filter(|_| index == TRANSMIT) else { return Ok(()) };
        // A used ring that lies on the available ring would never run empty.
        for _ in 0..queue.size {
            let Some(chain) = queue.pop(cx.ram)? else { return Ok(()) };
            let bytes = total(&chain.readable).saturating_sub(HEADER);
            if is_frame(bytes) {
                let bytes = gather(cx.ram, &chain.readable, HEADER, bytes as usize)?;
                cx.emit(Output::Frame { nic: self.nic, bytes });
            }
            queue.push(cx.ram, chain.head, 0)?;
        }
        Ok(())
    }

    fn on_input(
        &mut self,
        cx: &mut DeviceCx<'_>,
        queues: &mut [Queue],
        input: Input,
        driven: bool,
    ) -> Result<(), RingError> {
        let Input::Frame { bytes, .. } = input else { return Ok(()) };
        let Some(queue) = queues.get_mut(RECEIVE).filter(|queue| driven && queue.enabled) else {
            return Ok(());
        };
        if !is_frame(bytes.len() as u64) {
            return Ok(());
        }
        let Some(chain) = queue.pop(cx.ram)? else { return Ok(()) };
        let length = HEADER + bytes.len() as u64;
        if total(&chain.writable) < length {
            // 5.1.6.3.1: the driver's buffers hold the longest frame. One that does not comes back empty.
            return queue.push(cx.ram, chain.head, 0);
        }
        scatter(cx.ram, &chain.writable, 0, &ONE_BUFFER)?;
        scatter(cx.ram, &chain.writable, HEADER, &bytes)?;
        queue.push(cx.ram, chain.head, length as u32)
    }

    fn reset(&mut self) {}

    fn save(&self) -> Vec<u8> {
        Vec::new()
    }

    fn restore(&mut self, state: &[u8]) -> Result<(), SectionError> {
        if state.is_empty() { Ok(()) } else { Err(SectionError::Damaged { device: "virtio-net" }) }
    }
}

#[cfg(test)]
mod tests;
