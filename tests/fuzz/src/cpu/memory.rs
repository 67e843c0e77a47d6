#![allow(unsafe_code)] // looks at guest memory that no address leads to
//! The part of guest memory's mapping that lies under the video window. No guest address leads there, so whatever is
//! found in it was written past the end of something.
//!
//! Not responsible for: memory around the mapping (AddressSanitizer, and the kernel).

use gemel_machine::ram::VIDEO_HOLE;
use gemel_machine::{GuestRam, PAGE_SIZE};

/// Whether nothing was written there.
pub fn red_zone_is_clean(ram: &GuestRam) -> bool {
    let first = VIDEO_HOLE.start as usize / PAGE_SIZE;
    let last = VIDEO_HOLE.end as usize / PAGE_SIZE;
    (first..last).all(|page| {
        // SAFETY: a whole page of the mapping, which lives as long as `ram`; nobody else runs.
        let page =
            unsafe { std::slice::from_raw_parts(ram.host_page(page as u32).cast::<u64>(), PAGE_SIZE / 8) };
        page.iter().all(|word| *word == 0)
    })
}
