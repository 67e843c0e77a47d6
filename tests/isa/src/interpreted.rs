//! The interpreter's side: a guest whose page tables, segments and handlers are those of the arena under Linux, and one case
//! after another in it.
//!
//! Not responsible for: the same on silicon (`native`), the comparison (`compare`).
//!
//! Cases run with TF set, as they do natively: the instruction ends in its own fault or in the single step's #DB, and either
//! leaves RIP, RFLAGS and RSP in the frame that the delivery pushes.

use crate::arena::{self, BASE, FILLING, PAGE, REGIONS};
use crate::case::{Case, Fault, Line, Mode, Outcome, Registers};
use gemel_interp::Interp;
use gemel_machine::{GuestRam, Nothing, Vcpu};
use gemel_x86::control::*;
use gemel_x86::flags::{AC, DF, FIXED, IF, RF, STATUS, TF};
use gemel_x86::segment::{CS, ES, GS, attr};
use gemel_x86::{CpuModel, CpuState, Segment, Vector};
use std::ops::Range;
use std::sync::Arc;

/// Guest physical addresses of what the system side needs.
mod physical {
    /// The root of the page tables; their other levels follow.
    pub const TABLES: u64 = 0x1000;
    /// Linux's GDT, as far as user mode can tell.
    pub const GDT: u64 = 0x8000;
    pub const IDT: u64 = 0x9000;
    pub const TSS: u64 = 0xa000;
    /// Where the stack of ring 0 ends.
    pub const STACK: u64 = 0xc000;
    pub const LDT: u64 = 0xd000;
    /// The arena's pages, one behind the other.
    pub const ARENA: u64 = 0x1_0000;
}

/// Linear address at which the first 64 KiB of memory are, for ring 0 alone.
const KERNEL: u64 = 0xffff_ff80_0000_0000;
/// Handler of vector n: 16 n from here. Nothing is there; a case ends before the handler's first instruction.
const HANDLERS: u64 = 0xffff_ff80_0100_0000;
const HANDLED: Range<u64> = HANDLERS..HANDLERS + 16 * 256;
/// What of Linux's CR4 user mode can tell, and what protects its kernel.
const CR4: u64 = CR4_PAE
    | CR4_DE
    | CR4_PGE
    | CR4_OSFXSR
    | CR4_OSXMMEXCPT
    | CR4_UMIP
    | CR4_FSGSBASE
    | CR4_OSXSAVE
    | CR4_SMEP
    | CR4_SMAP;
/// XCR0 bits of AVX-512: opmask, upper halves of ZMM0 to 15, ZMM16 to 31 (SDM 1 13.1).
const XCR0_AVX512: u64 = 0xe0;
/// Present, writable, user, accessed, dirty: bits of page table entries.
const TABLE: u64 = 0x67;
const NO_EXECUTE: u64 = 1 << 63;
const LINE: usize = 64;
/// Vectors that user mode can raise and whose frames begin with an error code (SDM 3A table 6-1).
const WITH_ERROR_CODE: [Vector; 6] = [
    Vector::DoubleFault,
    Vector::NotPresent,
    Vector::Stack,
    Vector::GeneralProtection,
    Vector::PageFault,
    Vector::Alignment,
];

/// The guest.
pub struct Interpreted {
    interp: Interp,
    ram: Arc<GuestRam>,
    /// A state for each mode, to which a case adds its registers.
    templates: [CpuState; 3],
    /// What memory holds, by distance from the arena's base.
    memory: Vec<u8>,
    /// Where the last case's code is, and how long.
    code: (u64, usize),
    page: Vec<u8>,
}

impl Interpreted {
    /// A guest of a CPU model.
    ///
    /// # Errors
    /// When the host has no memory for it.
    pub fn new(model: CpuModel) -> anyhow::Result<Self> {
        let ram = Arc::new(GuestRam::new(1 << 20)?);
        write_tables(&ram)?;
        let memory = arena::background().to_vec();
        for region in REGIONS {
            for at in region.range().step_by(PAGE as usize) {
                let from = (at - BASE) as usize;
                ram.write(physical_of(at), &memory[from..from + PAGE as usize])?;
            }
        }
        let mut templates = Mode::ALL.map(template);
        for template in &mut templates {
            template.xcr0 |= model.xcr0_mask() & XCR0_AVX512;
        }
        let interp = Interp::new(model, ram.clone());
        Ok(Self { interp, ram, templates, memory, code: (0, 0), page: vec![0; PAGE as usize] })
    }

    /// Runs a case.
    ///
    /// # Errors
    /// When the interpreter does something that no instruction does: halt, shut down, or end outside of a handler.
    pub fn run(&mut self, case: &Case) -> anyhow::Result<Outcome> {
        self.lay_out(case)?;
        let template = &self.templates[case.mode as usize];
        let mut state = template.clone();
        enter(&mut state, &case.before);
        self.interp.restore_warm(&state);
        let mut io = Nothing { stop: state.count + 1 };
        self.interp.run(&mut io)?;
        if !HANDLED.contains(&self.interp.position().rip) {
            io.stop += 1;
            self.interp.run(&mut io)?;
        }
        let after = self.interp.save()?;
        anyhow::ensure!(
            HANDLED.contains(&after.rip),
            "the case ended at {:#x} after {} steps",
            after.rip,
            after.count
        );
        let (registers, fault) = self.leave(case.mode, &after)?;
        let changes = self.changes()?;
        self.clean_up(case, &changes)?;
        Ok(Outcome { after: registers, changes, fault })
    }

    /// Writes a case's code and patches.
    fn lay_out(&mut self, case: &Case) -> anyhow::Result<()> {
        let (address, length) = std::mem::take(&mut self.code);
        self.ram.write(address, &[FILLING; 16][..length])?;
        let code_base = arena::segment(case.mode, CS).base;
        let linear = case.before.rip.wrapping_add(code_base) as u32;
        self.code = (physical_of(linear), case.code().len());
        self.ram.write(self.code.0, case.code())?;
        for patch in &case.patches {
            let bytes = &patch.bytes[..usize::from(patch.length)];
            if bytes.is_empty() {
                continue;
            }
            self.memory[(patch.address - BASE) as usize..][..bytes.len()].copy_from_slice(bytes);
            self.write_back(patch.address, bytes.len())?;
        }
        Ok(())
    }

    /// Copies a part of `memory` to the guest, page by page.
    fn write_back(&self, address: u32, length: usize) -> anyhow::Result<()> {
        let mut at = address;
        let end = address + length as u32;
        while at < end {
            let next = end.min((at | (PAGE - 1)) + 1);
            let range = (at - BASE) as usize..(next - BASE) as usize;
            self.ram.write(physical_of(at), &self.memory[range])?;
            at = next;
        }
        Ok(())
    }

    /// What is not as `memory` says. Makes `memory` say it.
    fn changes(&mut self) -> anyhow::Result<Vec<Line>> {
        let mut changes = Vec::new();
        for region in REGIONS.iter().filter(|r| r.writable) {
            for address in region.range().step_by(PAGE as usize) {
                self.ram.read(physical_of(address), &mut self.page)?;
                let from = (address - BASE) as usize;
                let was = &mut self.memory[from..from + PAGE as usize];
                if *was == self.page[..] {
                    continue;
                }
                for (n, (old, new)) in was.chunks_mut(LINE).zip(self.page.chunks(LINE)).enumerate() {
                    if old != new {
                        let mut line = Line { address: address + (n * LINE) as u32, bytes: [0; LINE] };
                        line.bytes.copy_from_slice(new);
                        changes.push(line);
                        old.copy_from_slice(new);
                    }
                }
            }
        }
        Ok(changes)
    }

    /// Makes memory the background again, but for the code.
    fn clean_up(&mut self, case: &Case, changes: &[Line]) -> anyhow::Result<()> {
        let patches = case.patches.iter().map(|p| (p.address, usize::from(p.length)));
        let lines = changes.iter().map(|l| (l.address, LINE));
        for (address, length) in patches.chain(lines).filter(|(_, length)| *length != 0) {
            let range = (address - BASE) as usize..(address - BASE) as usize + length;
            self.memory[range.clone()].copy_from_slice(&arena::background()[range]);
            self.write_back(address, length)?;
        }
        Ok(())
    }

    /// Reads the frame that the delivery pushed, and the registers that are as the instruction left them.
    fn leave(&self, mode: Mode, after: &CpuState) -> anyhow::Result<(Registers, Option<Fault>)> {
        let number = ((after.rip - HANDLERS) / 16) as u8;
        let raised = number != Vector::Debug as u8;
        let mut at = after.gpr[4].wrapping_sub(KERNEL);
        let mut pop = || {
            let value = self.ram.read_array::<8>(at).map(u64::from_le_bytes);
            at += 8;
            value
        };
        let error = if WITH_ERROR_CODE.iter().any(|v| *v as u8 == number) { pop()? } else { 0 };
        let [rip, _cs, rflags, rsp] = [pop()?, pop()?, pop()?, pop()?];
        let fault = raised.then_some(Fault {
            vector: number,
            error_code: error as u32,
            cr2: if number == Vector::PageFault as u8 { after.cr2 } else { 0 },
        });
        let top = usize::from(after.fsw >> 11 & 7);
        let mut gpr = after.gpr;
        // What a 16-bit stack segment leaves of RSP's upper bits is nobody's.
        gpr[4] = if mode == Mode::Protected16 { rsp & 0xffff } else { rsp };
        let pointers = pending(after.fsw);
        let registers = Registers {
            gpr,
            rip,
            rflags,
            fip: if pointers { after.fip } else { 0 },
            fdp: if pointers { after.fdp } else { 0 },
            st: std::array::from_fn(|i| after.st[(top + i) & 7]),
            ymm: std::array::from_fn(|i| {
                let (low, high) = (after.xmm[i], after.ymm_upper[i]);
                [low as u64, (low >> 64) as u64, high as u64, (high >> 64) as u64]
            }),
            zmm_upper: after.zmm_upper.map(quadwords),
            zmm_high: after.zmm_high.map(quadwords),
            opmask: after.opmask,
            mxcsr: after.mxcsr,
            fcw: after.fcw,
            fsw: after.fsw,
            fop: if pointers { after.fop } else { 0 },
            ftw: after.ftw,
        };
        Ok((registers, fault))
    }
}

/// Whether an x87 error waits. XSAVE, through which the kernel takes a case's registers, stores zeroes for the last-instruction
/// pointers unless one does: AMD's rule (APM 2 11.4.4).
fn pending(fsw: u16) -> bool {
    fsw & 0x80 != 0
}

/// Halves of quadwords each, lowest first.
fn quadwords<const N: usize, const M: usize>(parts: [u128; N]) -> [u64; M] {
    std::array::from_fn(|n| (parts[n / 2] >> (64 * (n % 2))) as u64)
}

/// Puts a case's registers into a state.
fn enter(state: &mut CpuState, before: &Registers) {
    state.gpr = before.gpr;
    state.rip = before.rip;
    state.rflags = before.rflags & (STATUS | DF | AC | RF) | TF | IF | FIXED;
    (state.fip, state.fdp, state.fop) = (before.fip, before.fdp, before.fop);
    (state.fcw, state.ftw, state.mxcsr) = (before.fcw, before.ftw, before.mxcsr);
    // XRSTOR sets the error summary and the busy bit by the errors that wait, whatever it loads.
    let summary = if before.fsw & !before.fcw & 0x3f != 0 { 0x8080 } else { 0 };
    state.fsw = before.fsw & !0x8080 | summary;
    let top = usize::from(before.fsw >> 11 & 7);
    for (i, value) in before.st.iter().enumerate() {
        state.st[(top + i) & 7] = *value;
    }
    let pair = |low: u64, high: u64| u128::from(high) << 64 | u128::from(low);
    for (n, [a, b, c, d]) in before.ymm.into_iter().enumerate() {
        (state.xmm[n], state.ymm_upper[n]) = (pair(a, b), pair(c, d));
    }
    for (n, [a, b, c, d]) in before.zmm_upper.into_iter().enumerate() {
        state.zmm_upper[n] = [pair(a, b), pair(c, d)];
    }
    for (to, from) in state.zmm_high.iter_mut().zip(&before.zmm_high) {
        *to = std::array::from_fn(|k| pair(from[2 * k], from[2 * k + 1]));
    }
    state.opmask = before.opmask;
}

/// Guest physical address of a mapped address of the arena.
fn physical_of(linear: u32) -> u64 {
    physical::ARENA + u64::from(linear - BASE)
}

/// The state in which cases of a mode start.
fn template(mode: Mode) -> CpuState {
    let ring0 = |selector, attr, base, limit| Segment { selector, attr, limit, base };
    let mut state = CpuState {
        cr0: CR0_PE | CR0_MP | CR0_ET | CR0_NE | CR0_WP | CR0_AM | CR0_PG,
        cr3: physical::TABLES,
        cr4: CR4,
        efer: EFER_SCE | EFER_LME | EFER_LMA | EFER_NXE,
        xcr0: 7,
        cpl: 3,
        seg: std::array::from_fn(|register| arena::segment(mode, register)),
        tr: ring0(0x40, 0x8b, KERNEL + physical::TSS, 0x67),
        ldtr: ring0(0x50, 0x82, KERNEL + physical::LDT, 0xfff),
        ..CpuState::default()
    };
    (state.gdtr.base, state.gdtr.limit) = (KERNEL + physical::GDT, 0x7f);
    (state.idtr.base, state.idtr.limit) = (KERNEL + physical::IDT, 0xfff);
    state
}

/// Page tables, descriptors, gates and TSS.
fn write_tables(ram: &GuestRam) -> anyhow::Result<()> {
    let entry = |table: u64, index: u64, value: u64| {
        ram.write(physical::TABLES + table * 0x1000 + index * 8, &value.to_le_bytes())
    };
    let table = |number: u64| (physical::TABLES + number * 0x1000) | TABLE;
    let index = |address: u64, level: u32| address >> (12 + 9 * level) & 0x1ff;
    // Root, then three levels for the arena, three for ring 0.
    for (top, address) in [(1, u64::from(BASE)), (4, KERNEL)] {
        entry(0, index(address, 3), table(top))?;
        entry(top, index(address, 2), table(top + 1))?;
        entry(top + 1, index(address, 1), table(top + 2))?;
    }
    for region in REGIONS {
        for address in region.range().step_by(PAGE as usize) {
            let write = if region.writable { 0 } else { 2 };
            let execute = if region.executable { 0 } else { NO_EXECUTE };
            entry(3, index(address.into(), 0), physical_of(address) | TABLE & !write | execute)?;
        }
    }
    for page in 0..16 {
        entry(6, index(KERNEL, 0) + page, page << 12 | TABLE & !4 | NO_EXECUTE)?;
    }
    // Linux: kernel code of 32 and 64 bits, kernel data, user code of 32 bits, user data, user code of 64 bits.
    let linux = [
        0x00cf_9b00_0000_ffffu64,
        0x00af_9b00_0000_ffff,
        0x00cf_9300_0000_ffff,
        0x00cf_fb00_0000_ffff,
        0x00cf_f300_0000_ffff,
        0x00af_fb00_0000_ffff,
    ];
    for (n, descriptor) in (1..).zip(linux) {
        ram.write(physical::GDT + 8 * n, &descriptor.to_le_bytes())?;
    }
    // The LDT that the child process gives itself.
    for mode in Mode::ALL {
        for segment in (ES..=GS).map(|register| arena::segment(mode, register)) {
            if segment.selector & 4 != 0 {
                let at = physical::LDT + u64::from(segment.selector & !7);
                ram.write(at, &descriptor(segment).to_le_bytes())?;
            }
        }
    }
    for vector in 0..=255u64 {
        let handler = HANDLERS + 16 * vector;
        // INT3, INTO and system calls are for user mode.
        let dpl = if [3, 4, 0x80].contains(&vector) { 3u64 } else { 0 };
        let low = handler & 0xffff | 0x10 << 16 | (0x8e00 | dpl << 13) << 32 | (handler >> 16 & 0xffff) << 48;
        ram.write(physical::IDT + 16 * vector, &low.to_le_bytes())?;
        ram.write(physical::IDT + 16 * vector + 8, &(handler >> 32).to_le_bytes())?;
    }
    ram.write(physical::TSS + 4, &(KERNEL + physical::STACK).to_le_bytes())?;
    // The map of ports lies behind the segment: none is for user mode.
    ram.write(physical::TSS + 0x66, &0x68u16.to_le_bytes())?;
    Ok(())
}

/// A segment as its descriptor (SDM 3A figure 3-8).
fn descriptor(segment: Segment) -> u64 {
    let (attr, base) = (u64::from(segment.attr), segment.base);
    let limit = u64::from(if segment.has(attr::G) { segment.limit >> 12 } else { segment.limit });
    limit & 0xffff
        | (base & 0xff_ffff) << 16
        | (attr & 0xff) << 40
        | (limit >> 16) << 48
        | (attr >> 8) << 52
        | (base >> 24) << 56
}
