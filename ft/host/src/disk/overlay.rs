//! An overlay: what the guest writes goes into a second file, and the image stays as it is.
//!
//! Not responsible for: the image itself (`image`).
//!
//! The file: a header of 4 KiB (magic, version, size of the image), a bitmap with one bit for each cluster of 4 KiB,
//! padded to whole clusters, then the clusters at the places that they have in the image (the file is sparse). The
//! bitmap reaches the file on a flush, after the clusters that it speaks of: a crash loses what was not flushed and
//! nothing else.

use super::image::lock;
use super::{Image, Store};
use crate::error::HostError;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Unit of copying: what guests' file systems write, so that partial clusters are rare.
const CLUSTER: u64 = 4096;
const MAGIC: [u8; 8] = *b"GMLOVER1";

/// An image with an overlay.
pub struct Overlay {
    image: Image,
    size: u64,
    file: File,
    /// One bit for each cluster: whether it lies in the overlay.
    present: Vec<u8>,
    /// Clusters start here in the file.
    data_start: u64,
    /// The bitmap in the file is older than `present`.
    stale: bool,
    /// Outlives the machine; a temporary one need not reach the disk.
    durable: bool,
}

fn bitmap_len(size: u64) -> u64 {
    size.div_ceil(CLUSTER).div_ceil(8)
}

impl Overlay {
    /// An overlay in a nameless temporary file, which is gone when the machine is.
    ///
    /// # Errors
    /// [`HostError::Path`] when there is no room for temporary files.
    pub fn temporary(image: Image, size: u64) -> Result<Self, HostError> {
        let file = tempfile::tempfile()
            .map_err(|e| HostError::path("make an overlay (set TMPDIR) in", std::env::temp_dir(), e))?;
        Ok(Self::over(image, size, file, vec![0; bitmap_len(size) as usize], false))
    }

    /// An overlay in a file of its own: a new one, or one that was made over an image of this size before.
    ///
    /// # Errors
    /// [`HostError::Path`] for trouble with the file; [`HostError::Image`] for one that is in use, is no overlay, or
    /// was made over another image.
    pub fn in_file(image: Image, size: u64, path: &Path) -> Result<Self, HostError> {
        let trouble = |e| HostError::path("use the overlay", path, e);
        let refuse = |why: &str| HostError::Image { path: path.to_owned(), why: why.into() };
        let open = File::options().read(true).write(true).create(true).truncate(false).open(path);
        let file = open.map_err(trouble)?;
        lock(&file, true).map_err(refuse)?;
        let mut present = vec![0; bitmap_len(size) as usize];
        if file.metadata().map_err(trouble)?.len() == 0 {
            file.write_all_at(&MAGIC, 0).map_err(trouble)?;
            file.write_all_at(&size.to_le_bytes(), 8).map_err(trouble)?;
            file.write_all_at(&present, CLUSTER).map_err(trouble)?;
        } else {
            let mut header = [0; 16];
            file.read_exact_at(&mut header, 0).map_err(|_| refuse("this file is no overlay"))?;
            if header[..8] != MAGIC {
                return Err(refuse("this file is no overlay; name a file that does not exist yet"));
            }
            if header[8..] != size.to_le_bytes() {
                return Err(refuse("this overlay was made over an image of another size"));
            }
            file.read_exact_at(&mut present, CLUSTER).map_err(|_| refuse("this overlay is cut off"))?;
        }
        Ok(Self::over(image, size, file, present, true))
    }

    fn over(image: Image, size: u64, file: File, present: Vec<u8>, durable: bool) -> Self {
        let data_start = CLUSTER + bitmap_len(size).next_multiple_of(CLUSTER);
        Self { image, size, file, present, data_start, stale: false, durable }
    }

    fn has(&self, cluster: u64) -> bool {
        self.present[(cluster / 8) as usize] >> (cluster % 8) & 1 != 0
    }

    /// Splits a range at cluster borders: (cluster, offset, range of the buffer).
    fn pieces(offset: u64, len: usize) -> impl Iterator<Item = (u64, u64, std::ops::Range<usize>)> {
        let end = offset + len as u64;
        (offset / CLUSTER..end.div_ceil(CLUSTER)).map(move |cluster| {
            let from = offset.max(cluster * CLUSTER);
            let to = end.min((cluster + 1) * CLUSTER);
            (cluster, from, (from - offset) as usize..(to - offset) as usize)
        })
    }
}

impl Store for Overlay {
    fn read(&mut self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        for (cluster, from, range) in Self::pieces(offset, out.len()) {
            if self.has(cluster) {
                self.file.read_exact_at(&mut out[range], self.data_start + from)?;
            } else {
                self.image.read(from, &mut out[range])?;
            }
        }
        Ok(())
    }

    fn write(&mut self, offset: u64, data: &[u8]) -> io::Result<()> {
        for (cluster, from, range) in Self::pieces(offset, data.len()) {
            let start = cluster * CLUSTER;
            let whole = (self.size - start).min(CLUSTER) as usize;
            if !self.has(cluster) && range.len() < whole {
                let mut copy = vec![0; whole];
                self.image.read(start, &mut copy)?;
                copy[(from - start) as usize..][..range.len()].copy_from_slice(&data[range]);
                self.file.write_all_at(&copy, self.data_start + start)?;
            } else {
                self.file.write_all_at(&data[range], self.data_start + from)?;
            }
            if !self.has(cluster) {
                self.present[(cluster / 8) as usize] |= 1 << (cluster % 8);
                self.stale = true;
            }
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        if !self.durable {
            return Ok(());
        }
        self.file.sync_data()?;
        if std::mem::take(&mut self.stale) {
            self.file.write_all_at(&self.present, CLUSTER)?;
            self.file.sync_data()?;
        }
        Ok(())
    }
}

impl Drop for Overlay {
    fn drop(&mut self) {
        // A machine that ends in good order keeps its last writes too.
        let _ = self.flush();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Writes of every alignment, against a plain vector.
    #[test]
    fn reads_what_was_written_and_leaves_the_image_untouched() {
        let dir = tempfile::tempdir().unwrap();
        let (image, over) = (dir.path().join("image"), dir.path().join("over"));
        let original: Vec<u8> = (0..40_960u32 + 512).map(|i| ((i * 31) >> 3) as u8).collect();
        std::fs::write(&image, &original).unwrap();
        let size = original.len() as u64;
        let open = || Image::open(&image, false).unwrap().0;
        let mut model = original.clone();
        let mut overlay = Overlay::in_file(open(), size, &over).unwrap();
        let mut seed = 1u64;
        for _ in 0..60 {
            seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            let sector = (seed >> 33) as usize % 81;
            let sectors = 1 + (seed >> 50) as usize % (81 - sector).min(20);
            let data = vec![seed as u8; sectors * 512];
            overlay.write(sector as u64 * 512, &data).unwrap();
            model[sector * 512..][..data.len()].copy_from_slice(&data);
        }
        let content = |o: &mut Overlay| {
            let mut out = vec![0; size as usize];
            o.read(0, &mut out).unwrap();
            out
        };
        assert_eq!(content(&mut overlay), model);
        drop(overlay);
        assert_eq!(content(&mut Overlay::in_file(open(), size, &over).unwrap()), model);
        assert_eq!(content(&mut Overlay::temporary(open(), size).unwrap()), original);
        assert_eq!(std::fs::read(&image).unwrap(), original);
    }

    #[test]
    fn refuses_what_is_not_its_overlay() {
        let dir = tempfile::tempdir().unwrap();
        let (image, over) = (dir.path().join("image"), dir.path().join("over"));
        std::fs::write(&image, [0; 1024]).unwrap();
        std::fs::write(&over, [1; 100]).unwrap();
        let open = || Image::open(&image, false).unwrap().0;
        assert!(Overlay::in_file(open(), 1024, &over).is_err());
        std::fs::remove_file(&over).unwrap();
        drop(Overlay::in_file(open(), 1024, &over).unwrap());
        assert!(Overlay::in_file(open(), 2048, &over).is_err());
        let _first = Overlay::in_file(open(), 1024, &over).unwrap();
        assert!(Overlay::in_file(open(), 1024, &over).is_err(), "in use");
    }
}
