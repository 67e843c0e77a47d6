//! A serial line into a file.
//!
//! Not responsible for: input (there is none).

use crate::error::HostError;
use crate::outputs::ByteSink;
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

struct Output {
    file: File,
    path: PathBuf,
}

/// Makes the file, or empties it.
pub(super) fn open(path: &Path) -> Result<Box<dyn ByteSink>, HostError> {
    let file = File::create(path).map_err(|e| HostError::path("write to", path, e))?;
    Ok(Box::new(Output { file, path: path.to_owned() }))
}

impl ByteSink for Output {
    fn name(&self) -> String {
        self.path.display().to_string()
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)
    }
}
