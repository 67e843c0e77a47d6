//! Loaders: put a kernel, its initrd and its command line into RAM and give the CPU state in which it starts.
//!
//! Not responsible for: reading files, ACPI tables (`acpi`, whose address comes in), unpacking a kernel (it unpacks
//! itself). There is no firmware: this is what firmware and boot loader would have left behind.

mod bzimage;
mod elf;
mod entry;
pub mod memory_map;
mod multiboot;
mod pvh;

use gemel_machine::{GuestRam, RamError};
use gemel_x86::CpuState;
use memory_map::{ONE_MIB, usable_end};

/// Where the command line goes: low, and clear of everything else that is written below 640 KiB.
const COMMAND_LINE: u64 = 0x2_0000;
/// The most that fits there before the memory that a kernel's trampolines want.
const COMMAND_LINE_MAX: usize = 0x1_0000;
/// Initrds end below this: 2 GiB, which every kernel of the last decades can reach.
const INITRD_END: u64 = 1 << 31;

/// Why a kernel cannot be started.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum LoadError {
    /// No format that is known here.
    #[error(
        "not a kernel that this machine can start: give a Linux bzImage (vmlinuz), an ELF file with a PVH entry \
         (vmlinux), or a multiboot 1 kernel"
    )]
    NotAKernel,
    /// A known format, but damaged.
    #[error("the kernel file is damaged: {0}; copy it again or build it again")]
    Damaged(&'static str),
    /// A known format in a variant that is not supported.
    #[error("not a kernel that this machine can start: {0}")]
    Unsupported(&'static str),
    /// It does not fit into RAM.
    #[error(
        "{what} needs the memory from {start:#x} to {end:#x}, which this guest does not have; give it more with -m"
    )]
    NoRoom {
        /// What does not fit.
        what: &'static str,
        /// First address.
        start: u64,
        /// Address after the last.
        end: u64,
    },
    /// The command line is too long for the kernel.
    #[error("the command line has {len} bytes, this kernel takes {max}; shorten --append")]
    CommandLine {
        /// Its length.
        len: usize,
        /// The longest that the kernel takes.
        max: usize,
    },
    /// The command line holds a NUL.
    #[error("the command line holds a NUL byte; remove it from --append")]
    CommandLineNul,
}

/// Loads a kernel. `rsdp` is the address of the ACPI root pointer (zero: none). RAM must be as after power-on.
///
/// # Errors
/// See [`LoadError`]; RAM may be partly written then.
pub fn load(
    kernel: &[u8],
    initrd: Option<&[u8]>,
    append: &str,
    ram: &GuestRam,
    rsdp: u64,
) -> Result<CpuState, LoadError> {
    let job = Job { kernel, initrd: initrd.unwrap_or_default(), append, ram, rsdp };
    if append.contains('\0') {
        return Err(LoadError::CommandLineNul);
    }
    memory_map::write_bios_data_area(ram).map_err(|_| no_room("the BIOS data area", 0x400, 0x500))?;
    if let Some(header) = bzimage::Header::find(kernel) {
        return bzimage::load(&job, &header);
    }
    let elf = elf::Elf::parse(kernel)?;
    if let Some(elf) = &elf
        && let Some(entry) = elf.pvh_entry()
    {
        return pvh::load(&job, elf, entry);
    }
    match multiboot::Header::find(kernel) {
        Some(header) => multiboot::load(&job, &header, elf.as_ref()),
        None if elf.is_some() => Err(LoadError::Unsupported(
            "the ELF file has neither a PVH entry nor a multiboot header (a Linux vmlinux needs CONFIG_PVH)",
        )),
        None => Err(LoadError::NotAKernel),
    }
}

/// What every loader works on.
struct Job<'a> {
    kernel: &'a [u8],
    /// Empty without one.
    initrd: &'a [u8],
    append: &'a str,
    ram: &'a GuestRam,
    rsdp: u64,
}

impl Job<'_> {
    /// Copies something into RAM.
    fn place(&self, what: &'static str, start: u64, data: &[u8]) -> Result<(), LoadError> {
        let fail = |_: RamError| no_room(what, start, start.saturating_add(data.len() as u64));
        self.ram.write(start, data).map_err(fail)
    }

    /// Makes sure that a kernel's memory lies in RAM above 1 MiB (below lies what the loaders write).
    fn claim(&self, what: &'static str, start: u64, size: u64) -> Result<(), LoadError> {
        match start.checked_add(size) {
            Some(end) if start >= ONE_MIB && end <= usable_end(self.ram) => Ok(()),
            end => Err(no_room(what, start, end.unwrap_or(u64::MAX))),
        }
    }

    /// Writes the command line with its NUL and returns its address.
    fn place_command_line(&self, text: &str, max: usize) -> Result<u64, LoadError> {
        let max = max.min(COMMAND_LINE_MAX - 1);
        if text.len() > max {
            return Err(LoadError::CommandLine { len: text.len(), max });
        }
        self.place("the command line", COMMAND_LINE, &[text.as_bytes(), &[0]].concat())?;
        Ok(COMMAND_LINE)
    }

    /// Writes the initrd as high as possible below `limit`, page-aligned, and above `floor`. Returns its address,
    /// or `None` without an initrd.
    fn place_initrd(&self, floor: u64, limit: u64) -> Result<Option<u64>, LoadError> {
        if self.initrd.is_empty() {
            return Ok(None);
        }
        let size = self.initrd.len() as u64;
        let top = usable_end(self.ram).min(limit).min(INITRD_END);
        match top.checked_sub(size).map(|start| start & !0xfff) {
            Some(start) if start >= floor => {
                self.place("the initrd", start, self.initrd)?;
                Ok(Some(start))
            }
            _ => Err(no_room("the initrd (above the kernel)", floor, floor.saturating_add(size))),
        }
    }
}

fn no_room(what: &'static str, start: u64, end: u64) -> LoadError {
    LoadError::NoRoom { what, start, end }
}

/// The `N` bytes at an offset of a file, if they are there.
fn bytes_at<const N: usize>(file: &[u8], at: usize) -> Option<[u8; N]> {
    file.get(at..)?.first_chunk().copied()
}

fn u16_at(file: &[u8], at: usize) -> Option<u16> {
    bytes_at(file, at).map(u16::from_le_bytes)
}

fn u32_at(file: &[u8], at: usize) -> Option<u32> {
    bytes_at(file, at).map(u32::from_le_bytes)
}

fn u64_at(file: &[u8], at: usize) -> Option<u64> {
    bytes_at(file, at).map(u64::from_le_bytes)
}

#[cfg(test)]
mod tests;
