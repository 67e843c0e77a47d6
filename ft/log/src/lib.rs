//! The log: what came into a machine, each thing at its position, so that the same machine can meet it again.
//!
//! Not responsible for: when an entry is made or used (`gemel-replay`), the wire between two machines
//! (`gemel-pair`, which sends the same entry bytes in frames of its own).
//!
//! `docs/log-format.md` has the format as prose with a worked example.

mod codec;
mod entry;
mod error;
mod header;
mod reader;
mod sample;
mod varint;
mod writer;

use gemel_machine::Reckoning;

pub use codec::{Decoder, Encoder, MAX_ENTRY};
pub use entry::{Body, EndReason, Entry, OutputSummary, data_check};
pub use error::{Damage, LogError};
pub use header::{ClockKind, DigestAlgorithm, Engine, FORMAT, Header, ImageHints, MAGIC, ReadPolicy};
pub use reader::{Item, LogReader};
pub use writer::{ByteCounts, Class, LogWriter};

/// Instructions between two digests unless asked otherwise: a digest of a busy guest's dirty pages then costs well
/// under 1 % of the run, and a difference is found within a tenth of a second of guest time.
pub const DEFAULT_EPOCH: u64 = 1 << 24;

/// The same for a machine that counts exits. A guest that boots makes as many in a tenth of a second.
pub const DEFAULT_EXIT_EPOCH: u64 = 1 << 13;

/// The epoch of a machine unless asked otherwise.
pub const fn default_epoch(reckoning: Reckoning) -> u64 {
    match reckoning {
        Reckoning::Instructions(_) => DEFAULT_EPOCH,
        Reckoning::Exits => DEFAULT_EXIT_EPOCH,
    }
}
