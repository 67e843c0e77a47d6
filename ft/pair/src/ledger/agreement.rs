//! Whether digests of ranges can all be true at once.
//!
//! Not responsible for: whose they are (`proof`).
//!
//! Each digest says by how much a running sum over all outputs grows between two ordinals. Ordinals that are tied together, by any
//! chain of ranges, have a known difference; a range that says otherwise contradicts the ones before it. (A
//! union-find whose edges have weights.)

use super::line::Stream;
use super::sums::{add, subtract};
use std::collections::HashMap;

#[derive(Default)]
pub(super) struct Agreement {
    /// A point's parent, and by how much the running sum is more there than at the parent.
    parents: HashMap<(Stream, u64), (u64, u64)>,
}

/// What a range's digest is beside those before it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Beside {
    /// They say nothing about it.
    News,
    /// They say the same.
    Agrees,
    /// They say otherwise.
    Contradicts,
}

impl Agreement {
    /// The point that stands for all that are tied to this one, and the difference to it.
    fn root(&mut self, stream: Stream, point: u64) -> (u64, u64) {
        let mut path = Vec::new();
        let mut at = point;
        loop {
            let (parent, more) = *self.parents.entry((stream, at)).or_insert((at, 0));
            if parent == at {
                break;
            }
            path.push((at, more));
            at = parent;
        }
        // From the root outwards, so that each learns its whole difference.
        let mut total = 0;
        for (point, more) in path.into_iter().rev() {
            total = add(total, more);
            self.parents.insert((stream, point), (at, total));
        }
        (at, total)
    }

    /// Takes a range.
    pub(super) fn range(&mut self, stream: Stream, first: u64, next: u64, digest: u64) -> Beside {
        let ((a, at_first), (b, at_next)) = (self.root(stream, first), self.root(stream, next));
        if a == b {
            let agrees = subtract(at_next, at_first) == add(digest, 0);
            return if agrees { Beside::Agrees } else { Beside::Contradicts };
        }
        // sum(b) = sum(next) - at_next = sum(first) + digest - at_next = sum(a) + at_first + digest - at_next
        self.parents.insert((stream, b), (a, subtract(add(at_first, digest), at_next)));
        Beside::News
    }
}

#[cfg(test)]
mod tests {
    use super::super::sums::of_bytes;
    use super::*;
    use crate::protocol::Channel;

    #[test]
    fn ranges_cut_in_any_way_agree_if_they_are_of_the_same_bytes() {
        let bytes: Vec<u8> = (0..60u32).map(|i| ((i * i) >> 3) as u8).collect();
        let digest = |a: usize, b: usize| of_bytes(a as u64, Channel::Debug, &bytes[a..b]);
        let mut seed = 9u64;
        let mut below = |n: usize| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (seed >> 33) as usize % n
        };
        for _ in 0..200 {
            let mut agreement = Agreement::default();
            let mut known = 0;
            for _ in 0..150 {
                let (a, b) = (below(60), below(61));
                let (a, b) = (a.min(b), a.max(b));
                let beside = agreement.range(Stream::Console, a as u64, b as u64, digest(a, b));
                assert_ne!(beside, Beside::Contradicts);
                known += usize::from(beside == Beside::Agrees);
                if beside == Beside::Agrees && a < b {
                    let wrong = add(digest(a, b), 1);
                    assert_eq!(
                        agreement.range(Stream::Console, a as u64, b as u64, wrong),
                        Beside::Contradicts
                    );
                }
            }
            assert!(known > 60, "{known}");
        }
        let mut agreement = Agreement::default();
        assert_eq!(agreement.range(Stream::Console, 0, 5, 1), Beside::News);
        assert_eq!(agreement.range(Stream::Frames, 0, 5, 2), Beside::News, "counted apart");
    }
}
