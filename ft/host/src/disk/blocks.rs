//! A disk's content in blocks, for whoever copies it while its guest runs: digests to compare by, and which blocks changed.
//!
//! Not responsible for: where the blocks go to (`ft/pair`), requests of the guest (the module above).

use super::{SECTOR, Store};
use parking_lot::Mutex;
use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;
use xxhash_rust::xxh3::xxh3_128;

/// Bytes in a block: large enough that a digest of 16 bytes costs nothing beside it, small enough that a guest's 4 KiB write
/// does not move much. The last block of a disk can be shorter.
pub const BLOCK: u64 = 64 << 10;

/// A disk's store, and which of its blocks were written.
pub(super) struct Content {
    pub(super) store: Box<dyn Store>,
    /// Written since somebody asked; `None` while nobody does.
    changed: Option<BTreeSet<u64>>,
}

impl Content {
    pub(super) fn new(store: Box<dyn Store>) -> Self {
        Self { store, changed: None }
    }

    pub(super) fn write(&mut self, offset: u64, data: &[u8]) -> io::Result<()> {
        if let Some(changed) = &mut self.changed
            && !data.is_empty()
        {
            // A write that fails can have changed something too.
            changed.extend(offset / BLOCK..=(offset + data.len() as u64 - 1) / BLOCK);
        }
        self.store.write(offset, data)
    }
}

/// A handle on a disk's blocks, for another thread than the machine's. Each call holds the disk for one block's time.
#[derive(Clone)]
pub struct Blocks {
    pub(super) content: Arc<Mutex<Content>>,
    pub(super) size: u64,
}

impl Blocks {
    pub(super) fn new(content: &Arc<Mutex<Content>>, sectors: u64) -> Self {
        Self { content: Arc::clone(content), size: sectors * SECTOR }
    }

    /// How many blocks there are.
    pub fn count(&self) -> u64 {
        self.size.div_ceil(BLOCK)
    }

    /// Bytes in a block; 0 beyond the disk's end.
    fn length(&self, block: u64) -> usize {
        let left = block.checked_mul(BLOCK).map_or(0, |start| self.size.saturating_sub(start));
        left.min(BLOCK) as usize
    }

    /// A block's content now.
    ///
    /// # Errors
    /// What the host said, or that there is no such block.
    pub fn read(&self, block: u64) -> io::Result<Vec<u8>> {
        let mut data = vec![0; self.length(block)];
        if data.is_empty() {
            return Err(beyond());
        }
        self.content.lock().store.read(block * BLOCK, &mut data)?;
        Ok(data)
    }

    /// Replaces a block.
    ///
    /// # Errors
    /// What the host said, or that there is no such block, or that it has another length.
    pub fn write(&self, block: u64, data: &[u8]) -> io::Result<()> {
        if data.is_empty() || data.len() != self.length(block) {
            return Err(beyond());
        }
        self.content.lock().write(block * BLOCK, data)
    }

    /// Makes what was written durable.
    ///
    /// # Errors
    /// What the host said.
    pub fn flush(&self) -> io::Result<()> {
        self.content.lock().store.flush()
    }

    /// A block's digest, [`digest`] of its content now.
    ///
    /// # Errors
    /// As [`Blocks::read`].
    pub fn digest(&self, block: u64) -> io::Result<u128> {
        self.read(block).map(|data| digest(&data))
    }

    /// From here on notes which blocks are written. What was noted before is forgotten.
    pub fn watch(&self) {
        self.content.lock().changed = Some(BTreeSet::new());
    }

    /// Stops that.
    pub fn unwatch(&self) {
        self.content.lock().changed = None;
    }

    /// The blocks written since [`Blocks::watch`] or the last call; they count as unwritten from here on.
    pub fn take_changed(&self) -> Vec<u64> {
        self.content
            .lock()
            .changed
            .as_mut()
            .map_or_else(Vec::new, |c| std::mem::take(c).into_iter().collect())
    }

    /// How many blocks [`Blocks::take_changed`] would tell.
    pub fn changed(&self) -> usize {
        self.content.lock().changed.as_ref().map_or(0, BTreeSet::len)
    }
}

/// What a block is compared by.
pub fn digest(block: &[u8]) -> u128 {
    xxh3_128(block)
}

fn beyond() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, "no such block on this disk")
}

#[cfg(test)]
mod tests {
    use super::super::memory::Memory;
    use super::super::{Disk, DiskOp};
    use super::*;

    fn disk(size: usize) -> Disk {
        let content = (0..size).map(|i| (i >> 9) as u8).collect();
        Disk::new("test".into(), Box::new(Memory(content)), size as u64 / SECTOR, false)
    }

    #[test]
    fn a_copy_of_the_blocks_that_differ_is_the_same_disk() {
        let size = 3 * BLOCK as usize + 1024;
        let (mut ours, mut theirs) = (disk(size), disk(size));
        let (from, to) = (ours.blocks(), theirs.blocks());
        assert_eq!(from.count(), 4);
        // The second and the last block; the first write straddles into the third.
        ours.write(2 * BLOCK / SECTOR - 1, &[7; 1024]).unwrap();
        ours.write(3 * BLOCK / SECTOR + 1, &[8; 512]).unwrap();
        let differing: Vec<u64> =
            (0..4).filter(|b| from.digest(*b).unwrap() != to.digest(*b).unwrap()).collect();
        assert_eq!(differing, [1, 2, 3]);
        for block in differing {
            to.write(block, &from.read(block).unwrap()).unwrap();
        }
        assert_eq!(ours.digest().unwrap(), theirs.digest().unwrap());
    }

    #[test]
    fn what_is_written_while_somebody_watches_is_told_once() {
        let mut disk = disk(4 * BLOCK as usize);
        let blocks = disk.blocks();
        disk.write(0, &[1; 512]).unwrap();
        assert_eq!((blocks.changed(), blocks.take_changed()), (0, vec![]), "nobody watched");
        blocks.watch();
        disk.perform(&DiskOp::Write { sector: 128, data: vec![1; 512] });
        disk.write(255, &[1; 1024]).unwrap();
        assert_eq!((blocks.changed(), blocks.take_changed()), (2, vec![1, 2]));
        disk.write(0, &[2; 512]).unwrap();
        assert_eq!(blocks.take_changed(), [0]);
        blocks.unwatch();
        disk.write(0, &[3; 512]).unwrap();
        assert_eq!(blocks.take_changed(), [] as [u64; 0]);
    }

    #[test]
    fn there_are_no_blocks_beyond_the_end() {
        let disk = disk(BLOCK as usize + 512);
        let blocks = disk.blocks();
        for block in [2, u64::MAX, u64::MAX / BLOCK] {
            assert!(blocks.read(block).is_err() && blocks.digest(block).is_err());
        }
        assert!(blocks.write(1, &[0; BLOCK as usize]).is_err(), "longer than the last block");
        blocks.write(1, &[9; 512]).unwrap();
    }
}
