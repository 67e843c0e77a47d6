//! What a VEX instruction raises when overflow or underflow is not masked; `simd_unmasked` tells why that is looked at.
//!
//! Not responsible for: the steps that SSE has too (`simd_unmasked`).

use crate::isa::simd_unmasked::{OE, PE, Review, Size, UE};
use crate::thunk::{EvexRegs, MXCSR_FLAGS, VexThunk, evex, vex128_float};
use iced_x86::{Code, Mnemonic};

/// Bits of precision of a half-precision number.
const HALF_PRECISION: u32 = 11;

impl Review {
    /// The flags that an instruction raises on its operands, 128 bits of each at a time; `None` where a masked run shows them.
    #[cold]
    pub(super) fn vex_flags(self, code: u16, lanes: &[[u128; 3]], immediate: u8) -> Option<u32> {
        let mnemonic = Code::try_from(code as usize).ok()?.mnemonic();
        let bounded = self.enabled & (OE | UE) != 0;
        let name = format!("{mnemonic:?}");
        if let Some(fused) = Fused::of(&name) {
            return bounded.then(|| self.in_order(fused.flags(self, lanes)));
        }
        let all = |lane: &dyn Fn([u128; 3]) -> u32| lanes.iter().fold(0, |all, l| all | lane(*l));
        match mnemonic {
            Mnemonic::Vcvtps2ph => {
                let lane = |[_, source, _]: [u128; 3]| {
                    (0..4).fold(0, |all, i| all | self.to_half(Size::Single.element(source, i), immediate))
                };
                bounded.then(|| self.in_order(all(&lane)))
            }
            Mnemonic::Vscalefps | Mnemonic::Vscalefpd | Mnemonic::Vscalefss | Mnemonic::Vscalefsd => {
                let (size, count) = match name.as_bytes() {
                    [.., b'p', b's'] => (Size::Single, 4),
                    [.., b's', b's'] => (Size::Single, 1),
                    [.., b'p', b'd'] => (Size::Double, 2),
                    _ => (Size::Double, 1),
                };
                let lane = |[_, a, b]: [u128; 3]| {
                    (0..count)
                        .fold(0, |all, i| all | self.scale(size, size.element(a, i), size.element(b, i)))
                };
                bounded.then(|| self.in_order(all(&lane)))
            }
            // It has one source.
            Mnemonic::Vcvtpd2ps => {
                let lanes: Vec<_> = lanes.iter().map(|l| [l[0], l[1]]).collect();
                self.lane_flags(mnemonic, &lanes, immediate)
            }
            _ => {
                let lanes: Vec<_> = lanes.iter().map(|l| [l[1], l[2]]).collect();
                self.lane_flags(mnemonic, &lanes, immediate)
            }
        }
    }

    /// The same for operands of which only the elements count whose mask bit is set.
    #[cold]
    pub(in crate::isa) fn evex_flags(
        self,
        code: u16,
        lanes: &[[u128; 3]],
        mask: u64,
        immediate: u8,
    ) -> Option<u32> {
        let name = format!("{:?}", Code::try_from(code as usize).ok()?.mnemonic());
        let double =
            ["pd", "sd"].iter().any(|end| name.ends_with(end) || name[..name.len().min(6)].ends_with(end));
        // Where it does not count, one raises nothing.
        let (size, count, one) =
            if double { (Size::Double, 2, 1f64.to_bits()) } else { (Size::Single, 4, 1f32.to_bits().into()) };
        let mut chosen = lanes.to_vec();
        for (n, lane) in chosen.iter_mut().enumerate() {
            for i in (0..count).filter(|i| mask >> (n as u32 * count + i) & 1 == 0) {
                lane.iter_mut().for_each(|operand| *operand = size.with_element(*operand, i, one));
            }
        }
        self.vex_flags(code, &chosen, immediate)
    }

    /// One element of VCVTPS2PH.
    fn to_half(self, value: u64, immediate: u8) -> u32 {
        let Some(thunk) = VexThunk::find(Code::VEX_Vcvtps2ph_xmmm64_xmm_imm8, immediate) else { return 0 };
        let (result, after) = vex128_float(thunk, [0, value.into(), 0], self.control);
        let tiny = result & 0x7c00 == 0 && result & 0x3ff != 0;
        let inexact =
            || bits(Size::Single.parts(Size::Single.operand(value, self.control)).0) > HALF_PRECISION;
        self.settle(after & MXCSR_FLAGS, tiny, inexact)
    }

    /// One element of VSCALEFPS and its kin. With an exponent that had no bounds it would always be exact.
    fn scale(self, size: Size, x: u64, y: u64) -> u32 {
        let code = match size {
            Size::Single => Code::EVEX_Vscalefss_xmm_k1z_xmm_xmmm32_er,
            Size::Double => Code::EVEX_Vscalefsd_xmm_k1z_xmm_xmmm64_er,
        };
        let Some(thunk) = VexThunk::find(code, 0) else { return 0 };
        let vectors = [[0; 4], [x.into(), 0, 0, 0], [y.into(), 0, 0, 0]];
        let mut regs = EvexRegs { vectors, masks: [1, 0, 0, 0], mxcsr: self.control, ..EvexRegs::default() };
        evex(thunk, &mut regs);
        let tiny = size.is_tiny(size.element(regs.vectors[0][0], 0));
        self.settle(regs.mxcsr & MXCSR_FLAGS, tiny, || false)
    }

    /// The flags of an element from those of its masked run.
    fn settle(self, mut flags: u32, tiny: bool, inexact: impl Fn() -> bool) -> u32 {
        if self.enabled & UE != 0 && tiny {
            flags |= UE;
        }
        if flags & self.enabled & (OE | UE) != 0 {
            flags = flags & !PE | if inexact() { PE } else { 0 };
        }
        self.in_order(flags)
    }
}

/// Significant bits of a number: from its first one to its last.
fn bits(mantissa: u128) -> u32 {
    if mantissa == 0 { 0 } else { 128 - mantissa.leading_zeros() - mantissa.trailing_zeros() }
}

/// A fused multiply-add, taken apart.
#[derive(Clone, Copy)]
struct Fused {
    /// Operands of the product, then the addend.
    order: [usize; 3],
    /// Whether the product is negated.
    negative: bool,
    /// Whether the addend is subtracted from even and from odd elements.
    subtracts: [bool; 2],
    size: Size,
    /// Elements in 128 bits.
    count: u32,
}

impl Fused {
    /// By its name (SDM 2C VFMADD132PD: the digits say which operands are multiplied).
    fn of(name: &str) -> Option<Self> {
        let (rest, negative) = match name.strip_prefix("Vfn") {
            Some(rest) => (rest, true),
            None => (name.strip_prefix("Vf")?, false),
        };
        let (rest, kind) = rest.split_at_checked(rest.len().checked_sub(2)?)?;
        let (operation, digits) = rest.split_at_checked(rest.len().checked_sub(3)?)?;
        let subtracts = match operation {
            "madd" => [false, false],
            "msub" => [true, true],
            "maddsub" => [true, false],
            "msubadd" => [false, true],
            _ => return None,
        };
        let order = match digits {
            "132" => [0, 2, 1],
            "213" => [1, 0, 2],
            "231" => [1, 2, 0],
            _ => return None,
        };
        let (size, count) = match kind {
            "ps" => (Size::Single, 4),
            "ss" => (Size::Single, 1),
            "pd" => (Size::Double, 2),
            _ => (Size::Double, 1),
        };
        Some(Self { order, negative, subtracts, size, count })
    }

    fn flags(self, review: Review, lanes: &[[u128; 3]]) -> u32 {
        let mut all = 0;
        for lane in lanes {
            for i in 0..self.count {
                let [x, y, z] = self.order.map(|n| self.size.element(lane[n], i));
                let flip = |value: u64, negate: bool| if negate { value ^ self.size.sign() } else { value };
                let z = flip(z, self.subtracts[i as usize & 1]);
                all |= self.element(review, flip(x, self.negative), y, z);
            }
        }
        all
    }

    /// `x * y + z`.
    fn element(self, review: Review, x: u64, y: u64, z: u64) -> u32 {
        let code = match self.size {
            Size::Single => Code::VEX_Vfmadd213ss_xmm_xmm_xmmm32,
            Size::Double => Code::VEX_Vfmadd213sd_xmm_xmm_xmmm64,
        };
        let Some(thunk) = VexThunk::find(code, 0) else { return 0 };
        let (result, after) = vex128_float(thunk, [x.into(), y.into(), z.into()], review.control);
        let tiny = self.size.is_tiny(self.size.element(result, 0));
        let inexact = || {
            let [x, y, z] = [x, y, z].map(|v| self.size.parts(self.size.operand(v, review.control)));
            exact_bits((x.0 * y.0, x.1 + y.1, x.2 != y.2), z) > self.size.precision()
        };
        review.settle(after & MXCSR_FLAGS, tiny, inexact)
    }
}

/// Significant bits of the exact sum of two numbers, each an integer, the power of two that it counts, and its sign; any number beyond 64
/// stands for more than fit.
fn exact_bits(a: (u128, i32, bool), b: (u128, i32, bool)) -> u32 {
    let odd = |(mantissa, exponent, sign): (u128, i32, bool)| {
        let zeros = mantissa.trailing_zeros() & 127;
        (mantissa >> zeros, exponent + zeros as i32, sign)
    };
    let (a, b) = (odd(a), odd(b));
    if a.0 == 0 || b.0 == 0 {
        return bits(a.0 | b.0);
    }
    let (low, high) = if a.1 <= b.1 { (a, b) } else { (b, a) };
    let distance = (high.1 - low.1) as u32;
    // A product has at most 106 bits: a term that ends above them leaves a sum with as many.
    if distance + bits(high.0) > 120 {
        return u32::MAX;
    }
    let (low_term, high_term) = (low.0 as i128, (high.0 as i128) << distance);
    bits((if low.2 == high.2 { low_term + high_term } else { low_term - high_term }).unsigned_abs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_know_their_bits() {
        let number = |value: i64, exponent| (u128::from(value.unsigned_abs()), exponent, value < 0);
        assert_eq!(exact_bits(number(1, 0), number(1, 10)), 11);
        assert_eq!(exact_bits(number(-1, 0), number(1, 10)), 10);
        assert_eq!(exact_bits(number(5, 3), number(-10, 2)), 0);
        assert_eq!(exact_bits(number(1, 0), number(1, 500)), u32::MAX);
        assert_eq!(exact_bits(number(0, 0), number(12, 900)), 2);
    }

    #[test]
    fn names_tell_operands_and_signs() {
        let f = Fused::of("Vfnmsub231sd").unwrap();
        assert!(f.negative && f.subtracts == [true, true] && f.order == [1, 2, 0] && f.count == 1);
        assert!(Fused::of("Vfmaddsub132ps").unwrap().subtracts[0]);
        assert!(Fused::of("Vfmaddpd").is_none() && Fused::of("Vaddps").is_none());
    }
}
