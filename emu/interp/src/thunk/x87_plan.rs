//! What each x87 encoding takes from the register stack and from memory, and what it leaves there.
//!
//! Not responsible for: running it (`x87`).

use super::x87::X87Thunk;

/// An x87 instruction with what its run needs, as one number that fits [`crate::op::Op::thunk`]:
/// FOP in bits 0 to 10, then the fields below.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Plan(u32);

const BRIEF: u32 = 1 << 11;
const BEFORE: u32 = 12;
const AFTER: u32 = 14;
const CONDITION_CODES: u32 = 1 << 16;
const BYTES: u32 = 17;
const STORES: u32 = 1 << 21;
const INTEGER_FLAGS: u32 = 1 << 22;
const NAMES_REGISTER: u32 = 1 << 23;
const C2: u32 = 1 << 24;

impl Plan {
    /// The plan of opcode bits; `None` as for [`X87Thunk::find`].
    pub(crate) fn of(fop: u16) -> Option<Self> {
        X87Thunk::find(fop)?;
        let (escape, modrm) = (fop >> 8 & 7, fop & 0xff);
        let details = if modrm < 0xc0 { memory(escape, modrm >> 3 & 7) } else { register(escape, modrm) };
        Some(Self(u32::from(fop) | details))
    }

    /// The number to keep.
    pub(crate) fn number(self) -> u32 {
        self.0
    }

    /// The plan of a number that [`Plan::number`] gave.
    #[inline(always)]
    pub(crate) fn at(number: u32) -> Self {
        Self(number)
    }

    /// The thunk.
    #[inline(always)]
    pub(crate) fn thunk(self) -> X87Thunk {
        X87Thunk::trusted(self.fop())
    }

    /// The same instruction on ST(1).
    #[inline(always)]
    pub(crate) fn on_st1(self) -> X87Thunk {
        let fop = if self.0 & NAMES_REGISTER != 0 { self.fop() & !7 | 1 } else { self.fop() };
        X87Thunk::trusted(fop)
    }

    /// The eleven opcode bits.
    #[inline(always)]
    pub(crate) fn fop(self) -> u16 {
        self.0 as u16 & 0x7ff
    }

    /// Registers that it needs on the stack and that it leaves of them; `None` when only the whole state tells.
    #[inline(always)]
    pub(crate) fn depths(self) -> Option<(u8, u8)> {
        (self.0 & BRIEF != 0).then_some(((self.0 >> BEFORE & 3) as u8, (self.0 >> AFTER & 3) as u8))
    }

    /// Condition codes of FSW that it changes: C1, C1 and C2, all four, or none. The others, undefined by the manuals, keep
    /// their values (measured on Zen 4, November 2026).
    #[inline(always)]
    pub(crate) fn condition_codes(self) -> u16 {
        match (self.0 & CONDITION_CODES != 0, self.0 & C2 != 0) {
            (true, _) => 0x4700,
            (_, true) => 0x0600,
            _ if self.integer_flags() => 0,
            _ => 0x0200,
        }
    }

    /// Bytes of the memory operand, or 0.
    #[inline(always)]
    pub(crate) fn bytes(self) -> usize {
        (self.0 >> BYTES & 15) as usize
    }

    /// Whether the memory operand is written.
    pub(crate) fn stores(self) -> bool {
        self.0 & STORES != 0
    }

    /// Whether ZF, PF, CF are results.
    #[inline(always)]
    pub(crate) fn integer_flags(self) -> bool {
        self.0 & INTEGER_FLAGS != 0
    }

    /// The register beside ST(0) that a run with two registers takes.
    #[inline(always)]
    pub(crate) fn second(self) -> usize {
        if self.0 & NAMES_REGISTER != 0 { (self.0 & 7) as usize } else { 1 }
    }
}

/// `before` registers on the stack, `after` of them.
const fn depths(before: u32, after: u32) -> u32 {
    BRIEF | before << BEFORE | after << AFTER
}

fn memory(escape: u16, digit: u16) -> u32 {
    let load = |bytes: u32| bytes << BYTES;
    let store = |bytes: u32| STORES | bytes << BYTES;
    match (escape, digit) {
        // Arithmetic with m32fp, m32int, m64fp, m16int: digits 2 and 3 compare, 3 pops.
        (0 | 2 | 4 | 6, _) => {
            let bytes = [4, 4, 8, 2][escape as usize / 2];
            let codes = if digit & 6 == 2 { CONDITION_CODES } else { 0 };
            depths(1, u32::from(digit != 3)) | load(bytes) | codes
        }
        // FLD m32fp, FILD m32int, FLD m64fp, FILD m16int.
        (_, 0) => depths(0, 1) | load([4, 4, 8, 2][escape as usize / 2]),
        // FISTTP m32, m64, m16.
        (_, 1) => depths(1, 0) | store([4, 4, 8, 2][escape as usize / 2]),
        // FST or FIST, and FSTP or FISTP.
        (_, 2 | 3) => depths(1, 3 - u32::from(digit)) | store([4, 4, 8, 2][escape as usize / 2]),
        // FBLD, FILD m64int, FLD m80fp.
        (7, 4) => depths(0, 1) | load(10),
        (7, 5) => depths(0, 1) | load(8),
        (3, 5) => depths(0, 1) | load(10),
        // FBSTP, FISTP m64int, FSTP m80fp.
        (7, 7) => depths(1, 0) | store(8),
        _ => depths(1, 0) | store(10),
    }
}

fn register(escape: u16, modrm: u16) -> u32 {
    let digit = modrm >> 3 & 7;
    let comparison = NAMES_REGISTER | CONDITION_CODES;
    match (escape, modrm) {
        // Arithmetic on ST(0) and ST(i): digits 2 and 3 compare, 3 pops.
        (0, _) if digit == 2 => depths(2, 2) | comparison,
        (0, _) if digit == 3 => depths(2, 1) | comparison,
        (0, _) => depths(2, 2) | NAMES_REGISTER,
        (4, _) if digit & 6 != 2 => depths(2, 2) | NAMES_REGISTER,
        (6, 0xd9) => depths(2, 0) | CONDITION_CODES,
        (6, _) if digit & 6 != 2 => depths(2, 1) | NAMES_REGISTER,
        // FUCOM, FUCOMP, FUCOMPP.
        (5, _) if digit == 4 => depths(2, 2) | comparison,
        (5, _) if digit == 5 => depths(2, 1) | comparison,
        (2, 0xe9) => depths(2, 0) | CONDITION_CODES,
        // FUCOMI, FCOMI, and with pop.
        (3, _) if matches!(digit, 5 | 6) => depths(2, 2) | NAMES_REGISTER | INTEGER_FLAGS,
        (7, _) if matches!(digit, 5 | 6) => depths(2, 1) | NAMES_REGISTER | INTEGER_FLAGS,
        // FCHS, FABS, FTST, FXAM.
        (1, 0xe0 | 0xe1) => depths(1, 1),
        (1, 0xe4 | 0xe5) => depths(1, 1) | CONDITION_CODES,
        // Constants.
        (1, 0xe8..=0xee) => depths(0, 1),
        // F2XM1, FSQRT, FRNDINT; FSIN, FCOS.
        (1, 0xf0 | 0xfa | 0xfc) => depths(1, 1),
        (1, 0xfe | 0xff) => depths(1, 1) | C2,
        // FYL2X, FPATAN, FYL2XP1.
        (1, 0xf1 | 0xf3 | 0xf9) => depths(2, 1),
        // FXTRACT.
        (1, 0xf4) => depths(1, 2),
        // FSCALE.
        (1, 0xfd) => depths(2, 2),
        // Moves of registers, of TOP, of tags; aliases; FPTAN and FSINCOS, which push only when the operand is in range;
        // FCMOVcc, which reads flags; FPREM and FPREM1, whose condition codes depend on whether the operands are valid.
        _ => 0,
    }
}
