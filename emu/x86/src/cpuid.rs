//! CPU models: what CPUID says, and by it what the interpreter offers (SDM 2A CPUID; APM 3 appendix E).
//!
//! Not responsible for: the instructions themselves. A feature that a model lacks raises #UD in `emu/interp`.

use crate::control::{CR4_OSXSAVE, XCR0_AVX, XCR0_AVX512, XCR0_SSE, XCR0_X87};
use crate::state::CpuState;
use bitflags::bitflags;

bitflags! {
    /// Features that differ between models or are offered on request.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub struct Feature: u64 {
        /// CMPXCHG16B.
        const CX16 = 1 << 0;
        /// SSE3.
        const SSE3 = 1 << 1;
        /// SSSE3.
        const SSSE3 = 1 << 2;
        /// SSE4.1.
        const SSE4_1 = 1 << 3;
        /// SSE4.2.
        const SSE4_2 = 1 << 4;
        /// POPCNT.
        const POPCNT = 1 << 5;
        /// TSC-deadline mode of the APIC timer.
        const TSC_DEADLINE = 1 << 6;
        /// x2APIC.
        const X2APIC = 1 << 7;
        /// XSAVE, XRSTOR, XGETBV, XSETBV (x87 and SSE components).
        const XSAVE = 1 << 8;
        /// Process-context identifiers.
        const PCID = 1 << 9;
        /// RDFSBASE and its kin.
        const FSGSBASE = 1 << 10;
        /// Supervisor-mode execution prevention.
        const SMEP = 1 << 11;
        /// Supervisor-mode access prevention.
        const SMAP = 1 << 12;
        /// User-mode instruction prevention.
        const UMIP = 1 << 13;
        /// RDTSCP.
        const RDTSCP = 1 << 14;
        /// 1 GiB pages.
        const PAGE_1G = 1 << 15;
        /// Enhanced REP MOVSB (a hint only).
        const ERMS = 1 << 16;
        /// TSC_ADJUST MSR.
        const TSC_ADJUST = 1 << 17;
        /// 64-bit mode, SYSCALL, NX.
        const LONG_MODE = 1 << 18;
        /// AVX: VEX encodings and the upper halves of the YMM registers (needs XSAVE).
        const AVX = 1 << 19;
        /// AVX2.
        const AVX2 = 1 << 20;
        /// Fused multiply-add with three operands.
        const FMA = 1 << 21;
        /// Conversion to and from half precision.
        const F16C = 1 << 22;
        /// First group of bit manipulation: ANDN, BEXTR, BLSI, BLSMSK, BLSR, TZCNT.
        const BMI1 = 1 << 23;
        /// Second group of bit manipulation: BZHI, MULX, PDEP, PEXT, RORX, SARX, SHLX, SHRX.
        const BMI2 = 1 << 24;
        /// LZCNT.
        const LZCNT = 1 << 25;
        /// MOVBE.
        const MOVBE = 1 << 26;
        /// AES rounds.
        const AES = 1 << 27;
        /// Carry-less multiplication.
        const PCLMULQDQ = 1 << 28;
        /// SHA-1 and SHA-256 rounds.
        const SHA = 1 << 29;
        /// RDRAND.
        const RDRAND = 1 << 30;
        /// RDSEED.
        const RDSEED = 1 << 31;
        /// AES rounds on 256 bits.
        const VAES = 1 << 32;
        /// Carry-less multiplication on 256 bits.
        const VPCLMULQDQ = 1 << 33;
        /// AVX-512 foundation: EVEX encodings, 32 registers of 512 bits, mask registers (needs AVX).
        const AVX512F = 1 << 34;
        /// AVX-512 conflict detection.
        const AVX512CD = 1 << 35;
        /// AVX-512 on bytes and words.
        const AVX512BW = 1 << 36;
        /// AVX-512 on doublewords and quadwords.
        const AVX512DQ = 1 << 37;
        /// AVX-512 on 128 and 256 bits.
        const AVX512VL = 1 << 38;
        /// The time-stamp counter. Without it there is no RDTSCP, TSC_ADJUST or TSC-deadline mode either.
        const TSC = 1 << 39;
    }
}

/// A CPU model: a name and what it offers. The same on every engine and host.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CpuModel {
    name: &'static str,
    features: Feature,
    vendor: [u8; 12],
    tsc_hz: u64,
}

/// Frequency of the TSC in every model: one tick a nanosecond of guest time, so that no clock of the machine
/// rounds against another.
pub const TSC_HZ: u64 = 1_000_000_000;

impl CpuModel {
    /// The default model: x86-64-v2 by the psABI levels, AuthenticAMD, without x2APIC, XSAVE, RDRAND.
    pub fn x86_64_v2() -> Self {
        use Feature as F;
        Self {
            name: "x86-64-v2",
            features: F::TSC
                | F::CX16
                | F::SSE3
                | F::SSSE3
                | F::SSE4_1
                | F::SSE4_2
                | F::POPCNT
                | F::TSC_DEADLINE
                | F::FSGSBASE
                | F::SMEP
                | F::SMAP
                | F::UMIP
                | F::RDTSCP
                | F::ERMS
                | F::TSC_ADJUST
                | F::PAGE_1G
                | F::LONG_MODE,
            vendor: *b"AuthenticAMD",
            tsc_hz: TSC_HZ,
        }
    }

    /// x86-64-v3 by the psABI levels, and AES, PCLMULQDQ, SHA, RDRAND, RDSEED, which every CPU of that level has but the
    /// oldest.
    pub fn x86_64_v3() -> Self {
        use Feature as F;
        let v2 = Self::x86_64_v2();
        let level = F::XSAVE | F::AVX | F::AVX2 | F::FMA | F::F16C | F::BMI1 | F::BMI2 | F::LZCNT | F::MOVBE;
        let extra = F::AES | F::PCLMULQDQ | F::SHA | F::RDRAND | F::RDSEED;
        Self { name: "x86-64-v3", features: v2.features | level | extra, ..v2 }
    }

    /// x86-64-v4 by the psABI levels: x86-64-v3 and AVX-512 F, CD, BW, DQ, VL.
    pub fn x86_64_v4() -> Self {
        use Feature as F;
        let v3 = Self::x86_64_v3();
        let level = F::AVX512F | F::AVX512CD | F::AVX512BW | F::AVX512DQ | F::AVX512VL;
        Self { name: "x86-64-v4", features: v3.features | level, ..v3 }
    }

    /// The model of a name, without changes.
    fn named(name: &str) -> Option<Self> {
        [Self::x86_64_v2(), Self::x86_64_v3(), Self::x86_64_v4()].into_iter().find(|model| model.name == name)
    }

    /// Reads `NAME[,+FEATURE|,-FEATURE]...`, as in `x86-64-v2,+pcid`.
    ///
    /// # Errors
    /// A sentence that names the unknown model or feature.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut parts = text.split(',');
        let name = parts.next().unwrap_or_default();
        let mut model = Self::named(name).ok_or_else(|| {
            format!("unknown CPU model '{name}': known are x86-64-v2, x86-64-v3 and x86-64-v4")
        })?;
        for part in parts {
            let (on, name) = match (part.strip_prefix('+'), part.strip_prefix('-')) {
                (Some(name), _) => (true, name),
                (_, Some(name)) => (false, name),
                _ => return Err(format!("CPU option '{part}' must start with + or -")),
            };
            let upper = name.to_ascii_uppercase().replace('-', "_");
            let feature =
                Feature::from_name(&upper).ok_or_else(|| format!("unknown CPU feature '{name}'"))?;
            model.features.set(feature, on);
        }
        if !model.has(Feature::TSC) {
            model.features -= Feature::RDTSCP | Feature::TSC_ADJUST | Feature::TSC_DEADLINE;
        }
        Ok(model)
    }

    /// The model's canonical text: what [`CpuModel::parse`] reads back to an equal model.
    pub fn text(&self) -> String {
        let base = Self::named(self.name).map_or(Feature::empty(), |model| model.features);
        let mut out = self.name.to_string();
        for (name, feature) in Feature::all().iter_names() {
            let name = name.to_ascii_lowercase();
            match (self.features.contains(feature), base.contains(feature)) {
                (true, false) => out += &format!(",+{name}"),
                (false, true) => out += &format!(",-{name}"),
                _ => {}
            }
        }
        out
    }

    /// Whether the model offers a feature.
    pub fn has(&self, feature: Feature) -> bool {
        self.features.contains(feature)
    }

    /// EAX, EBX, ECX, EDX of a CPUID leaf in a given state (OSXSAVE and the APIC bit follow the state).
    /// `apic_enabled` is bit 11 of APIC_BASE.
    pub fn cpuid(&self, leaf: u32, subleaf: u32, state: &CpuState, apic_enabled: bool) -> [u32; 4] {
        const MAX_BASIC: u32 = 0x16;
        const MAX_EXTENDED: u32 = 0x8000_0008;
        let word = |at: usize| {
            u32::from_le_bytes([
                self.vendor[at],
                self.vendor[at + 1],
                self.vendor[at + 2],
                self.vendor[at + 3],
            ])
        };
        match leaf {
            0 => [MAX_BASIC, word(0), word(8), word(4)],
            // Family 15 model 107 stepping 1, the generic AuthenticAMD identity that kernels treat without quirks.
            1 => [0x60fb1, 1 << 16 | 8 << 8, self.leaf_1_ecx(state), self.leaf_1_edx(apic_enabled)],
            7 if subleaf == 0 => [0, self.leaf_7_ebx(), self.leaf_7_ecx(), 0],
            0xd if self.has(Feature::XSAVE) => match subleaf {
                0 => {
                    let size = |components| match components {
                        c if c & XCR0_AVX512 != 0 => 0x980,
                        c if c & XCR0_AVX != 0 => 0x340,
                        _ => 0x240,
                    };
                    let offered = self.xcr0_mask();
                    [offered as u32, size(state.xcr0), size(offered), (offered >> 32) as u32]
                }
                // The upper halves of the YMM registers: 256 bytes behind the header.
                2 if self.has(Feature::AVX) => [0x100, 0x240, 0, 0],
                // Mask registers, upper halves of ZMM0 to ZMM15, ZMM16 to ZMM31: where AMD has them.
                5 if self.has(Feature::AVX512F) => [0x40, 0x340, 0, 0],
                6 if self.has(Feature::AVX512F) => [0x200, 0x380, 0, 0],
                7 if self.has(Feature::AVX512F) => [0x400, 0x580, 0, 0],
                _ => [0; 4],
            },
            // TSC = crystal (1 GHz) * 1 / 1.
            0x15 if self.has(Feature::TSC) => [1, 1, self.tsc_hz as u32, 0],
            0x16 => {
                let mhz = (self.tsc_hz / 1_000_000) as u32;
                [mhz, mhz, 100, 0]
            }
            0x8000_0000 => [MAX_EXTENDED, word(0), word(8), word(4)],
            0x8000_0001 => {
                let lm = self.bit(Feature::LONG_MODE, 29)
                    | self.bit(Feature::LONG_MODE, 11)
                    | self.bit(Feature::LONG_MODE, 20);
                let edx = (self.leaf_1_edx(apic_enabled) & 0x0183_f3ff)
                    | lm
                    | self.bit(Feature::PAGE_1G, 26)
                    | self.bit(Feature::RDTSCP, 27);
                // LAHF/SAHF in 64-bit mode, CR8 in legacy mode (AltMovCr8), advanced bit manipulation (LZCNT).
                [0x60fb1, 0, 1 | 1 << 4 | self.bit(Feature::LZCNT, 5), edx]
            }
            0x8000_0002..=0x8000_0004 => {
                let mut text = [0u8; 48];
                let brand = format!("Gemel virtual CPU ({})", self.name);
                text[..brand.len()].copy_from_slice(brand.as_bytes());
                let at = (leaf - 0x8000_0002) as usize * 16;
                std::array::from_fn(|i| {
                    u32::from_le_bytes([
                        text[at + 4 * i],
                        text[at + 4 * i + 1],
                        text[at + 4 * i + 2],
                        text[at + 4 * i + 3],
                    ])
                })
            }
            // Invariant TSC.
            0x8000_0007 => [0, 0, 0, self.bit(Feature::TSC, 8)],
            // 40 physical bits, 48 linear; x87 error pointers are saved and restored always.
            0x8000_0008 => [48 << 8 | 40, 1 << 2, 0, 0],
            _ => [0; 4],
        }
    }

    fn bit(&self, feature: Feature, bit: u32) -> u32 {
        u32::from(self.has(feature)) << bit
    }

    fn leaf_1_ecx(&self, state: &CpuState) -> u32 {
        use Feature as F;
        self.bit(F::SSE3, 0)
            | self.bit(F::PCLMULQDQ, 1)
            | self.bit(F::SSSE3, 9)
            | self.bit(F::FMA, 12)
            | self.bit(F::CX16, 13)
            | self.bit(F::PCID, 17)
            | self.bit(F::SSE4_1, 19)
            | self.bit(F::SSE4_2, 20)
            | self.bit(F::X2APIC, 21)
            | self.bit(F::MOVBE, 22)
            | self.bit(F::POPCNT, 23)
            | self.bit(F::TSC_DEADLINE, 24)
            | self.bit(F::AES, 25)
            | self.bit(F::XSAVE, 26)
            | u32::from(state.cr4 & CR4_OSXSAVE != 0) << 27
            | self.bit(F::AVX, 28)
            | self.bit(F::F16C, 29)
            | self.bit(F::RDRAND, 30)
            | 1 << 31 // a hypervisor is there: kernels then trust the TSC without a watchdog CPU
    }

    fn leaf_1_edx(&self, apic_enabled: bool) -> u32 {
        // FPU VME DE PSE MSR PAE MCE CX8 SEP MTRR PGE MCA CMOV PAT PSE36 CLFSH MMX FXSR SSE SSE2
        0x0783_f9ef & !(1 << 9) | self.bit(Feature::TSC, 4) | 1 << 12 | u32::from(apic_enabled) << 9
    }

    fn leaf_7_ebx(&self) -> u32 {
        use Feature as F;
        self.bit(F::FSGSBASE, 0)
            | self.bit(F::TSC_ADJUST, 1)
            | self.bit(F::BMI1, 3)
            | self.bit(F::AVX2, 5)
            | self.bit(F::SMEP, 7)
            | self.bit(F::BMI2, 8)
            | self.bit(F::ERMS, 9)
            | self.bit(F::AVX512F, 16)
            | self.bit(F::AVX512DQ, 17)
            | self.bit(F::RDSEED, 18)
            | self.bit(F::SMAP, 20)
            | self.bit(F::AVX512CD, 28)
            | self.bit(F::SHA, 29)
            | self.bit(F::AVX512BW, 30)
            | self.bit(F::AVX512VL, 31)
    }

    fn leaf_7_ecx(&self) -> u32 {
        self.bit(Feature::UMIP, 2) | self.bit(Feature::VAES, 9) | self.bit(Feature::VPCLMULQDQ, 10)
    }

    /// XCR0 bits that XSETBV may set on this model.
    pub fn xcr0_mask(&self) -> u64 {
        let avx = if self.has(Feature::AVX) { XCR0_AVX } else { 0 };
        let avx512 = if self.has(Feature::AVX512F) { XCR0_AVX512 } else { 0 };
        XCR0_X87 | XCR0_SSE | avx | avx512
    }

    /// CR4 bits that a MOV to CR4 may set on this model.
    pub fn cr4_mask(&self) -> u64 {
        use crate::control::*;
        let offered = [
            (Feature::UMIP, CR4_UMIP),
            (Feature::FSGSBASE, CR4_FSGSBASE),
            (Feature::PCID, CR4_PCIDE),
            (Feature::XSAVE, CR4_OSXSAVE),
            (Feature::SMEP, CR4_SMEP),
            (Feature::SMAP, CR4_SMAP),
            (Feature::TSC, CR4_TSD),
        ];
        offered.iter().filter(|(f, _)| self.has(*f)).fold(0x7fb, |mask, (_, bit)| mask | bit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_parse_agree() {
        let m = CpuModel::parse("x86-64-v2,+pcid,-smap").unwrap();
        assert!(m.has(Feature::PCID) && !m.has(Feature::SMAP));
        assert_eq!(CpuModel::parse(&m.text()), Ok(m));
        let m = CpuModel::parse("x86-64-v3,-rdrand,+vaes").unwrap();
        assert_eq!(m.text(), "x86-64-v3,-rdrand,+vaes");
        assert_eq!(CpuModel::parse(&m.text()), Ok(m));
        let m = CpuModel::parse("x86-64-v2,-tsc").unwrap();
        assert!(!m.has(Feature::TSC) && !m.has(Feature::RDTSCP) && !m.has(Feature::TSC_DEADLINE));
        assert_eq!(CpuModel::parse(&m.text()), Ok(m));
        assert!(CpuModel::parse("x86-64-v9").is_err() && CpuModel::parse("x86-64-v2,+warp").is_err());
    }

    #[test]
    fn leaf_one_offers_the_level_two_set() {
        let leaf = CpuModel::x86_64_v2().cpuid(1, 0, &CpuState::default(), true);
        for bit in [0, 9, 13, 19, 20, 23] {
            assert_ne!(leaf[2] & 1 << bit, 0, "ECX bit {bit}");
        }
        assert_eq!(leaf[2] & (1 << 3 | 1 << 21 | 1 << 26 | 1 << 30), 0, "no MONITOR, x2APIC, XSAVE, RDRAND");
    }

    #[test]
    fn levels_three_and_four_are_what_the_psabi_lists() {
        let (model, mut state) = (CpuModel::x86_64_v3(), CpuState::default());
        state.cr4 |= CR4_OSXSAVE;
        let leaf = |n, sub, state: &CpuState| model.cpuid(n, sub, state, true);
        // Level 3: FMA, MOVBE, OSXSAVE, AVX, F16C; AVX2, BMI1, BMI2; LZCNT (x86-64 psABI, table 3.1).
        for (word, bits) in [
            (leaf(1, 0, &state)[2], &[12, 22, 27, 28, 29][..]),
            (leaf(7, 0, &state)[1], &[3, 5, 8]),
            (leaf(0x8000_0001, 0, &state)[2], &[5]),
        ] {
            bits.iter().for_each(|bit| assert_ne!(word & 1 << bit, 0, "bit {bit} of {word:x}"));
        }
        assert_eq!(leaf(0xd, 0, &state), [7, 0x240, 0x340, 0]);
        state.xcr0 = 7;
        assert_eq!(leaf(0xd, 0, &state), [7, 0x340, 0x340, 0]);
        assert_eq!(leaf(0xd, 2, &state), [0x100, 0x240, 0, 0]);
        let v4 = CpuModel::x86_64_v4();
        let ebx = v4.cpuid(7, 0, &state, true)[1];
        [16, 17, 28, 30, 31].iter().for_each(|bit| assert_ne!(ebx & 1 << bit, 0, "EBX bit {bit}"));
        assert_eq!(v4.cpuid(0xd, 0, &state, true), [0xe7, 0x340, 0x980, 0]);
        assert_eq!(v4.cpuid(0xd, 7, &state, true), [0x400, 0x580, 0, 0]);
        assert_eq!(CpuModel::parse(&v4.text()), Ok(v4));
        let brand = leaf(0x8000_0003, 0, &state).map(u32::to_le_bytes).concat();
        assert_eq!(brand, b"U (x86-64-v3)\0\0\0");
    }
}
