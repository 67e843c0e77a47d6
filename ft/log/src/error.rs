//! What can be wrong with a log.
//!
//! Not responsible for: a machine that does not do what the log says (`gemel-replay`'s `Diverged`).

use crate::codec::MAX_ENTRY;
use crate::header::FORMAT;

/// Why bytes are not an entry. The entry's number is known to whoever counts them ([`LogError::Damaged`]).
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Damage {
    /// The four bytes that hold the length contradict themselves.
    #[error("its length is damaged")]
    Length,
    /// The checksum over this entry and all before it is wrong.
    #[error("its checksum is wrong")]
    Checksum,
    /// The checksum is right, the content is not what this format has: written by a faulty program.
    #[error("its content is malformed ({0})")]
    Content(&'static str),
    /// Something follows the end entry.
    #[error("it follows the end of the log")]
    AfterEnd,
}

/// Why a log cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The file or stream failed.
    #[error("the log cannot be {what}: {source}")]
    Io {
        /// `read` or `written`.
        what: &'static str,
        /// What the host said.
        source: std::io::Error,
    },
    /// The magic is missing.
    #[error("this is not a Gemel log (it does not begin with GEMELLOG)")]
    NotALog,
    /// A log of another format.
    #[error("the log has format {found}, this build reads {FORMAT}: use the Gemel that made it")]
    Version {
        /// The log's format.
        found: u16,
    },
    /// It ends inside the header, so nothing can be done with it.
    #[error("the log is cut off inside its header: nothing of it can be replayed")]
    HeaderCut,
    /// The header's checksum or content is wrong.
    #[error("the log's header is damaged: nothing of it can be replayed")]
    HeaderDamaged,
    /// The header is well-formed and says something impossible.
    #[error("the log's header is not usable: {0}")]
    HeaderInvalid(&'static str),
    /// An entry is damaged. All entries before it are good.
    #[error(
        "the log is damaged at entry {entry} (byte {offset}): {damage}; the {entry} entries before it are good"
    )]
    Damaged {
        /// The damaged entry's number, from 0.
        entry: u64,
        /// Where it begins, in bytes from the log's start.
        offset: u64,
        /// What is wrong with it.
        damage: Damage,
    },
    /// An entry that no log can hold.
    #[error(
        "an entry of {0} bytes cannot be logged: {MAX_ENTRY} is the most; let the replay read the disk's image itself"
    )]
    TooLarge(usize),
    /// An entry before the one written last.
    #[error("an entry at count {count}, before the last one written: entries go forward only")]
    Backwards {
        /// The refused entry's count.
        count: u64,
    },
}
