//! Guest images: found, or built by `tests/guests/build.sh`, which caches them under `target/guests` (or `$GEMEL_GUESTS`).
//!
//! Not responsible for what is in a guest (`tests/guests/*.sh`) nor for running it.

use crate::{child, repository};
use anyhow::{Context, Result, bail};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// Fetching packages and making a disk of 1 GiB on a slow mirror; a cached guest takes milliseconds.
const BUILD_LIMIT: Duration = Duration::from_secs(900);

/// A guest that is ready to run.
#[derive(Clone, Debug)]
pub struct Guest {
    /// Name as in `tests/guests/build.sh`
    pub name: String,
    /// Memory in MiB
    pub memory: u32,
    /// The raw image of its virtio disk, if it has one. Belongs to every run: never written to
    pub disk: Option<PathBuf>,
    /// The `@OUT` lines that a correct machine prints, in order
    pub expected: Vec<String>,
    /// Kernel command line
    pub append: String,
    /// The CPU model, where it is not the default one
    pub cpu: Option<String>,
    folder: PathBuf,
}

impl Guest {
    /// Builds the guest where it is missing or its scripts changed. `NAME+MODEL` is the guest on another CPU model.
    pub fn obtain(name: &str) -> Result<Self> {
        let (name, cpu) = match name.split_once('+') {
            Some((name, cpu)) => (name, Some(cpu.to_owned())),
            None => (name, None),
        };
        let built =
            child::run(Command::new(repository().join("tests/guests/build.sh")).arg(name), BUILD_LIMIT)
                .with_context(|| format!("cannot build the guest {name}"))?;
        Ok(Self { cpu, ..Self::open(name, Path::new(built.stdout.trim_end()))? })
    }

    /// Reads the guest in `folder`, of the shape that `tests/guests/initramfs.sh` documents.
    fn open(name: &str, folder: &Path) -> Result<Self> {
        let read = |file: &str| {
            fs::read_to_string(folder.join(file)).with_context(|| format!("{}/{file}", folder.display()))
        };
        let machine = read("machine")?;
        let entry = |key: &str| {
            let line = machine.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
            line.with_context(|| format!("{}/machine has no {key}", folder.display()))
        };
        let disk = match entry("disk")? {
            "none" => None,
            "virtio" => Some(folder.join("disk.raw")),
            other => bail!("{}/machine: unknown disk {other}", folder.display()),
        };
        Ok(Self {
            name: name.to_owned(),
            memory: entry("mem")?.parse().with_context(|| format!("{}/machine: mem", folder.display()))?,
            disk,
            expected: read("expected")?.lines().map(str::to_owned).collect(),
            append: read("cmdline")?.trim_end().to_owned(),
            cpu: None,
            folder: folder.to_owned(),
        })
    }

    /// The Linux bzImage.
    #[must_use]
    pub fn kernel(&self) -> PathBuf {
        self.folder.join("kernel")
    }

    /// The initramfs.
    #[must_use]
    pub fn initrd(&self) -> PathBuf {
        self.folder.join("initrd")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_read_as_the_builders_write_it() {
        let folder = tempfile::tempdir().unwrap();
        let write = |file, text| fs::write(folder.path().join(file), text).unwrap();
        write("machine", "mem=384\ndisk=virtio\ninput=none\n");
        write("cmdline", "console=ttyS0 quiet\n");
        write("expected", "@OUT disk-virtio rnd 1\n@OUT disk-virtio sql ok \n");
        let guest = Guest::open("disk-virtio", folder.path()).unwrap();
        assert_eq!((guest.memory, guest.append.as_str()), (384, "console=ttyS0 quiet"));
        assert_eq!(guest.disk, Some(folder.path().join("disk.raw")));
        // The trailing blank is part of the result.
        assert_eq!(guest.expected, ["@OUT disk-virtio rnd 1", "@OUT disk-virtio sql ok "]);

        write("machine", "mem=384\n");
        assert!(Guest::open("disk-virtio", folder.path()).unwrap_err().to_string().contains("no disk"));
    }
}
