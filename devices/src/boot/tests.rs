use super::*;
use crate::conformance::Rng;
use gemel_machine::ram::LOW_END;
use gemel_x86::control::{CR0_PG, EFER_LMA};

fn ram(mib: u64) -> GuestRam {
    GuestRam::new(mib << 20).unwrap()
}

fn at<const N: usize>(ram: &GuestRam, address: u64) -> [u8; N] {
    ram.read_array(address).unwrap()
}

fn word(ram: &GuestRam, address: u64) -> u32 {
    u32::from_le_bytes(at(ram, address))
}

/// A bzImage of one set-up sector, protocol 2.15, whose code is `code`.
fn bzimage(xloadflags: u16, code: &[u8]) -> Vec<u8> {
    let mut file = vec![0; 1024];
    let mut put = |at: usize, bytes: &[u8]| file[at..at + bytes.len()].copy_from_slice(bytes);
    put(0x1f1, &[1]);
    put(0x1fe, &[0x55, 0xaa, 0xeb, 0x6a]); // the jump gives the header's end: 202h + 6ah
    put(0x202, b"HdrS");
    put(0x206, &0x20f_u16.to_le_bytes());
    put(0x211, &[1]);
    put(0x22c, &0x7fff_ffff_u32.to_le_bytes());
    put(0x236, &xloadflags.to_le_bytes());
    put(0x238, &2047_u32.to_le_bytes());
    put(0x258, &0x100_0000_u64.to_le_bytes());
    put(0x260, &0x80_0000_u32.to_le_bytes());
    file.extend_from_slice(code);
    file
}

#[test]
fn a_64_bit_linux_starts_in_long_mode_with_its_zero_page() {
    let ram = ram(64);
    let initrd = vec![7; 5000];
    let state = load(&bzimage(1, &[0xf4; 700]), Some(&initrd), "console=ttyS0", &ram, 0xe_0000).unwrap();
    assert_eq!((state.rip, state.gpr[6]), (0x10_0200, 0x1_0000));
    assert_ne!(state.efer & EFER_LMA, 0);
    assert_ne!(state.cr0 & CR0_PG, 0);
    assert_eq!((state.seg[1].selector, state.seg[3].selector), (0x10, 0x18));
    assert_eq!(at::<2>(&ram, 0x10_0000 + 699), [0xf4, 0]);

    let zero_page = 0x1_0000;
    assert_eq!(u64::from_le_bytes(at(&ram, zero_page + 0x70)), 0xe_0000);
    assert_eq!(at::<4>(&ram, zero_page + 0x202), *b"HdrS");
    let command_line = u64::from(word(&ram, zero_page + 0x228));
    assert_eq!(at::<14>(&ram, command_line), *b"console=ttyS0\0");
    let (start, size) = (word(&ram, zero_page + 0x218), word(&ram, zero_page + 0x21c));
    assert_eq!((start % 4096, size), (0, 5000));
    assert!(start >= 0x180_0000, "above the unpacked kernel");
    assert_eq!(at::<2>(&ram, u64::from(start) + 4999), [7, 0]);
    // E820: the last entry is the RAM above 1 MiB.
    let count = at::<1>(&ram, zero_page + 0x1e8)[0];
    let last = zero_page + 0x2d0 + 20 * u64::from(count - 1);
    assert_eq!([word(&ram, last), word(&ram, last + 8), word(&ram, last + 16)], [0x10_0000, 0x3f0_0000, 1]);
}

#[test]
fn the_page_tables_map_the_first_four_gib_to_themselves() {
    let ram = ram(64);
    let state = load(&bzimage(1, &[0; 16]), None, "", &ram, 0).unwrap();
    for address in [0, 0x10_0200, 0x3fff_ffff, 0x4000_0000, 0xfee0_0000, 0xffff_ffff_u64] {
        let entry = |table: u64, shift: u32| {
            u64::from_le_bytes(at(&ram, (table & !0xfff) + (address >> shift & 0x1ff) * 8))
        };
        let page = entry(entry(entry(state.cr3, 39), 30), 21);
        assert_eq!(page & 0x83, 0x83, "present, writable, 2 MiB");
        assert_eq!(page & !0x1f_ffff & 0xffff_ffff, address & !0x1f_ffff);
    }
}

#[test]
fn a_32_bit_linux_starts_in_protected_mode() {
    let state = load(&bzimage(0, &[0xf4; 16]), None, "", &ram(64), 0).unwrap();
    assert_eq!((state.rip, state.gpr[6], state.efer), (0x10_0000, 0x1_0000, 0));
    assert_eq!(state.cr0, 0x11);
    assert!(state.seg[3].is_flat() && state.seg[1].limit == u32::MAX);
}

#[test]
fn what_does_not_fit_is_said() {
    let image = bzimage(1, &[0; 16]);
    assert!(matches!(load(&image, None, "", &ram(16), 0), Err(LoadError::NoRoom { .. })));
    let initrd = vec![0; 48 << 20];
    assert!(matches!(load(&image, Some(&initrd), "", &ram(64), 0), Err(LoadError::NoRoom { .. })));
    let long = "x".repeat(2048);
    let error = load(&image, None, &long, &ram(64), 0).unwrap_err();
    assert_eq!(error, LoadError::CommandLine { len: 2048, max: 2047 });
    assert_eq!(load(&image, None, "a\0b", &ram(64), 0), Err(LoadError::CommandLineNul));
    assert_eq!(load(b"#!/bin/sh\n", None, "", &ram(64), 0), Err(LoadError::NotAKernel));
    assert_eq!(load(b"", None, "", &ram(64), 0), Err(LoadError::NotAKernel));
}

/// A 32-bit ELF with one segment of code at `address` and, if given, a note.
fn elf32(address: u32, code: &[u8], note: &[u8]) -> Vec<u8> {
    let offset = 0x1000;
    let mut file = b"\x7fELF\x01\x01\x01".to_vec();
    file.resize(16, 0);
    file.extend_from_slice(&[2, 0, 3, 0, 1, 0, 0, 0]);
    let header = [address, 52, 0, 0];
    file.extend_from_slice(&header.map(u32::to_le_bytes).concat());
    file.extend_from_slice(&[52, 0, 32, 0, 2, 0, 0, 0, 0, 0, 0, 0]);
    let size = code.len() as u32;
    for segment in [
        [1, offset, 0xc000_0000, address, size, size + 64, 7, 4096],
        [4, offset + size, 0, 0, note.len() as u32, note.len() as u32, 4, 4],
    ] {
        file.extend_from_slice(&segment.map(u32::to_le_bytes).concat());
    }
    file.resize(offset as usize, 0);
    file.extend_from_slice(code);
    file.extend_from_slice(note);
    file
}

fn pvh_note(entry: u32) -> Vec<u8> {
    let mut note = [4u32, 8, 3].map(u32::to_le_bytes).concat(); // another note first
    note.extend_from_slice(b"GNU\0abcdefgh");
    note.extend_from_slice(&[4u32, 4, 18].map(u32::to_le_bytes).concat());
    note.extend_from_slice(b"Xen\0");
    note.extend_from_slice(&entry.to_le_bytes());
    note
}

#[test]
fn a_pvh_kernel_gets_its_start_info() {
    let ram = ram(64);
    let file = elf32(0x20_0000, &[0x90; 100], &pvh_note(0x20_0010));
    let state = load(&file, Some(&[5; 10]), "quiet", &ram, 0xe_0000).unwrap();
    assert_eq!((state.rip, state.cr0 & CR0_PG), (0x20_0010, 0));
    let info = state.gpr[3];
    assert_eq!([word(&ram, info), word(&ram, info + 4), word(&ram, info + 12)], [0x336e_c578, 1, 1]);
    let long = |offset| u64::from_le_bytes(at(&ram, info + offset));
    assert_eq!(at::<6>(&ram, long(24)), *b"quiet\0");
    assert_eq!(long(32), 0xe_0000);
    let module = long(16);
    let start = u64::from_le_bytes(at(&ram, module));
    assert_eq!((at::<2>(&ram, start), word(&ram, module + 8)), ([5, 5], 10));
    let (map, entries) = (long(40), u64::from(word(&ram, info + 48)));
    assert_eq!(u64::from_le_bytes(at(&ram, map + 24 * (entries - 1))), 0x10_0000);
}

#[test]
fn a_multiboot_elf_is_entered_at_its_physical_address() {
    let ram = ram(32);
    let magic = 0x1bad_b002_u32;
    let mut code = [magic, 3, magic.wrapping_add(3).wrapping_neg()].map(u32::to_le_bytes).concat();
    code.resize(64, 0x90);
    let mut file = elf32(0x10_0000, &code, &[]);
    file[24..28].copy_from_slice(&0xc000_000c_u32.to_le_bytes()); // entry as linked
    let state = load(&file, Some(&[5; 10]), "a b", &ram, 0).unwrap();
    assert_eq!((state.rip, state.gpr[0]), (0x10_000c, 0x2bad_b002));
    let info = state.gpr[3];
    assert_eq!(word(&ram, info), 1 | 4 | 8 | 0x40 | 0x200);
    assert_eq!(word(&ram, info + 8), 31 << 10);
    assert_eq!(at::<11>(&ram, u64::from(word(&ram, info + 16))), *b"kernel a b\0");
    let module = u64::from(word(&ram, info + 24));
    assert_eq!(word(&ram, module + 4) - word(&ram, module), 10);
    let mut at_entry = u64::from(word(&ram, info + 48));
    let end = at_entry + u64::from(word(&ram, info + 44));
    let mut usable = 0;
    while at_entry < end {
        if word(&ram, at_entry + 20) == 1 {
            usable += u64::from(word(&ram, at_entry + 12));
        }
        at_entry += u64::from(word(&ram, at_entry)) + 4;
    }
    assert_eq!(usable, 0x9_fc00 + (31 << 20));
}

#[test]
fn a_raw_multiboot_kernel_goes_where_its_header_says() {
    let ram = ram(32);
    let (magic, flags) = (0x1bad_b002_u32, 0x1_0000_u32);
    let sum = magic.wrapping_add(flags).wrapping_neg();
    let header = [magic, flags, sum, 0x20_0010, 0x20_0000, 0x20_0040, 0x20_1000, 0x20_0030];
    let mut file = vec![0xee; 0x20 + 0x10];
    file.extend_from_slice(&header.map(u32::to_le_bytes).concat());
    file.resize(0x200, 0xcc);
    let state = load(&file, None, "", &ram, 0).unwrap();
    assert_eq!(state.rip, 0x20_0030);
    assert_eq!(at::<1>(&ram, 0x20_0000), [0xee]);
    assert_eq!(word(&ram, 0x20_0010), magic);
    assert_eq!(at::<1>(&ram, 0x20_0040), [0], "nothing beyond the load end");
}

#[test]
fn ram_above_four_gib_is_in_the_map() {
    let ram = ram(4096);
    let map = memory_map::memory_map(&ram);
    let last = map.last().unwrap();
    assert_eq!((last.start, last.size), (1 << 32, (4096 << 20) - LOW_END));
    assert!(map.windows(2).all(|w| w[0].start + w[0].size <= w[1].start), "ascending, no overlap");
}

/// Any file whatsoever is loaded or refused.
#[test]
fn damaged_files_never_panic() {
    let magic = 0x1bad_b002_u32;
    let multiboot =
        [magic, 0x1_0003, magic.wrapping_add(0x1_0003).wrapping_neg(), 0x10_0000, 0x10_0000, 0, 0, 0x10_0000];
    let good = [
        bzimage(1, &[0; 64]),
        bzimage(0, &[0; 64]),
        elf32(0x10_0000, &[0x90; 64], &pvh_note(0x10_0000)),
        elf32(0x10_0000, &multiboot.map(u32::to_le_bytes).concat(), &[]),
        multiboot.map(u32::to_le_bytes).concat(),
    ];
    let ram = ram(32);
    let mut rng = Rng(7);
    let (mut loaded, mut refused) = (0, 0);
    for file in &good {
        let headers = file.len().min(0x270);
        for len in (0..file.len()).filter(|len| *len < 0x300 || len % 97 == 0) {
            let _ = load(&file[..len], Some(&[1, 2, 3]), "x", &ram, 0);
        }
        for _ in 0..3000 {
            let mut bad = file.clone();
            for _ in 0..=rng.below(3) {
                let at = rng.below(headers as u64) as usize;
                bad[at] = match rng.below(4) {
                    0 => 0xff,
                    1 => 0,
                    _ => rng.next() as u8,
                };
            }
            match load(&bad, Some(&[1, 2, 3]), "x", &ram, 0) {
                Ok(_) => loaded += 1,
                Err(_) => refused += 1,
            }
        }
    }
    assert!(loaded > 0 && refused > 0, "{loaded} loaded, {refused} refused");
}
