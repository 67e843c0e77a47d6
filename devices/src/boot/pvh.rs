//! The PVH direct boot protocol (Xen, docs/misc/pvh.pandoc; xen/include/public/arch-x86/hvm/start_info.h).
//!
//! Not responsible for: reading ELF files (`elf`).

use super::elf::Elf;
use super::entry::{self, RBX};
use super::memory_map::memory_map;
use super::{COMMAND_LINE_MAX, Job, LoadError};
use gemel_x86::CpuState;

/// Where the start info goes; the modules and the memory map follow it.
const START_INFO: u64 = 0x1_0000;
const MODULES: u64 = START_INFO + 0x80;
const MEMORY_MAP: u64 = START_INFO + 0x100;
/// "xEn3" with the top bit of the E set.
const MAGIC: u32 = 0x336e_c578;

/// Loads a PVH kernel.
pub(super) fn load(job: &Job<'_>, elf: &Elf<'_>, entry: u32) -> Result<CpuState, LoadError> {
    let end = elf.place(job)?;
    let initrd = job.place_initrd(end, u64::from(u32::MAX))?;
    let command_line = job.place_command_line(job.append, COMMAND_LINE_MAX)?;
    let map = memory_map(job.ram);
    for (i, region) in map.iter().enumerate() {
        let kind = u64::from(region.kind as u32);
        let entry = [region.start, region.size, kind].map(u64::to_le_bytes).concat();
        job.place("the memory map", MEMORY_MAP + 24 * i as u64, &entry)?;
    }
    if let Some(start) = initrd {
        let module = [start, job.initrd.len() as u64, 0, 0].map(u64::to_le_bytes).concat();
        job.place("the module list", MODULES, &module)?;
    }
    let numbers = [MAGIC, 1, 0, u32::from(initrd.is_some())].map(u32::to_le_bytes).concat();
    let addresses =
        [if initrd.is_some() { MODULES } else { 0 }, command_line, job.rsdp, MEMORY_MAP, map.len() as u64];
    let addresses = addresses.map(u64::to_le_bytes).concat();
    job.place("the start info", START_INFO, &[numbers, addresses].concat())?;

    let mut state = entry::protected(job, u64::from(entry))?;
    state.gpr[RBX] = START_INFO;
    Ok(state)
}
