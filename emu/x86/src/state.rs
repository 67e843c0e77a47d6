//! The one table of CPU state. From it come the struct, its byte form (snapshots, digests), and the comparison
//! that names what differs.
//!
//! Not responsible for: engine caches (TLB, decoded blocks): those are never state.
//!
//! A new element is one line here; nothing else lists the registers.

use crate::control::{CR0_CD, CR0_ET, CR0_NW, DR6_FIXED, DR7_FIXED};
use crate::segment::{Segment, TableRegister};

/// How two values of an element are compared between engines.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Compare {
    /// Every bit, on every engine and host.
    Exact,
    /// Bits that one vendor's FPU leaves differently from another's (FOP, FIP, FDP: APM 2 11.4.4, SDM 1 8.1.8):
    /// exact between like CPUs, left out of a comparison between unlike ones.
    FpuVendor,
}

/// One element that differs between two states.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StateDifference {
    /// The element's name; arrays carry an index, as in `gpr[3]`.
    pub element: String,
    /// The left value in hexadecimal.
    pub left: String,
    /// The right value in hexadecimal.
    pub right: String,
}

/// Why bytes are no CPU state.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum StateError {
    /// The byte string has the wrong length for this version of the table.
    #[error("CPU state has {found} bytes where {wanted} were expected: it was written by another version")]
    Length {
        /// Bytes that the table needs.
        wanted: usize,
        /// Bytes that were there.
        found: usize,
    },
}

/// A type that can stand in the table. The byte form is little-endian and of fixed length.
trait Element: Sized + PartialEq {
    fn put(&self, out: &mut Vec<u8>);
    fn take(bytes: &mut &[u8]) -> Option<Self>;
    fn differences(&self, other: &Self, name: &str, out: &mut Vec<StateDifference>);
}

macro_rules! integer_element {
    ($($t:ty),*) => {$(
        impl Element for $t {
            fn put(&self, out: &mut Vec<u8>) {
                out.extend_from_slice(&self.to_le_bytes());
            }
            fn take(bytes: &mut &[u8]) -> Option<Self> {
                let (head, rest) = bytes.split_first_chunk()?;
                *bytes = rest;
                Some(Self::from_le_bytes(*head))
            }
            fn differences(&self, other: &Self, name: &str, out: &mut Vec<StateDifference>) {
                if self != other {
                    out.push(StateDifference { element: name.into(), left: format!("{self:#x}"), right: format!("{other:#x}") });
                }
            }
        }
    )*};
}
integer_element!(u8, u16, u32, u64, u128);

impl Element for bool {
    fn put(&self, out: &mut Vec<u8>) {
        out.push(u8::from(*self));
    }
    fn take(bytes: &mut &[u8]) -> Option<Self> {
        u8::take(bytes).map(|b| b != 0)
    }
    fn differences(&self, other: &Self, name: &str, out: &mut Vec<StateDifference>) {
        u8::from(*self).differences(&u8::from(*other), name, out);
    }
}

impl Element for Segment {
    fn put(&self, out: &mut Vec<u8>) {
        let Self { selector, attr, limit, base } = *self;
        selector.put(out);
        attr.put(out);
        limit.put(out);
        base.put(out);
    }
    fn take(b: &mut &[u8]) -> Option<Self> {
        Some(Self { selector: u16::take(b)?, attr: u16::take(b)?, limit: u32::take(b)?, base: u64::take(b)? })
    }
    fn differences(&self, other: &Self, name: &str, out: &mut Vec<StateDifference>) {
        self.selector.differences(&other.selector, &format!("{name}.selector"), out);
        self.attr.differences(&other.attr, &format!("{name}.attr"), out);
        self.limit.differences(&other.limit, &format!("{name}.limit"), out);
        self.base.differences(&other.base, &format!("{name}.base"), out);
    }
}

impl Element for TableRegister {
    fn put(&self, out: &mut Vec<u8>) {
        let Self { base, limit } = *self;
        base.put(out);
        limit.put(out);
    }
    fn take(b: &mut &[u8]) -> Option<Self> {
        Some(Self { base: u64::take(b)?, limit: u16::take(b)? })
    }
    fn differences(&self, other: &Self, name: &str, out: &mut Vec<StateDifference>) {
        self.base.differences(&other.base, &format!("{name}.base"), out);
        self.limit.differences(&other.limit, &format!("{name}.limit"), out);
    }
}

impl<T: Element, const N: usize> Element for [T; N] {
    fn put(&self, out: &mut Vec<u8>) {
        self.iter().for_each(|e| e.put(out));
    }
    fn take(b: &mut &[u8]) -> Option<Self> {
        let mut v = Vec::with_capacity(N);
        for _ in 0..N {
            v.push(T::take(b)?);
        }
        v.try_into().ok()
    }
    fn differences(&self, other: &Self, name: &str, out: &mut Vec<StateDifference>) {
        for (i, (a, b)) in self.iter().zip(other).enumerate() {
            a.differences(b, &format!("{name}[{i}]"), out);
        }
    }
}

macro_rules! cpu_state {
    ($($(#[$doc:meta])* $name:ident: $type:ty, $rule:ident, $reset:expr;)*) => {
        /// Everything that a vCPU is between two instructions.
        #[derive(Clone, PartialEq, Eq, Debug)]
        pub struct CpuState {
            $($(#[$doc])* pub $name: $type,)*
        }

        impl Default for CpuState {
            /// The state after RESET (SDM 3A table 9-1), before any loader has changed it.
            fn default() -> Self {
                Self { $($name: $reset,)* }
            }
        }

        impl CpuState {
            /// The byte form: every element in table order.
            pub fn to_bytes(&self) -> Vec<u8> {
                let mut out = Vec::with_capacity(4096);
                $(self.$name.put(&mut out);)*
                out
            }

            /// Reads the byte form back.
            ///
            /// # Errors
            /// [`StateError::Length`] unless the length is exactly the table's.
            pub fn from_bytes(bytes: &[u8]) -> Result<Self, StateError> {
                let error = || StateError::Length { wanted: Self::default().to_bytes().len(), found: bytes.len() };
                let mut rest = bytes;
                let state = Self { $($name: <$type as Element>::take(&mut rest).ok_or_else(error)?,)* };
                if rest.is_empty() { Ok(state) } else { Err(error()) }
            }

            /// Names every element that differs. `like_cpus` is whether both sides ran on the same FPU.
            pub fn differences(&self, other: &Self, like_cpus: bool) -> Vec<StateDifference> {
                let mut out = Vec::new();
                $(if like_cpus || Compare::$rule == Compare::Exact {
                    self.$name.differences(&other.$name, stringify!($name), &mut out);
                })*
                out
            }
        }
    };
}

cpu_state! {
    /// Position: retired instructions, REP iterations, and deliveries since power-on.
    count: u64, Exact, 0;
    /// RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8 to R15: the encoding's order.
    gpr: [u64; 16], Exact, { let mut g = [0; 16]; g[2] = 0x600; g };
    /// Instruction pointer.
    rip: u64, Exact, 0xfff0;
    /// RFLAGS, bit 1 set.
    rflags: u64, Exact, crate::flags::FIXED;
    /// ES, CS, SS, DS, FS, GS.
    seg: [Segment; 6], Exact, {
        let mut s = [Segment::real(0); 6];
        s[crate::segment::CS] = Segment { selector: 0xf000, attr: 0x9b, limit: 0xffff, base: 0xffff_0000 };
        s
    };
    /// Local descriptor table register.
    ldtr: Segment, Exact, Segment { selector: 0, attr: 0x82, limit: 0xffff, base: 0 };
    /// Task register.
    tr: Segment, Exact, Segment { selector: 0, attr: 0x8b, limit: 0xffff, base: 0 };
    /// Global descriptor table.
    gdtr: TableRegister, Exact, TableRegister { base: 0, limit: 0xffff };
    /// Interrupt descriptor table.
    idtr: TableRegister, Exact, TableRegister { base: 0, limit: 0xffff };
    /// Current privilege level, 0 to 3.
    cpl: u8, Exact, 0;
    /// CR0.
    cr0: u64, Exact, CR0_CD | CR0_NW | CR0_ET;
    /// CR2: the last page fault's address.
    cr2: u64, Exact, 0;
    /// CR3: page table base (and PCID).
    cr3: u64, Exact, 0;
    /// CR4.
    cr4: u64, Exact, 0;
    /// Page-directory-pointer registers of PAE paging, loaded with CR3.
    pdpte: [u64; 4], Exact, [0; 4];
    /// EFER.
    efer: u64, Exact, 0;
    /// XCR0.
    xcr0: u64, Exact, 1;
    /// DR0 to DR3.
    dr: [u64; 4], Exact, [0; 4];
    /// DR6.
    dr6: u64, Exact, DR6_FIXED;
    /// DR7.
    dr7: u64, Exact, DR7_FIXED;
    /// STAR, LSTAR, CSTAR, SFMASK.
    star: u64, Exact, 0;
    /// 64-bit SYSCALL entry.
    lstar: u64, Exact, 0;
    /// Compatibility-mode SYSCALL entry.
    cstar: u64, Exact, 0;
    /// Flags that SYSCALL clears.
    sfmask: u64, Exact, 0;
    /// What SWAPGS exchanges with GS.base.
    kernel_gs_base: u64, Exact, 0;
    /// SYSENTER code selector.
    sysenter_cs: u64, Exact, 0;
    /// SYSENTER stack.
    sysenter_esp: u64, Exact, 0;
    /// SYSENTER entry.
    sysenter_eip: u64, Exact, 0;
    /// What RDTSCP returns in ECX.
    tsc_aux: u64, Exact, 0;
    /// What is added to the machine's TSC (WRMSR to TSC or TSC_ADJUST).
    tsc_offset: u64, Exact, 0;
    /// Page attribute table; of no effect here but what it reads back.
    pat: u64, Exact, 0x0007_0406_0007_0406;
    /// MTRR default type.
    mtrr_def_type: u64, Exact, 0;
    /// Fixed MTRRs: 64K, two of 16K, eight of 4K.
    mtrr_fixed: [u64; 11], Exact, [0; 11];
    /// Variable MTRRs: base, mask, eight times.
    mtrr_variable: [u64; 16], Exact, [0; 16];
    /// DEBUGCTL.
    debug_ctl: u64, Exact, 0;
    /// Machine check status.
    mcg_status: u64, Exact, 0;
    /// x87 control word.
    fcw: u16, Exact, 0x0040;
    /// x87 status word, TOP included.
    fsw: u16, Exact, 0;
    /// x87 tags in FXSAVE's abridged form: bit i set when physical register i is not empty.
    ftw: u8, Exact, 0;
    /// Last x87 opcode, 11 bits.
    fop: u16, FpuVendor, 0;
    /// Last x87 instruction's offset.
    fip: u64, FpuVendor, 0;
    /// Last x87 instruction's selector (legacy modes).
    fcs: u16, FpuVendor, 0;
    /// Last x87 operand's offset.
    fdp: u64, FpuVendor, 0;
    /// Last x87 operand's selector (legacy modes).
    fds: u16, FpuVendor, 0;
    /// x87 registers by physical number, 80 bits each in the low bits.
    st: [u128; 8], Exact, [0; 8];
    /// XMM registers: the low halves of the YMM registers.
    xmm: [u128; 16], Exact, [0; 16];
    /// Upper halves of the YMM registers.
    ymm_upper: [u128; 16], Exact, [0; 16];
    /// Upper halves of ZMM0 to ZMM15, each in two parts.
    zmm_upper: [[u128; 2]; 16], Exact, [[0; 2]; 16];
    /// ZMM16 to ZMM31, each in four parts.
    zmm_high: [[u128; 4]; 16], Exact, [[0; 4]; 16];
    /// Mask registers K0 to K7.
    opmask: [u64; 8], Exact, [0; 8];
    /// SIMD control and status.
    mxcsr: u32, Exact, 0x1f80;
    /// Whether HLT waits for an interrupt.
    halted: bool, Exact, false;
    /// One-instruction shadow after STI or MOV SS: bit 0 holds off interrupts, bit 1 also holds off #DB.
    shadow: u8, Exact, 0;
    /// Whether an NMI handler runs, until IRET.
    nmi_blocked: bool, Exact, false;
    /// Debug traps (DR6 bits) that wait for the end of a MOV SS shadow.
    pending_debug: u64, Exact, 0;
}

impl CpuState {
    /// Version of the table; changes with every change to an element.
    pub const VERSION: u16 = 3;

    /// The linear address that RIP stands for.
    pub fn linear_rip(&self) -> u64 {
        let code = &self.seg[crate::segment::CS];
        if self.efer & crate::control::EFER_LMA != 0 && code.has(crate::segment::attr::L) {
            return self.rip;
        }
        code.base.wrapping_add(self.rip) & 0xffff_ffff
    }

    /// The digest of the byte form (xxh3, 64 bits). FpuVendor elements count as zero unless `like_cpus`.
    pub fn digest(&self, like_cpus: bool) -> u64 {
        if like_cpus {
            return xxhash_rust::xxh3::xxh3_64(&self.to_bytes());
        }
        let mut masked = self.clone();
        (masked.fop, masked.fip, masked.fcs, masked.fdp, masked.fds) = (0, 0, 0, 0, 0);
        xxhash_rust::xxh3::xxh3_64(&masked.to_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_come_back_and_other_lengths_are_refused() {
        let mut s = CpuState::default();
        s.gpr[3] = 0x1234;
        s.xmm[15] = u128::MAX;
        s.halted = true;
        let bytes = s.to_bytes();
        assert_eq!(CpuState::from_bytes(&bytes), Ok(s));
        assert!(CpuState::from_bytes(&bytes[1..]).is_err());
        assert!(CpuState::from_bytes(&[bytes.as_slice(), &[0]].concat()).is_err());
    }

    #[test]
    fn differences_are_named() {
        let a = CpuState::default();
        let mut b = a.clone();
        b.seg[2].base = 7;
        b.fip = 9;
        let names = |like| a.differences(&b, like).into_iter().map(|d| d.element).collect::<Vec<_>>();
        assert_eq!(names(true), ["seg[2].base", "fip"]);
        assert_eq!(names(false), ["seg[2].base"]);
        assert_ne!(a.digest(true), b.digest(true));
    }
}
