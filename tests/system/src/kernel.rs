//! The kernels of `roms/`: assembled and linked by `roms/build.sh` under `target/roms`.
//!
//! Not responsible for what is in a kernel nor for running it.

use crate::{child, repository};
use anyhow::{Context, Result};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// Assembling takes a moment.
const BUILD_LIMIT: Duration = Duration::from_secs(120);
/// The exit code of `gemel` when a kernel has written 0 to the debug-exit port: twice the value plus one.
pub const GUEST_IS_CONTENT: i32 = 1;
/// What `longmode` expects its disk to be.
const DISK_SIZE: u64 = 1 << 20;

/// A kernel that is ready to run.
#[derive(Clone, Debug)]
pub struct Kernel {
    /// The multiboot ELF file
    pub file: PathBuf,
    /// The `@OUT` lines that a correct machine prints, in order
    pub expected: Vec<String>,
    /// Its command line
    pub append: String,
    /// Whether it wants a disk
    has_disk: bool,
}

impl Kernel {
    /// Builds the kernel. `NAME:OPTION` is the kernel with an option on its command line.
    pub fn obtain(name: &str) -> Result<Self> {
        let (name, append) = name.split_once(':').unwrap_or((name, ""));
        let expected = repository().join("roms/expected").join(name);
        let expected = fs::read_to_string(&expected).with_context(|| expected.display().to_string())?;
        Ok(Self {
            file: build(name)?,
            expected: expected.lines().map(str::to_owned).collect(),
            append: append.to_owned(),
            has_disk: name == "longmode",
        })
    }

    /// Its disk as `--drive` takes it, if it wants one: new, and in `folder`.
    pub fn drive(&self, folder: &Path) -> Result<Option<String>> {
        if !self.has_disk {
            return Ok(None);
        }
        let disk = folder.join("disk.raw");
        File::create(&disk)?.set_len(DISK_SIZE)?;
        Ok(Some(format!("file={},if=virtio,snapshot=on", disk.display())))
    }

    /// Adds to a command line of `gemel` what this kernel runs with. Its disk is in `folder`.
    pub fn arguments(&self, command: &mut Command, folder: &Path) -> Result<()> {
        command.args(["--no-reboot", "-m", "64", "--append", &self.append]).arg("--kernel").arg(&self.file);
        if let Some(drive) = self.drive(folder)? {
            command.arg("--drive").arg(drive);
        }
        Ok(())
    }
}

/// The file that `roms/build.sh` makes for a name.
pub fn build(name: &str) -> Result<PathBuf> {
    let built = child::run(Command::new(repository().join("roms/build.sh")).arg(name), BUILD_LIMIT)
        .with_context(|| format!("cannot build the kernel {name}"))?;
    Ok(built.stdout.trim_end().into())
}
