//! What must hold whatever goes wrong.

use crate::host::Side;
use gemel_pair::protocol::{MemberId, Membership};
use std::collections::BTreeMap;

/// Everything that was seen from outside, and what each member has in hand.
#[derive(Default)]
pub struct Judge {
    /// Bytes typed by the user.
    pub typed: Vec<u8>,
    /// Bytes shown to the user.
    pub shown: Vec<u8>,
    /// Outputs that ever left a side.
    released: Vec<u8>,
    /// Console input of which a client was told that it is consumed for good.
    consumed: u64,
    /// Outputs that each member can make.
    in_hand: BTreeMap<MemberId, u64>,
    /// Every content that the register ever had.
    pub register: Vec<Membership>,
    /// The latest epoch that the client was attached to.
    attached: u64,
}

impl Judge {
    /// Output bytes leave a side.
    pub fn released(&mut self, sender: MemberId, first: u64, bytes: &[u8]) {
        let known = self.released.len() as u64;
        assert!(first <= known, "output {first} leaves before {known}");
        let again = ((known - first) as usize).min(bytes.len());
        let before = &self.released[first as usize..first as usize + again];
        assert_eq!(before, &bytes[..again], "an output leaves again, and differs");
        self.released.extend_from_slice(&bytes[again..]);
        let held = self.register.last().expect("written at power-on");
        let end = first + bytes.len() as u64;
        for member in held.members.iter().filter(|m| **m != sender) {
            let has = self.in_hand.get(member).copied().unwrap_or(0);
            assert!(end <= has, "output {end} leaves {sender:?}, and {member:?} can only make {has}");
        }
    }

    /// A member can make so many outputs.
    pub fn has(&mut self, member: MemberId, outputs: u64) {
        let has = self.in_hand.entry(member).or_default();
        *has = outputs.max(*has);
    }

    /// A client was told that input below `number` is consumed.
    pub fn told_consumed(&mut self, number: u64) {
        self.consumed = self.consumed.max(number);
    }

    /// The register changes.
    pub fn changed(&mut self, next: Membership) {
        for member in &next.members {
            let has = self.in_hand.get(member).copied().unwrap_or(0);
            let left = self.released.len() as u64;
            assert!(
                *member == next.leader || left <= has,
                "{member:?} can make {has} of {left} outputs that left"
            );
        }
        self.register.push(next);
    }

    /// Whether nobody outside could know that there was a guest.
    pub fn nothing_was_seen(&self) -> bool {
        self.released.is_empty() && self.consumed == 0
    }

    /// Who leads in an epoch.
    pub fn leader_of(&self, epoch: u64) -> Option<MemberId> {
        self.register.iter().rev().find(|m| m.epoch == epoch).map(|m| m.leader)
    }

    /// A side goes live: it continues what was seen.
    pub fn goes_live(&self, side: &Side) {
        let toy = &side.toy;
        assert!(toy.outputs.starts_with(&self.released), "the survivor cannot have made what was seen");
        assert!(toy.consumed.len() as u64 >= self.consumed, "the survivor lacks input that was consumed");
        self.took_input(side);
    }

    /// A side took input, or is to be compared.
    pub fn took_input(&self, side: &Side) {
        assert!(self.typed.starts_with(&side.toy.consumed), "the guest took something else than was typed");
    }

    /// A side that is live must lead in its epoch.
    pub fn lives(&self, side: &Side) {
        let replication = side.member.replication();
        if replication.is_live() {
            let epoch = replication.epoch();
            assert_eq!(self.leader_of(epoch), Some(side.id), "it lives without its epoch {epoch}");
        }
    }

    /// The client is attached.
    pub fn attached(&mut self, epoch: u64) {
        assert!(epoch >= self.attached, "the client turned from epoch {} back to {epoch}", self.attached);
        self.attached = epoch;
    }

    /// Bytes are shown.
    pub fn shown(&mut self, bytes: &[u8]) {
        self.shown.extend_from_slice(bytes);
        assert!(self.released.starts_with(&self.shown), "the console shows what never left");
    }
}
