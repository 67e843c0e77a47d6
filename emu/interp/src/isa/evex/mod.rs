//! EVEX instructions and those on mask registers that run by thunk: AVX-512 F, CD, BW, DQ, VL (SDM 1 chapter 15).
//!
//! Not responsible for: what each of them computes (the host CPU knows), stores and moves (`memory`), gathers and scatters (`gather`).
//!
//! One handler serves every form: it puts all operands that a form can have where the thunk wants them. What it must know beside
//! registers a binder leaves in [`Detail`]. Of a memory operand only the elements are read whose mask bit is set (SDM 2A 2.7.2: fault
//! suppression of exception types E2 to E6), unless the form is of a type that knows none (E4NF and its like).

pub mod gather;
pub mod index;
pub mod memory;

use super::simd::under_mxcsr;
use crate::cpu::{Cpu, Width};
use crate::fault::R;
use crate::lower::{Form, Kind};
use crate::op::{HAS_MEMORY, Handler, Op};
use crate::thunk::{EvexRegs, MXCSR_MASKS, VexThunk, Zmm, evex};
use gemel_machine::CpuIo;
use gemel_x86::control::{CR0_PE, CR0_TS, CR4_OSXSAVE, XCR0_AVX, XCR0_AVX512, XCR0_SSE};
use gemel_x86::flags::{STATUS, VM};
use gemel_x86::{Exception, Vector};
use iced_x86::{Mnemonic, Register, RoundingControl};

/// Which bytes of a memory operand are read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reads {
    /// Elements whose mask bit is set.
    Elements = 0,
    /// All of them.
    Whole = 1,
    /// Those that a broadcast puts where a mask bit is set.
    Tuple = 2,
    /// As many elements from the first on as mask bits are set.
    Packed = 3,
}

/// What a binder tells the handler, as one number that fits [`Op::detail`].
#[derive(Clone, Copy)]
struct Detail(u32);

impl Detail {
    fn of(f: &Form<'_>, reads: Reads) -> Self {
        let i = f.instruction;
        let mask = if i.op_mask() == Register::None { 0 } else { i.op_mask().number() as u32 };
        let rounding = match i.rounding_control() {
            RoundingControl::None if i.suppress_all_exceptions() => 5,
            RoundingControl::None => 0,
            RoundingControl::RoundToNearest => 1,
            RoundingControl::RoundDown => 2,
            RoundingControl::RoundUp => 3,
            RoundingControl::RoundTowardZero => 4,
        };
        let place = |wanted| (0..4).find(|n| f.kind(*n) == wanted).unwrap_or(0);
        let (size, element) = (i.memory_size().size(), element_bytes(f));
        let broadcast = u32::from(i.is_broadcast());
        let mut unrepeated = *i;
        unrepeated.set_is_broadcast(false);
        let all = unrepeated.memory_size().size().max(1).ilog2();
        let longest = (0..i.op_count()).map(|n| match f.kind(n) {
            Kind::Zmm => 2,
            Kind::Ymm => 1,
            _ => all.saturating_sub(4),
        });
        // A general register that is a source: the last one.
        let general = (1..4).find(|n| f.kind(*n) == Kind::Reg).unwrap_or(0);
        Self(
            mask | rounding << 3
                | size.max(1).ilog2() << 6
                | element.max(1).ilog2() << 9
                | place(Kind::Mem) << 12
                | general << 14
                | (reads as u32) << 16
                | broadcast << 18
                | longest.max().unwrap_or(0) << 19
                | all << 21,
        )
    }

    #[inline(always)]
    fn at(op: &Op) -> Self {
        Self(op.detail)
    }

    fn mask(self, c: &Cpu) -> u64 {
        match self.0 & 7 {
            0 => u64::MAX,
            k => c.s.opmask[k as usize],
        }
    }

    fn is_masked(self) -> bool {
        self.0 & 7 != 0
    }

    /// Whether a store writes its operand at once. A compression goes by elements even without a mask.
    fn stores_all(self) -> bool {
        !self.is_masked() && self.reads() != Reads::Packed
    }

    /// MXCSR that embedded rounding or the suppression of exceptions puts in the guest's place (SDM 1 15.6.4).
    fn own_mxcsr(self, mxcsr: u32) -> Option<u32> {
        match self.0 >> 3 & 7 {
            0 => None,
            5 => Some(mxcsr | MXCSR_MASKS),
            rounding => Some(mxcsr & !(3 << 13) | (rounding - 1) << 13 | MXCSR_MASKS),
        }
    }

    /// As if the instruction suppressed all exceptions.
    fn without_exceptions(self) -> Self {
        Self(self.0 & !(7 << 3) | 5 << 3)
    }

    /// Bytes of the memory operand.
    fn size(self) -> usize {
        1 << (self.0 >> 6 & 7)
    }

    /// Bytes of an element that a mask bit stands for.
    fn element(self) -> usize {
        1 << (self.0 >> 9 & 7)
    }

    fn memory_place(self) -> usize {
        (self.0 >> 12 & 3) as usize
    }

    fn general_place(self) -> usize {
        (self.0 >> 14 & 3) as usize
    }

    fn reads(self) -> Reads {
        match self.0 >> 16 & 3 {
            0 => Reads::Elements,
            1 => Reads::Whole,
            2 => Reads::Tuple,
            _ => Reads::Packed,
        }
    }

    fn is_broadcast(self) -> bool {
        self.0 >> 18 & 1 != 0
    }

    /// Bytes of the memory operand with all that a broadcast repeats.
    fn repeated_size(self) -> usize {
        1 << (self.0 >> 21 & 7)
    }

    /// Bytes of the longest vector operand.
    fn vector(self) -> usize {
        16 << (self.0 >> 19 & 3)
    }
}

/// Bytes that a mask bit stands for in the memory operand.
fn element_bytes(f: &Form<'_>) -> usize {
    use Mnemonic::*;
    match f.mnemonic {
        // Their operands are quadwords of which half is used.
        Vpmuldq | Vpmuludq => 8,
        _ => f.instruction.memory_size().element_size(),
    }
}

fn bind_reading(f: &Form<'_>, reads: Reads) -> Option<()> {
    let i = f.instruction;
    let mut immediate = i.immediate8();
    // A memory source has no element to select (SDM 2A INSERTPS).
    if f.mnemonic == Mnemonic::Vinsertps && f.kind(2) == Kind::Mem {
        immediate &= 0x3f;
    }
    f.thunk.set(VexThunk::find_masked(f.code, immediate, i.zeroing_masking())?.number());
    f.detail.set(Detail::of(f, reads).0);
    Some(())
}

fn reading(f: &Form<'_>, reads: Reads, float: bool) -> Option<Handler> {
    bind_reading(f, reads)?;
    Some(match (f.kind(0), float) {
        (Kind::Mask, false) => run::<MASK, false>,
        (Kind::Mask, true) => run::<MASK, true>,
        (Kind::Reg, false) => run::<GENERAL, false>,
        (Kind::Reg, true) => run::<GENERAL, true>,
        (_, false) => run::<VECTOR, false>,
        (_, true) => run::<VECTOR, true>,
    })
}

/// Integers or bits.
pub fn integer(f: &Form<'_>) -> Option<Handler> {
    reading(f, Reads::Elements, false)
}

/// What MXCSR takes part in.
pub fn float(f: &Form<'_>) -> Option<Handler> {
    reading(f, Reads::Elements, true)
}

/// VRCP14PS, VRSQRT14PS and their kin: no exception, and MXCSR's FTZ counts although underflow is not masked.
pub fn approximate(f: &Form<'_>) -> Option<Handler> {
    let handler = float(f)?;
    f.detail.set(Detail::of(f, Reads::Elements).without_exceptions().0);
    Some(handler)
}

/// Integers or bits, without fault suppression.
pub fn whole(f: &Form<'_>) -> Option<Handler> {
    reading(f, Reads::Whole, false)
}

/// Shifts: a count in memory is read whole, numbers by element.
pub fn shift(f: &Form<'_>) -> Option<Handler> {
    if f.kind(2) == Kind::Mem { whole(f) } else { integer(f) }
}

/// One element or tuple for all.
pub fn broadcast(f: &Form<'_>) -> Option<Handler> {
    if f.kind(1) == Kind::Mem && VexThunk::find(f.code, 0).is_none() {
        return memory::broadcast_tuple(f);
    }
    reading(f, Reads::Tuple, false)
}

/// VEXPANDPS, VEXPANDPD, VPEXPANDD, VPEXPANDQ.
pub fn expand(f: &Form<'_>) -> Option<Handler> {
    reading(f, Reads::Packed, false)
}

/// VCOMISS and its kin.
pub fn compare(f: &Form<'_>) -> Option<Handler> {
    bind_reading(f, Reads::Whole)?;
    Some(run::<FLAGS, true>)
}

/// KORTEST, KTEST.
pub fn test_masks(f: &Form<'_>) -> Option<Handler> {
    bind_reading(f, Reads::Whole)?;
    Some(run::<FLAGS, false>)
}

/// Kinds of the first operand.
const VECTOR: u8 = 0;
const MASK: u8 = 1;
const GENERAL: u8 = 2;
const FLAGS: u8 = 3;

/// Raises what stands before any EVEX instruction (SDM 2A 2.8).
fn ready(c: &mut Cpu) -> R {
    const COMPONENTS: u64 = XCR0_SSE | XCR0_AVX | XCR0_AVX512;
    let s = &c.s;
    let missing = !s.cr4 & CR4_OSXSAVE | !s.xcr0 & COMPONENTS | c.system_flags & VM | !s.cr0 & CR0_PE;
    if missing != 0 {
        return c.undefined();
    }
    if s.cr0 & CR0_TS != 0 {
        return c.fail(Exception::new(Vector::DeviceNotAvailable));
    }
    Ok(())
}

/// A vector register.
fn zmm(c: &Cpu, r: u8) -> Zmm {
    let n = usize::from(r & 15);
    if r & 16 != 0 {
        return c.s.zmm_high[n];
    }
    let [upper, top] = c.s.zmm_upper[n];
    [c.s.xmm[n], c.s.ymm_upper[n], upper, top]
}

/// Sets a vector register, all of it.
fn set_zmm(c: &mut Cpu, r: u8, value: Zmm) {
    let n = usize::from(r & 15);
    if r & 16 != 0 {
        c.s.zmm_high[n] = value;
    } else {
        let [low, high, upper, top] = value;
        (c.s.xmm[n], c.s.ymm_upper[n], c.s.zmm_upper[n]) = (low, high, [upper, top]);
    }
}

/// The registers that a thunk sees, memory aside.
fn operands(c: &Cpu, op: &Op, detail: Detail) -> EvexRegs {
    let mask = |n: usize| c.s.opmask[usize::from(op.r[n] & 7)];
    EvexRegs {
        vectors: [zmm(c, op.r[0]), zmm(c, op.r[1]), zmm(c, op.r[2])],
        masks: [detail.mask(c), mask(0), mask(1), mask(2)],
        rcx: u64::get(&c.regs, op.r[detail.general_place()]),
        ..EvexRegs::default()
    }
}

fn to_bytes(value: Zmm) -> [u8; 64] {
    let mut bytes = [0; 64];
    for (slot, part) in bytes.chunks_exact_mut(16).zip(value) {
        slot.copy_from_slice(&part.to_le_bytes());
    }
    bytes
}

fn from_bytes(bytes: &[u8; 64]) -> Zmm {
    let mut value = Zmm::default();
    for (part, slot) in value.iter_mut().zip(bytes.chunks_exact(16)) {
        let mut sixteen = [0; 16];
        sixteen.copy_from_slice(slot);
        *part = u128::from_le_bytes(sixteen);
    }
    value
}

/// Loads what is wanted of the memory operand; what is not reads as zero.
fn load(c: &mut Cpu, op: &Op, detail: Detail, io: &mut dyn CpuIo) -> R<[u8; 64]> {
    let mut bytes = [0; 64];
    let (size, element, mask) = (detail.size(), detail.element(), detail.mask(c));
    let elements = detail.repeated_size() / element;
    let in_use = mask & first(elements);
    match detail.reads() {
        Reads::Whole => memory::read(c, op, 0, &mut bytes[..size], io)?,
        Reads::Packed if !detail.is_masked() => memory::read(c, op, 0, &mut bytes[..size], io)?,
        Reads::Packed => {
            for at in (0..in_use.count_ones() as usize).map(|n| n * element) {
                memory::read(c, op, at as u64, &mut bytes[at..at + element], io)?;
            }
        }
        Reads::Tuple => memory::read_tuple(c, op, detail, &mut bytes, io)?,
        Reads::Elements if detail.is_broadcast() => {
            if in_use != 0 {
                memory::read(c, op, 0, &mut bytes[..size], io)?;
            }
        }
        Reads::Elements if !detail.is_masked() => memory::read(c, op, 0, &mut bytes[..size], io)?,
        Reads::Elements => {
            for n in (0..elements).filter(|n| in_use >> n & 1 != 0) {
                let at = n * element;
                memory::read(c, op, at as u64, &mut bytes[at..at + element], io)?;
            }
        }
    }
    if detail.is_broadcast() {
        for at in (size..64).step_by(size) {
            bytes.copy_within(..size, at);
        }
    }
    Ok(bytes)
}

/// The lowest bits of a mask.
fn first(elements: usize) -> u64 {
    if elements >= 64 { u64::MAX } else { (1 << elements) - 1 }
}

/// Runs the op's thunk under MXCSR.
fn under(c: &mut Cpu, op: &Op, detail: Detail, regs: EvexRegs) -> R<EvexRegs> {
    let thunk = VexThunk::at(op.thunk);
    let run = |mxcsr| {
        let mut regs = EvexRegs { mxcsr, ..regs };
        evex(thunk, &mut regs);
        (regs, regs.mxcsr)
    };
    if let Some(mxcsr) = detail.own_mxcsr(c.s.mxcsr) {
        return Ok(run(mxcsr).0);
    }
    let mask = regs.masks[0];
    let lanes: [[u128; 3]; 4] = std::array::from_fn(|lane| regs.vectors.map(|vector| vector[lane]));
    let lanes = &lanes[..detail.vector() / 16];
    under_mxcsr(c, run, |review| review.evex_flags(op.code, lanes, mask, op.imm as u8))
}

fn run<const TO: u8, const FLOAT: bool>(c: &mut Cpu, op: &Op, io: &mut dyn CpuIo) -> R {
    ready(c)?;
    let detail = Detail::at(op);
    let mut regs = operands(c, op, detail);
    if op.has(HAS_MEMORY) {
        let value = from_bytes(&load(c, op, detail, io)?);
        let place = detail.memory_place();
        regs.vectors[place.min(2)] = value;
        regs.masks[(place + 1) & 3] = value[0] as u64;
        regs.rcx = value[0] as u64;
    }
    if FLOAT {
        regs = under(c, op, detail, regs)?;
    } else {
        evex(VexThunk::at(op.thunk), &mut regs);
    }
    match TO {
        VECTOR => set_zmm(c, op.r[0], regs.vectors[0]),
        MASK => c.s.opmask[usize::from(op.r[0] & 7)] = regs.masks[1],
        GENERAL => regs.rax.put(&mut c.regs, op.r[0]),
        _ => c.flags.update(STATUS, regs.flags),
    }
    Ok(())
}
