//! x87, SSE, AVX and AVX-512 state in the form of XSAVE (SDM 1 13.4; offsets beyond AVX are the host's).
//!
//! Not responsible for: the requests. KVM_SET_FPU is not one of them: it leaves the components marked as unused.

use crate::error::KvmError;
use gemel_x86::CpuState;
use gemel_x86::control::{XCR0_AVX, XCR0_AVX512, XCR0_SSE, XCR0_X87};
use kvm_bindings::{CpuId, kvm_xsave};

const MXCSR: usize = 24;
const MXCSR_MASK: usize = 28;
const ST: usize = 32;
const XMM: usize = 160;
const XSTATE_BV: usize = 512;
const OPMASK: u64 = 1 << 5;
const ZMM_UPPER: u64 = 1 << 6;
const ZMM_HIGH: u64 = 1 << 7;

/// Where the host's XSAVE puts what lies behind its header, by component number.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Layout {
    offsets: [usize; 8],
    /// Components that this vCPU may have.
    components: u64,
}

struct Area([u8; 4096]);

impl Area {
    fn get<const N: usize>(&self, at: usize) -> [u8; N] {
        let mut out = [0; N];
        if let Some(bytes) = self.0.get(at..at + N) {
            out.copy_from_slice(bytes);
        }
        out
    }

    fn put(&mut self, at: usize, bytes: &[u8]) {
        if let Some(place) = self.0.get_mut(at..at + bytes.len()) {
            place.copy_from_slice(bytes);
        }
    }
}

impl Layout {
    /// From what KVM says of leaf 0xd; `components` are those of the CPU model.
    pub(crate) fn new(host: &CpuId, components: u64) -> Result<Self, KvmError> {
        let mut offsets = [0; 8];
        for entry in host.as_slice().iter().filter(|e| e.function == 0xd && e.index >= 2) {
            if let Some(offset) = offsets.get_mut(entry.index as usize) {
                *offset = entry.ebx as usize;
            }
        }
        let here = (2..8).filter(|n| offsets[*n] != 0).fold(XCR0_X87 | XCR0_SSE, |all, n| all | 1 << n);
        if components & !here != 0 {
            return Err(KvmError::State(format!(
                "the CPU model has XSAVE components {components:#x}, and the host {here:#x}: take a lower --cpu"
            )));
        }
        Ok(Self { offsets, components })
    }

    /// KVM's form.
    pub(crate) fn area(&self, s: &CpuState) -> kvm_xsave {
        let mut area = Area([0; 4096]);
        area.put(0, &s.fcw.to_le_bytes());
        area.put(2, &s.fsw.to_le_bytes());
        area.put(4, &[s.ftw]);
        area.put(6, &s.fop.to_le_bytes());
        area.put(8, &s.fip.to_le_bytes());
        area.put(16, &s.fdp.to_le_bytes());
        area.put(MXCSR, &s.mxcsr.to_le_bytes());
        area.put(MXCSR_MASK, &0xffffu32.to_le_bytes());
        let top = usize::from(s.fsw >> 11 & 7);
        for i in 0..8 {
            area.put(ST + 16 * i, &s.st[(top + i) & 7].to_le_bytes()[..10]);
        }
        for i in 0..16 {
            area.put(XMM + 16 * i, &s.xmm[i].to_le_bytes());
        }
        if self.components & XCR0_AVX != 0 {
            for i in 0..16 {
                area.put(self.offsets[2] + 16 * i, &s.ymm_upper[i].to_le_bytes());
            }
        }
        if self.components & XCR0_AVX512 == XCR0_AVX512 {
            for i in 0..8 {
                area.put(self.offsets[5] + 8 * i, &s.opmask[i].to_le_bytes());
            }
            for i in 0..16 {
                for (part, value) in s.zmm_upper[i].iter().enumerate() {
                    area.put(self.offsets[6] + 32 * i + 16 * part, &value.to_le_bytes());
                }
                for (part, value) in s.zmm_high[i].iter().enumerate() {
                    area.put(self.offsets[7] + 64 * i + 16 * part, &value.to_le_bytes());
                }
            }
        }
        area.put(XSTATE_BV, &self.components.to_le_bytes());
        let mut out = kvm_xsave::default();
        for (word, bytes) in out.region.iter_mut().zip(area.0.as_chunks().0) {
            *word = u32::from_le_bytes(*bytes);
        }
        out
    }

    /// Ours. A component that is not in use is in its initial state (SDM 1 13.6).
    pub(crate) fn save(&self, xsave: &kvm_xsave, s: &mut CpuState) {
        let mut area = Area([0; 4096]);
        for (bytes, word) in area.0.as_chunks_mut().0.iter_mut().zip(xsave.region) {
            *bytes = word.to_le_bytes();
        }
        let used = u64::from_le_bytes(area.get(XSTATE_BV));
        if used & XCR0_X87 != 0 {
            s.fcw = u16::from_le_bytes(area.get(0));
            s.fsw = u16::from_le_bytes(area.get(2));
            s.ftw = area.0[4];
            s.fop = u16::from_le_bytes(area.get(6));
            s.fip = u64::from_le_bytes(area.get(8));
            s.fdp = u64::from_le_bytes(area.get(16));
            let top = usize::from(s.fsw >> 11 & 7);
            for i in 0..8 {
                let mut value = [0; 16];
                value[..10].copy_from_slice(&area.get::<10>(ST + 16 * i));
                s.st[(top + i) & 7] = u128::from_le_bytes(value);
            }
        } else {
            (s.fcw, s.fsw, s.ftw, s.fop, s.fip, s.fdp, s.st) = (0x37f, 0, 0, 0, 0, 0, [0; 8]);
        }
        let vector = |used_bits: u64, at: usize| {
            if used & used_bits != 0 { u128::from_le_bytes(area.get(at)) } else { 0 }
        };
        // MXCSR is saved with SSE or AVX, whichever is in use.
        if used & (XCR0_SSE | XCR0_AVX) != 0 {
            s.mxcsr = u32::from_le_bytes(area.get(MXCSR));
        } else {
            s.mxcsr = 0x1f80;
        }
        for i in 0..16 {
            s.xmm[i] = vector(XCR0_SSE, XMM + 16 * i);
            if self.components & XCR0_AVX != 0 {
                s.ymm_upper[i] = vector(XCR0_AVX, self.offsets[2] + 16 * i);
            }
            if self.components & XCR0_AVX512 == XCR0_AVX512 {
                for (part, value) in s.zmm_upper[i].iter_mut().enumerate() {
                    *value = vector(ZMM_UPPER, self.offsets[6] + 32 * i + 16 * part);
                }
                for (part, value) in s.zmm_high[i].iter_mut().enumerate() {
                    *value = vector(ZMM_HIGH, self.offsets[7] + 64 * i + 16 * part);
                }
            }
        }
        if self.components & XCR0_AVX512 == XCR0_AVX512 {
            for (i, mask) in s.opmask.iter_mut().enumerate() {
                *mask = if used & OPMASK != 0 {
                    u64::from_le_bytes(area.get(self.offsets[5] + 8 * i))
                } else {
                    0
                };
            }
        }
    }
}

/// Whether two states hold the same.
pub(crate) fn same(a: &CpuState, b: &CpuState) -> bool {
    (a.fcw, a.fsw, a.ftw, a.fop, a.fip, a.fdp, a.mxcsr) == (b.fcw, b.fsw, b.ftw, b.fop, b.fip, b.fdp, b.mxcsr)
        && a.st == b.st
        && a.xmm == b.xmm
        && a.ymm_upper == b.ymm_upper
        && a.zmm_upper == b.zmm_upper
        && a.zmm_high == b.zmm_high
        && a.opmask == b.opmask
}
