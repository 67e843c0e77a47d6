//! The arena: the addresses that a case may use, the same in the child process that runs it natively and in the page tables
//! of the interpreter's guest.
//!
//! Everything lies in one span of 64 KiB below 2 GiB, so that 32-bit addresses reach it, a displacement does, and so do the
//! offsets of a 16-bit segment that starts at [`BASE`]. All pages are user pages:
//!
//! ```text
//!     BASE + 0x0000   -      unmapped
//!            0x2000   r-x    CODE: INT3 everywhere but for the case's instruction
//!            0x3000   -      unmapped: where code that ends with its page goes on
//!            0x4000   r--    READ_ONLY  \
//!            0x5000   rw-    DATA        | three pages in a row, so that an access can cross from each into the next
//!            0x6000   rw-               /
//!            0x7000   -      unmapped
//!            0x9000   rw-    STACK: unmapped below and above
//!            0xa000   -      unmapped
//!            0xf000   rw-    RIM: ends with the 16-bit segments' limit, and an unmapped page follows
//!           0x10000   -      unmapped, as is everything outside
//! ```
//!
//! Data pages can't be executed. Their contents are the [`background`] but for the case's patches.
//!
//! Not responsible for: making the pages (`native`, and the interpreter's side).

use crate::case::Mode;
use gemel_x86::Segment;
use gemel_x86::segment::{CS, DS, ES, FS, GS, SS};
use std::ops::Range;
use std::sync::OnceLock;

/// Where the arena starts.
pub const BASE: u32 = 0x1234_0000;
/// How long it is: what a 16-bit segment at [`BASE`] holds.
pub const SPAN: u32 = 0x1_0000;
/// Size of a page.
pub const PAGE: u32 = 0x1000;
/// The page of code.
pub const CODE: u32 = BASE + 0x2000;
/// The page of data that can't be written.
pub const READ_ONLY: u32 = BASE + 0x4000;
/// Two pages of data.
pub const DATA: u32 = BASE + 0x5000;
/// A page of data apart, meant for RSP.
pub const STACK: u32 = BASE + 0x9000;
/// The page of data below the 16-bit segments' limit.
pub const RIM: u32 = BASE + 0xf000;
/// What stands in the code page around the instruction: INT3.
pub const FILLING: u8 = 0xcc;
/// How far FS.base is above DS.base, in every mode.
pub const FS_SHIFT: u32 = 0x10;
/// How far GS.base is above DS.base, in every mode.
pub const GS_SHIFT: u32 = 0x20;

/// Mapped pages in a row with one kind of access.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Region {
    /// Linear address.
    pub address: u32,
    /// Length in bytes, whole pages.
    pub length: u32,
    /// Whether user mode may write.
    pub writable: bool,
    /// Whether code may run.
    pub executable: bool,
}

impl Region {
    /// Its addresses.
    pub const fn range(&self) -> Range<u32> {
        self.address..self.address + self.length
    }
}

/// Everything that is mapped, by ascending address.
pub const REGIONS: [Region; 5] = [
    Region { address: CODE, length: PAGE, writable: false, executable: true },
    Region { address: READ_ONLY, length: PAGE, writable: false, executable: false },
    Region { address: DATA, length: 2 * PAGE, writable: true, executable: false },
    Region { address: STACK, length: PAGE, writable: true, executable: false },
    Region { address: RIM, length: PAGE, writable: true, executable: false },
];

/// Whether `length` bytes from `address` all lie in pages of data.
pub fn holds_data(address: u32, length: u32) -> bool {
    let inside = |at: u32| REGIONS.iter().any(|r| !r.executable && r.range().contains(&at));
    // No region is shorter than a patch, so the ends tell.
    address.checked_add(length.saturating_sub(1)).is_some_and(|last| inside(address) && inside(last))
}

/// What the arena holds before patches: indexed by the distance from [`BASE`]. Pages of code are [`FILLING`]; data is a fixed
/// random texture; what is not mapped is zero.
pub fn background() -> &'static [u8] {
    static BACKGROUND: OnceLock<Vec<u8>> = OnceLock::new();
    BACKGROUND.get_or_init(|| {
        let mut bytes = vec![0; SPAN as usize];
        // splitmix64; the seed is the first digits of pi.
        let mut state = 0x3141_5926_5358_9793u64;
        for region in REGIONS {
            let page = &mut bytes[(region.address - BASE) as usize..][..region.length as usize];
            if region.executable {
                page.fill(FILLING);
                continue;
            }
            for slot in page.chunks_exact_mut(8) {
                state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
                let mixed = (state ^ state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
                let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
                slot.copy_from_slice(&(mixed ^ mixed >> 31).to_le_bytes());
            }
        }
        bytes
    })
}

/// The segment register `register` (an index as in [`gemel_x86::CpuState::seg`]) while cases of `mode` run. Selectors are
/// those that Linux gives a 64-bit process, and entries of the process's own LDT.
pub fn segment(mode: Mode, register: usize) -> Segment {
    const FLAT_DATA: u16 = 0xcf3;
    const SMALL_DATA: u16 = 0x0f3;
    let flat = |selector, attr, base| Segment { selector, attr, limit: u32::MAX, base };
    let small = |entry, attr, shift: u32| Segment {
        selector: local(entry),
        attr,
        limit: SPAN - 1,
        base: u64::from(BASE + shift),
    };
    match (mode, register) {
        (Mode::Long64, CS) => flat(0x33, 0xafb, 0),
        (Mode::Long64, SS) => flat(0x2b, FLAT_DATA, 0),
        // In 64-bit mode DS and ES are null, FS and GS are null but for their bases.
        (Mode::Long64, FS) => Segment { base: FS_SHIFT.into(), ..Segment::default() },
        (Mode::Long64, GS) => Segment { base: GS_SHIFT.into(), ..Segment::default() },
        (Mode::Long64, _) => Segment::default(),
        (Mode::Protected32, CS) => flat(0x23, 0xcfb, 0),
        (Mode::Protected32, FS) => flat(local(2), FLAT_DATA, FS_SHIFT.into()),
        (Mode::Protected32, GS) => flat(local(3), FLAT_DATA, GS_SHIFT.into()),
        (Mode::Protected32, _) => flat(0x2b, FLAT_DATA, 0),
        (Mode::Protected16, CS) => small(0, 0x0fb, 0),
        (Mode::Protected16, SS | DS | ES) => small(1, SMALL_DATA, 0),
        (Mode::Protected16, FS) => small(4, SMALL_DATA, FS_SHIFT),
        (Mode::Protected16, _) => small(5, SMALL_DATA, GS_SHIFT),
    }
}

/// The selector of an entry of the LDT, at privilege level 3.
const fn local(entry: u16) -> u16 {
    entry << 3 | 7
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn regions_ascend_and_the_span_holds_them() {
        let mut end = BASE;
        for region in REGIONS {
            assert!(region.address >= end && region.address % PAGE == 0 && region.length % PAGE == 0);
            end = region.range().end;
        }
        assert!(end <= BASE + SPAN);
    }

    #[test]
    fn a_patch_may_cross_from_page_to_page_but_not_out() {
        assert!(
            holds_data(DATA - 1, 2) && holds_data(DATA + PAGE - 1, 64) && holds_data(RIM + PAGE - 64, 64)
        );
        assert!(!holds_data(DATA + 2 * PAGE - 1, 2) && !holds_data(STACK - 1, 2) && !holds_data(CODE, 4));
    }

    #[test]
    fn every_segment_register_has_a_segment() {
        for mode in Mode::ALL {
            for register in [ES, CS, SS, DS, FS, GS] {
                let segment = segment(mode, register);
                assert!(segment.base < u64::from(BASE + SPAN));
                assert_eq!(register == CS, segment.attr & gemel_x86::segment::attr::CODE != 0);
            }
        }
    }
}
