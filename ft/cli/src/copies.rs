//! The disks of a machine that follows a log: the side's own images, which get the completed writes.
//!
//! Not responsible for: which files they are.

use gemel_host::disk::Blocks;
use gemel_host::{Disk, Disks};
use gemel_pair::shell::DiskBlocks;
use gemel_replay::ReplayDisks;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

/// Disks that a replay reads and writes, and that a live world can take over afterwards.
#[derive(Clone)]
pub struct Copies(Arc<Mutex<Disks>>);

impl Copies {
    /// Copies over these disks.
    pub fn new(disks: Disks) -> Self {
        Self(Arc::new(Mutex::new(disks)))
    }

    /// The disks; whoever else still holds these copies sees none from here on.
    pub fn take(&self) -> Disks {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn with(&self, disk: u8, f: impl FnOnce(&mut Disk) -> io::Result<()>) -> io::Result<()> {
        let mut disks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        disks.disks().get_mut(usize::from(disk)).map_or_else(|| Err(io::ErrorKind::NotFound.into()), f)
    }
}

/// A disk's blocks, as the pair copies them.
struct Replica(Blocks);

/// The blocks of all disks.
pub fn replicas(disks: &mut Disks) -> Vec<Arc<dyn DiskBlocks>> {
    disks.disks().iter().map(|disk| Arc::new(Replica(disk.blocks())) as _).collect()
}

impl DiskBlocks for Replica {
    fn count(&self) -> u64 {
        self.0.count()
    }

    fn read(&self, block: u64) -> io::Result<Vec<u8>> {
        self.0.read(block)
    }

    fn write(&self, block: u64, data: &[u8]) -> io::Result<()> {
        self.0.write(block, data)
    }

    fn digest(&self, block: u64) -> io::Result<u128> {
        self.0.digest(block)
    }

    fn flush(&self) -> io::Result<()> {
        self.0.flush()
    }

    fn watch(&self) {
        self.0.watch();
    }

    fn unwatch(&self) {
        self.0.unwatch();
    }

    fn take_changed(&self) -> Vec<u64> {
        self.0.take_changed()
    }

    fn changed(&self) -> usize {
        self.0.changed()
    }
}

impl ReplayDisks for Copies {
    fn read(&mut self, disk: u8, sector: u64, out: &mut [u8]) -> io::Result<()> {
        self.with(disk, |disk| disk.read(sector, out))
    }

    fn write(&mut self, disk: u8, sector: u64, data: &[u8]) -> io::Result<()> {
        self.with(disk, |disk| disk.write(sector, data))
    }

    fn flush(&mut self, disk: u8) -> io::Result<()> {
        self.with(disk, Disk::flush)
    }
}
