//! Trouble with the host. Every message says what to do.
//!
//! Not responsible for: what a guest does wrong (that is never an error).

use std::io;
use std::path::{Path, PathBuf};

/// Why the host could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// A file or socket could not be opened, made or used.
    #[error("cannot {action} {path}: {source}", path = .path.display())]
    Path {
        /// What was tried, as in `open the disk image`.
        action: &'static str,
        /// Where.
        path: PathBuf,
        /// What the host said.
        source: io::Error,
    },
    /// An option's text is not understood.
    #[error("{option} '{text}': {why}")]
    Option {
        /// The option, as in `--drive`.
        option: &'static str,
        /// What was given.
        text: String,
        /// What is wrong and what is expected.
        why: String,
    },
    /// An image that cannot be a disk.
    #[error("disk image {path}: {why}", path = .path.display())]
    Image {
        /// The image or overlay.
        path: PathBuf,
        /// What is wrong and what to do.
        why: String,
    },
    /// An address could not be had.
    #[error("cannot {action} {address}: {source}; {advice}")]
    Address {
        /// `listen on` or `connect to`.
        action: &'static str,
        /// The address.
        address: String,
        /// What the host said.
        source: io::Error,
        /// What to do.
        advice: &'static str,
    },
    /// A tap interface could not be had.
    #[error(
        "cannot use the tap interface {ifname}: {source}; make it with `ip tuntap add {ifname} mode tap user $USER` and \
         `ip link set {ifname} up`, or run as root"
    )]
    Tap {
        /// Its name.
        ifname: String,
        /// What the host said.
        source: io::Error,
    },
    /// The terminal refused.
    #[error("cannot switch the terminal to raw mode: {0}; use --serial null or a socket")]
    Terminal(io::Error),
    /// A thread could not be started, or signals could not be caught.
    #[error("cannot start {0}: {1}; the host lacks resources")]
    Start(&'static str, io::Error),
    /// Output could not be delivered during the run.
    #[error("writing {0} failed: {1}; free some space or reopen the reader, then run again")]
    Output(String, io::Error),
    /// The host has no random numbers.
    #[error("the host's random number generator failed: {0}; run with --clock free, which needs none")]
    Random(io::Error),
    /// The guest sleeps, no timer is armed and no input can ever come.
    #[error("the guest sleeps for ever: no timer is armed and nothing is connected that could wake it")]
    Stuck,
}

impl HostError {
    /// A failure at a path.
    pub fn path(action: &'static str, path: impl AsRef<Path>, source: io::Error) -> Self {
        Self::Path { action, path: path.as_ref().to_owned(), source }
    }

    /// A bad option.
    pub fn option(option: &'static str, text: &str, why: impl Into<String>) -> Self {
        Self::Option { option, text: text.to_owned(), why: why.into() }
    }
}
