//! Where two machines' memories differ.
//!
//! Not responsible for: who wrote what (`writer`).

use gemel_machine::{GuestRam, PAGE_SIZE};

/// A byte of guest RAM: its physical address and its two values.
pub(crate) type Differing = (u64, [u8; 2]);

/// The first `most` bytes that differ, and how many differ in all.
pub(crate) fn differences(a: &GuestRam, b: &GuestRam, most: usize) -> (Vec<Differing>, u64) {
    let (mut found, mut total) = (Vec::new(), 0);
    let (mut left, mut right) = ([0; PAGE_SIZE], [0; PAGE_SIZE]);
    for (start, end) in a.ranges() {
        for address in (start..end).step_by(PAGE_SIZE) {
            if a.read(address, &mut left).is_err() || b.read(address, &mut right).is_err() || left == right {
                continue;
            }
            for (offset, (x, y)) in left.iter().zip(&right).enumerate().filter(|(_, (x, y))| x != y) {
                total += 1;
                if found.len() < most {
                    found.push((address + offset as u64, [*x, *y]));
                }
            }
        }
    }
    (found, total)
}
