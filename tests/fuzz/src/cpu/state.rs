//! CPU states: what software could have made of the registers, in every mode; and now and then what only a damaged
//! snapshot could hold.
//!
//! Not responsible for: tables in memory (`tables`), code (`code`).

use super::code::Shapes;
use super::tables::{self, Memory, SLOTS, stack};
use super::{CODE, CODE_BYTES, GDT, IDT, LDT, PAGES, RAM};
use crate::places;
use crate::rng::Rng;
use gemel_x86::control::*;
use gemel_x86::flags::FIXED;
use gemel_x86::segment::{CS, SS};
use gemel_x86::{CpuModel, CpuState, Feature, Segment, TableRegister, msr};

/// How addresses are translated outside long mode.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Paging {
    /// Not at all.
    Off,
    /// 32-bit entries.
    Narrow,
    /// 64-bit entries.
    Pae,
}

/// A mode of the CPU; numbers are bits of code, and rings.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    /// Real-address mode.
    Real,
    /// Virtual-8086 mode.
    V86(Paging),
    /// Protected mode.
    Protected(u8, Paging, u8),
    /// Compatibility mode.
    Compatibility(u8, u8),
    /// 64-bit mode.
    Long(u8),
    /// Any bits in any register.
    Anything,
}

impl Mode {
    /// A random one.
    pub fn pick(rng: &Rng) -> Self {
        let paging = rng.pick(&[Paging::Off, Paging::Narrow, Paging::Pae]);
        let ring = rng.pick(&[0, 3]);
        match rng.below(13) {
            0 | 1 => Self::Real,
            2 => Self::V86(paging),
            3 | 4 => Self::Protected(16, paging, ring),
            5 | 6 => Self::Protected(32, paging, ring),
            7 => Self::Compatibility(16, ring),
            8 => Self::Compatibility(32, ring),
            9 => Self::Anything,
            _ => Self::Long(ring),
        }
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Real => "real",
            Self::V86(Paging::Off) => "v86",
            Self::V86(_) => "v86, paging",
            Self::Protected(16, Paging::Off, _) => "protected 16",
            Self::Protected(16, Paging::Narrow, _) => "protected 16, paging",
            Self::Protected(16, Paging::Pae, _) => "protected 16, PAE",
            Self::Protected(_, Paging::Off, _) => "protected 32",
            Self::Protected(_, Paging::Narrow, _) => "protected 32, paging",
            Self::Protected(_, Paging::Pae, _) => "protected 32, PAE",
            Self::Compatibility(16, _) => "compatibility 16",
            Self::Compatibility(..) => "compatibility 32",
            Self::Long(0) => "long, ring 0",
            Self::Long(_) => "long, ring 3",
            Self::Anything => "any bits",
        }
    }

    /// Bits of the code.
    pub fn bits(self) -> u8 {
        match self {
            Self::Protected(bits, ..) | Self::Compatibility(bits, _) => bits,
            Self::Real | Self::V86(_) => 16,
            Self::Long(_) | Self::Anything => 64,
        }
    }

    fn ring(self) -> u8 {
        match self {
            Self::Protected(_, _, ring) | Self::Compatibility(_, ring) | Self::Long(ring) => ring,
            Self::V86(_) => 3,
            Self::Real | Self::Anything => 0,
        }
    }

    fn long(self) -> bool {
        matches!(self, Self::Compatibility(..) | Self::Long(_) | Self::Anything)
    }

    /// Whether page table entries have 64 bits.
    pub fn wide_pages(self) -> bool {
        self.long() || matches!(self, Self::V86(Paging::Pae) | Self::Protected(_, Paging::Pae, _))
    }

    /// Whether there are page tables.
    pub fn has_paging(self) -> bool {
        self.wide_pages() || matches!(self, Self::V86(Paging::Narrow) | Self::Protected(_, Paging::Narrow, _))
    }
}

/// What a case starts with.
pub struct Made {
    /// The CPU.
    pub state: CpuState,
    /// Guest memory.
    pub memory: Memory,
    /// The code alone, for the report of a failure.
    pub code: Vec<u8>,
}

/// A general register: an address, a number of an MSR or a selector, a small count, or anything.
fn register(rng: &Rng) -> u64 {
    match rng.below(8) {
        0 => places::address(rng),
        1 => rng
            .pick(&[
                RAM,
                0xa_0000,
                0xc_0000,
                1 << 16,
                1 << 32,
                1 << 47,
                0u64.wrapping_sub(1 << 47),
                CODE,
                PAGES,
                GDT,
            ])
            .wrapping_add(rng.below(33))
            .wrapping_sub(16),
        2 => rng.below(64),
        3 => rng.below(SLOTS) << 3 | rng.below(8),
        4 => u64::from(rng.pick(&[
            msr::EFER,
            msr::APIC_BASE,
            msr::STAR,
            msr::LSTAR,
            msr::FS_BASE,
            msr::KERNEL_GS_BASE,
            msr::TSC,
            msr::TSC_DEADLINE,
            msr::TSC_ADJUST,
            msr::DEBUG_CTL,
            msr::PAT,
            msr::MTRR_PHYS_BASE0,
            msr::SYSENTER_CS,
            msr::SYSENTER_EIP,
            msr::X2APIC_FIRST + 0x30,
        ])),
        5 => rng.value(),
        _ => rng.below(RAM),
    }
}

fn fill_registers(rng: &Rng, s: &mut CpuState, mode: Mode) {
    s.gpr = std::array::from_fn(|_| register(rng));
    if !mode.long() {
        s.gpr.iter_mut().for_each(|r| *r &= 0xffff_ffff);
    }
    s.gpr[4] = stack(rng);
    s.rflags = FIXED | rng.bits(0xcd5) | rng.bits(0x3000) | if rng.once_in(2) { 0x200 } else { 0 };
    for flag in [0x100, 0x4000, 0x1_0000, 0x4_0000, 0x8_0000, 0x10_0000, 0x20_0000] {
        if rng.once_in(12) {
            s.rflags |= flag;
        }
    }
    s.cr2 = rng.value();
    s.dr =
        std::array::from_fn(|_| if rng.once_in(2) { CODE + rng.below(CODE_BYTES) } else { rng.below(RAM) });
    s.dr7 = DR7_FIXED | if rng.once_in(6) { rng.bits(0xffff_03ff) } else { 0 };
    if rng.once_in(64) {
        s.dr7 |= DR7_GD;
    }
    s.dr6 = DR6_FIXED | rng.bits(0xe00f);
    s.fcw = rng.pick(&[0x37f, 0x27f, rng.next() as u16 | 0x40]);
    s.fsw = rng.pick(&[0, rng.next() as u16]);
    s.ftw = rng.next() as u8;
    s.st = std::array::from_fn(|_| u128::from(rng.next()) | u128::from(rng.value() & 0xffff) << 64);
    s.xmm = std::array::from_fn(|_| u128::from(rng.value()) | u128::from(rng.value()) << 64);
    s.ymm_upper = std::array::from_fn(|_| u128::from(rng.value()) << rng.below(65));
    s.zmm_upper = std::array::from_fn(|_| std::array::from_fn(|_| u128::from(rng.value())));
    s.zmm_high = std::array::from_fn(|_| std::array::from_fn(|_| u128::from(rng.value())));
    s.opmask = std::array::from_fn(|_| rng.value());
    s.mxcsr = rng.pick(&[0x1f80, rng.next() as u32 & 0xffff]);
    s.shadow = rng.pick(&[0, 0, 0, 0, 0, 1, 2, 3]);
    s.nmi_blocked = rng.once_in(8);
    s.halted = rng.once_in(32);
    if rng.once_in(32) {
        s.pending_debug = rng.bits(0x400f);
    }
    s.debug_ctl = rng.bits(3);
    s.tsc_aux = rng.next() & 0xffff_ffff;
    s.tsc_offset = rng.value();
    let canonical = |address: u64| ((address << 16) as i64 >> 16) as u64;
    s.star = rng.pick(&[0x0010_0008_0000_0000, 0x0033_0018_0000_0000, rng.next()]);
    s.lstar = if rng.once_in(4) { canonical(rng.next()) } else { CODE + rng.below(CODE_BYTES) };
    s.cstar = CODE + rng.below(CODE_BYTES);
    s.sfmask = rng.bits(0xffff_ffff);
    s.kernel_gs_base = canonical(register(rng));
    s.sysenter_cs = rng.pick(&[0x10, 0x18, 0, rng.below(0x100)]);
    s.sysenter_esp = stack(rng);
    s.sysenter_eip = CODE + rng.below(CODE_BYTES);
}

fn fill_control(rng: &Rng, s: &mut CpuState, mode: Mode, model: &CpuModel) {
    s.cr0 = CR0_ET | rng.bits(CR0_WP | CR0_AM | CR0_NE | CR0_MP);
    for flag in [CR0_EM, CR0_TS] {
        if rng.once_in(24) {
            s.cr0 |= flag;
        }
    }
    s.cr4 = rng.bits(model.cr4_mask()) & !(CR4_PAE | CR4_PCIDE);
    if !rng.once_in(16) {
        s.cr4 |= CR4_OSFXSR | CR4_OSXMMEXCPT | model.cr4_mask() & CR4_OSXSAVE;
    }
    s.efer = rng.bits(EFER_SCE | EFER_NXE);
    if mode != Mode::Real {
        s.cr0 |= CR0_PE;
    }
    if mode.has_paging() {
        s.cr0 |= CR0_PG;
        s.cr3 = PAGES;
    }
    if mode.wide_pages() {
        s.cr4 |= CR4_PAE;
    }
    if mode.long() {
        s.efer |= EFER_LME | EFER_LMA;
        s.cr4 |= rng.bits(model.cr4_mask() & CR4_PCIDE);
        if s.cr4 & CR4_PCIDE != 0 {
            s.cr3 |= rng.below(4096);
        }
    } else if mode.wide_pages() {
        // The pointers' table is the second page of those that `tables` makes.
        s.cr3 = PAGES + 0x1000;
        let directory = PAGES + 0x2000;
        s.pdpte = [directory | 1, directory | 1, 0, directory | 1];
    }
    if model.has(Feature::XSAVE) {
        let offered = model.xcr0_mask();
        s.xcr0 = rng.pick(&[1, 3, 7 & offered, offered, offered, offered]);
    }
    s.gdtr =
        TableRegister { base: GDT, limit: rng.pick(&[8 * SLOTS - 1, 8 * SLOTS - 1, 0xffff, 0x57]) as u16 };
    s.idtr = TableRegister { base: IDT, limit: rng.pick(&[0xfff, 0xfff, 0xfff, 0xffff, 0x3ff, 0x7f]) };
    if rng.once_in(64) {
        s.gdtr.base = places::page(rng, RAM) + rng.below(0x1000);
    }
    if rng.once_in(64) {
        s.idtr.base = places::page(rng, RAM) + rng.below(0x1000);
    }
}

/// The hidden part that a load of `selector` would leave, from the tables in `memory`.
fn loaded(memory: &Memory, selector: u16) -> Segment {
    let table = if selector & 4 == 0 { GDT } else { LDT };
    let at = usize::from(selector & !7);
    let bytes =
        memory.iter().find(|(address, _)| *address == table).and_then(|(_, bytes)| bytes.get(at..at + 8));
    let raw = bytes.map_or(0, |bytes| u64::from_le_bytes(std::array::from_fn(|i| bytes[i])));
    Segment::from_descriptor(selector, raw)
}

fn fill_segments(rng: &Rng, s: &mut CpuState, mode: Mode, memory: &Memory) {
    s.cpl = mode.ring();
    if matches!(mode, Mode::Real | Mode::V86(_)) {
        // Selectors small enough that CODE is inside every segment.
        s.seg = std::array::from_fn(|_| Segment::real((rng.below(CODE) >> 4) as u16));
        s.seg[CS] = Segment::real(rng.pick(&[0, 0, (CODE >> 4) as u16, 0x123]));
        s.seg[SS] = Segment::real(0);
        if mode == Mode::Real {
            // As protected mode may leave them.
            for segment in &mut s.seg {
                if rng.once_in(24) {
                    segment.limit = u32::MAX;
                }
            }
        } else {
            s.seg.iter_mut().for_each(|segment| segment.attr = 0xf3);
            s.rflags |= 1 << 17;
        }
    } else {
        let ring = u16::from(mode.ring());
        let code = match (mode.bits(), ring) {
            (16, 0) => 1,
            (32, 0) => 2,
            (_, 0) => 3,
            (16, _) => 6,
            (32, _) => 7,
            _ => 8,
        };
        let (data, narrow) = if ring == 0 { (4, 5) } else { (9, 10) };
        for segment in &mut s.seg {
            let slot = rng.pick(&[data, data, data, narrow]);
            *segment = loaded(memory, slot << 3 | ring);
            if rng.once_in(24) {
                *segment = Segment { selector: rng.below(4) as u16, ..Segment::default() };
            }
        }
        s.seg[CS] = loaded(memory, code << 3 | ring);
        s.seg[SS] = loaded(memory, rng.pick(&[data, data, narrow]) << 3 | ring);
    }
    s.rip = (CODE + rng.below(CODE_BYTES / 2)).wrapping_sub(s.seg[CS].base)
        & if mode.long() { u64::MAX } else { 0xffff };
    s.tr = loaded(memory, 12 << 3);
    s.tr.attr |= 2;
    s.ldtr = if rng.once_in(2) { loaded(memory, 14 << 3) } else { Segment::default() };
    if mode.long() {
        for segment in &mut s.seg[4..] {
            segment.base = ((register(rng) << 16) as i64 >> 16) as u64;
        }
    }
}

/// Flips whole elements of the state to anything.
fn spoil(rng: &Rng, s: CpuState) -> CpuState {
    let mut bytes = s.to_bytes();
    for _ in 0..1 + rng.below(40) {
        let at = rng.below(bytes.len() as u64) as usize;
        let len = rng.pick(&[1, 2, 8, 16]).min(bytes.len() - at);
        rng.fill(&mut bytes[at..at + len]);
    }
    CpuState::from_bytes(&bytes).unwrap_or(s)
}

/// A state with its memory, at a count.
pub fn make(rng: &Rng, mode: Mode, model: &CpuModel, shapes: &Shapes, count: u64) -> Made {
    let mut s = CpuState::default();
    let mut memory = tables::make(rng, mode);
    fill_registers(rng, &mut s, mode);
    fill_control(rng, &mut s, mode, model);
    fill_segments(rng, &mut s, mode, &memory);
    if mode == Mode::Anything {
        s = spoil(rng, s);
    }
    s.count = count;
    let code = shapes.program(rng, mode.bits(), CODE_BYTES as usize);
    memory.push((CODE, code.clone()));
    if rng.once_in(16) {
        // Something at the end of RAM to fall off.
        let mut end = vec![0; 64];
        rng.fill(&mut end);
        memory.push((RAM - 64, end));
    }
    Made { state: s, memory, code }
}
