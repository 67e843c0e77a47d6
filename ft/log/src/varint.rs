//! Numbers of variable length: seven bits a byte, lowest first, the top bit says that more follow (LEB128).
//! Signed ones as zigzag: 0, -1, 1, -2 become 0, 1, 2, 3.
//!
//! Not responsible for: what the numbers mean (`codec`).

use crate::error::Damage;

pub(crate) fn put(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// The difference `to - from`, modulo 2^64, as a signed number.
pub(crate) fn put_difference(out: &mut Vec<u8>, from: u64, to: u64) {
    let difference = to.wrapping_sub(from) as i64;
    put(out, (difference << 1 ^ difference >> 63) as u64);
}

/// Reads from the front of a slice.
pub(crate) struct Taker<'a>(pub(crate) &'a [u8]);

impl<'a> Taker<'a> {
    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], Damage> {
        let (head, rest) = self.0.split_first_chunk().ok_or(Damage::Content("too short"))?;
        self.0 = rest;
        Ok(*head)
    }

    pub(crate) fn byte(&mut self) -> Result<u8, Damage> {
        self.array().map(|[b]| b)
    }

    pub(crate) fn word(&mut self) -> Result<u64, Damage> {
        self.array().map(u64::from_le_bytes)
    }

    pub(crate) fn varint(&mut self) -> Result<u64, Damage> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                break;
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(Damage::Content("a number beyond 64 bits"))
    }

    pub(crate) fn difference(&mut self, from: u64) -> Result<u64, Damage> {
        let zigzag = self.varint()?;
        Ok(from.wrapping_add((zigzag >> 1) ^ (zigzag & 1).wrapping_neg()))
    }

    pub(crate) fn rest(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.0).to_vec()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_examples_of_the_leb128_definition() {
        // DWARF 5, figures C.1 and table 7.7.
        for (value, bytes) in [
            (2, vec![2]),
            (127, vec![127]),
            (128, vec![0x80, 1]),
            (129, vec![0x81, 1]),
            (12857, vec![0xb9, 0x64]),
        ] {
            let mut out = Vec::new();
            put(&mut out, value);
            assert_eq!(out, bytes);
            assert_eq!(Taker(&out).varint(), Ok(value));
        }
    }

    #[test]
    fn differences_wrap_and_come_back() {
        let ends = [0, 1, 2, 63, 64, 1 << 40, u64::MAX / 2, u64::MAX / 2 + 1, u64::MAX - 1, u64::MAX];
        for from in ends {
            for to in ends {
                let mut out = Vec::new();
                put_difference(&mut out, from, to);
                assert!(out.len() <= 10);
                assert_eq!(Taker(&out).difference(from), Ok(to), "{from} to {to}");
            }
        }
    }

    #[test]
    fn more_than_64_bits_are_refused() {
        assert!(Taker(&[0xff; 20]).varint().is_err());
        assert!(Taker(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2]).varint().is_err());
        assert!(Taker(&[0x80]).varint().is_err());
    }
}
