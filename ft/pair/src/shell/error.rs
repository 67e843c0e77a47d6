//! Trouble of the shell with its host. Every message says what to do.

use super::address::Address;
use std::io;
use std::path::PathBuf;

/// Why a pair cannot be, or cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum PairError {
    /// Nobody can listen there.
    #[error("cannot listen on {0}: {1}; choose another address")]
    Listen(Address, #[source] io::Error),
    /// Nobody listens there.
    #[error("cannot connect to {0}: {1}; start the primary first, with --listen there")]
    Connect(Address, #[source] io::Error),
    /// Somebody is there, but not who must be.
    #[error("cannot connect to {0}: {1}")]
    Untrusted(Address, #[source] io::Error),
    /// An address that is none.
    #[error("'{0}' is no address; HOST:PORT or unix:PATH is wanted")]
    Address(String),
    /// TCP, without a word on who may connect.
    #[error(
        "{0} is reached over TCP: say with --keys DIR who may connect (gemel keys makes one), or --insecure to let in everybody"
    )]
    NoKeys(Address),
    /// Keys that cannot be used.
    #[error("the keys in {0}: {1}")]
    Keys(PathBuf, String),
    /// The arbiter's directory cannot be used.
    #[error("cannot use the arbiter's directory {0}: {1}; both sides must reach and write it")]
    Arbiter(PathBuf, #[source] io::Error),
    /// The ledger cannot be made.
    #[error("cannot write the ledger {0}: {1}")]
    Ledger(PathBuf, #[source] io::Error),
    /// No arbiter is named so.
    #[error("'{0}' is no arbiter; a directory or etcd:http://HOST:PORT[,http://HOST:PORT...] is wanted")]
    ArbiterAddress(String),
    /// The peer is none, and why.
    #[error("the peer does not fit: {0}")]
    Refused(String),
    /// The peer was gone before the pair was complete.
    #[error("the primary went away before the pair was complete; start both again")]
    NeverInSync,
    /// A thread cannot be started.
    #[error("cannot start a thread: {0}; the host lacks resources")]
    Thread(#[source] io::Error),
    /// The log cannot be made.
    #[error(transparent)]
    Log(#[from] gemel_log::LogError),
    /// The machine or its world cannot go on.
    #[error("{0}")]
    Run(String),
}
