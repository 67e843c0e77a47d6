//! The child's arena: its pages where cases see them, the same pages where the child may write all of them, and what each
//! page should hold, to tell what a case changed.
//!
//! Not responsible for: what the arena looks like (`arena`), nor for registers (`frame`).

#![allow(unsafe_code)] // pages at fixed addresses, written through a second mapping

use super::ring::Left;
use crate::arena::{self, BASE, CODE, PAGE, REGIONS, SPAN};
use crate::case::Case;
use std::ptr;

const LINE: usize = 64;

/// The arena, from the child's side.
pub struct Memory {
    /// All of it, writable: at an address that no case knows.
    writable: *mut u8,
    /// What is there before the case runs.
    expected: *mut u8,
    background: &'static [u8],
}

impl Memory {
    /// Maps it, filled with the background.
    ///
    /// # Errors
    /// When the kernel gives no memory, or something is in the arena already.
    pub fn map() -> std::io::Result<Self> {
        let background = arena::background();
        // SAFETY: new mappings; those at fixed addresses replace nothing. They stay until the process ends.
        unsafe {
            let file = libc::memfd_create(c"arena".as_ptr(), libc::MFD_CLOEXEC);
            if file < 0 || libc::ftruncate(file, SPAN.into()) != 0 {
                return Err(std::io::Error::last_os_error());
            }
            let writable =
                map(ptr::null_mut(), SPAN, libc::PROT_READ | libc::PROT_WRITE, 0, Some((file, 0)))?;
            let expected = map(ptr::null_mut(), SPAN, libc::PROT_READ | libc::PROT_WRITE, 0, None)?;
            ptr::copy_nonoverlapping(background.as_ptr(), writable, background.len());
            ptr::copy_nonoverlapping(background.as_ptr(), expected, background.len());
            for region in REGIONS {
                let protection = libc::PROT_READ
                    | if region.writable { libc::PROT_WRITE } else { 0 }
                    | if region.executable { libc::PROT_EXEC } else { 0 };
                map(
                    region.address as *mut libc::c_void,
                    region.length,
                    protection,
                    libc::MAP_FIXED_NOREPLACE,
                    Some((file, (region.address - BASE).into())),
                )?;
            }
            libc::close(file);
            Ok(Self { writable, expected, background })
        }
    }

    /// Places the case's code, which is at linear address `at`, and its patches.
    pub fn place(&mut self, case: &Case, at: u32) {
        let code = case.code();
        // SAFETY: the parent checked that code and patches lie in the arena; both copies are that long.
        unsafe {
            ptr::copy_nonoverlapping(code.as_ptr(), self.writable.add((at - BASE) as usize), code.len());
            for patch in case.patches.iter().filter(|patch| patch.length > 0) {
                for copy in [self.writable, self.expected] {
                    let to = copy.add((patch.address - BASE) as usize);
                    ptr::copy_nonoverlapping(patch.bytes.as_ptr(), to, patch.length.into());
                }
            }
        }
    }

    /// Writes down which lines are not as they were placed, and makes everything the background again.
    pub fn compare_and_reset(&mut self, case: &Case, at: u32, left: &mut Left) {
        left.changes = 0;
        for region in REGIONS.iter().filter(|region| region.writable) {
            for page in region.range().step_by(PAGE as usize) {
                self.compare(page, PAGE as usize, |this| {
                    for line in (page..page + PAGE).step_by(LINE) {
                        this.compare(line, LINE, |this| this.note(line, left));
                    }
                });
            }
        }
        // SAFETY: as when they were placed.
        unsafe {
            self.writable.add((at - BASE) as usize).write_bytes(arena::FILLING, case.code().len());
        }
        for patch in case.patches.iter().filter(|patch| patch.length > 0) {
            self.reset(patch.address, patch.length.into());
        }
    }

    /// Does `then` if `length` bytes at `address` are not what they should be.
    fn compare(&mut self, address: u32, length: usize, then: impl FnOnce(&mut Self)) {
        let from = (address - BASE) as usize;
        // SAFETY: both copies are as long as the arena, in which the caller's range lies.
        let same = unsafe {
            libc::memcmp(self.writable.add(from).cast(), self.expected.add(from).cast(), length) == 0
        };
        if !same {
            then(self);
        }
    }

    /// A line has changed.
    fn note(&mut self, address: u32, left: &mut Left) {
        if let Some(line) = left.lines.get_mut(left.changes as usize) {
            line.address = address;
            // SAFETY: the line lies in the arena.
            unsafe {
                let from = self.writable.add((address - BASE) as usize);
                ptr::copy_nonoverlapping(from, line.bytes.as_mut_ptr(), LINE);
            }
            left.changes += 1;
        }
        self.reset(address, LINE);
    }

    fn reset(&mut self, address: u32, length: usize) {
        let from = (address - BASE) as usize;
        // SAFETY: the range lies in the arena, whose copies are as long as the background.
        unsafe {
            for copy in [self.writable, self.expected] {
                ptr::copy_nonoverlapping(self.background.as_ptr().add(from), copy.add(from), length);
            }
        }
    }

    /// The linear address of the case's code.
    pub fn code_address(case: &Case) -> u32 {
        let address = arena::segment(case.mode, gemel_x86::segment::CS).base as u32;
        let address = address.wrapping_add(case.before.rip as u32);
        // The parent checked it; wherever else it came from, it stays in the page.
        CODE + (address - CODE) % PAGE
    }
}

/// A mapping of `file` from an offset, or of zeroes, with its pages present.
///
/// # Safety
/// Nothing else may be at `address` if `flags` fix it there.
unsafe fn map(
    address: *mut libc::c_void,
    length: u32,
    protection: i32,
    flags: i32,
    file: Option<(i32, i64)>,
) -> std::io::Result<*mut u8> {
    let (kind, file, offset) = match file {
        Some((file, offset)) => (libc::MAP_SHARED, file, offset),
        None => (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1, 0),
    };
    // SAFETY: a new mapping; the caller answers for a fixed one.
    let mapped = unsafe {
        libc::mmap(address, length as usize, protection, flags | kind | libc::MAP_POPULATE, file, offset)
    };
    if mapped == libc::MAP_FAILED { Err(std::io::Error::last_os_error()) } else { Ok(mapped.cast()) }
}
