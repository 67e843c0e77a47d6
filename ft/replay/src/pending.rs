//! The disk requests that a replayed machine waits for.
//!
//! Not responsible for: images (`disks`), when a completion comes (the log says), what a power cut could still take
//! (`unflushed`).
//!
//! The recorded side performs the requests of a disk in the order in which they were made, whatever the order of
//! their completions. Here a request takes effect when the log completes it, since only then is it known how it
//! went; but what it overlaps of the requests made before it is carried out first, so that every read gets the
//! bytes that the recorded side read. (A write that the recorded host failed and that a later request overlaps while
//! it is in flight is carried out here; the checksum of the read that would show it ends the replay.)

use crate::disks::ReplayDisks;
use crate::diverged::Mismatch;
use crate::unflushed::Unflushed;
use gemel_log::data_check;
use gemel_machine::{DiskOp, DiskRequest, DiskStatus};
use std::io;
use std::sync::Arc;

const SECTOR: usize = 512;
/// A read goes in pieces, so that one beyond the image's end fails before it has cost memory.
const PIECE: usize = 1 << 20;

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

/// How the log says that a request ended.
pub(crate) struct Completion {
    pub(crate) disk: u8,
    pub(crate) tag: u64,
    pub(crate) status: DiskStatus,
    /// Bytes of data that it delivered.
    pub(crate) length: u64,
    /// Their checksum, when they are to be read from the image.
    pub(crate) check: Option<u32>,
}

/// A request that the guest waits for.
#[derive(Clone)]
struct Waiting {
    request: DiskRequest,
    /// What came of it when it was carried out ahead of its completion, because a later one overlaps it. A failure
    /// counts only if the log says that the request went well.
    early: Option<Result<Vec<u8>, Arc<io::Error>>>,
}

#[derive(Clone, Default)]
pub(crate) struct Requests {
    /// In the order in which they were made.
    waiting: Vec<Waiting>,
    unflushed: Unflushed,
}

/// The sectors that a request touches.
fn range(op: &DiskOp) -> (u64, u64) {
    match op {
        DiskOp::Read { sector, sectors } => (*sector, sector.saturating_add(u64::from(*sectors))),
        DiskOp::Write { sector, data } => {
            (*sector, sector.saturating_add(data.len().div_ceil(SECTOR) as u64))
        }
        DiskOp::Flush => (0, 0),
    }
}

/// Whether it matters which of the two comes first.
fn conflict(a: &DiskRequest, b: &DiskRequest) -> bool {
    let writes = matches!(a.op, DiskOp::Write { .. }) || matches!(b.op, DiskOp::Write { .. });
    let (a_range, b_range) = (range(&a.op), range(&b.op));
    writes && a.disk == b.disk && a_range.0 < b_range.1 && b_range.0 < a_range.1
}

fn read(disks: &mut dyn ReplayDisks, disk: u8, sector: u64, sectors: u32) -> io::Result<Vec<u8>> {
    let length = sectors as usize * SECTOR;
    let mut data = Vec::new();
    while data.len() < length {
        let start = data.len();
        data.resize(length.min(start + PIECE), 0);
        disks.read(disk, sector.saturating_add((start / SECTOR) as u64), &mut data[start..])?;
    }
    Ok(data)
}

fn perform(disks: &mut dyn ReplayDisks, request: &DiskRequest) -> io::Result<Vec<u8>> {
    match &request.op {
        DiskOp::Read { sector, sectors } => read(disks, request.disk, *sector, *sectors),
        DiskOp::Write { sector, data } => disks.write(request.disk, *sector, data).map(|()| Vec::new()),
        DiskOp::Flush => disks.flush(request.disk).map(|()| Vec::new()),
    }
}

impl Requests {
    /// The guest made a request.
    pub(crate) fn made(&mut self, request: DiskRequest) {
        self.waiting.push(Waiting { request, early: None });
    }

    /// Requests that are carried out and not complete. What reads among them delivered is not known.
    pub(crate) fn carried_out(requests: Vec<DiskRequest>) -> Self {
        let early =
            |request: &DiskRequest| (!matches!(request.op, DiskOp::Read { .. })).then(|| Ok(Vec::new()));
        let waiting =
            requests.into_iter().map(|request| Waiting { early: early(&request), request }).collect();
        Self { waiting, ..Self::default() }
    }

    /// A request is complete that was carried out elsewhere.
    pub(crate) fn forget(&mut self, disk: u8, tag: u64) {
        self.waiting.retain(|w| (w.request.disk, w.request.tag) != (disk, tag));
    }

    /// Requests that wait, and unflushed writes, in order.
    pub(crate) fn into_lists(self) -> (Vec<DiskRequest>, Vec<DiskRequest>) {
        (self.waiting.into_iter().map(|w| w.request).collect(), self.unflushed.into_list())
    }

    /// Completes a request: writes and flushes reach the images. Returns the data read, if the log does not carry
    /// it.
    pub(crate) fn complete(
        &mut self,
        disks: &mut dyn ReplayDisks,
        done: &Completion,
    ) -> Result<Vec<u8>, Trouble> {
        let Completion { disk, tag, status, length, check } = *done;
        let found = self.waiting.iter().position(|w| (w.request.disk, w.request.tag) == (disk, tag));
        let Some(found) = found else {
            return Err(Trouble::Differs(Mismatch {
                what: "disk request",
                expected: format!("one with tag {tag} on disk {disk}"),
                found: format!("none among {} in flight", self.waiting.len()),
            }));
        };
        let wanted = match self.waiting[found].request.op {
            DiskOp::Read { sectors, .. } => u64::from(sectors) * SECTOR as u64,
            _ => 0,
        };
        if wanted != length && !(status == DiskStatus::Error && length == 0) {
            return Err(Trouble::Differs(Mismatch {
                what: "disk request's length",
                expected: format!("{length} bytes"),
                found: format!("{wanted} bytes"),
            }));
        }
        if status == DiskStatus::Error {
            self.waiting.remove(found);
            return Ok(Vec::new());
        }
        let carried_read = check.is_none() && matches!(self.waiting[found].request.op, DiskOp::Read { .. });
        if !carried_read {
            self.carry_out_before(disks, found);
        }
        let Waiting { request, early } = self.waiting.remove(found);
        let data = match early {
            _ if carried_read => Vec::new(),
            Some(result) => result.map_err(|e| io::Error::new(e.kind(), e))?,
            None => perform(disks, &request)?,
        };
        if let (DiskOp::Read { sector, sectors }, Some(check)) = (&request.op, check)
            && data_check(&data) != check
        {
            return Err(Trouble::Differs(Mismatch {
                what: "disk image",
                expected: format!("crc {check:08x} over {sectors} sectors from {sector} of disk {disk}"),
                found: format!("crc {:08x}", data_check(&data)),
            }));
        }
        self.unflushed.completed(disks, request)?;
        Ok(data)
    }

    /// Carries out, in order, the requests before `index` that it must not overtake, and what those must not.
    fn carry_out_before(&mut self, disks: &mut dyn ReplayDisks, index: usize) {
        for i in 0..index {
            if self.waiting[i].early.is_none()
                && conflict(&self.waiting[i].request, &self.waiting[index].request)
            {
                self.carry_out_before(disks, i);
                self.waiting[i].early = Some(perform(disks, &self.waiting[i].request).map_err(Arc::new));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One disk of eight sectors, each filled with one byte.
    struct Memory([u8; 8]);

    impl ReplayDisks for Memory {
        fn read(&mut self, _disk: u8, sector: u64, out: &mut [u8]) -> io::Result<()> {
            for (i, piece) in out.chunks_mut(SECTOR).enumerate() {
                let content = self.0.get(sector as usize + i).ok_or(io::ErrorKind::InvalidInput)?;
                piece.fill(*content);
            }
            Ok(())
        }

        fn write(&mut self, _disk: u8, sector: u64, data: &[u8]) -> io::Result<()> {
            data.chunks(SECTOR).enumerate().for_each(|(i, piece)| self.0[sector as usize + i] = piece[0]);
            Ok(())
        }

        fn flush(&mut self, _disk: u8) -> io::Result<()> {
            Ok(())
        }
    }

    fn requests(ops: &[DiskOp]) -> Requests {
        let mut requests = Requests::default();
        for (tag, op) in ops.iter().enumerate() {
            requests.made(DiskRequest { disk: 0, tag: tag as u64, op: op.clone() });
        }
        requests
    }

    fn write(sector: u64, byte: u8) -> DiskOp {
        DiskOp::Write { sector, data: vec![byte; SECTOR] }
    }

    fn done(tag: u64, read: Option<&[u8]>) -> Completion {
        let data: Vec<u8> = read.unwrap_or_default().iter().flat_map(|b| [*b; SECTOR]).collect();
        Completion {
            disk: 0,
            tag,
            status: DiskStatus::Ok,
            length: data.len() as u64,
            check: Some(data_check(&data)),
        }
    }

    #[test]
    fn reads_see_the_writes_made_before_them_in_whatever_order_they_complete() {
        let ops = [
            DiskOp::Read { sector: 0, sectors: 4 },
            write(1, 9),
            DiskOp::Read { sector: 1, sectors: 1 },
            write(1, 8),
            DiskOp::Read { sector: 1, sectors: 1 },
        ];
        let reads: [Option<&[u8]>; 5] = [Some(&[0, 0, 0, 0]), None, Some(&[9]), None, Some(&[8])];
        for order in [[0, 1, 2, 3, 4], [4, 3, 2, 1, 0], [2, 4, 0, 3, 1], [3, 0, 4, 1, 2]] {
            let mut disks = Memory([0; 8]);
            let mut requests = requests(&ops);
            for tag in order {
                let data = requests.complete(&mut disks, &done(tag, reads[tag as usize]));
                assert!(data.is_ok_and(|d| d.len() == 512 * reads[tag as usize].map_or(0, <[u8]>::len)));
            }
            assert_eq!(disks.0[1], 8, "{order:?}");
            assert_eq!(requests.into_lists().1.len(), 2);
        }
    }

    #[test]
    fn a_failed_request_does_nothing_and_a_huge_one_costs_nothing() {
        let mut disks = Memory([0; 8]);
        let mut requests =
            requests(&[write(2, 7), DiskOp::Read { sector: 0, sectors: u32::MAX }, write(2, 6)]);
        let failed = Completion { status: DiskStatus::Error, length: 0, ..done(0, None) };
        assert!(requests.complete(&mut disks, &failed).is_ok());
        assert_eq!(disks.0[2], 0);
        assert!(requests.complete(&mut disks, &done(2, None)).is_ok());
        let length = u64::from(u32::MAX) * 512;
        let claimed = Completion { length, ..done(1, None) };
        assert!(matches!(requests.complete(&mut disks, &claimed), Err(Trouble::Host(_))));
    }

    #[test]
    fn flushed_writes_are_forgotten() {
        let mut disks = Memory([0; 8]);
        let mut requests = requests(&[write(0, 1), DiskOp::Flush, write(1, 2), write(2, 3)]);
        for tag in 0..3 {
            assert!(requests.complete(&mut disks, &done(tag, None)).is_ok());
        }
        let (waiting, unflushed) = requests.into_lists();
        assert_eq!((waiting[0].tag, unflushed[0].tag), (3, 2));
        assert_eq!((waiting.len(), unflushed.len()), (1, 1));
    }
}
