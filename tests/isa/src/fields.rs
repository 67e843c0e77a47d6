//! Registers by number and by name: what texts, tables and comparisons run over.
//!
//! Not responsible for: what a register means (`case`).

use crate::case::Registers;

/// Names by number. Of a ZMM register the lower and the upper half (`h`) have one each; the lower of the first 16 are the YMM registers.
#[rustfmt::skip]
pub const NAMES: [&str; 105] = [
    "rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15",
    "rip", "rflags", "fcw", "fsw", "ftw", "fop", "fip", "fdp", "mxcsr",
    "st0", "st1", "st2", "st3", "st4", "st5", "st6", "st7",
    "ymm0", "ymm1", "ymm2", "ymm3", "ymm4", "ymm5", "ymm6", "ymm7",
    "ymm8", "ymm9", "ymm10", "ymm11", "ymm12", "ymm13", "ymm14", "ymm15",
    "zmm0h", "zmm1h", "zmm2h", "zmm3h", "zmm4h", "zmm5h", "zmm6h", "zmm7h",
    "zmm8h", "zmm9h", "zmm10h", "zmm11h", "zmm12h", "zmm13h", "zmm14h", "zmm15h",
    "zmm16", "zmm16h", "zmm17", "zmm17h", "zmm18", "zmm18h", "zmm19", "zmm19h",
    "zmm20", "zmm20h", "zmm21", "zmm21h", "zmm22", "zmm22h", "zmm23", "zmm23h",
    "zmm24", "zmm24h", "zmm25", "zmm25h", "zmm26", "zmm26h", "zmm27", "zmm27h",
    "zmm28", "zmm28h", "zmm29", "zmm29h", "zmm30", "zmm30h", "zmm31", "zmm31h",
    "k0", "k1", "k2", "k3", "k4", "k5", "k6", "k7",
];
/// Number of RIP.
pub const RIP: usize = 16;
/// Number of RFLAGS.
pub const RFLAGS: usize = 17;
/// Number of FCW; the x87 unit's fields are from here to [`YMM`], MXCSR among them.
pub const FCW: usize = 18;
/// Number of MXCSR.
pub const MXCSR: usize = 24;
/// Number of ST(0).
pub const ST: usize = 25;
/// Number of YMM0.
pub const YMM: usize = 33;
/// Number of the upper half of ZMM0. From here on is what AVX-512 adds.
pub const AVX512: usize = 49;
/// Number of the lower half of ZMM16; upper and lower halves alternate.
const ZMM: usize = 65;
/// Number of K0.
const OPMASK: usize = 97;

/// A register's value, as wide as the widest: quadwords, lowest first.
pub type Value = [u64; 4];

/// Reads register `n`, below the number of [`NAMES`].
pub fn get(r: &Registers, n: usize) -> Value {
    let low = match n {
        0..RIP => r.gpr[n],
        RIP => r.rip,
        RFLAGS => r.rflags,
        18 => r.fcw.into(),
        19 => r.fsw.into(),
        20 => r.ftw.into(),
        21 => r.fop.into(),
        22 => r.fip,
        23 => r.fdp,
        MXCSR => r.mxcsr.into(),
        ST..YMM => return [r.st[n - ST] as u64, (r.st[n - ST] >> 64) as u64, 0, 0],
        YMM..AVX512 => return r.ymm[n - YMM],
        AVX512..ZMM => return r.zmm_upper[n - AVX512],
        ZMM..OPMASK => {
            let half = 4 * ((n - ZMM) % 2);
            return std::array::from_fn(|k| r.zmm_high[(n - ZMM) / 2][half + k]);
        }
        _ => r.opmask[n - OPMASK],
    };
    [low, 0, 0, 0]
}

/// Sets register `n`; what is too wide for it is cut off.
pub fn set(r: &mut Registers, n: usize, value: Value) {
    let low = value[0];
    match n {
        0..RIP => r.gpr[n] = low,
        RIP => r.rip = low,
        RFLAGS => r.rflags = low,
        18 => r.fcw = low as u16,
        19 => r.fsw = low as u16,
        20 => r.ftw = low as u8,
        21 => r.fop = low as u16,
        22 => r.fip = low,
        23 => r.fdp = low,
        MXCSR => r.mxcsr = low as u32,
        ST..YMM => r.st[n - ST] = u128::from(value[1] & 0xffff) << 64 | u128::from(low),
        YMM..AVX512 => r.ymm[n - YMM] = value,
        AVX512..ZMM => r.zmm_upper[n - AVX512] = value,
        ZMM..OPMASK => r.zmm_high[(n - ZMM) / 2][4 * ((n - ZMM) % 2)..][..4].copy_from_slice(&value),
        _ => r.opmask[n - OPMASK] = low,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_set_is_read_back() {
        let mut r = Registers::default();
        for n in 0..NAMES.len() {
            set(&mut r, n, [n as u64 + 1, if (ST..OPMASK).contains(&n) { 7 } else { 0 }, 0, 0]);
        }
        for (n, name) in NAMES.iter().enumerate() {
            let second = if (ST..OPMASK).contains(&n) { 7 } else { 0 };
            assert_eq!(get(&r, n)[..2], [n as u64 + 1, second], "{name}");
        }
    }
}
