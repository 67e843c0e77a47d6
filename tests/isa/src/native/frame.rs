//! The kernel's signal frame as a case's registers: ucontext with the XSAVE area that it points to
//! (arch/x86/include/uapi/asm/sigcontext.h, SDM 1 13.4).
//!
//! Not responsible for: when a frame is made or used (`child`).

#![allow(unsafe_code)] // memory laid out by the kernel

use crate::arena;
use crate::case::{Mode, Registers};
use gemel_x86::flags::{AC, AF, CF, DF, FIXED, IF, OF, PF, RF, SF, TF, ZF};
use gemel_x86::segment::{CS, SS};
use std::arch::x86_64::__cpuid_count;

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
/// XCR0's opmask, upper halves of ZMM0 to ZMM15, ZMM16 to ZMM31.
const AVX512_BITS: [u64; 3] = [1 << 5, 1 << 6, 1 << 7];

/// Where AVX-512's components are in the XSAVE area: vendors differ.
#[derive(Clone, Copy)]
pub struct Places([usize; 3]);

impl Places {
    /// Those of this CPU (SDM 2A CPUID, leaf 0xd); `None` if it or the kernel lacks AVX-512.
    pub fn of_this_cpu() -> Option<Self> {
        let there = is_x86_feature_detected!("avx512f");
        there.then(|| Self([5, 6, 7].map(|component| __cpuid_count(0xd, component).ebx as usize)))
    }
}

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
    avx512: Option<Avx512<'a>>,
}

/// AVX-512's components: K0 to K7, the upper halves of ZMM0 to ZMM15, ZMM16 to ZMM31.
type Avx512<'a> = (&'a mut [u64; 8], &'a mut [[u64; 4]; 16], &'a mut [[u64; 8]; 16]);

impl<'a> Frame<'a> {
    /// The frame that the kernel passes to a handler.
    ///
    /// # Safety
    /// `context` is the third argument of the running SA_SIGINFO handler, and nothing else refers to the frame; `places` are this CPU's.
    pub unsafe fn new(context: *mut libc::ucontext_t, places: Option<Places>) -> Self {
        // SAFETY: the kernel made both; on a CPU with AVX the area has all of `Area`, and AVX-512's components lie behind it, each
        // apart, in multiples of 8 bytes.
        unsafe {
            let area: *mut u8 = (*context).uc_mcontext.fpregs.cast();
            let avx512 = places.map(|Places([opmask, upper, high])| {
                let (opmask, upper, high) = (area.add(opmask), area.add(upper), area.add(high));
                (&mut *opmask.cast(), &mut *upper.cast(), &mut *high.cast())
            });
            Self { area: &mut *area.cast(), context: &mut *context, avx512 }
        }
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
        if let Some((opmask, upper, high)) = &mut self.avx512
            && registers.uses_avx512()
        {
            **opmask = registers.opmask;
            for (n, (upper, high)) in upper.iter_mut().zip(high.iter_mut()).enumerate() {
                *upper = if n < usable { registers.zmm_upper[n] } else { [0; 4] };
                *high = if usable == 16 { registers.zmm_high[n] } else { [0; 8] };
            }
            area.components |= AVX512_BITS.iter().sum::<u64>();
        }
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
        (registers.opmask, registers.zmm_upper, registers.zmm_high) = ([0; 8], [[0; 4]; 16], [[0; 8]; 16]);
        if let Some((opmask, upper, high)) = &self.avx512 {
            let [has_opmask, has_upper, has_high] =
                AVX512_BITS.map(|component| area.components & component != 0);
            if has_opmask {
                registers.opmask = **opmask;
            }
            if has_upper {
                registers.zmm_upper[..usable].copy_from_slice(&upper[..usable]);
            }
            if has_high && usable == 16 {
                registers.zmm_high = **high;
            }
        }
    }

    fn get(&self, at: libc::c_int) -> u64 {
        self.context.uc_mcontext.gregs[at as usize] as u64
    }

    fn set(&mut self, at: libc::c_int, value: u64) {
        self.context.uc_mcontext.gregs[at as usize] = value as i64;
    }
}
