//! Programs: instructions of every form that the decoder knows, put together at random, and plain random bytes.
//!
//! Not responsible for: what they find in registers and memory (`state`, `tables`).

use super::{CODE, CODE_BYTES, RAM};
use crate::places;
use crate::rng::Rng;
use iced_x86::{Code, Decoder, DecoderOptions, EncodingKind, MandatoryPrefix, OpCodeTableKind, OpKind};

/// How prefixes and opcode are put.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Encoding {
    Legacy,
    Vex,
    Evex,
}

/// The encoding of a form, as far as it is fixed.
#[derive(Clone, Copy)]
struct Shape {
    encoding: Encoding,
    map: u8,
    prefix: u8,
    opcode: u32,
    opcode_len: u32,
    /// The register field of ModRM, where it selects the form.
    group: Option<u8>,
    /// The whole ModRM's low three bits likewise.
    rm_group: Option<u8>,
    wide: bool,
    length: u8,
}

/// Every form.
pub struct Shapes {
    /// For 16, 32 and 64 bits.
    by_mode: [Vec<Shape>; 3],
}

impl Shapes {
    /// From the decoder's own tables.
    pub fn new() -> Self {
        let mut by_mode = [const { Vec::new() }; 3];
        for code in Code::values() {
            let Some(shape) = shape(code) else { continue };
            for (list, bits) in by_mode.iter_mut().zip([16, 32, 64]) {
                if code.op_code().is_available_in_mode(bits) {
                    list.push(shape);
                }
            }
        }
        Self { by_mode }
    }

    fn of(&self, bits: u8) -> &[Shape] {
        &self.by_mode[usize::from(bits) / 32]
    }

    /// `length` bytes of program: for code of `bits` bits.
    pub fn program(&self, rng: &Rng, bits: u8, length: usize) -> Vec<u8> {
        let mut out = Vec::with_capacity(length + 16);
        // Raw bytes always, never, or in between.
        let raw = rng.pick(&[1, 4, 16, 64, 1 << 40, 1 << 40]);
        while out.len() < length {
            match rng.below(24) {
                0 => out.extend_from_slice(rng.pick(&[&[0xcf][..], &[0x48, 0xcf], &[0xfb], &[0x90]])),
                1 => {
                    // A short jump anywhere near, so that programs have loops.
                    let back = rng.below(120) as u8;
                    out.extend_from_slice(&[
                        rng.pick(&[0xeb, 0x74, 0x75, 0x72, 0xe2]),
                        back.wrapping_sub(100),
                    ]);
                }
                _ if rng.once_in(raw) => {
                    let mut bytes = vec![0; 1 + rng.below(24) as usize];
                    rng.fill(&mut bytes);
                    out.extend_from_slice(&bytes);
                }
                _ => self.instruction(rng, bits, &mut out),
            }
        }
        out.truncate(length);
        out
    }

    /// One instruction.
    fn instruction(&self, rng: &Rng, bits: u8, out: &mut Vec<u8>) {
        let shape = rng.pick(self.of(bits));
        let mut bytes = Vec::with_capacity(32);
        for prefix in [0x66, 0x67, 0xf2, 0xf3, 0xf0, 0x26, 0x2e, 0x36, 0x3e, 0x64, 0x65] {
            if rng.once_in(if shape.encoding == Encoding::Legacy { 40 } else { 400 }) {
                bytes.push(prefix);
            }
        }
        shape.put(rng, bits, &mut bytes);
        let mut modrm = rng.next() as u8;
        if let Some(group) = shape.group {
            modrm = modrm & !0x38 | group << 3;
        }
        if let Some(group) = shape.rm_group {
            modrm = modrm & !7 | 0xc0 | group;
        }
        let fixed = bytes.len();
        bytes.push(modrm);
        for _ in 0..14 {
            bytes.push(if rng.once_in(3) { rng.value() as u8 } else { rng.next() as u8 });
        }
        let mut decoder = Decoder::with_ip(bits.into(), &bytes, 0, DecoderOptions::AMD);
        let instruction = decoder.decode();
        let places = decoder.get_constant_offsets(&instruction);
        let len =
            if instruction.is_invalid() { fixed + 1 + rng.below(6) as usize } else { instruction.len() };
        let mut put = |at: usize, size: usize, value: u64| {
            if let Some(place) = bytes.get_mut(at..at + size) {
                place.copy_from_slice(&value.to_le_bytes()[..size]);
            }
        };
        if places.has_displacement() && places.displacement_size() > 1 {
            let value = if rng.once_in(8) { places::address(rng) } else { rng.below(RAM) };
            put(places.displacement_offset(), places.displacement_size(), value);
        }
        if places.has_immediate() && places.immediate_size() > 1 {
            // Branches stay in the program, more or less.
            let near = matches!(
                instruction.op0_kind(),
                OpKind::NearBranch16 | OpKind::NearBranch32 | OpKind::NearBranch64
            );
            let far = matches!(instruction.op0_kind(), OpKind::FarBranch16 | OpKind::FarBranch32);
            let value = match (near, far) {
                (true, _) => rng.below(CODE_BYTES).wrapping_sub(CODE_BYTES / 2),
                (_, true) => CODE + rng.below(CODE_BYTES),
                _ => rng.value(),
            };
            put(places.immediate_offset(), places.immediate_size(), value);
            if far && places.has_immediate2() {
                put(places.immediate_offset2(), places.immediate_size2(), rng.below(32) << 3);
            }
        }
        bytes.truncate(len);
        out.extend_from_slice(&bytes);
    }
}

fn shape(code: Code) -> Option<Shape> {
    let info = code.op_code();
    let encoding = match info.encoding() {
        EncodingKind::Legacy => Encoding::Legacy,
        EncodingKind::VEX => Encoding::Vex,
        EncodingKind::EVEX => Encoding::Evex,
        _ => return None,
    };
    if !info.is_instruction() {
        return None;
    }
    let map = match info.table() {
        OpCodeTableKind::Normal => 0,
        OpCodeTableKind::T0F => 1,
        OpCodeTableKind::T0F38 => 2,
        OpCodeTableKind::T0F3A => 3,
        _ => return None,
    };
    let prefix = match info.mandatory_prefix() {
        MandatoryPrefix::P66 => 1,
        MandatoryPrefix::PF3 => 2,
        MandatoryPrefix::PF2 => 3,
        _ => 0,
    };
    let group = |is: bool, index: i32| if is { u8::try_from(index).ok() } else { None };
    Some(Shape {
        encoding,
        map,
        prefix,
        opcode: info.op_code(),
        opcode_len: info.op_code_len(),
        group: group(info.is_group(), info.group_index()),
        rm_group: group(info.is_rm_group(), info.rm_group_index()),
        wide: info.w() == 1 || info.operand_size() == 64,
        length: info.l() as u8,
    })
}

impl Shape {
    /// Prefixes and opcode.
    fn put(&self, rng: &Rng, bits: u8, out: &mut Vec<u8>) {
        if self.encoding != Encoding::Legacy {
            let odd = rng.once_in(16);
            let length = if odd { rng.next() as u8 & 3 } else { self.length & 3 };
            let wide = u8::from(if odd { rng.once_in(2) } else { self.wide });
            // Inverted R, X, B (and R') and register; outside 64-bit mode other values would be LES, LDS or BOUND.
            let high = if bits == 64 { rng.next() as u8 & 0xf0 } else { 0xf0 };
            let second = if rng.once_in(3) { rng.next() as u8 & 0x78 } else { 0x78 };
            if self.encoding == Encoding::Vex {
                let high = high & 0xe0;
                out.extend_from_slice(&[
                    0xc4,
                    high | self.map,
                    wide << 7 | second | (length & 1) << 2 | self.prefix,
                ]);
            } else {
                // Zeroing, broadcast or rounding, and a mask: seldom, for most forms refuse some of it.
                let last = rng.pick(&[0x08, 0x08, 0x09, 0x0a, 0x89, 0x18, 0x1f, rng.next() as u8 & 0x9f]);
                out.extend_from_slice(&[
                    0x62,
                    high | self.map,
                    wide << 7 | second | 4 | self.prefix,
                    last | length << 5,
                ]);
            }
            out.push(self.opcode as u8);
            return;
        }
        match self.prefix {
            1 => out.push(0x66),
            2 => out.push(0xf3),
            3 => out.push(0xf2),
            _ => {}
        }
        if bits == 64 && (self.wide || rng.once_in(3)) {
            out.push(
                0x40 | u8::from(self.wide) << 3 | rng.next() as u8 & if rng.once_in(4) { 15 } else { 7 },
            );
        }
        match self.map {
            1 => out.push(0x0f),
            2 => out.extend_from_slice(&[0x0f, 0x38]),
            3 => out.extend_from_slice(&[0x0f, 0x3a]),
            _ => {}
        }
        if self.opcode_len == 2 {
            out.push((self.opcode >> 8) as u8);
        }
        out.push(self.opcode as u8);
    }
}
