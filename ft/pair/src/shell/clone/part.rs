//! What leader and standby say to each other about a machine that is copied, inside the protocol's `ClonePart`.
//!
//! Not responsible for: the order (`send`, `receive`).

use crate::protocol::{ClonePart, Message, bytes};
use serde::{Deserialize, Serialize};

/// A part.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(in crate::shell) enum Part {
    /// From the standby: digests of its blocks of a disk, from `first` on.
    Digests { disk: u8, first: u64, digests: Vec<u128> },
    /// From the standby: that were all, send.
    Ready,
    /// From the standby: so many bytes of parts are dealt with.
    Taken(u64),
    /// Pages of RAM, one after the other.
    Pages {
        numbers: Vec<u32>,
        #[serde(with = "bytes")]
        content: Vec<u8>,
    },
    /// Pages of RAM that are all zeros by now.
    Zeros(Vec<u32>),
    /// A block of a disk.
    Block {
        disk: u8,
        number: u64,
        #[serde(with = "bytes")]
        data: Vec<u8>,
    },
    /// A piece of the machine's state without RAM.
    Machine(#[serde(with = "bytes")] Vec<u8>),
    /// A piece of what the run has come to.
    Progress(#[serde(with = "bytes")] Vec<u8>),
    /// That was all of the cut.
    End,
}

impl Part {
    /// As a message, and its length.
    pub(in crate::shell) fn to_message(&self) -> (Message, u64) {
        // postcard fails only on values without a known length; an empty part is then refused.
        let bytes = postcard::to_stdvec(self).unwrap_or_default();
        let length = bytes.len() as u64;
        (Message::Clone(ClonePart(bytes)), length)
    }

    /// Reads a part; `None` for bytes that are none.
    pub(in crate::shell) fn read(part: &ClonePart) -> Option<Self> {
        postcard::take_from_bytes(&part.0).ok().filter(|(_, left)| left.is_empty()).map(|(part, _)| part)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_read_as_they_were_said_and_nonsense_never_panics() {
        let parts = [
            Part::Digests { disk: 1, first: 7, digests: vec![u128::MAX, 0] },
            Part::Pages { numbers: vec![3, 9], content: vec![5; 8192] },
            Part::Zeros(vec![1]),
            Part::Progress(Vec::new()),
            Part::End,
        ];
        for part in parts {
            let (Message::Clone(bytes), length) = part.to_message() else { panic!() };
            assert_eq!(bytes.0.len() as u64, length);
            assert_eq!(Part::read(&bytes), Some(part));
            for cut in 0..bytes.0.len() {
                assert_eq!(Part::read(&ClonePart(bytes.0[..cut].to_vec())), None);
            }
        }
        for byte in 0..=255 {
            let _ = Part::read(&ClonePart(vec![byte; 40]));
        }
    }
}
