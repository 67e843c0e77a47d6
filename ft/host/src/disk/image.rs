//! A raw image file, read and written in place.
//!
//! Not responsible for: leaving the image untouched (`overlay`).

use super::Store;
use crate::error::HostError;
use rustix::fs::FlockOperation;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// A raw image.
pub struct Image(File);

impl Image {
    /// Opens an image and locks it against others: for one writer, or for any number of readers. Returns its size in
    /// bytes too.
    ///
    /// # Errors
    /// [`HostError::Path`] when it cannot be opened; [`HostError::Image`] when it is in use, empty, or no whole
    /// number of sectors.
    pub fn open(path: &Path, writable: bool) -> Result<(Self, u64), HostError> {
        let open = File::options().read(true).write(writable).open(path);
        let file = open.map_err(|e| HostError::path("open the disk image", path, e))?;
        let refuse = |why: String| HostError::Image { path: path.to_owned(), why };
        lock(&file, writable).map_err(|why| refuse(why.into()))?;
        // A block device has no length in its metadata; its end does.
        let size = io::Seek::seek(&mut &file, io::SeekFrom::End(0))
            .map_err(|e| HostError::path("find the size of", path, e))?;
        if size == 0 || size % super::SECTOR != 0 {
            return Err(refuse(format!(
                "{size} bytes are no whole number of 512-byte sectors; it must be a raw image"
            )));
        }
        Ok((Self(file), size))
    }
}

/// Locks a file for this process's life. A host without locks on this file system cannot say that it is in use.
pub(super) fn lock(file: &File, exclusive: bool) -> Result<(), &'static str> {
    let operation = if exclusive {
        FlockOperation::NonBlockingLockExclusive
    } else {
        FlockOperation::NonBlockingLockShared
    };
    match rustix::fs::flock(file, operation) {
        Err(rustix::io::Errno::WOULDBLOCK) => {
            Err("in use by another machine; stop that one, or give both snapshot=on")
        }
        _ => Ok(()),
    }
}

impl Store for Image {
    fn read(&mut self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read_exact_at(out, offset)
    }

    fn write(&mut self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write_all_at(data, offset)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.sync_data()
    }
}
