//! A sampled time as bytes: the entry of which a log of a machine that counts exits has most, one for each access to a device.
//!
//! Not responsible for: the chain of checksums (`codec`), what a time is for (`gemel-machine`).
//!
//! The instructions that ask are few: their addresses are kept in a list, the latest first, and a sample names one by its place there.
//!
//! First byte: bits 0 and 1 set (a head's are clear: one damaged bit makes neither of the other), then a code of six bits. Below 62 it
//! is twice the place in the list, plus how far the count went on, 0 or 1. 62: count (varint) and RIP (difference) follow. Then the
//! time that passed (varint), and a check of one byte: the four bytes of the chain's CRC-32, exclusive-ored. The chain goes
//! on with the whole CRC, so that what one byte misses is found by the next frame that has four.

use crate::error::Damage;
use crate::varint::{Taker, put, put_difference};
use gemel_machine::{At, Position, VirtTime};

/// Addresses in the list.
const PLACES: usize = 31;
const MARK: u8 = 3;
/// Bytes of a number at most.
const VARINT: usize = 10;
/// The code of a sample whose count and RIP follow.
const FULL: u8 = 62;

/// The instructions that asked, the latest first.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sites([u64; PLACES]);

impl Sites {
    /// Moves what is at a place to the front.
    fn asked_at(&mut self, place: usize, rip: u64) {
        self.0.copy_within(..place, 1);
        self.0[0] = rip;
    }
}

/// A time seen from the entry before it.
pub(crate) struct Sample {
    /// How far the count went on.
    count: u64,
    rip: u64,
    /// Nanoseconds that passed.
    time: u64,
}

/// Whether a frame that begins with this byte is a sample.
pub(crate) fn begins_with(first: u8) -> bool {
    first & MARK == MARK
}

/// A sample's check.
pub(crate) fn check(crc: u32) -> u8 {
    crc.to_le_bytes().into_iter().fold(0, |check, byte| check ^ byte)
}

/// The bytes of the sample at the front of `bytes`, without its check; `None` when it is not whole. Numbers without end are none.
pub(crate) fn extent(bytes: &[u8]) -> Option<usize> {
    let numbers = if bytes.first()? >> 2 < FULL { 1 } else { 3 };
    let most = 1 + numbers * VARINT;
    let mut ends = bytes.iter().take(most).enumerate().skip(1).filter(|(_, byte)| **byte & 0x80 == 0);
    ends.nth(numbers - 1).map(|(end, _)| end + 1).or((bytes.len() >= most).then_some(most))
}

impl Sample {
    pub(crate) fn between(previous: At, at: At) -> Self {
        Self {
            count: at.position.count.saturating_sub(previous.position.count),
            rip: at.position.rip,
            time: at.time.0.saturating_sub(previous.time.0),
        }
    }

    /// Where and when it was; `None` beyond what 64 bits hold.
    pub(crate) fn behind(&self, previous: At) -> Option<At> {
        let count = previous.position.count.checked_add(self.count)?;
        let time = VirtTime(previous.time.0.checked_add(self.time)?);
        Some(At { position: Position { count, rip: self.rip, rcx: 0 }, time })
    }

    /// Appends it, without its check.
    pub(crate) fn put(&self, out: &mut Vec<u8>, sites: &mut Sites, previous_rip: u64) {
        let place = sites.0.iter().position(|site| *site == self.rip).filter(|_| self.count <= 1);
        match place {
            Some(place) => out.push(MARK | ((place as u8) << 1 | self.count as u8) << 2),
            None => {
                out.push(MARK | FULL << 2);
                put(out, self.count);
                put_difference(out, previous_rip, self.rip);
            }
        }
        put(out, self.time);
        sites.asked_at(place.unwrap_or(PLACES - 1), self.rip);
    }

    /// Reads what [`extent`] measured.
    pub(crate) fn take(bytes: &[u8], sites: &mut Sites, previous_rip: u64) -> Result<Self, Damage> {
        let mut bytes = Taker(bytes);
        let code = bytes.byte()? >> 2;
        let (place, count, rip) = match sites.0.get(usize::from(code >> 1)) {
            Some(site) => (usize::from(code >> 1), u64::from(code & 1), *site),
            None if code == FULL => (PLACES - 1, bytes.varint()?, bytes.difference(previous_rip)?),
            None => return Err(Damage::Content("unknown form of a time")),
        };
        sites.asked_at(place, rip);
        Ok(Self { count, rip, time: bytes.varint()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_check_of_one_byte_finds_every_damaged_bit_that_moves_no_end() {
        // A CRC is linear: whether a damaged bit shows depends on its distance from the end alone.
        let clean = crc32fast::hash(&[0; 32]);
        for bit in 0..32 * 8 {
            let mut bytes = [0; 32];
            bytes[bit / 8] = 1 << (bit % 8);
            assert_ne!(check(crc32fast::hash(&bytes)), check(clean), "bit {bit}");
        }
    }

    #[test]
    fn a_loop_that_asks_costs_three_bytes_and_a_check() {
        let (mut writes, mut reads) = (Sites::default(), Sites::default());
        let mut previous = At { position: Position::default(), time: VirtTime(0) };
        for i in 0..100 {
            let rip = 0xffff_ffff_8100_0000 + i % 3 * 7;
            let position = Position { count: previous.position.count + i % 2, rip, rcx: 0 };
            let at = At { position, time: previous.time.after(1000 + i) };
            let mut bytes = Vec::new();
            Sample::between(previous, at).put(&mut bytes, &mut writes, previous.position.rip);
            assert!(i < 3 || bytes.len() == 3, "{} bytes", bytes.len());
            assert_eq!(extent(&bytes), Some(bytes.len()));
            assert_eq!(extent(&bytes[..bytes.len() - 1]), None);
            let back = Sample::take(&bytes, &mut reads, previous.position.rip).unwrap().behind(previous);
            assert_eq!(back, Some(at));
            previous = at;
        }
    }
}
