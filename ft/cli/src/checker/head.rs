//! How far a growing log reaches: its entries read, and nothing done with them.
//!
//! Not responsible for: waiting for more (`growing`).

use super::growing::is_held;
use anyhow::{Context, Result};
use gemel_log::{Decoder, Header};
use std::fs::File;
use std::io::Read;
use std::path::Path;

const CHUNK: usize = 256 << 10;

/// The last whole entry of a log.
pub struct Head {
    file: File,
    decoder: Decoder,
    /// Bytes of an entry that is not whole.
    partial: Vec<u8>,
    count: u64,
    grows: bool,
}

impl Head {
    /// The head of a log whose header is there.
    ///
    /// # Errors
    /// The host's, or the header's.
    pub fn open(path: &Path) -> Result<Self> {
        let read = || format!("cannot read the log {}", path.display());
        let mut file = File::open(path).with_context(read)?;
        let (header, crc, _) = Header::decode(&mut file).with_context(read)?;
        let decoder = Decoder::new(&header, crc);
        Ok(Self { file, decoder, partial: Vec::new(), count: header.start.position.count, grows: true })
    }

    /// The count that the log reaches by now, and whether it may grow. What is damaged ends it here; whoever comes there finds out.
    pub fn look(&mut self) -> (u64, bool) {
        let mut chunk = vec![0; CHUNK];
        while self.grows {
            let held = is_held(&self.file);
            let read = self.file.read(&mut chunk).unwrap_or(0);
            self.partial.extend_from_slice(&chunk[..read]);
            let mut used = 0;
            while used < self.partial.len() {
                match self.decoder.decode(&self.partial[used..]) {
                    Ok(Some((entry, length))) => {
                        used += length;
                        self.count = entry.at.position.count;
                    }
                    Ok(None) => break,
                    Err(_) => self.grows = false,
                }
                if !self.grows {
                    break;
                }
            }
            self.partial.drain(..used);
            if read == 0 {
                self.grows &= held;
                break;
            }
        }
        (self.count, self.grows)
    }
}
