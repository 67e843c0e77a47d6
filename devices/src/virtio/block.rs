//! The virtio block device (Virtio 1.2 5.2): requests become [`DiskRequest`]s, and guest memory changes only when
//! their completion comes in.
//!
//! Not responsible for: the image (a world's), the ring (`queue`).

use super::VirtioDevice;
use super::queue::{Buffer, Chain, Queue, RingError, gather, scatter, total};
use gemel_machine::{DeviceCx, DiskOp, DiskRequest, DiskStatus, Input, Output, SectionError};
use serde::{Deserialize, Serialize};

const SECTOR: u64 = 512;
/// The largest segment and the most segments of a request: header and status take two more of the ring's entries.
const SIZE_MAX: u32 = 128 << 10;
const SEGMENTS_MAX: u32 = super::queue::MAX_SIZE as u32 - 2;
/// So no request of a driver that obeys is larger; others get an error.
const BYTES_MAX: u64 = SIZE_MAX as u64 * SEGMENTS_MAX as u64;
/// No further request is started while those in flight move this much: the host keeps their data.
const IN_FLIGHT_MAX: u64 = 64 << 20;

/// Feature bits (5.2.3).
const F_SIZE_MAX: u64 = 1 << 1;
const F_SEG_MAX: u64 = 1 << 2;
const F_RO: u64 = 1 << 5;
const F_BLK_SIZE: u64 = 1 << 6;
const F_FLUSH: u64 = 1 << 9;

/// Request types (5.2.6).
const T_IN: u32 = 0;
const T_OUT: u32 = 1;
const T_FLUSH: u32 = 4;
const T_GET_ID: u32 = 8;
/// Bytes of a request's header: type, reserved, sector.
const HEADER: u64 = 16;
/// Bytes of the id string.
const ID: usize = 20;

const S_OK: u8 = 0;
const S_IOERR: u8 = 1;
const S_UNSUPP: u8 = 2;

/// A request that the world works on.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
struct InFlight {
    tag: u64,
    head: u16,
    /// Where data and status go; the status is the last byte.
    writable: Vec<Buffer>,
    /// Kept whole, so that whoever takes the machine over can issue it again.
    op: DiskOp,
}

/// A disk.
pub struct Block {
    // Configuration.
    disk: u8,
    sectors: u64,
    read_only: bool,
    state: State,
}

#[derive(Clone, Default, PartialEq, Eq, Debug, Serialize, Deserialize)]
struct State {
    in_flight: Vec<InFlight>,
    /// Never starts again, not even at a reset: a late completion of an old request must not meet a new one.
    next_tag: u64,
    /// The queue was left with chains in it because enough is in flight; a completion goes on with it.
    stalled: bool,
}

impl State {
    /// Bytes that requests in flight move.
    fn bytes(&self) -> u64 {
        let bytes = |op: &DiskOp| match op {
            DiskOp::Read { sectors, .. } => u64::from(*sectors) * SECTOR,
            DiskOp::Write { data, .. } => data.len() as u64,
            DiskOp::Flush => 0,
        };
        self.in_flight.iter().map(|r| bytes(&r.op)).sum()
    }
}

impl Block {
    /// Disk number `disk` with `sectors` sectors of 512 bytes.
    pub fn new(disk: u8, sectors: u64, read_only: bool) -> Self {
        Self { disk, sectors, read_only, state: State::default() }
    }

    /// The requests that a saved state of the device has in flight.
    pub(super) fn requests(disk: u8, state: &[u8]) -> Option<Vec<DiskRequest>> {
        let state: State = postcard::from_bytes(state).ok()?;
        Some(state.in_flight.into_iter().map(|r| DiskRequest { disk, tag: r.tag, op: r.op }).collect())
    }

    /// Starts a request, or finishes one that needs no world.
    fn start(&mut self, cx: &mut DeviceCx<'_>, queue: &mut Queue, chain: Chain) -> Result<(), RingError> {
        let writable = total(&chain.writable);
        if writable == 0 {
            return Err(RingError); // no room for a status: 5.2.6.1
        }
        let header = gather(cx.ram, &chain.readable, 0, HEADER as usize)?;
        let Ok(header) = <[u8; HEADER as usize]>::try_from(header) else { return Err(RingError) };
        let [t0, t1, t2, t3, _, _, _, _, sector @ ..] = header;
        let (kind, sector) = (u32::from_le_bytes([t0, t1, t2, t3]), u64::from_le_bytes(sector));
        let op = match kind {
            T_IN => self.checked(sector, writable - 1).map(|sectors| DiskOp::Read { sector, sectors }),
            T_OUT => {
                let bytes = total(&chain.readable) - HEADER;
                match self.checked(sector, bytes) {
                    Ok(_) if self.read_only => Err(S_IOERR),
                    Ok(_) => {
                        let data = gather(cx.ram, &chain.readable, HEADER, bytes as usize)?;
                        Ok(DiskOp::Write { sector, data })
                    }
                    Err(status) => Err(status),
                }
            }
            T_FLUSH => Ok(DiskOp::Flush),
            T_GET_ID => {
                let id = self.id();
                let len = (writable - 1).min(ID as u64);
                scatter(cx.ram, &chain.writable, 0, &id[..len as usize])?;
                return finish(cx, queue, chain.head, &chain.writable, S_OK, len as u32);
            }
            _ => Err(S_UNSUPP),
        };
        match op {
            Ok(op) => {
                let tag = self.state.next_tag;
                self.state.next_tag = tag.wrapping_add(1);
                cx.emit(Output::Disk(DiskRequest { disk: self.disk, tag, op: op.clone() }));
                self.state.in_flight.push(InFlight { tag, head: chain.head, writable: chain.writable, op });
                Ok(())
            }
            Err(status) => finish(cx, queue, chain.head, &chain.writable, status, 0),
        }
    }

    /// The number of sectors of a transfer, or the status that refuses it.
    fn checked(&self, sector: u64, bytes: u64) -> Result<u32, u8> {
        let sectors = bytes / SECTOR;
        let end = sector.checked_add(sectors);
        let fits = end.is_some_and(|end| end <= self.sectors);
        if bytes > 0 && bytes.is_multiple_of(SECTOR) && bytes <= BYTES_MAX && fits {
            Ok(sectors as u32)
        } else {
            Err(S_IOERR)
        }
    }

    fn id(&self) -> [u8; ID] {
        let mut id = [0; ID];
        let text = format!("gemel-disk-{}", self.disk);
        id[..text.len()].copy_from_slice(text.as_bytes());
        id
    }
}

/// Writes the status into the last byte and gives the chain back. `written` counts the data before it.
fn finish(
    cx: &mut DeviceCx<'_>,
    queue: &mut Queue,
    head: u16,
    writable: &[Buffer],
    status: u8,
    written: u32,
) -> Result<(), RingError> {
    scatter(cx.ram, writable, total(writable) - 1, &[status])?;
    queue.push(cx.ram, head, written + 1)
}

impl VirtioDevice for Block {
    const TYPE: u16 = 2;
    const CLASS: u32 = 0x01_8000;
    const QUEUES: u16 = 1;

    fn features(&self) -> u64 {
        let read_only = if self.read_only { F_RO } else { 0 };
        F_SIZE_MAX | F_SEG_MAX | F_BLK_SIZE | F_FLUSH | read_only
    }

    fn config(&self) -> Vec<u8> {
        let mut config = vec![0; 60]; // 5.2.4, up to the zoned characteristics
        config[0..8].copy_from_slice(&self.sectors.to_le_bytes());
        config[8..12].copy_from_slice(&SIZE_MAX.to_le_bytes());
        config[12..16].copy_from_slice(&SEGMENTS_MAX.to_le_bytes());
        config[20..24].copy_from_slice(&(SECTOR as u32).to_le_bytes());
        config
    }

    fn notified(
        &mut self,
        cx: &mut DeviceCx<'_>,
        queues: &mut [Queue],
        index: usize,
    ) -> Result<(), RingError> {
        let Some(queue) = queues.get_mut(index) else { return Ok(()) };
        loop {
            self.state.stalled = self.state.bytes() >= IN_FLIGHT_MAX;
            if self.state.stalled {
                return Ok(());
            }
            let Some(chain) = queue.pop(cx.ram)? else { return Ok(()) };
            // More chains in flight than descriptors: the driver gave one twice (2.7.13).
            if self.state.in_flight.len() >= usize::from(queue.size) {
                return Err(RingError);
            }
            self.start(cx, queue, chain)?;
        }
    }

    fn on_input(
        &mut self,
        cx: &mut DeviceCx<'_>,
        queues: &mut [Queue],
        input: Input,
        _driven: bool,
    ) -> Result<(), RingError> {
        let Input::DiskDone { tag, status, data, .. } = input else { return Ok(()) };
        let Some(queue) = queues.first_mut() else { return Ok(()) };
        // A completion of a request from before a reset has nobody left to tell.
        let Some(at) = self.state.in_flight.iter().position(|r| r.tag == tag) else { return Ok(()) };
        let InFlight { head, writable, op, .. } = self.state.in_flight.remove(at);
        match (status, op) {
            (DiskStatus::Ok, DiskOp::Read { sectors, .. })
                if data.len() as u64 == u64::from(sectors) * SECTOR =>
            {
                scatter(cx.ram, &writable, 0, &data)?;
                finish(cx, queue, head, &writable, S_OK, data.len() as u32)?;
            }
            (DiskStatus::Ok, DiskOp::Write { .. } | DiskOp::Flush) => {
                finish(cx, queue, head, &writable, S_OK, 0)?
            }
            _ => finish(cx, queue, head, &writable, S_IOERR, 0)?,
        }
        if self.state.stalled { self.notified(cx, queues, 0) } else { Ok(()) }
    }

    fn reset(&mut self) {
        self.state = State { next_tag: self.state.next_tag, ..State::default() };
    }

    fn save(&self) -> Vec<u8> {
        postcard::to_stdvec(&self.state).unwrap_or_default()
    }

    fn restore(&mut self, state: &[u8]) -> Result<(), SectionError> {
        match postcard::take_from_bytes::<State>(state) {
            Ok((state, [])) if state.in_flight.iter().all(|r| total(&r.writable) > 0) => {
                self.state = state;
                Ok(())
            }
            _ => Err(SectionError::Damaged { device: "virtio-blk" }),
        }
    }
}

#[cfg(test)]
mod tests;
