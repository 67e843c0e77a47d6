//! The bundle that a divergence leaves behind.
//!
//! Not responsible for: taking the snapshot that may go into it (whoever has the machine).

use crate::diverged::Diverged;
use std::path::Path;
use std::{fs, io};

/// Writes `report.txt` and, if there is one, `machine.snapshot` (the machine where it diverged) into a directory,
/// which is made if need be.
///
/// # Errors
/// The host's.
pub fn write_evidence(directory: &Path, diverged: &Diverged, snapshot: Option<&[u8]>) -> io::Result<()> {
    fs::create_dir_all(directory)?;
    fs::write(directory.join("report.txt"), diverged.report())?;
    match snapshot {
        Some(bytes) => fs::write(directory.join("machine.snapshot"), bytes),
        None => Ok(()),
    }
}
