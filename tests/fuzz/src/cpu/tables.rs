//! Descriptor tables, task segments and page tables: mostly of use, with everything else mixed in.
//!
//! Not responsible for: the registers that point to them (`state`).

use super::state::Mode;
use super::{CODE, CODE_BYTES, GDT, IDT, LDT, PAGES, RAM, STACK, TSS};
use crate::places;
use crate::rng::Rng;

/// Pieces of guest memory to write: address and bytes.
pub type Memory = Vec<(u64, Vec<u8>)>;

/// Slots of the descriptor tables. The first ones are always of the same kind, see [`descriptors`].
pub const SLOTS: u64 = 32;

/// Entries that are of use: the access byte, and the flags nibble (G, D/B, L, AVL).
const USEFUL: [(u64, u64); 12] = [
    (0, 0),
    (0x9b, 0x0), // 1: 16-bit code
    (0x9b, 0xc), // 2: 32-bit code
    (0x9b, 0xa), // 3: 64-bit code
    (0x93, 0xc), // 4: data
    (0x93, 0x0), // 5: 16-bit data
    (0xfb, 0x0), // 6: 16-bit code, ring 3
    (0xfb, 0xc), // 7: 32-bit code, ring 3
    (0xfb, 0xa), // 8: 64-bit code, ring 3
    (0xf3, 0xc), // 9: data, ring 3
    (0xf3, 0x0), // 10: 16-bit data, ring 3
    (0x9f, 0xc), // 11: 32-bit conforming code
];

fn descriptor(base: u64, limit: u64, access: u64, flags: u64) -> u64 {
    limit & 0xffff
        | (base & 0xff_ffff) << 16
        | (access & 0xff) << 40
        | (limit >> 16 & 0xf) << 48
        | (flags & 0xf) << 52
        | (base >> 24 & 0xff) << 56
}

/// A gate to somewhere in the code.
fn gate(rng: &Rng, mode: Mode, kind: u64) -> u64 {
    let code = match mode {
        Mode::Long(_) | Mode::Compatibility(..) => [3, 3, 3, 8],
        _ => [1, 2, 2, 11],
    };
    let selector = if rng.once_in(16) { rng.next() & 0xffff } else { rng.pick(&code) << 3 };
    let offset = if rng.once_in(16) { rng.value() } else { (CODE + rng.below(CODE_BYTES)) & !7 };
    let extra = rng.pick(&[0, 0, 0, rng.below(256)]);
    let dpl = rng.pick(&[0, 3, 3, rng.below(4)]);
    let present = if rng.once_in(32) { 0 } else { 0x80 };
    offset & 0xffff
        | selector << 16
        | extra << 32
        | (present | dpl << 5 | kind) << 40
        | (offset & 0xffff_0000) << 32
}

/// GDT or LDT: [`USEFUL`], a TSS and an LDT in slots 12 to 15, and anything in the rest.
fn descriptors(rng: &Rng, mode: Mode) -> Vec<u8> {
    let mut slots = [0u64; SLOTS as usize];
    for (slot, (access, flags)) in slots.iter_mut().zip(USEFUL) {
        let limit = if rng.once_in(8) { rng.next() & 0xf_ffff } else { 0xf_ffff };
        *slot = descriptor(0, limit, access, flags);
        if rng.once_in(48) {
            *slot ^= 1 << rng.below(64);
        }
    }
    slots[0] = 0;
    slots[12] = descriptor(TSS, 0x67 + rng.below(0x2000), rng.pick(&[0x89, 0x8b, 0x81, 0xe9]), 0);
    slots[14] = descriptor(LDT, 8 * SLOTS - 1, 0x82, 0);
    for slot in &mut slots[16..] {
        let base = rng.pick(&[TSS, TSS + 0x100, LDT, rng.value()]);
        *slot = match rng.below(8) {
            0 => rng.next(),
            1 => descriptor(base, rng.value(), 0x80 | rng.next(), rng.next()),
            2 => gate(rng, mode, 5),
            3 => gate(rng, mode, 4),
            4 => descriptor(base, 0x67, rng.pick(&[0x89, 0xe9, 0x81, 0x8b]), 0),
            5 => descriptor(base, rng.value(), 0x90 | rng.next() & 0x6f, rng.next()),
            _ => gate(rng, mode, 12),
        };
    }
    slots.iter().flat_map(|slot| slot.to_le_bytes()).collect()
}

fn vectors(rng: &Rng, mode: Mode) -> Vec<u8> {
    let mut out = Vec::with_capacity(4096);
    for _ in 0..256 {
        if mode == Mode::Real {
            let offset = (CODE + rng.below(CODE_BYTES)) & !7;
            out.extend_from_slice(&(offset as u16).to_le_bytes());
            out.extend_from_slice(&[0, 0]);
            continue;
        }
        let kind = rng.pick(&[14, 14, 14, 15, 6, 7, 5, rng.below(32)]);
        let wide = matches!(mode, Mode::Long(_) | Mode::Compatibility(..));
        let kind = if wide && !rng.once_in(32) { 14 + (kind & 1) } else { kind };
        out.extend_from_slice(&gate(rng, mode, kind).to_le_bytes());
        if wide {
            out.extend_from_slice(&if rng.once_in(64) { rng.next() } else { 0 }.to_le_bytes());
        }
    }
    out
}

/// A task segment that does as a 16-bit, 32-bit or 64-bit one, with an I/O map.
fn task(rng: &Rng, mode: Mode) -> Vec<u8> {
    let mut out = vec![0; 0x300];
    if rng.once_in(4) {
        rng.fill(&mut out);
    }
    let mut put = |at: usize, bytes: &[u8]| out[at..at + bytes.len()].copy_from_slice(bytes);
    if let Mode::Long(_) | Mode::Compatibility(..) = mode {
        for at in [4, 12, 20, 0x24, 0x2c, 0x34, 0x3c, 0x44, 0x4c, 0x54] {
            put(at, &stack(rng).to_le_bytes());
        }
    } else {
        for at in [4, 12, 20] {
            put(at, &(stack(rng) as u32).to_le_bytes());
            put(at + 4, &(4u32 << 3).to_le_bytes());
        }
        // The state that a switch to it loads.
        put(0x1c, &(PAGES as u32).to_le_bytes());
        put(0x20, &((CODE + rng.below(CODE_BYTES)) as u32).to_le_bytes());
        for (at, slot) in [(0x48, 4), (0x4c, 2), (0x50, 4), (0x54, 4), (0x58, 4), (0x5c, 4)] {
            put(at, &u32::to_le_bytes(slot << 3));
        }
    }
    put(0x66, &(rng.pick(&[0x68, 0xffff, 0x88, 0x2ff]) as u16).to_le_bytes());
    out
}

/// A stack pointer: mostly inside the stacks, sometimes where they end or anywhere.
pub fn stack(rng: &Rng) -> u64 {
    match rng.below(16) {
        0 => rng.value(),
        1 => STACK + rng.below(9),
        2 => RAM - rng.below(9),
        _ => STACK + 0x100 + (rng.below(0x2e00) & !7),
    }
}

/// A page table entry for a page, mostly one that permits.
fn entry(rng: &Rng, target: u64, wide: bool) -> u64 {
    let mut flags = 7;
    if rng.once_in(4) {
        flags ^= rng.pick(&[1, 2, 4, 6]);
    }
    flags |= rng.bits(0x178);
    if wide && rng.once_in(16) {
        flags |= rng.bits(0xfff0_0000_0000_0000);
    }
    if rng.once_in(128) {
        flags |= 1 << rng.below(if wide { 64 } else { 32 });
    }
    target | flags
}

/// Where a page of the last level leads.
fn target(rng: &Rng, page: u64) -> u64 {
    let held = page < 0x10;
    match rng.below(if held { 64 } else { 8 }) {
        0 => match rng.below(4) {
            0 => PAGES + 0x1000 * rng.below(6),
            1 => CODE + 0x1000 * rng.below(2),
            2 => rng.next() & 0xff_ffff_f000,
            _ => places::page(rng, RAM),
        },
        _ => page << 12,
    }
}

/// Page tables at [`PAGES`]: six pages. The first is the root (32-bit, or level 4), the second level 3 or PAE's directory pointers.
fn pages(rng: &Rng, mode: Mode) -> Vec<u8> {
    let wide = mode.wide_pages();
    let mut out = vec![0; 6 * 4096];
    let size = if wide { 8 } else { 4 };
    let mut put = |table: usize, index: usize, entry: u64| {
        let at = table * 4096 + index * size;
        out[at..at + size].copy_from_slice(&entry.to_le_bytes()[..size]);
    };
    // Tables: 0 root, 1 level 3 (or PAE pointers), 2 level 2, 3 the first 2 MiB, 4 the next.
    let table = |n: u64| PAGES + 0x1000 * n;
    let upper = |rng: &Rng, n: u64| {
        let entry = entry(rng, table(n), wide) & !0x80;
        if rng.once_in(24) { entry } else { entry & 0xfff_ffff_ffff_ffff | 7 }
    };
    let large = |rng: &Rng, step: u64| {
        let base =
            rng.pick(&[0, 0, step, 0xfec0_0000 & !(step - 1), rng.next() & 0xff_ffff_ffff & !(step - 1)]);
        entry(rng, base, wide) | 0x80
    };
    let entries = 4096 / size;
    for page in 0..entries as u64 {
        let at = target(rng, page);
        put(3, page as usize, entry(rng, at, wide));
        let at = target(rng, page + entries as u64);
        put(4, page as usize, entry(rng, at, wide));
    }
    let directory = if wide { 2 } else { 0 };
    put(directory, 0, upper(rng, 3));
    put(directory, 1, upper(rng, 4));
    for index in [2, 3, 4, entries - 1] {
        let made = if rng.once_in(2) {
            large(rng, if wide { 2 << 20 } else { 4 << 20 })
        } else {
            upper(rng, rng.below(6))
        };
        put(directory, index, made);
    }
    if wide {
        put(1, 0, upper(rng, 2));
        for index in [1, 2, 3, 511] {
            let made = if rng.once_in(2) { large(rng, 1 << 30) } else { upper(rng, rng.below(6)) };
            put(1, index, made);
        }
        put(0, 0, upper(rng, 1));
        for index in [1, 255, 256, 511] {
            put(0, index, upper(rng, rng.below(6)));
        }
    }
    out
}

/// Everything that a mode wants in memory.
pub fn make(rng: &Rng, mode: Mode) -> Memory {
    let mut memory = vec![(IDT, vectors(rng, mode))];
    if mode != Mode::Real {
        memory.push((GDT, descriptors(rng, mode)));
        memory.push((LDT, descriptors(rng, mode)));
        memory.push((TSS, task(rng, mode)));
    }
    if mode.has_paging() {
        memory.push((PAGES, pages(rng, mode)));
    }
    memory
}
