//! The completed writes that no completed flush covers, disk by disk: a power cut may still take them from an image, and the
//! guest may rely on them until it has asked for a flush.
//!
//! Not responsible for: the images (`disks`), performing the writes again (who takes the machine over).

use crate::disks::ReplayDisks;
use gemel_machine::{DiskOp, DiskRequest};
use std::collections::BTreeMap;
use std::io;

/// What is kept of one disk, in bytes. Beyond, the image is made durable instead, so that a guest that never flushes does
/// not fill the host's memory.
const BOUND: usize = 64 << 20;

#[derive(Clone, Default)]
struct Writes {
    /// In the order of their completion.
    requests: Vec<DiskRequest>,
    bytes: usize,
}

/// Unflushed writes of all disks.
#[derive(Clone)]
pub(crate) struct Unflushed {
    disks: BTreeMap<u8, Writes>,
    bound: usize,
}

impl Default for Unflushed {
    fn default() -> Self {
        Self::bounded(BOUND)
    }
}

impl Unflushed {
    /// Keeps at most `bound` bytes of each disk.
    pub(crate) fn bounded(bound: usize) -> Self {
        Self { disks: BTreeMap::new(), bound }
    }

    /// A request was carried out on its image and is complete.
    pub(crate) fn completed(&mut self, images: &mut dyn ReplayDisks, request: DiskRequest) -> io::Result<()> {
        let disk = request.disk;
        match &request.op {
            DiskOp::Read { .. } => {}
            DiskOp::Flush => {
                self.disks.remove(&disk);
            }
            DiskOp::Write { data, .. } => {
                let writes = self.disks.entry(disk).or_default();
                writes.bytes += data.len();
                writes.requests.push(request);
                if writes.bytes > self.bound {
                    images.flush(disk)?;
                    self.disks.remove(&disk);
                }
            }
        }
        Ok(())
    }

    /// The writes, disk by disk, each disk's in order.
    pub(crate) fn into_list(self) -> Vec<DiskRequest> {
        self.disks.into_values().flat_map(|writes| writes.requests).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECTOR: usize = 512;
    const SECTORS: u64 = 8;
    const DISKS: u8 = 2;

    /// Images behind a cache that a power cut empties. A sector holds one byte, many times.
    #[derive(Clone)]
    struct Volatile {
        durable: [[u8; SECTORS as usize]; DISKS as usize],
        cached: [[u8; SECTORS as usize]; DISKS as usize],
        flushes: u32,
    }

    impl Volatile {
        fn new() -> Self {
            let empty = [[0; SECTORS as usize]; DISKS as usize];
            Self { durable: empty, cached: empty, flushes: 0 }
        }

        fn cut_power(&mut self) {
            self.cached = self.durable;
        }
    }

    impl ReplayDisks for Volatile {
        fn read(&mut self, disk: u8, sector: u64, out: &mut [u8]) -> io::Result<()> {
            let sectors = &self.cached[usize::from(disk)][sector as usize..];
            out.chunks_mut(SECTOR).zip(sectors).for_each(|(piece, byte)| piece.fill(*byte));
            Ok(())
        }

        fn write(&mut self, disk: u8, sector: u64, data: &[u8]) -> io::Result<()> {
            let sectors = &mut self.cached[usize::from(disk)][sector as usize..];
            data.chunks(SECTOR).zip(sectors).for_each(|(piece, byte)| *byte = piece[0]);
            Ok(())
        }

        fn flush(&mut self, disk: u8) -> io::Result<()> {
            self.durable[usize::from(disk)] = self.cached[usize::from(disk)];
            self.flushes += 1;
            Ok(())
        }
    }

    fn write(disk: u8, tag: u64, sector: u64, bytes: &[u8]) -> DiskRequest {
        let data = bytes.iter().flat_map(|byte| [*byte; SECTOR]).collect();
        DiskRequest { disk, tag, op: DiskOp::Write { sector, data } }
    }

    fn perform(images: &mut Volatile, request: &DiskRequest) {
        match &request.op {
            DiskOp::Write { sector, data } => images.write(request.disk, *sector, data).unwrap(),
            DiskOp::Flush => images.flush(request.disk).unwrap(),
            DiskOp::Read { .. } => {}
        }
    }

    /// A thousand guests that write and flush; each image loses its power at a random moment.
    #[test]
    fn done_again_they_restore_what_a_power_cut_took() {
        let mut lost_something = 0;
        for seed in 0..1000u64 {
            let mut state = seed;
            let mut below = |n: u64| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (state >> 33) % n
            };
            let (mut images, mut unflushed) = (Volatile::new(), Unflushed::bounded(20 * SECTOR));
            for tag in 0..below(60) {
                let disk = below(u64::from(DISKS)) as u8;
                let request = if below(8) == 0 {
                    DiskRequest { disk, tag, op: DiskOp::Flush }
                } else {
                    let sector = below(SECTORS);
                    let length = 1 + below(SECTORS - sector);
                    write(disk, tag, sector, &vec![tag as u8 + 1; length as usize])
                };
                perform(&mut images, &request);
                unflushed.completed(&mut images, request).unwrap();
            }
            let before = images.cached;
            images.cut_power();
            lost_something += u32::from(images.cached != before);
            for request in unflushed.into_list() {
                perform(&mut images, &request);
            }
            assert_eq!(images.cached, before, "seed {seed}");
        }
        assert!(lost_something > 500, "{lost_something}");
    }

    #[test]
    fn a_guest_that_never_flushes_costs_a_flush_now_and_then_and_no_memory() {
        let (mut images, mut unflushed) = (Volatile::new(), Unflushed::bounded(4 * SECTOR));
        unflushed.completed(&mut images, write(1, 0, 0, &[9])).unwrap();
        for tag in 0..14 {
            unflushed.completed(&mut images, write(0, tag, tag % SECTORS, &[1])).unwrap();
            assert!(unflushed.disks.get(&0).is_none_or(|writes| writes.bytes <= 4 * SECTOR));
        }
        assert_eq!(images.flushes, 2);
        let left: Vec<_> = unflushed.into_list().iter().map(|request| (request.disk, request.tag)).collect();
        assert_eq!(left, [(0, 10), (0, 11), (0, 12), (0, 13), (1, 0)], "the other disk keeps its own");
    }
}
