//! The header: everything that a replay must know before the first entry.
//!
//! Not responsible for: whether this build can make such a machine (whoever builds it finds out), entries (`codec`).
//!
//! Layout (little-endian): magic, format u16, length u32 of the body, body (postcard), CRC-32 of all before. The
//! CRC also starts the chain of the entries' checksums, so that entries of another log do not fit.

use crate::error::LogError;
use gemel_machine::{At, MachineSpec};
use serde::{Deserialize, Serialize};
use std::io::Read;

/// What every log begins with.
pub const MAGIC: &[u8; 8] = b"GEMELLOG";
/// Version of header and entries together. The body of the header is not self-describing: any change of a type in
/// it (also of [`MachineSpec`]) is a new format.
pub const FORMAT: u16 = 4;
/// A header is names and numbers; more than this is not one.
const MAX_HEADER: u32 = 1 << 20;
const PRELUDE: usize = 8 + 2 + 4;

/// What a log is of.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Header {
    /// The machine. Its [`MachineSpec::reckoning`] says what positions count, and is the authority for time.
    pub machine: MachineSpec,
    /// How guest time related to the host's while the log was made.
    pub clock: ClockKind,
    /// For each disk of the machine, in order: where its data is.
    pub reads: Vec<ReadPolicy>,
    /// Counts between two digests; not zero.
    pub epoch: u64,
    /// How digests are computed.
    pub digest: DigestAlgorithm,
    /// Where the log begins: zero throughout for power-on.
    pub start: At,
    /// Where images lay when the log was made.
    pub images: ImageHints,
    /// Program and version that made the log.
    pub creator: String,
    /// Name of the host's CPU, whose FPU did the guest's arithmetic.
    pub host_cpu: String,
    /// What executed the guest.
    pub engine: Engine,
    /// What the host's KVM was found to do with a guest, as JSON (`gemel check`); empty where nobody asked.
    pub passport: String,
    /// What the guest was asserted not to do, because it would have seen the host by it: names of leaks.
    pub stays_clear: Vec<String>,
}

/// What executed the guest while the log was made. A replay may use another, where that counts the same.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Engine {
    /// The interpreter.
    Interp,
    /// KVM, with the interpreter as its assistant.
    Kvm,
}

/// How guest time related to the host's. A replay needs only the entries; this tells a reader what was run.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum ClockKind {
    /// Guest time was held back to the host's clock.
    Paced,
    /// Guest time ran by itself.
    Free,
}

/// Where the data of a disk's reads is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum ReadPolicy {
    /// In the log.
    Carried,
    /// In an identical image that the replay has and applies the writes to (a copy of its own).
    FromImage,
}

/// How digests are computed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum DigestAlgorithm {
    /// [`gemel_machine::Digest`] as this version of the machine computes it: xxh3, 64 bits.
    Xxh3,
}

/// Paths as the log's maker gave them. Hints only: what counts are the digests in [`MachineSpec`].
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct ImageHints {
    /// The kernel.
    pub kernel: Option<String>,
    /// The initrd.
    pub initrd: Option<String>,
    /// The disks, in order.
    pub disks: Vec<String>,
}

impl Header {
    /// A header for a run from power-on with default epochs, all disk data carried in the log.
    pub fn new(machine: MachineSpec, clock: ClockKind) -> Self {
        Self {
            reads: vec![ReadPolicy::Carried; machine.disks.len()],
            epoch: crate::default_epoch(machine.reckoning),
            machine,
            clock,
            digest: DigestAlgorithm::Xxh3,
            start: At { position: Default::default(), time: Default::default() },
            images: ImageHints::default(),
            creator: concat!("gemel ", env!("CARGO_PKG_VERSION")).into(),
            host_cpu: String::new(),
            engine: Engine::Interp,
            passport: String::new(),
            stays_clear: Vec::new(),
        }
    }

    /// Whether the header says something that a run can be made of.
    ///
    /// # Errors
    /// [`LogError::HeaderInvalid`].
    pub fn check(&self) -> Result<(), LogError> {
        let base = self.machine.reckoning.time_base();
        let complaint = if base.is_some_and(|base| base.num == 0 || base.den == 0) {
            "guest time would stand still"
        } else if self.epoch == 0 {
            "the epoch length is zero"
        } else if self.reads.len() != self.machine.disks.len() {
            "not every disk has a read policy"
        } else {
            return Ok(());
        };
        Err(LogError::HeaderInvalid(complaint))
    }

    /// The header's bytes and the checksum that starts the chain.
    ///
    /// # Errors
    /// [`LogError::HeaderInvalid`].
    pub fn encode(&self) -> Result<(Vec<u8>, u32), LogError> {
        self.check()?;
        let body = postcard::to_stdvec(self).map_err(|_| LogError::HeaderInvalid("it cannot be written"))?;
        let length = u32::try_from(body.len()).ok().filter(|n| *n <= MAX_HEADER);
        let length = length.ok_or(LogError::HeaderInvalid("it is too long"))?;
        let mut out = MAGIC.to_vec();
        out.extend_from_slice(&FORMAT.to_le_bytes());
        out.extend_from_slice(&length.to_le_bytes());
        out.extend_from_slice(&body);
        let crc = crc32fast::hash(&out);
        out.extend_from_slice(&crc.to_le_bytes());
        Ok((out, crc))
    }

    /// Reads a header: it, the checksum that starts the chain, and its length in bytes.
    ///
    /// # Errors
    /// See [`LogError`].
    pub fn decode(source: &mut impl Read) -> Result<(Self, u32, u64), LogError> {
        let mut bytes = read_up_to(source, PRELUDE)?;
        if bytes.len() < MAGIC.len() && MAGIC.starts_with(&bytes) && !bytes.is_empty() {
            return Err(LogError::HeaderCut);
        }
        if !bytes.starts_with(MAGIC) {
            return Err(LogError::NotALog);
        }
        let prelude: [u8; PRELUDE] = bytes.as_slice().try_into().map_err(|_| LogError::HeaderCut)?;
        let [.., f0, f1, l0, l1, l2, l3] = prelude;
        let format = u16::from_le_bytes([f0, f1]);
        if format != FORMAT {
            return Err(LogError::Version { found: format });
        }
        let length = u32::from_le_bytes([l0, l1, l2, l3]);
        if length > MAX_HEADER {
            return Err(LogError::HeaderDamaged);
        }
        bytes.extend(read_up_to(source, length as usize + 4)?);
        let total = PRELUDE + length as usize + 4;
        if bytes.len() < total {
            return Err(LogError::HeaderCut);
        }
        let Some((covered, crc)) = bytes.split_last_chunk() else { return Err(LogError::HeaderCut) };
        let crc = u32::from_le_bytes(*crc);
        if crc32fast::hash(covered) != crc {
            return Err(LogError::HeaderDamaged);
        }
        match postcard::take_from_bytes::<Self>(&covered[PRELUDE..]) {
            Ok((header, [])) => header.check().map(|()| (header, crc, total as u64)),
            _ => Err(LogError::HeaderDamaged),
        }
    }
}

/// Up to `n` bytes: fewer only at the source's end. Memory grows with what arrives, not with `n`.
fn read_up_to(source: &mut impl Read, n: usize) -> Result<Vec<u8>, LogError> {
    let mut out = Vec::new();
    let read = source.take(n as u64).read_to_end(&mut out);
    read.map_err(|source| LogError::Io { what: "read", source })?;
    Ok(out)
}
