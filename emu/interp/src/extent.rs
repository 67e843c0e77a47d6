//! How far an instruction that does not exist reaches: a CPU fetches all of its bytes before it raises #UD, so that a page
//! that is not there, or more than 15 bytes, raise #PF or #GP instead.
//!
//! Not responsible for: instructions that exist (iced has their lengths).

/// Where in the opcode maps a byte stands (SDM 2D appendix A).
#[derive(Clone, Copy, PartialEq, Eq)]
enum Map {
    OneByte,
    /// Behind 0F.
    TwoByte,
    /// Behind 0F 38.
    Three38,
    /// Behind 0F 3A, and what else ends with an immediate byte.
    Three3A,
}

/// The bytes still to be looked at, and the sizes that prefixes chose.
struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    wide_operand: bool,
    /// 66, F0, F2 or F3: all give 0F 78 the immediates of EXTRQ and INSERTQ.
    selects: bool,
    narrow_address: bool,
    bits: u32,
}

/// Length of the instruction that `bytes` begin with in code of `bits` bits; `None` if it goes on behind them.
pub fn extent(bytes: &[u8], bits: u32) -> Option<usize> {
    let mut r =
        Reader { bytes, at: 0, wide_operand: bits != 16, selects: false, narrow_address: bits == 16, bits };
    let (mut quad_operand, mut rex, mut opcode);
    loop {
        (quad_operand, rex) = (false, false);
        opcode = r.byte()?;
        match opcode {
            0x26 | 0x2e | 0x36 | 0x3e | 0x64 | 0x65 => {}
            0xf0 | 0xf2 | 0xf3 => r.selects = true,
            0x66 => (r.wide_operand, r.selects) = (bits == 16, true),
            0x67 => r.narrow_address = bits != 16,
            0x40..=0x4f if bits == 64 => {
                (quad_operand, rex) = (opcode & 8 != 0, true);
                opcode = r.byte()?;
                // A prefix behind REX makes REX nothing.
                if is_prefix(opcode, bits) {
                    r.at -= 1;
                    continue;
                }
                break;
            }
            _ => break,
        }
    }
    let map = match opcode {
        0x0f => match r.byte()? {
            0x38 => Map::Three38,
            // 3DNow! has its opcode where others have an immediate.
            0x3a | 0x0f => Map::Three3A,
            second => {
                opcode = second;
                Map::TwoByte
            }
        },
        // REX makes them what they are outside of 64-bit mode: LES, LDS, BOUND, POP.
        0xc4 | 0xc5 | 0x62 | 0x8f if rex => {
            r.operand()?;
            return Some(r.at);
        }
        0xc4 | 0xc5 | 0x62 if bits == 64 || r.peek()? >= 0xc0 => return vector(&mut r, opcode),
        // XOP, where POP would have other digits than zero.
        0x8f if r.peek()? & 0x38 != 0 => return vector(&mut r, opcode),
        _ => Map::OneByte,
    };
    if matches!(map, Map::Three38 | Map::Three3A) {
        if map == Map::Three38 || bytes[r.at - 1] == 0x3a {
            r.byte()?;
        }
        r.operand()?;
        return r.skip(usize::from(map == Map::Three3A));
    }
    // MOV to and from CRn and DRn: the operand is a register whatever ModRM says.
    if map == Map::TwoByte && matches!(opcode, 0x20..=0x23) {
        return r.skip(1);
    }
    let mut group = 0;
    if has_modrm(map, opcode, bits) {
        group = r.operand()?;
    }
    let immediate = immediate(&r, map, opcode, group, quad_operand);
    r.skip(immediate)
}

fn is_prefix(byte: u8, bits: u32) -> bool {
    matches!(byte, 0x26 | 0x2e | 0x36 | 0x3e | 0x64..=0x67 | 0xf0 | 0xf2 | 0xf3)
        || bits == 64 && byte & 0xf0 == 0x40
}

/// VEX, EVEX and XOP: the map stands in the second byte, or is 0F.
fn vector(r: &mut Reader<'_>, first: u8) -> Option<usize> {
    let (map, rest) = match first {
        0xc5 => (1, 1),
        0xc4 | 0x8f => (r.peek()? & 0x1f, 2),
        // Zen 4 takes EVEX map 7, which nobody has filled, for map 3.
        _ => (
            match r.peek()? & 7 {
                7 => 3,
                map => map,
            },
            3,
        ),
    };
    // Behind VEX the map of 0F is cut as it is without, also where it has nothing to offer; so is EVEX map 5.
    let cut_as_0f = if first == 0x62 { map == 5 } else { map == 1 };
    r.skip(rest)?;
    let selects = r.bytes[r.at - 1] & 1 != 0;
    let opcode = r.byte()?;
    if cut_as_0f && matches!(opcode, 0x20..=0x23) {
        return r.skip(1);
    }
    let without_modrm = !has_modrm(Map::TwoByte, opcode, r.bits) || matches!(opcode, 0x38 | 0x3a);
    let conversion = map == 5 && matches!(opcode, 0x7a | 0x7b);
    if cut_as_0f && without_modrm && !conversion {
        // Where Jcc would be, Zen 4 reads its displacement, of four bytes in any code.
        return r.skip(if matches!(opcode, 0x80..=0x8f) { 4 } else { 0 });
    }
    r.operand()?;
    r.skip(match (first, map) {
        (0x8f, 10) => 4,
        (_, 3) => 1,
        // Zen 4 reads them where EXTRQ and INSERTQ would be, had they VEX forms.
        (0xc4 | 0xc5, 1) if opcode == 0x78 => 2,
        (_, 1) if opcode == 0x78 && selects => 2,
        (_, 1) if matches!(opcode, 0x70..=0x73 | 0xc2 | 0xc4..=0xc6) => 1,
        (0x62, 5) if matches!(opcode, 0x70..=0x73 | 0xc2 | 0xc4..=0xc6) => 1,
        (0xc4 | 0xc5, 1) | (0x62, 5) if matches!(opcode, 0x0f | 0xa4 | 0xac | 0xba) => 1,
        _ => 0,
    })
}

fn has_modrm(map: Map, opcode: u8, bits: u32) -> bool {
    if map == Map::TwoByte {
        return !matches!(
            opcode,
            0x04..=0x0c | 0x0e | 0x24..=0x27 | 0x30..=0x37 | 0x39 | 0x3b..=0x3f | 0x77 | 0x7a | 0x7b | 0x80..=0x8f
                | 0xa0..=0xa2 | 0xa6..=0xaa | 0xb9 | 0xc8..=0xcf | 0xff
        );
    }
    match opcode {
        0x00..=0x3f => opcode & 7 < 4,
        0x62 => bits != 64,
        0x63 | 0x69 | 0x6b | 0x80..=0x8f | 0xc0 | 0xc1 | 0xc6 | 0xc7 | 0xd0..=0xd3 => true,
        0xc4 | 0xc5 => bits != 64,
        0xd8..=0xdf | 0xf6 | 0xf7 | 0xfe | 0xff => true,
        _ => false,
    }
}

/// Bytes of immediates.
fn immediate(r: &Reader<'_>, map: Map, opcode: u8, group: u8, quad_operand: bool) -> usize {
    let z = if r.wide_operand || quad_operand { 4 } else { 2 };
    if map == Map::TwoByte {
        return match opcode {
            0x70..=0x73 | 0xa4 | 0xac | 0xba | 0xc2 | 0xc4..=0xc6 => 1,
            0x78 if r.selects => 2,
            0x80..=0x8f => z,
            _ => 0,
        };
    }
    match opcode {
        0x00..=0x3f if opcode & 7 == 4 => 1,
        0x00..=0x3f if opcode & 7 == 5 => z,
        0x68 | 0x69 | 0x81 | 0xa9 | 0xc7 => z,
        0x6a | 0x6b | 0x70..=0x80 | 0x83 | 0xa8 | 0xb0..=0xb7 | 0xc0 | 0xc1 | 0xc6 | 0xcd => 1,
        0x82 | 0xd4 | 0xd5 => 1,
        0xe0..=0xe7 | 0xeb => 1,
        0x9a | 0xea => z + 2,
        0xa0..=0xa3 => match (r.narrow_address, r.bits) {
            (false, 64) => 8,
            (true, 64) | (false, _) => 4,
            (true, _) => 2,
        },
        0xb8..=0xbf => {
            if quad_operand {
                8
            } else {
                z
            }
        }
        0xc2 | 0xca => 2,
        0xc8 => 3,
        0xe8 | 0xe9 => z,
        0xf6 if group < 2 => 1,
        0xf7 if group < 2 => z,
        _ => 0,
    }
}

impl Reader<'_> {
    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn byte(&mut self) -> Option<u8> {
        let byte = self.peek()?;
        self.at += 1;
        Some(byte)
    }

    /// Goes on by `n` bytes that must be there; returns where that is.
    fn skip(&mut self, n: usize) -> Option<usize> {
        self.at += n;
        (self.at <= self.bytes.len()).then_some(self.at)
    }

    /// ModRM, SIB and displacement; returns the middle field.
    fn operand(&mut self) -> Option<u8> {
        let modrm = self.byte()?;
        let (mode, rm) = (modrm >> 6, modrm & 7);
        let small = self.narrow_address && self.bits != 64;
        let displacement = match (mode, small) {
            (3, _) => 0,
            (1, _) => 1,
            (2, true) => 2,
            (0, true) if rm == 6 => 2,
            (0, true) => 0,
            (_, false) => {
                let base = if rm == 4 { self.byte()? & 7 } else { rm };
                if mode == 2 || base == 5 { 4 } else { 0 }
            }
            _ => 0,
        };
        if mode == 1 && !small && rm == 4 {
            self.byte()?;
        }
        self.skip(displacement)?;
        Some(modrm >> 3 & 7)
    }
}

#[cfg(test)]
mod tests {
    use super::extent;
    use iced_x86::{Decoder, DecoderOptions, Mnemonic};

    /// Measured by cutting code off at the end of a page: ModRM 5C and a SIB byte give one byte of displacement.
    #[test]
    fn evex_maps_that_hold_nothing_reach_as_far_as_on_zen_4() {
        for (map, opcode, length) in [
            (4, 0xb4, 8),
            (5, 0x04, 5),
            (5, 0x0f, 9),
            (5, 0x11, 8),
            (5, 0x7a, 8),
            (5, 0xc4, 9),
            (7, 0x11, 9),
            (7, 0xb4, 9),
        ] {
            let bytes = [0x62, 0x60 | map, 0x42, 0x0f, opcode, 0x5c, 0xb7, 0, 0, 0, 0, 0, 0, 0, 0];
            assert_eq!(extent(&bytes, 64), Some(length), "map {map} {opcode:02x}");
        }
    }

    #[test]
    fn instructions_that_exist_have_the_length_that_their_decoder_says() {
        // xorshift64*
        let mut state = 0x9e37_79b9_7f4a_7c15u64;
        let mut random = || {
            state ^= state >> 12;
            state ^= state << 25;
            state ^= state >> 27;
            state.wrapping_mul(0x2545_f491_4f6c_dd1d)
        };
        for bits in [16, 32, 64] {
            let mut seen = 0;
            for _ in 0..400_000 {
                let mut bytes = [0; 15];
                bytes[..8].copy_from_slice(&random().to_le_bytes());
                bytes[8..].copy_from_slice(&random().to_le_bytes()[..7]);
                // Every other one in the 0F map.
                if bytes[7] & 1 != 0 {
                    bytes[0] = 0x0f;
                }
                let instruction = Decoder::new(bits, &bytes, DecoderOptions::AMD).decode();
                // AMD's UD1 has no operands, and nothing of VIA's or of XOP is there.
                let absent = ["PADLOCK", "XOP"];
                let other = instruction.mnemonic() == Mnemonic::Ud1
                    || instruction
                        .cpuid_features()
                        .iter()
                        .any(|f| absent.iter().any(|a| format!("{f:?}").starts_with(a)));
                if instruction.is_invalid() || other {
                    continue;
                }
                seen += 1;
                let length = instruction.len();
                assert_eq!(
                    extent(&bytes, bits),
                    Some(length),
                    "{bits} {bytes:02x?} {:?}",
                    instruction.code()
                );
                assert_eq!(extent(&bytes[..length - 1], bits), None, "{bits} {bytes:02x?}");
            }
            assert!(seen > 100_000);
        }
    }
}
