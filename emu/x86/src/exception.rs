//! Exception vectors and what is known of one fault (SDM 3A 6.3, 6.13).
//!
//! Not responsible for: delivery through the IDT (`emu/interp`).

/// Architectural exception vectors.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Vector {
    /// #DE divide error.
    Divide = 0,
    /// #DB debug.
    Debug = 1,
    /// NMI.
    Nmi = 2,
    /// #BP breakpoint.
    Breakpoint = 3,
    /// #OF overflow.
    Overflow = 4,
    /// #BR bound range.
    Bound = 5,
    /// #UD invalid opcode.
    InvalidOpcode = 6,
    /// #NM device not available.
    DeviceNotAvailable = 7,
    /// #DF double fault.
    DoubleFault = 8,
    /// #TS invalid TSS.
    InvalidTss = 10,
    /// #NP segment not present.
    NotPresent = 11,
    /// #SS stack fault.
    Stack = 12,
    /// #GP general protection.
    GeneralProtection = 13,
    /// #PF page fault.
    PageFault = 14,
    /// #MF x87 error.
    X87 = 16,
    /// #AC alignment check.
    Alignment = 17,
    /// #MC machine check.
    MachineCheck = 18,
    /// #XM SIMD error.
    Simd = 19,
}

impl Vector {
    /// Whether delivery pushes an error code.
    pub const fn has_error_code(self) -> bool {
        use Vector::*;
        matches!(
            self,
            DoubleFault | InvalidTss | NotPresent | Stack | GeneralProtection | PageFault | Alignment
        )
    }

    /// Whether the fault is "contributory" in the double-fault table (SDM 3A table 6-5).
    pub const fn is_contributory(self) -> bool {
        use Vector::*;
        matches!(self, Divide | InvalidTss | NotPresent | Stack | GeneralProtection)
    }
}

/// One exception on its way to the guest's handler.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Exception {
    /// Which.
    pub vector: Vector,
    /// Error code; meaningful when the vector has one.
    pub error: u32,
    /// The address for CR2; meaningful for [`Vector::PageFault`]. For [`Vector::Debug`]: the bits it sets in DR6.
    pub address: u64,
}

impl Exception {
    /// A fault without an error code (or with zero).
    pub const fn new(vector: Vector) -> Self {
        Self { vector, error: 0, address: 0 }
    }

    /// A fault with an error code.
    pub const fn with_error(vector: Vector, error: u32) -> Self {
        Self { vector, error, address: 0 }
    }

    /// #DB with the DR6 bits that say why.
    pub const fn debug(dr6: u64) -> Self {
        Self { vector: Vector::Debug, error: 0, address: dr6 }
    }

    /// A page fault at a linear address.
    pub const fn page(address: u64, error: u32) -> Self {
        Self { vector: Vector::PageFault, error, address }
    }
}
