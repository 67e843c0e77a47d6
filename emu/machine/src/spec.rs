//! What a machine is made of: everything that must be equal for two machines to do the same, as plain data. It
//! stands in the log header, and its hash is the machine's id.
//!
//! Not responsible for: building the machine (`devices/board.rs`), where images lie on a host.

use crate::clock::Reckoning;
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::{xxh3_64, xxh3_128};

/// A machine's configuration. Two machines with equal specs and equal inputs do the same.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct MachineSpec {
    /// Version of the board: changes whenever a device, a table or a loader changes what a guest can see.
    pub board: u16,
    /// Bytes of RAM.
    pub ram: u64,
    /// CPU model, in the form that [`gemel_x86::CpuModel::parse`] reads.
    pub cpu: String,
    /// What is counted, and what makes guest time of it.
    pub reckoning: Reckoning,
    /// What the RTC says at power-on: seconds since 1970, UTC.
    pub rtc_base: u64,
    /// Seed of what is random by configuration.
    pub seed: u64,
    /// The disks, in order.
    pub disks: Vec<DiskSpec>,
    /// The network interfaces, in order.
    pub nics: Vec<NicSpec>,
    /// What is loaded at power-on.
    pub boot: BootSpec,
}

/// A disk as the guest sees it, and what is on it at power-on.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct DiskSpec {
    /// 512-byte sectors.
    pub sectors: u64,
    /// Writes are refused.
    pub read_only: bool,
    /// [`image_digest`] of the image at power-on.
    pub digest: u128,
}

/// A network interface as the guest sees it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct NicSpec {
    /// Its address.
    pub mac: [u8; 6],
}

/// What is in memory at power-on.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct BootSpec {
    /// [`image_digest`] of the kernel file.
    pub kernel: u128,
    /// [`image_digest`] of the initrd, zero without one.
    pub initrd: u128,
    /// Kernel command line.
    pub append: String,
    /// A reset starts the machine again with the same in memory; otherwise it ends the run.
    pub reboots: bool,
}

impl MachineSpec {
    /// The id that logs, snapshots and peers compare.
    pub fn id(&self) -> u64 {
        xxh3_64(&postcard::to_stdvec(self).unwrap_or_default())
    }
}

/// The digest by which images (kernels, initrds) are known: xxh3, 128 bits. Files read in pieces use
/// `xxhash_rust::xxh3::Xxh3` and give the same.
pub fn image_digest(content: &[u8]) -> u128 {
    xxh3_128(content)
}
