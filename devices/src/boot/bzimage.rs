//! Linux bzImage by the kernel's boot protocol (Documentation/arch/x86/boot.rst, 2.12 for the 64-bit entry).
//!
//! Not responsible for: the real-mode set-up code, which is skipped: the protected-mode part is entered directly.

use super::entry::{self, RSI};
use super::memory_map::{Kind, ONE_MIB, memory_map};
use super::{Job, LoadError, bytes_at, u16_at, u32_at, u64_at};
use gemel_x86::CpuState;

/// Where the zero page (struct boot_params) goes.
const ZERO_PAGE: u64 = 0x1_0000;
const ZERO_PAGE_SIZE: usize = 0x1000;

/// Offsets in the zero page and, from 1f1h on, in the file.
const ACPI_RSDP_ADDR: usize = 0x070;
const E820_ENTRIES: usize = 0x1e8;
const SETUP_SECTS: usize = 0x1f1;
const HEADER_LENGTH: usize = 0x201;
const TYPE_OF_LOADER: usize = 0x210;
const LOADFLAGS: usize = 0x211;
const CODE32_START: usize = 0x214;
const RAMDISK_IMAGE: usize = 0x218;
const RAMDISK_SIZE: usize = 0x21c;
const CMD_LINE_PTR: usize = 0x228;
const E820_TABLE: usize = 0x2d0;

const LOADED_HIGH: u8 = 1 << 0;
const XLF_KERNEL_64: u16 = 1 << 0;
/// "No boot loader id assigned".
const UNDEFINED_LOADER: u8 = 0xff;
/// The 64-bit entry, from the start of the protected-mode part.
const ENTRY_64: u64 = 0x200;

/// What the loader needs of the set-up header.
pub(super) struct Header {
    version: u16,
    setup_size: usize,
    loadflags: u8,
    initrd_addr_max: u32,
    xloadflags: u16,
    cmdline_size: u32,
    pref_address: u64,
    init_size: u32,
}

impl Header {
    /// Reads the header, if the file has one.
    pub(super) fn find(file: &[u8]) -> Option<Self> {
        if bytes_at(file, 0x202) != Some(*b"HdrS") || u16_at(file, 0x1fe) != Some(0xaa55) {
            return None;
        }
        let version = u16_at(file, 0x206)?;
        let since = |wanted, value: Option<u32>, old| if version >= wanted { value } else { Some(old) };
        // "if the setup_sects field contains 0, the real value is 4"; the boot sector comes on top.
        let sectors = match *file.get(SETUP_SECTS)? {
            0 => 4,
            n => usize::from(n),
        };
        Some(Self {
            version,
            setup_size: (sectors + 1) * 512,
            loadflags: *file.get(LOADFLAGS)?,
            initrd_addr_max: since(0x203, u32_at(file, 0x22c), 0x37ff_ffff)?,
            xloadflags: since(0x20c, u16_at(file, 0x236).map(u32::from), 0)? as u16,
            cmdline_size: since(0x206, u32_at(file, 0x238), 255)?,
            pref_address: if version >= 0x20a { u64_at(file, 0x258)? } else { ONE_MIB },
            init_size: since(0x20a, u32_at(file, 0x260), 0)?,
        })
    }
}

/// Loads a bzImage; 64-bit entry when it has one.
pub(super) fn load(job: &Job<'_>, header: &Header) -> Result<CpuState, LoadError> {
    if header.version < 0x202 || header.loadflags & LOADED_HIGH == 0 {
        return Err(LoadError::Unsupported("a Linux kernel older than boot protocol 2.02, or a zImage"));
    }
    let code = job.kernel.get(header.setup_size..).filter(|code| !code.is_empty());
    let code = code.ok_or(LoadError::Damaged("it ends inside its set-up code"))?;
    job.claim("the kernel", ONE_MIB, code.len() as u64)?;
    job.claim("the unpacked kernel", header.pref_address.max(ONE_MIB), u64::from(header.init_size))?;
    job.place("the kernel", ONE_MIB, code)?;

    // The kernel unpacks itself at pref_address, or where it was loaded if that is higher.
    let unpacked = header.pref_address.max(ONE_MIB) + u64::from(header.init_size);
    let floor = unpacked.max(ONE_MIB + code.len() as u64);
    let initrd = job.place_initrd(floor, u64::from(header.initrd_addr_max) + 1)?;
    let command_line = job.place_command_line(job.append, header.cmdline_size as usize)?;
    job.place("the boot parameters", ZERO_PAGE, &zero_page(job, initrd, command_line)?)?;

    let mut state = if header.xloadflags & XLF_KERNEL_64 != 0 {
        entry::long(job, ONE_MIB + ENTRY_64)?
    } else {
        entry::protected(job, ONE_MIB)?
    };
    state.gpr[RSI] = ZERO_PAGE;
    Ok(state)
}

fn zero_page(job: &Job<'_>, initrd: Option<u64>, command_line: u64) -> Result<Vec<u8>, LoadError> {
    let mut page = vec![0; ZERO_PAGE_SIZE];
    // "The end of setup header can be calculated as 0x0202 + byte value at offset 0x0201".
    let end = 0x202 + usize::from(job.kernel[HEADER_LENGTH]);
    let header = job.kernel.get(SETUP_SECTS..end.min(E820_TABLE));
    let header = header.ok_or(LoadError::Damaged("it ends inside its header"))?;
    page[SETUP_SECTS..SETUP_SECTS + header.len()].copy_from_slice(header);

    let mut put = |at: usize, bytes: &[u8]| page[at..at + bytes.len()].copy_from_slice(bytes);
    put(TYPE_OF_LOADER, &[UNDEFINED_LOADER]);
    put(CODE32_START, &(ONE_MIB as u32).to_le_bytes());
    put(CMD_LINE_PTR, &(command_line as u32).to_le_bytes());
    put(ACPI_RSDP_ADDR, &job.rsdp.to_le_bytes());
    if let Some(start) = initrd {
        put(RAMDISK_IMAGE, &(start as u32).to_le_bytes());
        put(RAMDISK_SIZE, &(job.initrd.len() as u32).to_le_bytes());
    }
    let map = memory_map(job.ram);
    put(E820_ENTRIES, &[map.len() as u8]);
    for (i, region) in map.iter().enumerate() {
        let at = E820_TABLE + i * 20;
        put(at, &region.start.to_le_bytes());
        put(at + 8, &region.size.to_le_bytes());
        put(at + 16, &(region.kind as u32).to_le_bytes());
    }
    debug_assert!(map.iter().any(|r| r.kind == Kind::Usable));
    Ok(page)
}
