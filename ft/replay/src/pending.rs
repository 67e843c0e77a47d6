//! The disk requests of a replayed machine: those it waits for, and the writes that no flush covers yet.
//!
//! Not responsible for: images (`disks`), when a completion comes (the log says).
//!
//! A request takes effect on the images when the log completes it, in the log's order: the recorded side performs
//! requests of a disk one after the other, so its reads saw exactly the writes completed before them.

use crate::disks::ReplayDisks;
use crate::diverged::Mismatch;
use gemel_log::data_check;
use gemel_machine::{DiskOp, DiskRequest, DiskStatus};
use std::io;

/// Unflushed writes are kept up to this many bytes; beyond, the image is made durable instead, so that a guest that
/// never flushes does not fill the host's memory.
const MOST_UNFLUSHED: usize = 64 << 20;
const SECTOR: u64 = 512;

/// Why a completion cannot be carried out.
pub(crate) enum Trouble {
    /// The image failed.
    Host(io::Error),
    /// The guest or the image is not as recorded.
    Differs(Mismatch),
}

impl From<io::Error> for Trouble {
    fn from(e: io::Error) -> Self {
        Self::Host(e)
    }
}

#[derive(Default)]
pub(crate) struct Requests {
    waiting: Vec<DiskRequest>,
    unflushed: Vec<DiskRequest>,
    unflushed_bytes: usize,
}

impl Requests {
    /// The guest made a request.
    pub(crate) fn made(&mut self, request: DiskRequest) {
        self.waiting.push(request);
    }

    /// Requests that wait, and unflushed writes, in order.
    pub(crate) fn into_lists(self) -> (Vec<DiskRequest>, Vec<DiskRequest>) {
        (self.waiting, self.unflushed)
    }

    /// A request is complete and delivered `length` bytes. Writes and flushes are applied to the images.
    pub(crate) fn complete(
        &mut self,
        disks: &mut dyn ReplayDisks,
        disk: u8,
        tag: u64,
        status: DiskStatus,
        length: u64,
    ) -> Result<DiskRequest, Trouble> {
        let found = self.waiting.iter().position(|r| (r.disk, r.tag) == (disk, tag));
        let Some(found) = found else {
            return Err(Trouble::Differs(Mismatch {
                what: "disk request",
                expected: format!("one with tag {tag} on disk {disk}"),
                found: format!("none among {} in flight", self.waiting.len()),
            }));
        };
        let request = self.waiting.remove(found);
        let wanted = match (&request.op, status) {
            (DiskOp::Read { sectors, .. }, DiskStatus::Ok) => u64::from(*sectors) * SECTOR,
            _ => 0,
        };
        if wanted != length && !(status == DiskStatus::Error && length == 0) {
            return Err(Trouble::Differs(Mismatch {
                what: "disk request's length",
                expected: format!("{length} bytes"),
                found: format!("{wanted} bytes"),
            }));
        }
        if status == DiskStatus::Ok {
            self.apply(disks, &request)?;
        }
        Ok(request)
    }

    fn apply(&mut self, disks: &mut dyn ReplayDisks, request: &DiskRequest) -> io::Result<()> {
        let disk = request.disk;
        match &request.op {
            DiskOp::Read { .. } => Ok(()),
            DiskOp::Write { sector, data } => {
                disks.write(disk, *sector, data)?;
                self.unflushed_bytes += data.len();
                self.unflushed.push(request.clone());
                if self.unflushed_bytes > MOST_UNFLUSHED { self.flush(disks, disk) } else { Ok(()) }
            }
            DiskOp::Flush => self.flush(disks, disk),
        }
    }

    fn flush(&mut self, disks: &mut dyn ReplayDisks, disk: u8) -> io::Result<()> {
        disks.flush(disk)?;
        self.unflushed.retain(|r| r.disk != disk);
        let bytes = |r: &DiskRequest| if let DiskOp::Write { data, .. } = &r.op { data.len() } else { 0 };
        self.unflushed_bytes = self.unflushed.iter().map(bytes).sum();
        Ok(())
    }

    /// The data of a completed read, from the image.
    pub(crate) fn read(
        &self,
        disks: &mut dyn ReplayDisks,
        request: &DiskRequest,
        check: u32,
    ) -> Result<Vec<u8>, Trouble> {
        let DiskOp::Read { sector, sectors } = request.op else { return Ok(Vec::new()) };
        let mut data = vec![0; sectors as usize * SECTOR as usize];
        disks.read(request.disk, sector, &mut data)?;
        let found = data_check(&data);
        if found != check {
            return Err(Trouble::Differs(Mismatch {
                what: "disk image",
                expected: format!(
                    "crc {check:08x} over {sectors} sectors from {sector} of disk {}",
                    request.disk
                ),
                found: format!("crc {found:08x}"),
            }));
        }
        Ok(data)
    }
}
