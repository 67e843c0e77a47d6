//! Who leads and who is in sync: what the arbiter holds, and the names in it.
//!
//! Not responsible for: keeping it (`shell::arbiter`), when it changes (`leading`, `following`).

use serde::{Deserialize, Serialize};

/// A connection to a peer, as the shell names it. No name is used twice.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct PeerId(pub u64);

/// One side for as long as it takes part, drawn at random: whoever takes part again, cloned anew, has another.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct MemberId(pub u64);

/// The register of a VM. Every change makes `epoch` one more.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Membership {
    /// Counts the changes.
    pub epoch: u64,
    /// Whose outputs may leave.
    pub leader: MemberId,
    /// Who is in sync, the leader among them, in order. All of them acknowledge before an output leaves.
    pub members: Vec<MemberId>,
}

impl Membership {
    /// A register of these members, in order and each once, with the leader.
    pub fn new(epoch: u64, leader: MemberId, others: impl IntoIterator<Item = MemberId>) -> Self {
        let mut members: Vec<_> = others.into_iter().chain([leader]).collect();
        members.sort_unstable();
        members.dedup();
        Self { epoch, leader, members }
    }

    /// Whether it is in sync.
    pub fn has(&self, member: MemberId) -> bool {
        self.members.contains(&member)
    }

    /// The members that follow.
    pub fn followers(&self) -> impl Iterator<Item = MemberId> + '_ {
        self.members.iter().copied().filter(|m| *m != self.leader)
    }
}

/// What an arbiter says to a change.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Changed {
    /// It holds, by this request or an earlier one of the same content.
    Done,
    /// Somebody changed it before; this is what holds.
    Refused(Membership),
}
