//! What silicon does where the manuals leave flags or results undefined: one table, measured.
//!
//! Not responsible for: what the manuals define (the families' files), the condition codes of the x87 and whatever else the
//! host's own unit computes (`thunk`).
//!
//! A guest sees undefined flags (PUSHF, and every interrupt saves them), so two runs of one log depend on them. The handlers take
//! them from here when they are compiled, and keep no rule of their own; the interpreter's results therefore do not depend
//! on the host. [`TABLE`] lists all entries: [`Undefined::predict`] says what an entry expects in a [`Case`], to be compared
//! with a CPU.

use crate::cpu::Width;
use crate::flags::LazyFlags;
use gemel_x86::flags::{AF, CF, OF, PF, SF, STATUS, ZF};
use iced_x86::Mnemonic;
use std::arch::x86_64::__cpuid;

/// A CPU on which entries were measured, and when.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Silicon {
    /// What its maker calls it.
    pub name: &'static str,
    /// Family, as CPUID leaf 1 gives it, the extended family added.
    pub family: u32,
    /// Model, the extended model included.
    pub model: u32,
    /// Day of the measurement.
    pub date: &'static str,
}

impl Silicon {
    /// Whether the CPU under us is of this family and model (APM 3 appendix E.3.2).
    pub fn is_under_us(&self) -> bool {
        let (leaf0, eax) = (__cpuid(0), __cpuid(1).eax);
        let amd = [leaf0.ebx, leaf0.edx, leaf0.ecx].map(u32::to_le_bytes).concat() == b"AuthenticAMD";
        let family = (eax >> 8 & 15) + (eax >> 20 & 0xff);
        amd && family == self.family && (eax >> 4 & 15 | eax >> 12 & 0xf0) == self.model
    }
}

/// The CPU of all entries so far.
pub const ZEN_4: Silicon = Silicon { name: "AMD EPYC (Zen 4)", family: 25, model: 17, date: "2026-11-24" };

/// One execution of an instruction, as far as undefined results can depend on it. Values are zero-extended.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Case {
    /// Operand size in bits.
    pub width: u32,
    /// The destination before; AX for decimal arithmetic.
    pub a: u64,
    /// The second operand.
    pub b: u64,
    /// Masked count of a shift or rotate.
    pub count: u32,
    /// Status flags before.
    pub before: u64,
    /// The destination afterwards; AX for decimal arithmetic.
    pub result: u64,
    /// Status flags afterwards. Formulas look at CF and AF alone.
    pub after: u64,
}

impl Case {
    /// A case of which only the result counts.
    #[inline(always)]
    pub fn of<W: Width>(result: W) -> Self {
        Self { width: W::BITS, result: result.zext(), ..Self::default() }
    }

    /// Bit `n` of the result.
    #[inline(always)]
    fn result_bit(&self, n: u32) -> bool {
        self.result >> n & 1 != 0
    }

    /// The result's sign.
    #[inline(always)]
    fn sign(&self) -> bool {
        self.result_bit(self.width - 1)
    }

    /// CF afterwards.
    #[inline(always)]
    fn carry(&self) -> bool {
        self.after & CF != 0
    }
}

/// What is undefined.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Element {
    /// These status flags.
    Flags(u64),
    /// The destination operand.
    Destination,
}

/// What the silicon does.
#[derive(Clone, Copy, Debug)]
pub enum Rule {
    /// Zero.
    Cleared,
    /// All ones.
    Set,
    /// As before.
    Kept,
    /// SF, ZF and PF tell of the result, as they do elsewhere.
    OfResult,
    /// What the manuals define for other cases of the instruction holds here too; the function computes it.
    AsElsewhere(fn(&Case) -> u64),
    /// What the function computes.
    Formula(fn(&Case) -> u64),
}

/// An entry of the table.
#[derive(Clone, Copy, Debug)]
pub struct Undefined {
    /// The instructions.
    pub mnemonics: &'static [Mnemonic],
    /// When it is undefined, in words.
    pub when: &'static str,
    /// The same as a test.
    pub applies: fn(&Case) -> bool,
    /// What is.
    pub element: Element,
    /// What is found there.
    pub rule: Rule,
    /// Where that was measured.
    pub measured: Silicon,
}

impl Undefined {
    /// The undefined flags.
    pub const fn flags(&self) -> u64 {
        match self.element {
            Element::Flags(flags) => flags,
            Element::Destination => 0,
        }
    }

    /// What the silicon leaves: the values of [`Undefined::flags`], or the destination.
    #[inline(always)]
    pub fn predict(&self, case: &Case) -> u64 {
        let mask = match self.element {
            Element::Flags(flags) => flags,
            Element::Destination => u64::MAX >> (64 - case.width),
        };
        let value = match (self.rule, self.element) {
            (Rule::Cleared, _) => 0,
            (Rule::Set, _) => u64::MAX,
            (Rule::Kept, Element::Flags(_)) => case.before,
            (Rule::Kept, Element::Destination) => case.a,
            (Rule::OfResult, _) => flags_of_result(case),
            (Rule::AsElsewhere(f) | Rule::Formula(f), _) => f(case),
        };
        value & mask
    }

    /// For a handler, after it has set the defined flags of the result: sets the undefined ones.
    #[inline(always)]
    pub(super) fn settle(&self, flags: &mut LazyFlags, case: impl FnOnce() -> Case) {
        match self.rule {
            Rule::Kept => {}
            _ => flags.update(self.flags(), self.predict(&case())),
        }
    }

    /// The value of a flag that is always the same, for a handler that sets it with others at once. With another rule it does
    /// not compile.
    pub(super) const fn constant(&self) -> bool {
        match self.rule {
            Rule::Cleared => false,
            Rule::Set => true,
            _ => panic!("the handler takes a flag for constant that the table says is not"),
        }
    }

    /// For a handler that makes no difference between the undefined and the defined cases. With another rule it does not
    /// compile.
    pub(super) const fn as_elsewhere(&self) {
        assert!(matches!(self.rule, Rule::AsElsewhere(_)), "the handler sees no difference, the table does");
    }

    /// For a handler that leaves a flag or a destination alone. With another rule it does not compile.
    pub(super) const fn keeps(&self) {
        assert!(matches!(self.rule, Rule::Kept), "the handler leaves what the table says is changed");
    }

    /// For a handler that sets SF, ZF and PF by the result, also where they are undefined. With another rule it does not
    /// compile.
    pub(super) const fn tells_of_result(&self) {
        assert!(
            matches!(self.rule, Rule::OfResult),
            "the handler takes flags from the result, the table does not"
        );
    }
}

fn always(_: &Case) -> bool {
    true
}

fn counted(case: &Case) -> bool {
    case.count != 0
}

fn counted_not_one(case: &Case) -> bool {
    case.count > 1
}

fn counted_below_width(case: &Case) -> bool {
    case.count > 1 && case.count < case.width
}

fn as_wide(case: &Case) -> bool {
    case.count == case.width
}

fn beyond_width(case: &Case) -> bool {
    case.count > case.width
}

fn from_width_on(case: &Case) -> bool {
    case.count >= case.width
}

fn empty_source(case: &Case) -> bool {
    case.b == 0
}

fn sixteen_bits(case: &Case) -> bool {
    case.width == 16
}

const fn flag(flag: u64, set: bool) -> u64 {
    if set { flag } else { 0 }
}

fn parity(value: u64) -> u64 {
    flag(PF, (value as u8).count_ones() & 1 == 0)
}

#[inline(always)]
fn flags_of_result(case: &Case) -> u64 {
    flag(ZF, case.result == 0) | flag(SF, case.sign()) | parity(case.result)
}

/// OF as after a left shift or rotate by one: the carry differs from the sign.
#[inline(always)]
fn carry_is_not_sign(case: &Case) -> u64 {
    flag(OF, case.carry() != case.sign())
}

/// OF as after a right rotate by one: the top two bits differ.
#[inline(always)]
fn top_bits_differ(case: &Case) -> u64 {
    flag(OF, case.sign() != case.result_bit(case.width - 2))
}

/// OF of 16-bit SHLD by 16: as after a shift by one, were the sign clear.
#[inline(always)]
fn carry_alone(case: &Case) -> u64 {
    flag(OF, case.carry())
}

/// The last bit that SHL moved out; zeros follow the operand.
#[inline(always)]
fn last_out_left(case: &Case) -> u64 {
    flag(CF, case.count == case.width && case.a & 1 != 0)
}

/// The last bit that SHR moved out; zeros precede the operand.
#[inline(always)]
fn last_out_right(case: &Case) -> u64 {
    flag(CF, case.count == case.width && case.a >> (case.width - 1) & 1 != 0)
}

/// 16-bit SHLD by more than 16: the second operand comes in a second time.
#[inline(always)]
fn shld_again(case: &Case) -> u64 {
    (case.b << 16 | case.b) >> (32 - case.count)
}

/// 16-bit SHRD by more than 16: likewise.
#[inline(always)]
fn shrd_again(case: &Case) -> u64 {
    (case.b << 16 | case.b) >> (case.count - 16)
}

/// Flags of 16-bit SHRD by more than 16: OF as after a rotate, AF set, CF clear.
#[inline(always)]
fn shrd_again_flags(case: &Case) -> u64 {
    flags_of_result(case) | top_bits_differ(case) | AF
}

/// Flags of 16-bit SHLD by more than 16: AF set, CF and OF clear.
#[inline(always)]
fn shld_again_flags(case: &Case) -> u64 {
    flags_of_result(case) | AF
}

/// PF of a scan: of the number found, of zero if there is none.
#[inline(always)]
fn scan_parity(case: &Case) -> u64 {
    if case.b == 0 { PF } else { parity(case.result) }
}

/// Status flags of an addition.
fn flags_of_sum<W: Width>(a: u64, b: u64) -> u64 {
    let mut flags = LazyFlags::from_bits(0);
    flags.add(W::cut(a), W::cut(b), W::cut(a.wrapping_add(b)));
    flags.bits()
}

/// Status flags of a subtraction.
fn flags_of_difference<W: Width>(a: u64, b: u64) -> u64 {
    let mut flags = LazyFlags::from_bits(0);
    flags.sub(W::cut(a), W::cut(b), W::cut(a.wrapping_sub(b)));
    flags.bits()
}

/// DAA adds its correction at once.
fn daa_sum(case: &Case) -> u64 {
    flags_of_sum::<u8>(case.a, case.result.wrapping_sub(case.a))
}

/// DAS subtracts its correction at once.
fn das_difference(case: &Case) -> u64 {
    flags_of_difference::<u8>(case.a, case.a.wrapping_sub(case.result))
}

/// What AAA adds to AX, and AAS subtracts from it, before AL is cut to a digit.
fn ascii_correction(case: &Case) -> u64 {
    if case.after & AF != 0 { 0x106 } else { 0 }
}

fn aaa_sum(case: &Case) -> u64 {
    flags_of_sum::<u16>(case.a, ascii_correction(case))
}

fn aas_difference(case: &Case) -> u64 {
    flags_of_difference::<u16>(case.a, ascii_correction(case))
}

/// AAD adds AH times the base to AL.
fn aad_sum(case: &Case) -> u64 {
    flags_of_sum::<u8>(case.a & 0xff, (case.a >> 8).wrapping_mul(case.b))
}

macro_rules! undefined {
    ($($(#[$doc:meta])* $name:ident: $($mnemonic:ident)+, $when:literal $applies:ident, $element:expr => $rule:expr;)*) => {
        $($(#[$doc])* pub const $name: Undefined = Undefined {
            mnemonics: &[$(Mnemonic::$mnemonic),+],
            when: $when,
            applies: $applies,
            element: $element,
            rule: $rule,
            measured: ZEN_4,
        };)*

        /// All entries.
        pub static TABLE: &[Undefined] = &[$($name),*];
    };
}

use Element::{Destination, Flags};
use Rule::{AsElsewhere, Cleared, Formula, Kept, OfResult, Set};

undefined! {
    /// SDM 2A AND.
    LOGIC_AF: And Or Xor Test, "always" always, Flags(AF) => Cleared;
    /// SDM 2B MUL, 2A IMUL.
    PRODUCT: Mul Imul, "always" always, Flags(SF | ZF | AF | PF) => Kept;
    /// SDM 2A DIV, IDIV.
    QUOTIENT_OC: Div Idiv, "always" always, Flags(OF | CF) => Kept;
    /// The same.
    QUOTIENT_AF: Div Idiv, "always" always, Flags(AF) => Set;
    /// The same.
    QUOTIENT_SZP: Div Idiv, "always" always, Flags(SF | ZF | PF) => Cleared;
    /// SDM 2A DAA.
    DAA_OF: Daa, "always" always, Flags(OF) => Formula(daa_sum);
    /// SDM 2A DAS.
    DAS_OF: Das, "always" always, Flags(OF) => Formula(das_difference);
    /// SDM 2A AAA.
    AAA_OSZP: Aaa, "always" always, Flags(OF | SF | ZF | PF) => Formula(aaa_sum);
    /// SDM 2A AAS.
    AAS_OSZP: Aas, "always" always, Flags(OF | SF | ZF | PF) => Formula(aas_difference);
    /// SDM 2A AAM.
    AAM_OAC: Aam, "always" always, Flags(OF | AF | CF) => Cleared;
    /// SDM 2A AAD.
    AAD_OAC: Aad, "always" always, Flags(OF | AF | CF) => Formula(aad_sum);
    /// SDM 2B SAL/SAR/SHL/SHR.
    SHIFT_AF: Shl Sal Shr Sar, "count not 0" counted, Flags(AF) => Set;
    /// The same.
    SHL_OF: Shl Sal, "count beyond 1" counted_not_one, Flags(OF) => AsElsewhere(carry_is_not_sign);
    /// The same.
    SHL_CF: Shl Sal, "count not below the operand size" from_width_on, Flags(CF) => AsElsewhere(last_out_left);
    /// The same.
    SHR_OF: Shr, "count beyond 1" counted_not_one, Flags(OF) => Cleared;
    /// The same.
    SHR_CF: Shr, "count not below the operand size" from_width_on, Flags(CF) => AsElsewhere(last_out_right);
    /// The same.
    SAR_OF: Sar, "count beyond 1" counted_not_one, Flags(OF) => Cleared;
    /// SDM 2B RCL/RCR/ROL/ROR.
    ROTATE_LEFT_OF: Rol Rcl, "count beyond 1" counted_not_one, Flags(OF) => AsElsewhere(carry_is_not_sign);
    /// The same.
    ROTATE_RIGHT_OF: Ror Rcr, "count beyond 1" counted_not_one, Flags(OF) => AsElsewhere(top_bits_differ);
    /// SDM 2B SHLD, SHRD.
    DOUBLE_AF: Shld Shrd, "count not 0" counted, Flags(AF) => Set;
    /// SDM 2B SHLD.
    SHLD_OF: Shld, "count beyond 1, below the operand size" counted_below_width, Flags(OF) => AsElsewhere(carry_is_not_sign);
    /// The same; 16-bit operands.
    SHLD_OF_WHOLE: Shld, "count of the operand size" as_wide, Flags(OF) => Formula(carry_alone);
    /// SDM 2B SHRD.
    SHRD_OF: Shrd, "count beyond 1" counted_not_one, Flags(OF) => AsElsewhere(top_bits_differ);
    /// SDM 2B SHLD.
    SHLD_BEYOND: Shld, "count beyond the operand size" beyond_width, Destination => Formula(shld_again);
    /// SDM 2B SHRD.
    SHRD_BEYOND: Shrd, "count beyond the operand size" beyond_width, Destination => Formula(shrd_again);
    /// SDM 2B SHLD.
    SHLD_BEYOND_FLAGS: Shld, "count beyond the operand size" beyond_width, Flags(STATUS) => Formula(shld_again_flags);
    /// SDM 2B SHRD.
    SHRD_BEYOND_FLAGS: Shrd, "count beyond the operand size" beyond_width, Flags(STATUS) => Formula(shrd_again_flags);
    /// SDM 2A BT, BTS, BTR, BTC.
    BIT_TEST: Bt Bts Btr Btc, "always" always, Flags(OF | SF | AF | PF) => Kept;
    /// SDM 2A BSF, BSR.
    SCAN_OSAC: Bsf Bsr, "always" always, Flags(OF | SF | AF | CF) => Cleared;
    /// The same.
    SCAN_PF: Bsf Bsr, "always" always, Flags(PF) => Formula(scan_parity);
    /// The same; all 64 bits stay, also those of 32-bit forms (APM 3 BSF says so of the destination).
    SCAN_EMPTY: Bsf Bsr, "source 0" empty_source, Destination => Kept;
    /// SDM 2A BSWAP.
    BSWAP_16: Bswap, "16-bit operand" sixteen_bits, Destination => Cleared;
    /// SDM 2A ANDN, BLSI, BLSMSK, BLSR, BZHI.
    BIT_FIELD_AF: Andn Blsi Blsmsk Blsr Bzhi, "always" always, Flags(AF) => Cleared;
    /// The same.
    BIT_FIELD_PF: Andn Blsi Blsmsk Blsr Bzhi, "always" always, Flags(PF) => OfResult;
    /// SDM 2A BEXTR.
    BEXTR_AF: Bextr, "always" always, Flags(AF) => Set;
    /// The same.
    BEXTR_SF: Bextr, "always" always, Flags(SF) => Cleared;
    /// The same.
    BEXTR_PF: Bextr, "always" always, Flags(PF) => OfResult;
    /// SDM 2A LZCNT, 2B TZCNT.
    ZERO_COUNT_OF: Lzcnt Tzcnt, "always" always, Flags(OF) => Kept;
    /// The same.
    ZERO_COUNT_SAP: Lzcnt Tzcnt, "always" always, Flags(SF | AF | PF) => Cleared;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_index_and_the_table_agree_on_what_is_undefined() {
        for mnemonic in Mnemonic::values() {
            let Some(entry) = super::super::entry(mnemonic) else { continue };
            let here = TABLE.iter().filter(|u| u.mnemonics.contains(&mnemonic));
            let flags = here.fold(0, |flags, u| flags | u.flags());
            assert_eq!(entry.undefined, flags, "{mnemonic:?}");
            assert_eq!(entry.undefined & !entry.written, 0, "{mnemonic:?}");
        }
    }
}
