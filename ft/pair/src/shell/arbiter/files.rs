//! The register as files in a directory that all sides reach.
//!
//! Not responsible for: the directory's storage; it must honour `link` and `fsync`, as local ones and NFS do.

use super::{Arbiter, step};
use crate::protocol::{Changed, Membership};
use crate::shell::PairError;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// `<vm>.<epoch>` has the membership of that epoch as JSON. The highest epoch holds.
pub struct DirectoryArbiter {
    directory: PathBuf,
}

impl DirectoryArbiter {
    /// An arbiter in a directory, which is made if it is not there.
    ///
    /// # Errors
    /// [`PairError::Arbiter`].
    pub fn new(directory: &Path) -> Result<Self, PairError> {
        fs::create_dir_all(directory).map_err(|e| PairError::Arbiter(directory.into(), e))?;
        Ok(Self { directory: directory.into() })
    }

    fn path(&self, vm: &str, epoch: u64) -> PathBuf {
        self.directory.join(format!("{vm}.{epoch}"))
    }

    /// Makes the epoch's file, whole and durable; `false` where somebody has made it before.
    fn make(&self, vm: &str, next: &Membership) -> io::Result<bool> {
        // The content is durable before the name is: the name is a link to a complete file, which is made exclusively (link
        // fails where a name exists, also over NFS) and never seen half-written.
        let draft = self.directory.join(format!(".{vm}.{}.{:016x}", next.epoch, next.leader.0));
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).open(&draft)?;
        file.write_all(&serde_json::to_vec(next)?)?;
        file.sync_all()?;
        let linked = fs::hard_link(&draft, self.path(vm, next.epoch));
        fs::remove_file(&draft)?;
        match linked {
            Ok(()) => {}
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => return Ok(false),
            Err(e) => return Err(e),
        }
        File::open(&self.directory)?.sync_all()?;
        Ok(true)
    }
}

impl Arbiter for DirectoryArbiter {
    fn read(&self, vm: &str) -> io::Result<Option<Membership>> {
        let mut latest = None;
        for entry in fs::read_dir(&self.directory)? {
            let name = entry?.file_name();
            let epoch: Option<u64> =
                name.to_str().and_then(|n| n.strip_prefix(vm)?.strip_prefix('.')?.parse().ok());
            latest = latest.max(epoch);
        }
        let Some(epoch) = latest else { return Ok(None) };
        Ok(Some(serde_json::from_slice(&fs::read(self.path(vm, epoch))?)?))
    }

    fn change(&self, vm: &str, next: &Membership) -> io::Result<Changed> {
        step(next, || self.read(vm), || self.make(vm, next))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::MemberId;

    fn alone(epoch: u64, leader: u64) -> Membership {
        Membership::new(epoch, MemberId(leader), [])
    }

    #[test]
    fn the_register_goes_step_by_step_and_a_repeated_request_is_done() {
        let directory = tempfile::tempdir().unwrap();
        let arbiter = DirectoryArbiter::new(directory.path()).unwrap();
        assert_eq!(arbiter.read("vm").unwrap(), None);
        assert_eq!(arbiter.change("vm", &alone(7, 1)).unwrap(), Changed::Done, "nothing was there");
        assert_eq!(arbiter.change("vm", &alone(7, 1)).unwrap(), Changed::Done);
        assert_eq!(arbiter.change("vm", &alone(7, 2)).unwrap(), Changed::Refused(alone(7, 1)));
        assert_eq!(
            arbiter.change("vm", &alone(9, 2)).unwrap(),
            Changed::Refused(alone(7, 1)),
            "a step left out"
        );
        let pair = Membership::new(8, MemberId(1), [MemberId(2)]);
        assert_eq!(arbiter.change("vm", &pair).unwrap(), Changed::Done);
        assert_eq!(arbiter.read("vm").unwrap(), Some(pair.clone()));
        assert_eq!(arbiter.change("vm", &alone(7, 1)).unwrap(), Changed::Refused(pair), "it went on");
        assert_eq!(arbiter.change("vm2", &alone(8, 2)).unwrap(), Changed::Done, "another VM");
    }

    #[test]
    fn of_many_changes_at_once_one_is_made() {
        let directory = tempfile::tempdir().unwrap();
        for epoch in 1..20 {
            let changes = (0..4).map(|i| {
                let arbiter = DirectoryArbiter::new(directory.path()).unwrap();
                std::thread::spawn(move || arbiter.change("vm", &alone(epoch, i)).unwrap())
            });
            let answers: Vec<_> =
                changes.collect::<Vec<_>>().into_iter().map(|t| t.join().unwrap()).collect();
            assert_eq!(answers.iter().filter(|c| **c == Changed::Done).count(), 1, "epoch {epoch}");
            let holds = DirectoryArbiter::new(directory.path()).unwrap().read("vm").unwrap().unwrap();
            for answer in answers {
                assert!(answer == Changed::Done || answer == Changed::Refused(holds.clone()));
            }
        }
    }

    #[test]
    fn an_arbiter_that_is_away_is_an_error_and_no_verdict() {
        let directory = tempfile::tempdir().unwrap();
        let arbiter = DirectoryArbiter::new(&directory.path().join("x")).unwrap();
        fs::remove_dir(directory.path().join("x")).unwrap();
        assert!(arbiter.change("vm", &alone(1, 1)).is_err());
        assert!(arbiter.read("vm").is_err());
        fs::create_dir(directory.path().join("x")).unwrap();
        assert_eq!(arbiter.change("vm", &alone(1, 1)).unwrap(), Changed::Done);
    }

    #[test]
    fn a_file_of_another_hand_is_an_error_and_no_verdict() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("vm.3"), "not JSON").unwrap();
        let arbiter = DirectoryArbiter::new(directory.path()).unwrap();
        assert!(arbiter.read("vm").is_err());
        assert!(arbiter.change("vm", &alone(4, 1)).is_err());
    }
}
