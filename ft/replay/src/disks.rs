//! The disks of a replay: where completed writes go, and where reads come from that the log does not carry.
//!
//! Not responsible for: image files (whoever implements [`ReplayDisks`]).

use std::io;

/// The replaying side's own images. Sectors have 512 bytes.
pub trait ReplayDisks {
    /// Reads whole sectors.
    ///
    /// # Errors
    /// The host's; it ends the run.
    fn read(&mut self, disk: u8, sector: u64, out: &mut [u8]) -> io::Result<()>;

    /// Applies a write that the recorded run completed.
    ///
    /// # Errors
    /// The host's; it ends the run.
    fn write(&mut self, disk: u8, sector: u64, data: &[u8]) -> io::Result<()>;

    /// Makes all writes durable.
    ///
    /// # Errors
    /// The host's; it ends the run.
    fn flush(&mut self, disk: u8) -> io::Result<()>;

    /// The same images once more, so that two replays can go on from here and neither sees what the other writes.
    ///
    /// # Errors
    /// The host's; [`io::ErrorKind::Unsupported`] for images of which there is only one.
    fn duplicate(&mut self) -> io::Result<Box<dyn ReplayDisks>> {
        Err(io::Error::new(io::ErrorKind::Unsupported, "these disks cannot be copied"))
    }
}

/// No images: for logs that carry all disk data. Writes go nowhere.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoDisks;

impl ReplayDisks for NoDisks {
    fn read(&mut self, disk: u8, _sector: u64, _out: &mut [u8]) -> io::Result<()> {
        Err(io::Error::new(
            io::ErrorKind::NotFound,
            format!(
                "the log does not carry the data of disk {disk}: give the replay the image it was made with"
            ),
        ))
    }

    fn write(&mut self, _disk: u8, _sector: u64, _data: &[u8]) -> io::Result<()> {
        Ok(())
    }

    fn flush(&mut self, _disk: u8) -> io::Result<()> {
        Ok(())
    }

    fn duplicate(&mut self) -> io::Result<Box<dyn ReplayDisks>> {
        Ok(Box::new(Self))
    }
}
