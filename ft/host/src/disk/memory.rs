//! A disk in memory, for tests. Its sector 3 takes no writes that begin there.

use super::{SECTOR, Store};
use std::io;

pub(super) struct Memory(pub(super) Vec<u8>);

impl Store for Memory {
    fn read(&mut self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        out.copy_from_slice(&self.0[offset as usize..][..out.len()]);
        Ok(())
    }

    fn write(&mut self, offset: u64, data: &[u8]) -> io::Result<()> {
        if offset == 3 * SECTOR {
            return Err(io::Error::other("bad block"));
        }
        self.0[offset as usize..][..data.len()].copy_from_slice(data);
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
