//! The tables that a mode needs around a program: descriptors, gates, page tables, the CPU's registers.
//!
//! Not responsible for: running (`sandbox`).
//!
//! Everything lies below 64 KiB, so that real mode reaches it, and is mapped where it lies. Entry n of every gate table leads to a
//! HLT of its own, whose address tells the vector. Selectors are those of Linux: a hypervisor in software may run ring 3 on the
//! host's own descriptors.

use super::guests::Program;
use kvm_bindings::{kvm_dtable, kvm_regs, kvm_segment, kvm_sregs};
use serde::{Deserialize, Serialize};
use std::fmt;

/// Bytes of RAM. Behind it, and still in real mode's reach, is the one page that is not RAM.
pub const RAM: u64 = 0xf000;
/// An address that is not RAM.
pub const NOT_RAM: u64 = RAM;
/// Where programs start.
pub const CODE: u64 = 0xa000;
/// A page of data.
pub const DATA: u64 = 0xb000;
/// Another.
pub const OTHER_DATA: u64 = 0xc000;
/// One HLT for each vector, 16 bytes apart.
pub const HANDLERS: u64 = 0x3000;
/// The root of the page tables of long mode; the levels below follow, a page each.
pub const ROOT: u64 = 0x4000;
/// The last level of the page tables of long mode.
pub const LEAVES: u64 = ROOT + 0x3000;

const GDT: u64 = 0x1000;
const TSS: u64 = 0x1800;
const IDT: u64 = 0x2000;
const ROOT_32: u64 = 0x8000;
const LEAVES_32: u64 = 0x9000;
const KERNEL_STACK: u64 = 0xe000;
const USER_STACK: u64 = 0xf000;
const PAGE: u64 = 0x1000;

const CODE_32: u16 = 0x08;
const CODE_64: u16 = 0x10;
const KERNEL_DATA: u16 = 0x18;
const USER_DATA: u16 = 0x2b;
const USER_CODE: u16 = 0x33;
const TASK: u16 = 0x40;

/// Present, writable, user, accessed, dirty: nothing is left for a walk to set.
const MAPPED: u64 = 0x67;
/// IA32_EFER: SCE, LME, LMA, NXE.
const EFER: u64 = 1 | 1 << 8 | 1 << 10 | 1 << 11;
/// CR0: PE, MP, ET, NE.
const CR0: u64 = 1 | 1 << 1 | 1 << 4 | 1 << 5;
const CR0_PG: u64 = 1 << 31;
/// CR4: PAE, PCE, OSFXSR, OSXMMEXCPT.
const CR4: u64 = 1 << 5 | 1 << 8 | 1 << 9 | 1 << 10;
const CR4_PAE: u64 = 1 << 5;

/// How a program runs.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Real mode.
    Real,
    /// Protected mode, 32 bits, ring 0, no paging.
    Protected,
    /// The same with 32-bit paging.
    Paged,
    /// 64-bit mode, ring 0.
    LongRing0,
    /// 64-bit mode, ring 3.
    LongRing3,
}

impl Mode {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Real, Self::Protected, Self::Paged, Self::LongRing0, Self::LongRing3];

    /// Whether programs run at ring 3.
    pub const fn is_user(self) -> bool {
        matches!(self, Self::LongRing3)
    }

    /// Whether programs run in long mode.
    pub const fn is_long(self) -> bool {
        matches!(self, Self::LongRing0 | Self::LongRing3)
    }

    /// The program's bytes for this mode.
    pub const fn code(self, program: Program) -> &'static [u8] {
        match self {
            Self::Real => program.bits_16,
            Self::Protected | Self::Paged => program.bits_32,
            Self::LongRing0 | Self::LongRing3 => program.bits_64,
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Real => "real",
            Self::Protected => "32-bit",
            Self::Paged => "32-bit paged",
            Self::LongRing0 => "64-bit ring 0",
            Self::LongRing3 => "64-bit ring 3",
        })
    }
}

/// Writes the tables, eight bytes at a time.
pub fn lay_out(mode: Mode, mut write: impl FnMut(u64, u64)) {
    const DESCRIPTORS: [(u16, u64); 6] = [
        (CODE_32, 0x00cf_9b00_0000_ffff),
        (CODE_64, 0x00af_9b00_0000_ffff),
        (KERNEL_DATA, 0x00cf_9300_0000_ffff),
        (USER_DATA & !7, 0x00cf_f300_0000_ffff),
        (USER_CODE & !7, 0x00af_fb00_0000_ffff),
        (TASK, 0x0000_8b00_0000_0000 | (TSS & 0xff_ffff) << 16 | 0xff),
    ];
    for (selector, descriptor) in DESCRIPTORS {
        write(GDT + u64::from(selector), descriptor);
    }
    // RSP0 lies at 4 in a 64-bit TSS; I/O permissions follow at 0x68, all granted.
    write(TSS, KERNEL_STACK << 32);
    write(TSS + 0x60, 0x68 << 48);
    for vector in 0..256 {
        let handler = HANDLERS + 16 * vector;
        write(handler, 0xf4);
        match mode {
            Mode::Real if vector % 2 == 0 => write(4 * vector, handler | (handler + 16) << 32),
            Mode::Real => {}
            // Interrupt gates that ring 3 may call.
            Mode::Protected | Mode::Paged => {
                write(IDT + 8 * vector, handler | u64::from(CODE_32) << 16 | 0xee << 40);
            }
            Mode::LongRing0 | Mode::LongRing3 => {
                write(IDT + 16 * vector, handler | u64::from(CODE_64) << 16 | 0xee << 40);
            }
        }
    }
    for level in 0..3 {
        write(ROOT + level * PAGE, (ROOT + (level + 1) * PAGE) | MAPPED);
    }
    write(ROOT_32, LEAVES_32 | MAPPED);
    for page in 0..16 {
        let entry = |page: u64| (page * PAGE) | MAPPED;
        write(LEAVES + 8 * page, entry(page));
        if page % 2 == 0 {
            write(LEAVES_32 + 4 * page, entry(page) | entry(page + 1) << 32);
        }
    }
}

fn segment(selector: u16, kind: u8, mode: Mode) -> kvm_segment {
    let real = mode == Mode::Real;
    let long_code = kind == 11 && mode.is_long();
    kvm_segment {
        base: 0,
        limit: if real { 0xffff } else { 0xffff_ffff },
        selector,
        type_: kind,
        present: 1,
        dpl: (selector & 3) as u8,
        db: u8::from(!(real || long_code)),
        s: 1,
        l: u8::from(long_code),
        g: u8::from(!real),
        ..Default::default()
    }
}

/// The registers at a program's first instruction.
pub fn registers(mode: Mode, sregs: &mut kvm_sregs) -> kvm_regs {
    let (code, data) = match mode {
        Mode::Real => (0, 0),
        Mode::Protected | Mode::Paged => (CODE_32, KERNEL_DATA),
        Mode::LongRing0 => (CODE_64, KERNEL_DATA),
        Mode::LongRing3 => (USER_CODE, USER_DATA),
    };
    sregs.cs = segment(code, 11, mode);
    let data = segment(data, 3, mode);
    (sregs.ds, sregs.es, sregs.fs, sregs.gs, sregs.ss) = (data, data, data, data, data);
    sregs.tr =
        kvm_segment { base: TSS, limit: 0xff, selector: TASK, type_: 11, present: 1, ..Default::default() };
    sregs.gdt = kvm_dtable { base: GDT, limit: 0xff, ..Default::default() };
    sregs.idt = match mode {
        Mode::Real => kvm_dtable { base: 0, limit: 0x3ff, ..Default::default() },
        _ => kvm_dtable { base: IDT, limit: 0xfff, ..Default::default() },
    };
    (sregs.cr0, sregs.cr3, sregs.cr4, sregs.efer) = match mode {
        Mode::Real => (CR0 & !1, 0, CR4 & !CR4_PAE, 0),
        Mode::Protected => (CR0, 0, CR4 & !CR4_PAE, 0),
        Mode::Paged => (CR0 | CR0_PG, ROOT_32, CR4 & !CR4_PAE, 0),
        Mode::LongRing0 | Mode::LongRing3 => (CR0 | CR0_PG, ROOT, CR4, EFER),
    };
    kvm_regs {
        rip: CODE,
        rflags: 2,
        rsp: if mode.is_user() { USER_STACK } else { KERNEL_STACK },
        ..Default::default()
    }
}

/// What [`SYSCALL`](super::guests::syscall) reads: STAR and LSTAR. Its entry is the handler of a vector that nothing else raises.
pub const SYSCALL_ENTRY: [(u32, u64); 2] = [
    (0xc000_0081, (CODE_64 as u64) << 32 | 0x23 << 48),
    (0xc000_0082, HANDLERS + 16 * SYSCALL_VECTOR as u64),
];
/// The vector whose handler serves SYSCALL.
pub const SYSCALL_VECTOR: u8 = 0xf0;
