//! The CPU states in which kernels are entered, with the descriptor table and page tables that they stand on.
//!
//! Not responsible for: what the boot protocols put into registers beyond that.

use super::{Job, LoadError};
use gemel_x86::control::{CR0_ET, CR0_PE, CR0_PG, CR4_PAE, EFER_LMA, EFER_LME};
use gemel_x86::segment::{CS, Segment, TableRegister};
use gemel_x86::{CpuState, flags};

const GDT: u64 = 0x500;
const PML4: u64 = 0x2000;
const PDPT: u64 = 0x3000;
const PAGE_DIRECTORIES: u64 = 0x4000;
/// Top of a page of stack, for entries that push before they have a stack of their own.
const STACK_TOP: u64 = 0x9000;

/// Selectors of the Linux boot protocol ("__BOOT_CS ... __BOOT_DS").
const BOOT_CS: u16 = 0x10;
const BOOT_DS: u16 = 0x18;

const FLAT_CODE_64: u64 = 0x00af_9b00_0000_ffff;
const FLAT_CODE_32: u64 = 0x00cf_9b00_0000_ffff;
const FLAT_DATA: u64 = 0x00cf_9300_0000_ffff;

/// Present, writable, accessed and dirty: an engine that sets the bits would find nothing to change.
const TABLE_FLAGS: u64 = 0x23;
const LARGE_PAGE_FLAGS: u64 = 0xe3;

/// 32-bit protected mode, flat segments, no paging, interrupts off.
pub(super) fn protected(job: &Job<'_>, rip: u64) -> Result<CpuState, LoadError> {
    let mut state = flat(job, FLAT_CODE_32)?;
    state.rip = rip;
    state.cr0 = CR0_PE | CR0_ET;
    // What PVH asks for: a 32-bit TSS at zero with limit 67h.
    state.tr = Segment { selector: 0, attr: 0x8b, limit: 0x67, base: 0 };
    Ok(state)
}

/// 64-bit mode, flat segments, the first 4 GiB mapped to themselves with 2 MiB pages, interrupts off.
pub(super) fn long(job: &Job<'_>, rip: u64) -> Result<CpuState, LoadError> {
    let what = "the boot page tables";
    job.place(what, PML4, &(PDPT | TABLE_FLAGS).to_le_bytes())?;
    for gib in 0..4 {
        let directory = PAGE_DIRECTORIES + gib * 0x1000;
        job.place(what, PDPT + gib * 8, &(directory | TABLE_FLAGS).to_le_bytes())?;
        let pages = (0..512).flat_map(|i| (gib << 30 | i << 21 | LARGE_PAGE_FLAGS).to_le_bytes());
        job.place(what, directory, &pages.collect::<Vec<u8>>())?;
    }
    let mut state = flat(job, FLAT_CODE_64)?;
    state.rip = rip;
    state.cr0 = CR0_PE | CR0_ET | CR0_PG;
    state.cr3 = PML4;
    state.cr4 = CR4_PAE;
    state.efer = EFER_LME | EFER_LMA;
    Ok(state)
}

fn flat(job: &Job<'_>, code: u64) -> Result<CpuState, LoadError> {
    let table = [0, 0, code, FLAT_DATA].map(u64::to_le_bytes).concat();
    job.place("the boot descriptor table", GDT, &table)?;
    let mut state = CpuState { rflags: flags::FIXED, ..CpuState::default() };
    state.seg = [Segment::from_descriptor(BOOT_DS, FLAT_DATA); 6];
    state.seg[CS] = Segment::from_descriptor(BOOT_CS, code);
    state.gdtr = TableRegister { base: GDT, limit: (table.len() - 1) as u16 };
    state.idtr = TableRegister { base: 0, limit: 0 };
    state.gpr = [0; 16];
    state.gpr[RSP] = STACK_TOP;
    set_memory_types(&mut state);
    Ok(state)
}

/// Memory types as firmware leaves them (SDM 3A 11.11): write-back by default, the video window and everything
/// from the PCI hole to 4 GiB uncached. Kernels that find MTRRs off go without the page attribute table.
fn set_memory_types(state: &mut CpuState) {
    const WRITE_BACK_X8: u64 = 0x0606_0606_0606_0606;
    state.mtrr_def_type = 0xc06;
    state.mtrr_fixed = [WRITE_BACK_X8; 11];
    state.mtrr_fixed[2] = 0; // 16 KiB pieces from 0xa0000
    state.mtrr_variable[0] = gemel_machine::ram::LOW_END;
    state.mtrr_variable[1] = 0xff_c000_0000 | 1 << 11;
}

/// RAX in [`CpuState::gpr`].
pub(super) const RAX: usize = 0;
/// RBX.
pub(super) const RBX: usize = 3;
/// RSP.
pub(super) const RSP: usize = 4;
/// RSI.
pub(super) const RSI: usize = 6;
