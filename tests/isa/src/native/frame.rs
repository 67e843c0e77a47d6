//! The kernel's signal frame as a case's registers: ucontext with the XSAVE area that it points to
//! (arch/x86/include/uapi/asm/sigcontext.h, SDM 1 13.4).
//!
//! Not responsible for: when a frame is made or used (`child`).

#![allow(unsafe_code)] // memory laid out by the kernel

use crate::arena;
use crate::case::{Mode, Registers};
use gemel_x86::flags::{AC, AF, CF, DF, FIXED, IF, OF, PF, RF, SF, TF, ZF};
use gemel_x86::segment::{CS, SS};

/// Where the encoding's general registers stand in the kernel's order.
const GENERAL: [libc::c_int; 16] = [
    libc::REG_RAX,
    libc::REG_RCX,
    libc::REG_RDX,
    libc::REG_RBX,
    libc::REG_RSP,
    libc::REG_RBP,
    libc::REG_RSI,
    libc::REG_RDI,
    libc::REG_R8,
    libc::REG_R9,
    libc::REG_R10,
    libc::REG_R11,
    libc::REG_R12,
    libc::REG_R13,
    libc::REG_R14,
    libc::REG_R15,
];

/// RFLAGS bits that a return from a signal sets (FIX_EFLAGS in arch/x86/kernel/signal_64.c), without TF.
const SETTABLE: u64 = CF | PF | AF | ZF | SF | OF | DF | AC | RF;
/// MXCSR bits that every CPU with SSE2 has: others make the return fail.
const MXCSR: u32 = 0xffff;
/// XCR0's x87, SSE and AVX.
const COMPONENTS: u64 = 7;
const AVX: u64 = 4;

/// The XSAVE area's standard form, as far as AVX.
#[repr(C)]
struct Area {
    fcw: u16,
    fsw: u16,
    ftw: u8,
    reserved: u8,
    fop: u16,
    fip: u64,
    fdp: u64,
    mxcsr: u32,
    mxcsr_mask: u32,
    st: [u128; 8],
    xmm: [[u64; 2]; 16],
    /// The kernel's own words among them say how long the area is.
    software: [u64; 12],
    components: u64,
    header: [u64; 7],
    high: [[u64; 2]; 16],
}

/// A signal frame.
pub struct Frame<'a> {
    context: &'a mut libc::ucontext_t,
    area: &'a mut Area,
}

impl<'a> Frame<'a> {
    /// The frame that the kernel passes to a handler.
    ///
    /// # Safety
    /// `context` is the third argument of the running SA_SIGINFO handler, and nothing else refers to the frame.
    pub unsafe fn new(context: *mut libc::ucontext_t) -> Self {
        // SAFETY: the kernel made both; on a CPU with AVX the area has all of `Area`.
        unsafe { Self { area: &mut *(*context).uc_mcontext.fpregs.cast(), context: &mut *context } }
    }

    /// The exception that made the signal: vector, error code, CR2.
    pub fn exception(&self) -> (u32, u32, u64) {
        let vector = self.get(libc::REG_TRAPNO) as u32;
        let cr2 = if vector == 14 { self.get(libc::REG_CR2) } else { 0 };
        (vector, self.get(libc::REG_ERR) as u32, cr2)
    }

    /// What returning from the signal will load.
    pub fn load(&mut self, mode: Mode, registers: &Registers) {
        let narrow = if mode == Mode::Long64 { u64::MAX } else { u32::MAX.into() };
        let usable = if mode == Mode::Long64 { 16 } else { 8 };
        for (n, at) in GENERAL.into_iter().enumerate() {
            self.set(at, if n < usable { registers.gpr[n] & narrow } else { 0 });
        }
        self.set(libc::REG_RIP, registers.rip & narrow);
        self.set(libc::REG_EFL, registers.rflags & SETTABLE | TF | IF | FIXED);
        // CS, GS, FS, SS, of which the kernel loads the first and the last.
        let selector = |register| u64::from(arena::segment(mode, register).selector);
        self.set(libc::REG_CSGSFS, selector(CS) | selector(SS) << 48);
        let area = &mut *self.area;
        (area.fcw, area.fsw, area.ftw, area.fop) =
            (registers.fcw, registers.fsw, registers.ftw, registers.fop);
        (area.fip, area.fdp, area.mxcsr) = (registers.fip, registers.fdp, registers.mxcsr & MXCSR);
        area.st = registers.st;
        for (n, value) in registers.ymm.iter().enumerate() {
            let value = if n < usable { *value } else { [0; 4] };
            area.xmm[n] = [value[0], value[1]];
            area.high[n] = [value[2], value[3]];
        }
        area.components = COMPONENTS;
    }

    /// What the signal found.
    pub fn store(&self, mode: Mode, registers: &mut Registers) {
        let narrow = if mode == Mode::Long64 { u64::MAX } else { u32::MAX.into() };
        let usable = if mode == Mode::Long64 { 16 } else { 8 };
        for (n, at) in GENERAL.into_iter().enumerate() {
            registers.gpr[n] = if n < usable { self.get(at) & narrow } else { 0 };
        }
        if mode == Mode::Protected16 {
            registers.gpr[4] &= 0xffff;
        }
        registers.rip = self.get(libc::REG_RIP) & narrow;
        registers.rflags = self.get(libc::REG_EFL);
        let area = &*self.area;
        (registers.fcw, registers.fsw, registers.ftw, registers.fop) =
            (area.fcw, area.fsw, area.ftw, area.fop);
        (registers.fip, registers.fdp, registers.mxcsr) = (area.fip, area.fdp, area.mxcsr);
        registers.st = area.st.map(|st| st & u128::MAX >> 48);
        // A component in its initial state may be marked instead of written (SDM 1 13.7).
        let high = area.components & AVX != 0;
        for (n, value) in registers.ymm.iter_mut().enumerate() {
            let ([a, b], [c, d]) = (area.xmm[n], if high { area.high[n] } else { [0; 2] });
            *value = if n < usable { [a, b, c, d] } else { [0; 4] };
        }
    }

    fn get(&self, at: libc::c_int) -> u64 {
        self.context.uc_mcontext.gregs[at as usize] as u64
    }

    fn set(&mut self, at: libc::c_int, value: u64) {
        self.context.uc_mcontext.gregs[at as usize] = value as i64;
    }
}
