#![allow(unsafe_code)] // executes guest arithmetic on the host's x87 unit
//! Thunks of the x87 unit, and the calls that run them.
//!
//! Not responsible for: control instructions, memory, pending errors (`isa::x87`).
//!
//! All encodings are there: 64 register forms and 8 memory forms for each of the escape bytes D8 to DF; a memory operand is where RDI
//! points. There are two ways to run one. [`whole`] loads the guest's entire x87 state and is always exact, stack faults and unmasked errors
//! included. [`brief`] loads only the operands and is ten times faster; it is for masked errors and operands that are there.

use std::arch::{asm, global_asm};

global_asm!(
    ".pushsection .text.gemel_x87_thunks,\"ax\",@progbits",
    ".balign 64",
    ".globl gemel_x87_thunks",
    ".hidden gemel_x87_thunks",
    "gemel_x87_thunks:",
    // Register forms: escape, ModRM C0 to FF, RET, NOP.
    ".irp escape,0xd8,0xd9,0xda,0xdb,0xdc,0xdd,0xde,0xdf",
    ".irp high,0xc0,0xc8,0xd0,0xd8,0xe0,0xe8,0xf0,0xf8",
    ".irp low,0,1,2,3,4,5,6,7",
    ".byte \\escape, \\high+\\low, 0xc3, 0x90",
    ".endr",
    ".endr",
    ".endr",
    // Memory forms: escape, ModRM of [rdi], RET, NOP.
    ".irp escape,0xd8,0xd9,0xda,0xdb,0xdc,0xdd,0xde,0xdf",
    ".irp digit,0,1,2,3,4,5,6,7",
    ".byte \\escape, \\digit*8+7, 0xc3, 0x90",
    ".endr",
    ".endr",
    ".popsection",
);

unsafe extern "C" {
    static gemel_x87_thunks: u8;
}

/// x87 control word of Rust code.
static HOST_FCW: u16 = 0x37f;
/// RFLAGS that FCMOVcc may read.
const STATUS: u64 = 0x8d5;

/// An x87 instruction by its eleven opcode bits (FOP): the escape byte's low three, then ModRM.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct X87Thunk(u16);

impl X87Thunk {
    /// The thunk of an arithmetic, load, store or stack instruction; `None` for encodings that control the unit
    /// and would leave the host's in another state, and for those that are none.
    pub(crate) fn find(fop: u16) -> Option<Self> {
        let (escape, modrm) = (fop >> 8 & 7, fop & 0xff);
        let digit = modrm >> 3 & 7;
        let refused = if modrm < 0xc0 {
            // FLDENV, FLDCW, FNSTENV, FNSTCW; FRSTOR, FNSAVE, FNSTSW; holes.
            matches!((escape, digit), (1, 1 | 4..=7) | (3, 4 | 6) | (5, 4..=7))
        } else {
            match (escape, modrm) {
                (1, 0xd1..=0xd7 | 0xe2 | 0xe3 | 0xe6 | 0xe7 | 0xef) => true,
                (2, 0xe0..=0xff) => modrm != 0xe9,
                (3, 0xe0..=0xe7 | 0xf8..=0xff) => true,
                (5, 0xf0..=0xff) => true,
                (6, 0xd8..=0xdf) => modrm != 0xd9,
                (7, 0xe0..=0xe7 | 0xf8..=0xff) => true,
                _ => false,
            }
        };
        (!refused).then_some(Self(fop & 0x7ff))
    }

    /// The thunk of opcode bits that [`X87Thunk::find`] has let pass.
    #[inline(always)]
    pub(super) fn trusted(fop: u16) -> Self {
        debug_assert!(Self::find(fop).is_some());
        Self(fop & 0x7ff)
    }

    #[inline(always)]
    fn address(self) -> usize {
        let (escape, modrm) = (usize::from(self.0 >> 8), usize::from(self.0 & 0xff));
        let index =
            if modrm >= 0xc0 { escape << 6 | modrm & 0x3f } else { 512 | escape << 3 | modrm >> 3 & 7 };
        &raw const gemel_x87_thunks as usize + index * 4
    }
}

/// A memory operand: at most ten bytes.
#[derive(Clone, Copy, Default)]
#[repr(C, align(16))]
pub(crate) struct Operand(pub u128);

/// FNSAVE's image in its 32-bit protected-mode form (SDM 1 figure 8-9).
#[derive(Clone, Copy, Default)]
#[repr(C, align(16))]
struct Image {
    control: u32,
    status: u32,
    tags: u32,
    pointers: [u32; 4],
    st: [[u8; 10]; 8],
}

/// The x87 state that an instruction sees.
pub(crate) struct State<'a> {
    /// Control word.
    pub fcw: u16,
    /// Status word, with TOP.
    pub fsw: u16,
    /// Bit i set: physical register i is not empty.
    pub ftw: u8,
    /// Registers by physical number.
    pub st: &'a mut [u128; 8],
}

/// Runs a thunk on the whole state, with RFLAGS and a memory operand; returns RFLAGS. No error may be pending; one may be afterwards.
pub(crate) fn whole(thunk: X87Thunk, state: &mut State<'_>, operand: &mut Operand, rflags: u64) -> u64 {
    let top = usize::from(state.fsw >> 11 & 7);
    let mut image = Image {
        control: u32::from(state.fcw),
        status: u32::from(state.fsw),
        tags: (0..8).filter(|i| state.ftw & 1 << i == 0).fold(0, |tags, i| tags | 3 << (2 * i)),
        ..Image::default()
    };
    for (i, slot) in image.st.iter_mut().enumerate() {
        slot.copy_from_slice(&state.st[(top + i) & 7].to_le_bytes()[..10]);
    }
    let mut flags = rflags & STATUS | 2;
    // SAFETY: the thunk returns and accesses only the operand's ten bytes; `find` let no control instruction pass. With no error pending in
    // the image the thunk does not trap; one that it leaves is cleared by FNSAVE, which also empties the stack and resets the control word.
    // POPFQ gets status flags only.
    unsafe {
        asm!(
            "frstor [{image}]",
            "push {flags}",
            "popfq",
            "call {thunk}",
            "pushfq",
            "pop {flags}",
            "fnsave [{image}]",
            image = in(reg) &raw mut image,
            thunk = in(reg) thunk.address(),
            flags = inout(reg) flags,
            in("rdi") &raw mut *operand,
            out("st(0)") _, out("st(1)") _, out("st(2)") _, out("st(3)") _,
            out("st(4)") _, out("st(5)") _, out("st(6)") _, out("st(7)") _,
        );
    }
    state.fsw = image.status as u16;
    state.ftw = (0..8).fold(0, |all, i| all | u8::from(image.tags >> (2 * i) & 3 != 3) << i);
    let top = usize::from(state.fsw >> 11 & 7);
    for (i, slot) in image.st.iter().enumerate() {
        let mut bytes = [0; 16];
        bytes[..10].copy_from_slice(slot);
        state.st[(top + i) & 7] = u128::from_le_bytes(bytes);
    }
    flags & STATUS
}

macro_rules! brief_run {
    ($thunk:ident, $fcw:ident, $first:ident, $second:ident, $operand:ident, [$($before:literal),*], [$($after:literal),*]) => {{
        let (status, flags): (usize, u16);
        // SAFETY: as in `whole`; loads and stores of 80 bits raise nothing, all errors are masked, and as many registers leave the
        // stack as came: it is empty before and after. The control word is put back.
        unsafe {
            asm!(
                "fldcw [{fcw}]",
                $($before,)*
                "call {thunk}",
                "fnstsw ax",
                "mov {thunk:e}, eax",
                "lahf",
                $($after,)*
                "fldcw [{host}]",
                thunk = inout(reg) $thunk.address() => status,
                fcw = in(reg) &raw const $fcw,
                host = in(reg) &raw const HOST_FCW,
                in("rsi") $first,
                in("rdx") $second,
                in("rdi") &raw mut *$operand,
                out("ax") flags,
                out("st(0)") _, out("st(1)") _, out("st(2)") _, out("st(3)") _,
                out("st(4)") _, out("st(5)") _, out("st(6)") _, out("st(7)") _,
            );
        }
        (status, flags)
    }};
}

/// Runs a thunk that finds `before` registers on the stack and leaves `after`, with all errors masked, straight on the guest's
/// registers: ST(0) comes from `first` and ST(1) from `second`, and the new ones go to the same places. A register that is pushed goes to
/// `first`, then ST(0) came from `second`; one that stays alone of two stays in `second`. `sticky` are the error flags that the guest's
/// status word has already.
///
/// Returns condition codes and error flags (`sticky` may be among them) in their places in FSW, and ZF, PF, CF; `None`
/// when no such instruction exists.
#[inline(always)]
pub(crate) fn brief(
    thunk: X87Thunk,
    depths: (u8, u8),
    (fcw, sticky): (u16, u16),
    st: &mut [u128; 8],
    (first, second): (usize, usize),
    operand: &mut Operand,
) -> Option<(u16, u64)> {
    let fcw = fcw | 0x3f;
    let status: u16;
    // SAFETY: reads and clears the host's error flags, which nobody else looks at. Flags that the guest has set too may stay: clearing
    // costs more than the instruction.
    unsafe {
        asm!("fnstsw ax", out("ax") status, options(nomem, nostack));
        if status & 0x3f & !sticky != 0 {
            asm!("fnclex", options(nomem, nostack));
        }
    }
    // Written and read in 80 bits only: a wider access would have to wait until the store has left the core.
    let (first, second) = (&raw mut st[first & 7], &raw mut st[second & 7]);
    let (status, flags) = match depths {
        (0, 1) => brief_run!(thunk, fcw, first, second, operand, [], ["fstp tbyte ptr [rsi]"]),
        (1, 0) => brief_run!(thunk, fcw, first, second, operand, ["fld tbyte ptr [rsi]"], []),
        (1, 1) => {
            brief_run!(thunk, fcw, first, second, operand, ["fld tbyte ptr [rsi]"], ["fstp tbyte ptr [rsi]"])
        }
        (1, 2) => brief_run!(
            thunk,
            fcw,
            first,
            second,
            operand,
            ["fld tbyte ptr [rdx]"],
            ["fstp tbyte ptr [rsi]", "fstp tbyte ptr [rdx]"]
        ),
        (2, 0) => {
            brief_run!(thunk, fcw, first, second, operand, ["fld tbyte ptr [rdx]", "fld tbyte ptr [rsi]"], [])
        }
        (2, 1) => brief_run!(
            thunk,
            fcw,
            first,
            second,
            operand,
            ["fld tbyte ptr [rdx]", "fld tbyte ptr [rsi]"],
            ["fstp tbyte ptr [rdx]"]
        ),
        (2, 2) => brief_run!(
            thunk,
            fcw,
            first,
            second,
            operand,
            ["fld tbyte ptr [rdx]", "fld tbyte ptr [rsi]"],
            ["fstp tbyte ptr [rsi]", "fstp tbyte ptr [rdx]"]
        ),
        _ => return None,
    };
    Some((status as u16, u64::from(flags >> 8) & 0x45))
}
