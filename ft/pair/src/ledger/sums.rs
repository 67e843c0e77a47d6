//! Digests of ranges of outputs that add up.
//!
//! Not responsible for: which ranges there are (`tap`), comparing them (`agreement`).
//!
//! The digest of outputs `first..next` is the sum of `item(i) * BASE^i` over the range, modulo the prime 2^61 - 1. So the
//! digest of a range follows from those of its parts, wherever it is cut: two sides need not cut alike to be compared,
//! and what left can be compared with what was made. A difference goes unnoticed once in 2^61 times, unless
//! somebody computes it.

use crate::protocol::Channel;
use xxhash_rust::xxh3::Xxh3;

/// The prime.
const PRIME: u64 = (1 << 61) - 1;
/// Drawn at random.
const BASE: u64 = 0x0f3a_96b1_74c8_2e5d;

/// The sum of two digests, whatever a ledger says that they are.
pub(super) fn add(a: u64, b: u64) -> u64 {
    (a % PRIME + b % PRIME) % PRIME
}

/// Their difference.
pub(super) fn subtract(a: u64, b: u64) -> u64 {
    add(a, PRIME - b % PRIME)
}

fn multiply(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    let folded = (product as u64 & PRIME) + (product >> 61) as u64;
    if folded >= PRIME { folded - PRIME } else { folded }
}

/// `BASE^exponent`.
fn power(mut exponent: u64) -> u64 {
    let (mut result, mut square) = (1, BASE);
    while exponent > 0 {
        if exponent & 1 != 0 {
            result = multiply(result, square);
        }
        square = multiply(square, square);
        exponent >>= 1;
    }
    result
}

/// A byte that left through a channel, as an item.
pub(super) fn byte_item(channel: Channel, byte: u8) -> u64 {
    let line = match channel {
        Channel::Serial(port) => u64::from(port),
        Channel::Debug => 0x100,
    };
    1 + (line << 8 | u64::from(byte))
}

/// A network frame, as an item.
pub fn frame_item(nic: u8, frame: &[u8]) -> u64 {
    let mut hash = Xxh3::new();
    hash.update(&[nic]);
    hash.update(frame);
    1 + hash.digest() % (PRIME - 1)
}

/// The digest of a range that grows.
#[derive(Clone, Debug)]
pub struct Sums {
    first: u64,
    next: u64,
    /// `BASE^next`.
    power: u64,
    sum: u64,
}

impl Sums {
    /// An empty range.
    pub fn new(first: u64) -> Self {
        Self { first, next: first, power: power(first), sum: 0 }
    }

    /// The next output of the range.
    pub fn push(&mut self, item: u64) {
        self.sum = add(self.sum, multiply(self.power, item));
        self.power = multiply(self.power, BASE);
        self.next += 1;
    }

    /// The ordinal behind the range.
    pub fn next(&self) -> u64 {
        self.next
    }

    /// Ends the range and begins a new one behind it: the range's bounds and its digest, unless it is empty.
    pub fn cut(&mut self) -> Option<(u64, u64, u64)> {
        let (first, digest) = (self.first, std::mem::take(&mut self.sum));
        self.first = self.next;
        (first < self.next).then_some((first, self.next, digest))
    }
}

/// The digest of bytes that left through one channel from `first` on.
pub(super) fn of_bytes(first: u64, channel: Channel, bytes: &[u8]) -> u64 {
    let mut sums = Sums::new(first);
    bytes.iter().for_each(|byte| sums.push(byte_item(channel, *byte)));
    sums.sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_of_parts_add_up_to_that_of_the_whole_wherever_it_is_cut() {
        let bytes: Vec<u8> = (0..200u32).map(|i| ((i * 37) >> 2) as u8).collect();
        for start in [0, 1, 1 << 40, u64::MAX / 2] {
            let whole = of_bytes(start, Channel::Serial(0), &bytes);
            for cut in 0..=bytes.len() {
                let (front, back) = bytes.split_at(cut);
                let parts = add(
                    of_bytes(start, Channel::Serial(0), front),
                    of_bytes(start + cut as u64, Channel::Serial(0), back),
                );
                assert_eq!(parts, whole);
                assert_eq!(
                    subtract(whole, of_bytes(start, Channel::Serial(0), front)),
                    subtract(parts, of_bytes(start, Channel::Serial(0), front))
                );
            }
        }
    }

    #[test]
    fn what_differs_in_a_byte_a_place_or_a_channel_has_another_digest() {
        let digest = of_bytes(5, Channel::Serial(0), b"hello");
        for (first, channel, bytes) in [
            (5, Channel::Serial(0), &b"hellp"[..]),
            (5, Channel::Serial(0), b"ehllo"),
            (6, Channel::Serial(0), b"hello"),
            (5, Channel::Serial(1), b"hello"),
            (5, Channel::Debug, b"hello"),
            (5, Channel::Serial(0), b"hell"),
            (5, Channel::Serial(0), b"hello\0"),
        ] {
            assert_ne!(of_bytes(first, channel, bytes), digest, "{first} {channel:?} {bytes:?}");
        }
        assert_ne!(frame_item(0, b"x"), frame_item(1, b"x"));
    }

    #[test]
    fn a_range_is_cut_where_it_is_asked_to_be() {
        let mut sums = Sums::new(3);
        assert_eq!(sums.cut(), None);
        b"ab".iter().for_each(|b| sums.push(byte_item(Channel::Debug, *b)));
        assert_eq!(sums.cut(), Some((3, 5, of_bytes(3, Channel::Debug, b"ab"))));
        b"c".iter().for_each(|b| sums.push(byte_item(Channel::Debug, *b)));
        assert_eq!(sums.cut(), Some((5, 6, of_bytes(5, Channel::Debug, b"c"))));
    }
}
