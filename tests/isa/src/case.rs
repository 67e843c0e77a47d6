//! A case: one instruction with everything that it sees; and its outcome: everything that it left.
//!
//! Not responsible for: which cases there are, nor for running or comparing them.

/// How code is decoded, by the code segment's L and D bits (SDM 3A 3.4.5). All three are user mode under a 64-bit kernel;
/// the segments of each are [`crate::arena::segment`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
#[repr(u8)]
pub enum Mode {
    /// 64-bit code, flat segments.
    #[default]
    Long64,
    /// Compatibility mode with D = 1: 32-bit code, flat segments, 32-bit stack.
    Protected32,
    /// Compatibility mode with D = 0: 16-bit code and stack, segments of 64 KiB at [`crate::arena::BASE`].
    Protected16,
}

impl Mode {
    /// Every mode.
    pub const ALL: [Self; 3] = [Self::Long64, Self::Protected32, Self::Protected16];

    /// Width of addresses and code in bits, as a decoder wants it.
    pub const fn bits(self) -> u32 {
        match self {
            Self::Long64 => 64,
            Self::Protected32 => 32,
            Self::Protected16 => 16,
        }
    }
}

/// What user code has in registers. Outside [`Mode::Long64`] only the low half of the first eight general registers and
/// RIP, and ZMM0 to ZMM7, are there: the rest is zero before and after.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(C)]
pub struct Registers {
    /// RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8 to R15: the encoding's order. In [`Mode::Protected16`] RSP has 16 bits:
    /// a return to a 16-bit stack segment does not set the others.
    pub gpr: [u64; 16],
    /// Instruction pointer: an offset in CS, so linear only where CS is flat.
    pub rip: u64,
    /// Before: the status flags, DF, AC and RF are the case's; TF, IF and bit 1 are set whatever it says, since every case is
    /// single-stepped, and every other bit is zero. After: the image that the CPU pushes on leaving the instruction, so TF is
    /// set unless the instruction cleared it, and RF is set by faults and between the iterations of a repeated instruction.
    pub rflags: u64,
    /// x87 instruction pointer, as XSAVE64 writes and XRSTOR64 takes it. After: AMD's CPUs write it, the data pointer and the
    /// opcode as zero unless an x87 error is pending (FSW.ES; APM 2 11.4.4), though they have them: FNSTENV tells.
    pub fip: u64,
    /// x87 data pointer, likewise.
    pub fdp: u64,
    /// ST(0) to ST(7): the stack's order, not the registers'. 80 bits each, the others are zero.
    pub st: [u128; 8],
    /// YMM0 to YMM15 in quadwords, lowest first.
    pub ymm: [[u64; 4]; 16],
    /// The upper halves of ZMM0 to ZMM15. Like all of AVX-512's state they are zero where the host lacks it.
    pub zmm_upper: [[u64; 4]; 16],
    /// ZMM16 to ZMM31.
    pub zmm_high: [[u64; 8]; 16],
    /// K0 to K7.
    pub opmask: [u64; 8],
    /// SIMD control and status, 16 bits used.
    pub mxcsr: u32,
    /// x87 control word.
    pub fcw: u16,
    /// x87 status word, TOP included.
    pub fsw: u16,
    /// x87 last opcode, 11 bits.
    pub fop: u16,
    /// x87 tags in the short form: bit n is set when *register* n (not ST(n)) is in use.
    pub ftw: u8,
}

impl Default for Registers {
    /// Zero everywhere but for the control words, which mask every exception (SDM 1 8.1.5 and 10.2.3).
    fn default() -> Self {
        Self {
            gpr: [0; 16],
            rip: 0,
            rflags: 0x302,
            fip: 0,
            fdp: 0,
            st: [0; 8],
            ymm: [[0; 4]; 16],
            zmm_upper: [[0; 4]; 16],
            zmm_high: [[0; 8]; 16],
            opmask: [0; 8],
            mxcsr: 0x1f80,
            fcw: 0x37f,
            fsw: 0,
            fop: 0,
            ftw: 0,
        }
    }
}

impl Registers {
    /// Whether anything is in the state that AVX-512 adds.
    pub fn uses_avx512(&self) -> bool {
        self.zmm_upper != [[0; 4]; 16] || self.zmm_high != [[0; 8]; 16] || self.opmask != [0; 8]
    }

    /// Sets ZMM0 to ZMM31, by number.
    pub fn set_zmm(&mut self, number: usize, value: [u64; 8]) {
        let [a, b, c, d, e, f, g, h] = value;
        match number.checked_sub(16) {
            Some(high) => self.zmm_high[high] = value,
            None => (self.ymm[number], self.zmm_upper[number]) = ([a, b, c, d], [e, f, g, h]),
        }
    }
}

/// Bytes that a case finds in place of the arena's background.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(C)]
pub struct Patch {
    /// Linear address. The whole patch lies in mapped pages of data ([`crate::arena::holds_data`]).
    pub address: u32,
    /// How many of the bytes count; a patch of none is left out.
    pub length: u8,
    /// The bytes.
    pub bytes: [u8; 64],
}

impl Default for Patch {
    fn default() -> Self {
        Self { address: 0, length: 0, bytes: [0; 64] }
    }
}

/// One instruction and all that it sees.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(C)]
pub struct Case {
    /// How it is decoded.
    pub mode: Mode,
    /// How many bytes of code there are.
    pub length: u8,
    /// The code, which lies at `before.rip`, in the code page and on no other. What follows it in the page is INT3; code that
    /// ends with the page is followed by an unmapped one.
    pub code: [u8; 15],
    /// Registers before it.
    pub before: Registers,
    /// Memory before it: the arena's background but for these, applied in order.
    pub patches: [Patch; 4],
}

impl Case {
    /// The code's bytes.
    pub fn code(&self) -> &[u8] {
        &self.code[..usize::from(self.length).min(self.code.len())]
    }
}

/// An exception that the instruction raised.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Fault {
    /// Its vector. INT3 and INTO count: vectors 3 and 4 with RIP behind the instruction.
    pub vector: u8,
    /// Its error code; zero when the vector has none.
    pub error_code: u32,
    /// The linear address of a page fault; zero for any other vector.
    pub cr2: u64,
}

/// Memory that the instruction changed: one line of 64 bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(C)]
pub struct Line {
    /// Linear address, a multiple of 64.
    pub address: u32,
    /// What is there now.
    pub bytes: [u8; 64],
}

/// What one instruction left: it retired, or it raised an exception. A repeated string instruction ends after one iteration,
/// with RIP still at it if there are more, as single-stepping shows it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Outcome {
    /// Registers after it.
    pub after: Registers,
    /// The lines of memory that are not what they were, by ascending address, at most [`Outcome::MOST_CHANGES`].
    pub changes: Vec<Line>,
    /// The exception, if it raised one. The single step's own #DB is none.
    pub fault: Option<Fault>,
}

impl Outcome {
    /// How many changed lines are told: enough for XSAVE of x87, SSE and AVX state. More than that are left out.
    pub const MOST_CHANGES: usize = 16;
}
