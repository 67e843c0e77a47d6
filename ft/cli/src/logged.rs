//! The files of a log's machine: found where the log says or where the options say, and checked by their digests.
//!
//! Not responsible for: running anything.

use crate::machine::Images;
use anyhow::{Context, Result, bail, ensure};
use gemel_host::disk::Changes;
use gemel_host::{Disks, DriveSpec};
use gemel_log::{Header, LogReader, ReadPolicy};
use gemel_machine::image_digest;
use gemel_replay::Start;
use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};

/// Where files are that are no longer where the log says.
#[derive(clap::Args, Clone, Debug)]
pub struct FileOptions {
    /// The kernel, if it is no longer where it was
    #[arg(long, value_name = "FILE")]
    kernel: Option<PathBuf>,
    /// The initial RAM disk, if it is no longer where it was
    #[arg(long, value_name = "FILE")]
    initrd: Option<PathBuf>,
    /// The disks, if the log does not carry their data and they are no longer where they were; they stay untouched
    #[arg(long, value_name = "SPEC")]
    drive: Vec<DriveSpec>,
}

/// Opens a log.
///
/// # Errors
/// A file that is missing, or no log of this version.
pub fn open(path: &Path) -> Result<LogReader<BufReader<File>>> {
    let file = File::open(path).with_context(|| format!("cannot open the log {}", path.display()))?;
    LogReader::new(BufReader::with_capacity(1 << 18, file))
        .with_context(|| format!("{} cannot be replayed", path.display()))
}

/// Where the start of a log is that does not begin at power-on.
pub fn start_beside(log: &Path) -> PathBuf {
    let mut path = log.as_os_str().to_owned();
    path.push(".start");
    path.into()
}

/// The start of a log that does not begin at power-on, from the file beside it.
///
/// # Errors
/// A file that is missing or none.
pub fn start(log: &Path, header: &Header) -> Result<Option<Start>> {
    if header.start.position.count == 0 && header.start.time.0 == 0 {
        return Ok(None);
    }
    let path = start_beside(log);
    let bytes = std::fs::read(&path).with_context(|| {
        format!("{} does not begin at power-on: its start is missing, {}", log.display(), path.display())
    })?;
    let start = Start::from_bytes(&bytes).with_context(|| format!("cannot use {}", path.display()))?;
    Ok(Some(start))
}

/// A file that the log names, or that the options give instead.
fn place(given: Option<&PathBuf>, hint: Option<&String>, what: &str, option: &str) -> Result<PathBuf> {
    match (given, hint) {
        (Some(path), _) => Ok(path.clone()),
        (None, Some(path)) => Ok(path.into()),
        (None, None) => bail!("the log does not say where the {what} is: give {option}"),
    }
}

impl FileOptions {
    /// The kernel and the initrd that the log was made with.
    ///
    /// # Errors
    /// Files that are missing, or are not those.
    pub fn images(&self, header: &Header) -> Result<Images> {
        let (hints, boot) = (&header.images, &header.machine.boot);
        let kernel = place(self.kernel.as_ref(), hints.kernel.as_ref(), "kernel", "--kernel")?;
        let initrd = match boot.initrd {
            0 => None,
            _ => Some(place(self.initrd.as_ref(), hints.initrd.as_ref(), "initrd", "--initrd")?),
        };
        let images = Images::open(&kernel, initrd.as_deref(), &[])?;
        ensure!(
            image_digest(&images.kernel) == boot.kernel,
            "{} is not the kernel that the log was made with: give that one with --kernel",
            kernel.display()
        );
        if let Some(initrd) = &initrd {
            ensure!(
                image_digest(&images.initrd) == boot.initrd,
                "{} is not the initrd that the log was made with: give that one with --initrd",
                initrd.display()
            );
        }
        Ok(images)
    }

    /// The disks that a replay reads; `None` if the log carries all data.
    ///
    /// # Errors
    /// Images that are missing, in use, or not those that the log was made with.
    pub fn disks(&self, header: &Header, changes: Changes) -> Result<Option<Disks>> {
        if header.reads.iter().all(|policy| *policy == ReadPolicy::Carried) {
            return Ok(None);
        }
        let specs = &header.machine.disks;
        ensure!(
            self.drive.is_empty() || self.drive.len() == specs.len(),
            "the log's machine has {} disks: give --drive once for each, in the same order",
            specs.len()
        );
        let mut opened = Vec::new();
        for (i, spec) in specs.iter().enumerate() {
            let given = self.drive.get(i).map(|drive| &drive.file);
            let file = place(given, header.images.disks.get(i), "disk image", "--drive")?;
            let mut disk = DriveSpec { file: file.clone(), changes: changes.clone() }.open()?;
            let digest = disk.digest().with_context(|| format!("cannot read {}", file.display()))?;
            ensure!(
                disk.sectors() == spec.sectors && digest == spec.digest,
                "{} is not the disk image that the log was made with, or was written to since: give that one with --drive",
                file.display()
            );
            opened.push(disk);
        }
        Ok(Some(Disks::new(opened)))
    }
}
