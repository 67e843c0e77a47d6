//! Where a log begins that does not begin at power-on: the machine and how far its run had come, in one file beside the log.
//!
//! Not responsible for: the machine's part of it (`gemel-machine`'s snapshot), where the file lies.
//!
//! `GEMELSTA`, length of the progress (u32, little-endian), its CRC-32 (u32), the progress in postcard form; a snapshot
//! (docs/snapshot-format.md) to the end.

use crate::progress::Progress;

const MAGIC: &[u8; 8] = b"GEMELSTA";
/// Bytes before the progress.
const HEAD: usize = 16;

/// The start of a log.
pub struct Start {
    /// How far the run had come.
    pub progress: Progress,
    /// The machine there.
    pub snapshot: Vec<u8>,
}

/// A file that is none, or not whole.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("it is no start of a log, or damaged")]
pub struct DamagedStart;

impl Start {
    /// The file's content.
    pub fn to_bytes(&self) -> Vec<u8> {
        let progress = self.progress.to_bytes();
        let crc = crc32fast::hash(&progress);
        let (length, crc) = ((progress.len() as u32).to_le_bytes(), crc.to_le_bytes());
        [MAGIC, &length[..], &crc, &progress, &self.snapshot].concat()
    }

    /// Reads a file's content.
    ///
    /// # Errors
    /// [`DamagedStart`]. The snapshot says itself whether it is whole, when it is restored.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, DamagedStart> {
        let (head, rest) = bytes.split_at_checked(HEAD).ok_or(DamagedStart)?;
        let word = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        let (progress, snapshot) = rest.split_at_checked(word(8) as usize).ok_or(DamagedStart)?;
        if &head[..8] != MAGIC || word(12) != crc32fast::hash(progress) {
            return Err(DamagedStart);
        }
        let progress = Progress::from_bytes(progress).map_err(|_| DamagedStart)?;
        Ok(Self { progress, snapshot: snapshot.to_vec() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gemel_machine::{DiskOp, DiskRequest, Input, Output};

    #[test]
    fn a_start_survives_its_file_and_every_damaged_byte_is_noticed() {
        let mut progress = Progress::default();
        for byte in b"hello" {
            progress.emitted(&Output::Serial { port: 0, byte: *byte });
        }
        let op = DiskOp::Write { sector: 7, data: vec![3; 512] };
        progress.emitted(&Output::Disk(DiskRequest { disk: 0, tag: 9, op }));
        progress.arrived(&Input::Serial { port: 1, bytes: vec![1, 2, 3] }, Some(40));
        let start = Start { progress, snapshot: b"machine".to_vec() };
        let bytes = start.to_bytes();
        let read = Start::from_bytes(&bytes).unwrap();
        assert_eq!(
            (read.to_bytes(), read.progress.outputs(), read.snapshot),
            (bytes.clone(), 6, start.snapshot)
        );
        for at in 0..bytes.len() - b"machine".len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            assert!(Start::from_bytes(&damaged).is_err(), "byte {at}");
            assert!(Start::from_bytes(&bytes[..at]).is_err(), "cut at {at}");
        }
    }
}
