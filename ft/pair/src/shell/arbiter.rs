//! Who may live in which epoch: the one thing that both sides must agree on.
//!
//! Not responsible for: when to ask (`protocol`).

use super::error::PairError;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// What an arbiter says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Claim {
    /// The epoch is the claimant's, by this claim or an earlier one.
    Won,
    /// It is somebody else's.
    Lost,
}

/// Gives every epoch of a VM to one claimant, for ever.
pub trait Arbiter: Send + Sync {
    /// Asks for an epoch.
    ///
    /// # Errors
    /// The arbiter cannot be reached. Whether the claim took effect is then unknown; asking again is safe.
    fn claim(&self, vm: &str, epoch: u64) -> io::Result<Claim>;

    /// The latest epoch that anybody has; 0 for none.
    ///
    /// # Errors
    /// The arbiter cannot be reached.
    fn latest(&self, vm: &str) -> io::Result<u64>;
}

/// A directory that both sides reach: `<vm>.<epoch>` belongs to whoever made it.
pub struct DirectoryArbiter {
    directory: PathBuf,
    /// Names this process among all that ever claim.
    claimant: String,
}

impl DirectoryArbiter {
    /// An arbiter in a directory, which is made if it is not there.
    ///
    /// # Errors
    /// [`PairError::Arbiter`].
    pub fn new(directory: &Path, claimant: String) -> Result<Self, PairError> {
        fs::create_dir_all(directory).map_err(|e| PairError::Arbiter(directory.into(), e))?;
        Ok(Self { directory: directory.into(), claimant })
    }

    fn path(&self, vm: &str, epoch: u64) -> PathBuf {
        self.directory.join(format!("{vm}.{epoch}"))
    }
}

impl Arbiter for DirectoryArbiter {
    fn claim(&self, vm: &str, epoch: u64) -> io::Result<Claim> {
        let path = self.path(vm, epoch);
        // The claimant's name is durable before the claim is: the claim is a link to a complete file, which is made
        // exclusively (link fails where a name exists, also over NFS) and never seen half-written.
        let draft = self.directory.join(format!(".{}.{epoch}", self.claimant));
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).open(&draft)?;
        file.write_all(self.claimant.as_bytes())?;
        file.sync_all()?;
        let linked = fs::hard_link(&draft, &path);
        fs::remove_file(&draft)?;
        match linked {
            Ok(()) => {
                File::open(&self.directory)?.sync_all()?;
                Ok(Claim::Won)
            }
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
                // It may be ours, from a claim whose answer got lost.
                let ours = fs::read(&path)? == self.claimant.as_bytes();
                Ok(if ours { Claim::Won } else { Claim::Lost })
            }
            Err(e) => Err(e),
        }
    }

    fn latest(&self, vm: &str) -> io::Result<u64> {
        let mut latest = 0;
        for entry in fs::read_dir(&self.directory)? {
            let name = entry?.file_name();
            let epoch = name.to_str().and_then(|n| n.strip_prefix(vm)?.strip_prefix('.')?.parse().ok());
            latest = latest.max(epoch.unwrap_or(0));
        }
        Ok(latest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_claimant_gets_an_epoch_and_may_ask_again() {
        let directory = tempfile::tempdir().unwrap();
        let arbiter = |name: &str| DirectoryArbiter::new(directory.path(), name.into()).unwrap();
        let (a, b) = (arbiter("a"), arbiter("b"));
        assert_eq!(a.latest("vm").unwrap(), 0);
        assert_eq!(a.claim("vm", 2).unwrap(), Claim::Won);
        assert_eq!(b.claim("vm", 2).unwrap(), Claim::Lost);
        assert_eq!(a.claim("vm", 2).unwrap(), Claim::Won);
        assert_eq!(b.claim("vm", 3).unwrap(), Claim::Won);
        assert_eq!(b.claim("vm2", 2).unwrap(), Claim::Won, "another VM");
        assert_eq!(a.latest("vm").unwrap(), 3);
    }

    #[test]
    fn of_many_claims_at_once_one_wins() {
        let directory = tempfile::tempdir().unwrap();
        for epoch in 1..20 {
            let claims = (0..4).map(|i| {
                let arbiter = DirectoryArbiter::new(directory.path(), format!("claimant{i}")).unwrap();
                std::thread::spawn(move || arbiter.claim("vm", epoch).unwrap())
            });
            let claims: Vec<_> = claims.collect::<Vec<_>>().into_iter().map(|t| t.join().unwrap()).collect();
            assert_eq!(claims.iter().filter(|c| **c == Claim::Won).count(), 1, "epoch {epoch}");
        }
    }

    #[test]
    fn an_arbiter_that_is_away_is_an_error_and_no_verdict() {
        let directory = tempfile::tempdir().unwrap();
        let arbiter = DirectoryArbiter::new(&directory.path().join("x"), "a".into()).unwrap();
        fs::remove_dir(directory.path().join("x")).unwrap();
        assert!(arbiter.claim("vm", 1).is_err());
        fs::create_dir(directory.path().join("x")).unwrap();
        assert_eq!(arbiter.claim("vm", 1).unwrap(), Claim::Won);
    }
}
