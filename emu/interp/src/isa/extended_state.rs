//! The extended region of an XSAVE area: upper halves of YMM, mask registers, what ZMM has beyond them (SDM 1 13.4.3, 13.5.3, 13.5.5).
//!
//! Not responsible for: the legacy region, the header, the instructions (`state_management`).
//!
//! Outside 64-bit mode only the registers that can be named there are saved and restored.

use crate::cpu::Cpu;
use gemel_x86::control::XCR0_AVX;

/// A component: its bit in XCR0, and where the area has it (CPUID leaf 0xd; the AVX-512 ones lie where AMD has them).
#[derive(Clone, Copy)]
pub struct Component {
    /// Its bit.
    pub bit: u64,
    /// Offset in the standard form.
    pub offset: u64,
    bytes: u64,
    kind: Kind,
}

#[derive(Clone, Copy)]
enum Kind {
    YmmUpper,
    Masks,
    ZmmUpper,
    ZmmHigh,
}

/// All of them.
pub const COMPONENTS: [Component; 4] = [
    Component { bit: XCR0_AVX, offset: 576, bytes: 256, kind: Kind::YmmUpper },
    Component { bit: 1 << 5, offset: 832, bytes: 64, kind: Kind::Masks },
    Component { bit: 1 << 6, offset: 896, bytes: 512, kind: Kind::ZmmUpper },
    Component { bit: 1 << 7, offset: 1408, bytes: 1024, kind: Kind::ZmmHigh },
];

/// Bytes of an XSAVE area with these components.
pub fn area_bytes(components: u64) -> u64 {
    COMPONENTS.iter().filter(|c| components & c.bit != 0).map(|c| c.offset + c.bytes).fold(576, u64::max)
}

/// The components that are not in their initial state, zero.
pub fn in_use(c: &Cpu) -> u64 {
    let used = |component: &&Component| component.image(c).iter().any(|byte| *byte != 0);
    COMPONENTS.iter().filter(used).fold(0, |all, component| all | component.bit)
}

impl Component {
    /// What the area gets, from its offset on.
    pub fn image(self, c: &Cpu) -> Vec<u8> {
        let n = if c.is_64() { 16 } else { 8 };
        let flat = |parts: &mut dyn Iterator<Item = u128>| parts.flat_map(u128::to_le_bytes).collect();
        match self.kind {
            Kind::YmmUpper => flat(&mut c.s.ymm_upper[..n].iter().copied()),
            Kind::Masks => c.s.opmask.iter().flat_map(|mask| mask.to_le_bytes()).collect(),
            Kind::ZmmUpper => flat(&mut c.s.zmm_upper[..n].iter().flatten().copied()),
            Kind::ZmmHigh if n == 16 => flat(&mut c.s.zmm_high.iter().flatten().copied()),
            Kind::ZmmHigh => Vec::new(),
        }
    }

    /// Takes on what an image of as many bytes holds.
    pub fn take(self, c: &mut Cpu, image: &[u8]) {
        let mut parts = image.chunks_exact(16).map(|slot| {
            let mut bytes = [0; 16];
            bytes.copy_from_slice(slot);
            u128::from_le_bytes(bytes)
        });
        let mut fill = |registers: &mut dyn Iterator<Item = &mut u128>| {
            registers.zip(&mut parts).for_each(|(register, part)| *register = part);
        };
        match self.kind {
            Kind::YmmUpper => fill(&mut c.s.ymm_upper.iter_mut()),
            Kind::ZmmUpper => fill(&mut c.s.zmm_upper.iter_mut().flatten()),
            Kind::ZmmHigh => fill(&mut c.s.zmm_high.iter_mut().flatten()),
            Kind::Masks => {
                for (mask, slot) in c.s.opmask.iter_mut().zip(image.chunks_exact(8)) {
                    let mut bytes = [0; 8];
                    bytes.copy_from_slice(slot);
                    *mask = u64::from_le_bytes(bytes);
                }
            }
        }
    }
}
