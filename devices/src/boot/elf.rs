//! ELF files, as far as loading a kernel needs them: the program headers and the PVH note (ELF-64 Object File Format
//! 1.5; System V ABI chapter 5).
//!
//! Not responsible for: sections, relocations, dynamic linking.

use super::{Job, LoadError, u16_at, u32_at, u64_at};

const PT_LOAD: u32 = 1;
const PT_NOTE: u32 = 4;
const XEN_ELFNOTE_PHYS32_ENTRY: u32 = 18;
const EM_386: u16 = 3;
const EM_X86_64: u16 = 62;

/// One program header.
struct Segment<'a> {
    kind: u32,
    /// What the file holds of it.
    content: &'a [u8],
    physical: u64,
    virtual_address: u64,
    memory_size: u64,
}

/// An ELF executable for x86.
pub(super) struct Elf<'a> {
    entry: u64,
    segments: Vec<Segment<'a>>,
}

impl<'a> Elf<'a> {
    /// Reads the headers; `None` for what is no ELF file at all.
    pub(super) fn parse(file: &'a [u8]) -> Result<Option<Self>, LoadError> {
        if !file.starts_with(b"\x7fELF") {
            return Ok(None);
        }
        let wide = match (file.get(4), file.get(5)) {
            (Some(1), Some(1)) => false,
            (Some(2), Some(1)) => true,
            _ => return Err(LoadError::Unsupported("the ELF file is not little-endian 32 or 64 bit")),
        };
        if !matches!(u16_at(file, 18), Some(EM_386 | EM_X86_64)) {
            return Err(LoadError::Unsupported("the ELF file is not for x86"));
        }
        Self::headers(file, wide)
            .ok_or(LoadError::Damaged("its ELF program headers point outside the file"))
            .map(Some)
    }

    fn headers(file: &'a [u8], wide: bool) -> Option<Self> {
        let word = |narrow_at, wide_at| match wide {
            true => u64_at(file, wide_at),
            false => u32_at(file, narrow_at).map(u64::from),
        };
        let entry = word(24, 24)?;
        let table = usize::try_from(word(28, 32)?).ok()?;
        let (size_at, wanted, count_at) = if wide { (54, 56, 56) } else { (42, 32, 44) };
        let size = usize::from(u16_at(file, size_at)?);
        let count = usize::from(u16_at(file, count_at)?);
        if size < wanted {
            return None;
        }
        let mut segments = Vec::new();
        for i in 0..count {
            let header = file.get(table.checked_add(i * size)?..)?.get(..wanted)?;
            let word = |narrow_at, wide_at| match wide {
                true => u64_at(header, wide_at),
                false => u32_at(header, narrow_at).map(u64::from),
            };
            let start = usize::try_from(word(4, 8)?).ok()?;
            let file_size = usize::try_from(word(16, 32)?).ok()?;
            segments.push(Segment {
                kind: u32_at(header, 0)?,
                content: file.get(start..start.checked_add(file_size)?)?,
                physical: word(12, 24)?,
                virtual_address: word(8, 16)?,
                memory_size: word(20, 40)?,
            });
        }
        Some(Self { entry, segments })
    }

    /// The entry of the PVH note, if there is one.
    pub(super) fn pvh_entry(&self) -> Option<u32> {
        self.segments.iter().filter(|s| s.kind == PT_NOTE).find_map(|s| pvh_note(s.content))
    }

    /// The physical address of the entry point: kernels may be linked at other virtual addresses.
    pub(super) fn physical_entry(&self) -> u64 {
        let inside = |s: &&Segment<'_>| {
            s.kind == PT_LOAD && self.entry.checked_sub(s.virtual_address).is_some_and(|o| o < s.memory_size)
        };
        match self.segments.iter().find(inside) {
            Some(s) => (self.entry - s.virtual_address).wrapping_add(s.physical),
            None => self.entry,
        }
    }

    /// Copies the segments into RAM (which is zero, so that .bss needs nothing) and returns where the last one ends.
    pub(super) fn place(&self, job: &Job<'_>) -> Result<u64, LoadError> {
        let mut end = 0;
        for s in self.segments.iter().filter(|s| s.kind == PT_LOAD && s.memory_size > 0) {
            if (s.content.len() as u64) > s.memory_size {
                return Err(LoadError::Damaged("a segment is larger in the file than in memory"));
            }
            job.claim("the kernel", s.physical, s.memory_size)?;
            job.place("the kernel", s.physical, s.content)?;
            end = end.max(s.physical + s.memory_size);
        }
        if end == 0 { Err(LoadError::Damaged("it has no segment to load")) } else { Ok(end) }
    }
}

fn pvh_note(mut notes: &[u8]) -> Option<u32> {
    // Sizes are in bytes, name and descriptor are padded to four (gABI, "Note Section").
    let padded = |size: u32| usize::try_from(size).ok()?.checked_next_multiple_of(4);
    loop {
        let (name_size, descriptor_size) = (u32_at(notes, 0)?, u32_at(notes, 4)?);
        let kind = u32_at(notes, 8)?;
        let descriptor_at = 12usize.checked_add(padded(name_size)?)?;
        if kind == XEN_ELFNOTE_PHYS32_ENTRY && notes.get(12..16) == Some(b"Xen\0") && name_size == 4 {
            return u32_at(notes, descriptor_at);
        }
        notes = notes.get(descriptor_at.checked_add(padded(descriptor_size)?)?..)?;
    }
}
