//! What an SIMD instruction raises when overflow or underflow is not masked (SDM 1 11.5.2.4, 11.5.2.5).
//!
//! Not responsible for: errors of the operands, which a masked run shows as they are (`simd`).
//!
//! Unmasked underflow is tininess, exact or not, and beside either error the precision flag speaks of the result as if its exponent had no
//! bounds. A masked run tells neither. So every element is computed again alone, and where it is tiny or too large once more on the x87 unit,
//! whose precision control rounds to the same number of bits with a wider exponent.

use crate::thunk::{self, MXCSR_FLAGS, Operand, Plan, SimdThunk};
use iced_x86::{Code, Mnemonic};

/// Overflow, as a flag of MXCSR.
pub const OE: u32 = 1 << 3;
/// Underflow.
pub const UE: u32 = 1 << 4;
/// Precision.
pub const PE: u32 = 1 << 5;
/// Invalid, denormal, zero divide: seen before anything is computed.
const PRE_COMPUTATION: u32 = 0b111;
/// Denormals are zeros.
const DAZ: u32 = 1 << 6;

/// One arithmetic step on elements.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Step {
    Sum,
    Difference,
    Product,
    Quotient,
    /// From double to single precision.
    Narrowing,
}

/// Bits of an element.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Size {
    /// 32.
    Single,
    /// 64.
    Double,
}

impl Size {
    /// Element `n` of a vector.
    pub fn element(self, vector: u128, n: u32) -> u64 {
        match self {
            Self::Single => u64::from((vector >> (32 * n)) as u32),
            Self::Double => (vector >> (64 * n)) as u64,
        }
    }

    /// The vector with another element `n`.
    pub fn with_element(self, vector: u128, n: u32, value: u64) -> u128 {
        let (bits, all) = match self {
            Self::Single => (32, u128::from(u32::MAX)),
            Self::Double => (64, u128::from(u64::MAX)),
        };
        vector & !(all << (bits * n)) | u128::from(value) << (bits * n)
    }

    /// Whether a number is denormal.
    pub fn is_tiny(self, value: u64) -> bool {
        let (exponent, mantissa) = match self {
            Self::Single => (value >> 23 & 0xff, value & 0x7f_ffff),
            Self::Double => (value >> 52 & 0x7ff, value & !(0xfff << 52)),
        };
        exponent == 0 && mantissa != 0
    }

    /// The value as DAZ leaves it.
    pub fn operand(self, value: u64, mxcsr: u32) -> u64 {
        if mxcsr & DAZ != 0 && self.is_tiny(value) { value & self.sign() } else { value }
    }

    /// The sign bit.
    pub fn sign(self) -> u64 {
        if self == Self::Single { 1 << 31 } else { 1 << 63 }
    }

    fn bits(self) -> u32 {
        if self == Self::Single { 32 } else { 64 }
    }

    /// Bits of the significand.
    pub fn precision(self) -> u32 {
        if self == Self::Single { 24 } else { 53 }
    }

    /// A finite number as an integer, the power of two that it counts, and whether it is negative.
    pub fn parts(self, value: u64) -> (u128, i32, bool) {
        let fraction_bits = self.precision() - 1;
        let magnitude = value & (self.sign() - 1);
        let (exponent, fraction) = (magnitude >> fraction_bits, magnitude & ((1 << fraction_bits) - 1));
        let hidden = u64::from(exponent != 0) << fraction_bits;
        let one = (1 << (self.bits() - fraction_bits - 2)) - 1 + fraction_bits as i32;
        (u128::from(fraction | hidden), exponent.max(1) as i32 - one, value & self.sign() != 0)
    }
}

/// The run that is reviewed: MXCSR without flags, and the errors that are not masked.
#[derive(Clone, Copy)]
pub struct Review {
    /// MXCSR with its flags clear.
    pub control: u32,
    /// Errors that are not masked, as flags.
    pub enabled: u32,
}

impl Review {
    /// What is raised of the flags of one step: an error that is not masked and seen before computation keeps those of the result from
    /// being seen.
    pub fn in_order(self, flags: u32) -> u32 {
        if flags & self.enabled & PRE_COMPUTATION != 0 { flags & PRE_COMPUTATION } else { flags }
    }

    /// The flags that an instruction raises on its operands, or `None` where a masked run shows them.
    #[cold]
    pub fn flags(self, code: u16, a: u128, b: u128, immediate: u8) -> Option<u32> {
        self.lane_flags(Code::try_from(code as usize).ok()?.mnemonic(), &[[a, b]], immediate)
    }

    /// The same for each 128 bits of wider operands.
    pub fn lane_flags(self, mnemonic: Mnemonic, lanes: &[[u128; 2]], immediate: u8) -> Option<u32> {
        use Mnemonic::*;
        use Size::{Double, Single};
        use Step::*;
        let dot_product = matches!(mnemonic, Dpps | Dppd | Vdpps | Vdppd);
        if self.enabled & (OE | UE) == 0 && !dot_product {
            return None;
        }
        let union = |lane: &dyn Fn(u128, u128) -> u32| lanes.iter().fold(0, |all, [a, b]| all | lane(*a, *b));
        let first = |step, size: Size, n: u32| {
            union(&|a, b| {
                (0..n).fold(0, |all, i| all | self.step(step, size, size.element(a, i), size.element(b, i)).0)
            })
        };
        let pairs = |step, size: Size, n: u32| {
            union(&|a, b| {
                [a, b].into_iter().flat_map(|v| (0..n).map(move |i| (v, 2 * i))).fold(0, |all, (v, i)| {
                    all | self.step(step, size, size.element(v, i), size.element(v, i + 1)).0
                })
            })
        };
        let alternating = |size: Size, n: u32| {
            union(&|a, b| {
                (0..n).fold(0, |all, i| {
                    let step = if i & 1 == 0 { Difference } else { Sum };
                    all | self.step(step, size, size.element(a, i), size.element(b, i)).0
                })
            })
        };
        let narrow = |n: u32| {
            union(&|_, b| {
                (0..n).fold(0, |all, i| all | self.step(Narrowing, Double, Double.element(b, i), 0).0)
            })
        };
        let raised = match mnemonic {
            Addss | Vaddss => first(Sum, Single, 1),
            Addps | Vaddps => first(Sum, Single, 4),
            Addsd | Vaddsd => first(Sum, Double, 1),
            Addpd | Vaddpd => first(Sum, Double, 2),
            Subss | Vsubss => first(Difference, Single, 1),
            Subps | Vsubps => first(Difference, Single, 4),
            Subsd | Vsubsd => first(Difference, Double, 1),
            Subpd | Vsubpd => first(Difference, Double, 2),
            Mulss | Vmulss => first(Product, Single, 1),
            Mulps | Vmulps => first(Product, Single, 4),
            Mulsd | Vmulsd => first(Product, Double, 1),
            Mulpd | Vmulpd => first(Product, Double, 2),
            Divss | Vdivss => first(Quotient, Single, 1),
            Divps | Vdivps => first(Quotient, Single, 4),
            Divsd | Vdivsd => first(Quotient, Double, 1),
            Divpd | Vdivpd => first(Quotient, Double, 2),
            Cvtsd2ss | Vcvtsd2ss => narrow(1),
            Cvtpd2ps | Vcvtpd2ps => narrow(2),
            Haddps | Vhaddps => pairs(Sum, Single, 2),
            Haddpd | Vhaddpd => pairs(Sum, Double, 1),
            Hsubps | Vhsubps => pairs(Difference, Single, 2),
            Hsubpd | Vhsubpd => pairs(Difference, Double, 1),
            Addsubps | Vaddsubps => alternating(Single, 4),
            Addsubpd | Vaddsubpd => alternating(Double, 2),
            Dpps | Vdpps => return Some(self.dot_product(Single, 4, lanes, immediate)),
            Dppd | Vdppd => return Some(self.dot_product(Double, 2, lanes, immediate)),
            _ => return None,
        };
        Some(self.in_order(raised))
    }

    /// DPPS and DPPD: products, then sums of pairs, then their sum. An error that is not masked ends it after its row
    /// (SDM 2A DPPS).
    fn dot_product(self, size: Size, n: u32, lanes: &[[u128; 2]], immediate: u8) -> u32 {
        let mut row: Vec<u64> = Vec::with_capacity(8);
        let mut all = 0;
        for ([a, b], i) in lanes.iter().flat_map(|lane| (0..n).map(move |i| (lane, i))) {
            let wanted = immediate & 0x10 << i != 0;
            let (flags, product) = if wanted {
                self.step(Step::Product, size, size.element(*a, i), size.element(*b, i))
            } else {
                (0, 0)
            };
            all |= flags;
            row.push(product);
        }
        all = self.in_order(all);
        while all & self.enabled == 0 && row.len() > lanes.len() {
            let mut sums = Vec::with_capacity(4);
            let mut raised = 0;
            for pair in row.chunks_exact(2) {
                let (flags, sum) = self.step(Step::Sum, size, pair[0], pair[1]);
                raised |= flags;
                sums.push(sum);
            }
            all |= self.in_order(raised);
            row = sums;
        }
        all
    }

    /// One element: what it raises, and its masked result.
    fn step(self, step: Step, size: Size, x: u64, y: u64) -> (u32, u64) {
        use Size::{Double, Single};
        let code = match (step, size) {
            (Step::Sum, Single) => Code::Addss_xmm_xmmm32,
            (Step::Sum, Double) => Code::Addsd_xmm_xmmm64,
            (Step::Difference, Single) => Code::Subss_xmm_xmmm32,
            (Step::Difference, Double) => Code::Subsd_xmm_xmmm64,
            (Step::Product, Single) => Code::Mulss_xmm_xmmm32,
            (Step::Product, Double) => Code::Mulsd_xmm_xmmm64,
            (Step::Quotient, Single) => Code::Divss_xmm_xmmm32,
            (Step::Quotient, Double) => Code::Divsd_xmm_xmmm64,
            (Step::Narrowing, _) => Code::Cvtsd2ss_xmm_xmmm64,
        };
        // All of them have thunks.
        let Some((_, thunk)) = SimdThunk::find(code, 0) else { return (0, 0) };
        let (to, source) = if step == Step::Narrowing { (Single, x) } else { (size, y) };
        let (result, after) = thunk::packed_float(thunk, x.into(), source.into(), self.control);
        let result = to.element(result, 0);
        let mut flags = after & MXCSR_FLAGS;
        if self.enabled & UE != 0 && to.is_tiny(result) {
            flags |= UE;
        }
        if flags & self.enabled & (OE | UE) != 0 {
            let x = size.operand(x, self.control);
            let y = size.operand(y, self.control);
            let inexact =
                inexact_without_bounds(step, size, to, x, y, self.control).unwrap_or(flags & PE != 0);
            flags = flags & !PE | if inexact { PE } else { 0 };
        }
        (self.in_order(flags), result)
    }
}

/// Whether the result needs rounding when its exponent can be anything.
fn inexact_without_bounds(step: Step, size: Size, to: Size, x: u64, y: u64, mxcsr: u32) -> Option<bool> {
    // Digits of FADD, FSUB, FMUL, FDIV with a memory operand; D8 takes single, DC double precision.
    let digit = match step {
        Step::Sum => 0,
        Step::Product | Step::Narrowing => 1,
        Step::Difference => 4,
        Step::Quotient => 6,
    };
    let (load, arithmetic, y) = match (size, step) {
        (Size::Single, _) => (0x100, 0, y),
        (Size::Double, Step::Narrowing) => (0x500, 0x400, 1f64.to_bits()),
        (Size::Double, _) => (0x500, 0x400, y),
    };
    let (load, arithmetic) = (Plan::of(load)?, Plan::of(arithmetic | digit << 3)?);
    let precision = if to == Size::Single { 0 } else { 2 << 8 };
    let rounding = (mxcsr >> 13 & 3) as u16;
    let words = (0x7f | precision | rounding << 10, 0);
    let mut st = [0; 8];
    let run = |plan: Plan, st: &mut _, value: u64| {
        thunk::brief(plan.thunk(), plan.depths()?, words, st, (0, 0), &mut Operand(value.into()))
    };
    run(load, &mut st, x)?;
    let (status, _) = run(arithmetic, &mut st, y)?;
    Some(u32::from(status) & PE != 0)
}
