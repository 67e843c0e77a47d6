//! Trouble of the network with its host. Every message says what to do.

use crate::forward::Forward;
use std::io;

/// Why a network cannot be.
#[derive(Debug, thiserror::Error)]
pub enum NetError {
    /// A forward that is none.
    #[error("'{0}' is no port forward; tcp:[HOST-ADDRESS]:PORT-[GUEST-ADDRESS]:PORT is wanted")]
    Forward(String),
    /// Nobody can listen there.
    #[error("cannot listen for '{0}': {1}; choose another address or port")]
    Listen(Forward, #[source] io::Error),
    /// A thread or its means cannot be had.
    #[error("cannot start the network: {0}; the host lacks resources")]
    Start(#[source] io::Error),
}
