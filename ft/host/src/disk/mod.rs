//! Disks: images, and requests that complete at fixed guest times.
//!
//! Not responsible for: the controller and its rings (`devices/virtio`), writing requests to a log.
//!
//! A request is performed when it is made, and its completion reaches the guest a fixed guest time later: so the
//! guest cannot tell a fast host from a slow one, and a run without any log is reproducible.

mod blocks;
mod drive;
mod image;
#[cfg(test)]
mod memory;
mod overlay;

pub use blocks::{BLOCK, Blocks, digest as block_digest};
pub use drive::{Changes, DriveSpec};
pub use image::Image;
pub use overlay::Overlay;

use crate::error::HostError;
use blocks::Content;
use gemel_machine::{DiskOp, DiskRequest, DiskStatus, Input, VirtTime};
use parking_lot::Mutex;
use std::io;
use std::sync::Arc;
use xxhash_rust::xxh3::Xxh3;

/// Bytes in a sector.
pub const SECTOR: u64 = 512;

/// Guest time from a request to its completion, whatever it asks.
const LATENCY_NS: u64 = 50_000;
/// Guest time for each byte moved: 1 GB/s, an ordinary SSD.
const NS_PER_BYTE: u64 = 1;

/// The content of one disk.
pub trait Store: Send {
    /// Reads at a byte offset; the range lies inside the disk.
    ///
    /// # Errors
    /// What the host said.
    fn read(&mut self, offset: u64, out: &mut [u8]) -> io::Result<()>;

    /// Writes at a byte offset; the range lies inside the disk.
    ///
    /// # Errors
    /// What the host said.
    fn write(&mut self, offset: u64, data: &[u8]) -> io::Result<()>;

    /// Makes what was written durable.
    ///
    /// # Errors
    /// What the host said.
    fn flush(&mut self) -> io::Result<()>;
}

/// One disk.
pub struct Disk {
    name: String,
    content: Arc<Mutex<Content>>,
    sectors: u64,
    read_only: bool,
    warned: bool,
    /// A write that the guest takes for done is not: its next flush has to say so.
    lost: bool,
}

impl Disk {
    /// A disk over a store of `sectors` sectors. `name` stands in warnings.
    pub fn new(name: String, store: Box<dyn Store>, sectors: u64, read_only: bool) -> Self {
        let content = Arc::new(Mutex::new(Content::new(store)));
        Self { name, content, sectors, read_only, warned: false, lost: false }
    }

    /// A handle on the content's blocks.
    pub fn blocks(&self) -> Blocks {
        Blocks::new(&self.content, self.sectors)
    }

    /// Size in sectors.
    pub fn sectors(&self) -> u64 {
        self.sectors
    }

    /// Whether writes are refused.
    pub fn read_only(&self) -> bool {
        self.read_only
    }

    /// The digest of the whole content as the guest would read it now, equal to
    /// [`gemel_machine::image_digest`] of it.
    ///
    /// # Errors
    /// What the host said.
    pub fn digest(&mut self) -> io::Result<u128> {
        let mut hash = Xxh3::new();
        let mut piece = vec![0; 1 << 20];
        let size = self.sectors * SECTOR;
        let mut at = 0;
        while at < size {
            let n = (size - at).min(piece.len() as u64) as usize;
            self.content.lock().store.read(at, &mut piece[..n])?;
            hash.update(&piece[..n]);
            at += n as u64;
        }
        Ok(hash.digest128())
    }

    /// Performs a request now: how it went, and the data of a read.
    pub fn perform(&mut self, op: &DiskOp) -> (DiskStatus, Vec<u8>) {
        match self.try_perform(op) {
            Ok(data) => (DiskStatus::Ok, data),
            Err(e) => {
                self.warn(&e);
                (DiskStatus::Error, Vec::new())
            }
        }
    }

    fn warn(&mut self, error: &io::Error) {
        if !std::mem::replace(&mut self.warned, true) {
            crate::warn(format_args!("{}: {error}; the guest gets an I/O error", self.name));
        }
    }

    /// Performs a write again that was complete before, and not covered by a flush. Where that fails, the guest's next flush
    /// does, as on a disk whose cache lost something.
    fn write_again(&mut self, sector: u64, data: &[u8]) {
        if let Err(e) = self.write(sector, data) {
            self.warn(&e);
            self.lost = true;
        }
    }

    fn try_perform(&mut self, op: &DiskOp) -> io::Result<Vec<u8>> {
        match op {
            DiskOp::Read { sector, sectors } => {
                // Checked before there is a buffer: a guest may ask for more than there is memory.
                self.offset(*sector, u64::from(*sectors))?;
                let mut data = vec![0; *sectors as usize * SECTOR as usize];
                self.read(*sector, &mut data).map(|()| data)
            }
            DiskOp::Write { sector, data } => self.write(*sector, data).map(|()| Vec::new()),
            DiskOp::Flush if std::mem::take(&mut self.lost) => {
                Err(io::Error::other("an earlier write is lost"))
            }
            DiskOp::Flush => self.flush().map(|()| Vec::new()),
        }
    }

    /// Reads whole sectors.
    ///
    /// # Errors
    /// What the host said, or that the range is not on the disk.
    pub fn read(&mut self, sector: u64, out: &mut [u8]) -> io::Result<()> {
        let offset = self.offset(sector, (out.len() as u64).div_ceil(SECTOR))?;
        self.content.lock().store.read(offset, out)
    }

    /// Writes whole sectors.
    ///
    /// # Errors
    /// What the host said, or that the range is not on the disk, or that the disk is write-protected.
    pub fn write(&mut self, sector: u64, data: &[u8]) -> io::Result<()> {
        if self.read_only {
            return Err(io::ErrorKind::ReadOnlyFilesystem.into());
        }
        let offset = self.offset(sector, (data.len() as u64).div_ceil(SECTOR))?;
        self.content.lock().write(offset, data)
    }

    /// Makes what was written durable.
    ///
    /// # Errors
    /// What the host said.
    pub fn flush(&mut self) -> io::Result<()> {
        self.content.lock().store.flush()
    }

    /// The byte offset of a range of sectors, if it lies on the disk.
    fn offset(&self, sector: u64, sectors: u64) -> io::Result<u64> {
        match sector.checked_add(sectors) {
            Some(end) if end <= self.sectors => Ok(sector * SECTOR),
            _ => Err(io::Error::new(io::ErrorKind::InvalidInput, "a request beyond the end of the disk")),
        }
    }
}

/// The disks of a machine and the completions on their way.
#[derive(Default)]
pub struct Disks {
    disks: Vec<Disk>,
    /// Sorted by (due, order of request).
    under_way: Vec<(VirtTime, Input)>,
}

impl Disks {
    /// Disks, in the board's order.
    pub fn new(disks: Vec<Disk>) -> Self {
        Self { disks, under_way: Vec::new() }
    }

    /// Opens what `--drive` names, in order.
    ///
    /// # Errors
    /// See [`DriveSpec::open`].
    pub fn open(specs: &[DriveSpec]) -> Result<Self, HostError> {
        Ok(Self::new(specs.iter().map(DriveSpec::open).collect::<Result<_, _>>()?))
    }

    /// The disks, in order.
    pub fn disks(&mut self) -> &mut [Disk] {
        &mut self.disks
    }

    /// Goes on where another world was left: performs again, in order, the writes that it completed and no flush covered,
    /// then the requests that the guest still waits for.
    pub fn take_over(&mut self, now: VirtTime, unflushed: &[DiskRequest], requests: Vec<DiskRequest>) {
        for request in unflushed {
            if let DiskOp::Write { sector, data } = &request.op
                && let Some(disk) = self.disks.get_mut(usize::from(request.disk))
            {
                disk.write_again(*sector, data);
            }
        }
        for request in requests {
            self.submit(now, request);
        }
    }

    /// Performs a request and schedules its completion.
    pub fn submit(&mut self, now: VirtTime, request: DiskRequest) {
        let DiskRequest { disk, tag, op } = request;
        let (status, data) = match self.disks.get_mut(usize::from(disk)) {
            Some(backend) => backend.perform(&op),
            None => (DiskStatus::Error, Vec::new()),
        };
        let moved = match &op {
            DiskOp::Write { data, .. } => data.len(),
            _ => data.len(),
        } as u64;
        let due = now.after(LATENCY_NS + moved * NS_PER_BYTE);
        let place = self.under_way.partition_point(|(other, _)| *other <= due);
        self.under_way.insert(place, (due, Input::DiskDone { disk, tag, status, data }));
    }

    /// When the next completion is due, or [`VirtTime::NEVER`].
    pub fn next_due(&self) -> VirtTime {
        self.under_way.first().map_or(VirtTime::NEVER, |c| c.0)
    }

    /// Takes the next completion that is due.
    pub fn take_due(&mut self, now: VirtTime) -> Option<Input> {
        (self.next_due() <= now).then(|| self.under_way.remove(0).1)
    }
}

#[cfg(test)]
mod tests {
    use super::memory::Memory;
    use super::*;

    fn disks(read_only: bool) -> Disks {
        let content = (0..4096).map(|i| (i / 7) as u8).collect();
        Disks::new(vec![Disk::new("test".into(), Box::new(Memory(content)), 8, read_only)])
    }

    fn request(tag: u64, op: DiskOp) -> DiskRequest {
        DiskRequest { disk: 0, tag, op }
    }

    fn status(input: Option<Input>) -> (u64, DiskStatus, usize) {
        match input {
            Some(Input::DiskDone { disk: 0, tag, status, data }) => (tag, status, data.len()),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn completions_come_at_fixed_times_in_order() {
        let mut d = disks(false);
        d.submit(VirtTime(1000), request(1, DiskOp::Read { sector: 0, sectors: 8 }));
        d.submit(VirtTime(1010), request(2, DiskOp::Read { sector: 0, sectors: 1 }));
        d.submit(VirtTime(1010), request(3, DiskOp::Write { sector: 1, data: vec![1; 512] }));
        assert_eq!(d.next_due(), VirtTime(51_522));
        assert_eq!(d.take_due(VirtTime(51_521)), None);
        assert_eq!(status(d.take_due(VirtTime(60_000))), (2, DiskStatus::Ok, 512));
        assert_eq!(status(d.take_due(VirtTime(60_000))), (3, DiskStatus::Ok, 0));
        assert_eq!(status(d.take_due(VirtTime(60_000))), (1, DiskStatus::Ok, 4096));
        assert_eq!(d.next_due(), VirtTime::NEVER);
    }

    #[test]
    fn requests_that_cannot_be_done_complete_with_an_error() {
        let mut d = disks(false);
        let far = DiskOp::Read { sector: u64::MAX, sectors: u32::MAX };
        let over = DiskOp::Read { sector: 7, sectors: 2 };
        let huge = DiskOp::Read { sector: 0, sectors: u32::MAX };
        let bad = DiskOp::Write { sector: 3, data: vec![0; 512] };
        for (tag, op) in [far, over, huge, bad].into_iter().enumerate() {
            d.submit(VirtTime(0), request(tag as u64, op));
            assert_eq!(status(d.take_due(VirtTime(1 << 30))).1, DiskStatus::Error, "{tag}");
        }
        d.submit(VirtTime(0), DiskRequest { disk: 9, tag: 0, op: DiskOp::Flush });
        assert!(d.take_due(VirtTime(1 << 30)).is_some());
        let mut r = disks(true);
        r.submit(VirtTime(0), request(0, DiskOp::Write { sector: 0, data: vec![0; 512] }));
        assert_eq!(status(r.take_due(VirtTime(1 << 30))).1, DiskStatus::Error);
    }

    #[test]
    fn what_is_taken_over_is_done_again_before_a_read_is_served() {
        let write = |sector, byte| DiskOp::Write { sector, data: vec![byte; 512] };
        let mut d = disks(false);
        let unflushed = [request(1, write(5, 1)), request(2, write(5, 2))];
        let waiting = vec![request(3, DiskOp::Read { sector: 5, sectors: 1 }), request(4, write(5, 4))];
        d.take_over(VirtTime(0), &unflushed, waiting);
        let late = VirtTime(1 << 30);
        let Some(Input::DiskDone { tag: 3, data, .. }) = d.take_due(late) else { panic!("no read") };
        assert_eq!(data, [2; 512]);
        assert_eq!(status(d.take_due(late)), (4, DiskStatus::Ok, 0));
        assert_eq!(d.next_due(), VirtTime::NEVER, "what was complete does not complete again");
    }

    #[test]
    fn a_write_that_cannot_be_done_again_fails_the_next_flush_once() {
        let mut d = disks(false);
        let bad = request(1, DiskOp::Write { sector: 3, data: vec![1; 512] });
        d.take_over(VirtTime(0), &[bad], vec![request(2, DiskOp::Flush), request(3, DiskOp::Flush)]);
        assert_eq!(status(d.take_due(VirtTime(1 << 30))), (2, DiskStatus::Error, 0));
        assert_eq!(status(d.take_due(VirtTime(1 << 30))), (3, DiskStatus::Ok, 0));
    }

    #[test]
    fn the_digest_is_that_of_the_content() {
        let content: Vec<u8> = (0..4096).map(|i| (i / 7) as u8).collect();
        assert_eq!(disks(false).disks()[0].digest().unwrap(), gemel_machine::image_digest(&content));
    }
}
