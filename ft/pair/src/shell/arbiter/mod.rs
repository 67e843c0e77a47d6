//! Who leads a VM, and with whom in sync: the one thing that all sides must agree on.
//!
//! Not responsible for: when to ask (`protocol`).

mod etcd;
mod files;

pub use etcd::EtcdArbiter;
pub use files::DirectoryArbiter;

use super::error::PairError;
use crate::protocol::{Changed, Membership};
use std::io;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

/// Holds a register for each VM, which changes one step at a time and never back.
pub trait Arbiter: Send + Sync {
    /// What the register holds, if it was ever written.
    ///
    /// # Errors
    /// The arbiter cannot be reached.
    fn read(&self, vm: &str) -> io::Result<Option<Membership>>;

    /// Makes `next` the register's content if what it holds now is of the epoch before, or nothing. To ask again for what it
    /// holds is no change, and done.
    ///
    /// # Errors
    /// The arbiter cannot be reached. Whether the change took effect is then unknown; asking again is safe.
    fn change(&self, vm: &str, next: &Membership) -> io::Result<Changed>;
}

/// Where an arbiter is, as a user says it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ArbiterAddress {
    /// A directory.
    Directory(PathBuf),
    /// `etcd:http://HOST:PORT[,http://HOST:PORT...]`: the members of one etcd cluster.
    Etcd(Vec<String>),
}

impl FromStr for ArbiterAddress {
    type Err = PairError;

    fn from_str(text: &str) -> Result<Self, PairError> {
        let refuse = || PairError::ArbiterAddress(text.into());
        let Some(endpoints) = text.strip_prefix("etcd:") else {
            return if text.is_empty() { Err(refuse()) } else { Ok(Self::Directory(text.into())) };
        };
        let endpoints: Vec<String> = endpoints.split(',').map(|e| e.trim_end_matches('/').into()).collect();
        let fits = |e: &String| e.strip_prefix("http://").is_some_and(|host| !host.is_empty());
        if endpoints.iter().all(fits) { Ok(Self::Etcd(endpoints)) } else { Err(refuse()) }
    }
}

impl ArbiterAddress {
    /// The arbiter there. Whether an etcd answers shows when it is asked.
    ///
    /// # Errors
    /// [`PairError::Arbiter`].
    pub fn open(&self) -> Result<Arc<dyn Arbiter>, PairError> {
        Ok(match self {
            Self::Directory(path) => Arc::new(DirectoryArbiter::new(path)?),
            Self::Etcd(endpoints) => Arc::new(EtcdArbiter::new(endpoints.clone())),
        })
    }
}

/// One step of a register that is kept as a name for each epoch. `make` makes the name of `next.epoch`, and says `false` where
/// somebody has made it before. Between a look at the register and that, others may change it, but only through that very name.
fn step(
    next: &Membership,
    read: impl Fn() -> io::Result<Option<Membership>>,
    make: impl FnOnce() -> io::Result<bool>,
) -> io::Result<Changed> {
    let held = read()?;
    let comes_next = held.as_ref().is_none_or(|held| held.epoch.checked_add(1) == Some(next.epoch));
    if comes_next && make()? {
        return Ok(Changed::Done);
    }
    let held = if comes_next { read()? } else { held };
    match held {
        // From a request whose answer got lost.
        Some(held) if held == *next => Ok(Changed::Done),
        Some(held) => Ok(Changed::Refused(held)),
        None => Err(io::Error::new(io::ErrorKind::NotFound, "the register was removed while it was asked")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arbiters_are_named_by_a_directory_or_an_etcd() {
        let parse = |text: &str| text.parse::<ArbiterAddress>();
        assert_eq!(parse("/shared/x").unwrap(), ArbiterAddress::Directory("/shared/x".into()));
        let two = vec!["http://a:2379".to_owned(), "http://b:2379".to_owned()];
        assert_eq!(parse("etcd:http://a:2379/,http://b:2379").unwrap(), ArbiterAddress::Etcd(two));
        for bad in ["", "etcd:", "etcd:a:2379", "etcd:https://a:2379", "etcd:http://a:2379,", "etcd:http://"]
        {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
