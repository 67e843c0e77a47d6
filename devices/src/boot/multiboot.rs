//! Multiboot 1 (Multiboot Specification 0.6.96): ELF kernels, and raw ones whose header carries load addresses.
//!
//! Not responsible for: video modes, symbol tables and drives, which are not offered.

use super::elf::Elf;
use super::entry::{self, RAX, RBX};
use super::memory_map::{ONE_MIB, memory_map, usable_end};
use super::{COMMAND_LINE_MAX, Job, LoadError, u32_at};
use gemel_x86::CpuState;

const HEADER_MAGIC: u32 = 0x1bad_b002;
const LOADER_MAGIC: u64 = 0x2bad_b002;
/// "must be contained completely within the first 8192 bytes of the OS image".
const SEARCH: usize = 8192;

/// Header flags: what the kernel cannot do without is in the low half (3.1.2).
const FLAGS_UNDERSTOOD: u32 = 0b111;
const FLAGS_REQUIRED: u32 = 0xffff;
const FLAG_ADDRESSES: u32 = 1 << 16;

/// Information flags (3.3): memory, command line, modules, memory map, loader name.
const INFO_MEMORY: u32 = 1 << 0;
const INFO_COMMAND_LINE: u32 = 1 << 2;
const INFO_MODULES: u32 = 1 << 3;
const INFO_MEMORY_MAP: u32 = 1 << 6;
const INFO_LOADER_NAME: u32 = 1 << 9;

const INFO: u64 = 0x1_0000;
const INFO_SIZE: usize = 116;
const MODULES: u64 = INFO + 0x100;
const LOADER_NAME: u64 = INFO + 0x200;
const MEMORY_MAP: u64 = INFO + 0x300;

/// The header and where it was found.
pub(super) struct Header {
    at: usize,
    flags: u32,
    /// header, load, load end, bss end, entry.
    addresses: Option<[u32; 5]>,
}

impl Header {
    /// Looks for the header on the 4-byte boundaries of the first 8 KiB.
    pub(super) fn find(file: &[u8]) -> Option<Self> {
        let at = (0..SEARCH).step_by(4).find(|&at| {
            u32_at(file, at) == Some(HEADER_MAGIC)
                && u32_at(file, at + 4)
                    .zip(u32_at(file, at + 8))
                    .is_some_and(|(flags, sum)| HEADER_MAGIC.wrapping_add(flags).wrapping_add(sum) == 0)
        })?;
        let flags = u32_at(file, at + 4)?;
        let mut addresses = None;
        if flags & FLAG_ADDRESSES != 0 {
            let word = |i: usize| u32_at(file, at + 12 + 4 * i);
            addresses = Some([word(0)?, word(1)?, word(2)?, word(3)?, word(4)?]);
        }
        Some(Self { at, flags, addresses })
    }
}

/// Loads a multiboot kernel. `elf` is the file read as ELF, if it is one; the header's addresses come first.
pub(super) fn load(job: &Job<'_>, header: &Header, elf: Option<&Elf<'_>>) -> Result<CpuState, LoadError> {
    if header.flags & FLAGS_REQUIRED & !FLAGS_UNDERSTOOD != 0 {
        return Err(LoadError::Unsupported("its multiboot header asks for something that is not known here"));
    }
    let (entry, end) = match (header.addresses, elf) {
        (Some(addresses), _) => place_raw(job, header.at, addresses)?,
        (None, Some(elf)) => (elf.physical_entry(), elf.place(job)?),
        (None, None) => {
            return Err(LoadError::Damaged("its multiboot header has no addresses and it is no ELF file"));
        }
    };
    let entry = u32::try_from(entry).map_err(|_| LoadError::Damaged("its entry point lies above 4 GiB"))?;
    let initrd = job.place_initrd(end, u64::from(u32::MAX))?;
    // By custom the first word is the kernel's name; programs skip it.
    let command_line = job.place_command_line(&format!("kernel {}", job.append), COMMAND_LINE_MAX)?;
    let flags = INFO_MEMORY | INFO_COMMAND_LINE | INFO_MEMORY_MAP | INFO_LOADER_NAME;

    let mut info = [0u8; INFO_SIZE];
    let mut put = |at: usize, value: u32| info[at..at + 4].copy_from_slice(&value.to_le_bytes());
    put(0, flags | if initrd.is_some() { INFO_MODULES } else { 0 });
    put(4, 639);
    put(8, (usable_end(job.ram).saturating_sub(ONE_MIB) >> 10) as u32);
    put(16, command_line as u32);
    if let Some(start) = initrd {
        put(20, 1);
        put(24, MODULES as u32);
        let module = [start as u32, start as u32 + job.initrd.len() as u32, 0, 0];
        job.place("the module list", MODULES, &module.map(u32::to_le_bytes).concat())?;
    }
    let mut map = Vec::new();
    for region in memory_map(job.ram) {
        map.extend_from_slice(&20u32.to_le_bytes()); // size of the entry, not counting this field
        map.extend_from_slice(&region.start.to_le_bytes());
        map.extend_from_slice(&region.size.to_le_bytes());
        map.extend_from_slice(&(region.kind as u32).to_le_bytes());
    }
    put(44, map.len() as u32);
    put(48, MEMORY_MAP as u32);
    put(64, LOADER_NAME as u32);
    job.place("the multiboot information", INFO, &info)?;
    job.place("the memory map", MEMORY_MAP, &map)?;
    job.place("the loader's name", LOADER_NAME, b"gemel\0")?;

    let mut state = entry::protected(job, u64::from(entry))?;
    state.gpr[RAX] = LOADER_MAGIC;
    state.gpr[RBX] = INFO;
    Ok(state)
}

/// Copies a kernel whose header says where it goes (3.1.3). Returns the entry and the end.
fn place_raw(job: &Job<'_>, header_at: usize, addresses: [u32; 5]) -> Result<(u64, u64), LoadError> {
    let [header, load, load_end, bss_end, entry] = addresses.map(u64::from);
    let damaged = || LoadError::Damaged("the addresses of its multiboot header contradict each other");
    let before = header.checked_sub(load).ok_or_else(damaged)?;
    let start = (header_at as u64).checked_sub(before).ok_or_else(damaged)? as usize;
    let rest = &job.kernel[start..];
    let content = match load_end {
        0 => rest, // "if this field is zero, the text and data segments occupy the whole OS image file"
        end => {
            let size = end.checked_sub(load).ok_or_else(damaged)?;
            rest.get(..size as usize).ok_or(LoadError::Damaged("it ends before its last byte to load"))?
        }
    };
    let end = bss_end.max(load + content.len() as u64);
    job.claim("the kernel", load, end - load)?;
    job.place("the kernel", load, content)?;
    Ok((entry, end))
}
