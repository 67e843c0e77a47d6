//! Page walks in all three kinds of paging: who may do what, the error codes, accessed and dirty bits, page crossings
//! (SDM 3A 4.3 to 4.8).

use crate::board::*;
use crate::case::{Case, cases};
use gemel_x86::CpuState;
use gemel_x86::control::{
    CR0_PG, CR0_WP, CR4_PAE, CR4_PSE, CR4_SMEP, EFER_LMA, EFER_LME, EFER_NXE, EFER_SCE,
};

const PML4: u64 = 0x16000;
const POINTERS: u64 = 0x17000;
const DIRECTORY: u64 = 0x18000;
const LOW_TABLE: u64 = 0x19000;
const TABLE: u64 = 0x1a000;
/// The page under test, and where it leads.
const PAGE: u64 = 0x80_0000;
const FRAME: u64 = 0xe000;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Legacy,
    Pae,
    Long,
}
use Kind::{Legacy, Long, Pae};

impl Kind {
    /// Writes entry `index` of a table.
    fn put(self, g: &Guest, table: u64, index: u64, value: u64) {
        if self == Legacy {
            g.poke32(table + 4 * index, value as u32);
        } else {
            g.poke64(table + 8 * index, value);
        }
    }

    fn get(self, g: &Guest, table: u64, index: u64) -> u64 {
        if self == Legacy { g.peek32(table + 4 * index).into() } else { g.peek64(table + 8 * index) }
    }

    /// The index of [`PAGE`] in the directory.
    fn slot(self) -> u64 {
        if self == Legacy { PAGE >> 22 } else { PAGE >> 21 }
    }

    fn set_page(self, g: &Guest, entry: u64) {
        self.put(g, TABLE, 0, entry);
    }

    fn set_directory(self, g: &Guest, entry: u64) {
        self.put(g, DIRECTORY, self.slot(), entry);
    }

    /// A guest with the first MiB mapped to itself and [`PAGE`] to [`FRAME`], all for everybody.
    fn guest(self, ring: u8) -> Guest {
        let mut g = if self == Long { Guest::long(ring) } else { Guest::protected(ring) };
        g.poke64(PML4, POINTERS | 7);
        g.poke64(POINTERS, DIRECTORY | if self == Long { 7 } else { 1 });
        self.put(&g, DIRECTORY, 0, LOW_TABLE | 7);
        self.set_directory(&g, TABLE | 7);
        for page in 0..256 {
            self.put(&g, LOW_TABLE, page, page << 12 | 7);
        }
        self.set_page(&g, FRAME | 7);
        g.state.cr0 |= CR0_PG;
        match self {
            Legacy => g.state.cr3 = DIRECTORY,
            Pae => {
                g.state.cr3 = POINTERS;
                g.state.cr4 |= CR4_PAE;
                g.state.pdpte = [DIRECTORY | 1, 0, 0, 0];
            }
            Long => {
                g.state.cr3 = PML4;
                g.state.efer = EFER_LME | EFER_LMA | EFER_SCE;
            }
        }
        g.state.gpr[3] = PAGE;
        g.poke(FRAME, &[0x0f, 0x0b]);
        g
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Access {
    Read,
    Write,
    Fetch,
}
use Access::{Fetch, Read, Write};

/// Makes the access at RBX; the error code of the page fault, or `None` when the UD2 behind it was reached.
fn access(mut g: Guest, access: Access) -> (Guest, Option<u64>) {
    let address = g.state.gpr[3];
    // mov al, [rbx]; mov [rbx], al; jmp rbx: then ud2
    g.run(match access {
        Read => &[0x8a, 0x03, 0x0f, 0x0b],
        Write => &[0x88, 0x03, 0x0f, 0x0b],
        Fetch => &[0xff, 0xe3],
    });
    let error = match g.vector() {
        6 => None,
        14 => {
            assert_eq!(g.state.cr2, address);
            Some(if g.state.efer & EFER_LMA != 0 { g.frame::<8>(1)[0] } else { g.frame::<4>(1)[0] })
        }
        other => panic!("vector {other}"),
    };
    (g, error)
}

#[track_caller]
fn expect(kind: Kind, ring: u8, setup: impl Fn(&mut Guest), what: Access, error: Option<u64>) {
    let mut g = kind.guest(ring);
    setup(&mut g);
    assert_eq!(access(g, what).1, error, "{kind:?}, ring {ring}, {what:?}");
}

const ALL: [Kind; 3] = [Legacy, Pae, Long];

/// SDM 3A figure 4-12: P, W and U.
fn absent_pages() {
    for kind in ALL {
        for (ring, user) in [(0, 0), (3, 4)] {
            for (what, error) in [(Read, 0), (Write, 2), (Fetch, 0)] {
                expect(kind, ring, |g| kind.set_page(g, FRAME | 6), what, Some(error | user));
                expect(kind, ring, |g| kind.set_directory(g, TABLE | 6), what, Some(error | user));
                expect(kind, ring, |_| {}, what, None);
            }
        }
    }
    expect(Pae, 0, |g| g.state.gpr[3] = 0x4000_0000, Read, Some(0));
    expect(Long, 0, |g| g.state.gpr[3] = 0x4000_0000, Read, Some(0));
    expect(Long, 3, |g| g.state.gpr[3] = 1 << 39, Write, Some(6));
}

/// SDM 3A 4.6.1: U/S and R/W of both levels count; WP for supervisors.
fn protection() {
    for kind in ALL {
        let read_only = |g: &mut Guest| kind.set_page(g, FRAME | 5);
        let read_only_table = |g: &mut Guest| kind.set_directory(g, TABLE | 5);
        expect(kind, 3, read_only, Write, Some(7));
        expect(kind, 3, read_only_table, Write, Some(7));
        expect(kind, 3, read_only, Read, None);
        expect(kind, 0, read_only, Write, None);
        let under_wp = |g: &mut Guest| {
            read_only(g);
            g.state.cr0 |= CR0_WP;
        };
        expect(kind, 0, under_wp, Write, Some(3));
        expect(kind, 0, under_wp, Read, None);
        for (what, error) in [(Read, 5), (Write, 7), (Fetch, 5)] {
            expect(kind, 3, |g| kind.set_page(g, FRAME | 3), what, Some(error));
            expect(kind, 3, |g| kind.set_directory(g, TABLE | 3), what, Some(error));
        }
        expect(kind, 0, |g| kind.set_page(g, FRAME | 3), Write, None);
        let smep = |g: &mut Guest| {
            g.state.cr4 |= CR4_SMEP;
            // The code itself is the supervisor's.
            for page in 0..256 {
                kind.put(g, LOW_TABLE, page, page << 12 | 3);
            }
        };
        expect(kind, 0, smep, Fetch, Some(0x11));
        expect(kind, 0, smep, Read, None);
    }
}

/// The NX bit, and what it is without EFER.NXE: reserved.
fn no_execute() {
    for kind in [Pae, Long] {
        for (ring, user) in [(0, 0), (3, 4)] {
            let nx = |g: &mut Guest| kind.set_page(g, FRAME | 7 | 1 << 63);
            let enabled = |g: &mut Guest| {
                nx(g);
                g.state.efer |= EFER_NXE;
            };
            expect(kind, ring, enabled, Fetch, Some(0x11 | user));
            expect(kind, ring, enabled, Write, None);
            expect(kind, ring, nx, Read, Some(9 | user));
            let absent = |g: &mut Guest| {
                kind.set_page(g, 0);
                g.state.efer |= EFER_NXE;
            };
            expect(kind, ring, absent, Fetch, Some(0x10 | user));
        }
        let by_directory = |g: &mut Guest| {
            kind.set_directory(g, TABLE | 7 | 1 << 63);
            g.state.efer |= EFER_NXE;
        };
        expect(kind, 0, by_directory, Fetch, Some(0x11));
    }
}

/// Reserved bits: physical addresses beyond 40 bits, and those of large pages (SDM 3A tables 4-4, 4-9, 4-17).
fn reserved_bits() {
    for kind in [Pae, Long] {
        for bit in [40, 51] {
            expect(kind, 0, |g| kind.set_page(g, FRAME | 7 | 1 << bit), Read, Some(9));
            expect(kind, 3, |g| kind.set_directory(g, TABLE | 7 | 1 << bit), Write, Some(15));
        }
        expect(kind, 0, |g| kind.set_directory(g, 0x87 | 1 << 13), Read, Some(9));
    }
    expect(Pae, 0, |g| Pae.set_page(g, FRAME | 7 | 1 << 52), Read, Some(9));
    // Bits 52 to 62 are software's in long mode.
    expect(Long, 0, |g| Long.set_page(g, FRAME | 7 | 0x7ff << 52), Read, None);
    let pse = |g: &mut Guest| {
        g.state.cr4 |= CR4_PSE;
        Legacy.set_directory(g, 0x87 | 1 << 21);
    };
    expect(Legacy, 0, pse, Read, Some(9));
    // PS in a PML4 entry.
    expect(
        Long,
        0,
        |g| {
            g.poke64(PML4 + 8, POINTERS | 0x87);
            g.state.gpr[3] = 1 << 39;
        },
        Read,
        Some(9),
    );
}

/// 4 MiB, 2 MiB and 1 GiB pages.
fn large_pages() {
    for kind in ALL {
        let large = |g: &mut Guest| {
            g.state.cr4 |= CR4_PSE;
            g.state.gpr[3] = PAGE + FRAME;
            kind.set_directory(g, 0x87);
        };
        for what in [Read, Write, Fetch] {
            expect(kind, 3, large, what, None);
        }
        let mut g = kind.guest(0);
        large(&mut g);
        let (g, _) = access(g, Write);
        assert_eq!(kind.get(&g, DIRECTORY, kind.slot()), 0xe7, "accessed and dirty");
    }
    // Without CR4.PSE the bit means nothing in 32-bit paging.
    expect(Legacy, 0, |g| Legacy.set_directory(g, TABLE | 0x87), Read, None);
    let huge = |g: &mut Guest| {
        g.poke64(POINTERS + 8, 0x87);
        g.state.gpr[3] = 0x4000_0000 + FRAME;
    };
    expect(Long, 3, huge, Fetch, None);
    expect(Long, 0, |g| g.poke64(POINTERS + 8, 0x87 | 1 << 29), Read, None);
    let reserved = |g: &mut Guest| {
        huge(g);
        g.poke64(POINTERS + 8, 0x87 | 1 << 29);
    };
    expect(Long, 0, reserved, Read, Some(9));
}

/// SDM 3A 4.8: accessed by every use, dirty by stores; nothing by an access that faults.
fn accessed_and_dirty_bits() {
    for kind in ALL {
        for (what, bits) in [(Read, 0x20), (Write, 0x60), (Fetch, 0x20)] {
            let (g, error) = access(kind.guest(0), what);
            assert_eq!(error, None);
            assert_eq!(kind.get(&g, TABLE, 0), FRAME | 7 | bits, "{kind:?} {what:?}");
            assert_eq!(kind.get(&g, DIRECTORY, kind.slot()), TABLE | 0x27, "{kind:?} {what:?}");
        }
        let g = kind.guest(3);
        kind.set_page(&g, FRAME | 5);
        let (g, error) = access(g, Write);
        assert_eq!((error, kind.get(&g, TABLE, 0)), (Some(7), FRAME | 5));
    }
    // Read first and then written: the store sets the dirty bit although the translation is known.
    let mut g = Long.guest(0);
    g.run(&[0x8a, 0x03, 0x88, 0x03, 0x0f, 0x0b]);
    assert_eq!(g.peek64(TABLE), FRAME | 0x67);
}

/// A translation never outlives its entry, INVLPG or not.
fn entries_that_change_count_at_once() {
    for kind in ALL {
        let mut g = kind.guest(0);
        g.poke(FRAME, &[0x11]);
        g.poke(0xd000, &[0x22]);
        g.state.gpr[6] = TABLE;
        g.state.gpr[7] = 0xd007;
        // mov al, [rbx]; mov ah, al; mov [rsi], edi; mov al, [rbx]; ud2
        g.run(&[0x8a, 0x03, 0x88, 0xc4, 0x89, 0x3e, 0x8a, 0x03, 0x0f, 0x0b]);
        assert_eq!((g.vector(), g.state.gpr[0] & 0xffff), (6, 0x1122), "{kind:?}");
    }
}

/// Tables of a second space, beside the first one's.
const OTHER: u64 = 0x40000;

/// A 64-bit guest with a second space at [`OTHER`] that maps [`PAGE`] to 0xd000, where it reads 0x22 and the first space 0x11. Both
/// also map the first space's pages in the upper half, from [`UPPER`] on.
fn two_spaces() -> Guest {
    let mut g = Long.guest(0);
    g.poke(FRAME, &[0x11]);
    g.poke(0xd000, &[0x22]);
    g.poke64(OTHER, OTHER + 0x1007);
    g.poke64(OTHER + 0x1000, OTHER + 0x2007);
    g.poke64(OTHER + 0x2000, LOW_TABLE | 7);
    g.poke64(OTHER + 0x2000 + 8 * (PAGE >> 21), OTHER + 0x3007);
    g.poke64(OTHER + 0x3000, 0xd007);
    g.poke64(PML4 + 8 * 256, POINTERS | 0x27);
    g.poke64(OTHER + 8 * 256, POINTERS | 0x27);
    (g.state.gpr[6], g.state.gpr[7]) = (PML4, OTHER);
    g
}
const UPPER: u64 = 0xffff_8000_0000_0000;

/// RAX takes the byte at RBX as its lowest.
const LOOK: &[u8] = &[0x48, 0xc1, 0xe0, 0x08, 0x8a, 0x03]; // shl rax, 8; mov al, [rbx]
const TO_FIRST: &[u8] = &[0x0f, 0x22, 0xde]; // mov cr3, rsi
const TO_OTHER: &[u8] = &[0x0f, 0x22, 0xdf]; // mov cr3, rdi
const STORE: &[u8] = &[0x48, 0x89, 0x11]; // mov [rcx], rdx
const UD2: &[u8] = &[0x0f, 0x0b];

fn seen(g: &mut Guest, code: &[&[u8]]) -> u64 {
    g.state.gpr[0] = 0;
    g.run(&[code.concat().as_slice(), UD2].concat());
    assert_eq!(g.vector(), 6);
    g.state.gpr[0]
}

/// Code in a page that is also a page table: the accessed bit that a walk sets is one of an instruction's bits.
fn a_walk_changes_code() {
    let mut g = Long.guest(0);
    // ADC EAX, EAX; RET, and as an entry: present. With the accessed bit 11 C0 is 31 C0, XOR EAX, EAX.
    const AT: u64 = CODE + 0x100;
    g.poke64(AT, 0xc3_c011);
    g.poke64(DIRECTORY + 8 * ((PAGE >> 21) + 1), CODE & !0xfff | 7);
    g.state.gpr[3] = (((PAGE >> 21) + 1) << 21) + (((AT & 0xfff) / 8) << 12);
    (g.state.gpr[0], g.state.gpr[2]) = (5, AT);
    // call rdx; mov ebp, eax; mov cl, [rbx]; call rdx; ud2
    g.run(&[0xff, 0xd2, 0x89, 0xc5, 0x8a, 0x0b, 0xff, 0xd2, 0x0f, 0x0b]);
    assert_eq!((g.vector(), g.peek64(AT) & 0xff), (6, 0x31));
    assert_eq!((g.state.gpr[5], g.state.gpr[0]), (10, 0));
}

/// Each space has its own translations, also after a state with another CR3 was taken on.
fn spaces_do_not_mix() {
    let mut g = two_spaces();
    let start = g.state.clone();
    assert_eq!(seen(&mut g, &[LOOK, TO_OTHER, LOOK, TO_FIRST, LOOK]), 0x11_22_11);
    g.state = CpuState { cr3: OTHER, ..start };
    assert_eq!(seen(&mut g, &[LOOK, TO_FIRST, LOOK, TO_OTHER, LOOK]), 0x22_11_22);
}

/// What two spaces share in the upper half they share after every change: of a table below both, and of one's root.
fn an_upper_half_that_spaces_share_follows_its_tables() {
    let mut g = two_spaces();
    g.state.gpr[3] = UPPER + PAGE;
    // The page's entry, seen from both.
    (g.state.gpr[1], g.state.gpr[2]) = (TABLE, 0xd007);
    let start = g.state.clone();
    assert_eq!(seen(&mut g, &[LOOK, TO_OTHER, LOOK, STORE, LOOK, TO_FIRST, LOOK]), 0x11_11_22_22);
    // The other space's root: the first one is not concerned.
    g.poke64(TABLE, FRAME | 7);
    g.state = start;
    (g.state.gpr[1], g.state.gpr[2]) = (OTHER + 8 * 256, OTHER + 0x1007);
    assert_eq!(
        seen(&mut g, &[LOOK, TO_OTHER, LOOK, STORE, LOOK, TO_FIRST, LOOK, TO_OTHER, LOOK]),
        0x11_11_22_11_22
    );
}

/// A table that is unlinked becomes an ordinary page; linked again, its entries count at once.
fn a_table_comes_and_goes() {
    let mut g = two_spaces();
    // The directory's entry leads to another table and back; in between the first table's entry changes.
    (g.state.gpr[1], g.state.gpr[2]) = (DIRECTORY + 8 * (PAGE >> 21), OTHER + 0x3007);
    g.state.gpr[8] = TABLE;
    g.state.gpr[9] = 0x5_0007;
    g.state.gpr[10] = TABLE | 7;
    g.poke(0x5_0000, &[0x33]);
    const CHANGE: &[u8] = &[0x4d, 0x89, 0x08]; // mov [r8], r9
    const LINK: &[u8] = &[0x4c, 0x89, 0x11]; // mov [rcx], r10
    assert_eq!(seen(&mut g, &[LOOK, STORE, LOOK, CHANGE, LOOK, LINK, LOOK]), 0x11_22_22_33);
}

/// Operands and instructions that reach into the next page: CR2 is that page's first byte, and nothing is half done.
fn page_crossings() {
    for kind in ALL {
        let prepare = |second: u64| {
            let mut g = kind.guest(0);
            kind.put(&g, TABLE, 1, second);
            g.poke(0xd000, &[0x33, 0x44]);
            g.poke(FRAME + 0xffe, &[0x11, 0x22]);
            g.state.gpr[3] = PAGE + 0xffe;
            g.state.gpr[0] = 0xaabb_ccdd;
            g
        };
        // mov eax, [rbx]; mov [rbx], eax: then ud2
        let mut g = prepare(0xd007);
        g.run(&[0x8b, 0x03, 0x0f, 0x0b]);
        assert_eq!((g.vector(), g.state.gpr[0]), (6, 0x4433_2211));
        let mut g = prepare(0xd007);
        g.run(&[0x89, 0x03, 0x0f, 0x0b]);
        assert_eq!((g.peek16(FRAME + 0xffe), g.peek16(0xd000)), (0xccdd, 0xaabb));
        let mut g = prepare(0);
        g.run(&[0x89, 0x03]);
        assert_eq!((g.vector(), g.state.cr2, g.peek16(FRAME + 0xffe)), (14, PAGE + 0x1000, 0x2211));
        // mov eax, imm32 over the boundary, then ud2
        let mut g = prepare(0xd007);
        g.poke(FRAME + 0xffd, &[0xb8, 1, 2]);
        g.poke(0xd000, &[3, 4, 0x0f, 0x0b]);
        g.state.rip = PAGE + 0xffd;
        g.run_for(3);
        assert_eq!((g.vector(), g.state.gpr[0]), (6, 0x0403_0201));
        let mut g = prepare(0);
        g.poke(FRAME + 0xffd, &[0xb8, 1, 2]);
        g.state.rip = PAGE + 0xffd;
        g.run_for(3);
        assert_eq!((g.vector(), g.state.cr2), (14, PAGE + 0x1000));
    }
}

/// Only 32 bits of linear address outside long mode: an operand at the top wraps to the bottom.
fn linear_addresses_wrap() {
    let mut g = Guest::protected(0);
    g.poke(0, &[0x77, 0x88]);
    g.state.gpr[3] = 0xffff_ffff;
    g.set_descriptor(FREE, descriptor(1, 0xf_ffff, TYPE_DATA, 0xc));
    g.state.gpr[0] = FREE.into();
    g.run(&[0x8e, 0xd8, 0x66, 0x8b, 0x03, 0x0f, 0x0b]); // mov ds, ax; mov ax, [ebx]
    // Offset ffffffff of a word leaves the segment: #GP. One byte lower wraps inside it.
    assert_eq!(g.vector(), 13);
    g = Guest::protected(0);
    g.poke(0, &[0x77, 0x88]);
    g.state.gpr[3] = 0xffff_fffe;
    g.set_descriptor(FREE, descriptor(2, 0xf_ffff, TYPE_DATA, 0xc));
    g.state.gpr[0] = FREE.into();
    g.run(&[0x8e, 0xd8, 0x66, 0x8b, 0x03, 0x0f, 0x0b]);
    assert_eq!((g.vector(), g.state.gpr[0] & 0xffff), (6, 0x8877));
}

/// Alignment checks: ring 3 with CR0.AM and AC only (SDM 3A 6.13, #AC).
fn alignment() {
    use gemel_x86::control::CR0_AM;
    use gemel_x86::flags::AC;
    for (ring, am, ac, address, vector) in [
        (3, CR0_AM, AC, 0x8001, 17),
        (3, CR0_AM, AC, 0x8000, 6),
        (3, CR0_AM, 0, 0x8001, 6),
        (3, 0, AC, 0x8001, 6),
        (0, CR0_AM, AC, 0x8001, 6),
    ] {
        let mut g = Long.guest(ring);
        g.state.cr0 |= am;
        g.state.rflags |= ac;
        g.state.gpr[3] = address;
        g.run(&[0x66, 0x8b, 0x03, 0x0f, 0x0b]);
        assert_eq!(g.vector(), vector, "ring {ring} {am:#x} {ac:#x} {address:#x}");
        if vector == 17 {
            assert_eq!(g.frame::<8>(2), [0, CODE]);
        }
    }
}

/// A walk that ends in a fault has noted its tables, and a mode switch forgets them all the same: the page that was a table of 8-byte
/// entries is one of 4-byte entries now. It maps itself, and each store into its own entry is followed by a new walk,
/// which marks it accessed and dirty.
fn a_table_is_known_anew_after_a_mode_switch() {
    use gemel_machine::Exit;
    const TABLE: u64 = 0x1_0000;
    let mut g = Guest::long(0);
    g.poke64(TABLE, 0);
    assert_eq!(g.run(&[0x90]).exit, Some(Exit::Shutdown), "nothing is mapped");

    g.state = Guest::protected(0).state;
    (g.state.cr0, g.state.cr3, g.state.cr4) = (g.state.cr0 | CR0_PG, TABLE, CR4_PSE);
    g.poke32(TABLE, 0xe3); // 4 MiB at zero
    g.poke32(TABLE + 4 * 1022, 0x0909_0909); // present, never accessed
    g.poke32(TABLE + 4 * 1023, TABLE as u32 | 3);
    g.run(&[
        0xc6, 0x05, 0xf8, 0xff, 0xff, 0xff, 0x09, // mov byte [fffffff8], 9
        0xc6, 0x05, 0xfc, 0xff, 0xff, 0xff, 0x09, // mov byte [fffffffc], 9
        0xc6, 0x05, 0xfd, 0xff, 0xff, 0xff, 0x01, // mov byte [fffffffd], 1
        0xf4,
    ]);
    assert_eq!(g.state.rip, CODE + 22);
    assert_eq!(g.peek32(TABLE + 4 * 1023), TABLE as u32 | 0x169);
}

/// Every case of this table.
pub const CASES: &[Case] = cases![
    absent_pages,
    protection,
    no_execute,
    reserved_bits,
    large_pages,
    accessed_and_dirty_bits,
    entries_that_change_count_at_once,
    a_walk_changes_code,
    spaces_do_not_mix,
    an_upper_half_that_spaces_share_follows_its_tables,
    a_table_comes_and_goes,
    page_crossings,
    linear_addresses_wrap,
    alignment,
    a_table_is_known_anew_after_a_mode_switch
];
