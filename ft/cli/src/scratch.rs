//! Disks that many replays read and none writes: what a replay writes stays in its own memory, and goes into its
//! checkpoints.
//!
//! Not responsible for: replays that go on to live (`copies`).

use gemel_host::Disks;
use gemel_replay::ReplayDisks;
use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

const SECTOR: usize = 512;

/// One replay's view of the disks. Copies share the images and the sectors written so far.
#[derive(Clone)]
pub struct Scratch {
    images: Arc<Mutex<Disks>>,
    written: BTreeMap<(u8, u64), Arc<[u8]>>,
}

impl Scratch {
    /// A view on untouched images.
    pub fn new(images: Disks) -> Self {
        Self { images: Arc::new(Mutex::new(images)), written: BTreeMap::new() }
    }
}

impl ReplayDisks for Scratch {
    fn read(&mut self, disk: u8, sector: u64, out: &mut [u8]) -> io::Result<()> {
        let mut images = self.images.lock().unwrap_or_else(PoisonError::into_inner);
        let image = images.disks().get_mut(usize::from(disk)).ok_or(io::ErrorKind::NotFound)?;
        image.read(sector, out)?;
        let end = sector.saturating_add((out.len() / SECTOR) as u64);
        for ((_, at), content) in self.written.range((disk, sector)..(disk, end)) {
            let offset = (at - sector) as usize * SECTOR;
            out[offset..offset + SECTOR].copy_from_slice(content);
        }
        Ok(())
    }

    fn write(&mut self, disk: u8, sector: u64, data: &[u8]) -> io::Result<()> {
        for (at, content) in (sector..).zip(data.chunks_exact(SECTOR)) {
            self.written.insert((disk, at), content.into());
        }
        Ok(())
    }

    fn flush(&mut self, _disk: u8) -> io::Result<()> {
        Ok(())
    }

    fn duplicate(&mut self) -> io::Result<Box<dyn ReplayDisks>> {
        Ok(Box::new(self.clone()))
    }
}
